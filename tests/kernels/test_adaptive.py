"""The adaptive thresholds and the neurons that have one: native kernels against the reference."""

import pytest
import torch
from compared import (
    assert_close,
    assert_delay_is_the_shift,
    assert_same,
    assert_same_everywhere,
    both,
    extremes,
    fractions_of,
    gradients_of,
    parts_of,
    settings_of_a_run,
    states_of,
    uncancelled,
)
from hypothesis import example, given, strategies as st
from kernel_cases import ALL_ORDERS, in_order_of, laid_out, numbers, spread

from lava_bridge.kernels import native
from lava_bridge.ops import (
    adaptive_phase_th,
    adaptive_resonator,
    adaptive_threshold,
    alif,
    resonate_and_fire,
)
from lava_bridge.ops.resonate_and_fire import Adaptation

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

OPERATORS = torch.ops.lava_bridge
NEURONS = ("alif", "adrf", "adrf_iz")
every_neuron = pytest.mark.parametrize("name", NEURONS)
rises = st.sampled_from([0.0, 0.3, -0.2, 5.0])


def fired(name, inputs, decays, states, adaptation, scale, surrogate, delay_shift=False):
    """Spikes and last states of a neuron, as sequences."""
    if name == "alif":
        run = alif.fire(inputs[0], decays, states, adaptation, scale, surrogate, delay_shift)
    else:
        phase = name == "adrf"
        run = resonate_and_fire.fire(
            inputs, decays, states, scale, 1.0, surrogate, phase, adaptation, delay_shift
        )
    return [run.spike, *run.last]


def thresholds(inputs, decays, states, adaptation, scale):
    """What the three adaptive dynamics give."""
    ref_state, ref_decay, th_state, th_decay, *steps = adaptation
    return [
        *adaptive_threshold.dynamics(inputs[0], *adaptation, scale),
        *adaptive_phase_th.dynamics(*inputs, states[1], *adaptation, scale),
        *adaptive_resonator.dynamics(
            *inputs, *decays, ref_decay, th_decay, *states, ref_state, th_state, *steps, scale
        ),
    ]


def case(run, rise):
    inputs, states = parts_of(run), states_of(run, 4)
    *decays, ref_decay, th_decay = fractions_of(run)
    adaptation = Adaptation(states[2], ref_decay, states[3], th_decay, rise, run["threshold"])
    return inputs, decays, states[:2], adaptation


@given(settings_of_a_run, rises)
def test_the_dynamics_are_the_reference_to_the_bit(run, rise):
    inputs, *others = case(run, rise)
    reference, mine = both(lambda: thresholds(inputs, *others, run["scale"]))
    assert_same(mine, reference)
    assert all(in_order_of(part, inputs[0]) for part in mine)


@every_neuron
@given(run=settings_of_a_run, rise=rises)
def test_the_neurons_are_the_reference_to_the_bit(run, rise, name):
    inputs, *others = case(run, rise)
    settings = run["scale"], (2.0, 0.7, run["graded"])
    reference, mine = both(lambda: fired(name, inputs, *others, *settings))
    assert_same(mine, reference)
    assert in_order_of(mine[0], inputs[0])


@every_neuron
@given(run=settings_of_a_run, rise=rises, learned=st.booleans(), width=st.sampled_from([0.5, 40.0]))
def test_the_neurons_gradients(run, rise, learned, width, name):
    inputs, decays, *others = case(run, rise)
    inputs = inputs[:1] if name == "alif" else inputs
    leaves = [leaf.requires_grad_() for leaf in ([*inputs, *decays] if learned else inputs)]
    settings = run["scale"], (width, 0.7, run["graded"])

    def run_it():
        return gradients_of(fired(name, inputs, decays, *others, *settings)[:1], leaves)

    (_, reference), (_, mine) = both(run_it)
    assert_close(mine, reference, uncancelled(run_it)[1])
    assert in_order_of(mine[0], inputs[0])


