"""Nets that are quantised already, converted once more: what they compute stays as it is."""

import warnings

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings, strategies as st
from spikingjelly.activation_based import functional, layer, neuron

import lava_bridge
from lava_bridge import ConversionError, check_equivalence, to_slayer, to_spikingjelly
from lava_bridge.convert import rewrite
from lava_bridge.exchange import BatchNorm2d, BlockContainer, CubaLIFNode, quantize_8bit
from lava_bridge.slayer.neuron.norm import ChannelBias

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


def averaged(kernel, container, threshold=0.7, decay=0.0, bias=True):
    """A quantised neuron, of a container or after a plain layer, behind a mean of windows."""
    torch.manual_seed(1)
    conv = layer.Conv2d(2, 3, 2, bias=bias, step_mode="m")
    conv.weight.data = quantize_8bit(3 * conv.weight.data, 64)
    if bias:
        conv.bias.data = torch.tensor([0.25, -0.125, 0.171875])
    node = CubaLIFNode(1.0, decay, threshold, step_mode="m")
    behind = [BlockContainer(conv, node, "m")] if container else [conv, node]
    return nn.Sequential(layer.AvgPool2d(kernel, step_mode="m"), *behind)


@pytest.mark.parametrize("container", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [2, 4])
@given(threshold=st.floats(0.1, 1.5))
def test_a_quantised_neuron_behind_a_mean_fires_as_before(kernel, bias, container, threshold):
    # Its threshold and its bias lie on the grid before they are multiplied, not after.
    net = averaged(kernel, container, threshold, bias=bias)
    x = spikes(12, 2, 2, 12, 12)
    blocks = to_slayer(net, (2, 12, 12), calibrate="weights")
    assert torch.equal(lava_bridge.NXT_to_TNX(blocks(lava_bridge.TNX_to_NXT(x))), net(x))


def test_a_container_with_a_bias_behind_a_mean_is_the_same_in_all_forms(tmp_path):
    net, x = averaged(2, True, 0.45), spikes(12, 2, 2, 12, 12)
    blocks = to_slayer(net, (2, 12, 12))
    lava_bridge.export_hdf5(blocks, tmp_path / "n.net")
    for other in (net, to_spikingjelly(blocks)):
        report = check_equivalence(other, tmp_path / "n.net", x, integers=True)
        assert report.ok, str(report)
        assert report.layers[0].fired_a > 100
    text = str(blocks.report)
    assert "threshold times 4, states rounded as many times finer" in text
    assert "anew" not in text


def test_a_norm_of_a_neuron_behind_a_mean_stays_refused():
    node = CubaLIFNode(1.0, 0.5, norm=BatchNorm2d(3), step_mode="m")
    with pytest.raises(ConversionError, match=r"2 \(CubaLIFNode\): has a norm, but the pooling"):
        to_slayer([nn.AvgPool2d(2), nn.Conv2d(2, 3, 2, bias=False), node], (2, 8, 8))


@pytest.mark.parametrize("bias", [True, False])
def test_a_container_behind_a_norm_is_said_to_be_rounded_anew(bias):
    torch.manual_seed(2)
    norm = nn.BatchNorm2d(2)
    norm.running_mean.uniform_(-0.2, 0.2)
    norm.weight.data.uniform_(0.5, 1.5)
    conv = nn.Conv2d(2, 3, 2, bias=bias)
    conv.weight.data.mul_(3)
    net = nn.Sequential(
        layer.SeqToANNContainer(norm), BlockContainer(conv, neuron.IFNode(0.6), "m")
    ).eval()
    x = spikes(12, 2, 2, 6, 6)
    wanted = net(x)
    assert torch.equal(rewrite(net, (2, 6, 6))(x), wanted)  # in floats
    assert wanted.any()
    report = to_slayer(net, (2, 6, 6)).report
    ((title, _, rows),) = report.tables
    assert title == "What was rewritten, exactly but for the rounding to 8 bits"
    assert any(phrase.endswith("as one layer, its 8 bits rounded anew") for _, phrase in rows)
    # A norm by powers of 2 leaves the weights on their grid.
    norm.eps = 0.0
    norm.running_mean.zero_()
    norm.weight.data.copy_(torch.tensor([1.0, 2.0]))
    conv.weight.data.mul_(0.3)
    assert "anew" not in str(to_slayer(net, (2, 6, 6)).report)


def test_sums_of_a_container_behind_a_mean_are_said_to_be_rounded_anew():
    torch.manual_seed(2)
    container = BlockContainer(nn.Linear(18, 4), None, "m")
    net = [nn.AvgPool2d(2), nn.Flatten(), container]
    with pytest.warns(UserWarning, match="are rounded to"):
        report = to_slayer(net, (2, 6, 6)).report
    assert "sums divided by 4, its 8 bits rounded anew" in str(report)


def test_weights_of_containers_are_clipped_with_a_word_only_where_they_are_not_their_own():
    heavy = nn.Conv2d(1, 2, 3, bias=False)
    heavy.weight.data.fill_(6.0)
    container = BlockContainer(heavy, neuron.IFNode(), "m")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_slayer([container], (1, 8, 8))  # it clips itself
    for calibrate in (None, "weights"):
        with pytest.warns(UserWarning, match="24 of 32 weights lie outside .* together$"):
            to_slayer([nn.AvgPool2d(2, 1), container], (1, 8, 8), calibrate=calibrate)


def test_a_twin_that_was_trained_on_is_rewritten_and_calibrated_as_what_it_computes(net):
    twin = to_spikingjelly(to_slayer(net, (8,), calibrate="weights"))
    with torch.no_grad():
        for weight in twin.parameters():
            weight.add_(0.02 * torch.rand_like(weight))
        wanted = twin(X)
    functional.reset_net(twin)
    assert wanted.any()
    assert torch.equal(rewrite(twin, (8,))(X), wanted)
    choices = to_slayer(twin, (8,), calibrate=X).report.calibration.layers
    assert [choice.error for choice in choices] == [0.0, 0.0, 0.0]


def test_two_biases_that_are_not_one_are_refused():
    norm = nn.BatchNorm2d(2)
    norm.bias.data.fill_(0.5)
    for node in (
        CubaLIFNode(1.0, 0.5, norm=ChannelBias(4)),
        CubaLIFNode(0.5, 0.5, norm=ChannelBias(3)),
    ):
        with pytest.raises(ConversionError, match=r"2 \(CubaLIFNode\): has a bias, and its neuron"):
            to_slayer([norm.eval(), nn.Conv2d(2, 3, 2), node], (2, 6, 6))
