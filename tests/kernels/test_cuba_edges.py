"""The CUBA neuron where it is just at its threshold, at its first step, and beyond 24 bits."""

import pytest
import torch
from compared import assert_close, assert_same, both, gradients_of
from kernel_cases import numbers

from lava_bridge import kernels
from lava_bridge.kernels import native
from lava_bridge.ops import cuba, cuba_reset, leaky_integrator
from lava_bridge.ops.surrogate import ATAN, Smooth

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

SURROGATES = {"any": torch.sigmoid, "a kernel's": Smooth(ATAN, 2.0)}


def learned(*values):
    return tuple(torch.tensor([value], requires_grad=True) for value in values)


def reset_at(x, decays, states, threshold, smooth, detach=False):
    firing = 64, threshold, smooth, detach, False, True, True
    fired = cuba_reset.fire_and_reset(x, decays, states, *firing, kernels.current_backend())
    return [fired.spike, fired.held, fired.last_held]


def test_slayers_gradients_where_the_voltage_is_its_threshold():
    # Each step adds a quarter: every fourth is at the threshold, and what goes on from there is 0.
    def run_it():
        x, decays = torch.full((1, 2, 12), 0.25).requires_grad_(), learned(4096.0, 0.0)
        fired = cuba.fire(x, decays, (torch.zeros(1),) * 2, 64, 1.0, (1.0, 1.0), False)
        return gradients_of([fired.spike], (x, *decays))

    ((spike,), reference), ((mine,), my_grads) = both(run_it)
    assert spike[0, 0].tolist() == [0, 0, 0, 1] * 3
    assert torch.equal(mine, spike)
    assert_close(my_grads, reference)
    assert all(grad.any() for grad in reference)


def test_a_leak_is_reset_where_it_is_at_its_threshold():
    x, still = torch.full((1, 1, 12), 0.25), torch.zeros(1)
    for y in both(lambda: leaky_integrator.dynamics(x, still, still, 64, 1.0)):
        assert y[0, 0].tolist() == [0.25, 0.5, 0.75, 1] * 3


@pytest.mark.parametrize("smooth", SURROGATES.values(), ids=SURROGATES)
@pytest.mark.parametrize("detach", [False, True])
def test_spikingjellys_gradients_where_the_voltage_is_its_threshold(smooth, detach):
    def run_it():
        x, decays = torch.full((1, 2, 12), 0.25).requires_grad_(), learned(4096.0, 0.0)
        states = learned(0.0, 0.0)
        leaves = x, *decays, *states
        return gradients_of(reset_at(x, decays, states, 1.0, smooth, detach), leaves)

    (outputs, reference), (mine, my_grads) = both(run_it)
    assert outputs[0][0, 0].tolist() == [0, 0, 0, 1] * 3
    assert_same(mine, outputs)
    assert_close(my_grads, reference)


@pytest.mark.parametrize("smooth", SURROGATES.values(), ids=SURROGATES)
def test_the_first_states_alone_give_the_decays_gradients(smooth):
    def run_it(current, voltage):
        decays, states = learned(1000.0, 500.0), (torch.tensor([current]), torch.tensor([voltage]))
        outputs = reset_at(torch.zeros(2, 3, 5), decays, states, 2.0, smooth)
        return gradients_of(outputs[1:], decays)[1]

    for states in ((0.75, 0.0), (0.0, 0.5), (0.75, 0.5)):
        reference, mine = both(lambda: run_it(*states))  # noqa: B023
        assert_close(mine, reference)
        assert [bool(grad) for grad in reference] == [states[0] != 0, True]


def test_a_current_beyond_24_bits_whose_voltage_is_within_them():
    # 2^24 + 1 is no float: on its way to the voltage the current is rounded.
    least = 2.0**-6
    x = torch.tensor([[[2 * least]]])
    states = torch.tensor([(2**24 - 1) * least]), torch.tensor([-(2**23) * least])
    none, high = torch.zeros(1), 2.0**30
    for fired in both(lambda: cuba.fire(x, (none, none), states, 64, high, (1.0, 1.0), False)):
        assert fired.last_held.item() == 2**23 * least


def test_states_beyond_32_bits_in_every_share_of_many_threads():
    x = numbers((8, 512, 32), 1, 3e5, torch.float32)
    decays, states = (torch.tensor([400.0]), torch.tensor([100.0])), (torch.zeros(1),) * 2
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            fired = cuba.fire(x, decays, states, 4096, 1e5, (1.0, 1.0), True)
            runs.append([fired.spike, fired.last_current, fired.last_held])
    finally:
        torch.set_num_threads(before)
    assert_same(*runs)
    assert runs[0][0].max() * 4096 > 2**31


@pytest.mark.parametrize("learns", [0, 1])
def test_one_decay_that_learns_alone_has_its_own_gradient(learns):
    x = numbers((2, 3, 20), 1, 1.0, torch.float32)

    def run_it(parts):
        decays, states = learned(400.0, 100.0), (torch.full((1,), 0.5),) * 2
        for k, decay in enumerate(decays):
            decay.requires_grad_(k in parts)
        fired = cuba.fire(x, decays, states, 64, 1.01, (1.0, 1.0), False)
        outputs = [fired.spike, *reset_at(x, decays, states, 1.01, torch.sigmoid)]
        return gradients_of(outputs, [decays[k] for k in parts])[1]

    (reference,), (mine,) = both(lambda: run_it([learns]))
    assert torch.equal(mine, both(lambda: run_it([0, 1]))[1][learns])
    assert_close([mine], [reference])
