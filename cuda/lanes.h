// The numbers that a dynamics is written in: one neuron a thread on the GPU, a register full of
// neurons in step on the CPU. `Lanes<R, I>` has reals R, the fixed-point integers I and masks, and the few
// operations that C++ operators do not give for both forms. A Flag is a bool, of something that a usual
// call has not.
//
// No guard: the CPU's build includes this once for each instruction set, in a namespace of its own.

#if defined(__CUDACC__)
#define LB_INLINE __device__ __forceinline__

template <class R, class I> struct Lanes {
    typedef R Real;
    typedef I Int;
    typedef bool Mask;
    typedef bool Flag;
    static const int count = 1;
    // Whether integers are 32 bits wide: states are then watched, and run again in 64 bits.
    static const bool narrow = sizeof(I) == 4;
    // Whether they are whole numbers in floats.
    static const bool whole = false;
    // Whether NaN and what is out of range become the lowest integer when converted.
    static const bool lowest_for_none = false;
    // What long sums of reals are held in.
    typedef double Sum;

    LB_INLINE static Sum widened(Real x) { return (Sum)x; }
    LB_INLINE static Real narrowed(Sum x) { return (Real)x; }
    LB_INLINE static Real real(Int x) { return (Real)x; }
    LB_INLINE static Int integer(Real x) { return cut(x, Int()); }
    LB_INLINE static Mask mask(bool x) { return x; }
    LB_INLINE static Int zero() { return 0; }
    LB_INLINE static Int pick(Mask m, Int a, Int b) { return m ? a : b; }
    LB_INLINE static Real choose(Mask m, Real a, Real b) { return m ? a : b; }
    LB_INLINE static bool any_at_least(Int x, I limit) { return x >= limit; }
    LB_INLINE static Real all(double x) { return (Real)x; }
    LB_INLINE static Int shifted(Int x, int bits) { return x >> bits; }
    LB_INLINE static Int small_product(Int a, Int b) { return a * b; }
    LB_INLINE static float exponential(float x) { return expf(x); }
    LB_INLINE static double exponential(double x) { return exp(x); }
    LB_INLINE static Real floored(Real x) { return floor(x); }
    LB_INLINE static Real magnitude(Real x) { return fabs(x); }
    LB_INLINE static Real negative(Real x) { return -fabs(x); }

  private:
    // By the instructions, for which nothing is undefined: too large is the largest.
    LB_INLINE static int cut(float x, int) { return __float2int_rz(x); }
    LB_INLINE static int cut(double x, int) { return __double2int_rz(x); }
    LB_INLINE static long long cut(float x, long long) { return __float2ll_rz(x); }
    LB_INLINE static long long cut(double x, long long) { return __double2ll_rz(x); }
};

#else
#ifndef LB_INLINE
#define LB_INLINE inline __attribute__((always_inline))
#endif

// Bytes of a register of the instruction set that this is compiled for.
#if defined(__AVX512F__)
#define LB_REGISTER 64
#elif defined(__AVX2__)
#define LB_REGISTER 32
#else
#define LB_REGISTER 16
#endif

// What long sums of a register full of reals are held in: doubles. For floats these are two
// registers: gcc keeps a vector that is wider than one, and halves that it is not told of, in memory.
template <class R> struct DoubleSum {
    typedef R Real __attribute__((vector_size(LB_REGISTER)));
    typedef double Half __attribute__((vector_size(LB_REGISTER)));
    Half low, high;

    DoubleSum() = default;  // what is not asked for, of a chunk's neurons, is not set to 0 either
    LB_INLINE DoubleSum(Half low, Half high) : low(low), high(high) {}
    LB_INLINE DoubleSum operator+(const DoubleSum &other) const {
        return DoubleSum(low + other.low, high + other.high);
    }
#if defined(__AVX512F__)
    LB_INLINE explicit DoubleSum(Real x)
        : low((Half)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)x))),
          high((Half)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)x, 1))) {}
    LB_INLINE Real narrowed() const {
        __m512 half = _mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)low));
        return (Real)_mm512_insertf32x8(half, _mm512_cvtpd_ps((__m512d)high), 1);
    }
#elif defined(__AVX2__)
    LB_INLINE explicit DoubleSum(Real x)
        : low((Half)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)x))),
          high((Half)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)x, 1))) {}
    LB_INLINE Real narrowed() const {
        return (Real)_mm256_set_m128(_mm256_cvtpd_ps((__m256d)high), _mm256_cvtpd_ps((__m256d)low));
    }
#elif defined(LB_X86)
    LB_INLINE explicit DoubleSum(Real x)
        : low((Half)_mm_cvtps_pd((__m128)x)),
          high((Half)_mm_cvtps_pd(_mm_movehl_ps((__m128)x, (__m128)x))) {}
    LB_INLINE Real narrowed() const {
        return (Real)_mm_movelh_ps(_mm_cvtpd_ps((__m128d)low), _mm_cvtpd_ps((__m128d)high));
    }
