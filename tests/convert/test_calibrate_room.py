"""What calibration leaves room for: a step's states in 24 bits, and weights that Lava keeps."""

import warnings

import pytest
import torch
import torch.nn as nn
from hypothesis import given, strategies as st
from spikingjelly.activation_based import neuron

import lava_bridge
from lava_bridge import to_slayer
from lava_bridge.convert import FloatLayer, calibrate
from lava_bridge.convert.build import build_blocks
from lava_bridge.netx.weights import cut, spread

from .nets import spikes
from .test_calibrate import NODES, STATE_BOUND, if_node, lif_node, linear, single


@given(
    channels=st.integers(1, 4),
    kind=st.sampled_from(["pooled", "dense", "conv", "spread"]),
    node=NODES | st.none(),
    biased=st.booleans(),
    seed=st.integers(0, 999),
)
def test_channels_that_spike_all_or_none_keep_a_step_within_24_bits(
    channels, kind, node, biased, seed
):
    torch.manual_seed(seed)
    side, layers = 40, [FloatLayer("conv", nn.Conv2d(1, channels, 1), if_node())]
    if kind in ("pooled", "dense"):
        each = torch.randn(3, channels, 1 if kind == "pooled" else side**2)
        weight = each.expand(-1, -1, side**2).flatten(1)
        layers += [FloatLayer("flat", nn.Flatten(), None), *single(linear(weight), node)]
    else:
        made = nn.Conv2d if kind == "conv" else nn.ConvTranspose2d
        layers += [FloatLayer("2", made(channels, 3, side), node)]
        with torch.no_grad():
            layers[-1].synapse.weight.abs_()
    synapse = layers[-1].synapse
    synapse.bias = nn.Parameter(torch.randn(3) * synapse.weight.std()) if biased else None
    factor = calibrate(layers).factors[-1]
    combined = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * channels).reshape(-1, channels)
    x = combined[:, :, None, None].expand(-1, -1, side, side)
    if kind in ("pooled", "dense"):
        x = x.flatten(1)
    synapse.weight.data = lava_bridge.exchange.quantize_8bit(synapse.weight * factor, 64)
    synapse.bias = None
    assert synapse(x).abs().max() < STATE_BOUND


def test_weights_on_the_grid_of_an_if_node_leave_its_states_all_the_room():
    weight = torch.tensor([[-2.0, 1.0, 3.0]]) / 64
    for threshold, least in ((1.0, 2), (1 / 400, 8)):
        (choice,) = calibrate(single(linear(weight), if_node(threshold))).layers
        assert (choice.limit, choice.factor) == ("exact", pytest.approx(least))
    (leaky,) = calibrate(single(linear(weight), lif_node())).layers
    assert (leaky.limit, leaky.factor > 80) == ("exact", True)


@pytest.mark.parametrize("node", [if_node, lif_node])
@pytest.mark.parametrize(
    ("weight", "threshold", "limit"),
    [([2, -4], 3000.0, "17-bit threshold"), ([254, 2], 1 / 400, "threshold of 1")],
)
def test_weights_on_the_grid_do_not_stay_on_it_where_the_threshold_would_leave_its_own(
    weight, threshold, limit, node
):
    (choice,) = calibrate(single(linear(torch.tensor([weight]) / 64), node(threshold))).layers
    assert choice.limit == limit
    assert 1 <= choice.threshold < 1 << 17


def test_states_of_many_inputs_leave_a_low_threshold_at_1():
    (choice,) = calibrate(single(linear(torch.ones(1, 20000)), if_node(1 / 50))).layers
    assert (choice.limit, choice.threshold) == ("24-bit state", 1)


def test_a_bias_takes_its_part_of_the_24_bits_of_a_last_layers_voltage():
    made = [linear(torch.ones(1, 20000), torch.tensor([b])) for b in (0.0, 700.0)]
    without, biased = (calibrate(single(synapse, None)).layers[0] for synapse in made)
    assert without.limit == biased.limit == "24-bit state"
    assert biased.factor < 0.98 * without.factor


