// The delta encoder of lava_bridge/ops/delta.py: sends what changed, once it is large enough.

// What the encoder and its threshold's gradient share: the changes and when they are sent.
// Parameters: threshold; x, residual and error before the first step.
template <class L> struct DeltaNeuron {
    typedef typename L::Real Real;

    Real threshold, before, residual, error;

    template <class At> LB_INLINE void start(const At &at) {
        threshold = at.parameter(0);
        before = at.parameter(1);
        residual = at.parameter(2);
        error = at.parameter(3);
    }

    // Gives the change, and in `sent` what is sent of it.
    LB_INLINE Real step(Real x, bool cumulated, Real &sent) {
        Real change = x - before + residual;
        if (cumulated) error = error + change;
        typename L::Mask sends = L::mask(L::magnitude(cumulated ? error : change) >= threshold);
        sent = L::choose(sends, change, L::all(0));
        // What is not sent; no 0 where that is all: what is left of infinity is NaN.
        residual = L::choose(sends, change - change, change);
        // Times 0, not 0, for the same reason.
        error = cumulated
                    ? error * L::choose(L::mask(sent == L::all(0)), L::all(1), L::all(0))
                    : residual;
        before = x;
        return change;
    }
};

// Numbers: whether the error is cumulated; what a message of 1 is as an integer (0: not rounded).
template <class L> struct Encoder {
    typedef typename L::Real Real;

    typename L::Flag cumulated;
    bool rounds;
    Scale<L> scale;

    LB_INLINE explicit Encoder(const double *number)
        : cumulated(number[0] != 0), rounds(number[1] != 0), scale(number[1]) {}

    LB_INLINE bool is_usual() const { return !(cumulated || (rounds && scale.rounds)); }

    LB_INLINE Real message(DeltaNeuron<L> &n, Real x) const {
        Real sent;
        n.step(x, cumulated, sent);
        if (!rounds) return sent;
        // Over the step 1 / scale, as the reference: times the scale where that is the same.
        Real steps = scale.rounds ? sent / scale.reciprocal : sent * scale.scale;
        return L::floored(steps) * scale.reciprocal;
    }
};

// in: x. out: the messages. Results: residual and error after the last step. Numbers: Encoder's.
template <class L> struct Delta {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 1, outputs = 1;
    static const bool reversed = false, integers = false;
    typedef DeltaNeuron<L> Neuron;

    Encoder<L> encoder;

    LB_INLINE explicit Delta(const Call &call) : encoder(call.number) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const { n.start(at); }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        out[0] = encoder.message(n, in[0]);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, n.residual);
        at.result(1, n.error);
    }
};

// The gradient of sending always. in: gradient of the messages. out: gradient of x.
template <class L> struct DeltaBackward {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 1, outputs = 1;
    static const bool reversed = true, integers = false;

    struct Neuron {
        Real later;
    };

    LB_INLINE explicit DeltaBackward(const Call &) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &, Int &) const {
        n.later = L::all(0);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        out[0] = in[0] - n.later;
        n.later = in[0];
    }

    template <class At> LB_INLINE void finish(Neuron &, const At &, Int &) const {}
};

// What the gradient of a message is times, by the threshold. Numbers: whether the error is
// cumulated; width and height of the surrogate.
template <class L> struct ThresholdSurrogate {
    typedef typename L::Real Real;

    bool cumulated;
    Real width, height;

    LB_INLINE explicit ThresholdSurrogate(const double *number)
        : cumulated(number[0] != 0), width(L::all(number[1])), height(L::all(number[2])) {}

    LB_INLINE Real slope(DeltaNeuron<L> &n, Real x) const {
        Real sent;
        Real change = n.step(x, cumulated, sent);
        Real above = L::magnitude(change) - n.threshold;
        Real near = height * L::exponential(L::negative(above) / width);
        return L::choose(L::mask(above > L::all(0)), -change * near / n.threshold,
                         -sign<L>(change));
    }
};

// The threshold's gradient: encodes again, as nothing but x was kept.
// in: x, gradient of the messages. Result: gradient of the threshold.
// Numbers: ThresholdSurrogate's.
template <class L> struct DeltaThreshold {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 2, outputs = 1;
    static const bool reversed = false, integers = false;

    struct Neuron {
        DeltaNeuron<L> delta;
        typename L::Sum sum;
    };

    ThresholdSurrogate<L> surrogate;

    LB_INLINE explicit DeltaThreshold(const Call &call) : surrogate(call.number) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        n.delta.start(at);
        n.sum = typename L::Sum{};
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        out[0] = surrogate.slope(n.delta, in[0]) * in[1];
        n.sum = n.sum + L::widened(out[0]);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, L::narrowed(n.sum));
    }
};
