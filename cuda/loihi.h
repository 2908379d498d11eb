// Neurons in Loihi's arithmetic, as Lava's fixed_pt models run it (lava_bridge/ops/loihi/): inputs
// and sums are registers of 32 bits, which wrap, states have 24.

static const int ACTIVATION_BITS = 6;  // an activation is shifted left by these
static const int STATE_BOUND = 1 << 23;

template <class L> struct Loihi {
    typedef typename L::Real Real;
    typedef typename L::Int Int;

    // What a register of 32 bits holds of x.
    LB_INLINE static Int wrapped(Int x) {
        if constexpr (L::narrow) {
            return x;
        } else {
            return L::shifted(x << 32, 32);
        }
    }

    // A whole number shifted left. In 32 bits what is too large for them is so too when a state
    // within 2^24 is added, and noted there.
    LB_INLINE static Int raised(Real x, int bits, Int &high) {
        if constexpr (L::narrow) {
            return Fixed<L>::truncated(x * L::all(1LL << bits), high);
        } else {
            return wrapped(Fixed<L>::truncated(x, high) << bits);
        }
    }

    // A whole number, noted.
    LB_INLINE static Int whole(Real x, Int &high) {
        Int value = Fixed<L>::truncated(x, high);
        Fixed<L>::watch(value, high);
        return value;
    }

    // A bound for numbers below 2^24: in 32 bits any larger one is as good.
    LB_INLINE static Int bound(Real x, Int &high) {
        if constexpr (L::narrow) {
            const double most = NARROW_LIMIT;
            x = L::choose(L::mask(x < L::all(most)), x, L::all(most));
            x = L::choose(L::mask(x > L::all(-most)), x, L::all(-most));
        }
        return Fixed<L>::truncated(x, high);
    }

    // Within what a state may be.
    LB_INLINE static Int clipped(Int x) {
        Int most = L::zero() + (STATE_BOUND - 1);
        x = L::pick(x > most, most, x);
        return L::pick(x < -most, -most, x);
    }
};

// in: activation; what comes to the bias (null: nothing). out: spike; current; voltage after the
// reset. Parameters: current decay, voltage decay, bias, threshold, current and voltage before the
// first step. Results: current and voltage after the last step. Numbers: from how many steps to how
// many the states are zeroed (0: never), and the first one of these.
template <class L> struct LoihiLif {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    typedef typename L::Mask Mask;
    static const int inputs = 2, outputs = 3;
    static const bool reversed = false, integers = true;

    struct Neuron {
        Int current, voltage, current_kept, voltage_kept, bias, threshold;
        int until_reset;
    };

    bool driven, resets;
    int interval, first;

    LB_INLINE explicit LoihiLif(const Call &call)
        : driven(call.in[1] != 0), resets(call.number[0] != 0), interval((int)call.number[0]),
          first((int)call.number[1]) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        n.current_kept = Fixed<L>::kept(at.parameter(0), high);
        n.voltage_kept = Fixed<L>::kept(at.parameter(1), high);
        n.bias = Loihi<L>::whole(at.parameter(2), high);
        n.threshold = Loihi<L>::bound(at.parameter(3), high);
        n.current = Loihi<L>::whole(at.parameter(4), high);
        n.voltage = Loihi<L>::whole(at.parameter(5), high);
        n.until_reset = first;
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        if (resets && n.until_reset-- == 0) {
            n.until_reset = interval - 1;
            n.current = n.voltage = L::zero();
        }
        Int sum = Fixed<L>::decayed(n.current, n.current_kept) +
                  Loihi<L>::raised(in[0], ACTIVATION_BITS, high);
        Fixed<L>::watch(sum, high);
        n.current = turned_over(Loihi<L>::wrapped(sum));
        Int level = Fixed<L>::decayed(n.voltage, n.voltage_kept) + n.current + n.bias;
        if (driven) level = level + Loihi<L>::whole(in[1], high);
        level = Loihi<L>::clipped(Loihi<L>::wrapped(level));
        Mask fired = level > n.threshold;
        n.voltage = L::pick(fired, L::zero(), level);
        out[0] = L::choose(fired, L::all(1), L::all(0));
        out[1] = L::real(n.current);
        out[2] = L::real(n.voltage);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, L::real(n.current));
        at.result(1, L::real(n.voltage));
    }

  private:
    // A current beyond its 24 bits, -2^23 + 1 ... 2^23, comes in again at the other end, once.
    LB_INLINE static Int turned_over(Int x) {
        // Once is all there is to an x within 2^24.
        if constexpr (L::narrow) return L::shifted((x - 1) << 8, 8) + 1;
        Int turned = L::pick(x > L::zero() + STATE_BOUND, x - 2 * STATE_BOUND, x);
        return L::pick(x <= L::zero() - STATE_BOUND, x + 2 * STATE_BOUND, turned);
    }
};

// Resonate and fire: `izhikevich` fires by the imaginary part, and is reset; else it fires by the
// real part, where the phase passes zero.
// in: real and imaginary activation (null: 0). out: spike; real and imaginary state after the step.
// Parameters: sine, cosine, threshold, real and imaginary state before the first step. Results:
// real and imaginary state after the last step.
template <class L, bool izhikevich> struct LoihiResonator {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    typedef typename L::Mask Mask;
    static const int inputs = 2, outputs = 3;
    static const bool reversed = false, integers = true;

    struct Neuron {
        Int real, imag, sine, cosine, threshold;
    };

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        // A fraction that is negative or more than 1 takes 64 bits.
        n.sine = Fixed<L>::fraction(at.parameter(0), high);
        n.cosine = Fixed<L>::fraction(at.parameter(1), high);
        // It becomes a state where there is a reset.
        n.threshold = izhikevich ? Loihi<L>::whole(at.parameter(2), high)
                                 : Loihi<L>::bound(at.parameter(2), high);
        n.real = Loihi<L>::whole(at.parameter(3), high);
        n.imag = Loihi<L>::whole(at.parameter(4), high);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        Int real = Fixed<L>::decayed(n.real, n.cosine) - Fixed<L>::decayed(n.imag, n.sine) +
                   Loihi<L>::raised(in[0], ACTIVATION_BITS, high);
        Int imag = Fixed<L>::decayed(n.real, n.sine) + Fixed<L>::decayed(n.imag, n.cosine) +
                   Loihi<L>::raised(in[1], ACTIVATION_BITS, high);
        Fixed<L>::watch(real, high);
        Fixed<L>::watch(imag, high);
        real = Loihi<L>::clipped(real);
        imag = Loihi<L>::clipped(imag);
        Mask fired;
        if constexpr (izhikevich) {
            fired = imag >= n.threshold;
            real = L::pick(fired, L::zero(), real);
            imag = L::pick(fired, Loihi<L>::wrapped(n.threshold - 1), imag);
        } else {
            fired = (real >= n.threshold) & (imag >= L::zero()) & (n.imag < L::zero());
        }
        n.real = real;
        n.imag = imag;
        out[0] = L::choose(fired, L::all(1), L::all(0));
        out[1] = L::real(real);
        out[2] = L::real(imag);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, L::real(n.real));
        at.result(1, L::real(n.imag));
    }
};

template <class L> struct LoihiRf : LoihiResonator<L, false> {
    LB_INLINE explicit LoihiRf(const Call &) {}
};

template <class L> struct LoihiRfIzhikevich : LoihiResonator<L, true> {
    LB_INLINE explicit LoihiRfIzhikevich(const Call &) {}
};