@every_neuron
@given(run=settings_of_a_run, rise=rises, learned=st.booleans())
def test_spikes_that_are_delayed_by_a_step_are_the_shifts_to_the_bit(run, rise, learned, name):
    inputs, decays, *others = case(run, rise)
    leaves = [*(inputs[:1] if name == "alif" else inputs), *(decays if learned else ())]
    settings = decays, *others, run["scale"], (2.0, 0.7, run["graded"])
    assert_delay_is_the_shift(
        lambda delay_shift: fired(name, inputs, *settings, delay_shift),
        [leaf.requires_grad_() for leaf in leaves],
    )


# The cosine's gradient is a sum of 2,688 products that cancel to 1/66,000 of their magnitudes.
CANCELLING = {
    "layout": ((3, 1, 8, 8, 8), (3, 2, 1, 0, 4)),
    "seed": 8,
    "size": 1.0,
    "first": 0.7,
    "graded": False,
    "threshold": 17.0,
    "scale": 4096,
    "kind": "channel",
    "dtype": torch.float32,
    "decays": (3600, 3600, 0, 1),
}


@given(settings_of_a_run, rises)
@example(CANCELLING, 5.0)
def test_the_adaptive_resonators_gradients_are_the_resonators_and_thresholds_have_none(run, rise):
    inputs, decays, states, adaptation = case(run, rise)
    ref_state, ref_decay, th_state, th_decay, *steps = adaptation
    leaves = [leaf.requires_grad_() for leaf in (*inputs, *decays)]
    learned = [decay.requires_grad_() for decay in (ref_decay, th_decay)]

    def run_it():
        y = adaptive_resonator.dynamics(
            *inputs, *decays, *learned, *states, ref_state, th_state, *steps, run["scale"]
        )
        assert [part.requires_grad for part in y] == [True, True, False, False]
        return gradients_of(y[:2], leaves)

    (states_there, reference), (mine_there, mine) = both(run_it)
    assert_same(mine_there, states_there)
    assert_close(mine, reference, uncancelled(run_it)[1])
    held = adaptive_threshold.dynamics(inputs[0], *adaptation, run["scale"])
    phase = adaptive_phase_th.dynamics(*inputs, states[1], *adaptation, run["scale"])
    for part in (*held, *phase):
        assert torch.autograd.grad(part.sum(), learned, allow_unused=True) == (None, None)


@every_neuron
@pytest.mark.parametrize(("shape", "order"), ALL_ORDERS)
def test_every_instruction_set_and_number_of_threads_gives_the_same(
    shape, order, name, monkeypatch
):
    inputs = [laid_out(numbers(shape, k, 1.0, torch.float32), order) for k in (1, 2)]
    decays = [torch.randint(0, 4097, shape[:-1]).float().requires_grad_() for _ in range(2)]
    states = torch.ones(1), torch.full((1,), -0.3)
    others = torch.randint(0, 4097, shape[:-1]).float(), torch.tensor([300.0])
    adaptation = Adaptation(torch.ones(1), others[0], torch.ones(1), others[1], 0.4, 0.5)

    def run_it():
        leaves = [part.detach().requires_grad_() for part in inputs]
        y = fired(name, leaves, decays, states, adaptation, 4096, (2.0, 0.7, True))
        leaves = leaves[:1] if name == "alif" else leaves
        there = thresholds(inputs, [d.detach() for d in decays], states, adaptation, 4096)
        found, gradients = gradients_of(y[:1], [*leaves, *decays])
        return [*found, *there], gradients

    assert_same_everywhere(run_it, monkeypatch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [64, 4096, 6400])
@pytest.mark.parametrize("fraction", [0, 1, 1000, 4096, -900, 9000])
def test_extreme_inputs_and_states(dtype, scale, fraction):
    inputs, decays = extremes(dtype), (torch.tensor([float(fraction)]), torch.tensor([3000.0]))
    for first in (0.0, -5000.0, 2.0**22, 2.0**40):
        states = (torch.full((1,), first, dtype=dtype),) * 2
        for rise, rest in ((0.3, 1.0), (3000.0, 0.0), (0.1, 2.0**20), (-1e7, 1e7)):
            adaptation = Adaptation(states[0], decays[0], states[1], decays[1], rise, rest)
            assert_same(*both(lambda: thresholds(inputs, decays, states, adaptation, scale)))  # noqa: B023
            for name in NEURONS:
                settings = decays, states, adaptation, scale, (1.0, 1.0, True)
                assert_same(*both(lambda: fired(name, inputs, *settings)))  # noqa: B023


