"""Norms and dropout are lava's: values, running statistics, gradients; alone and in a neuron."""

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import slayer

from .strategies import (
    NORMS,
    alike,
    analog,
    assert_close,
    assert_same_gradients,
    assert_same_state_dict,
    batches,
    neurons,
    run_alike,
    seeds,
    shapes,
    thorough,
)

norms = st.sampled_from(NORMS)
rates = st.sampled_from([0.0, 0.1, 0.5, 0.9])
sizes = st.sampled_from([0.05, 1.0, 30.0])


@given(
    norms,
    st.sampled_from([(), (5,), (2, 3), (2, 3, 4)]),
    batches,
    st.integers(1, 4),
    seeds,
    sizes,
    st.sampled_from([0.1, 0.5, 1.0]),
    st.booleans(),
)
def test_a_norm_alone_gives_lavas_values_and_statistics(
    lava, name, rest, batch, channels, seed, size, momentum, known
):
    features = channels if known else None
    ours, theirs = alike(
        lava, lambda which: getattr(which.neuron.norm, name)(features, momentum), seed
    )
    for step in range(3):
        x = analog((batch, channels, *rest), seed + step, size) + size
        assert torch.equal(ours(x), theirs(x))
        assert_same_state_dict(ours, theirs)
    ours.eval(), theirs.eval()
    assert torch.equal(ours(x), theirs(x))
    assert ours.num_features == theirs.num_features == channels


@given(norms, st.sampled_from([(5,), (2, 3), (2, 3, 4)]), st.integers(1, 4), seeds, st.booleans())
def test_a_norms_gradients_are_lavas_in_training_and_in_evaluation(
    lava, name, rest, channels, seed, training
):
    ours, theirs = alike(lava, lambda which: getattr(which.neuron.norm, name)(), seed)
    x = analog((2, channels, *rest), seed, 1, torch.float64)
    assert torch.equal(ours(x), theirs(x))
    ours.train(training), theirs.train(training)
    assert_same_gradients(ours, theirs, x, seed + 1)


@given(norms, seeds, sizes)
def test_a_norm_that_does_not_update_keeps_its_statistics(lava, name, seed, size):
    ours, theirs = alike(lava, lambda which: getattr(which.neuron.norm, name)(), seed)
    x = analog((2, 3, 4), seed, size) + 1
    ours(x), theirs(x)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    ours.update = theirs.update = False
    assert torch.equal(ours(2 * x), theirs(2 * x))
    assert_same_state_dict(ours, theirs)
    for key, value in ours.state_dict().items():
        assert torch.equal(value, before[key])


@thorough
@given(neurons(), norms, shapes(), batches, st.integers(1, 20), seeds, st.sampled_from([0.3, 1, 4]))
def test_a_neuron_with_a_norm_equals_lavas_through_training_and_evaluation(
    lava, params, name, shape, batch, time, seed, size
):
    ours, theirs = alike(
        lava,
        lambda which: which.neuron.cuba.Neuron(**params, norm=getattr(which.neuron.norm, name)),
        seed,
    )
    for step in range(3):
        x = analog((batch, *shape, time), seed + step, size * params["threshold"])
        for mine, reference in zip(ours.dynamics(x), theirs.dynamics(x), strict=True):
            assert torch.equal(mine, reference)
        assert_same_state_dict(ours, theirs)
    assert_chip_values_equal(ours.norm, theirs.norm)
    ours.eval(), theirs.eval()
    current, voltage = ours.dynamics(x)
    assert torch.equal(current, theirs.dynamics(x)[0])
    assert torch.equal(voltage, theirs.dynamics(x)[1])
    assert torch.equal(ours(x), theirs(x))


def assert_chip_values_equal(mine, reference):
    """The bias, integers; and the exponent, where the norm has one."""
    assert torch.equal(mine.bias, reference.bias)
    assert torch.equal(mine.bias, mine.bias.round())
    assert hasattr(mine, "weight_exp") == hasattr(reference, "weight_exp")
    if hasattr(mine, "weight_exp"):
        assert torch.equal(mine.weight_exp, reference.weight_exp)


