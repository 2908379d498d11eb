"""Nets that are quantised already, converted once more: what they compute stays as it is."""

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings, strategies as st
from spikingjelly.activation_based import functional, layer, neuron

import lava_bridge
from lava_bridge import ConversionError, check_equivalence, to_slayer, to_spikingjelly
from lava_bridge.convert import rewrite
from lava_bridge.exchange import BlockContainer

from .nets import spikes

X = spikes(12, 3, 8)


def factors(blocks):
    return [block.weight_factor for block in blocks if hasattr(block, "weight_factor")]


@pytest.fixture
def net():
    """A net that ends with sums, and the blocks that are calibrated to it."""
    torch.manual_seed(1)
    return nn.Sequential(
        layer.Linear(8, 16), neuron.IFNode(0.3), layer.Linear(16, 9),
        neuron.LIFNode(3.0, decay_input=False), layer.Linear(9, 5),
    )  # fmt: skip


@pytest.mark.parametrize("by", ["nothing", "weights", "data", "blocks", "other blocks"])
def test_a_twin_converted_again_says_the_same_with_the_same_factors(net, by, tmp_path):
    blocks = to_slayer(net, (8,), calibrate="weights")
    lava_bridge.export_hdf5(blocks, tmp_path / "n.net")
    twin = to_spikingjelly(lava_bridge.load_hdf5(tmp_path / "n.net"))
    calibrate = {
        "nothing": None, "weights": "weights", "data": X, "blocks": blocks,
        "other blocks": to_slayer(net, (8,)),
    }[by]  # fmt: skip
    again = to_slayer(twin, (8,), calibrate=calibrate)
    assert check_equivalence(twin, again, X).ok
    assert all(factor > 2 for factor in factors(blocks))
    assert factors(again) == factors(blocks)
    assert [container.to_lava_block().weight_factor for container in twin] == factors(blocks)


def test_a_twin_that_was_trained_on_is_not_rounded_anew(net):
    twin = to_spikingjelly(to_slayer(net, (8,), calibrate="weights"))
    with torch.no_grad():
        for weight in twin.parameters():
            weight.add_(0.003 * torch.rand_like(weight))
    for calibrate in (None, "weights", X):
        again = to_slayer(twin, (8,), calibrate=calibrate)
        assert check_equivalence(twin, again, X).ok
        twins = to_spikingjelly(again).state_dict().values()
        for old, new in zip(twin.state_dict().values(), twins, strict=True):
            assert torch.equal(old, new)  # what lies between two levels too


def test_the_blocks_of_a_twin_calibrate_the_net_that_it_comes_from(net):
    blocks = to_slayer(net, (8,), calibrate="weights")
    again = to_slayer(to_spikingjelly(blocks), (8,))
    assert check_equivalence(again, to_slayer(net, (8,), calibrate=again), X).ok


def test_a_calibration_of_the_float_net_is_refused_for_its_twin(net):
    blocks = to_slayer(net, (8,), calibrate="weights")
    with pytest.raises(ConversionError, match=r"for 0 \(Bl.*quantised already; give the") as e:
        to_slayer(to_spikingjelly(blocks), (8,), calibrate=blocks.report.calibration)
    assert "\n" not in str(e.value)


@settings(max_examples=20)
@given(seed=st.integers(0, 999), sums=st.booleans(), calibrate=st.sampled_from([None, "weights"]))
def test_containers_that_are_merged_with_poolings_keep_their_8_bits(seed, sums, calibrate):
    torch.manual_seed(seed)
    conv = nn.Conv2d(2, 3, 2, bias=False)
    net = nn.Sequential(
        layer.AvgPool2d(2, 1, step_mode="m"), BlockContainer(conv, neuron.IFNode(0.6), "m"),
        layer.AvgPool2d(2, 1, step_mode="m"), layer.Flatten(step_mode="m"),
        BlockContainer(nn.Linear(27, 4, bias=sums), None if sums else neuron.IFNode(0.3), "m"),
    )  # fmt: skip
    x = spikes(10, 2, 2, 6, 6, seed=seed)
    if not sums:
        assert check_equivalence(net, to_slayer(net, (2, 6, 6), calibrate=calibrate), x).ok
    functional.reset_net(net)
    wanted = net(x)
    assert torch.equal(rewrite(net, (2, 6, 6))(x), wanted)
