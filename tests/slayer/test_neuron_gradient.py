"""The CUBA neuron's gradients are lava's, for its input and for its decays."""

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import slayer
from lava_bridge.errors import BridgeError

from .strategies import (
    LARGEST_EXACT_THRESHOLD,
    alike,
    analog,
    assert_close,
    assert_same_gradients,
    batches,
    gradients,
    in_other_memory,
    memory_orders,
    neurons,
    run_alike,
    seeds,
    shapes,
    thorough,
    times,
    within_24_bits,
)

Neuron = slayer.neuron.cuba.Neuron
exact_neurons = neurons(largest=LARGEST_EXACT_THRESHOLD)
sizes = st.sampled_from([0.3, 1.0, 4.0])
widths = st.sampled_from([0.01, 0.1, 1, 3])
ranges = st.tuples(st.floats(0, 0.5), st.floats(0.5, 1))


def drawn(params, x, lava, seed):
    """Our neuron and lava's, with decays drawn for the channels of ``x`` under one seed."""
    ours, theirs = alike(lava, lambda which: which.neuron.cuba.Neuron(**params), seed)
    mine, reference = run_alike(ours, theirs, x, seed)
    assert torch.equal(mine, reference)
    return ours, theirs


@thorough
@given(
    exact_neurons,
    shapes(),
    batches,
    times,
    seeds,
    sizes,
    widths,
    widths,
    st.booleans(),
    memory_orders,
)
def test_gradients_of_input_and_shared_decays_are_lavas(
    lava, params, shape, batch, time, seed, size, width, height, graded, order
):
    params = {
        **params,
        "requires_grad": True,
        "tau_grad": width / 100,
        "scale_grad": height,
        "graded_spike": graded,
    }
    ours, theirs = alike(lava, lambda which: which.neuron.cuba.Neuron(**params), seed)
    x = analog((batch, *shape, time), seed, size * params["threshold"], torch.float64)
    x = within_24_bits(x, params["scale"])
    assert_same_gradients(ours, theirs, in_other_memory(x, order), seed + 1)
    assert ours.current_decay.grad.shape == (1,)


@thorough
@given(exact_neurons, ranges, ranges, st.integers(2, 5), batches, times, seeds, sizes)
def test_decays_per_channel_are_lavas_draw_and_so_are_their_gradients(
    lava, params, current, voltage, channels, batch, time, seed, size
):
    params = {
        **params,
        "current_decay": current,
        "voltage_decay": voltage,
        "shared_param": False,
        "requires_grad": True,
        "tau_grad": 0.01,
    }
    x = analog((batch, channels, time), seed, size * params["threshold"], torch.float64)
    x = within_24_bits(x, params["scale"])
    ours, theirs = drawn(params, x, lava, seed)
    for name in ("current_decay", "voltage_decay"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
        assert getattr(ours, name).shape == (channels,)
    assert (ours.cx_current_decay == theirs.cx_current_decay).all()
    assert (ours.cx_voltage_decay == theirs.cx_voltage_decay).all()
    assert ours.device_params["iDecay"].dtype == theirs.device_params["iDecay"].dtype
    assert_same_gradients(ours, theirs, x, seed + 1)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 5), seeds)
def test_one_number_per_channel_is_spread_as_in_lava(lava, current, voltage, channels, seed):
    params = {"threshold": 1, "current_decay": current, "voltage_decay": voltage}
    params["shared_param"] = False
    ours, theirs = drawn(params, torch.zeros(2, channels, 1), lava, seed)
    theirs.clamp()  # lava runs with decays above 1, which it does not export
    assert torch.equal(ours.current_decay, theirs.current_decay)
    assert torch.equal(ours.voltage_decay, theirs.voltage_decay)
    assert ((ours.current_decay - 4096 * current).abs() <= 0.0101 * 4096 * current).all()


