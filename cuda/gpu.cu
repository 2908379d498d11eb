// Runs a program on the GPU: a thread runs a neuron, or a pack of them. lava_bridge/kernels/cupy.py
// compiles this for each program (LB_PROGRAM, or LB_GATHER), dtype (LB_REAL) and what calls have in
// common (`known`; without that it is the tests' emulation), and picks one of the kernels:
//
//   rows    The threads of a warp have neurons side by side in memory, one each or, where there are
//           many, a pack each: what they read together is one piece. Each keeps the words of the
//           next steps on their way while it computes.
//   staged  Time is last (inner is 1): the threads' neurons lie a whole sequence apart. A warp
//           reads tiles of 32 neurons and 128 bytes of time, in pieces along time, and turns them
//           in shared memory; what comes out goes back through the same tile.
//   gather  A program that moves elements only: a thread moves some, of any neurons.
//
// Integers are 32 bits wide first. Where that was too narrow the same thread runs its neuron again
// in 64, alone: nobody waits, and a CUDA graph can hold the launch. CuPy compiles with -ftz=true:
// floats below 1.2e-38 count as 0.

#include "call.h"

#include "kernels.h"

#include "gpu_memory.h"

#include "gpu_tile.h"

// A GPU multiplies 32 bits into 64 at once. (Signs as in Fixed<L>::decayed in 64 bits: k is no less
// than 0.)
template <> LB_INLINE int Fixed<Lanes<float, int>>::decayed(int x, int k) {
    return (int)(wide_sum(x, k, x >> 31 & (DECAY_SCALE - 1)) >> DECAY_BITS);
}
template <> LB_INLINE int Fixed<Lanes<double, int>>::decayed(int x, int k) {
    return (int)(wide_sum(x, k, x >> 31 & (DECAY_SCALE - 1)) >> DECAY_BITS);
}

// A call of which the compiler knows what the caller has told it (cupy.py: `told`): which sequences
// there are and how they are stored, which results are wanted, and the numbers that select
// something. Otherwise all of that would be asked for in every step.
LB_INLINE Call known(const Call &given) {
    Call call = given;
#if defined(LB_TYPES)
    const int types[] = {LB_TYPES};
    const double numbers[] = {LB_KNOWN_NUMBERS};
#pragma unroll
    for (int k = 0; k < LB_SEQUENCES; ++k) {
        call.in_type[k] = types[k];
        call.out_type[k] = types[LB_SEQUENCES + k];
        call.in[k] = known_pointer(call.in[k], types[k] >= 0);
        call.out[k] = known_pointer(call.out[k], types[LB_SEQUENCES + k] >= 0);
    }
#pragma unroll
    for (int k = 0; k < LB_RESULTS; ++k)
        call.result[k] = known_pointer(call.result[k], LB_WANTED >> k & 1);
    call.marks = known_pointer(call.marks, LB_WANTED >> LB_RESULTS & 1);
#pragma unroll
    for (int k = 0; k < LB_NUMBERS; ++k)
        call.number[k] = numbers[k];
#endif
    return call;
}

// Where a neuron finds its parameters and leaves its results.
template <class R> struct At {
    const Call &call;
    long long neuron;  // its place in memory order
    bool there;        // false: beyond the last one, computed for nobody

    LB_INLINE R parameter(int k) const {
        const R *values = (const R *)call.parameter[k];
        if (!values) return 0;
        return values[call.shared[k] ? 0 : neuron];
    }

    LB_INLINE void result(int k, R x) const {
        if (call.result[k] && there) ((R *)call.result[k])[neuron] = x;
    }
};

// Numbers of neurons side by side in memory, a pack or one alone, as words.
template <class M, bool packs> struct Beside {
    typedef typename M::Word Word;
    static const int width = packs ? M::pack : 1;
    Word word[width];

    LB_INLINE void read(const void *from, long long i, int type) {
        if (packs) {
            M::read_pack(word, from, i, type);
        } else {
            word[0] = M::read(from, i, type);
        }
    }

    LB_INLINE Word of(int v, int type) const { return packs ? M::of_pack(word, v, type) : word[0]; }

    LB_INLINE void write(void *to, long long i, int type) const {
        if (packs) {
            M::write_pack(to, i, type, word);
        } else {
            M::write_word(to, i, type, word[0]);
        }
    }
};

