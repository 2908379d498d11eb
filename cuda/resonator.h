// The resonator of lava_bridge/ops/resonator.py, and the neurons that resonate and fire.

// A complex state that turns. Parameters: sine, cosine, real and imaginary state before the first
// step. Numbers: whether there is a reset; from where on, and to what (integers).
template <class L> struct Turn {
    typedef typename L::Real Real;
    typedef typename L::Int Int;

    struct State {
        Int real, imag, sine, cosine;
    };

    bool resets, fits;
    Int resets_at, resets_to;

    LB_INLINE explicit Turn(const double *number)
        : resets(number[0] != 0),
          fits(!resets || (Fixed<L>::fits(number[1]) && Fixed<L>::fits(number[2]))),
          resets_at(Fixed<L>::constant(number[1])), resets_to(Fixed<L>::constant(number[2])) {}

    template <class At>
    LB_INLINE void start(State &s, const At &at, const Scale<L> &scale, Int &high) const {
        // Neurons turn within a quarter circle; negative fractions take 64 bits.
        s.sine = Fixed<L>::fraction(at.parameter(0), high);
        s.cosine = Fixed<L>::fraction(at.parameter(1), high);
        s.real = scale.state(at.parameter(2), high);
        s.imag = scale.state(at.parameter(3), high);
    }

    LB_INLINE void step(State &s, Real real, Real imag, const Scale<L> &scale, Int &high) const {
        Int turned = Fixed<L>::decayed(s.real, s.cosine) - Fixed<L>::decayed(s.imag, s.sine);
        s.imag = Fixed<L>::decayed(s.real, s.sine) + Fixed<L>::decayed(s.imag, s.cosine) +
                 scale.integer(imag, high);
        s.real = turned + scale.integer(real, high);
        Fixed<L>::watch(s.real, high);
        Fixed<L>::watch(s.imag, high);
    }

    // Izhikevich's.
    LB_INLINE void reset(State &s) const {
        if (!resets) return;
        typename L::Mask fired = s.imag >= resets_at;
        s.real = L::pick(fired, L::zero(), s.real);
        s.imag = L::pick(fired, resets_to, s.imag);
    }
};

// in: real and imaginary input. out: spike; how far the state is over threshold and refractory state
// (adaptive neurons); real and imaginary state before the reset; threshold and refractory state
// before the spike. Parameters: the turn's four, the adaptation's four. Results: real and imaginary
// state, threshold and refractory state at the last step, before its reset and spike.
// Numbers: scale; the threshold that fires; whether spikes are graded; the turn's three; the
// adaptation's two; whether spikes are delayed by a step.
//
// `phase`: fires by its real part, where its phase passes zero; else by its imaginary part.
template <class L, bool phase, bool adaptive> struct ResonateAndFire {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    typedef typename L::Mask Mask;
    static const int inputs = 2, outputs = 6;
    static const bool reversed = false, integers = true, exact = true;
    // The spike alone, and with what is kept for a gradient (ops/resonate_and_fire.py, `kept`).
    static constexpr Sequences usual[] = {{3, 1},
                                          {3, adaptive ? (phase ? 11 : 3) : (phase ? 13 : 9)}};

    struct Neuron {
        typename Turn<L>::State turning;
        typename Adaptation<L>::State adapted;
        Int level_before;
        Real real, imag, threshold, refractory, waiting;
    };

    Scale<L> scale;
    Real fires_at;
    typename L::Flag graded;
    DelayShift<L> delay;
    Turn<L> turn;
    Adaptation<L> adaptation;

    LB_INLINE explicit ResonateAndFire(const Call &call)
        : scale(call.number[0]), fires_at(L::all(call.number[1])), graded(call.number[2] != 0),
          delay(call.number[8]), turn(call.number + 3), adaptation(call.number + 6) {}

    LB_INLINE bool is_usual() const { return !(scale.rounds || graded); }

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        Fixed<L>::note_unless(turn.fits && (!adaptive || adaptation.fits), high);
        turn.start(n.turning, at, scale, high);
        if (adaptive) adaptation.start(n.adapted, at, 4, scale, high);
        n.level_before = n.turning.imag;
        n.real = at.parameter(2);
        n.imag = at.parameter(3);
        n.refractory = at.parameter(6);
        n.threshold = at.parameter(7);
        n.waiting = L::all(0);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        turn.step(n.turning, in[0], in[1], scale, high);
        Real before = n.imag;
        n.real = scale.real(n.turning.real);
        n.imag = scale.real(n.turning.imag);
        Real carried = phase ? n.real : n.imag;
        Real holds = fires_at;
        if (adaptive) {
            adaptation.decay(n.adapted);
            n.threshold = scale.real(n.adapted.threshold);
            n.refractory = scale.real(n.adapted.refractory);
            holds = n.threshold + n.refractory;
        }
        Mask fired = L::mask(carried >= holds);
        if (phase) fired = fired & L::mask((before < L::all(0)) & (n.imag >= L::all(0)));
        Real spike = L::choose(fired, graded ? carried : L::all(1), L::all(0));
        out[0] = delay.of(spike, n.waiting);
        out[1] = carried - holds;
        out[2] = n.real;
        out[3] = n.imag;
        out[4] = n.threshold;
        out[5] = n.refractory;
        if (adaptive) adaptation.fire(n.adapted, is_over(n, high), high);
        turn.reset(n.turning);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, n.real);
        at.result(1, n.imag);
        at.result(2, n.threshold);
        at.result(3, n.refractory);
    }

  private:
    // Whether the state, in integers, is over the adaptive threshold. The phase's comes to it as a
    // real, which rounds at scales of no power of two.
    LB_INLINE Mask is_over(Neuron &n, Int &high) const {
        Int holds = n.adapted.threshold + n.adapted.refractory;
        if (!phase) return n.turning.imag >= holds;
        Int imag = scale.rounded(n.turning.imag, high);
        Mask turns = (imag >= L::zero()) & (n.level_before < L::zero());
        n.level_before = imag;
        return turns & (scale.rounded(n.turning.real, high) >= holds);
    }
};
template <class L> using ResonateAndFireAtPhaseZero = ResonateAndFire<L, true, false>;
template <class L> using ResonateAndFireIzhikevich = ResonateAndFire<L, false, false>;
template <class L> using AdaptiveAtPhaseZero = ResonateAndFire<L, true, true>;
template <class L> using AdaptiveIzhikevich = ResonateAndFire<L, false, true>;