def test_a_level_beyond_32_bits_fires():
    # Cut to 32 bits it would be the lowest integer, which is below every threshold.
    x = torch.tensor([[[1e9, 0.0]]])
    settings = torch.zeros(1), torch.zeros(1), torch.ones(1), torch.zeros(1), 0.5, 1.0, 64
    for threshold, refractory in both(lambda: adaptive_threshold.dynamics(x, *settings)):
        assert threshold.flatten().tolist() == [1, 1.5]
        assert refractory.flatten().tolist() == [0, 2]


def test_a_refractory_state_that_falls_beyond_32_bits():
    x, still = torch.zeros(1, 1, 120), torch.zeros(1)
    settings = still, still, still - 1000, still, -1000.0, -1000.0, 64
    reference, mine = both(lambda: adaptive_threshold.dynamics(x, *settings))
    assert_same(mine, reference)
    assert mine[0].min() > -(2**24) / 64
    assert mine[1].min() < -(2**28) / 64


def test_a_voltage_that_rises_beyond_32_bits_by_small_currents():
    x, none, all_of_it = torch.full((1, 1, 700), 2.0**16), torch.zeros(1), torch.tensor([4096.0])
    adaptation = Adaptation(none, all_of_it, none + 1, none, 0.0, 1.0)
    decays, states = (all_of_it, none), (none, none)
    reference, mine = both(
        lambda: fired("alif", [x], decays, states, adaptation, 64, (1.0, 1.0, True))
    )
    assert_same(mine, reference)
    assert mine[0].max() == mine[2].item() == 700 * 2.0**16


def test_a_current_beyond_24_bits_whose_voltage_is_within_them():
    # 2^24 + 1 is no float: on its way to the voltage the current is rounded.
    least, none = 2.0**-6, torch.zeros(1)
    states = torch.tensor([(2**24 - 1) * least]), torch.tensor([-(2**23) * least])
    high, x = 1.5 * 2.0**17, torch.full((1, 1, 1), 2 * least)
    adaptation = Adaptation(none, none, none + high, none, 0.0, high)
    firing = (none, none), states, adaptation, 64, (1.0, 1.0, True)
    for _, _, voltage, *_ in both(lambda: fired("alif", [x], *firing)):
        assert voltage.item() == 2**23 * least


@pytest.mark.parametrize(("rise", "rest", "decay"), [(-(2.0**28), 1.0, 0), (0.5, -(2.0**28), 4096)])
def test_a_threshold_that_falls_or_lies_far_below_zero(rise, rest, decay):
    x, still = torch.full((1, 1, 3), 2.0), torch.zeros(1)
    settings = still, still, torch.ones(1), still + decay, rise, rest, 64
    reference, mine = both(lambda: adaptive_threshold.dynamics(x, *settings))
    assert_same(mine, reference)
    assert mine[0].min() <= -(2**27)


def test_a_phase_that_turns_to_beyond_32_bits():
    state = torch.zeros(1)
    settings = state, state, state + 4096, state + 1, state, 0.5, 1.0, 64
    real = torch.full((1, 1, 3), 2.0)
    imag = torch.tensor([[[-1.0, 1e12, 0.0]]])
    for threshold, _ in both(lambda: adaptive_phase_th.dynamics(real, imag, *settings)):
        assert threshold.flatten().tolist() == [1, 1, 1.5]


def test_the_phase_is_that_of_the_state_in_steps_before_the_first_one_too():
    # Less than a step below 0 is 0 in integers; as a number it is below 0, and the neuron fires.
    real, imag = torch.full((1, 1, 2), 2.0), torch.tensor([[[0.5, 0.5]]])
    still = torch.zeros(1), torch.tensor([4096.0])
    rest = Adaptation(torch.zeros(1), torch.zeros(1), torch.ones(1), torch.zeros(1), 0.5, 1.0)
    for before, drive, rises_to in ((-1.0, 1.0, 1.5), (-0.001, 0.0, 1.0), (0.0, 0.0, 1.0)):
        state = torch.zeros(1), torch.tensor([before])

        def run_it(state=state, drive=drive):
            held, _ = adaptive_phase_th.dynamics(real, imag, state[1], *rest, 64)
            inputs = real, torch.tensor([[[drive, 0.0]]])
            return held, *fired("adrf", inputs, still, state, rest, 64, (1.0, 1.0, False))

        for held, spikes, _, _, threshold, _ in both(run_it):
            assert held.flatten().tolist() == [1, rises_to]
            assert spikes.flatten().tolist() == [float(before < 0), 0]
            assert threshold.item() == rises_to


