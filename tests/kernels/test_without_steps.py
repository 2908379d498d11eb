"""Sequences without a step: nothing comes out, the states stay, gradients are 0."""

import pytest
import torch
from compared import both

from lava_bridge import kernels
from lava_bridge.kernels import native
from lava_bridge.ops import (
    adaptive_phase_th,
    alif,
    cuba,
    cuba_reset,
    leaky_integrator,
    resonate_and_fire,
    resonator,
    spike,
)

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

SCALE, SURROGATE = 64, (1.0, 1.0, False)


def state(value):
    """A number for each neuron, on the grid of the states."""
    return value + torch.arange(6.0).reshape(2, 3) / SCALE


# In the order in which the neurons give them after the last step.
FIRST, ADAPTED = (torch.full((1,), 0.5), state(-0.75)), (state(1.5), state(0.25))


def adaptation(x):
    decays = torch.tensor([3.0]), torch.tensor([5.0])
    threshold, refractory = (part.to(x.device) for part in ADAPTED)
    refractory_decay, threshold_decay = (decay.to(x.device) for decay in decays)
    return resonate_and_fire.Adaptation(
        refractory, refractory_decay, threshold, threshold_decay, 0.5, 1.0
    )


def fire(x, decays, states):
    fired = cuba.fire(x, decays, states, SCALE, 1.0, SURROGATE[:2], False)
    return fired.spike, fired.last_current, fired.last_held


def fire_and_reset(x, decays, states):
    firing = SCALE, 1.0, torch.sigmoid, False, False, True, True, kernels.current_backend()
    fired = cuba_reset.fire_and_reset(x, decays, states, *firing)
    return fired.spike, fired.last_current, fired.last_held


def fire_alif(x, decays, states):
    fired = alif.fire(x, decays, states, adaptation(x), SCALE, SURROGATE)
    return fired.spike, *fired.last


def resonates(phase, adaptive):
    def run(x, decays, states):
        more = phase, adaptation(x) if adaptive else None
        fired = resonate_and_fire.fire((x, x), decays, states, SCALE, 1.0, SURROGATE, *more)
        return fired.spike, *fired.last

    return run


NEURONS = {
    "cuba": (fire, FIRST),
    "cuba with reset": (fire_and_reset, FIRST),
    "alif": (fire_alif, (*FIRST, *ADAPTED)),
    "rf": (resonates(True, False), FIRST),
    "rf_iz": (resonates(False, False), FIRST),
    "adrf": (resonates(True, True), (*FIRST, *ADAPTED)),
    "adrf_iz": (resonates(False, True), (*FIRST, *ADAPTED)),
}


def leaves(steps=0):
    decays = torch.tensor([100.0], requires_grad=True), torch.tensor([50.0], requires_grad=True)
    return torch.zeros(2, 3, steps, requires_grad=True), decays


@pytest.mark.parametrize("name", NEURONS)
def test_a_neurons_states_stay(name):
    run, expected = NEURONS[name]

    def outcome():
        x, decays = leaves()
        spikes, *last = run(x, decays, FIRST)
        return spikes, last, torch.autograd.grad(spikes.sum(), (x, *decays))

    for spikes, last, (grad_x, *grads) in both(outcome):
        assert spikes.shape == grad_x.shape == (2, 3, 0)
        for found, first in zip(last, expected, strict=True):
            assert torch.equal(found, first.expand(2, 3))
        assert all(torch.equal(grad, torch.zeros(1)) for grad in grads)


@pytest.mark.parametrize("name", NEURONS)
def test_what_has_no_data_has_these_shapes_too(name):
    run, expected = NEURONS[name]
    x, decays = leaves()
    parts = [part.to("meta") for part in (*decays, *FIRST)]
    spikes, *last = run(x.to("meta"), parts[:2], parts[2:])
    assert spikes.shape == (2, 3, 0)
    assert [part.shape for part in last] == [(2, 3)] * len(expected)


@pytest.mark.parametrize("own", [False, True])
def test_a_leaks_gradients_are_0(own):
    def outcome():
        (x, (decay, _)), first = leaves(), state(-0.75).requires_grad_()
        if own:
            y = leaky_integrator.leak(x, decay, first, SCALE, kernels.current_backend())
        else:
            y = leaky_integrator.dynamics(x, decay, first, SCALE)
        return y, torch.autograd.grad(y.sum(), (x, decay, first)[: 2 + own])

    for y, (grad_x, *grads) in both(outcome):
        assert y.shape == grad_x.shape == (2, 3, 0)
        assert not any(grad.any() for grad in grads)


def test_what_has_a_phase_may_have_no_step():
    def outcome():
        x, decays = leaves()
        parts = resonator.dynamics(x, x, *decays, *FIRST, SCALE, 1.0)
        fired = spike.phase_spike(*parts, 1.0, FIRST[1], SURROGATE)
        adapted = adaptive_phase_th.dynamics(*parts, FIRST[1], *adaptation(x), SCALE)
        return [*parts, fired, *adapted, *torch.autograd.grad(fired.sum(), (x, *decays))]

    for *sequences, of_sine, of_cosine in both(outcome):
        assert all(sequence.shape == (2, 3, 0) for sequence in sequences)
        assert torch.equal(of_sine, torch.zeros(1))
        assert torch.equal(of_cosine, torch.zeros(1))
