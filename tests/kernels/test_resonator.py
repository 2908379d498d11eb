"""The resonator, and the neurons that resonate and fire: native kernels against the reference."""

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
from hypothesis import given, strategies as st
from kernel_cases import ALL_ORDERS, in_order_of, laid_out, numbers, spread

from lava_bridge.kernels import native
from lava_bridge.ops import resonate_and_fire, resonator

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

OPERATORS = torch.ops.lava_bridge
phases = pytest.mark.parametrize("phase", [True, False])
thresholds = st.sampled_from([None, -0.5, 0.0, 0.29, 1.0, 17.0, 5000.0])


def fired(inputs, decays, states, scale, threshold, surrogate, phase, delay_shift=False):
    """Spikes and last states, as sequences."""
    settings = scale, threshold, surrogate, phase, None, delay_shift
    run = resonate_and_fire.fire(inputs, decays, states, *settings)
    return [run.spike, *run.last]


@given(settings_of_a_run, thresholds)
def test_the_resonator_is_the_reference_to_the_bit(run, threshold):
    inputs, decays, states = parts_of(run), fractions_of(run, slice(2)), states_of(run)
    reference, mine = both(
        lambda: resonator.dynamics(*inputs, *decays, *states, run["scale"], threshold)
    )
    assert_same(mine, reference)
    assert all(in_order_of(part, inputs[0]) for part in mine)


@phases
@given(run=settings_of_a_run)
def test_the_neurons_are_the_reference_to_the_bit(run, phase):
    inputs, decays, states = parts_of(run), fractions_of(run, slice(2)), states_of(run)
    settings = run["scale"], run["threshold"], (2.0, 0.7, run["graded"]), phase
    reference, mine = both(lambda: fired(inputs, decays, states, *settings))
    assert_same(mine, reference)
    assert in_order_of(mine[0], inputs[0])


@given(settings_of_a_run, thresholds, st.booleans())
def test_the_resonators_gradients(run, threshold, learned):
    inputs, decays, states = parts_of(run), fractions_of(run, slice(2)), states_of(run)
    leaves = [*inputs, *decays] if learned else inputs
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def run_it():
        y = resonator.dynamics(*inputs, *decays, *states, run["scale"], threshold)
        return gradients_of(y, leaves)

    (states_there, reference), (mine_there, mine) = both(run_it)
    assert_same(mine_there, states_there)
    assert_close(mine, reference, uncancelled(run_it)[1])


@phases
@given(run=settings_of_a_run, learned=st.booleans(), width=st.sampled_from([0.5, 40.0]))
def test_the_neurons_gradients(run, phase, learned, width):
    inputs, decays, states = parts_of(run), fractions_of(run, slice(2)), states_of(run)
    leaves = [*inputs, *decays] if learned else inputs
    leaves = [leaf.requires_grad_() for leaf in leaves]
    settings = run["scale"], run["threshold"], (width, 0.7, run["graded"]), phase

    def run_it():
        return gradients_of(fired(inputs, decays, states, *settings)[:1], leaves)

    (_, reference), (_, mine) = both(run_it)
    assert_close(mine, reference, uncancelled(run_it)[1])
    assert all(in_order_of(part, inputs[0]) for part in mine[:2])


@phases
@given(run=settings_of_a_run, learned=st.booleans())
def test_spikes_that_are_delayed_by_a_step_are_the_shifts_to_the_bit(run, phase, learned):
    inputs, decays, states = parts_of(run), fractions_of(run, slice(2)), states_of(run)
    settings = run["scale"], run["threshold"], (2.0, 0.7, run["graded"]), phase
    assert_delay_is_the_shift(
        lambda delay_shift: fired(inputs, decays, states, *settings, delay_shift),
        [leaf.requires_grad_() for leaf in ([*inputs, *decays] if learned else inputs)],
    )


def test_the_gradient_is_the_adjoint_of_the_line_through_the_staircase():
    # Over this scale the steps of the states are too fine to be seen.
    inputs = [torch.randn(2, 3, 6, dtype=torch.float64).requires_grad_() for _ in range(2)]
    decays = torch.tensor([1500.0]), torch.tensor([3700.0])

    def turn(real, imag):
        return resonator.dynamics(real, imag, *decays, *[torch.zeros(1)] * 2, 2**30)

    assert torch.autograd.gradcheck(turn, inputs, eps=1e-3, rtol=1e-4, atol=1e-4)


