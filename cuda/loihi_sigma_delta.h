// Sigma-delta neurons in Loihi's arithmetic (lava_bridge/ops/loihi/).

// What was encoded last, and what was not sent of it.
template <class L> struct LoihiEncoder {
    typedef typename L::Int Int;

    Int threshold, before, residue;

    // `level` is the threshold's place among the parameters, `first` that of the two states.
    template <class At> LB_INLINE void start(const At &at, int level, int first, Int &high) {
        threshold = Loihi<L>::bound(at.parameter(level), high);
        before = Loihi<L>::whole(at.parameter(first), high);
        residue = Loihi<L>::whole(at.parameter(first + 1), high);
    }

    // The message, not shifted; x is below 2^25 where integers are narrow.
    LB_INLINE Int step(Int x, Int &high) {
        Int change = Loihi<L>::wrapped(x - before + residue);
        Fixed<L>::watch(change, high);
        // The lowest integer has no absolute value in 32 bits: it stays what it is.
        Int size = Loihi<L>::wrapped(L::pick(change < L::zero(), -change, change));
        typename L::Mask sends = size >= threshold;
        residue = L::pick(sends, L::zero(), change);
        before = x;
        return L::pick(sends, change, L::zero());
    }
};

// in: activation. out: sums. Parameter: the sum before the first step. Result: the last sum.
template <class L> struct LoihiSigma {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 1, outputs = 1;
    static const bool reversed = false, integers = true;

    struct Neuron {
        Int sum;
    };

    LB_INLINE explicit LoihiSigma(const Call &) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        n.sum = Loihi<L>::whole(at.parameter(0), high);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        n.sum = Loihi<L>::wrapped(n.sum + Loihi<L>::raised(in[0], 0, high));
        Fixed<L>::watch(n.sum, high);
        out[0] = L::real(n.sum);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, L::real(n.sum));
    }
};

// in: x. out: messages; x shifted, and residue, after each step. Parameters: threshold, x shifted
// and residue before the first step. Results: these two after the last step. Numbers: the shifts of
// x (to the left) and of a message (to the right).
template <class L> struct LoihiDelta {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 1, outputs = 3;
    static const bool reversed = false, integers = true;
    typedef LoihiEncoder<L> Neuron;

    int input_bits, message_bits;

    LB_INLINE explicit LoihiDelta(const Call &call)
        : input_bits((int)call.number[0]), message_bits((int)call.number[1]) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        n.start(at, 0, 1, high);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        Int x = Loihi<L>::raised(in[0], input_bits, high);
        Fixed<L>::watch(x, high);
        out[0] = L::real(L::shifted(n.step(x, high), message_bits));
        out[1] = L::real(x);
        out[2] = L::real(n.residue);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, L::real(n.before));
        at.result(1, L::real(n.residue));
    }
};

// in: activation. out: messages; sum, activation after the ReLU, and residue, after each step.
// Parameters: bias, threshold, these three before the first step. Results: the three after the last
// step. Number: the shift of a message to the right.
template <class L> struct LoihiSigmaDelta {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 1, outputs = 4;
    static const bool reversed = false, integers = true;

    struct Neuron {
        LoihiEncoder<L> encoder;
        Int sum, bias;
    };

    int message_bits;

    LB_INLINE explicit LoihiSigmaDelta(const Call &call) : message_bits((int)call.number[0]) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        n.bias = Loihi<L>::whole(at.parameter(0), high);
        n.sum = Loihi<L>::whole(at.parameter(2), high);
        n.encoder.start(at, 1, 3, high);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        n.sum = Loihi<L>::wrapped(n.sum + Loihi<L>::raised(in[0], 0, high));
        Fixed<L>::watch(n.sum, high);
        Int x = Loihi<L>::wrapped(n.sum + n.bias);
        x = L::pick(x < L::zero(), L::zero(), x);
        out[0] = L::real(L::shifted(n.encoder.step(x, high), message_bits));
        out[1] = L::real(n.sum);
        out[2] = L::real(x);
        out[3] = L::real(n.encoder.residue);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, L::real(n.sum));
        at.result(1, L::real(n.encoder.before));
        at.result(2, L::real(n.encoder.residue));
    }
};
