// The sigma decoder of lava_bridge/ops/sigma.py: a running sum, summed in double precision and
// rounded at every step, as torch.cumsum on the CPU.

// in: x. out: the sums. Parameter: what is added to each after it is rounded.
template <class L, bool from_the_end> struct RunningSum {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 1, outputs = 1;
    static const bool reversed = from_the_end, integers = false;

    struct Neuron {
        typename L::Sum sum;
        Real before;
    };

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        n.sum = typename L::Sum{};
        n.before = at.parameter(0);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        n.sum = n.sum + L::widened(in[0]);
        out[0] = L::narrowed(n.sum) + n.before;
    }

    template <class At> LB_INLINE void finish(Neuron &, const At &, Int &) const {}
};

template <class L> struct Sigma : RunningSum<L, false> {
    LB_INLINE explicit Sigma(const Call &) {}
};

// The gradient: the same from the last step back.
template <class L> struct SigmaBackward : RunningSum<L, true> {
    LB_INLINE explicit SigmaBackward(const Call &) {}
};