@every_neuron
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype, name):
    inputs = [numbers((2, 5, 9), k, 1.0, torch.float32).to(dtype) for k in (1, 2)]
    turn, states = (torch.tensor([1500.0]), torch.tensor([3700.0])), (torch.zeros(1),) * 2
    adaptation = Adaptation(*states[:1], turn[0], torch.ones(1), turn[0], 0.4, 0.5)
    settings = turn, states, adaptation, 4096, (2.0, 0.7, True)
    reference, mine = both(lambda: fired(name, inputs, *settings))
    whole = fired(name, [part.float() for part in inputs], *settings)
    assert mine[0].dtype == dtype
    assert_same(mine, reference)
    assert torch.equal(mine[0], whole[0].to(dtype))
    assert_same(mine[1:], whole[1:])
    held, reference = both(lambda: thresholds(inputs, turn, states, adaptation, 4096))
    assert_same(held, reference)
    assert [part.dtype for part in held] == [torch.float32] * 4 + [dtype] * 2 + [torch.float32] * 2


@every_neuron
def test_views_with_gaps_are_read_as_they_are(name):
    inputs = [numbers((3, 4, 8), k, 1.0, torch.float32) for k in (1, 2)]
    turn, states = (torch.tensor([1500.0]), torch.tensor([3700.0])), (torch.zeros(1),) * 2
    adaptation = Adaptation(*states[:1], turn[0], torch.ones(1), turn[0], 0.4, 0.5)
    settings = turn, states, adaptation, 4096
    views = [spread(inputs[0]), laid_out(inputs[1], (2, 0, 1))]
    for one, other in zip(
        [*fired(name, views, *settings, (2.0, 0.7, True)), *thresholds(views, *settings)],
        [*fired(name, inputs, *settings, (2.0, 0.7, True)), *thresholds(inputs, *settings)],
        strict=True,
    ):
        assert torch.equal(one, other)


def test_the_operators_are_registered_as_torch_wants():
    x = [numbers((2, 3, 7), k, 1.0, torch.float32) for k in (1, 2)]
    decays = torch.tensor([900.0]), torch.tensor([3000.0])
    states, steps = (torch.zeros(1), torch.zeros(2, 3)), (0.3, 0.5, 4096.0)
    level = states[0], decays[0], states[1], decays[1], *steps
    adaptation = *decays, *states, *steps
    surrogate = 2.0, 0.7, True
    for backend in ("native", "torch"):
        leaves = [part.clone().requires_grad_() for part in x]
        learned = [decay.clone().requires_grad_() for decay in decays]
        for op, args in (
            (OPERATORS.adaptive_threshold, (x[0], *level)),
            (OPERATORS.adaptive_phase_threshold, (*x, states[0], *level)),
            (OPERATORS.adaptive_resonator, (*leaves, *learned, *decays, *states, *states, *steps)),
            (
                OPERATORS.alif,
                (leaves[0], *learned, *states, *adaptation, *surrogate, True, True, True),
            ),
            (OPERATORS.alif, (x[0], *decays, *states, *adaptation, *surrogate, *[False] * 3)),
            (OPERATORS.alif_backward, (x[0], x[1], *x, *decays, *surrogate, True, True)),
            (OPERATORS.alif_backward, (x[0], x[1], *x, *decays, *surrogate, False, False)),
            (
                OPERATORS.resonate_and_fire,
                (*leaves, *decays, *states, *adaptation, 0.0, *surrogate, True, True, *[True] * 3),
            ),
        ):
            torch.library.opcheck(op.default, (*args, backend))
