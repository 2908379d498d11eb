"""The CUBA neuron: current, voltage and spikes are lava's, bit for bit."""

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import slayer
from lava_bridge.ops import integrate

from .strategies import (
    LARGEST_EXACT_THRESHOLD,
    LARGEST_THRESHOLD,
    SCALES,
    analog,
    batches,
    decays,
    in_other_memory,
    memory_orders,
    neurons,
    seeds,
    shapes,
    thorough,
    times,
    within_24_bits,
)

Neuron = slayer.neuron.cuba.Neuron

NUMBERS = (
    "threshold",
    "tau_rho",
    "scale_rho",
    "weight_exponent",
    "scale",
    "w_scale",
    "s_scale",
    "p_scale",
    "ref_delay",
)

exact_neurons = neurons(largest=LARGEST_EXACT_THRESHOLD)

# In thresholds: below, around and far above it.
sizes = st.sampled_from([0.02, 0.3, 1.0, 4.0])


def assert_same_run(ours, theirs, x):
    """Current, voltage and spikes of both neurons on ``x`` are equal; gives our spikes."""
    current, voltage = ours.dynamics(x)
    reference_current, reference_voltage = theirs.dynamics(x)
    assert torch.equal(current, reference_current)
    assert torch.equal(voltage, reference_voltage)
    spike = ours.spike(voltage)
    assert torch.equal(spike, theirs.spike(reference_voltage))
    return spike


@thorough
@given(neurons(), shapes(), batches, times, seeds, sizes, memory_orders)
def test_current_voltage_and_spikes_equal_lavas(
    lava, params, shape, batch, time, seed, size, order
):
    x = analog((batch, *shape, time), seed, size * params["threshold"])
    x = in_other_memory(x, order)
    ours, theirs = Neuron(**params), lava.neuron.cuba.Neuron(**params)
    spike = assert_same_run(ours, theirs, x)
    assert spike.shape == x.shape
    assert torch.equal(ours(x), theirs(x))
    assert ours.shape == theirs.shape
    assert ours.num_neurons == theirs.num_neurons


@thorough
@given(exact_neurons, shapes(), batches, times, seeds, st.sampled_from([18, 21, 23]))
def test_states_up_to_24_bits_equal_lavas(lava, params, shape, batch, time, seed, bits):
    largest = 2**bits / (params["scale"] * 64)
    x = analog((batch, *shape, time), seed, largest).clamp(-largest, largest)
    spike = assert_same_run(Neuron(**params), lava.neuron.cuba.Neuron(**params), x)
    assert set(spike.unique().tolist()) <= {0.0, 1.0}


@given(exact_neurons, shapes(), batches, times, seeds, sizes)
def test_a_float64_input_gives_lavas_float64_output(lava, params, shape, batch, time, seed, size):
    x = analog((batch, *shape, time), seed, size * params["threshold"], torch.float64)
    x = within_24_bits(x, params["scale"])  # lava divides in float32
    spike = assert_same_run(Neuron(**params), lava.neuron.cuba.Neuron(**params), x)
    assert spike.dtype == torch.float64


@given(st.sampled_from(SCALES), st.integers(1, LARGEST_THRESHOLD))
def test_in_float64_a_voltage_at_any_threshold_neither_fires_nor_resets(scale, mantissa):
    # lava's comparison for the reset is in float32, where the 0.01 of a large threshold is lost
    params = {"current_decay": 1, "voltage_decay": 0, "scale": scale}
    neuron = Neuron(mantissa / scale, **params)
    x = torch.tensor([[[mantissa / scale, 0, 1 / (64 * scale), 0]]], dtype=torch.float64)
    _, voltage = neuron.dynamics(x)
    assert torch.equal(voltage[0, 0], torch.tensor([x[0, 0, 0]] * 2 + [x.sum(), 0]).double())
    assert neuron.spike(voltage).tolist() == [[[0, 0, 1, 0]]]


