// Steps of a chunk of neurons, from rows to rows: in place where its neurons lie side by side, in blocks
// of time that are turned elsewhere.
//
// No guard, as lanes.h, and only for the CPU.

#include "turn.h"

// Neurons in a chunk that is read in place: rows long enough to stream, states that stay in the L1
// cache; and for which later row the CPU is asked while it computes one.
static const int IN_PLACE = 512;
static const int AHEAD = 2;

// Neurons that are run together, one after the other in memory.
struct Chunk {
    long long first;
    int count;
    bool side_by_side;
    char *stage;  // where outputs are gathered that go past the caches, or null
};

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
// rows still stay in the L1 cache then. Neurons are fewer where there are many steps.
static const int TURNED = 64, LEAST_TURNED = 16;
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

// One time step of a pack of neurons, whole or not. `past`: the first output goes past the caches.
template <bool whole, class L, class Program, class R>
LB_INLINE void step_pack(const Program &program, typename Program::Neuron &neuron, int count,
                         const R *const *in, R *const *out, size_t first, bool past,
                         typename L::Int &high) {
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
        if (!Told<Program>::writes(out[k], k)) continue;
        if (whole && k == 0 && past) {
            write_past(out[k] + first, y[k]);
        } else {
            store<whole>(out[k] + first, y[k], count);
        }
    }
}

// One time step of a chunk, from rows to rows; rows that come later lie `ahead` numbers further on.
template <class L, class Program, class R>
LB_INLINE void step_row(const Program &shared, typename Program::Neuron *neuron, size_t count,
                        const R *const *in, R *const *out, long long ahead, bool past,
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
                if (Told<Program>::writes(to[k], k) && !past)
                    __builtin_prefetch(to[k] + first + ahead, 1);
        }
        step_pack<true, L>(program, *neuron, L::count, from, to, first, past, highest);
    }
    if (first < count)
        step_pack<false, L>(program, *neuron, (int)(count - first), from, to, first, false,
                            highest);
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

// Whether a call's outputs go past the caches (call.h), where they lie in memory so that they can.
static bool goes_past(const Call &call) {
#if defined(LB_X86)
    return call.past_caches == PAST_ALWAYS;
#else
    return false;
#endif
}

// In rows: each of their registers has a place of its own then. (Short rows would lose by it, and have no
// wide gap between them.)
template <class Program, class R> static bool rows_go_past(const Call &call) {
    size_t places = call.inner * sizeof(R);
    for (int k = 0; k < Program::outputs; ++k) places |= (size_t)call.out[k];
    bool is_long = call.inner >= IN_PLACE / 4;
    return goes_past(call) && is_long && places % LB_REGISTER == 0;
}

template <class L, class Program, class R>
static void in_place(const Call &call, const Program &program, typename Program::Neuron *neurons,
                     long long neuron, int count, typename L::Int &high) {
    long long base = neuron / call.inner * call.steps * call.inner + neuron % call.inner;
    const R *in[Program::inputs];
    R *out[Program::outputs];
    // A CPU gathers what goes past its caches in a few lines only: one output goes there as it comes,
    // each other one a row at a time.
    const bool past = rows_go_past<Program, R>(call);
    typedef typename Register<R>::Row Row;
    alignas(LB_REGISTER) R later[Program::outputs][IN_PLACE];
    for (long long i = 0; i < call.steps; ++i) {
        long long t = Program::reversed ? call.steps - 1 - i : i;
        long long row = base + t * call.inner;
        for (int k = 0; k < Program::inputs; ++k)
            in[k] = call.in[k] ? (const R *)call.in[k] + row : NULL;
        for (int k = 0; k < Program::outputs; ++k)
            out[k] = !call.out[k] ? NULL : past && k ? later[k] : (R *)call.out[k] + row;
        // Rows lie too far apart for the CPU to see by itself which is next, to read or to write.
        // After the last it is the first one of the next chunk.
        bool ends = i + AHEAD >= call.steps;
        long long ahead = (AHEAD - (ends ? call.steps : 0)) * call.inner;
        ahead = (Program::reversed ? -ahead : ahead) + (ends ? count : 0);
        bool last = t % MARKS == MARKS - 1 || t == call.steps - 1;
        long long word = t / MARKS;
        if (Program::reversed && last) move_marks<L, Program>(call, neurons, neuron, count, word);
        step_row<L, Program, R>(program, neurons, count, in, out, ahead, past, high);
        for (int k = 1; past && k < Program::outputs; ++k)
            for (int j = 0; Told<Program>::writes(out[k], k) && j < count; j += Tile<R>::width)
                write_past((R *)call.out[k] + row + j, Loose<Row>::read(later[k] + j));
        if (t && t % SETTLED == 0) settle_all<L>(program, neurons, count);
        if (!Program::reversed && last) move_marks<L, Program>(call, neurons, neuron, count, word);
    }
}

