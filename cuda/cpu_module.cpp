// The Python module lava_bridge.kernels._native: runs a Call by the name of its kernel.
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef LB_X86
#include <cpuid.h>
#endif
#ifdef __linux__
#include <dlfcn.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "cpu_table.h"

namespace {

struct InstructionSet {
    const char *name;
    const CpuKernel *table;
    bool (*is_there)();
};

// The best last.
const InstructionSet SETS[] = {
    {"baseline", baseline::table, [] { return true; }},
#ifdef LB_X86
    {"avx2", avx2::table,
     [] {
         return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
     }},
    {"avx512", avx512::table,
     [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl");
     }},
#endif
};
const int SET_COUNT = sizeof(SETS) / sizeof(SETS[0]);

// Bytes of the caches: of that which a core has for itself, and of the last, which cores share; 0:
// unknown. (sysconf of glibc 2.36 tells AMD's last of a whole socket, not of one of its groups of cores.)
struct Caches {
    int own = 0;
    long long last = 0;
};
Caches caches() {
    Caches found;
#ifdef LB_X86
    unsigned kind, lines, sets, flags;
    // One list of caches is Intel's, one AMD's, alike; each from the first to the last.
    for (unsigned list : {0x4u, 0x8000001du})
        for (unsigned k = 0; k < 8 && __get_cpuid_count(list, k, &kind, &lines, &sets, &flags); ++k) {
            if (!(kind & 31)) break;
            long long ways = (lines >> 22) + 1, partitions = (lines >> 12 & 1023) + 1;
            found.last = ways * partitions * ((lines & 4095) + 1) * (sets + 1LL);
            if ((kind >> 5 & 7) == 2) found.own = static_cast<int>(found.last);
        }
#endif
    return found;
}

// What a last cache counts for at most: larger ones are of a whole socket, for all of its cores.
const long long MOST_CACHE = 128LL << 20;

// Whether a call's sequences are too large for that: whoever reads its outputs next finds little of them
// there. (Measured with that reader. On a Zen 3 what goes past loses well below half of the cache, makes little
// difference at half of it, and gains from three quarters on; on a Zen 4 it gains from a quarter on; of the
// 480 MiB of an Intel Xeon, two of its cores gain from 50 MB on with time first, from 80 with time last. A
// call that runs on several groups of cores has more cache than is counted here.)
bool is_large(const Call &call, bool is_double) {
    static const long long most = std::min(caches().last, MOST_CACHE) / 2;
    long long numbers = 0;
    for (int k = 0; k < LB_SEQUENCES; ++k) numbers += (call.in[k] != nullptr) + (call.out[k] != nullptr);
    numbers *= call.outer * call.steps * call.inner;
    return most && numbers * (is_double ? 8 : 4) > most;
}

// What a core has for itself, where it does not say so: the least that is common.
const int USUAL_CACHE = 1 << 18;

// Below so many neuron steps a second thread costs more than it saves.
const long long STEPS_A_THREAD = 1 << 15;

const CpuKernel *find(int instructions, const char *name) {
    for (int i = SET_COUNT - 1; i >= 0; --i) {
        if ((instructions && i != instructions - 1) || !SETS[i].is_there()) continue;
        for (const CpuKernel *kernel = SETS[i].table; kernel->name; ++kernel)
            if (!std::strcmp(kernel->name, name)) return kernel;
    }
    return nullptr;
}

// Shares for each thread: whoever is done early takes another, so that a busy core delays nobody.
const long long SHARES_A_THREAD = 8;

// OpenMP's way to run a function in a team of threads, if a library of it is loaded: torch's. Its
// threads wait for torch's next operator by spinning, on the cores that threads of our own would need.
// The team does not come along when a process forks: a child has to do without.
typedef void (*InTeam)(void (*function)(void *), void *data, unsigned threads, unsigned flags);

InTeam team() {
#ifdef __linux__
    static const pid_t here = getpid();
    static const InTeam found = reinterpret_cast<InTeam>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return getpid() == here ? found : nullptr;
#else
    return nullptr;
#endif
}

void run_in_threads(CpuRun run, const Call &call) {
    long long work = call.outer * call.steps * call.inner / STEPS_A_THREAD + 1;
    long long threads = call.threads < work ? call.threads : work;
    if (threads <= 1) return run(call, 0, 1);
    std::atomic<long long> next{0};
    long long shares = threads * SHARES_A_THREAD;
    auto take_shares = [&] {
        for (long long share = next++; share < shares; share = next++) run(call, share, shares);
    };
    if (InTeam in_team = team()) {
        auto enter = [](void *function) { (*static_cast<decltype(take_shares) *>(function))(); };
        in_team(enter, &take_shares, static_cast<unsigned>(threads), 0);
        return;
    }
    std::vector<std::thread> helpers;
    try {
        for (long long i = 1; i < threads; ++i) helpers.emplace_back(take_shares);
    } catch (const std::system_error &) {
        // No more threads to be had: those there are do the work.
    }
    take_shares();
    for (std::thread &helper : helpers) helper.join();
}

// The call at an address, and its kernel; null with an exception if there is none.
const CpuKernel *kernel_of(const char *name, PyObject *address, const Call *&call) {
    call = static_cast<const Call *>(PyLong_AsVoidPtr(address));
    if (!call) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "expected the address of a call, found 0");
        return nullptr;
    }
    const CpuKernel *kernel = find(call->instructions, name);
    if (!kernel) PyErr_Format(PyExc_ValueError, "there is no kernel %s", name);
    return kernel;
}

