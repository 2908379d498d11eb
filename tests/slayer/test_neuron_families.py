"""Resonators and adaptive neurons: states and spikes are lava's, bit for bit."""

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import slayer
from lava_bridge.ops import (
    adaptive_phase_th,
    adaptive_resonator,
    adaptive_threshold,
    resonator,
)

from .strategies import (
    ADAPTIVE,
    EVERY_SCALE,
    FIRING,
    NORMS,
    RESONATORS,
    SCALES,
    SPIKING,
    STATES,
    analog,
    assert_same_response,
    assert_same_state_dict,
    assert_same_states,
    batches,
    brief,
    drive,
    families,
    family_neurons,
    family_pair,
    in_other_memory,
    memory_orders,
    on_each_part,
    resonator_decays,
    response,
    run_alike,
    seeds,
    shapes,
    thorough,
    within_24_bits,
)

times = st.one_of(st.integers(1, 16), st.sampled_from([1, 2, 40]))
# In thresholds: below, around and far above it.
sizes = st.sampled_from([0.3, 1.0, 4.0])
every_family = pytest.mark.parametrize("name", SPIKING)


def neuron_of(name, **changes):
    return getattr(slayer.neuron, name).Neuron(**{**FIRING[name], **changes})


def around_threshold(name, params, shape, seed):
    """Whole thresholds, and the steps of the state's grid next to them."""
    generator = torch.Generator().manual_seed(seed)

    def steps(largest):
        return torch.randint(-largest, largest + 1, shape, generator=generator)

    step = 1 / (64 * params["scale"])
    parts = [steps(2) * params["threshold"] + steps(1) * step for _ in range(2)]
    return tuple(parts) if name in RESONATORS else parts[0]


@thorough
@given(family_neurons(), shapes(), batches, times, seeds, sizes, memory_orders, st.booleans())
def test_states_and_spikes_equal_lavas(
    lava, arguments, shape, batch, time, seed, size, order, graded
):
    name, params = arguments
    x = drive(name, (batch, *shape, time), seed, size * params["threshold"])
    x = on_each_part(lambda part: in_other_memory(part, order), x)
    ours, theirs = family_pair(lava, arguments, graded_spike=graded)
    spike = assert_same_response(ours, theirs, x)
    assert spike.shape == (batch, *shape, time)
    assert ours.shape == theirs.shape == shape
    assert ours.num_neurons == theirs.num_neurons
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours(x), spike)


@pytest.mark.parametrize("scale", EVERY_SCALE)
@given(data=st.data(), shape=shapes(), batch=batches, time=times, seed=seeds, graded=st.booleans())
def test_states_within_a_step_of_the_threshold_spike_and_reset_as_in_lava(
    lava, scale, data, shape, batch, time, seed, graded
):
    arguments = name, params = data.draw(family_neurons(scales=(scale,)))
    ours, theirs = family_pair(lava, arguments, graded_spike=graded)
    x = around_threshold(name, {**params, "threshold": ours.threshold}, (batch, *shape, time), seed)
    assert_same_response(ours, theirs, x)


@thorough
@given(
    family_neurons(scales=SCALES),
    shapes(),
    batches,
    times,
    seeds,
    sizes,
    memory_orders,
    st.booleans(),
)
def test_a_float64_input_gives_lavas_float64_output(
    lava, arguments, shape, batch, time, seed, size, order, graded
):
    name, params = arguments
    x = drive(name, (batch, *shape, time), seed, size * params["threshold"], torch.float64)
    x = on_each_part(lambda part: within_24_bits(part, params["scale"]), x)  # lava: in float32
    x = on_each_part(lambda part: in_other_memory(part, order), x)
    ours, theirs = family_pair(lava, arguments, graded_spike=graded)
    assert assert_same_response(ours, theirs, x).dtype == torch.float64
    assert torch.equal(ours(x), theirs(x))


@thorough
@given(family_neurons(), shapes(), batches, times, seeds, st.sampled_from([16, 19, 23]))
def test_states_up_to_24_bits_equal_lavas(lava, arguments, shape, batch, time, seed, bits):
    name, params = arguments
    largest = 2**bits / (params["scale"] * 64)
    x = drive(name, (batch, *shape, time), seed, largest)
    x = on_each_part(lambda part: part.clamp(-largest, largest), x)
    ours, theirs = family_pair(lava, arguments)
    assert_same_response(ours, theirs, on_each_part(lambda part: part / (time + 1) ** 2, x))
    if name != "rf_iz":  # lava writes its reset state back through float32
        assert_same_response(ours, theirs, x)