#else
    LB_INLINE explicit DoubleSum(Real x) : low(Half{}), high(Half{}) {
        const int half = sizeof(Half) / sizeof(double);
        for (int i = 0; i < half; ++i) low[i] = x[i], high[i] = x[half + i];
    }
    LB_INLINE Real narrowed() const {
        const int half = sizeof(Half) / sizeof(double);
        Real x = {};
        for (int i = 0; i < half; ++i) x[i] = (R)low[i], x[half + i] = (R)high[i];
        return x;
    }
#endif
};

template <> struct DoubleSum<double> {
    typedef double Real __attribute__((vector_size(LB_REGISTER)));
    Real sum;

    DoubleSum() = default;
    LB_INLINE explicit DoubleSum(Real x) : sum(x) {}
    LB_INLINE DoubleSum operator+(const DoubleSum &other) const {
        return DoubleSum(sum + other.sum);
    }
    LB_INLINE Real narrowed() const { return sum; }
};

// gcc's and clang's vectors.
template <class R, class I> struct Lanes {
    typedef bool Flag;
    static const int count = LB_REGISTER / sizeof(R);
    static const bool narrow = sizeof(I) == 4;
    static const bool whole = false;
    static const bool lowest_for_none = true;
    typedef R Real __attribute__((vector_size(LB_REGISTER)));
    typedef I Int __attribute__((vector_size(LB_REGISTER / sizeof(R) * sizeof(I))));
    typedef Int Mask;
    // Integers as wide as a real: what comparing reals gives.
    typedef decltype(Real() < Real()) Wide;
    typedef DoubleSum<R> Sum;

    LB_INLINE static Sum widened(Real x) { return Sum(x); }
    LB_INLINE static Real narrowed(const Sum &x) { return x.narrowed(); }
    LB_INLINE static Real real(Int x) { return __builtin_convertvector(x, Real); }
    LB_INLINE static Int integer(Real x) {
#if !defined(LB_X86)
        // What x86's instruction does with NaN and what is out of range. Elsewhere nothing says so:
        // doubles may go by 64 bits, of which the lower half is kept.
        if constexpr (narrow) {
            Real lowest = all(-2147483648.0);
            x = ((x > lowest) & (x < -lowest)) ? x : lowest;
        }
#endif
        return __builtin_convertvector(x, Int);
    }
    LB_INLINE static Mask mask(Wide x) { return __builtin_convertvector(x, Mask); }
    LB_INLINE static Int zero() { return Int{}; }
    LB_INLINE static Int pick(Mask m, Int a, Int b) { return m ? a : b; }
    LB_INLINE static Real choose(Mask m, Real a, Real b) {
        return __builtin_convertvector(m, Wide) ? a : b;
    }
    LB_INLINE static bool any_at_least(Int x, I limit) {
        bool found = false;
        for (int lane = 0; lane < count; ++lane) found = found | (x[lane] >= limit);
        return found;
    }
    LB_INLINE static Real all(double x) { return (R)x - Real{}; }
    LB_INLINE static Int shifted(Int x, int bits) { return x >> bits; }
    // Products of a in -2^15 ... 2^15 - 1 with b in 0 ... 2^15 - 1. x86 multiplies 16 bits in half
    // the time of 32 (the upper halves give 0, as that of b is 0).
    LB_INLINE static Int small_product(Int a, Int b) {
#if defined(LB_X86)
        if constexpr (narrow && sizeof(Int) == 16)
            return (Int)_mm_madd_epi16((__m128i)a, (__m128i)b);
#if defined(__AVX2__)
        if constexpr (narrow && sizeof(Int) == 32)
            return (Int)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#endif
#if defined(__AVX512BW__)
        if constexpr (narrow && sizeof(Int) == 64)
            return (Int)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#endif
#endif
        return a * b;
    }
    LB_INLINE static Real magnitude(Real x) {
        // All bits but the sign.
        return (Real)((Wide)x & ~(Wide)(-Real{}));
    }
    LB_INLINE static Real negative(Real x) { return (Real)((Wide)x | (Wide)(-Real{})); }
    LB_INLINE static Real floored(Real x) {
#if defined(__AVX512F__)
        if constexpr (sizeof(R) == 4) return (Real)_mm512_floor_ps((__m512)x);
        if constexpr (sizeof(R) == 8) return (Real)_mm512_floor_pd((__m512d)x);
#elif defined(__AVX2__)
        if constexpr (sizeof(R) == 4) return (Real)_mm256_floor_ps((__m256)x);
        if constexpr (sizeof(R) == 8) return (Real)_mm256_floor_pd((__m256d)x);
#endif
        // From 2^23 (2^52) on a float (double) has no fraction that a conversion could lose.
        const R whole = sizeof(R) == 4 ? (R)(1 << 23) : (R)(1LL << 52);
        Real cut = __builtin_convertvector(__builtin_convertvector(x, Wide), Real);
        cut = cut > x ? cut - 1 : cut;
        return ((x < whole) & (x > -whole)) ? cut : x;
    }
    LB_INLINE static Real exponential(Real x) {
        if constexpr (sizeof(R) == 8) {
            for (int lane = 0; lane < count; ++lane) x[lane] = __builtin_exp(x[lane]);
            return x;
        } else {
            // exp(x) = 2^n exp(r), |r| <= ln(2) / 2, for x up to 88; the coefficients are those with
            // the smallest relative error. Right to three units in the last place; 0 below -87.7,
            // where n is -127 and the bits of its power are all 0.
            x = x < -88.0f ? all(-88.0f) : x;
            // Numbers of this size have no fraction: the sum is rounded to a whole number, whose last
            // bits are n as an exponent has it.
            const float whole = (3 << 22) + 127;
            Real shifted = x * 1.44269504f + whole, n = shifted - whole;
            Real r = x - n * 0.693359375f + n * 2.12194440e-4f;
            // By pairs: one after the other, the CPU would wait for each.
            Real square = r * r;
            Real late = r * 0.008312501f + 0.04189033f, early = r * 0.16667116f + 0.4999923f;
            Real series = (late * square + early) * square + (r + 1.0f);
            return series * (Real)((Wide)shifted << 23);
        }
    }
};

