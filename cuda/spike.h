// The spikes of lava_bridge/ops/spike.py and their surrogates.

// The step between layers (slayer's delay_shift): what comes in goes out at the step after, 0 at the
// first. Run backwards it is the gradient: that of a step's spike is its output's one step later, and
// that of the first output goes nowhere. Number: whether there is such a step.
template <class L> struct DelayShift {
    typedef typename L::Real Real;
    bool delays;

    LB_INLINE explicit DelayShift(double number) : delays(number != 0) {}

    LB_INLINE Real of(Real now, Real &waiting) const {
        if (!delays) return now;
        Real given = waiting;
        waiting = now;
        return given;
    }
};

// The derivative of a spike by its voltage: slayer's exponential. Numbers: threshold, width, height,
// whether spikes are graded.
template <class L> struct ExponentialSurrogate {
    typename L::Real threshold, rate, height;
    typename L::Flag graded;

    LB_INLINE explicit ExponentialSurrogate(const double *number)
        : threshold(L::all(number[0])), rate(L::all(1 / number[1])),
          height(L::all(number[3] != 0 ? number[2] : number[2] / 2 / number[1])),
          graded(number[3] != 0) {}

    LB_INLINE typename L::Real slope(typename L::Real voltage) const {
        return slope_above(voltage - threshold);
    }

    LB_INLINE typename L::Real slope_above(typename L::Real above) const {
        typename L::Real away = L::negative(above);
        if (graded) away = L::choose(L::mask(above > L::all(0)), L::all(0), above);
        return height * L::exponential(away * rate);
    }
};

// The derivative of those of SpikingJelly's surrogates that are computed here. Numbers: which one, as
// in lava_bridge/ops/surrogate.py, and its alpha.
template <class L> struct SmoothSurrogate {
    typedef typename L::Real Real;
    int kind;
    Real alpha, half, square, turn;

    LB_INLINE explicit SmoothSurrogate(const double *number)
        : kind((int)number[0]), alpha(L::all(number[1])), half(L::all(number[1] / 2)),
          square(L::all(number[1] * number[1])), turn(L::all(1.5707963267948966 * number[1])) {}

    LB_INLINE Real slope(Real above) const {
        Real one = L::all(1);
        if (kind == 1) {  // sigmoid: the same on both sides of the threshold
            Real power = L::exponential(L::negative(alpha * above));
            Real share = one / (one + power);
            return alpha * power * share * share;
        }
        if (kind == 2) {  // arc tangent
            Real angle = turn * above;
            return half / (one + angle * angle);
        }
        if (kind == 3) {  // soft sign
            Real away = one + L::magnitude(alpha * above);
            return half / (away * away);
        }
        // Piecewise quadratic
        Real left = alpha - square * L::magnitude(above);
        return L::choose(L::mask(left < L::all(0)), L::all(0), left);
    }
};

// The derivatives of a phase spike: near the threshold and near phase zero. Numbers as above.
template <class L> struct PhaseSurrogate {
    typedef typename L::Real Real;
    Real threshold, rate, width, of_real_height, of_imag_height, by_real, by_imag;
    typename L::Flag graded;

    LB_INLINE explicit PhaseSurrogate(const double *number)
        : threshold(L::all(number[0])), rate(L::all(1 / number[1])), width(L::all(2 * number[1])),
          of_real_height(L::all(number[3] != 0 ? 1 : 1 / (2 * number[1]))),
          of_imag_height(L::all(1 / (2 * number[1]))), by_real(L::all(number[2])),
          by_imag(L::all(-number[2] / number[1])), graded(number[3] != 0) {}

    // What the gradient of a spike is times, by the real and by the imaginary part.
    LB_INLINE void slopes(Real above, Real imag, Real &real_slope, Real &imag_slope) const {
        Real zero = L::all(0);
        Real away = L::negative(above);
        if (graded) away = L::choose(L::mask(above > zero), zero, above);
        Real of_real = of_real_height * L::exponential(away * rate);
        Real of_imag = of_imag_height * L::exponential(L::negative(imag) * rate);
        Real step = (L::all(1) + sign<L>(above) * (L::all(1) - width * of_real)) * L::all(0.5);
        real_slope = by_real * of_real * of_imag;
        imag_slope = by_imag * sign<L>(imag) * of_imag * step;
    }
};