@pytest.mark.parametrize(("node", "steps"), [(if_node(), 5), (lif_node(), None)])
def test_the_table_says_how_many_steps_of_inhibition_an_if_node_holds(node, steps):
    found = calibrate(single(linear(torch.full((2, 100), -0.731)), node))
    # 100 weights of -254 in a step; 24 bits hold 131071 of their units.
    assert [choice.steps for choice in found.layers] == [steps]
    assert found.rows[0][found.columns.index("steps held")] == ("-" if steps is None else "5")


@given(
    weight=st.one_of(
        st.lists(st.floats(-1, 0), min_size=1, max_size=6),
        st.lists(st.integers(-16, 0).map(lambda n: n / 64), min_size=1, max_size=6),
        st.just([]),
        st.lists(st.sampled_from([-1.0, -0.998, -0.5, 0.001, 0.003]), min_size=1, max_size=6),
    ),
    size=st.floats(-4, 1),
    node=NODES | st.none(),
    bias=st.none() | st.floats(-2.0, 2.0),
    data=st.booleans(),
)
def test_lava_runs_the_weights_that_are_chosen_as_they_are_if_none_is_above_0(
    weight, size, node, bias, data
):
    made = linear(10**size * torch.tensor([weight]), None if bias is None else torch.tensor([bias]))
    batch = spikes(6, 2, len(weight)) if data and weight else None
    (choice,) = calibrate(layers := single(made, node), batch).layers
    (block,) = build_blocks(layers, None, factors=[choice.factor])
    held = block.synapse.pre_hook_fx(block.synapse.weight, descale=True)
    whole = held.detach().numpy().astype(int)
    assert choice.factor > 0
    if not weight:
        return
    shifted = spread(whole)
    runs = cut(shifted.weight, shifted.bits) >> shifted.shift
    # With so few levels there is no other factor near: the bias or the threshold bounds it.
    assert (runs == whole).all() or whole.min() in (-2, -4) or choice.limit == "threshold of 1"


@pytest.mark.parametrize("by", ["weights", "data"])
def test_a_last_layer_without_a_positive_weight_is_exact_as_integers(by, tmp_path):
    net = nn.Sequential(nn.Linear(3, 4), neuron.LIFNode(v_threshold=0.1), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.abs_()
        net[2].weight.copy_(-torch.arange(1.0, 9.0).reshape(2, 4) / 9)
    x = spikes(9, 2, 3)
    blocks = lava_bridge.to_slayer(net, (3,), calibrate="weights" if by == "weights" else x)
    lava_bridge.export_hdf5(blocks, tmp_path / "n.net")
    report = lava_bridge.check_equivalence(blocks, tmp_path / "n.net", x, integers=True)
    assert report.ok, str(report)
    assert all(part.fired_b for part in report.layers)


def test_a_layer_without_a_positive_weight_is_clipped_to_what_lava_keeps():
    torch.manual_seed(0)
    few_large = -0.1 * torch.rand(2000, 100)
    few_large[:2, 0] = -0.2
    # Of a layer with a positive weight the clip point is the same, but not what is clipped to.
    one_positive = few_large.clone()
    one_positive[0, 1] = 0.05
    found = []
    for weight in (few_large, one_positive):
        net = [linear(weight, torch.full((2000,), 0.4)), if_node(0.3)]
        blocks = lava_bridge.to_slayer(net, (100,), calibrate="weights")
        whole = blocks[1].synapse.pre_hook_fx(blocks[1].synapse.weight, descale=True)
        found.append((blocks.report.calibration.layers[0].clip, int(whole.min())))
    (clip, lowest), (other_clip, other_lowest) = found
    assert (lowest, other_lowest) == (-254, -256)
    assert clip == pytest.approx(other_clip, abs=0.01)
    assert clip < 0.8


@pytest.mark.parametrize("by", ["weights", "data"])
def test_what_is_clipped_so_is_the_same_in_all_forms(by, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 40), neuron.IFNode(0.2), linear(-torch.rand(8, 40), torch.full((8,), 4.0)),
        neuron.LIFNode(2.0, v_threshold=0.3), nn.Linear(8, 2)
    )  # fmt: skip
    x = spikes(20, 4, 6)
    blocks = lava_bridge.to_slayer(net, (6,), calibrate="weights" if by == "weights" else x)
    path = tmp_path / "n.net"
    lava_bridge.export_hdf5(blocks, path)
    again = lava_bridge.to_slayer(net, (6,), calibrate=lava_bridge.load_hdf5(path))
    for other in (path, again, lava_bridge.to_spikingjelly(blocks)):
        report = lava_bridge.check_equivalence(blocks, other, x, integers=other is path)
        assert report.ok
        assert report.layers[1].fired_a