@thorough
@given(
    family_neurons(),
    shapes(),
    seeds,
    sizes,
    st.booleans(),
    st.lists(st.tuples(batches, st.integers(1, 7)), min_size=2, max_size=5),
)
def test_a_persistent_state_goes_on_as_lavas_also_when_the_batch_changes(
    lava, arguments, shape, seed, size, graded, calls
):
    name, params = arguments
    ours, theirs = family_pair(lava, arguments, persistent_state=True, graded_spike=graded)
    for step, (batch, time) in enumerate(calls):
        x = drive(name, (batch, *shape, time), seed + 2 * step, size * params["threshold"])
        assert torch.equal(ours(x), theirs(x))
        assert_same_states(ours, theirs, name)
        assert getattr(ours, STATES[name][0]).shape == (batch, *shape)


@thorough
@given(
    family_neurons(scales=SCALES),  # a state is a float in between, exact at powers of two
    shapes(),
    batches,
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    seeds,
    sizes,
    st.booleans(),
)
def test_a_split_sequence_with_persistent_state_equals_one_long_run(
    lava, arguments, shape, batch, parts, seed, size, graded
):
    name, params = arguments
    x = drive(name, (batch, *shape, sum(parts)), seed, size * params["threshold"])
    x = on_each_part(lambda part: within_24_bits(part, params["scale"]), x)
    whole = family_pair(lava, arguments, graded_spike=graded)[0](x)
    runs = family_pair(lava, arguments, graded_spike=graded, persistent_state=True)
    pieces = [part.split(parts, dim=-1) for part in (x if isinstance(x, tuple) else (x,))]
    for neuron in runs:
        steps = zip(*pieces, strict=True)
        split = [neuron(step if neuron.complex else step[0]) for step in steps]
        assert torch.equal(torch.cat(split, -1), whole)


@given(family_neurons(), shapes(), seeds)
def test_without_persistent_state_each_forward_starts_from_rest(arguments, shape, seed):
    name, params = arguments
    neuron = getattr(slayer.neuron, name).Neuron(**params)
    x = drive(name, (2, *shape, 7), seed, 2 * params["threshold"])
    first = response(neuron, x)
    for one, other in zip(first, response(neuron, x), strict=True):
        assert torch.equal(one, other)
    fresh = getattr(slayer.neuron, name).Neuron(**params)
    for one, other in zip(first, response(fresh, x), strict=True):
        assert torch.equal(one, other)


