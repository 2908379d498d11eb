// Shifts in time (lava_bridge/ops/shift.py), and what their gradient needs.

// A gather: says for each element of the output which element of the input it is. R is the dtype of
// the parameters only; sequences are of any dtype, in and out the same, and are moved as bytes.
//
// in: x. out: x, each neuron's `steps` later. Parameter: the steps, whole numbers (none: number 0).
// |steps| must not be above call.steps.
template <class R> struct Shift {
    // A neuron's place is its place in memory order, as for parameters.
    LB_INLINE static long long steps(const Call &call, long long neuron) {
        const R *values = (const R *)call.parameter[0];
        return (long long)(values ? values[call.shared[0] ? 0 : neuron] : (R)call.number[0]);
    }

    // The time to read for time t of the output; -1: the element is zero.
    LB_INLINE static long long source(const Call &call, long long neuron, long long t) {
        long long from = t - steps(call, neuron);
        return from >= 0 && from < call.steps ? from : -1;
    }
};

// The gradient of a delay: in: gradient of the output, the output. Result: sum over t of
// grad[t] (output[t-1] - output[t]).
template <class L> struct DelayGradient {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 2, outputs = 1;
    static const bool reversed = false, integers = false;

    struct Neuron {
        Real before;
        typename L::Sum sum;
    };

    LB_INLINE explicit DelayGradient(const Call &) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &, Int &) const {
        n.before = L::all(0);
        n.sum = typename L::Sum{};
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        out[0] = in[0] * (n.before - in[1]);
        n.sum = n.sum + L::widened(out[0]);
        n.before = in[1];
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, L::narrowed(n.sum));
    }
};
