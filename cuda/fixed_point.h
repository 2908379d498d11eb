// The chip's arithmetic: integers over a scale, and decays of 12 bits (lava_bridge/quantize.py).
//
// The reference computes in 64 bits. Here 32 bits are tried first: as long as all states stay within
// 2^24 nothing overflows, reals hold them exactly, and the results are the same. The magnitudes of
// all states are gathered in `high`; neurons that went beyond are run again in 64 bits.
//
// Before that come, on the CPU and for usual calls, whole numbers in floats (WholeLanes). What is summed
// on the way to a state, or compared with one, has to stay below 2^24 too: a voltage less its adaptive
// threshold comes from states up to four times their limit.

static const int DECAY_BITS = 12;
static const int DECAY_SCALE = 1 << DECAY_BITS;
static const int NARROW_LIMIT = 1 << 24;
static const int WHOLE_LIMIT = 1 << 22;

template <class L> struct Fixed {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    typedef typename L::Mask Mask;
    static const int limit = L::whole ? WHOLE_LIMIT : NARROW_LIMIT;

    // trunc(x). What 32 bits can't hold becomes an integer near an end of their range: added to a
    // state within 2^24 it is beyond the limit, wrapped or not. In 64 bits, what they can't hold, and
    // NaN, is the lowest integer, as torch has it on an x86 CPU.
    LB_INLINE static Int truncated(Real x, Int &high) {
        if constexpr (L::whole) {
            return L::integer(x);
        } else if constexpr (L::narrow) {
            if constexpr (!L::lowest_for_none)
                high = L::pick(L::mask(x == x), high, L::zero() + NARROW_LIMIT);
            return L::integer(x);
        } else {
            const double limit = 9223372036854775808.0;
            Mask fits = L::mask((x > L::all(-limit)) & (x < L::all(limit)));
            return L::integer(L::choose(fits, x, L::all(-limit)));
        }
    }

    // Notes the magnitude of a state, or of what is compared with one.
    LB_INLINE static void watch(Int x, Int &high) {
        if constexpr (L::whole) {
            high = L::larger(high, L::magnitude(x));
        } else if constexpr (L::narrow) {
            high = high | (x ^ L::shifted(x, 31));
        }
    }

    LB_INLINE static bool is_beyond(Int high) {
        return L::narrow && L::any_at_least(high, limit);
    }

    // One for all neurons that is within the limit.
    LB_INLINE static Int all(int x) {
        if constexpr (L::whole) {
            return L::all(x);
        } else {
            return L::zero() + x;
        }
    }

    // A whole number for all neurons, and whether integers of this width may be run with it.
    LB_INLINE static Int constant(double value) {
        if constexpr (L::narrow) {
            return all(fits(value) ? (int)value : 0);
        } else {
            const double limit = 9223372036854775808.0;
            if (value >= limit) return L::zero() + 0x7fffffffffffffffLL;
            return L::zero() + (value > -limit ? (long long)value : -0x7fffffffffffffffLL - 1);
        }
    }
    LB_INLINE static bool fits(double value) {
        return !L::narrow || (value <= limit && value >= -limit);
    }

    // Notes where they may not.
    LB_INLINE static void note_unless(bool all_fit, Int &high) {
        watch(all(all_fit ? 0 : limit), high);
    }

    // An integer parameter, a fraction of 12 bits (over 4096 among whole numbers); noted where it is
    // not in 0 ... 4096.
    LB_INLINE static Int fraction(Real x, Int &high) {
        Int k = truncated(x, high);
        if constexpr (L::narrow) {
            Mask fits = (k <= all(DECAY_SCALE)) & (k >= L::zero());
            watch(L::pick(fits, L::zero(), all(limit)), high);
        }
        if constexpr (L::whole) k = k * L::all(1.0 / DECAY_SCALE);
        return k;
    }

    // What a decay d leaves, 4096 - d.
    LB_INLINE static Int kept(Real decay, Int &high) {
        return all(L::whole ? 1 : DECAY_SCALE) - fraction(decay, high);
    }

    // sign(x k) (|x k| >> 12) for a fraction k; in 32 bits for x below 2^27, in floats below 2^24.
    LB_INLINE static Int decayed(Int x, Int k) {
        if constexpr (L::whole) {
            return L::integer(x * k);
        } else if constexpr (L::narrow) {
            // The product has up to 36 bits: the upper and lower 12 bits of x are taken apart. What
            // is added before the shift makes it round toward zero.
            Int upper = L::small_product(L::shifted(x, DECAY_BITS), k);
            Int lower = L::small_product(x & (DECAY_SCALE - 1), k);
            Int up = L::shifted(x, 31) & (DECAY_SCALE - 1);
            return upper + L::shifted(lower + up, DECAY_BITS);
        } else {
            return truncated_shift(x * k);
        }
    }

  private:
    LB_INLINE static Int truncated_shift(Int product) {
        return L::shifted(product + (L::shifted(product, 63) & (DECAY_SCALE - 1)), DECAY_BITS);
    }
};

// What 1 is as an integer.
template <class L> struct Scale {
    typename L::Real scale, reciprocal;
    typename L::Flag rounds;  // no power of two

    LB_INLINE explicit Scale(double value)
        : scale(L::all(value)), reciprocal(L::all(1 / value)), rounds(!is_power_of_two(value)) {}

    // x / scale, by the reciprocal where that is exact.
    LB_INLINE typename L::Real real(typename L::Int x) const {
        typename L::Real whole = L::real(x);
        // (An integer has no negative zero.)
        if constexpr (L::whole) return whole * reciprocal + L::all(0);
        return rounds ? whole / scale : whole * reciprocal;
    }

    // trunc(scale * x)
    LB_INLINE typename L::Int integer(typename L::Real x, typename L::Int &high) const {
        return Fixed<L>::truncated(scale * x, high);
    }

    // A state's integer after it was a real for a while: it rounds at scales of no power of two.
    LB_INLINE typename L::Int rounded(typename L::Int x, typename L::Int &high) const {
        if (L::narrow && !rounds) return x;
        return integer(real(x), high);
    }

    // A state that comes as a real, noted: beyond the limit its first decay would go wrong.
    LB_INLINE typename L::Int state(typename L::Real x, typename L::Int &high) const {
        typename L::Int level = integer(x, high);
        Fixed<L>::watch(level, high);
        return level;
    }

    // Notes what would be rounded when it is added to a state as a real.
    LB_INLINE void note_unless_whole(typename L::Real x, typename L::Int &high) const {
        if constexpr (L::whole) {
            typename L::Int steps = L::integer(scale * x);
            typename L::Mask same = L::mask(steps == scale * x);
            Fixed<L>::watch(L::pick(same, steps, Fixed<L>::all(Fixed<L>::limit)), high);
        }
    }

  private:
    LB_INLINE static bool is_power_of_two(double value) {
        long long whole = (long long)value;
        return whole > 0 && (double)whole == value && (whole & (whole - 1)) == 0;
    }
};