@thorough
@given(
    family_neurons(scales=(64, 100)),
    st.integers(1, 4),
    batches,
    times,
    seeds,
    sizes,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_parameters_per_channel_give_lavas_states_and_spikes(
    lava, arguments, channels, batch, time, seed, size, log_init, ranges, persistent
):
    name, params = arguments
    changes = {"shared_param": False, "persistent_state": persistent}
    if name != "alif":
        changes["log_init"] = log_init
    if ranges:
        for key in params.keys() - {"threshold", "threshold_step", "scale"}:
            least = 4 if key == "period" else 0
            changes[key] = (max(least, 0.8 * params[key]), params[key])
    ours, theirs = family_pair(lava, arguments, **changes)
    # lava draws values that it does not hold to their bounds until it exports them
    first = drive(name, (batch, channels, 1), seed, 0)
    run_alike(ours, theirs, first, seed)
    ours.clamp(), theirs.clamp()
    if name in ADAPTIVE:
        for key in ("threshold_decay", "refractory_decay"):
            getattr(theirs, key).data.clamp_(0, 4096)
    for step in range(2):
        x = drive(name, (batch, channels, time), seed + step, size * params["threshold"])
        assert_same_response(ours, theirs, x)
    if persistent:
        assert_same_states(ours, theirs, name)


@given(
    family_neurons(), st.tuples(*[st.integers(1, 3)] * 3), batches, st.integers(1, 12), seeds, sizes
)
def test_with_height_and_width_each_channel_is_lavas_neuron_with_that_channels_parameters(
    lava, arguments, shape, batch, time, seed, size
):
    # lava's CPU loop broadcasts the parameters of [N, C, H, W, T] along W
    name, params = arguments
    torch.manual_seed(seed)
    ours = getattr(slayer.neuron, name).Neuron(**params, shared_param=False)
    x = drive(name, (batch, *shape, time), seed, size * params["threshold"])
    states = response(ours, x)
    for channel in range(shape[0]):
        _, one = family_pair(lava, arguments)
        for key, value in ours.named_parameters():
            getattr(one, key).data = value.data[channel : channel + 1].clone()
        own = on_each_part(lambda part: part[:, channel : channel + 1], x)  # noqa: B023
        for mine, reference in zip(states, response(one, own), strict=True):
            assert torch.equal(mine[:, channel : channel + 1], reference)


@thorough
@given(families, st.sampled_from(NORMS), shapes(), batches, st.integers(1, 12), seeds, sizes)
def test_a_neuron_with_norms_equals_lavas_through_training_and_evaluation(
    lava, name, norm, shape, batch, time, seed, size
):
    ours, theirs = family_pair(
        lava, (name, FIRING[name]), seed, norm=lambda which: getattr(which.neuron.norm, norm)
    )
    for step in range(3):
        x = drive(name, (batch, *shape, time), seed + step, size)
        x = on_each_part(lambda part: part + size, x)
        assert_same_response(ours, theirs, x)
        assert_same_state_dict(ours, theirs)
    ours.eval(), theirs.eval()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    assert_same_response(ours, theirs, x)
    for key, value in ours.state_dict().items():
        assert torch.equal(value, before[key]), key
    mine = [norm for norm in ours.children() if hasattr(norm, "bias")]
    reference = [norm for norm in theirs.children() if hasattr(norm, "bias")]
    assert len(mine) == len(reference) == (2 if name in RESONATORS else 1)
    for one, other in zip(mine, reference, strict=True):
        assert torch.equal(one.bias, other.bias)


@every_family
@brief
@given(rate=st.sampled_from([0.0, 0.3, 0.9]), shape=shapes(), seed=seeds)
def test_dropout_leaves_out_lavas_spikes_and_not_what_a_spike_does_to_the_state(
    lava, name, rate, shape, seed
):
    ours, theirs = family_pair(
        lava,
        (name, FIRING[name]),
        dropout=lambda which: which.neuron.Dropout(rate),
        persistent_state=True,
    )
    plain = neuron_of(name, persistent_state=True)
    for step in range(2):
        x = drive(name, (3, *shape, 9), seed + step, 1)
        mine, reference = run_alike(ours, theirs, x, seed)
        assert torch.equal(mine, reference)
        assert_same_states(ours, theirs, name)
        plain(x)
        assert_same_states(ours, plain, name)
    ours.eval(), theirs.eval()
    assert torch.equal(ours(x), theirs(x))


@every_family
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@brief
@given(shape=shapes(), seed=seeds, size=sizes)
def test_half_precision_spikes_are_those_of_the_same_values_in_float32(
    name, dtype, shape, seed, size
):
    x = on_each_part(lambda part: part.to(dtype), drive(name, (2, *shape, 9), seed, size))
    spike = neuron_of(name)(x)
    assert spike.dtype == dtype
    reference = neuron_of(name)(on_each_part(lambda part: part.float(), x))
    assert torch.equal(spike.float(), reference)


@every_family
@pytest.mark.parametrize("shape", [(3,), (2, 3, 2)])
def test_an_empty_batch_gives_no_spikes_in_the_shape_of_its_input(name, shape):
    neuron = neuron_of(name)
    assert neuron(drive(name, (0, *shape, 5), 0, 1)).shape == (0, *shape, 5)
    x = drive(name, (2, *shape, 5), 0, 2)
    assert torch.equal(neuron(x), neuron_of(name)(x))


# The operators alone, from any state -------------------------------------------------------------

scales = st.sampled_from([1, 4, 300, 4096, 6400])
fractions = st.integers(0, 4096)


def tensors(seed, shape, count, size):
    return [analog(shape, seed + index, size) for index in range(count)]


@thorough
@given(
    scales,
    fractions,
    fractions,
    shapes(),
    times,
    seeds,
    st.sampled_from([0.1, 3.0, 50.0]),
    st.one_of(st.none(), st.floats(0, 4)),
)
def test_the_resonator_equals_lavas_from_any_state_and_for_any_threshold(
    lava, scale, sine, cosine, shape, time, seed, size, threshold
):
    inputs = tensors(seed, (2, *shape, time), 2, size)
    states = tensors(seed + 2, (2, *shape), 2, size)
    decays = torch.tensor([float(sine)]), torch.tensor([float(cosine) / 2])
    mine = resonator.dynamics(*inputs, *decays, *states, scale, threshold)
    reference = lava.neuron.dynamics.resonator.dynamics(*inputs, *decays, *states, scale, threshold)
    for one, other in zip(mine, reference, strict=True):
        assert torch.equal(one, other)


@thorough
@given(
    scales,
    fractions,
    fractions,
    shapes(),
    times,
    seeds,
    st.sampled_from([0.1, 3.0, 50.0]),
    st.floats(-1, 4),
    st.floats(0, 4),
)
def test_the_adaptive_thresholds_equal_lavas_from_any_state(
    lava, scale, ref_decay, th_decay, shape, time, seed, size, step, rest
):
    real, imag = tensors(seed, (2, *shape, time), 2, size)
    imag_state, ref_state, th_state = tensors(seed + 2, (2, *shape), 3, size)
    ref_decay, th_decay = torch.tensor([float(ref_decay)]), torch.tensor([float(th_decay)])
    sine, cosine = torch.tensor([1000.0]), torch.tensor([3900.0])
    adaptation = ref_state, ref_decay, th_state, th_decay, step, rest, scale
    levels = ref_state, th_state, step, rest, scale
    theirs = lava.neuron.dynamics
    for mine, reference, arguments in (
        (adaptive_threshold, theirs.adaptive_threshold, (real, *adaptation)),
        (adaptive_phase_th, theirs.adaptive_phase_th, (real, imag, imag_state, *adaptation)),
        (
            adaptive_resonator,
            theirs.adaptive_resonator,
            (real, imag, sine, cosine, ref_decay, th_decay, real[..., 0], imag_state, *levels),
        ),
    ):
        for one, other in zip(
            mine.dynamics(*arguments), reference.dynamics(*arguments), strict=True
        ):
            assert torch.equal(one, other)


# What a spike is, in numbers ---------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 64, 100])
@given(mantissa=st.integers(1, 2000))
def test_rf_iz_fires_and_is_reset_at_the_threshold_and_not_one_step_below(scale, mantissa):
    step = 1 / (64 * scale)
    neuron = slayer.neuron.rf_iz.Neuron((mantissa + 0.5) / scale, 1e7, 0, scale=scale)
    assert neuron.threshold == mantissa / scale
    assert (neuron.cx_sin_decay, neuron.cx_cos_decay) == (1, 4095)
    below = 64 * mantissa - 1
    first = torch.tensor([[[below + 1], [below]]], dtype=torch.float64)
    imag = torch.cat([(first + 0.25) * step, torch.zeros(1, 2, 1)], -1)
    real, imag, spike = response(neuron, (torch.ones_like(imag), imag))
    assert spike[0, :, 0].tolist() == [1, 0]
    # one goes on from a real part of 0, the other from 1; both from one step below the threshold
    one = 64 * scale
    real, imag = (torch.round(part[0, :, 1] / step).tolist() for part in (real, imag))
    assert real == [one - (below >> 12), one + (4095 * one >> 12) - (below >> 12)]
    assert imag == [4095 * below >> 12, (4095 * below >> 12) + (one >> 12)]


@given(resonator_decays, st.integers(1, 200))
def test_rf_fires_where_its_phase_passes_zero_and_its_real_part_is_large_enough(decay, mantissa):
    neuron = slayer.neuron.rf.Neuron(mantissa / 64, 4, decay)
    imag = torch.tensor([[[-0.5, 0.0, 1.0, -1.0, 1.0, 0.0]]])
    real = torch.full((1, 1, 6), mantissa / 64)
    real[..., 4] -= 1 / 4096
    neuron.dynamics((real, imag))  # brings the states to the batch
    assert neuron.spike(real, imag).tolist() == [[[0, 1, 0, 0, 0, 0]]]


def test_an_adaptive_neuron_rises_by_its_step_and_rests_for_twice_its_threshold():
    neuron = slayer.neuron.alif.Neuron(1, 0.5, 1, 1, 0.5, 0.5)
    x = torch.full((1, 1, 4), 3.0)
    _, voltage, threshold, refractory = neuron.dynamics(x)
    assert torch.equal(voltage, x)
    # fires at 0: threshold 1 + 0.5, refractory 2 * 1; both halve towards rest in each step
    assert threshold.flatten().tolist() == [1, 1.25, 1.375, 1.1875]
    assert refractory.flatten().tolist() == [0, 1, 1.75, 0.875]
    assert neuron.spike(voltage, threshold, refractory).flatten().tolist() == [1, 1, 0, 1]
