// The CUBA neuron in one pass: two leaky integrators, threshold, reset and spike.

// in: x. out: spike, voltage before the reset, current, voltage after the reset. Parameters: current
// decay, voltage decay, current and voltage before the first step, bias. Results: current and
// voltage after the last step. Numbers: scale; threshold * scale, below which nothing is reset; the
// threshold that fires; whether spikes are graded; whether x is the current itself; whether there
// is a bias, which is added to the current on its way to the voltage; whether spikes are delayed by
// a step.
template <class L> struct Cuba {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 1, outputs = 4;
    static const bool reversed = false, integers = true, exact = true;
    static constexpr Sequences usual[] = {{1, 1}, {1, 3}};

    struct Neuron {
        Int current, voltage, current_kept, voltage_kept;
        Real held, bias, waiting;
    };

    Scale<L> scale;
    Real resets_at, fires_at;
    bool is_current, biased;
    typename L::Flag graded;
    DelayShift<L> delay;

    LB_INLINE explicit Cuba(const Call &call)
        : scale(call.number[0]), resets_at(L::all(call.number[1])),
          fires_at(L::all(call.number[2])), is_current(call.number[4] != 0),
          biased(call.number[5] != 0), graded(call.number[3] != 0), delay(call.number[6]) {}

    // (A sum of two reals is rounded.)
    LB_INLINE bool is_usual() const { return !(scale.rounds || graded || (is_current && biased)); }

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        n.current_kept = Fixed<L>::kept(at.parameter(0), high);
        n.voltage_kept = Fixed<L>::kept(at.parameter(1), high);
        n.current = scale.state(at.parameter(2), high);
        n.voltage = scale.state(at.parameter(3), high);
        n.held = at.parameter(3);
        n.bias = at.parameter(4);
        scale.note_unless_whole(n.bias, high);
        n.waiting = L::all(0);
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        Real current = in[0];
        if (!is_current) {
            n.current =
                Fixed<L>::decayed(n.current, n.current_kept) + scale.integer(in[0], high);
            Fixed<L>::watch(n.current, high);
            current = scale.real(n.current);
        }
        // A real for a while, as between two operators: what is added there is rounded there.
        Int drive = is_current || biased ? scale.integer(current + n.bias, high)
                                         : scale.rounded(n.current, high);
        Int level = Fixed<L>::decayed(n.voltage, n.voltage_kept) + drive;
        Fixed<L>::watch(level, high);
        Real voltage = scale.real(level);
        typename L::Mask below = L::mask(L::real(level) < resets_at);
        n.voltage = L::pick(below, level, L::zero());
        typename L::Mask fired = L::mask(voltage >= fires_at);
        Real spike = L::choose(fired, graded ? voltage : L::all(1), L::all(0));
        out[0] = delay.of(spike, n.waiting);
        out[1] = voltage;
        out[2] = current;
        out[3] = n.held = L::choose(fired, L::all(0), voltage);
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &) const {
        at.result(0, scale.real(n.current));
        at.result(1, n.held);
    }
};

// The current that a voltage had at the next step: what the leak left of `held` is taken off it.
template <class L>
LB_INLINE typename L::Real current_of(typename L::Real voltage, typename L::Real held,
                                      typename L::Int kept, const Scale<L> &scale,
                                      typename L::Int &high) {
    typename L::Int left = Fixed<L>::decayed(scale.state(held, high), kept);
    return voltage - scale.real(left);
}

// slayer's gradient: the leaks' adjoints and nothing through the reset.
// in: gradient of the spike, voltage before the reset. out: gradient of x. Parameters: current
// decay, voltage decay, voltage before the first step, bias. Results: sum over t of grad_u[t+1] u[t]
// and of grad_v[t+1] v[t] (slayer's gradients of the decays, v before the reset), and of grad_v[t]
// (the bias'). Numbers: scale; threshold * scale; the surrogate's four; whether spikes are delayed by
// a step.
template <class L> struct CubaSlayerBackward {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 2, outputs = 1;
    static const bool reversed = true, integers = true, exact = false;
    static constexpr Sequences usual[] = {{3, 1}};

    struct Neuron {
        Real current_kept, voltage_kept, grad, later_grad, voltage_grad, voltage;
        Real first, bias, waiting;
        LongSum<L> current_sum, voltage_sum, bias_sum;
        Int kept;
    };

    Scale<L> scale;
    Real resets_at;
    ExponentialSurrogate<L> surrogate;
    DelayShift<L> delay;
    typename L::Flag sums;
    bool sums_bias;

    LB_INLINE explicit CubaSlayerBackward(const Call &call)
        : scale(call.number[0]), resets_at(L::all(call.number[1])), surrogate(call.number + 2),
          delay(call.number[6]), sums(call.result[0] || call.result[1]),
          sums_bias(call.result[2] != 0) {}

    // (Nothing but the sums asks for the scale.)
    LB_INLINE bool is_usual() const { return !(surrogate.graded || sums); }

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        n.current_kept = L::all(1) - at.parameter(0) / L::all(DECAY_SCALE);
        n.voltage_kept = L::all(1) - at.parameter(1) / L::all(DECAY_SCALE);
        n.first = at.parameter(2);
        n.bias = at.parameter(3);
        n.kept = Fixed<L>::kept(at.parameter(1), high);
        n.grad = n.later_grad = n.voltage_grad = n.voltage = L::all(0);
        n.waiting = L::all(0);
        n.current_sum = n.voltage_sum = n.bias_sum = LongSum<L>{};
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        if (sums) {
            typename L::Mask below = L::mask(in[1] * scale.scale < resets_at);
            add(n, L::choose(below, in[1], L::all(0)), high);
            n.voltage_sum.add(n.voltage_grad * in[1]);
            n.later_grad = n.grad;
            n.voltage = in[1];
        }
        Real grad = delay.of(in[0], n.waiting);
        n.voltage_grad = grad * surrogate.slope(in[1]) + n.voltage_kept * n.voltage_grad;
        if (sums_bias) n.bias_sum.add(n.voltage_grad);
        n.grad = n.voltage_grad + n.current_kept * n.grad;
        out[0] = n.grad;
    }

    LB_INLINE void settle(Neuron &n) const {
        n.current_sum.settle();
        n.voltage_sum.settle();
        n.bias_sum.settle();
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &high) const {
        if (sums) add(n, n.first, high);
        at.result(0, n.current_sum.total());
        at.result(1, n.voltage_sum.total());
        at.result(2, n.bias_sum.total());
    }

  private:
    // The product for the current of the step after the one whose voltage went on as `held`.
    LB_INLINE void add(Neuron &n, Real held, Int &high) const {
        Real current = current_of<L>(n.voltage, held, n.kept, scale, high) - n.bias;
        n.current_sum.add(n.later_grad * current);
    }
};