// Lanes of a usual call: no flag is asked for in every step.
struct Never {
    LB_INLINE explicit Never(bool) {}
    LB_INLINE constexpr operator bool() const { return false; }
};
struct UsualLanes : Lanes<float, int> {
    typedef Never Flag;
};

#if defined(LB_X86)
// Integers as whole numbers in floats, for a usual call while the CPU rounds toward zero: a product
// with a fraction is rounded so that nothing is left to do but to cut off what is not whole, where 32
// bits take nine operations.
struct WholeLanes : UsualLanes {
    static const bool whole = true;
    typedef Real Int;

    LB_INLINE static Int zero() { return Int{}; }
    LB_INLINE static Int pick(Mask m, Int a, Int b) { return m ? a : b; }
    LB_INLINE static Real real(Int x) { return x; }
    LB_INLINE static Int integer(Real x) {
#if defined(__AVX512F__)
        return (Int)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
        return (Int)_mm256_round_ps((__m256)x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
#else
        return __builtin_convertvector(__builtin_convertvector(x, Wide), Real);
#endif
    }
    // The larger of two that are not negative, by their bits: NaN is the largest.
    LB_INLINE static Int larger(Int a, Int b) {
        return (Int)((Wide)a > (Wide)b ? (Wide)a : (Wide)b);
    }
    LB_INLINE static bool any_at_least(Int x, float limit) {
        bool found = false;
        for (int lane = 0; lane < count; ++lane) found = found | !(x[lane] < limit);
        return found;
    }
};
#else
typedef UsualLanes WholeLanes;
#endif
#endif

// Signs of reals.
template <class L> LB_INLINE typename L::Real sign(typename L::Real x) {
    typename L::Real zero = L::all(0);
    return L::choose(L::mask(x > 0), L::all(1), L::choose(L::mask(x < 0), L::all(-1), zero));
}

// A sum over time, whose error does not grow with the number of steps: what is added goes to a real,
// and from there to a double each time that the driver has the program `settle` its sums.
template <class L> struct LongSum {
    typename L::Real late;
    typename L::Sum sum;

    LB_INLINE void add(typename L::Real x) { late = late + x; }
    LB_INLINE void settle() {
        sum = sum + L::widened(late);
        late = L::all(0);
    }
    LB_INLINE typename L::Real total() const { return L::narrowed(sum + L::widened(late)); }
};

// Has a program settle its long sums, if it has any (such a program is reversed). Every driver does so
// where this many steps are left, or a multiple of it: the sums are the same on all.
static const int SETTLED = 64;
template <class Program>
LB_INLINE auto settle(const Program &program, typename Program::Neuron &neuron, int)
    -> decltype(program.settle(neuron)) {
    program.settle(neuron);
}
template <class Program>
LB_INLINE void settle(const Program &, typename Program::Neuron &, long) {}

// Whether a program has marks (call.h): a stack of bits in its neuron's `marks`, whose words the
// driver leaves in memory, or takes from there where the program is reversed.
template <class Program, class = void> struct HasMarks {
    static const bool value = false;
};
template <class Program> struct HasMarks<Program, decltype((void)&Program::Neuron::marks)> {
    static const bool value = true;
};

template <class L> LB_INLINE void push_mark(typename L::Int &marks, typename L::Mask mark) {
    typename L::Int rest = L::shifted(marks, 1) & 0x7fffffff;
    marks = rest | L::pick(mark, L::zero() + (-0x7fffffff - 1), L::zero());
}

template <class L> LB_INLINE typename L::Mask pop_mark(typename L::Int &marks) {
    typename L::Mask mark = marks < L::zero();
    marks = marks + marks;
    return mark;
}

// Sequences of a usual call of a program, a bit for each.
struct Sequences {
    unsigned in, out;
};

// Marks in a word, and the words of a neuron.
static const int MARKS = 32;
LB_INLINE long long words_of(long long steps) { return (steps + MARKS - 1) / MARKS; }