// The inputs of `batch` steps from a place on, `stride` numbers apart; only the first `left`.
template <class B, int batch, int inputs>
LB_INLINE void read_batch(B (&words)[batch][inputs], const Call &call, long long at,
                          long long stride, long long left) {
#pragma unroll
    for (int k = 0; k < inputs; ++k) {
        if (!call.in[k]) continue;
        // Asking for the type once lets all reads of a sequence begin before the first arrives.
        int type = call.in_type[k];
        if (left >= batch && type == STORED_FLOAT) {
#pragma unroll
            for (int u = 0; u < batch; ++u)
                words[u][k].read(call.in[k], at + u * stride, STORED_FLOAT);
        } else {
#pragma unroll
            for (int u = 0; u < batch; ++u)
                if (u < left) words[u][k].read(call.in[k], at + u * stride, type);
        }
    }
}

// Steps through one time step, moves the word of marks that it ends (reversed: begins), and settles
// sums.
template <class L, class Program>
LB_INLINE void step_marked(const Program &program, typename Program::Neuron &state,
                           const Call &call, const At<typename L::Real> &place, long long t,
                           const typename L::Real *in, typename L::Real *out,
                           typename L::Int &high) {
    if constexpr (HasMarks<Program>::value) {
        bool last = t % MARKS == MARKS - 1 || t == call.steps - 1;
        if (call.marks && last && place.there) {
            long long row = place.neuron / call.inner, rest = place.neuron % call.inner;
            int *word = call.marks + (row * words_of(call.steps) + t / MARKS) * call.inner + rest;
            if (Program::reversed) state.marks = *word;
            program.step(state, in, out, high);
            if (!Program::reversed) *word = state.marks;
            return;
        }
    }
    program.step(state, in, out, high);
    if (t && t % SETTLED == 0) settle(program, state, 0);
}

// Whole neurons whose steps lie `inner` apart, a pack of them or one, with so many batches of words
// `ahead` of the one that is computed. False of a neuron: the integers were too narrow.
template <class L, class Program, int batch, int ahead, bool packs>
LB_INLINE void run_rows(const Call &call, long long first, bool *done) {
    typedef typename L::Real R;
    typedef Memory<R> M;
    typedef Beside<M, packs> B;
    const int inputs = Program::inputs, outputs = Program::outputs, width = B::width;
    Program program(call);
    typename Program::Neuron state[width];
    typename L::Int high[width] = {};
#pragma unroll
    for (int v = 0; v < width; ++v)
        program.start(state[v], At<R>{call, first + v, true}, high[v]);

    long long at = first, stride = call.inner;
    if (call.outer > 1) at += first / call.inner * (call.steps - 1) * call.inner;
    if (Program::reversed) {
        at += (call.steps - 1) * stride;
        stride = -stride;
    }
    B words[ahead + 1][batch][inputs] = {};
#pragma unroll
    for (int i = 0; i < ahead; ++i)
        read_batch(words[i], call, at + i * batch * stride, stride, call.steps - i * batch);
#pragma unroll 1
    for (long long left = call.steps; left > 0; left -= batch) {
        const int later = ahead * batch;
        read_batch(words[ahead], call, at + later * stride, stride, left - later);
#pragma unroll
        for (int u = 0; u < batch; ++u) {
            if (u >= left) break;
            B written[outputs];
            long long t = Program::reversed ? left - 1 - u : call.steps - left + u;
#pragma unroll
            for (int v = 0; v < width; ++v) {
                R x[inputs], y[outputs];
#pragma unroll
                for (int k = 0; k < inputs; ++k)
                    x[k] = call.in[k] ? M::real(words[0][u][k].of(v, call.in_type[k]),
                                                call.in_type[k])
                                      : (R)0;
                At<R> place = {call, first + v, true};
                step_marked<L>(program, state[v], call, place, t, x, y, high[v]);
#pragma unroll
                for (int k = 0; k < outputs; ++k)
                    if (call.out[k]) written[k].word[v] = M::word(y[k], call.out_type[k]);
            }
#pragma unroll
            for (int k = 0; k < outputs; ++k)
                if (call.out[k]) written[k].write(call.out[k], at, call.out_type[k]);
            at += stride;
        }
#pragma unroll
        for (int i = 0; i < ahead; ++i)
#pragma unroll
            for (int u = 0; u < batch; ++u)
#pragma unroll
                for (int k = 0; k < inputs; ++k) words[i][u][k] = words[i + 1][u][k];
    }
#pragma unroll
    for (int v = 0; v < width; ++v) {
        program.finish(state[v], At<R>{call, first + v, true}, high[v]);
        done[v] = !(Program::integers && Fixed<L>::is_beyond(high[v]));
    }
}