@given(norms, st.floats(0, 3), seeds, shapes(), st.booleans())
def test_gradients_through_a_neuron_with_a_norm_are_lavas(lava, name, size, seed, shape, training):
    ours, theirs = alike(
        lava,
        lambda which: which.neuron.cuba.Neuron(
            0.7, 0.2, 0.1, tau_grad=0.01, requires_grad=True, norm=getattr(which.neuron.norm, name)
        ),
        seed,
    )
    x = analog((2, *shape, 9), seed, size, torch.float64)
    ours(x), theirs(x)
    ours.train(training), theirs.train(training)
    assert_same_gradients(ours, theirs, x, seed + 1)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_norm_that_has_not_run_loads_trained_statistics(lava, name, channels):
    trained = getattr(lava.neuron.norm, name)()
    x = analog((2, channels, 4), 0, 3) + 1
    trained(x)
    ours = getattr(slayer.neuron.norm, name)()
    ours.load_state_dict(trained.state_dict(), strict=True)
    assert torch.equal(ours.eval()(x), trained.eval()(x))
    # and the other way, into one of lava's that has its channels
    theirs = getattr(lava.neuron.norm, name)(channels)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(theirs.eval()(x), ours(x))


@pytest.mark.parametrize("name", NORMS)
def test_reset_parameters_clears_the_statistics(name):
    norm = getattr(slayer.neuron.norm, name)()
    norm(analog((2, 3, 4), 0, 3) + 1)
    assert all(value.abs().max() > 0 for value in norm.state_dict().values())
    norm.reset_parameters()
    assert all(torch.equal(v, torch.zeros_like(v)) for v in norm.state_dict().values())


@given(st.floats(0, 20), st.integers(1, 5))
def test_the_scale_is_a_power_of_two_within_its_bits(lava, var, bits):
    ours, theirs = alike(
        lava, lambda which: which.neuron.norm.WgtScaleBatchNorm(weight_exp_bits=bits), 0
    )
    std = ours.std(torch.tensor([var]))
    assert torch.equal(std, theirs.std(torch.tensor([var])))
    assert std.item() in [2.0**e for e in range(-bits, bits + 1)]


@given(rates, shapes(), batches, st.integers(1, 20), seeds, st.booleans())
def test_dropout_drops_lavas_neurons_for_the_whole_time(
    lava, rate, shape, batch, time, seed, training
):
    ours, theirs = alike(lava, lambda which: which.neuron.Dropout(rate), seed)
    ours.train(training), theirs.train(training)
    x = analog((batch, *shape, time), seed, 1)
    mine, reference = run_alike(ours, theirs, x, seed)
    assert torch.equal(mine, reference)
    if not training:
        assert torch.equal(mine, x)
        return
    kept = (mine != 0).flatten(0, -2)
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert_close(mine[mine != 0], x[mine != 0] / (1 - rate), rtol=1e-6)


@given(neurons(), rates, shapes(), batches, st.integers(1, 12), seeds, st.booleans())
def test_a_neuron_with_dropout_equals_lavas_under_the_same_seed(
    lava, params, rate, shape, batch, time, seed, persistent
):
    ours, theirs = alike(
        lava,
        lambda which: which.neuron.cuba.Neuron(
            **params, persistent_state=persistent, dropout=which.neuron.Dropout(rate)
        ),
        seed,
    )
    for step in range(2):
        x = analog((batch, *shape, time), seed + step, 4 * params["threshold"])
        mine, reference = run_alike(ours, theirs, x, seed + step)
        assert torch.equal(mine, reference)
    # what is dropped on the way out has fired all the same
    state = ours.voltage_state.expand_as(theirs.voltage_state)  # one number where none is kept
    assert torch.equal(state, theirs.voltage_state)


def test_dropout_takes_no_batch_and_leaves_the_order_in_memory():
    dropout = slayer.neuron.Dropout(0.5)
    assert dropout(torch.rand(0, 3, 4)).shape == (0, 3, 4)
    x = torch.rand(5, 2, 3, 3, 3).movedim(0, -1)  # a view of [T, N, *]
    assert dropout(x).stride() == x.stride()
    kept = x.clone()
    assert slayer.neuron.Dropout(0.5, inplace=True)(kept) is kept
    assert not torch.equal(kept, x)
