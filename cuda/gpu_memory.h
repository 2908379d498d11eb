// Numbers as they lie in the GPU's memory. A word holds one of them unconverted, so that many can
// be on their way at once: converting it would wait for it.
#pragma once

#include "call.h"

// Half precision to float and back, to the nearest, ties to even.
// (The tests' emulation of a GPU brings its own.)
#if !defined(LB_EMULATED)
LB_INLINE float float_of_half(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
LB_INLINE unsigned short half_of_float(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// a b + c in 64 bits, by one instruction: from the expression the compiler makes five.
LB_INLINE long long wide_sum(int a, int b, int c) {
    long long sum;
    asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(sum) : "r"(a), "r"(b), "l"((long long)c));
    return sum;
}
#endif

// A pointer of which the compiler then knows whether it is null.
template <class T> LB_INLINE T *known_pointer(T *pointer, bool is_there) {
    if (!is_there) return nullptr;
    __builtin_assume(pointer != nullptr);
    return pointer;
}

// bfloat16 is the upper half of a float.
LB_INLINE unsigned short bfloat_of_float(float x) {
    unsigned bits = __float_as_uint(x);
    if (x != x) return 0x7fff;
    return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <class R> struct Memory;

// Floats are stored as such or in half precision.
template <> struct Memory<float> {
    typedef unsigned Word;
    static const bool stores_halves = true;
    // How many numbers are moved at once where they are aligned for it.
    static const int pack = 4;
    struct alignas(16) Pack {
        Word word[4];
    };
    struct alignas(8) HalfPack {
        Word word[2];
    };

    LB_INLINE static int size(int type) { return type == STORED_FLOAT ? 4 : 2; }

    LB_INLINE static Word read(const void *from, long long i, int type) {
        if (type == STORED_FLOAT) return ((const Word *)from)[i];
        return ((const unsigned short *)from)[i];
    }

    LB_INLINE static float real(Word word, int type) {
        if (type == STORED_FLOAT) return __uint_as_float(word);
        if (type == STORED_BFLOAT) return __uint_as_float(word << 16);
        return float_of_half((unsigned short)word);
    }

    LB_INLINE static Word word(float x, int type) {
        if (type == STORED_FLOAT) return __float_as_uint(x);
        return type == STORED_BFLOAT ? bfloat_of_float(x) : half_of_float(x);
    }

    // A number that has been converted already.
    LB_INLINE static void write_word(void *to, long long i, int type, Word word) {
        if (type == STORED_FLOAT) {
            ((Word *)to)[i] = word;
        } else {
            ((unsigned short *)to)[i] = (unsigned short)word;
        }
    }

    // A pack, at a number that begins one: as it is in memory, two halves in a word.
    LB_INLINE static void read_pack(Word *words, const void *from, long long i, int type) {
        if (type == STORED_FLOAT) {
            Pack all = *(const Pack *)((const Word *)from + i);
            for (int k = 0; k < 4; ++k) words[k] = all.word[k];
        } else {
            HalfPack all = *(const HalfPack *)((const unsigned short *)from + i);
            for (int k = 0; k < 2; ++k) words[k] = all.word[k];
        }
    }

    // Number k of a pack that was read.
    LB_INLINE static Word of_pack(const Word *words, int k, int type) {
        return type == STORED_FLOAT ? words[k] : words[k / 2] >> k % 2 * 16 & 0xffff;
    }

    LB_INLINE static void write_pack(void *to, long long i, int type, const Word *words) {
        if (type == STORED_FLOAT) {
            *(Pack *)((Word *)to + i) = Pack{{words[0], words[1], words[2], words[3]}};
        } else {
            *(HalfPack *)((unsigned short *)to + i) =
                HalfPack{{words[0] | words[1] << 16, words[2] | words[3] << 16}};
        }
    }
};

// Doubles are stored as doubles.
template <> struct Memory<double> {
    typedef double Word;
    static const bool stores_halves = false;
    static const int pack = 2;
    struct alignas(16) Pack {
        Word word[2];
    };

    LB_INLINE static int size(int) { return 8; }
    LB_INLINE static Word read(const void *from, long long i, int) {
        return ((const Word *)from)[i];
    }
    LB_INLINE static double real(Word word, int) { return word; }
    LB_INLINE static Word word(double x, int) { return x; }
    LB_INLINE static void write_word(void *to, long long i, int, Word word) {
        ((Word *)to)[i] = word;
    }
    LB_INLINE static void read_pack(Word *words, const void *from, long long i, int) {
        Pack all = *(const Pack *)((const Word *)from + i);
        for (int k = 0; k < 2; ++k) words[k] = all.word[k];
    }
    LB_INLINE static Word of_pack(const Word *words, int k, int) { return words[k]; }
    LB_INLINE static void write_pack(void *to, long long i, int, const Word *words) {
        *(Pack *)((Word *)to + i) = Pack{{words[0], words[1]}};
    }
};
