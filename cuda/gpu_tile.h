// What a warp turns in shared memory where time is last.
#pragma once

#include "gpu_memory.h"

static const int WARP = 32;

// A tile of a sequence: 32 neurons and 128 bytes of their time, in words. Lane n steps neuron n; in
// memory lanes follow each other along time, a pack each where sequences are aligned for it. A row
// has one word too many, so that both ways through a tile meet every bank of shared memory once.
template <class R> struct Tile {
    typedef Memory<R> M;
    typedef typename M::Word Word;
    static const int steps = 128 / sizeof(R);
    static const int row = steps + 1;
    static const int words = WARP * row;
    static const int each = steps;  // words that a lane moves

    long long first, sequence;  // its first number in memory, and from neuron to neuron
    int neurons, count;         // how many neurons and steps there are
    int lane;

    // Numbers (or packs) `i` of those that this lane moves.
    template <bool packs> struct Share {
        static const int size = packs ? M::pack : 1;
        static const int count = each / size;
        int neuron, step;
        LB_INLINE Share(int lane, int i)
            : neuron(i * (WARP * size / steps) + lane / (steps / size)),
              step(lane % (steps / size) * size) {}
    };

    LB_INLINE bool holds(int n, int t) const { return n < neurons && t < count; }
    LB_INLINE long long place(int n, int t) const { return first + n * sequence + t; }

    LB_INLINE static bool in_packs(const void *memory, int type, long long steps) {
#if defined(LB_PACKS)
        return LB_PACKS;
#else
        unsigned long long bytes = M::pack * M::size(type);
        return steps % M::pack == 0 && (unsigned long long)memory % bytes == 0;
#endif
    }

    // Words from memory, 0 where there are none. All reads begin before the first arrives.
    template <bool packs> LB_INLINE void read(Word *to, const void *from, int type) const {
#pragma unroll
        for (int i = 0; i < Share<packs>::count; ++i) {
            Share<packs> at(lane, i);
            Word *here = to + i * Share<packs>::size;
#pragma unroll
            for (int k = 0; k < Share<packs>::size; ++k) here[k] = 0;
            if (!holds(at.neuron, at.step)) continue;
            if (packs) {
                M::read_pack(here, from, place(at.neuron, at.step), type);
            } else {
                here[0] = M::read(from, place(at.neuron, at.step), type);
            }
        }
    }

    // These words into the tile.
    template <bool packs> LB_INLINE void put(Word *tile, const Word *from, int type) const {
#pragma unroll
        for (int i = 0; i < Share<packs>::count; ++i) {
            Share<packs> at(lane, i);
#pragma unroll
            for (int k = 0; k < Share<packs>::size; ++k)
                tile[at.neuron * row + at.step + k] =
                    packs ? M::of_pack(from + i * Share<packs>::size, k, type) : from[i];
        }
    }

    // The tile to memory.
    template <bool packs> LB_INLINE void write(const Word *tile, void *to, int type) const {
#pragma unroll 4
        for (int i = 0; i < Share<packs>::count; ++i) {
            Share<packs> at(lane, i);
            if (!holds(at.neuron, at.step)) continue;
            const Word *from = tile + at.neuron * row + at.step;
            if (packs) {
                M::write_pack(to, place(at.neuron, at.step), type, from);
            } else {
                M::write_word(to, place(at.neuron, at.step), type, from[0]);
            }
        }
    }

    // Their forms for what is known only when they run; the type is asked for once.
    LB_INLINE void read_any(Word *to, const void *from, int type, bool packs) const {
        if (M::stores_halves && type != STORED_FLOAT) {
            packs ? read<true>(to, from, type) : read<false>(to, from, type);
        } else {
            packs ? read<true>(to, from, STORED_FLOAT) : read<false>(to, from, STORED_FLOAT);
        }
    }
    LB_INLINE void put_any(Word *tile, const Word *from, int type, bool packs) const {
        if (!packs) {
            put<false>(tile, from, type);
        } else if (M::stores_halves && type != STORED_FLOAT) {
            put<true>(tile, from, STORED_HALF);
        } else {
            put<true>(tile, from, STORED_FLOAT);
        }
    }
    LB_INLINE void write_any(const Word *tile, void *to, int type, bool packs) const {
        packs ? write<true>(tile, to, type) : write<false>(tile, to, type);
    }
};