// A neuron whose integers were too narrow, again.
template <template <class> class P, class R>
static __device__ __noinline__ void run_wide(const Call &given, long long neuron) {
    typedef Lanes<R, long long> Wide;
    bool done;
    run_rows<Wide, P<Wide>, 1, 0, false>(known(given), neuron, &done);
}

// The words of a step, from a lane's place in the first tile; unless none is left.
template <class L, class Program, class Word>
LB_INLINE void read_step(Word *words, const Call &call, const Word *from, int left) {
    int used = 0;
#pragma unroll
    for (int k = 0; k < Program::inputs; ++k)
        if (call.in[k] && left > 0) words[k] = from[used++ * Tile<typename L::Real>::words];
}

// 32 neurons from `first` on, by one warp. The first `ahead` inputs of the next tile are on their
// way while this one is computed. `tiles` holds as many as there are inputs or outputs, whichever
// are more: a lane has read its inputs of a step before it writes the outputs over them. False: for
// this lane's neuron the integers were too narrow.
template <class L, class Program, int ahead>
LB_INLINE bool run_staged(const Call &call, long long first, int lane,
                          typename Memory<typename L::Real>::Word *tiles) {
    typedef typename L::Real R;
    typedef Memory<R> M;
    typedef Tile<R> T;
    const int inputs = Program::inputs, outputs = Program::outputs;
    long long neurons = call.outer - first;
    T tile = {0, call.steps, neurons < WARP ? (int)neurons : WARP, 0, lane};
    bool there = lane < tile.neurons;
    Program program(call);
    typename Program::Neuron state;
    typename L::Int high = 0;
    At<R> place = {call, first + (there ? lane : 0), there};
    program.start(state, place, high);

    // Tile i of those along time, in the order that they are stepped in.
    long long last = (call.steps - 1) / T::steps;
    auto move_to = [&](long long i) {
        long long start = (Program::reversed ? last - i : i) * T::steps;
        tile.first = first * call.steps + start;
        tile.count = call.steps - start < T::steps ? (int)(call.steps - start) : T::steps;
    };
    auto read = [&](int k, typename M::Word *to) {
        bool packs = T::in_packs(call.in[k], call.in_type[k], call.steps);
        tile.read_any(to, call.in[k], call.in_type[k], packs);
    };
    auto put = [&](int k, int used, const typename M::Word *from) {
        bool packs = T::in_packs(call.in[k], call.in_type[k], call.steps);
        tile.put_any(tiles + used * T::words, from, call.in_type[k], packs);
    };
    typename M::Word *own = tiles + lane * T::row;
    typename M::Word words[ahead][T::each];

    // Every turn puts down what arrived of tile i - 1, sends for tile i, and steps through i - 1.
#pragma unroll 1
    for (long long i = 0; i <= last + 1; ++i) {
        int used = 0;
        if (i > 0) {
#pragma unroll
            for (int k = 0; k < ahead; ++k)
                if (call.in[k]) put(k, used++, words[k]);
        }
        if (i <= last) {
            move_to(i);
#pragma unroll
            for (int k = 0; k < ahead; ++k)
                if (call.in[k]) read(k, words[k]);
        }
        if (i == 0) continue;
        move_to(i - 1);
#pragma unroll
        for (int k = ahead; k < inputs; ++k) {
            if (!call.in[k]) continue;
            typename M::Word here[T::each];
            read(k, here);
            put(k, used++, here);
        }
        __syncwarp();
        // The words of the next step are on their way, too.
        int count = tile.count, t = Program::reversed ? count - 1 : 0;
        typename M::Word next[inputs];
        read_step<L, Program>(next, call, own + t, count);
#pragma unroll 1
        for (int left = count; left > 0; --left) {
            R x[inputs], y[outputs];
#pragma unroll
            for (int k = 0; k < inputs; ++k)
                x[k] = call.in[k] ? M::real(next[k], call.in_type[k]) : (R)0;
            int now = t;
            t += Program::reversed ? -1 : 1;
            read_step<L, Program>(next, call, own + t, left - 1);
            long long start = tile.first - first * call.steps;
            step_marked<L>(program, state, call, place, start + now, x, y, high);
            int to = 0;
#pragma unroll
            for (int k = 0; k < outputs; ++k)
                if (call.out[k]) own[to++ * T::words + now] = M::word(y[k], call.out_type[k]);
        }
        __syncwarp();
        used = 0;
#pragma unroll
        for (int k = 0; k < outputs; ++k) {
            if (!call.out[k]) continue;
            bool packs = T::in_packs(call.out[k], call.out_type[k], call.steps);
            tile.write_any(tiles + used++ * T::words, call.out[k], call.out_type[k], packs);
        }
        __syncwarp();
    }
    program.finish(state, place, high);
    return !(Program::integers && there && Fixed<L>::is_beyond(high));
}

