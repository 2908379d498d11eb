"""The norm: SpikingJelly's and lava's values, and slayer's place for it in the neuron."""

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import exchange, slayer

from .strategies import (
    CubaLIFNode,
    assert_close,
    bounded_sequence,
    decays,
    lava_neuron,
    run_steps,
    seeds,
    sequence,
    thresholds,
)

momenta = st.sampled_from([0.1, 0.5, 1.0])
image_sizes = st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(1, 3), st.integers(1, 3))
exponents = st.integers(0, 4)
# From far below to far above what the exponent may be.
spreads = st.sampled_from([0.01, 0.4, 1.0, 7.0, 500.0])


def quantiser(x, descale=False):
    return exchange.quantize_8bit(x, 64, descale)


@given(image_sizes, momenta, exponents, spreads, seeds, st.booleans())
def test_values_and_running_statistics_are_spikingjellys_and_lavas(
    sj, lava, size, momentum, bits, spread, seed, quantised
):
    channels = size[1]
    hook = quantiser if quantised else (lambda x, descale=False: x)
    arguments = {
        "num_features": channels,
        "eps": 1e-4,
        "momentum": momentum,
        "weight_exp_bits": bits,
        "pre_hook_fx": hook,
    }
    mine = exchange.BatchNorm2d(**arguments)
    theirs = sj.BatchNorm2d(**arguments)
    lavas = lava.neuron.norm.WgtScaleBatchNorm(**arguments)
    for step in range(4):
        for norm in (mine, theirs, lavas):
            norm.train(step < 3)
        x = sequence(size, seed + step, spread) + spread
        y = mine(x)
        for norm in (theirs, lavas):
            assert_close(y, norm(x), rtol=1e-5)
            assert_close(mine.running_mean, norm.running_mean, rtol=1e-6)
            assert_close(mine.running_var, norm.running_var, rtol=1e-6)


@given(image_sizes, seeds, spreads)
def test_a_norm_that_does_not_track_uses_its_running_statistics_always(sj, size, seed, spread):
    mine, theirs = (
        which.BatchNorm2d(size[1], track_running_stats=False) for which in (exchange, sj)
    )
    for norm in (mine, theirs):
        norm.train()
        norm.running_mean.fill_(0.5)
        norm.running_var.fill_(3.0)
    x = sequence(size, seed, spread)
    assert torch.equal(mine(x), theirs(x))
    assert torch.equal(mine(x), (x - 0.5) / 2)
    assert mine.running_mean.tolist() == [0.5] * size[1]


def test_whether_it_tracks_may_be_set_later_as_in_spikingjelly(sj):
    x = sequence((2, 3, 4, 4), 1, 2.0)
    for which in (exchange, sj):
        norm = which.BatchNorm2d(3)
        assert norm.track_running_stats
        norm.track_running_stats = False
        norm(x)
        assert not norm.running_mean.any()
        norm.track_running_stats = True
        norm(x)
        assert norm.running_mean.all()


@pytest.mark.parametrize("kind", ["BatchNorm2d", "MeanOnlyBatchNorm", "WgtScaleBatchNorm"])
def test_an_empty_batch_in_training_leaves_the_running_statistics(kind):
    norm = getattr(exchange, kind, None) or getattr(slayer.neuron.norm, kind)
    norm = norm(3)
    norm(sequence((2, 3, 4, 4), 1, 2.0))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    assert norm(torch.ones(0, 3, 4, 4)).shape == (0, 3, 4, 4)
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])


@given(image_sizes, seeds, st.booleans())
def test_gradients_in_training_are_spikingjellys(sj, size, seed, quantised):
    grads = []
    for which in (exchange, sj):
        norm = which.BatchNorm2d(size[1], pre_hook_fx=quantiser if quantised else lambda x: x)
        x = sequence(size, seed, 1.0, torch.float64).requires_grad_()
        norm(x).backward(sequence(size, seed + 1, 1.0, torch.float64))
        grads.append(x.grad)
    assert_close(*grads)


@given(seeds, st.booleans(), st.booleans())
def test_to_lava_gives_a_norm_of_the_same_values_and_a_state_of_its_own(lava, seed, track, train):
    norm = exchange.BatchNorm2d(3, 1e-4, 0.3, track, 2, quantiser)
    norm.running_mean = sequence((3,), seed, 1.0)
    norm.running_var = sequence((1,), seed, 2.0).abs()
    norm.train(train)
    for which in (lava, slayer):
        made = norm.to_lava(slayer=which)
        assert type(made) is which.neuron.norm.WgtScaleBatchNorm
        assert made.state_dict().keys() == norm.state_dict().keys()
        for name, value in norm.state_dict().items():
            assert torch.equal(made.state_dict()[name], value)
        x = sequence((2, 3, 4, 2), seed, 1.0)
        before = norm.running_mean.clone()
        y = made(x)
        assert torch.equal(norm.running_mean, before)
        reference = exchange.BatchNorm2d(3, 1e-4, 0.3, track, 2, quantiser)
        reference.load_state_dict(norm.state_dict())
        reference.train(train)
        assert_close(y, reference(x))
        assert_close(made.running_mean, reference.running_mean)
        assert made.bias.shape == (3,)
        assert torch.equal(made.bias, reference.bias)


def test_to_lava_is_this_librarys_by_default():
    norm = exchange.BatchNorm2d(3).to_lava()
    assert type(norm) is slayer.neuron.norm.WgtScaleBatchNorm


# In the neuron ----------------------------------------------------------------------------------