@given(neurons(), shapes(), batches, times, seeds, sizes)
def test_a_graded_spike_carries_lavas_voltage(lava, params, shape, batch, time, seed, size):
    x = analog((batch, *shape, time), seed, size * params["threshold"])
    params = {**params, "graded_spike": True}
    ours, theirs = Neuron(**params), lava.neuron.cuba.Neuron(**params)
    spike = assert_same_run(ours, theirs, x)
    fired = spike != 0
    assert (spike[fired] >= ours.threshold).all()
    assert ours.device_params["gradedSpike"] is theirs.device_params["gradedSpike"] is True


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@given(neurons(), shapes(), batches, times, seeds, sizes)
def test_half_precision_spikes_are_those_of_the_same_values_in_float32(
    dtype, params, shape, batch, time, seed, size
):
    x = analog((batch, *shape, time), seed, size * params["threshold"]).to(dtype)
    spike = Neuron(**params)(x)
    assert spike.dtype == dtype
    assert torch.equal(spike.float(), Neuron(**params)(x.float()))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 2)])
def test_an_empty_batch_gives_no_spikes_in_the_shape_of_its_input(lava, shape):
    params = {"threshold": 1, "current_decay": 0.2, "voltage_decay": 0.1}
    x = torch.zeros(0, *shape, 5)
    ours = Neuron(**params)
    assert assert_same_run(ours, lava.neuron.cuba.Neuron(**params), x).shape == x.shape
    # and the neuron still takes a batch that is not empty
    x = analog((2, *shape, 5), 0, 2)
    assert torch.equal(ours(x), Neuron(**params)(x))


@thorough
@given(
    neurons(), shapes(), seeds, sizes, st.lists(st.tuples(batches, st.integers(1, 9)), max_size=5)
)
def test_a_persistent_state_goes_on_as_lavas_also_when_the_batch_changes(
    lava, params, shape, seed, size, calls
):
    params = {**params, "persistent_state": True}
    ours, theirs = Neuron(**params), lava.neuron.cuba.Neuron(**params)
    for step, (batch, time) in enumerate(calls):
        x = analog((batch, *shape, time), seed + step, size * params["threshold"])
        assert torch.equal(ours(x), theirs(x))
        assert torch.equal(ours.current_state, theirs.current_state)
        assert torch.equal(ours.voltage_state, theirs.voltage_state)


@thorough
@given(
    neurons(),
    shapes(),
    batches,
    st.lists(st.integers(1, 12), min_size=2, max_size=4),
    seeds,
    sizes,
    st.booleans(),
)
def test_a_split_sequence_with_persistent_state_equals_one_long_run(
    params, shape, batch, parts, seed, size, graded
):
    # states are kept as float32, as in slayer: exact while they fit 24 bits
    x = analog((batch, *shape, sum(parts)), seed, size * params["threshold"])
    x = within_24_bits(x, params["scale"])
    params = {**params, "graded_spike": graded}
    whole = Neuron(**params)(x)
    split = Neuron(**params, persistent_state=True)
    assert torch.equal(torch.cat([split(part) for part in x.split(parts, dim=-1)], -1), whole)


@given(neurons(), shapes(), seeds)
def test_without_persistent_state_each_forward_starts_from_rest(params, shape, seed):
    neuron = Neuron(**params)
    x = analog((2, *shape, 7), seed, 2 * params["threshold"])
    assert torch.equal(neuron(x), neuron(x))


@given(neurons())
def test_device_parameters_are_lavas(lava, params):
    ours, theirs = Neuron(**params), lava.neuron.cuba.Neuron(**params)
    assert ours.device_params == theirs.device_params
    assert ours.device_params.keys() == theirs.device_params.keys()
    assert ours.cx_current_decay == theirs.cx_current_decay
    assert ours.cx_voltage_decay == theirs.cx_voltage_decay
    assert 0 <= ours.cx_current_decay <= 4096
    assert 0 <= ours.cx_voltage_decay <= 4096
    assert ours.v_th_mant == theirs.v_th_mant
    for name in NUMBERS:
        assert getattr(ours, name) == getattr(theirs, name), name
    if ours.v_th_mant <= LARGEST_EXACT_THRESHOLD:
        assert ours.threshold_eps == theirs.threshold_eps


@given(neurons(), shapes(), seeds, sizes)
def test_a_neuron_made_from_device_parameters_spikes_the_same(lava, params, shape, seed, size):
    first = Neuron(**params)
    back = slayer.neuron.cuba.neuron_params(first.device_params, scale=params["scale"])
    assert back == lava.neuron.cuba.neuron_params(first.device_params, scale=params["scale"])
    second = Neuron(**back, scale=params["scale"])
    assert second.device_params == first.device_params
    x = analog((2, *shape, 12), seed, size * params["threshold"])
    assert torch.equal(second(x), first(x))