// A spike where a voltage is at or above its threshold: a number of the neuron plus a sequence
// (either may be absent).
template <class L> struct SpikeValue {
    typename L::Real scale;
    bool graded;

    LB_INLINE explicit SpikeValue(const double *number)
        : scale(L::all(number[1])), graded(number[0] != 0) {}

    // 0 times what is not finite is NaN, in torch too.
    LB_INLINE typename L::Real of(typename L::Mask fired, typename L::Real carried) const {
        typename L::Real spike = L::choose(fired, L::all(1), L::all(0));
        return graded ? spike * carried / scale : spike;
    }
};

// in: voltage, threshold. out: spike. Parameter: threshold. Numbers: whether graded, what a graded
// spike is divided by.
template <class L> struct Spike {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 2, outputs = 1;
    static const bool reversed = false, integers = false;

    struct Neuron {
        Real threshold;
    };

    SpikeValue<L> spike;

    LB_INLINE explicit Spike(const Call &call) : spike(call.number) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        n.threshold = at.parameter(0);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        out[0] = spike.of(L::mask(in[0] >= in[1] + n.threshold), in[0]);
    }

    template <class At> LB_INLINE void finish(Neuron &, const At &, Int &) const {}
};

// in: gradient of the spike, voltage, threshold. out: gradient of the voltage. Parameter: threshold.
// Numbers: the surrogate's four, the first of no account.
template <class L> struct SpikeBackward {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 3, outputs = 1;
    static const bool reversed = false, integers = false;

    struct Neuron {
        Real threshold;
    };

    ExponentialSurrogate<L> surrogate;

    LB_INLINE explicit SpikeBackward(const Call &call) : surrogate(call.number) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        n.threshold = at.parameter(0);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        out[0] = in[0] * surrogate.slope_above(in[1] - (in[2] + n.threshold));
    }

    template <class At> LB_INLINE void finish(Neuron &, const At &, Int &) const {}
};

// in: real and imaginary part, threshold. out: spike. Parameters: threshold, imaginary part before
// the first step. Numbers: as Spike's.
template <class L> struct PhaseSpike {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 3, outputs = 1;
    static const bool reversed = false, integers = false;

    struct Neuron {
        Real threshold, before;
    };

    SpikeValue<L> spike;

    LB_INLINE explicit PhaseSpike(const Call &call) : spike(call.number) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        n.threshold = at.parameter(0);
        n.before = at.parameter(1);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        Real zero = L::all(0);
        typename L::Mask fired = L::mask((in[0] >= in[2] + n.threshold) & (n.before < zero) &
                                         (in[1] >= zero));
        out[0] = spike.of(fired, in[0]);
        n.before = in[1];
    }

    template <class At> LB_INLINE void finish(Neuron &, const At &, Int &) const {}
};

// in: gradient of the spike, real and imaginary part, threshold. out: gradients of the real and of
// the imaginary part. Parameter: threshold. Numbers: as SpikeBackward's.
template <class L> struct PhaseSpikeBackward {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 4, outputs = 2;
    static const bool reversed = false, integers = false;

    struct Neuron {
        Real threshold;
    };

    PhaseSurrogate<L> surrogate;

    LB_INLINE explicit PhaseSpikeBackward(const Call &call) : surrogate(call.number) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        n.threshold = at.parameter(0);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        Real by_real, by_imag;
        surrogate.slopes(in[1] - (in[3] + n.threshold), in[2], by_real, by_imag);
        out[0] = in[0] * by_real;
        out[1] = in[0] * by_imag;
    }

    template <class At> LB_INLINE void finish(Neuron &, const At &, Int &) const {}
};
