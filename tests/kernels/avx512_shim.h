// AVX-512 for a CPU that has none, for test_portable.py: what cuda/ asks of it, number by number.
// Included before all else, so that the headers of gcc and clang do not take the macros for their own.
#pragma once

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define __AVX512F__ 1
#define __AVX512BW__ 1

template <class Part, class Whole> static inline Part part_of(Whole x, int k) {
    Part part;
    memcpy(&part, (const char *)&x + k * sizeof part, sizeof part);
    return part;
}
template <class Part, class Whole> static inline Whole with_part(Whole x, Part part, int k) {
    memcpy((char *)&x + k * sizeof part, &part, sizeof part);
    return x;
}

static inline __m512d widened_to_doubles(__m256 x) {
    __m512d y;
    for (int i = 0; i < 8; ++i) y[i] = x[i];
    return y;
}
static inline __m256 narrowed_to_floats(__m512d x) {
    __m256 y;
    for (int i = 0; i < 8; ++i) y[i] = (float)x[i];
    return y;
}
template <class Number, class Pack> static inline Pack each(Pack x, Number (*function)(Number)) {
    for (size_t i = 0; i < sizeof(Pack) / sizeof(Number); ++i) x[i] = function(x[i]);
    return x;
}
static inline __m512i sums_of_products(__m512i x, __m512i y) {
    short a[32], b[32];
    int sums[16];
    memcpy(a, &x, sizeof a);
    memcpy(b, &y, sizeof b);
    for (int i = 0; i < 16; ++i) sums[i] = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
    memcpy(&x, sums, sizeof x);
    return x;
}

template <int mode> static inline __m512 rounded(__m512 x) {
    static_assert(mode == (_MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC), "no other is asked for");
    return each<float>(x, truncf);
}

#define EMULATES_AVX512
static long streamed = 0;

// Only to where the instruction may write.
static inline void stream(float *to, __m512 x) {
    ++streamed;
    if ((size_t)to % sizeof x) throw "a register's place is not its own";
    memcpy(to, &x, sizeof x);
}

#define _mm512_castps128_ps512(x) with_part(__m512{}, x, 0)
#define _mm512_castps256_ps512(x) with_part(__m512{}, x, 0)
#define _mm512_castps512_ps256(x) part_of<__m256>(x, 0)
#define _mm512_extractf32x8_ps(x, k) part_of<__m256>(x, k)
#define _mm512_insertf32x4(x, part, k) with_part(x, part, k)
#define _mm512_insertf32x8(x, part, k) with_part(x, part, k)
#define _mm512_cvtps_pd(x) widened_to_doubles(x)
#define _mm512_cvtpd_ps(x) narrowed_to_floats(x)
#define _mm512_madd_epi16(x, y) sums_of_products(x, y)
#define _mm512_floor_ps(x) each<float>(x, floorf)
#define _mm512_floor_pd(x) each<double>(x, floor)
#define _mm512_roundscale_ps(x, mode) rounded<mode>(x)
#define _mm512_stream_ps(to, x) stream(to, x)