@given(st.sampled_from(SCALES), seeds, st.booleans())
def test_eight_bit_weights_are_lavas(lava, scale, seed, descale):
    weight = analog((64,), seed, 150 / scale)
    params = {"threshold": 1, "current_decay": 0, "voltage_decay": 0, "scale": scale}
    mine = Neuron(**params).quantize_8bit(weight, descale=descale)
    assert torch.equal(mine, lava.neuron.cuba.Neuron(**params).quantize_8bit(weight, descale))
    integers = mine if descale else mine * scale
    assert integers.min() >= -256
    assert integers.max() <= 254
    assert torch.equal(integers % 2, torch.zeros(64))


@given(neurons(), neurons())
def test_shared_state_dicts_load_both_ways(lava, params, others):
    ours, theirs = Neuron(**params), lava.neuron.cuba.Neuron(**others)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(ours.current_decay, theirs.current_decay)
    assert torch.equal(ours.voltage_decay, theirs.voltage_decay)
    ours = Neuron(**params)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(theirs.current_decay, ours.current_decay)
    assert torch.equal(theirs.voltage_decay, ours.voltage_decay)


@given(st.sampled_from(SCALES), st.floats(1 / 256, 2000))
def test_a_threshold_is_rounded_down_to_the_grid_of_weights(scale, threshold):
    neuron = Neuron(threshold, 0, 0, scale=scale)
    assert neuron.threshold * scale == int(threshold * scale) == neuron.v_th_mant
    assert 0 <= threshold - neuron.threshold < 1 / scale


@pytest.mark.parametrize("scale", SCALES)
def test_a_voltage_at_the_threshold_does_not_fire_and_the_next_higher_does(scale):
    # 3 / scale is on the grid of weights; states are 64 times finer
    at = torch.full((1, 1, 1), 3 / scale)
    above = at + 1 / (64 * scale)
    params = {"threshold": 3 / scale, "current_decay": 1, "voltage_decay": 1, "scale": scale}
    assert Neuron(**params)(at).item() == 0
    assert Neuron(**params)(above).item() == 1


@thorough
@given(
    st.sampled_from(SCALES),
    st.integers(1, LARGEST_EXACT_THRESHOLD),
    st.lists(st.integers(-2, 2), min_size=1, max_size=6),
)
def test_voltages_within_a_step_of_a_threshold_fire_and_reset_as_in_lava(
    lava, scale, mantissa, steps
):
    # beyond, lava's has lost its 0.01 in float32: see tests/exchange/test_cuba_spikes.py
    x = mantissa / scale + torch.tensor([[steps]]) / (64 * scale)
    for decay in (0, 1):
        params = {"threshold": mantissa / scale, "scale": scale, "voltage_decay": decay}
        ours, theirs = (
            made(current_decay=1, **params) for made in (Neuron, lava.neuron.cuba.Neuron)
        )
        assert_same_run(ours, theirs, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@given(shapes(), seeds, decays)
def test_the_operator_itself_scales_half_precision_without_overflow(dtype, shape, seed, decay):
    x = (analog((2, *shape, 9), seed, 5) + 40).to(dtype)
    kept, state = torch.tensor([round(4096 * decay)]), torch.zeros(1)
    mine = integrate(x, kept, state, 4096, 20.0)
    assert torch.equal(mine, integrate(x.float(), kept, state, 4096, 20.0).to(dtype))
    assert (mine[..., 0] > 0).all()
    assert torch.isfinite(mine).all()


@pytest.mark.parametrize("mode", ["ROUND", "FLOOR"])
@given(seeds, st.sampled_from([1, 0.5, 2 / 64, 0.3]))
def test_quantize_is_lavas_with_a_straight_through_gradient(lava, mode, seed, step):
    x = analog((50,), seed, 3).requires_grad_()
    mine = slayer.utils.quantize(x, step, slayer.utils.QUANTIZE_MODE[mode])
    assert torch.equal(mine, lava.utils.quantize(x, step, lava.utils.QUANTIZE_MODE[mode]))
    mine.sum().backward()
    assert torch.equal(x.grad, torch.ones(50))


@given(seeds, st.sampled_from(SCALES), st.integers(2, 8), st.booleans())
def test_the_quantising_hook_is_lavas(lava, seed, scale, bits, descale):
    x = analog((50,), seed, 300 / scale)
    mine = slayer.utils.quantize_hook_fx(x, scale, bits, descale)

    assert torch.equal(mine, lava.utils.quantize_hook_fx(x, scale, bits, descale))