@st.composite
def normed(draw):
    """The arguments of a node, and the running statistics of its norm, that make it fire."""
    threshold = draw(thresholds(64))
    mean = draw(st.lists(st.floats(-1, 1), min_size=3, max_size=3))
    return {
        "current_decay": draw(decays),
        "voltage_decay": draw(decays),
        "v_threshold": threshold,
        "scale": 64,
    }, {
        "running_mean": torch.tensor(mean) * threshold,
        "running_var": torch.tensor([draw(st.sampled_from([0.0, 0.2, 1.0, 30.0]))]),
    }


def with_norm(node_class, norm_class, params, statistics, train, **options):
    node = node_class(**params, norm=norm_class(3), **options)
    node.norm.load_state_dict(statistics)
    return node.train(train)


def lava_with_norm(which, params, statistics, train, **options):
    neuron = lava_neuron(which, params, norm=which.neuron.norm.WgtScaleBatchNorm, **options)
    neuron.norm.num_features = 3
    neuron.norm.running_mean = statistics["running_mean"].clone()
    neuron.norm.running_var = statistics["running_var"].clone()
    return neuron.train(train)


@pytest.mark.parametrize("train", [False, True])
@given(drawn=normed(), seed=seeds, spatial=st.sampled_from([(), (2, 2)]), batch=st.integers(1, 3))
def test_a_node_with_norm_spikes_as_slayers_neuron(lava, train, drawn, seed, spatial, batch):
    params, statistics = drawn
    x_seq = bounded_sequence(params, (9, batch, 3, *spatial), seed, 1.5)
    node = with_norm(CubaLIFNode, exchange.BatchNorm2d, params, statistics, train, step_mode="m")
    mine = node(x_seq)
    for which in (lava, slayer):
        theirs = lava_with_norm(which, params, statistics, train)
        # lava views its input in training
        reference = theirs(x_seq.movedim(0, -1).contiguous()).movedim(-1, 0)
        assert torch.equal(mine, reference), which.__name__
        assert_close(node.norm.running_mean, theirs.norm.running_mean)
        assert_close(node.norm.running_var, theirs.norm.running_var)
    assert torch.equal(node.norm.running_mean, statistics["running_mean"]) is not train


@given(drawn=normed(), seed=seeds, parts=st.lists(st.integers(1, 6), min_size=2, max_size=3))
def test_in_evaluation_single_steps_and_split_runs_with_norm_are_one_long_run(drawn, seed, parts):
    params, statistics = drawn
    x_seq = bounded_sequence(params, (sum(parts), 2, 3, 2, 2), seed, 1.5)
    whole, split, single = (
        with_norm(
            CubaLIFNode,
            exchange.BatchNorm2d,
            params,
            statistics,
            False,
            step_mode=step_mode,
            store_i_seq=True,
        )
        for step_mode in "mms"
    )
    y = whole(x_seq)
    assert torch.equal(torch.cat([split(part) for part in x_seq.split(parts)]), y)
    assert torch.equal(run_steps(single, x_seq), y)
    for node in (split, single):
        assert torch.equal(node.current_state, whole.current_state)
        assert torch.equal(node.voltage_state, whole.voltage_state)
    # the current is the one before the norm, as without a norm
    plain = CubaLIFNode(**params, step_mode="m", store_i_seq=True)
    plain(x_seq)
    assert torch.equal(whole.i_seq, plain.i_seq)
    assert torch.equal(whole.current_state, plain.current_state)


EXAMPLE = (
    {"current_decay": 0.3, "voltage_decay": 0.1, "v_threshold": 1.0, "scale": 64},
    {"running_mean": torch.tensor([0.2, -0.1, 0.3]), "running_var": torch.tensor([0.2])},
)


def test_spikingjelly_feeds_the_normalised_current_back_into_the_current(sj, lava):
    x_seq = sequence((32, 4, 3, 4, 4), 1, 0.7)
    theirs = with_norm(sj.CubaLIFNode, sj.BatchNorm2d, *EXAMPLE, False, step_mode="m")(x_seq)
    reference = lava_with_norm(lava, *EXAMPLE, False)(x_seq.movedim(0, -1)).movedim(-1, 0)
    mine = with_norm(CubaLIFNode, exchange.BatchNorm2d, *EXAMPLE, False, step_mode="m")(x_seq)
    assert torch.equal(mine, reference)
    assert (theirs != reference).float().mean() > 0.05


def test_lava_too_does_so_from_run_to_run_where_its_state_is_persistent(lava):
    x_seq = sequence((32, 4, 3, 4, 4), 1, 0.7)
    x = x_seq.movedim(0, -1)
    whole = lava_with_norm(lava, *EXAMPLE, False)(x)
    split = lava_with_norm(lava, *EXAMPLE, False, persistent_state=True)
    assert not torch.equal(torch.cat([split(part) for part in x.split(16, -1)], -1), whole)
    node = with_norm(CubaLIFNode, exchange.BatchNorm2d, *EXAMPLE, False, step_mode="m")
    mine = torch.cat([node(part) for part in x_seq.split(16)])
    assert torch.equal(mine.movedim(0, -1), whole)


def test_the_norm_takes_the_nodes_quantiser():
    node = CubaLIFNode(0.3, 0.1, scale=16, norm=exchange.BatchNorm2d(3))
    x = sequence((5,), 1, 1.0)
    assert torch.equal(node.norm.pre_hook_fx(x), exchange.quantize_8bit(x, 16))
