// The adaptive threshold of lava_bridge/ops/adaptive_threshold.py, and the neurons of leaks and such
// a threshold (ALIF).

// What a neuron's threshold does between its spikes and at one. Numbers: the threshold at rest, and
// what a spike adds to it, as integers.
template <class L> struct Adaptation {
    typedef typename L::Int Int;

    struct State {
        Int refractory, threshold, refractory_kept, threshold_kept;
    };

    Int rest, rise;
    bool fits;

    LB_INLINE explicit Adaptation(const double *number)
        : rest(Fixed<L>::constant(number[0])), rise(Fixed<L>::constant(number[1])),
          fits(Fixed<L>::fits(number[0]) && Fixed<L>::fits(number[1])) {}

    // Parameters from `first` on: refractory decay, threshold decay, and the states before the first
    // step.
    template <class At>
    LB_INLINE void start(State &s, const At &at, int first, const Scale<L> &scale,
                         Int &high) const {
        s.refractory_kept = Fixed<L>::kept(at.parameter(first), high);
        s.threshold_kept = Fixed<L>::kept(at.parameter(first + 1), high);
        s.refractory = scale.state(at.parameter(first + 2), high);
        s.threshold = scale.state(at.parameter(first + 3), high);
    }

    LB_INLINE void decay(State &s) const {
        s.refractory = Fixed<L>::decayed(s.refractory, s.refractory_kept);
        s.threshold = Fixed<L>::decayed(s.threshold - rest, s.threshold_kept) + rest;
    }

    // What the spikes do to the next step. To note the refractory state is enough: where it stays
    // within the limit so was the threshold at the spike, which is within twice that until the next.
    LB_INLINE void fire(State &s, typename L::Mask fired, Int &high) const {
        s.refractory = s.refractory + L::pick(fired, s.threshold + s.threshold, L::zero());
        s.threshold = s.threshold + L::pick(fired, rise, L::zero());
        Fixed<L>::watch(s.refractory, high);
    }
};

// in: voltage, or real and imaginary state. out: threshold and refractory state, before the spike.
// Parameters: the adaptation's four; the imaginary state before the first step.
// Numbers: scale, the adaptation's two.
template <class L, bool phase> struct AdaptiveThresholds {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 2, outputs = 2;
    static const bool reversed = false, integers = true;

    struct Neuron {
        typename Adaptation<L>::State adapted;
        Int before;
    };

    Scale<L> scale;
    Adaptation<L> adaptation;

    LB_INLINE explicit AdaptiveThresholds(const Call &call)
        : scale(call.number[0]), adaptation(call.number + 1) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        Fixed<L>::note_unless(adaptation.fits, high);
        adaptation.start(n.adapted, at, 0, scale, high);
        n.before = phase ? scale.state(at.parameter(4), high) : L::zero();
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        adaptation.decay(n.adapted);
        out[0] = scale.real(n.adapted.threshold);
        out[1] = scale.real(n.adapted.refractory);
        Int level = scale.state(in[0], high);
        typename L::Mask fired = level >= n.adapted.threshold + n.adapted.refractory;
        if (phase) {
            Int imag = scale.state(in[1], high);
            fired = fired & (imag >= L::zero()) & (n.before < L::zero());
            n.before = imag;
        }
        adaptation.fire(n.adapted, fired, high);
    }

    template <class At> LB_INLINE void finish(Neuron &, const At &, Int &) const {}
};
template <class L> using AdaptiveThreshold = AdaptiveThresholds<L, false>;
template <class L> using AdaptivePhaseThreshold = AdaptiveThresholds<L, true>;

