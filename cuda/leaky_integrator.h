// The leaky integrator of lava_bridge/ops/leaky_integrator.py.

// in: x. out: the state before its reset. Parameters: decay, state before the first step.
// Numbers: scale, whether there is a threshold, threshold * scale.
template <class L> struct LeakyIntegrator {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 1, outputs = 1;
    static const bool reversed = false, integers = true, exact = true;
    static constexpr Sequences usual[] = {{1, 1}};

    struct Neuron {
        Int held, kept;
    };

    Scale<L> scale;
    bool resets;
    Real threshold;

    LB_INLINE explicit LeakyIntegrator(const Call &call)
        : scale(call.number[0]), resets(call.number[1] != 0), threshold(L::all(call.number[2])) {}

    LB_INLINE bool is_usual() const { return !scale.rounds; }

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        n.kept = Fixed<L>::kept(at.parameter(0), high);
        n.held = scale.state(at.parameter(1), high);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        Int level = Fixed<L>::decayed(n.held, n.kept) + scale.integer(in[0], high);
        Fixed<L>::watch(level, high);
        out[0] = scale.real(level);
        n.held = level;
        if (resets) {
            Int silent = L::pick(L::mask(L::real(level) < threshold), level, L::zero());
            n.held = silent;
        }
    }

    template <class At> LB_INLINE void finish(Neuron &, const At &, Int &) const {}
};

// in: gradient of the output, the output (read if result 0 is wanted). out: gradient of x.
// Parameters: decay. Result: sum over t of grad_x[t+1] output[t].
template <class L> struct LeakyIntegratorBackward {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 2, outputs = 1;
    static const bool reversed = true, integers = false, exact = false;
    static constexpr Sequences usual[] = {{1, 1}};

    struct Neuron {
        Real grad, kept;
        LongSum<L> sum;
    };

    typename L::Flag sums;

    LB_INLINE explicit LeakyIntegratorBackward(const Call &call) : sums(call.result[0] != 0) {}

    LB_INLINE bool is_usual() const { return !sums; }

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        n.kept = L::all(1) - at.parameter(0) / L::all(DECAY_SCALE);
        n.grad = L::all(0);
        n.sum = LongSum<L>{};
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        if (sums) n.sum.add(n.grad * in[1]);
        n.grad = in[0] + n.kept * n.grad;
        out[0] = n.grad;
    }

    LB_INLINE void settle(Neuron &n) const { n.sum.settle(); }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, n.sum.total());
    }
};