// SpikingJelly's gradient: through the reset too (unless detached), to decays and first states.
// in: gradient of the spike; voltage before the reset; the surrogate's derivative there, unless it
// is computed here; gradients of the voltage after the reset and of the current (0 where there are
// none). out: gradient of x. Parameters: current decay, voltage decay, current and voltage before the
// first step, gradients of the last current and voltage, bias. Results: gradients of the current
// decay, of the voltage decay (both times -4096), of the first current, of the first voltage and of
// the bias.
// Numbers: scale; the threshold that fires; whether the reset is detached; whether x is the current
// itself; SmoothSurrogate's two (0: none).
template <class L> struct CubaResetBackward {
    typedef typename L::Real Real;
    typedef typename L::Int Int;
    static const int inputs = 5, outputs = 1;
    static const bool reversed = true, integers = true, exact = false;
    static constexpr Sequences usual[] = {{3, 1}};

    struct Neuron {
        Real current_kept, voltage_kept, current_grad, voltage_grad, later_grad, voltage;
        Real current_through, voltage_through, bias;
        LongSum<L> current_sum, voltage_sum, bias_sum;
        Int kept;
    };

    Scale<L> scale;
    Real fires_at;
    bool detached, is_current, sums_bias;
    typename L::Flag sums, given;
    SmoothSurrogate<L> surrogate;

    LB_INLINE explicit CubaResetBackward(const Call &call)
        : scale(call.number[0]), fires_at(L::all(call.number[1])), detached(call.number[2] != 0),
          is_current(call.number[3] != 0), sums_bias(call.result[4] != 0),
          sums(call.result[0] || call.result[1]), given(call.number[4] == 0),
          surrogate(call.number + 4) {}

    // (Nothing but the sums asks for the scale.)
    LB_INLINE bool is_usual() const { return !(sums || given); }

    template <class At> LB_INLINE void start(Neuron &n, const At &at, Int &high) const {
        n.current_kept = L::all(1) - at.parameter(0) / L::all(DECAY_SCALE);
        if (is_current) n.current_kept = L::all(0);
        n.voltage_kept = L::all(1) - at.parameter(1) / L::all(DECAY_SCALE);
        n.kept = Fixed<L>::kept(at.parameter(1), high);
        n.current_through = at.parameter(4);
        n.voltage_through = at.parameter(5);
        n.bias = at.parameter(6);
        n.current_grad = n.voltage_grad = n.later_grad = n.voltage = L::all(0);
        n.current_sum = n.voltage_sum = n.bias_sum = LongSum<L>{};
    }

    LB_INLINE void step(Neuron &n, const Real *in, Real *out, Int &high) const {
        Real voltage = in[1], slope = given ? in[2] : surrogate.slope(voltage - fires_at);
        typename L::Mask fired = L::mask(voltage >= fires_at);
        if (sums) add(n, L::choose(fired, L::all(0), voltage), high);
        Real held_by_voltage = L::choose(fired, L::all(0), L::all(1));
        if (!detached) held_by_voltage = held_by_voltage - voltage * slope;
        n.later_grad = n.current_grad;
        n.voltage = voltage;
        n.voltage_grad = in[0] * slope + (in[3] + n.voltage_through) * held_by_voltage;
        if (sums_bias) n.bias_sum.add(n.voltage_grad);
        n.current_grad = in[4] + n.voltage_grad + n.current_through;
        n.voltage_through = n.voltage_kept * n.voltage_grad;
        n.current_through = n.current_kept * n.current_grad;
        out[0] = n.current_grad;
    }

    LB_INLINE void settle(Neuron &n) const {
        n.current_sum.settle();
        n.voltage_sum.settle();
        n.bias_sum.settle();
    }

    template <class At> LB_INLINE void finish(Neuron &n, const At &at, Int &high) const {
        if (sums) {
            add(n, at.parameter(3), high);
            n.current_sum.add(n.current_grad * at.parameter(2));
        }
        at.result(0, n.current_sum.total());
        at.result(1, n.voltage_sum.total());
        at.result(2, n.current_through);
        at.result(3, n.voltage_through);
        at.result(4, n.bias_sum.total());
    }

  private:
    // What the voltage that went on as `held` adds to the sums.
    LB_INLINE void add(Neuron &n, Real held, Int &high) const {
        n.voltage_sum.add(n.voltage_grad * held);
        Real current = current_of<L>(n.voltage, held, n.kept, scale, high) - n.bias;
        n.current_sum.add(n.later_grad * current);
    }
};