// The ALIF neuron in one pass: two leaks, the adaptive threshold, the spike.
// in: x. out: spike, voltage over the threshold and refractory state, current, voltage. Parameters:
// current decay, voltage decay, current and voltage before the first step; the adaptation's four.
// Results: current, voltage, threshold and refractory state at the last step, before its spike.
// Numbers: scale, the adaptation's two, whether spikes are graded, whether they are delayed by a step.
template <class L> struct Alif {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 1, outputs = 4;
    static const bool reversed = false, integers = true, exact = true;
    static constexpr Sequences usual[] = {{1, 1}, {1, 3}};

    struct Neuron {
        typename Adaptation<L>::State adapted;
        Int current, voltage, current_kept, voltage_kept;
        Real threshold, refractory, waiting;
    };

    Scale<L> scale;
    Adaptation<L> adaptation;
    typename L::Flag graded;
    DelayShift<L> delay;

    LB_INLINE explicit Alif(const Call &call)
        : scale(call.number[0]), adaptation(call.number + 1), graded(call.number[3] != 0),
          delay(call.number[4]) {}

    LB_INLINE bool is_usual() const { return !(scale.rounds || graded); }

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        Fixed<L>::note_unless(adaptation.fits, high);
        n.current_kept = Fixed<L>::kept(at.parameter(0), high);
        n.voltage_kept = Fixed<L>::kept(at.parameter(1), high);
        n.current = scale.state(at.parameter(2), high);
        n.voltage = scale.state(at.parameter(3), high);
        adaptation.start(n.adapted, at, 4, scale, high);
        n.refractory = at.parameter(6);
        n.threshold = at.parameter(7);
        n.waiting = L::all(0);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        n.current = Fixed<L>::decayed(n.current, n.current_kept) + scale.integer(in[0], high);
        Fixed<L>::watch(n.current, high);
        n.voltage =
            Fixed<L>::decayed(n.voltage, n.voltage_kept) + scale.rounded(n.current, high);
        Fixed<L>::watch(n.voltage, high);
        Real voltage = scale.real(n.voltage);
        adaptation.decay(n.adapted);
        n.threshold = scale.real(n.adapted.threshold);
        n.refractory = scale.real(n.adapted.refractory);
        Real holds = n.threshold + n.refractory;
        typename L::Mask fired = L::mask(voltage >= holds);
        Real spike = L::choose(fired, graded ? voltage : L::all(1), L::all(0));
        out[0] = delay.of(spike, n.waiting);
        out[1] = voltage - holds;
        out[2] = scale.real(n.current);
        out[3] = voltage;
        Int level = scale.rounded(n.voltage, high);
        adaptation.fire(n.adapted, level >= n.adapted.threshold + n.adapted.refractory, high);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, scale.real(n.current));
        at.result(1, scale.real(n.voltage));
        at.result(2, n.threshold);
        at.result(3, n.refractory);
    }
};

// in: gradient of the spike, voltage over the threshold; current and voltage (read for the results).
// out: gradient of x. Parameters: current decay, voltage decay. Results: as LeakyIntegratorBackward,
// for the current and for the voltage. Numbers: the surrogate's four, its threshold 0; whether spikes
// are delayed by a step.
template <class L> struct AlifBackward {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 4, outputs = 1;
    static const bool reversed = true, integers = false, exact = false;
    static constexpr Sequences usual[] = {{3, 1}};

    struct Neuron {
        Real current_kept, voltage_kept, grad, voltage_grad, waiting;
        LongSum<L> current_sum, voltage_sum;
    };

    ExponentialSurrogate<L> surrogate;
    DelayShift<L> delay;
    typename L::Flag sums;

    LB_INLINE explicit AlifBackward(const Call &call)
        : surrogate(call.number), delay(call.number[4]), sums(call.result[0] || call.result[1]) {}

    LB_INLINE bool is_usual() const { return !(surrogate.graded || sums); }

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        n.current_kept = L::all(1) - at.parameter(0) / L::all(DECAY_SCALE);
        n.voltage_kept = L::all(1) - at.parameter(1) / L::all(DECAY_SCALE);
        n.grad = n.voltage_grad = n.waiting = L::all(0);
        n.current_sum = n.voltage_sum = LongSum<L>{};
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        if (sums) {
            n.current_sum.add(n.grad * in[2]);
            n.voltage_sum.add(n.voltage_grad * in[3]);
        }
        Real grad = delay.of(in[0], n.waiting);
        n.voltage_grad = grad * surrogate.slope(in[1]) + n.voltage_kept * n.voltage_grad;
        n.grad = n.voltage_grad + n.current_kept * n.grad;
        out[0] = n.grad;
    }

    LB_INLINE void settle(Neuron &n) const {
        n.current_sum.settle();
        n.voltage_sum.settle();
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, n.current_sum.total());
        at.result(1, n.voltage_sum.total());
    }
};
