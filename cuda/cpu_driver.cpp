// Runs the programs on the CPU. This file is compiled once for each instruction set (setup.py), with
// LB_SET its name and namespace; cpu_module.cpp picks one at run time. Nothing of the C++ library is
// used here: what the linker merges between files must not carry wider instructions.
//
// Neurons are taken in chunks, in the order of memory. Where a chunk's neurons lie side by side
// (inner > 1, as in TNX) a step's row is read in place; elsewhere (time last, as in NXT) blocks of
// time are turned into rows in a small buffer, and back.

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#if defined(LB_X86)
#include <immintrin.h>
#endif

#include "call.h"
#include "cpu_table.h"

namespace LB_SET {

#include "kernels.h"

#include "rows.h"

// All steps of a chunk. (A call of its own: what comes before it is rounded otherwise.)
template <class L, class Program, class R>
__attribute__((noinline)) static void step_chunk(const Call &call, const Program &program,
                                                 typename Program::Neuron *neurons,
                                                 const Chunk &chunk, typename L::Int &high) {
    if (chunk.side_by_side) {
        in_place<L, Program, R>(call, program, neurons, chunk.first, chunk.count, high);
    } else {
        turned<L, Program, R>(call, program, neurons, chunk, high);
    }
}

// While there is one, the CPU rounds toward zero, where numbers are whole.
template <bool whole> struct TowardZero {
#if defined(LB_X86)
    const void *program, *neurons;
    unsigned before;

    LB_INLINE TowardZero(const void *program, const void *neurons)
        : program(program), neurons(neurons), before(_mm_getcsr()) {
        if (whole) set(before | _MM_ROUND_TOWARD_ZERO);
    }
    LB_INLINE ~TowardZero() {
        if (whole) set(before);
    }

    // Compilers move arithmetic over a change of the mode, but not what has to be in memory there.
    LB_INLINE void set(unsigned mode) const {
        __asm__ volatile("" : : "r"(program), "r"(neurons) : "memory");
        _mm_setcsr(mode);
        __asm__ volatile("" : : "r"(program), "r"(neurons) : "memory");
    }
#else
    LB_INLINE TowardZero(const void *, const void *) {}
#endif
};

// A chunk with integers of one width. False: they were too narrow.
template <class L, class Program, class R>
static bool run_chunk(const Call &call, const Chunk &chunk) {
    const long long first = chunk.first;
    const int count = chunk.count;
    Program program(call);
    typename Program::Neuron neurons[IN_PLACE / L::count];
    typename L::Int high = L::zero();
    for (int j = 0; j < count; j += L::count) {
        At<L, R> at = {call, first + j, count - j < L::count ? count - j : L::count};
        program.start(neurons[j / L::count], at, high);
    }
    if (Program::integers && Fixed<L>::is_beyond(high)) return false;
    TowardZero<L::whole> rounding(&program, neurons);
    step_chunk<L, Program, R>(call, program, neurons, chunk, high);
    for (int j = 0; j < count; j += L::count) {
        At<L, R> at = {call, first + j, count - j < L::count ? count - j : L::count};
        program.finish(neurons[j / L::count], at, high);
    }
    return !(Program::integers && Fixed<L>::is_beyond(high));
}

// A program for usual calls, in floats: without flags, and with the sequences of its form number
// `form`. Integers are whole numbers where all else that it computes is exact.
template <bool exact> struct LanesOfUsual {
    typedef UsualLanes L;
};
template <> struct LanesOfUsual<true> {
    typedef WholeLanes L;
};
template <template <class> class P, int form> struct Usual
    : P<typename LanesOfUsual<P<UsualLanes>::exact>::L> {
    typedef typename LanesOfUsual<P<UsualLanes>::exact>::L L;
    static constexpr Sequences sequences = P<L>::usual[form];
    LB_INLINE explicit Usual(const Call &call) : P<L>(call) {}
};

template <class Program, class = void> struct UsualForms {
    static const int count = 0;
};
template <class Program> struct UsualForms<Program, decltype((void)Program::usual)> {
    static const int count = sizeof(Program::usual) / sizeof(Sequences);
};

static bool has(const Call &call, const Sequences &sequences) {
    Sequences there = {0, 0};
    for (int k = 0; k < LB_SEQUENCES; ++k) {
        there.in |= (unsigned)(call.in[k] != NULL) << k;
        there.out |= (unsigned)(call.out[k] != NULL) << k;
    }
    return there.in == sequences.in && there.out == sequences.out;
}

// What runs a chunk of a call first: the program of its usual form, or null if it has none.
typedef bool (*RunChunk)(const Call &call, const Chunk &chunk);

template <template <class> class P, class R, int form = 0>
static RunChunk usual_for(const Call &call) {
    if constexpr (sizeof(R) == sizeof(float) && form < UsualForms<P<Lanes<R, int>>>::count) {
        typedef Usual<P, form> Program;
        if (!has(call, Program::sequences)) return usual_for<P, R, form + 1>(call);
        if (P<Lanes<R, int>>(call).is_usual()) return run_chunk<typename Program::L, Program, R>;
    }
    return NULL;
}

template <template <class> class P> static bool is_usual(const Call &call) {
    return usual_for<P, float>(call);
}

// How many neurons whose steps are turned make a chunk: fewer where a chunk and the one that is fetched
// meanwhile would not stay in a core's own cache.
template <class Program, class R> static int turned_together(const Call &call) {
    long long numbers = 0, neurons = TURNED;
    for (int k = 0; k < Program::inputs; ++k) numbers += call.in[k] != NULL;
    for (int k = 0; k < Program::outputs; ++k) numbers += call.out[k] != NULL;
    numbers *= call.steps;
    while (neurons > LEAST_TURNED && neurons * numbers * (int)sizeof(R) > call.own_cache / 2)
        neurons /= 2;
    return (int)neurons;
}

// Memory where outputs of such a chunk are gathered on their way past the caches; null if they don't have
// to, would gain nothing (rows of less than a line), would not stay in a core's own cache, or there is none.
template <class Program, class R> static char *new_stage(const Call &call, int neurons) {
    if (!goes_past(call) || call.inner != 1 || lines_go_past<Program, R>(call)) return NULL;
    if (call.steps * sizeof(R) < LINE) return NULL;
    size_t bytes = LINE, room = Stage<Program, R>::room(neurons * call.steps * sizeof(R));
    for (int k = 0; k < Program::outputs; ++k) bytes += call.out[k] ? room : 0;
    if (bytes > (size_t)call.own_cache / 2) return NULL;
    return (char *)malloc(bytes);
}

// The chunks part, part + parts, ... of a call.
template <template <class> class P, class R>
static void run(const Call &call, long long part, long long parts) {
    typedef Lanes<R, int> Narrow;
    typedef Lanes<R, long long> Wide;
    const RunChunk usual = usual_for<P, R>(call);
    bool side_by_side = call.inner >= 16;
    int together = turned_together<P<Narrow>, R>(call);
    char *stage = side_by_side ? NULL : new_stage<P<Narrow>, R>(call, together);
    long long most = side_by_side ? IN_PLACE : together;
    // A chunk in place stays within one row of `inner` neurons.
    long long rows = side_by_side ? call.outer : 1;
    long long row = side_by_side ? call.inner : call.outer * call.inner;
    long long in_row = (row + most - 1) / most;
    long long chunks = rows * in_row;
    for (long long i = chunks * part / parts; i < chunks * (part + 1) / parts; ++i) {
        long long start = i % in_row * most;
        int count = (int)(row - start < most ? row - start : most);
        const Chunk chunk = {i / in_row * row + start, count, side_by_side, stage};
        bool done = usual && usual(call, chunk);
        if (!done) done = run_chunk<Narrow, P<Narrow>, R>(call, chunk);
        if constexpr (P<Narrow>::integers)
            if (!done) run_chunk<Wide, P<Wide>, R>(call, chunk);
    }
    free(stage);
#if defined(LB_X86)
    // What went past the caches is there for other threads. (It waits for that: not in each chunk.)
    if (call.past_caches == PAST_ALWAYS) _mm_sfence();
#endif
}

// Neurons side by side in memory that all move by the same steps; E: an element's bytes.
template <class E>
static void move(const Call &call, long long first, long long count, long long by) {
    long long length = call.steps, inner = call.inner;
    const E *in = (const E *)call.in[0] + first / inner * length * inner + first % inner;
    E *out = (E *)call.out[0] + first / inner * length * inner + first % inner;
    if (inner > 1) {
        for (long long t = 0; t < length; ++t, out += inner) {
            bool inside = t >= by && t < length + by;
            if (inside) memcpy(out, in + (t - by) * inner, count * sizeof(E));
            if (!inside) memset(out, 0, count * sizeof(E));
        }
        return;
    }
    // Time last: all is moved at once; what came over from a neighbour is then made zero.
    long long ahead = by > 0 ? by : 0, behind = by < 0 ? -by : 0;
    memcpy(out + ahead, in + behind, (count * length - ahead - behind) * sizeof(E));
    for (long long j = 0; j < count; ++j, out += length) {
        for (long long t = 0; t < ahead; ++t) out[t] = 0;
        for (long long t = length - behind; t < length; ++t) out[t] = 0;
    }
}

// Runs a gather: the neurons of a share, those with the same steps together.
template <template <class> class Gather, class R>
static void gather(const Call &call, long long part, long long parts) {
    // What is moved at once stays in the cache until its ends are made zero.
    long long neurons = call.outer * call.inner, most = (1 << 14) / call.steps + 1;
    bool shared = !call.parameter[0] || call.shared[0];
    long long end = neurons * (part + 1) / parts;
    for (long long first = neurons * part / parts; first < end;) {
        long long last = call.inner > 1 ? (first / call.inner + 1) * call.inner : first + most;
        if (last > end) last = end;
        long long by = Gather<R>::steps(call, first), next = first + 1;
        if (shared) next = last;
        while (next < last && Gather<R>::steps(call, next) == by) ++next;
        switch (call.in_type[0]) {
        case STORED_DOUBLE: move<long long>(call, first, next - first, by); break;
        case STORED_FLOAT: move<int>(call, first, next - first, by); break;
        default: move<short>(call, first, next - first, by);
        }
        first = next;
    }
}

#define LB_ENTRY(name, Program) \
    {#name, run<Program, float>, run<Program, double>, is_usual<Program>},
#define LB_GATHER(name, Program) {#name, gather<Program, float>, gather<Program, double>, NULL},
extern const CpuKernel table[] = {LB_KERNELS(LB_ENTRY) LB_GATHERS(LB_GATHER){NULL}};

}  // namespace LB_SET
