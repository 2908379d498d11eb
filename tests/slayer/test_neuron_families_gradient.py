"""Resonators, adaptive and sigma-delta neurons: gradients within the bound, parameters equal."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st

from lava_bridge import slayer, use_backend

from .strategies import (
    ADAPTIVE,
    EVERY_SCALE,
    FIRING,
    NORMS,
    RESONATORS,
    SCALES,
    SPIKING,
    BooleanSubtraction,
    alike,
    analog,
    assert_close,
    assert_same_gradients,
    assert_same_state_dict,
    batches,
    brief,
    decays,
    drive,
    family_neurons,
    family_pair,
    in_other_memory,
    memory_orders,
    on_each_part,
    response,
    run_alike,
    seeds,
    shapes,
    thorough,
    within_24_bits,
)

times = st.one_of(st.integers(1, 16), st.sampled_from([1, 2]))
sizes = st.sampled_from([0.3, 1.0, 4.0])
every_family = pytest.mark.parametrize("name", SPIKING)
LEARNED = ("sin_decay", "cos_decay", "current_decay", "voltage_decay")
# They have no gradient, or one of 0.
NOT_LEARNED = ("threshold_decay", "refractory_decay")
NUMBERS = (
    "threshold", "tau_rho", "scale_rho", "weight_exponent", "scale", "w_scale", "s_scale",
    "p_scale",
)  # fmt: skip


def gradients_of(neuron, x, seed, of_states=False):
    """Gradients for the parts of ``x`` and the parameters, for a random gradient of the spikes."""
    x = on_each_part(lambda part: part.clone().requires_grad_(), x)
    neuron.zero_grad()
    *states, spike = response(neuron, x)
    outputs = [*states[:2], spike] if of_states else [spike]
    sum((y * analog(tuple(y.shape), seed, 1, y.dtype)).sum() for y in outputs).backward()
    parts = x if isinstance(x, tuple) else (x,)
    for key in NOT_LEARNED:
        parameter = getattr(neuron, key, None)
        if parameter is not None and parameter.grad is not None:
            assert not parameter.grad.any()
            parameter.grad = None
    named = {n: p.grad.clone() for n, p in neuron.named_parameters() if p.grad is not None}
    return [part.grad for part in parts], named


def assert_same_family_gradients(ours, theirs, x, seed, of_states=False):
    (mine, my_named), (reference, named) = (
        gradients_of(neuron, x, seed, of_states) for neuron in (ours, theirs)
    )
    for one, other in zip(mine, reference, strict=True):
        assert_close(one, other)
    assert my_named.keys() == named.keys()
    for key, grad in named.items():
        assert_close(my_named[key], grad)
    return mine, my_named


@thorough
@given(
    family_neurons(scales=SCALES),
    shapes(),
    batches,
    times,
    seeds,
    sizes,
    st.booleans(),
    st.booleans(),
    memory_orders,
    st.sampled_from([0.01, 0.1, 1]),
    st.sampled_from([0.1, 3]),
)
def test_gradients_of_inputs_and_shared_parameters_are_lavas(
    lava, arguments, shape, batch, time, seed, size, graded, of_states, order, width, height
):
    name, params = arguments
    # lava's phase spike is narrower, and 10 / width large: 0.5 of a threshold, not 100
    changes = {
        "requires_grad": True,
        "graded_spike": graded,
        "tau_grad": width if name == "rf" else width / 10,
        "scale_grad": height,
    }
    ours, theirs = family_pair(lava, arguments, seed, **changes)
    x = drive(name, (batch, *shape, time), seed, size * params["threshold"], torch.float64)
    x = on_each_part(lambda part: within_24_bits(part, params["scale"]), x)
    x = on_each_part(lambda part: in_other_memory(part, order), x)
    mine, named = assert_same_family_gradients(ours, theirs, x, seed + 2, of_states)
    assert named.keys() == set(LEARNED) & dict(ours.named_parameters()).keys()
    for grad in named.values():
        assert grad.shape == (1,)
    if of_states:
        assert all(part.abs().max() > 0 for part in mine)


@pytest.mark.parametrize("name", FIRING)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_a_forward_in_one_operator_has_the_gradients_of_its_parts(name, shared, backend):
    params = {**FIRING[name], "shared_param": shared, "requires_grad": True}
    torch.manual_seed(1)
    made = getattr(slayer.neuron, name).Neuron(**params)
    x = drive(name, (2, 3, 2, 20), 1, 0.3, torch.float64)
    weight = analog((2, 3, 2, 20), 3, 1, torch.float64)
    apart = response if name != "sigma_delta" else heard
    found = []
    for run in (lambda neuron, x: [neuron(x)], apart):
        parts = on_each_part(lambda part: part.clone().requires_grad_(), x)
        with use_backend(backend):
            spike = run(made, parts)[-1]
            learned = [made.get_parameter(key) for key in LEARNED if hasattr(made, key)]
            inputs = [*(parts if isinstance(parts, tuple) else (parts,)), *learned]
            found.append([spike, *torch.autograd.grad((spike * weight).sum(), inputs)])
    for one, other in zip(*found, strict=True):
        assert one.any()
        assert_close(one, other)


def heard(neuron, x):
    """The messages of a neuron whose parts run one by one, since somebody listens to one."""
    handle = neuron.delta.register_forward_hook(lambda *_: None)
    y = neuron(x)
    handle.remove()
    return [y]


def ranges_of(name, params, log_init=None):
    """Ranges below ``params`` for all that each channel can draw."""
    ranges = {}
    for key in params.keys() - {"threshold", "threshold_step", "scale"}:
        least = 4 if key == "period" else 0
        ranges[key] = (max(least, 0.8 * params[key]), params[key])
    return ranges


@thorough
@given(
    family_neurons(scales=SCALES),
    st.integers(2, 5),
    batches,
    times,
    seeds,
    sizes,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_parameters_per_channel_are_lavas_draw_and_so_are_their_gradients(
    lava, arguments, channels, batch, time, seed, size, log_init, ranges, of_states
):
    name, params = arguments
    changes = {"shared_param": False, "requires_grad": True, "tau_grad": 0.1}
    if name != "alif":
        changes["log_init"] = log_init
    if ranges:
        changes.update(ranges_of(name, params))
    ours, theirs = family_pair(lava, arguments, seed, **changes)
    first = drive(name, (batch, channels, 1), seed, 0)
    left = []
    for neuron in (ours, theirs):
        torch.manual_seed(seed)
        neuron(first)
        left.append(torch.rand(3))
    assert torch.equal(*left)  # as many numbers drawn
    if name in ADAPTIVE:  # drawn with rounding, lava's may lie past their bounds
        for key in NOT_LEARNED:
            getattr(theirs, key).data.clamp_(0, 4096)
    for key, value in theirs.named_parameters():
        assert getattr(ours, key).shape == (channels,)
        torch.testing.assert_close(getattr(ours, key), value, rtol=1e-6, atol=0, msg=key)
        assert torch.equal(getattr(ours, key).round(), value.round()), key
    assert_same_device_params(ours, theirs)
    x = drive(name, (batch, channels, time), seed, size * params["threshold"], torch.float64)
    x = on_each_part(lambda part: within_24_bits(part, params["scale"]), x)
    assert_same_family_gradients(ours, theirs, x, seed + 2, of_states)


def assert_same_device_params(ours, theirs):
    mine, reference = ours.device_params, theirs.device_params
    assert mine.keys() == reference.keys()
    for key, value in reference.items():
        assert type(mine[key]) is type(value), key
        assert np.array_equal(mine[key], value), key


@every_family
@pytest.mark.parametrize("log_init", [True, False])
@brief
@given(
    low=st.floats(0.01, 0.4), wide=st.floats(0, 0.5), period=st.floats(5, 60), seed=seeds,
    scalar=st.booleans(), channels=st.integers(1, 6),
)  # fmt: skip
def test_parameters_drawn_from_one_seed_are_lavas_bit_for_bit(
    lava, name, log_init, low, wide, period, seed, scalar, channels
):
    changes = {"shared_param": False}
    if name in RESONATORS:
        changes["log_init"] = log_init
    for key in FIRING[name].keys() - {"threshold", "threshold_step"}:
        least = period if key == "period" else low
        changes[key] = least if scalar else (least, least + wide * (50 if key == "period" else 1))
    ours, theirs = family_pair(lava, (name, FIRING[name]), seed, **changes)
    x = drive(name, (2, channels, 1), seed, 0)
    run_alike(ours, theirs, x, seed)
    assert_same_state_dict(ours, theirs)
    if name in RESONATORS:
        for key in ("decay", "lam", "period", "frequency"):
            assert np.array_equal(getattr(ours, key), getattr(theirs, key)), key
            assert getattr(ours, key).shape == (channels,)
        periods = changes["period"]
        if not scalar and channels > 1 and log_init:
            assert ours.period.max() == pytest.approx(periods[1], rel=0.05)
            assert ours.period.min() == pytest.approx(periods[0], rel=0.05)
    assert_same_device_params(ours, theirs)


@given(
    family_neurons(scales=SCALES),
    st.tuples(*[st.integers(1, 3)] * 3),
    batches,
    st.integers(1, 10),
    seeds,
)
def test_with_height_and_width_each_channels_gradient_is_that_of_lavas_own_neuron(
    lava, arguments, shape, batch, time, seed
):
    # lava's CPU loop broadcasts the parameters of [N, C, H, W, T] along W. Where the scale is no
    # power of two its states are single precision whatever the input: too coarse to compare.
    name, params = arguments
    changes = {"requires_grad": True, "tau_grad": 0.1}
    ours, _ = family_pair(lava, arguments, seed, shared_param=False, **changes)
    x = drive(name, (batch, *shape, time), seed, params["threshold"], torch.float64)
    x = on_each_part(lambda part: within_24_bits(part, params["scale"]), x)
    ours(x)
    mine, named = gradients_of(ours, x, seed + 2, of_states=True)
    weight = analog((batch, *shape, time), seed + 2, 1, torch.float64)
    for channel in range(shape[0]):
        _, theirs = family_pair(lava, arguments, **changes)
        for key, value in ours.named_parameters():
            getattr(theirs, key).data = value.data[channel : channel + 1].clone()

        def take(part, channel=channel):
            return part[:, channel : channel + 1]

        own = on_each_part(lambda part: take(part).clone().requires_grad_(), x)
        *states, spike = response(theirs, own)
        sum((take(weight) * y).sum() for y in (*states[:2], spike)).backward()
        references = own if name in RESONATORS else (own,)
        for part, reference in zip(mine, references, strict=True):
            assert_close(take(part), reference.grad)
        assert named.keys() == set(LEARNED) & dict(ours.named_parameters()).keys()
        for key, grad in named.items():
            assert_close(grad[channel : channel + 1], getattr(theirs, key).grad)


@every_family
@brief
@given(norm=st.sampled_from(NORMS), shape=shapes(), seed=seeds, training=st.booleans())
def test_gradients_through_a_neuron_with_norms_are_lavas(lava, name, norm, shape, seed, training):
    ours, theirs = family_pair(
        lava,
        (name, FIRING[name]),
        seed,
        norm=lambda which: getattr(which.neuron.norm, norm),
        requires_grad=True,
        tau_grad=0.1,
    )
    x = drive(name, (2, *shape, 7), seed, 1, torch.float64)
    for neuron in (ours, theirs):
        neuron(x)
        neuron.train(training)
    assert_same_family_gradients(ours, theirs, x, seed + 2)


# --- Sigma-delta


@thorough
@given(
    st.floats(0.05, 1),
    st.sampled_from([F.relu, torch.tanh]),
    shapes(),
    batches,
    times,
    seeds,
    st.sampled_from([0.1, 0.5, 2.0]),
    st.sampled_from([0.1, 1]),
    st.sampled_from([0.5, 1]),
    st.booleans(),
    st.booleans(),
)
def test_sigma_deltas_gradients_are_lavas(
    lava, threshold, activation, shape, batch, time, seed, size, width, height, cum_error, bias
):
    ours, theirs = alike(
        lava,
        lambda which: which.neuron.sigma_delta.Neuron(
            threshold,
            activation,
            tau_grad=width,
            scale_grad=height,
            cum_error=cum_error,
            requires_grad=True,
        ),
        seed,
    )
    theirs.delta.error_state = torch.zeros(batch, *shape, dtype=torch.float64)
    if bias:
        ours.set_bias(analog(shape, seed, 1)), theirs.set_bias(analog(shape, seed, 1))
    x = analog((batch, *shape, time), seed, size, torch.float64)
    with BooleanSubtraction():
        assert_same_gradients(ours, theirs, x, seed + 1)
    assert ours.threshold.grad.shape == (1,)


@given(
    st.floats(0.05, 1), shapes(), batches, times, seeds, st.sampled_from([0.1, 2.0]), st.booleans()
)
def test_a_delta_threshold_of_each_channel_has_the_gradient_of_lavas_own_delta(
    lava, threshold, shape, batch, time, seed, size, cum_error
):
    # lava's own can't be shaped as the threshold
    params = {"scale": 4096, "tau_grad": 0.1, "cum_error": cum_error, "requires_grad": True}
    ours = slayer.axon.Delta(threshold, shared_param=False, **params)
    x = analog((batch, *shape, time), seed, size, torch.float64)
    ours(x)
    spread = torch.linspace(0.8, 1.2, shape[0])
    ours.threshold.data.mul_(spread.reshape(-1, *[1] * (len(shape) - 1)))
    weight = analog(tuple(x.shape), seed + 1, 1, torch.float64)
    x.requires_grad_()
    (ours(x) * weight).sum().backward()
    assert ours.threshold.grad.shape == ours.threshold.shape
    for channel in range(shape[0]):
        theirs = lava.axon.Delta(0, **params)
        theirs.threshold.data.fill_(ours.threshold.flatten()[channel].item())
        own = x.detach()[:, channel : channel + 1].clone().requires_grad_()
        theirs.error_state = torch.zeros_like(own[..., 0])
        with BooleanSubtraction():
            (theirs(own) * weight[:, channel : channel + 1]).sum().backward()
        assert_close(x.grad[:, channel : channel + 1], own.grad)
        assert_close(ours.threshold.grad.flatten()[channel : channel + 1], theirs.threshold.grad)


# --- Numbers for the chip


@thorough
@given(family_neurons(scales=SCALES))
def test_device_parameters_and_numbers_are_lavas(lava, arguments):
    name, _ = arguments
    ours, theirs = family_pair(lava, arguments)
    assert ours.device_params == theirs.device_params
    assert_same_device_params(ours, theirs)
    for key in NUMBERS:
        assert getattr(ours, key) == getattr(theirs, key), key
    names = ["v_th_mant"]
    if name in RESONATORS:
        names += ["cx_sin_decay", "cx_cos_decay", "decay", "lam", "period", "frequency"]
        assert 0 <= ours.decay < 1
        assert ours.period >= 4
    else:
        names += ["cx_current_decay", "cx_voltage_decay", "ref_delay"]
    if name in ADAPTIVE:
        names += ["v_th_step", "cx_threshold_decay", "cx_refractory_decay", "threshold_step"]
    for key in names:
        assert getattr(ours, key) == getattr(theirs, key), key
    assert_same_state_dict(ours, theirs)


@every_family
@pytest.mark.parametrize("scale", EVERY_SCALE)
@brief
@given(
    threshold=st.integers(1, 1 << 12), step=st.integers(0, 1 << 10), period=st.floats(4, 500),
    rates=st.tuples(decays, decays, decays, decays), seed=seeds,
)  # fmt: skip
def test_a_neuron_made_from_device_parameters_has_them_and_spikes_the_same(
    name, scale, threshold, step, period, rates, seed
):
    neuron = getattr(slayer.neuron, name)
    keys = [key for key in FIRING[name] if key.endswith("decay")]
    params = {**dict(zip(keys, rates, strict=False)), "threshold": threshold / scale}
    if name in RESONATORS:
        params["period"] = period
    if name in ADAPTIVE:
        params["threshold_step"] = step / scale
    first = neuron.Neuron(**params, scale=scale)
    assert first.device_params["vThMant"] == round(first.threshold * scale)
    back = neuron.neuron_params(first.device_params, scale=scale)
    assert back.keys() == params.keys()
    second = neuron.Neuron(**back, scale=scale)
    assert second.device_params == first.device_params
    x = drive(name, (2, 3, 9), seed, threshold / scale)
    for one, other in zip(response(first, x), response(second, x), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["rf", "rf_iz"])
@given(data=st.data())
def test_arguments_from_device_parameters_inside_the_circle_are_lavas(lava, name, data):
    arguments = _, params = data.draw(family_neurons((name,)))
    ours, _ = family_pair(lava, arguments)
    mine, reference = (
        getattr(which.neuron, name).neuron_params(ours.device_params, params["scale"])
        for which in (slayer, lava)
    )
    # rounded out of the circle of radius 4095, lava's don't lead back to these integers
    inside = np.hypot(ours.cx_sin_decay, ours.cx_cos_decay) <= 4095
    if inside:
        assert mine == pytest.approx(reference, rel=1e-12)
    assert mine["threshold"] == pytest.approx(reference["threshold"], rel=1e-12)
    assert mine["decay"] == pytest.approx(reference["decay"], abs=1 / 4096)