@phases
@pytest.mark.parametrize(("shape", "order"), ALL_ORDERS)
def test_every_instruction_set_and_number_of_threads_gives_the_same(
    shape, order, phase, monkeypatch
):
    inputs = [laid_out(numbers(shape, k, 1.0, torch.float32), order) for k in (1, 2)]
    decays = [torch.randint(0, 4097, shape[:-1]).float().requires_grad_() for _ in range(2)]
    states = torch.ones(1), torch.full((1,), -0.3)

    def run_it():
        leaves = [part.detach().requires_grad_() for part in inputs]
        settings = 4096, 0.5, (2.0, 0.7, True), phase
        return gradients_of(fired(leaves, decays, states, *settings)[:1], [*leaves, *decays])

    assert_same_everywhere(run_it, monkeypatch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [64, 4096, 6400])
@pytest.mark.parametrize("fraction", [0, 1, 1000, 4096, -900])
def test_extreme_inputs_and_states(dtype, scale, fraction):
    inputs, decays = extremes(dtype), (torch.tensor([float(fraction)]), torch.tensor([3000.0]))
    for first in (0.0, -5000.0, 2.0**22):
        states = (torch.full((1,), first, dtype=dtype),) * 2
        for threshold in (None, 1.0, 3000.0):
            assert_same(
                *both(lambda: resonator.dynamics(*inputs, *decays, *states, scale, threshold))  # noqa: B023
            )
        for phase in (True, False):
            surrogate = 1.0, 1.0, True
            assert_same(*both(lambda: fired(inputs, decays, states, scale, 1.0, surrogate, phase)))  # noqa: B023


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("size", [2.0**23, 2.0**28, 2.0**30, 2.0**33])
def test_a_state_beyond_32_bits_in_one_part_alone(part, size):
    inputs = [torch.zeros(1, 1, 6), torch.zeros(1, 1, 6)]
    inputs[part][..., 0] = size + 1000
    decays, states = (torch.zeros(1), torch.tensor([4095.0])), (torch.zeros(1),) * 2
    reference, mine = both(lambda: resonator.dynamics(*inputs, *decays, *states, 1))
    assert_same(mine, reference)
    assert mine[part].min() > size / 2


@pytest.mark.parametrize("decays", [(-900.0, 3000.0), (900.0, -3000.0), (5000.0, 10.0), (1e9, 1.0)])
def test_decays_of_either_sign_and_beyond_a_turn(decays):
    inputs = [numbers((2, 5, 9), k, 1.0, torch.float32).requires_grad_() for k in (1, 2)]
    decays = [torch.tensor([decay]).requires_grad_() for decay in decays]
    states = torch.ones(1), torch.zeros(1)
    for threshold in (None, 0.5):

        def run_it(threshold=threshold):
            y = resonator.dynamics(*inputs, *decays, *states, 4096, threshold)
            return gradients_of(y, [*inputs, *decays])

        (reference, reference_grads), (mine, my_grads) = both(run_it)
        assert_same(mine, reference)
        if decays[0] < 1e9:  # else they are not finite
            assert_close(my_grads, reference_grads)


