// The sigma-delta neuron of lava_bridge/ops/sigma_delta.py in one pass: the sum of what came, its
// bias, an activation, and the messages of what changed.

// What the neuron and its threshold's gradient share: what is encoded.
// Parameters: DeltaNeuron's four; the sum before the first step; the bias.
template <class L> struct SigmaDeltaNeuron {
    typedef typename L::Real Real;

    DeltaNeuron<L> delta;
    Real first, bias;
    typename L::Sum since;

    template <class At> LB_INLINE void start(const At &at) {
        delta.start(at);
        first = at.parameter(4);
        bias = at.parameter(5);
        since = typename L::Sum{};
    }

    LB_INLINE Real total() const { return L::narrowed(since) + first; }

    LB_INLINE Real step(Real x, bool rectifies) {
        since = since + L::widened(x);
        Real level = total() + bias;
        // NaN is kept, as by torch.
        return rectifies ? L::choose(L::mask(level < L::all(0)), L::all(0), level) : level;
    }
};

// in: x. out: the messages. Marks: where the activation has the slope 0. Results:
// residual and error after the last step, the sum there, and what was encoded there.
// Numbers: Delta's two; whether the activation is ReLU, not the identity.
template <class L> struct SigmaDelta {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 1, outputs = 1;
    static const bool reversed = false, integers = false, exact = false;
    static constexpr Sequences usual[] = {{1, 1}};

    struct Neuron {
        SigmaDeltaNeuron<L> neuron;
        Int marks;
    };

    Encoder<L> encoder;
    bool rectifies;

    LB_INLINE explicit SigmaDelta(const Call &call)
        : encoder(call.number), rectifies(call.number[2] != 0) {}

    LB_INLINE bool is_usual() const { return encoder.is_usual(); }

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        n.neuron.start(at);
        n.marks = L::zero();
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        Real level = n.neuron.step(in[0], rectifies);
        push_mark<L>(n.marks, L::mask(level <= L::all(0)));
        out[0] = encoder.message(n.neuron.delta, level);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, n.neuron.delta.residual);
        at.result(1, n.neuron.delta.error);
        at.result(2, n.neuron.total());
        at.result(3, n.neuron.delta.before);
    }
};

// in: gradient of the messages. out: gradient of x. Marks: SigmaDelta's, or none where the
// activation is the identity. Result: gradient of the bias.
template <class L> struct SigmaDeltaBackward {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 1, outputs = 1;
    static const bool reversed = true, integers = false, exact = false;
    static constexpr Sequences usual[] = {{1, 1}};

    struct Neuron {
        Real later;
        typename L::Sum sum;
        Int marks;
    };

    bool masked;

    LB_INLINE explicit SigmaDeltaBackward(const Call &call) : masked(call.marks != 0) {}

    LB_INLINE bool is_usual() const { return true; }

    template <class At> LB_INLINE void start(Neuron &n, const At &, Int &) const {
        n.later = L::all(0);
        n.sum = typename L::Sum{};
        n.marks = L::zero();
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        Real grad = in[0] - n.later;
        n.later = in[0];
        if (masked) grad = L::choose(pop_mark<L>(n.marks), L::all(0), grad);
        n.sum = n.sum + L::widened(grad);
        out[0] = L::narrowed(n.sum);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, L::narrowed(n.sum));
    }
};

// The threshold's gradient. in: x, gradient of the messages. Result: gradient of the threshold.
// Numbers: DeltaThreshold's three; whether the activation is ReLU.
template <class L> struct SigmaDeltaThreshold {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 2, outputs = 1;
    static const bool reversed = false, integers = false;

    struct Neuron {
        SigmaDeltaNeuron<L> neuron;
        typename L::Sum sum;
    };

    ThresholdSurrogate<L> surrogate;
    bool rectifies;

    LB_INLINE explicit SigmaDeltaThreshold(const Call &call)
        : surrogate(call.number), rectifies(call.number[3] != 0) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        n.neuron.start(at);
        n.sum = typename L::Sum{};
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        Real level = n.neuron.step(in[0], rectifies);
        out[0] = surrogate.slope(n.neuron.delta, level) * in[1];
        n.sum = n.sum + L::widened(out[0]);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, L::narrowed(n.sum));
    }
};