// A block of time of a chunk.
struct Block {
    const long long *offset;  // where each neuron begins in a sequence
    int count, steps;
    long long start;          // what is added to that
    long long next;           // what is fetched meanwhile
    bool past;                // whether outputs go past the caches
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
static void turn_out(const Call &call, const Block &block, const R *rows, void *sequence,
                     bool past) {
    const int width = Tile<R>::width;
    R *to = (R *)sequence + block.start;
    for (int first = 0; first < block.count; first += width) {
        const bool is_square = call.inner == 1 && first + width <= block.count;
        if (is_square && past) {
            for (int start = 0; start < block.steps; start += LINE / (int)sizeof(R)) {
                R *tile = to + block.offset[first] + start;
                const R *turned = rows + start * TURNED + first;
                Tile<R>::turn_past([=](int t) { return turned + t * TURNED; },
                                   [=](int j) { return tile + j * call.steps; });
            }
            continue;
        }
        for (int start = 0; start < block.steps; start += width) {
            R *tile = to + block.offset[first] + start;
            int steps = block.steps - start < width ? block.steps - start : width;
            if (is_square) {
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

// Asks for a part of what comes next, one for each neuron. The CPU does not see by itself where it is, as
// each neuron's row goes on elsewhere, and waits for memory if it is asked for all of it at once.
template <class Program, class R>
LB_INLINE void fetch(const Call &call, const Block &block, int neuron) {
    const int length = Turned<Program, R>::steps;
    for (int ahead = 0; ahead < length; ahead += LINE / (int)sizeof(R)) {
        long long at = block.next + neuron * length + ahead;
        for (int k = 0; k < Program::inputs; ++k)
            if (Told<Program>::reads(call.in[k], k))
                __builtin_prefetch((const R *)call.in[k] + at, 0, 2);  // for the L1 cache it is too much
        for (int k = 0; k < Program::outputs; ++k)
            if (Told<Program>::writes(call.out[k], k) && !block.past)
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
            step_pack<whole, L>(program, now[k], here, from, to, first + k * L::count, false,
                                highest);
    }
#pragma GCC unroll 4
    for (int k = 0; k < packs; ++k) neurons[k] = now[k];
    high = highest;
}

// Where a chunk's outputs are gathered as they lie in memory, to go past the caches line by line then.
template <class Program, class R> struct Stage {
    const Call &call;
    size_t from, bytes;  // of the chunk in a sequence
    char *gathered[Program::outputs];

    LB_INLINE Stage(const Call &call, const Chunk &chunk)
        : call(call), from(chunk.first * call.steps * sizeof(R)),
          bytes(chunk.count * call.steps * sizeof(R)) {
        if (!chunk.stage) return;
        char *next = chunk.stage + -(size_t)chunk.stage % LINE;
        for (int k = 0; k < Program::outputs; ++k) {
            // Both ends of a copy are at the same place in a line.
            gathered[k] = next + ((size_t)call.out[k] + from) % LINE;
            if (call.out[k]) next += room(bytes);
        }
    }

    static size_t room(size_t bytes) { return (bytes + 2 * LINE) / LINE * LINE; }

    // What stands for an output: the chunk lies there at its place in a sequence.
    LB_INLINE void *instead_of(int k) const { return (void *)((size_t)gathered[k] - from); }

    LB_INLINE void copy() const {
        for (int k = 0; k < Program::outputs; ++k)
            if (call.out[k]) copy_past((char *)call.out[k] + from, gathered[k], bytes);
    }
};

// Where neurons' rows begin and end with a line of memory, what is turned goes past the caches at once.
template <class Program, class R> static bool lines_go_past(const Call &call) {
    size_t places = call.steps * sizeof(R);
    for (int k = 0; k < Program::outputs; ++k) places |= (size_t)call.out[k];
    return goes_past(call) && call.inner == 1 && places % LINE == 0;
}

template <class L, class Program, class R>
static void turned(const Call &call, const Program &program, typename Program::Neuron *neurons,
                   const Chunk &chunk, typename L::Int &high) {
    const long long first = chunk.first;
    const int count = chunk.count;
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
    const bool staged = chunk.stage != NULL;
    const bool at_once = lines_go_past<Program, R>(call);
    const Stage<Program, R> stage(call, chunk);
    // Memory is fastest in its own order, and needs a while: the next chunk is fetched, not the next block,
    // and where that is short what lies as far ahead as a whole block.
    const long long reach = call.steps > length ? call.steps : length;
    for (long long i = 0; i < blocks; ++i) {
        long long done = (Program::reversed ? blocks - 1 - i : i) * length;
        long long next = offset[0] + count * (reach + i * length);
        Block block = {offset, count, length, done * call.inner, next, at_once || staged};
        if (call.steps - done < length) block.steps = (int)(call.steps - done);
        bool last = (done + length) % MARKS == 0 || done + length >= call.steps;
        long long word = done / MARKS;
        if (Program::reversed && last) move_marks<L, Program>(call, neurons, first, count, word);
        for (int k = 0; k < Program::inputs; ++k)
            if (call.in[k]) turn_in<R>(call, block, call.in[k], rows[k]);
        // Some packs at a time. (Adjoints gain little by more than one, and integers of 64 bits fill
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
            if (call.out[k])
                turn_out<R>(call, block, rows[k], staged ? stage.instead_of(k) : call.out[k], at_once);
        if (!Program::reversed && last) move_marks<L, Program>(call, neurons, first, count, word);
    }
    if (staged) stage.copy();
}