def test_a_reset_goes_to_one_step_below_the_threshold_and_to_a_real_part_of_0():
    one = torch.zeros(1, 1, 3)
    one[..., 0] = 1
    states, decays = (torch.zeros(1),) * 2, (torch.zeros(1), torch.tensor([4096.0]))
    for backend in both(lambda: resonator.dynamics(one, one, *decays, *states, 64, 1.0)):
        assert [part.flatten().tolist() for part in backend] == [[1, 0, 0], [1, 63 / 64, 63 / 64]]
    for never in (1e30, float("inf")):
        for backend in both(lambda: resonator.dynamics(one, one, *decays, *states, 64, never)):  # noqa: B023
            assert backend[1].flatten().tolist() == [1, 1, 1]
    # beyond what 32 bits are tried with
    far = 2.0**21
    for backend in both(
        lambda: resonator.dynamics(far * one, far * one, *decays, *states, 64, far)
    ):
        assert backend[0].flatten().tolist() == [far, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@phases
def test_half_precision_is_computed_in_single(dtype, phase):
    inputs = [numbers((2, 5, 9), k, 1.0, torch.float32).to(dtype) for k in (1, 2)]
    decays, states = (torch.tensor([1500.0]), torch.tensor([3700.0])), (torch.zeros(1),) * 2
    settings = decays, states, 4096, 0.5, (2.0, 0.7, True), phase
    reference, mine = both(lambda: fired(inputs, *settings))
    whole = fired([part.float() for part in inputs], *settings)
    assert mine[0].dtype == dtype
    assert_same(mine, reference)
    assert torch.equal(mine[0], whole[0].to(dtype))
    assert_same(mine[1:], whole[1:])
    leaves = [part.requires_grad_() for part in inputs]

    def run_it():
        y = [
            *fired(leaves, *settings)[:1],
            *resonator.dynamics(*leaves, *decays, *states, 4096),
        ]
        return gradients_of(y, leaves)

    (ours, my_grads), (theirs, grads) = both(run_it)
    assert_same(ours, theirs)
    for one, other in zip(my_grads, grads, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


def test_views_with_gaps_and_a_second_part_in_another_order_are_read_as_they_are():
    inputs = [numbers((3, 4, 8), k, 1.0, torch.float32) for k in (1, 2)]
    decays, states = (torch.tensor([1500.0]), torch.tensor([3700.0])), (torch.zeros(1),) * 2
    settings = decays, states, 4096, 0.5, (2.0, 0.7, True)
    others = (
        [spread(part) for part in inputs],
        [inputs[0], laid_out(inputs[1], (2, 0, 1))],
        [laid_out(inputs[0], (2, 0, 1)), spread(inputs[1])],
    )
    for phase in (True, False):
        whole = fired(inputs, *settings, phase)
        for views in others:
            for found in both(lambda: fired(views, *settings, phase)):  # noqa: B023
                for one, other in zip(found, whole, strict=True):
                    assert torch.equal(one, other)


def test_what_is_kept_is_what_the_backward_pass_reads():
    inputs = [numbers((2, 3, 7), k, 1.0, torch.float32) for k in (1, 2)]
    decays, states = (torch.tensor([1500.0]), torch.tensor([3700.0])), (torch.zeros(1),) * 2
    settings = decays, states, 4096, 0.5, (2.0, 0.7, True)

    def kept(phase, **learned):
        taken = [part.detach().requires_grad_(learned.get("x", True)) for part in inputs]
        turn = [decay.detach().requires_grad_(learned.get("decays", False)) for decay in decays]
        spike = resonate_and_fire.fire(taken, turn, *settings[1:], phase).spike
        if spike.grad_fn is None:
            return None
        saved = [part for part in spike.grad_fn.saved_tensors if part.dim() == 3]
        return len({part.data_ptr() for part in saved})

    assert kept(True) == 2
    assert kept(False) == 1
    assert kept(False, decays=True) == kept(True, decays=True) == 2
    assert kept(True, x=False) is None


@phases
def test_the_operators_are_registered_as_torch_wants(phase):
    x = [numbers((2, 3, 7), k, 1.0, torch.float32) for k in (1, 2)]
    decays = torch.tensor([900.0]), torch.tensor([3000.0])
    states = torch.zeros(1), torch.zeros(2, 3)
    none, number = (None,) * 4, (0.0, 0.0, 4096.0, 0.5, 2.0, 0.7, True, True, phase)
    for backend in ("native", "torch"):
        leaves = [part.clone().requires_grad_() for part in x]
        learned = [decay.clone().requires_grad_() for decay in decays]
        for op, args in (
            (OPERATORS.resonator, (*leaves, *learned, *states, 4096.0, None)),
            (OPERATORS.resonator, (*leaves, *decays, *states, 4096.0, 1.0)),
            (OPERATORS.resonator_backward, (*x, *x, *decays, True)),
            (OPERATORS.resonator_backward, (*x, *x, *decays, False)),
            (
                OPERATORS.resonate_and_fire,
                (*leaves, *learned, *states, *none, *number, False, True, True),
            ),
            (
                OPERATORS.resonate_and_fire,
                (*x, *decays, *states, *none, *number, False, False, False),
            ),
            (
                OPERATORS.resonate_and_fire_backward,
                (x[0], x[1], *x, *decays, 0.5, 2.0, 0.7, False, True, phase, True),
            ),
        ):
            torch.library.opcheck(op.default, (*args, backend))