@given(
    exact_neurons,
    ranges,
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    batches,
    st.integers(1, 16),
    seeds,
    sizes,
)
def test_with_height_and_width_each_channel_is_lavas_neuron_with_that_channels_decays(
    lava, params, decay_range, shape, batch, time, seed, size
):
    # lava's own CPU loop broadcasts the decays of [N, C, H, W, T] along W
    params = {**params, "requires_grad": True, "tau_grad": 0.01}
    per_channel = {
        **params,
        "current_decay": decay_range,
        "voltage_decay": decay_range,
        "shared_param": False,
    }
    x = analog((batch, *shape, time), seed, size * params["threshold"], torch.float64)
    x = within_24_bits(x, params["scale"])
    torch.manual_seed(seed)
    ours = Neuron(**per_channel)
    ours(x)
    torch.manual_seed(seed)
    channels_only = lava.neuron.cuba.Neuron(**per_channel)
    channels_only(torch.zeros(1, shape[0], 1))
    assert torch.equal(ours.current_decay, channels_only.current_decay)
    assert torch.equal(ours.voltage_decay, channels_only.voltage_decay)

    grad_x, grads = gradients(ours, x, seed + 1)
    grad_y = analog(tuple(x.shape), seed + 1, 1, torch.float64)
    for channel in range(shape[0]):
        one = lava.neuron.cuba.Neuron(**params)
        one.current_decay.data.fill_(ours.current_decay[channel].item())
        one.voltage_decay.data.fill_(ours.voltage_decay[channel].item())
        own = x[:, channel : channel + 1].clone().requires_grad_()
        spike = one(own)
        spike.backward(grad_y[:, channel : channel + 1])
        assert torch.equal(ours(x)[:, channel : channel + 1], spike)
        assert_close(grad_x[:, channel : channel + 1], own.grad)
        for name in ("current_decay", "voltage_decay"):
            assert_close(grads[name][channel : channel + 1], getattr(one, name).grad)


@given(neurons(), shapes(), batches, times, seeds, sizes)
def test_float32_gradients_have_lavas_values_too(lava, params, shape, batch, time, seed, size):
    params = {**params, "tau_grad": 0.01}
    ours, theirs = alike(lava, lambda which: which.neuron.cuba.Neuron(**params), seed)
    x = analog((batch, *shape, time), seed, size * params["threshold"])
    mine, _ = gradients(ours, x, seed + 1)
    reference, _ = gradients(theirs, x, seed + 1)
    assert_close(mine, reference, rtol=1e-4, floor=1e-6)


def test_learned_decays_come_back_into_their_range_at_the_next_forward(lava):
    params = {"threshold": 1, "current_decay": 0.5, "voltage_decay": 0.5, "requires_grad": True}
    ours, theirs = Neuron(**params), lava.neuron.cuba.Neuron(**params)
    x = analog((2, 3, 12), 0, 1)
    for neuron in (ours, theirs):
        neuron.current_decay.data.fill_(5000)
        neuron.voltage_decay.data.fill_(-7)
    assert torch.equal(ours(x), theirs(x))
    assert ours.current_decay.item() == theirs.current_decay.item() == 4096
    assert ours.voltage_decay.item() == theirs.voltage_decay.item() == 0


def test_decays_out_of_range_after_an_optimiser_step_are_in_range_on_the_chip(lava):
    params = {"threshold": 1, "current_decay": 0.5, "voltage_decay": 0.5, "requires_grad": True}
    ours, theirs = Neuron(**params), lava.neuron.cuba.Neuron(**params)
    for neuron in (ours, theirs):
        neuron.current_decay.data.fill_(5000)
        neuron.voltage_decay.data.fill_(-7)
    assert ours.device_params == theirs.device_params
    assert (ours.device_params["iDecay"], ours.device_params["vDecay"]) == (4096, 0)


def test_decays_that_are_not_learned_have_no_gradient():
    neuron = Neuron(1, 0.2, 0.1)
    grad_x, grads = gradients(neuron, analog((2, 3, 5), 0, 1), 1)
    assert grads == {}
    assert grad_x.abs().max() > 0


def test_a_threshold_below_one_step_has_no_surrogate_and_says_so():
    neuron = Neuron(0.01, 0.2, 0.1)
    assert neuron.threshold == 0
    spike = neuron(torch.ones(1, 2, 3, requires_grad=True))
    assert torch.equal(spike, torch.ones(1, 2, 3))
    with pytest.raises(BridgeError, match="tau_rho = 0"):
        spike.sum().backward()