// The adjoint of the turn. Parameters: sine, cosine.
template <class L> struct TurnAdjoint {
    typedef typename L::Real Real;

    struct State {
        Real sine, cosine, real, imag;
        LongSum<L> sine_sum, cosine_sum;
    };

    template <class At> LB_INLINE static void start(State &s, const At &at) {
        s.sine = at.parameter(0) / L::all(DECAY_SCALE);
        s.cosine = at.parameter(1) / L::all(DECAY_SCALE);
        s.real = s.imag = L::all(0);
        s.sine_sum = s.cosine_sum = LongSum<L>{};
    }

    // The products with the states of this step, which those of the step after it came from.
    LB_INLINE static void add(State &s, Real real, Real imag) {
        s.sine_sum.add(s.imag * real - s.real * imag);
        s.cosine_sum.add(s.real * real + s.imag * imag);
    }

    // From gradients of the state to those of the input, which are the adjoint's own state.
    LB_INLINE static void step(State &s, Real real_grad, Real imag_grad) {
        Real later = s.real;
        s.real = real_grad + s.cosine * later + s.sine * s.imag;
        s.imag = imag_grad - s.sine * later + s.cosine * s.imag;
    }

    LB_INLINE static void settle(State &s) {
        s.sine_sum.settle();
        s.cosine_sum.settle();
    }

    // Results: the gradients of sine and cosine, as slayer has them.
    template <class At> LB_INLINE static void finish(const State &s, const At &at) {
        at.result(0, s.sine_sum.total());
        at.result(1, s.cosine_sum.total());
    }
};

// in: gradients of the real and the imaginary state; the states (read for the results). out:
// gradients of the real and the imaginary input. Parameters and results: the adjoint's.
template <class L> struct ResonatorBackward {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 4, outputs = 2;
    static const bool reversed = true, integers = false;

    typedef typename TurnAdjoint<L>::State Neuron;

    LB_INLINE explicit ResonatorBackward(const Call &) {}

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        TurnAdjoint<L>::start(n, at);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        TurnAdjoint<L>::add(n, in[2], in[3]);
        TurnAdjoint<L>::step(n, in[0], in[1]);
        out[0] = n.real;
        out[1] = n.imag;
    }

    LB_INLINE void settle(Neuron &n) const { TurnAdjoint<L>::settle(n); }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        TurnAdjoint<L>::finish(n, at);
    }
};

// in: gradient of the spike; what was compared with the threshold; the imaginary state (read at phase
// zero and for the results) and the real one (for the results). out: gradients of the real and the
// imaginary input. Parameters and results: the adjoint's. Numbers: the surrogate's four; whether
// spikes are delayed by a step.
template <class L, bool phase> struct ResonateAndFireBackward {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 4, outputs = 2;
    static const bool reversed = true, integers = false, exact = false;
    static constexpr Sequences usual[] = {{phase ? 7 : 3, 3}};

    struct Neuron {
        typename TurnAdjoint<L>::State adjoint;
        Real waiting;
    };

    ExponentialSurrogate<L> surrogate;
    PhaseSurrogate<L> phase_surrogate;
    DelayShift<L> delay;
    typename L::Flag sums;

    LB_INLINE explicit ResonateAndFireBackward(const Call &call)
        : surrogate(call.number), phase_surrogate(call.number), delay(call.number[4]),
          sums(call.result[0] || call.result[1]) {}

    LB_INLINE bool is_usual() const { return !(surrogate.graded || sums); }

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &) const {
        TurnAdjoint<L>::start(n.adjoint, at);
        n.waiting = L::all(0);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &) const {
        Real by_real = L::all(0), by_imag;
        if (phase) {
            Real above = in[1] - phase_surrogate.threshold;
            phase_surrogate.slopes(above, in[2], by_real, by_imag);
        } else {
            by_imag = surrogate.slope(in[1]);
        }
        Real grad = delay.of(in[0], n.waiting);
        if (sums) TurnAdjoint<L>::add(n.adjoint, in[3], in[2]);
        TurnAdjoint<L>::step(n.adjoint, grad * by_real, grad * by_imag);
        out[0] = n.adjoint.real;
        out[1] = n.adjoint.imag;
    }

    LB_INLINE void settle(Neuron &n) const { TurnAdjoint<L>::settle(n.adjoint); }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        TurnAdjoint<L>::finish(n.adjoint, at);
    }
};
template <class L> using PhaseZeroBackward = ResonateAndFireBackward<L, true>;
template <class L> using IzhikevichBackward = ResonateAndFireBackward<L, false>;
