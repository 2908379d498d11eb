// Runs the programs on the CPU. This file is compiled once for each instruction set (setup.py), with
// LB_SET its name and namespace; cpu_module.cpp picks one at run time. Nothing of the C++ library is
// used here: what the linker merges between files must not carry wider instructions.
//
// Neurons are taken in chunks, in the order of memory. Where a chunk's neurons lie side by side
// (inner > 1, as in TNX) a step's row is read in place; elsewhere (time last, as in NXT) blocks of
// time are turned into rows in a small buffer, and back.

#include <stddef.h>
#include <string.h>
#if defined(LB_X86)
#include <immintrin.h>
#endif

#include "call.h"
#include "cpu_table.h"

namespace LB_SET {

#include "kernels.h"

#include "turn.h"

// Neurons in a chunk that is read in place: rows long enough to stream, states that stay in the L1
// cache; and for which later row the CPU is asked while it computes one.
static const int IN_PLACE = 512;
static const int AHEAD = 2;
// Which sequences a program has, where that is known: it is then asked for in no step.
template <class Program, class = void> struct Told {
    static const int count = Program::inputs + Program::outputs;
    LB_INLINE static bool reads(const void *in, int) { return in; }
    LB_INLINE static bool writes(void *out, int) { return out; }
};
template <class Program> struct Told<Program, decltype((void)Program::sequences)> {
    static constexpr Sequences told = Program::sequences;
    static const int count = __builtin_popcount(told.in) + __builtin_popcount(told.out);
    LB_INLINE static bool reads(const void *, int k) { return told.in >> k & 1; }
    LB_INLINE static bool writes(void *, int k) { return told.out >> k & 1; }
};

// Neurons and steps of a block that is turned: whole lines of memory, two of them where a program's
// rows, and what is fetched ahead of them, still stay in the L1 cache then.
static const int TURNED = 64;
template <class Program, class R> struct Turned {
    static const bool few = Told<Program>::count <= 5 && sizeof(R) == sizeof(float);
    static const int steps = few ? 32 : 16;
};

// Where a pack of neurons finds its parameters and leaves its results.
template <class L, class R> struct At {
    const Call &call;
    long long neuron;  // the first one's place in memory order
    int count;         // how many of the pack are there

    LB_INLINE typename L::Real parameter(int k) const {
        const R *values = (const R *)call.parameter[k];
        if (!values) return L::all(0);
        if (call.shared[k]) return L::all(values[0]);
        typename L::Real pack = L::all(0);
        memcpy(&pack, values + neuron, count * sizeof(R));
        return pack;
    }

    LB_INLINE void result(int k, typename L::Real pack) const {
        R *values = (R *)call.result[k];
        if (values) memcpy(values + neuron, &pack, count * sizeof(R));
    }
};

// The first `count` numbers of a pack from or to memory. A whole pack is one unaligned register.
template <bool whole, class Pack, class R>
LB_INLINE void load(Pack &pack, const R *from, int count) {
    if constexpr (whole) {
        pack = Loose<Pack>::read(from);
    } else {
        pack = Pack{};
        for (int lane = 0; lane < count; ++lane) pack[lane] = from[lane];
    }
}

template <bool whole, class Pack, class R>
LB_INLINE void store(R *to, const Pack &pack, int count) {
    if constexpr (whole) {
        Loose<Pack>::write(to, pack);
    } else {
        for (int lane = 0; lane < count; ++lane) to[lane] = pack[lane];
    }
}

// One time step of a pack of neurons, whole or not.
template <bool whole, class L, class Program, class R>
LB_INLINE void step_pack(const Program &program, typename Program::Neuron &neuron, int count,
                         const R *const *in, R *const *out, size_t first, typename L::Int &high) {
    typename L::Real x[Program::inputs], y[Program::outputs];
    for (int k = 0; k < Program::inputs; ++k) {
        if (Told<Program>::reads(in[k], k)) {
            load<whole>(x[k], in[k] + first, count);
        } else {
            x[k] = L::all(0);
        }
    }
    program.step(neuron, x, y, high);
    for (int k = 0; k < Program::outputs; ++k) {
        if (Told<Program>::writes(out[k], k)) store<whole>(out[k] + first, y[k], count);
    }
}

// One time step of a chunk, from rows to rows; rows that come later lie `ahead` numbers further on.
template <class L, class Program, class R>
LB_INLINE void step_row(const Program &shared, typename Program::Neuron *neuron, size_t count,
                        const R *const *in, R *const *out, long long ahead,
                        typename L::Int &high) {
    // Copies of what is the same for all packs: nothing that is stored can change them, so they
    // stay in registers.
    const Program program = shared;
    typename L::Int highest = high;
    const R *from[Program::inputs];
    R *to[Program::outputs];
    for (int k = 0; k < Program::inputs; ++k) from[k] = in[k];
    for (int k = 0; k < Program::outputs; ++k) to[k] = out[k];
    size_t first = 0;
    for (; first + L::count <= count; first += L::count, ++neuron) {
        // A line of each row at a time: asked for all at once, the CPU waits.
        if (first % (64 / sizeof(R)) == 0) {
            for (int k = 0; k < Program::inputs; ++k)
                if (Told<Program>::reads(from[k], k))
                    __builtin_prefetch(from[k] + first + ahead);
            for (int k = 0; k < Program::outputs; ++k)
                if (Told<Program>::writes(to[k], k))
                    __builtin_prefetch(to[k] + first + ahead, 1);
        }
        step_pack<true, L>(program, *neuron, L::count, from, to, first, highest);
    }
    if (first < count)
        step_pack<false, L>(program, *neuron, (int)(count - first), from, to, first, highest);
    high = highest;
}

// Word number `word` of a chunk's marks, to memory, or from it where the program is reversed.
template <class L, class Program>
LB_INLINE void move_marks(const Call &call, typename Program::Neuron *neurons, long long first,
                          int count, long long word) {
    if constexpr (HasMarks<Program>::value) {
        if (!call.marks) return;
        long long row = call.inner * words_of(call.steps), place = first % call.inner;
        int *words = call.marks + first / call.inner * row + word * call.inner;
        // Where they lie side by side, a pack of them at a time.
        bool together = place + count <= call.inner || row == call.inner;
        for (int j = 0, moved; j < count; j += moved) {
            char *own = (char *)&neurons[j / L::count].marks + j % L::count * sizeof(int);
            int *kept = words + place;
            moved = together && j + L::count <= count ? L::count : 1;
            if (moved > 1) {
                if (Program::reversed) memcpy(own, kept, L::count * sizeof(int));
                if (!Program::reversed) memcpy(kept, own, L::count * sizeof(int));
            } else {
                if (Program::reversed) memcpy(own, kept, sizeof(int));
                if (!Program::reversed) memcpy(kept, own, sizeof(int));
            }
            place += moved;
            if (!together && place == call.inner) place = 0, words += row;
        }
    }
}

template <class L, class Program>
LB_INLINE void settle_all(const Program &program, typename Program::Neuron *neurons, int count) {
    for (int j = 0; j < count; j += L::count) settle(program, neurons[j / L::count], 0);
}

template <class L, class Program, class R>
static void in_place(const Call &call, const Program &program, typename Program::Neuron *neurons,
                     long long neuron, int count, typename L::Int &high) {
    long long base = neuron / call.inner * call.steps * call.inner + neuron % call.inner;
    const R *in[Program::inputs];
    R *out[Program::outputs];
    for (long long i = 0; i < call.steps; ++i) {
        long long t = Program::reversed ? call.steps - 1 - i : i;
        long long row = base + t * call.inner;
        for (int k = 0; k < Program::inputs; ++k)
            in[k] = call.in[k] ? (const R *)call.in[k] + row : NULL;
        for (int k = 0; k < Program::outputs; ++k)
            out[k] = call.out[k] ? (R *)call.out[k] + row : NULL;
        // Rows lie too far apart for the CPU to see by itself which is next, to read or to write.
        // After the last it is the first one of the next chunk.
        bool ends = i + AHEAD >= call.steps;
        long long ahead = (AHEAD - (ends ? call.steps : 0)) * call.inner;
        ahead = (Program::reversed ? -ahead : ahead) + (ends ? count : 0);
        bool last = t % MARKS == MARKS - 1 || t == call.steps - 1;
        long long word = t / MARKS;
        if (Program::reversed && last) move_marks<L, Program>(call, neurons, neuron, count, word);
        step_row<L, Program, R>(program, neurons, count, in, out, ahead, high);
        if (t && t % SETTLED == 0) settle_all<L>(program, neurons, count);
        if (!Program::reversed && last) move_marks<L, Program>(call, neurons, neuron, count, word);
    }
}

// A block of time of a chunk.
struct Block {
    const long long *offset;  // where each neuron begins in a sequence
    int count, steps;
    long long start, next;    // what is added to that: for this block, for the one after it
};

// A block of a sequence to rows.
template <class R>
static void turn_in(const Call &call, const Block &block, const void *sequence, R *rows) {
    const int width = Tile<R>::width;
    const R *from = (const R *)sequence + block.start;
    long long end = call.outer * call.steps - block.start;
    for (int first = 0; first < block.count; first += width) {
        for (int start = 0; start < block.steps; start += width) {
            const R *tile = from + block.offset[first] + start;
            // Whole rows: what follows a neuron's last step is another's first, and nobody's row.
            if (call.inner == 1 && first + width <= block.count &&
                block.offset[first + width - 1] + start + width <= end) {
                R *turned = rows + start * TURNED + first;
                Tile<R>::turn([=](int j) { return tile + j * call.steps; },
                              [=](int t) { return turned + t * TURNED; });
            } else {
                for (int j = first; j < block.count && j < first + width; ++j)
                    for (int t = start; t < block.steps && t < start + width; ++t)
                        rows[t * TURNED + j] = from[block.offset[j] + t * call.inner];
            }
        }
    }
}

template <class R>
static void turn_out(const Call &call, const Block &block, const R *rows, void *sequence) {
    const int width = Tile<R>::width;
    R *to = (R *)sequence + block.start;
    for (int first = 0; first < block.count; first += width) {
        for (int start = 0; start < block.steps; start += width) {
            R *tile = to + block.offset[first] + start;
            int steps = block.steps - start < width ? block.steps - start : width;
            if (call.inner == 1 && first + width <= block.count) {
                const R *turned = rows + start * TURNED + first;
                Tile<R>::turn([=](int t) { return turned + t * TURNED; },
                              [=](int j) { return tile + j * call.steps; }, steps);
            } else {
                for (int j = first; j < block.count && j < first + width; ++j)
                    for (int t = start; t < start + steps; ++t)
                        to[block.offset[j] + t * call.inner] = rows[t * TURNED + j];
            }
        }
    }
}

// Asks for a neuron's part of the next block. The CPU does not see by itself which that is, and waits
// for memory if it is asked for all of it at once.
template <class Program, class R>
LB_INLINE void fetch(const Call &call, const Block &block, int neuron) {
    // The line at the nearer end came with the block before.
    const int line = 64 / sizeof(R), far = Program::reversed ? 0 : line - 1;
    for (int ahead = 0; ahead < Turned<Program, R>::steps; ahead += line) {
        long long at = block.next + block.offset[neuron] + ahead + far;
        for (int k = 0; k < Program::inputs; ++k)
            if (Told<Program>::reads(call.in[k], k))
                __builtin_prefetch((const R *)call.in[k] + at, 0);
        for (int k = 0; k < Program::outputs; ++k)
            if (Told<Program>::writes(call.out[k], k))
                __builtin_prefetch((const R *)call.out[k] + at, 1);
    }
}

// A block of time of packs that are stepped together, in rows; `place` is the first one's in them,
// and only a single pack may be less than whole. The steps of one pack wait for each other, those of
// several do not. What goes out takes the place of what came in.
template <int packs, bool whole, class L, class Program, class R>
LB_INLINE void step_block(const Call &call, const Block &block, const Program &shared,
                          typename Program::Neuron *neurons, int place, R *rows,
                          typename L::Int &high) {
    // Copies, as in step_row.
    const Program program = shared;
    neurons += place / L::count;
    typename Program::Neuron now[packs];
#pragma GCC unroll 4
    for (int k = 0; k < packs; ++k) now[k] = neurons[k];
    typename L::Int highest = high;
    const int most = Turned<Program, R>::steps;
    int here = whole ? packs * L::count : block.count - place;
    for (int i = 0; i < block.steps; ++i) {
        for (int j = i; j < here; j += block.steps) fetch<Program, R>(call, block, place + j);
        int first = (Program::reversed ? block.steps - 1 - i : i) * TURNED + place;
        const R *from[Program::inputs];
        R *to[Program::outputs];
        for (int k = 0; k < Program::inputs; ++k)
            from[k] = call.in[k] ? rows + k * most * TURNED : NULL;
        for (int k = 0; k < Program::outputs; ++k)
            to[k] = call.out[k] ? rows + k * most * TURNED : NULL;
#pragma GCC unroll 4
        for (int k = 0; k < packs; ++k)
            step_pack<whole, L>(program, now[k], here, from, to, first + k * L::count, highest);
    }
#pragma GCC unroll 4
    for (int k = 0; k < packs; ++k) neurons[k] = now[k];
    high = highest;
}

template <class L, class Program, class R>
static void turned(const Call &call, const Program &program, typename Program::Neuron *neurons,
                   long long first, int count, typename L::Int &high) {
    const int most = Program::inputs > Program::outputs ? Program::inputs : Program::outputs;
    const int length = Turned<Program, R>::steps;
    R rows[most][length * TURNED];
    long long offset[TURNED];
    long long row = first / call.inner * call.steps * call.inner, place = first % call.inner;
    for (int j = 0; j < count; ++j) {
        offset[j] = row + place;
        if (++place == call.inner) place = 0, row += call.steps * call.inner;
    }
    static_assert(MARKS % length == 0, "a word of marks has whole blocks");
    static_assert(length % Tile<R>::width == 0, "a block has whole tiles");
    long long blocks = (call.steps + length - 1) / length;
    long long by = Program::reversed ? -length * call.inner : length * call.inner;
    for (long long i = 0; i < blocks; ++i) {
        long long done = (Program::reversed ? blocks - 1 - i : i) * length;
        Block block = {offset, count, length, done * call.inner, 0};
        if (call.steps - done < length) block.steps = (int)(call.steps - done);
        // After the last it is the first one of the next chunk.
        block.next = block.start + (i + 1 < blocks ? by : count * call.steps - i * by);
        bool last = (done + length) % MARKS == 0 || done + length >= call.steps;
        long long word = done / MARKS;
        if (Program::reversed && last) move_marks<L, Program>(call, neurons, first, count, word);
        for (int k = 0; k < Program::inputs; ++k)
            if (call.in[k]) turn_in<R>(call, block, call.in[k], rows[k]);
        // Some packs at a time. (Adjoints gain nothing by more than one, and integers of 64 bits fill
        // the registers.)
        const int packs = L::whole ? 4 : L::narrow && !Program::reversed ? 2 : 1;
        int place = 0;
        for (; place + packs * L::count <= count; place += packs * L::count)
            step_block<packs, true, L>(call, block, program, neurons, place, rows[0], high);
        if constexpr (packs > 1)
            for (; place + L::count <= count; place += L::count)
                step_block<1, true, L>(call, block, program, neurons, place, rows[0], high);
        if (place < count)
            step_block<1, false, L>(call, block, program, neurons, place, rows[0], high);
        if (done && done % SETTLED == 0) settle_all<L>(program, neurons, count);
        for (int k = 0; k < Program::outputs; ++k)
            if (call.out[k]) turn_out<R>(call, block, rows[k], call.out[k]);
        if (!Program::reversed && last) move_marks<L, Program>(call, neurons, first, count, word);
    }
}

// All steps of a chunk. (A call of its own: what comes before it is rounded otherwise.)
template <class L, class Program, class R>
__attribute__((noinline)) static void step_chunk(const Call &call, const Program &program,
                                                 typename Program::Neuron *neurons,
                                                 long long first, int count, bool side_by_side,
                                                 typename L::Int &high) {
    if (side_by_side) {
        in_place<L, Program, R>(call, program, neurons, first, count, high);
    } else {
        turned<L, Program, R>(call, program, neurons, first, count, high);
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
static bool run_chunk(const Call &call, long long first, int count, bool side_by_side) {
    Program program(call);
    typename Program::Neuron neurons[IN_PLACE / L::count];
    typename L::Int high = L::zero();
    for (int j = 0; j < count; j += L::count) {
        At<L, R> at = {call, first + j, count - j < L::count ? count - j : L::count};
        program.start(neurons[j / L::count], at, high);
    }
    if (Program::integers && Fixed<L>::is_beyond(high)) return false;
    TowardZero<L::whole> rounding(&program, neurons);
    step_chunk<L, Program, R>(call, program, neurons, first, count, side_by_side, high);
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
typedef bool (*RunChunk)(const Call &call, long long first, int count, bool side_by_side);

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

// The chunks part, part + parts, ... of a call.
template <template <class> class P, class R>
static void run(const Call &call, long long part, long long parts) {
    typedef Lanes<R, int> Narrow;
    typedef Lanes<R, long long> Wide;
    const RunChunk usual = usual_for<P, R>(call);
    bool side_by_side = call.inner >= 16;
    long long most = side_by_side ? IN_PLACE : TURNED;
    // A chunk in place stays within one row of `inner` neurons.
    long long rows = side_by_side ? call.outer : 1;
    long long row = side_by_side ? call.inner : call.outer * call.inner;
    long long in_row = (row + most - 1) / most;
    long long chunks = rows * in_row;
    for (long long chunk = chunks * part / parts; chunk < chunks * (part + 1) / parts; ++chunk) {
        long long start = chunk % in_row * most;
        int count = (int)(row - start < most ? row - start : most);
        long long first = chunk / in_row * row + start;
        bool done = usual && usual(call, first, count, side_by_side);
        if (!done) done = run_chunk<Narrow, P<Narrow>, R>(call, first, count, side_by_side);
        if constexpr (P<Narrow>::integers)
            if (!done) run_chunk<Wide, P<Wide>, R>(call, first, count, side_by_side);
    }
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