def test_a_linear_that_comes_first_knows_the_channels_of_planes():
    torch.manual_seed(3)
    # Every other channel inhibits: alone of channels that spike all or none large sums come.
    signs = torch.tensor([1.0, -1.0]).repeat_interleave(100).repeat(4)
    first = linear(signs * (torch.rand(4, 800) + 0.5), torch.zeros(4))
    node = lif_node(20.0, 6.0)

    def factor(*layers, shape):
        blocks = lava_bridge.to_slayer([*layers, first, node], shape, calibrate="weights")
        return blocks.report.calibration.layers[-1].factor

    copied = nn.Conv2d(8, 8, 1, groups=8, bias=False)
    known = factor(nn.Flatten(), shape=(8, 10, 10))
    assert known == factor(copied, if_node(0.1), nn.Flatten(), shape=(8, 10, 10))
    flat = factor(shape=(800,))
    assert flat == factor(nn.Flatten(), shape=(1, 20, 40))
    assert flat > 1.1 * known
    assert calibrate(single(first, node), channels=8).factors == [known]


def test_weights_that_are_clipped_since_a_threshold_would_vanish_are_warned_of():
    net = nn.Sequential(nn.Linear(20, 10), neuron.IFNode(0.3, step_mode="m"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_slayer(net, (20,), calibrate="weights")
    for parameter in net.parameters():
        parameter.data *= 1000
    with pytest.warns(UserWarning, match=r"0 \(Linear\): \d\d% of its weights are clipped, since"):
        to_slayer(net, (20,), calibrate="weights")


@pytest.mark.parametrize("weights", [[0.001, 0.015], [0.01, 0.01], [-0.01, 0.01]])
def test_weights_of_a_small_layer_that_all_become_0_are_warned_of(weights):
    net = nn.Sequential(nn.Linear(2, 1, bias=False), neuron.IFNode(0.02, step_mode="m"))
    net[0].weight.data = torch.tensor([weights])
    with pytest.warns(UserWarning, match="are rounded to 1 of the 256 levels of 8 bits"):
        blocks = to_slayer(net, (2,))
    assert not blocks[1].synapse.pre_hook_fx(blocks[1].synapse.weight).any()


def test_levels_are_those_that_the_weights_are_rounded_to():
    net = nn.Sequential(nn.Linear(100, 3, bias=False), neuron.IFNode(step_mode="m"))
    net[0].weight.data = torch.linspace(-0.05, 0.05, 300).reshape(3, 100)
    with pytest.warns(UserWarning, match="are rounded to 5 of the 256 levels of 8 bits"):
        to_slayer(net, (100,))
    choice = to_slayer(net, (100,), calibrate="weights").report.calibration.layers[0]
    assert choice.levels_before == 5


@pytest.mark.parametrize("weights", [[0.7], [1.0, 1.0], [-0.7, -0.7]])
def test_equal_weights_that_8_bits_hold_about_as_well_are_not_warned_of(weights):
    net = nn.Sequential(nn.Linear(len(weights), 1, bias=False), neuron.IFNode(step_mode="m"))
    net[0].weight.data = torch.tensor([weights])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_slayer(net, (len(weights),))