#if defined(LB_PROGRAM)

typedef Lanes<LB_REAL, int> Narrow;
typedef LB_PROGRAM<Narrow> Program;
static const int INPUTS = Program::inputs;

#if !defined(LB_ONLY_STAGED)
// A block has as many threads as the launch says; each has a pack of neurons, or one.
template <bool packs> LB_INLINE void run_thread(const Call &given) {
    const Call call = known(given);
    const int width = Beside<Memory<LB_REAL>, packs>::width;
    long long first = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * width;
    if (first >= call.outer * call.inner) return;
    // Two batches where their words do not need all registers.
    const int ahead = INPUTS <= 2 && !packs ? 2 : 1, batch = packs ? 2 : 4;
    bool done[width];
    run_rows<Narrow, Program, batch, ahead, packs>(call, first, done);
    if constexpr (Program::integers) {
#pragma unroll 1
        for (int v = 0; v < width; ++v)
            if (!done[v]) run_wide<LB_PROGRAM, LB_REAL>(given, first + v);
    }
}

extern "C" __global__ void __launch_bounds__(128) rows(const __grid_constant__ Call given) {
#if defined(LB_PACKS)
    run_thread<LB_PACKS>(given);
#else
    run_thread<false>(given);
#endif
}
#endif

#if !defined(LB_ONLY_ROWS)
// How many blocks of `staged` a multiprocessor is to hold, which bounds their registers: as many as
// shared memory allows with two tiles each, fewer where a neuron's own numbers would be spilled.
// (Some multiprocessors hold 16 whatever they are.)
#if __CUDA_ARCH__ == 750 || __CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 870
static const int BLOCKS = 16;
#else
static const int BLOCKS = INPUTS == 1 ? 24 : 16;
#endif

// A block is a warp; its shared memory, given at the launch, holds the tiles.
extern "C" __global__ void __launch_bounds__(32, BLOCKS)
    staged(const __grid_constant__ Call given) {
    extern __shared__ unsigned char lb_shared[];
    const Call call = known(given);
    Memory<LB_REAL>::Word *tiles = (Memory<LB_REAL>::Word *)lb_shared;
    long long first = (long long)blockIdx.x * WARP;
    // With more inputs the words of two would be spilled.
    const int ahead = INPUTS == 1 || INPUTS > 3 ? 1 : 2;
    bool done = run_staged<Narrow, Program, ahead>(call, first, threadIdx.x, tiles);
    if constexpr (Program::integers)
        if (!done) run_wide<LB_PROGRAM, LB_REAL>(given, first + threadIdx.x);
}
#endif

#else

// An element's place in a sequence [outer, steps, inner].
struct Place {
    long long o, t, i;

    LB_INLINE Place(const Call &call, long long e)
        : o(e / call.inner / call.steps), t(e / call.inner % call.steps), i(e % call.inner) {}

    LB_INLINE void move(const Call &call, const Place &by) {
        i += by.i;
        t += by.t;
        o += by.o;
        if (i >= call.inner) i -= call.inner, ++t;
        if (t >= call.steps) t -= call.steps, ++o;
    }
};

// The elements of a thread: a block's threads have them in turn. E: as many bytes as one has.
static const int MOVED = 8;

template <class E> LB_INLINE void move_elements(const Call &call) {
    long long first = (long long)blockIdx.x * blockDim.x * MOVED + threadIdx.x;
    long long all = call.outer * call.steps * call.inner;
    Place place(call, first), by(call, blockDim.x);
    E moved[MOVED];
#pragma unroll
    for (int u = 0; u < MOVED; ++u, place.move(call, by)) {
        moved[u] = 0;
        long long e = first + u * blockDim.x;
        if (e >= all) continue;
        long long neuron = place.o * call.inner + place.i;
        long long from = LB_GATHER<LB_REAL>::source(call, neuron, place.t);
        if (from >= 0) moved[u] = ((const E *)call.in[0])[e + (from - place.t) * call.inner];
    }
#pragma unroll
    for (int u = 0; u < MOVED; ++u) {
        long long e = first + u * blockDim.x;
        if (e < all) ((E *)call.out[0])[e] = moved[u];
    }
}

extern "C" __global__ void __launch_bounds__(256) gather(const __grid_constant__ Call call) {
    if (call.in_type[0] == STORED_DOUBLE) return move_elements<unsigned long long>(call);
    if (call.in_type[0] == STORED_FLOAT) return move_elements<unsigned>(call);
    move_elements<unsigned short>(call);
}

#endif
