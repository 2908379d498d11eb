// A GPU on the host, for test_gpu_emulated.py: what cuda/gpu.cu asks of NVRTC. Blocks run one after
// the other; the threads of a block are fibres that take turns at each __syncwarp, from the first
// or from the last, so that a missing one shows. Threads that do not meet at one are an error.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __CUDACC__
#define LB_EMULATED
#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__
#define __builtin_assume(condition)

struct Index {
    int x;
};
static Index threadIdx, blockIdx, blockDim;

// The GPU's conversions: toward zero, too large is the largest, NaN as the PTX manual has it.
template <class I, class R> static I cut_as_a_gpu(R x, I for_nan) {
    const R limit = ldexp((R)1, 8 * sizeof(I) - 1);
    const I lowest = (I)1 << (8 * sizeof(I) - 1);
    if (x != x) return for_nan;
    if (x >= limit) return ~lowest;
    return x < -limit ? lowest : (I)x;
}
static int __float2int_rz(float x) { return cut_as_a_gpu<int>(x, 0); }
static int __double2int_rz(double x) { return cut_as_a_gpu<int>(x, INT32_MIN); }
static long long __float2ll_rz(float x) { return cut_as_a_gpu<long long>(x, INT64_MIN); }
static long long __double2ll_rz(double x) { return cut_as_a_gpu<long long>(x, INT64_MIN); }

static unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
static float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static float float_of_half(unsigned short bits) {
    _Float16 x;
    memcpy(&x, &bits, 2);
    return x;
}
static unsigned short half_of_float(float x) {
    _Float16 half = (_Float16)x;
    unsigned short bits;
    memcpy(&bits, &half, 2);
    return bits;
}
static long long wide_sum(int a, int b, int c) { return (long long)a * b + c; }

const int MOST_THREADS = 256, STACK = 1 << 16;
static char stacks[MOST_THREADS][STACK];
static ucontext_t fibres[MOST_THREADS], scheduler;
static int meetings[MOST_THREADS], running;
static bool finished[MOST_THREADS];
alignas(16) unsigned char lb_shared[48 << 10];

static void __syncwarp() {
    ++meetings[running];
    swapcontext(&fibres[running], &scheduler);
}
