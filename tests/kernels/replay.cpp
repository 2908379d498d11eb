// Runs calls that test_portable.py recorded: from the file of the first argument to that of the second.
// It is built for whatever machine, with cuda/cpu_driver.cpp in it, and needs no Python there.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "cpu_driver.cpp"

// As torch has it, memory begins with a line.
template <class T> struct Lines {
    typedef T value_type;
    Lines() = default;
    template <class U> Lines(const Lines<U> &) {}
    T *allocate(size_t count) { return (T *)aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64); }
    void deallocate(T *at, size_t) { free(at); }
    bool operator==(const Lines &) const { return true; }
    bool operator!=(const Lines &) const { return false; }
};
typedef std::vector<char, Lines<char>> Bytes;

static FILE *in, *out;

static void get(void *to, size_t bytes) {
    if (fread(to, 1, bytes, in) != bytes) throw "the file ends too early";
}

static const CpuKernel *kernel_of(const char *name) {
    for (const CpuKernel *kernel = LB_SET::table; kernel->name; ++kernel)
        if (!strcmp(kernel->name, name)) return kernel;
    throw "there is no such kernel";
}

static size_t size_of(int type) { return type == STORED_DOUBLE ? 8 : type == STORED_FLOAT ? 4 : 2; }

static void replay(const char *name) {
    Call call;
    get(&call, sizeof call);
    bool is_double = call.instructions != 0;
    size_t real = is_double ? sizeof(double) : sizeof(float);
    size_t neurons = call.outer * call.inner, words = neurons * ((call.steps + 31) / 32);
    Bytes inputs[LB_SEQUENCES], outputs[LB_SEQUENCES], parameters[LB_PARAMETERS], results[LB_RESULTS];
    Bytes marks;
    // A pointer of the recording says no more than whether there is something.
    for (int k = 0; k < LB_SEQUENCES; ++k) {
        if (!call.in[k]) continue;
        inputs[k].resize(neurons * call.steps * size_of(call.in_type[k]) + 1);
        get(inputs[k].data(), inputs[k].size() - 1);
        call.in[k] = inputs[k].data();
    }
    for (int k = 0; k < LB_PARAMETERS; ++k) {
        if (!call.parameter[k]) continue;
        parameters[k].resize((call.shared[k] ? 1 : neurons) * real + 1);
        get(parameters[k].data(), parameters[k].size() - 1);
        call.parameter[k] = parameters[k].data();
    }
    if (call.marks) {
        marks.resize(words * sizeof(int) + 1);
        get(marks.data(), marks.size() - 1);
        call.marks = reinterpret_cast<int *>(marks.data());
    }
    for (int k = 0; k < LB_SEQUENCES; ++k) {
        if (!call.out[k]) continue;
        outputs[k].resize(neurons * call.steps * size_of(call.out_type[k]) + 1, 0x55);
        call.out[k] = outputs[k].data();
    }
    for (int k = 0; k < LB_RESULTS; ++k) {
        if (!call.result[k]) continue;
        results[k].resize(neurons * real + 1, 0x55);
        call.result[k] = results[k].data();
    }
    const CpuKernel *kernel = kernel_of(name);
#ifdef EMULATES_AVX512
    streamed = 0;
#endif
    for (int part = 0; part < 3; ++part)
        (is_double ? kernel->run_double : kernel->run_float)(call, part, 3);
#ifdef EMULATES_AVX512
    if (streamed) puts(name);  // something went past the caches
#endif
    for (const Bytes &bytes : outputs) fwrite(bytes.data(), 1, bytes.empty() ? 0 : bytes.size() - 1, out);
    for (const Bytes &bytes : results) fwrite(bytes.data(), 1, bytes.empty() ? 0 : bytes.size() - 1, out);
    fwrite(marks.data(), 1, marks.empty() ? 0 : marks.size() - 1, out);
}

int main(int count, char **arguments) {
    char name[64];
    in = count > 2 ? fopen(arguments[1], "rb") : nullptr;
    out = count > 2 ? fopen(arguments[2], "wb") : nullptr;
    if (!in || !out) return 2;
    try {
        while (fread(name, 1, sizeof name, in) == sizeof name) replay(name);
    } catch (const char *reason) {
        fprintf(stderr, "%s: %s\n", name, reason);
        return 1;
    }
    return fclose(out);
}
