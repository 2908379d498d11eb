"""The sigma-delta neuron, its decoder and its encoder: messages are lava's, bit for bit."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, strategies as st

from lava_bridge import slayer

from .strategies import (
    NORMS,
    BooleanSubtraction,
    alike,
    analog,
    assert_same_state_dict,
    batches,
    in_other_memory,
    memory_orders,
    run_alike,
    seeds,
    shapes,
    thorough,
)

Neuron = slayer.neuron.sigma_delta.Neuron
Delta = slayer.axon.Delta


def identity(x):
    return x


activations = st.sampled_from([F.relu, torch.tanh, identity, F.elu, torch.nn.ReLU()])
scales = st.sampled_from([1, 3, 16, 64, 100])
thresholds = st.one_of(st.sampled_from([0, 0.1, 0.5]), st.floats(0, 3))
times = st.one_of(st.integers(1, 16), st.sampled_from([1, 2, 40]))
sizes = st.sampled_from([0.05, 0.4, 2.0])
calls = st.lists(st.tuples(batches, st.integers(1, 7)), min_size=2, max_size=5)


def pair(lava, seed=0, **params):
    return alike(lava, lambda which: which.neuron.sigma_delta.Neuron(**params), seed)


def assert_same_states(ours, theirs, cum_error=False):
    assert torch.equal(ours.sigma.pre_state, theirs.sigma.pre_state)
    assert torch.equal(ours.delta.pre_state, theirs.delta.pre_state)
    assert torch.equal(ours.delta.residual_state, theirs.delta.residual_state)
    if cum_error:
        assert torch.equal(ours.delta.error_state, theirs.delta.error_state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@thorough
@given(
    threshold=thresholds,
    scale=scales,
    activation=activations,
    shared=st.booleans(),
    shape=shapes(),
    batch=batches,
    time=times,
    seed=seeds,
    size=sizes,
    order=memory_orders,
)
def test_messages_equal_lavas(
    lava, dtype, threshold, scale, activation, shared, shape, batch, time, seed, size, order
):
    ours, theirs = pair(
        lava, threshold=threshold, activation=activation, scale=scale, shared_param=shared
    )
    x = in_other_memory(analog((batch, *shape, time), seed, size, dtype), order)
    for _ in range(2):
        mine = ours(x)
        assert torch.equal(mine, theirs(x))
        assert mine.dtype == dtype
        assert torch.equal(ours.threshold, theirs.threshold)
        assert ours.shape == theirs.shape == shape
        assert ours.sigma.shape == ours.delta.shape == shape
    assert ours.num_neurons == math.prod(shape)


@thorough
@given(thresholds, activations, st.booleans(), shapes(), calls, seeds, sizes)
def test_a_persistent_state_goes_on_as_lavas_also_when_the_batch_changes(
    lava, threshold, activation, shared, shape, calls, seed, size
):
    params = {"threshold": threshold, "activation": activation, "shared_param": shared}
    ours, theirs = pair(lava, **params, persistent_state=True)
    for step, (batch, time) in enumerate(calls):
        x = analog((batch, *shape, time), seed + step, size)
        assert torch.equal(ours(x), theirs(x))
        assert_same_states(ours, theirs)


@thorough
@given(
    thresholds,
    st.sampled_from([F.relu, identity]),
    st.booleans(),
    st.booleans(),
    shapes(),
    batches,
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    seeds,
    sizes,
)
def test_a_split_sequence_with_persistent_state_equals_one_long_run(
    threshold, activation, cum_error, shared, shape, batch, parts, seed, size
):
    params = {"threshold": threshold, "activation": activation, "shared_param": shared}
    params["cum_error"] = cum_error
    # on a grid of 1 / 1024: sums are exact in any order
    x = torch.round(1024 * analog((batch, *shape, sum(parts)), seed, size)) / 1024
    whole = Neuron(**params)(x)
    neuron = Neuron(**params, persistent_state=True)
    split = torch.cat([neuron(part) for part in x.split(parts, dim=-1)], -1)
    assert torch.equal(split, whole)


@thorough
@given(thresholds, scales, activations, st.booleans(), st.booleans(), shapes(), calls, seeds, sizes)
def test_the_cumulated_error_is_lavas_once_its_loop_runs(
    lava, threshold, scale, activation, persistent, shared, shape, calls, seed, size
):
    ours, theirs = pair(
        lava,
        threshold=threshold,
        scale=scale,
        activation=activation,
        shared_param=shared,
        persistent_state=persistent,
        cum_error=True,
    )
    for step, (batch, time) in enumerate(calls):
        x = analog((batch, *shape, time), seed + step, size)
        if not persistent or theirs.delta.error_state.shape != x.shape[:-1]:
            # lava adds in place to what is left of the last forward, or to one element
            theirs.delta.error_state = torch.zeros(x.shape[:-1])
        with BooleanSubtraction():
            reference = theirs(x)
        assert torch.equal(ours(x), reference)
        if persistent:
            assert_same_states(ours, theirs, cum_error=True)


@given(
    st.lists(st.integers(-200, 200), min_size=1, max_size=24),
    st.integers(1, 300),
    st.booleans(),
    st.sampled_from([1, 4, 64]),
)
def test_delta_sends_what_its_equation_says(signal, threshold, cum_error, scale):
    assume(threshold >= 64 / scale)  # else raised to the smallest message that there is
    before = residual = error = 0
    expected = []
    for x in signal:
        change = x - before + residual
        error = error + change if cum_error else change
        message = change if abs(error) >= threshold else 0
        error = 0 if message else error
        residual, before = change - message, x
        expected.append(math.floor(message / 64 * scale) / scale)
    delta = Delta(threshold / 64, scale=scale, cum_error=cum_error)
    for _ in range(2):  # and again from rest
        assert delta(torch.tensor([[signal]]) / 64).flatten().tolist() == expected


@given(st.floats(0, 2), st.sampled_from([1, 16, 64]))
def test_a_threshold_is_kept_at_one_message_or_more(lava, threshold, scale):
    ours, theirs = alike(lava, lambda which: which.axon.Delta(threshold, scale=scale), 0)
    x = torch.tensor([[[0.0, 1 / scale, 1.5 / scale, 3 / scale]]])
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.threshold, theirs.threshold)
    assert ours.threshold.item() >= 1 / scale


@given(thresholds, shapes(), batches, times, seeds)
def test_the_sum_of_the_messages_follows_the_signal_within_a_threshold(
    threshold, shape, batch, time, seed
):
    delta, sigma = Delta(threshold, scale=1 << 16), slayer.dendrite.Sigma()
    x = analog((batch, *shape, time), seed, 1, torch.float64)
    bound = max(threshold, 2**-16) + time * 2**-16
    assert ((sigma(delta(x)) - x).abs() <= bound + 1e-6).all()


@given(shapes(), batches, seeds, sizes, st.booleans(), st.booleans())
def test_a_bias_acts_as_lavas_set_before_or_after_the_first_forward(
    lava, shape, batch, seed, size, known, flat
):
    ours, theirs = pair(lava, threshold=0.1, activation=F.relu)
    x = analog((batch, *shape, 9), seed, size)
    assert not ours.bias_is_set
    if known:
        assert torch.equal(ours(x), theirs(x))
    bias = analog(shape, seed + 1, 1)
    for neuron in (ours, theirs):
        neuron.set_bias(bias.flatten() if flat and known else bias)
    assert ours.bias_is_set
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.bias, theirs.bias)
    assert torch.equal(ours.bias, bias)
    plain = Neuron(0.1, F.relu)
    level = plain.sigma(x) + bias[None, ..., None]
    assert torch.equal(ours(x), plain.delta(F.relu(level)))


@pytest.mark.parametrize("norm", NORMS)
@given(shape=shapes(), batch=batches, time=st.integers(1, 12), seed=seeds, size=sizes)
def test_a_neuron_with_a_norm_equals_lavas_through_training_and_evaluation(
    lava, norm, shape, batch, time, seed, size
):
    ours, theirs = alike(
        lava,
        lambda which: which.neuron.sigma_delta.Neuron(
            0.1, F.relu, norm=getattr(which.neuron.norm, norm)
        ),
        seed,
    )
    for step in range(3):
        x = analog((batch, *shape, time), seed + step, size) + size / 4
        assert torch.equal(ours(x), theirs(x))
        assert_same_state_dict(ours, theirs)
    ours.eval(), theirs.eval()
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.norm.bias, theirs.norm.bias)


@given(st.sampled_from([0.0, 0.3, 0.9]), shapes(), seeds)
def test_dropout_leaves_out_lavas_messages(lava, rate, shape, seed):
    ours, theirs = alike(
        lava,
        lambda which: which.neuron.sigma_delta.Neuron(
            0.1, F.relu, dropout=which.neuron.Dropout(rate), persistent_state=True
        ),
        seed,
    )
    for step in range(2):
        mine, reference = run_alike(ours, theirs, analog((3, *shape, 9), seed + step, 1), seed)
        assert torch.equal(mine, reference)
        assert_same_states(ours, theirs)


@given(st.booleans(), shapes(), calls, seeds)
def test_the_decoder_alone_sums_as_lavas(lava, persistent, shape, calls, seed):
    ours, theirs = alike(lava, lambda which: which.dendrite.Sigma(persistent), 0)
    for step, (batch, time) in enumerate(calls):
        x = analog((batch, *shape, time), seed + step, 1)
        assert torch.equal(ours(x), theirs(x))
        if persistent:
            assert torch.equal(ours.pre_state, theirs.pre_state)
    assert ours.device_params == theirs.device_params


@given(st.sampled_from([1, 3, 16, 64]), thresholds)
def test_device_parameters_are_lavas_and_lead_back(lava, scale, threshold):
    ours, theirs = pair(lava, threshold=threshold, activation=F.relu, scale=scale)
    x = torch.zeros(1, 1, 1)
    ours(x), theirs(x)
    assert ours.device_params == theirs.device_params
    for name in ("scale", "w_scale", "s_scale", "p_scale", "weight_exponent", "v_th_mant"):
        assert getattr(ours, name) == getattr(theirs, name), name
    back = slayer.neuron.sigma_delta.neuron_params(ours.device_params, scale)
    assert back == lava.neuron.sigma_delta.neuron_params(ours.device_params, scale)
    again = Neuron(**back, activation=F.relu, scale=scale)
    again(x)
    assert again.device_params == ours.device_params


@given(st.integers(0, 1 << 16))
def test_a_files_threshold_is_the_one_it_runs_with_at_any_scale(lava, steps):
    # 2.37 * 100 is 236.99998 in float32, which lava cuts to 236 (docs/numerics.md)
    ours, theirs = pair(lava, threshold=(steps + 0.5) / 100, activation=F.relu, scale=100)
    x = torch.zeros(1, 1, 1)
    ours(x), theirs(x)
    assert torch.equal(ours.threshold, theirs.threshold)
    assert ours.device_params["vThMant"] == steps
    assert theirs.device_params["vThMant"] in (steps, steps - 1)
