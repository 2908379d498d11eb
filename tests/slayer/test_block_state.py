"""Checkpoints of blocks load in both frameworks, also into a block that has not run yet."""

import pytest
import torch

from lava_bridge import slayer

from .cases import CASES, trained_pair
from .strategies import assert_same_state_dict

every_case = pytest.mark.parametrize("name", CASES)
with_feedback = pytest.mark.parametrize("name", ["KWTA", "Recurrent", "Recurrent per channel"])


def unlike(block):
    """Change all that a checkpoint holds, so that loading it has something to do."""
    for parameter in block.parameters():
        parameter.data.mul_(0.5).add_(0.25)
    for buffer_name, buffer in block.named_buffers():
        if "running" in buffer_name:
            buffer.add_(1)
    return block


@every_case
def test_a_trained_blocks_state_is_lavas_bit_for_bit(lava, name):
    ours, theirs = trained_pair(CASES[name], lava, 3)
    assert_same_state_dict(ours, theirs)


@every_case
def test_checkpoints_load_strictly_both_ways_after_a_first_forward(lava, name):
    case = CASES[name]
    ours, theirs = trained_pair(case, lava, 3)
    ours.load_state_dict(unlike(theirs).state_dict(), strict=True)
    assert_same_state_dict(ours, theirs)
    theirs.load_state_dict(unlike(ours).state_dict(), strict=True)
    assert_same_state_dict(ours, theirs)
    # a batch of another size, from rest
    x = case.input(9, batch=5)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs.eval()(x))


@every_case
def test_a_block_that_has_not_run_loads_lavas_trained_checkpoint(lava, name):
    case = CASES[name]
    _, theirs = trained_pair(case, lava, 3)
    unlike(theirs)
    torch.manual_seed(77)
    fresh = case.build(slayer)
    fresh.load_state_dict(theirs.state_dict(), strict=True)
    assert_same_state_dict(fresh, theirs)
    x = case.input(9, batch=5)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), theirs.eval()(x))
    assert_same_state_dict_but_feedback(fresh, theirs)


def assert_same_state_dict_but_feedback(fresh, theirs):
    """Running has drawn nothing anew: what was loaded is there still."""
    loaded = theirs.state_dict()
    for key, value in fresh.state_dict().items():
        if not key.endswith("spike_state"):
            assert torch.equal(value, loaded[key]), key


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("block", ["Dense", "Conv", "ConvT"])
def test_decays_delays_and_norm_per_channel_load_into_a_block_that_has_not_run(block, channels):
    case = CASES["Dense per channel with norm, weight norm and delay"]
    arguments = {"weight_scale": 3, "weight_norm": True, "delay": True}
    if block == "Dense":
        arguments.update(in_neurons=6, out_neurons=channels)
        shape = (6,)
    else:
        arguments.update(in_features=2, out_features=channels, kernel_size=2)
        shape = (2, 4, 5)
    case = type(case)(block, shape, arguments, case.neuron)
    trained, _ = case.built_and_run(slayer, 1, case.input(1))
    trained.delay.delay.data *= 5
    torch.manual_seed(2)
    fresh = case.build(slayer)
    fresh.load_state_dict(trained.state_dict(), strict=True)
    x = case.input(4, batch=3)
    assert torch.equal(fresh.eval()(x), trained.eval()(x))
    assert trained.neuron.current_decay.shape == (channels,)
    assert_same_state_dict(fresh, trained)
    assert_same_state_dict_but_feedback(fresh, trained)


def test_blocks_made_without_a_checkpoint_draw_their_own_values():
    case = CASES["Dense per channel with norm, weight norm and delay"]
    first, _ = case.built_and_run(slayer, 1, case.input(1))
    second, _ = case.built_and_run(slayer, 2, case.input(1))
    for key in ("neuron.current_decay", "neuron.voltage_decay", "delay.delay"):
        assert not torch.equal(first.state_dict()[key], second.state_dict()[key])


@with_feedback
def test_a_loaded_block_starts_from_rest_whatever_batch_it_was_trained_with(name):
    case = CASES[name]
    trained, _ = case.built_and_run(slayer, 1, case.input(1))
    assert trained.spike_state.shape == (2, 4)
    x = case.input(4, batch=2)
    runs = []
    for batch in (2, 3):
        block, _ = case.built_and_run(slayer, 1, case.input(5, batch=batch))
        torch.manual_seed(1)
        fresh = case.build(slayer)
        fresh.load_state_dict(block.state_dict(), strict=True)
        assert fresh.spike_state.abs().sum() == 0
        runs.append(fresh(x))
    assert torch.equal(*runs)


@with_feedback
def test_saving_leaves_the_running_feedback_alone(name):
    case = CASES[name]
    block, _ = case.built_and_run(slayer, 1, torch.ones(2, 6, 8))
    before = block.spike_state.clone()
    block.state_dict()
    assert torch.equal(block.spike_state, before)


def test_a_checkpoint_survives_a_file_without_pickled_code(tmp_path, lava):
    for name, case in CASES.items():
        trained, _ = case.built_and_run(slayer, 1, case.input(1))
        torch.save(trained.state_dict(), tmp_path / "block.pt")
        loaded = torch.load(tmp_path / "block.pt", weights_only=True)
        case.build(slayer).load_state_dict(loaded, strict=True)
        assert loaded.keys() == trained.state_dict().keys(), name


def test_a_net_draws_what_each_channel_has_in_lavas_order_under_one_seed(lava):
    """At the first forward, layer by layer: not when the blocks are made."""
    params = {"threshold": 0.7, "current_decay": (0.1, 0.4), "voltage_decay": 0.1}
    states = []
    for library in (slayer, lava):
        torch.manual_seed(5)
        block = library.block.cuba
        net = torch.nn.Sequential(
            block.Dense({**params, "shared_param": False}, 6, 5, delay=True),
            block.Dense({**params, "shared_param": False}, 5, 4, delay=True),
        )
        net(torch.ones(2, 6, 7))
        states.append(net.state_dict())
    ours, theirs = states
    assert sorted(ours) == sorted(theirs)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