PyObject *run(PyObject *, PyObject *args) {
    const char *name;
    PyObject *address;
    const Call *call;
    int is_double;
    if (!PyArg_ParseTuple(args, "sOp", &name, &address, &is_double)) return nullptr;
    const CpuKernel *kernel = kernel_of(name, address, call);
    if (!kernel) return nullptr;
    static const int own = caches().own;
    Call told = *call;
    if (!told.own_cache) told.own_cache = own ? own : USUAL_CACHE;
    if (told.past_caches == PAST_IF_LARGE)
        told.past_caches = is_large(told, is_double) ? PAST_ALWAYS : PAST_NEVER;
    PyThreadState *state = PyEval_SaveThread();
    run_in_threads(is_double ? kernel->run_double : kernel->run_float, told);
    PyEval_RestoreThread(state);
    Py_RETURN_NONE;
}

PyObject *is_usual(PyObject *, PyObject *args) {
    const char *name;
    PyObject *address;
    const Call *call;
    if (!PyArg_ParseTuple(args, "sO", &name, &address)) return nullptr;
    const CpuKernel *kernel = kernel_of(name, address, call);
    if (!kernel) return nullptr;
    return PyBool_FromLong(kernel->is_usual && kernel->is_usual(*call));
}

PyObject *is_large(PyObject *, PyObject *args) {
    const char *name;
    PyObject *address;
    const Call *call;
    int is_double;
    if (!PyArg_ParseTuple(args, "sOp", &name, &address, &is_double)) return nullptr;
    if (!kernel_of(name, address, call)) return nullptr;
    return PyBool_FromLong(is_large(*call, is_double));
}

PyObject *instruction_sets(PyObject *, PyObject *) {
    PyObject *names = PyList_New(0);
    for (int i = 0; names && i < SET_COUNT; ++i) {
        if (!SETS[i].is_there()) continue;
        PyObject *name = PyUnicode_FromString(SETS[i].name);
        if (!name || PyList_Append(names, name)) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

PyObject *has_team(PyObject *, PyObject *) { return PyBool_FromLong(team() != nullptr); }

PyObject *call_size(PyObject *, PyObject *) { return PyLong_FromSize_t(sizeof(Call)); }

PyMethodDef METHODS[] = {
    {"run", run, METH_VARARGS, "run(kernel, address of a Call, whether in double precision)"},
    {"is_usual", is_usual, METH_VARARGS,
     "is_usual(kernel, address of a Call): whether a program for usual calls runs it in floats"},
    {"is_large", is_large, METH_VARARGS,
     "is_large(kernel, address of a Call, whether in double precision): whether its sequences exceed the caches"},
    {"instruction_sets", instruction_sets, METH_NOARGS, "What this CPU has, the best last."},
    {"has_team", has_team, METH_NOARGS, "Whether calls run in a team of OpenMP's, which is loaded."},
    {"call_size", call_size, METH_NOARGS, "Bytes of a Call."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_native", "The kernels on the CPU.", -1, METHODS,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__native() {
    team();  // remembers the process
    return PyModule_Create(&MODULE);
}
