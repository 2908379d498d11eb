"""Layers with a bias, transposed, upsampling, or without a neuron: containers, blocks, files."""

import copy

import h5py
import pytest
import torch
import torch.nn as nn
from hypothesis import assume, given, strategies as st
from spikingjelly.activation_based import functional, neuron

from lava_bridge import ConversionError, check_equivalence, export_hdf5, load_hdf5, slayer
from lava_bridge.exchange import BlockContainer, NXT_to_TNX, SumPool2d, TNX_to_NXT
from lava_bridge.exchange.to_lava import block_of
from lava_bridge.netx import Network
from lava_bridge.slayer.neuron.norm import ChannelBias

from .strategies import CubaLIFNode, seeds, sequence, spikes

# Around the threshold, off the grid, odd, and at the ends of 13 bits.
biases = st.one_of(st.floats(-1, 1, width=32), st.sampled_from([-64.0, 4095 / 64, 3 / 64, 5.015]))
BOTH_MODES = pytest.mark.parametrize("step_mode", ["s", "m"])


@st.composite
def layers(draw):
    """A layer with a bias (an upsampling has none), and the shape of its input."""
    kind = draw(st.sampled_from(["linear", "conv", "transposed", "upsample"]))
    inputs, outputs = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    plane = draw(st.tuples(st.integers(2, 4), st.integers(2, 4)))
    if kind == "upsample":
        return nn.Upsample(scale_factor=draw(st.sampled_from([1, 2, (2, 3)]))), (inputs, *plane)
    if kind == "linear":
        layer, shape = nn.Linear(inputs, outputs), (inputs,)
    elif kind == "conv":
        layer, shape = nn.Conv2d(inputs, outputs, 3, padding=1), (inputs, *plane)
    else:
        groups = draw(st.integers(1, 2))
        window = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        stride, dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
        padding = draw(st.integers(0, 1))
        reached = [
            (size - 1) * stride - 2 * padding + dilation * (k - 1) + 1
            for size, k in zip(plane, window, strict=True)
        ]
        assume(min(reached) >= 1)
        layer = nn.ConvTranspose2d(
            groups * inputs,
            groups * outputs,
            window,
            stride,
            padding,
            groups=groups,
            dilation=dilation,
        )
        shape = (groups * inputs, *plane)
    layer.weight.data = sequence(tuple(layer.weight.shape), draw(seeds), 1.0)
    bias = draw(st.lists(biases, min_size=len(layer.bias), max_size=len(layer.bias)))
    layer.bias.data = torch.tensor(bias)
    return layer, shape


@st.composite
def biased_neurons(draw):
    """A neuron whose current decays at once."""
    threshold = draw(st.sampled_from([0.25, 0.7, 1.0, 2.9]))
    if draw(st.booleans()):
        decay, scale = draw(st.sampled_from([0.0, 0.3, 1.0])), draw(st.sampled_from([64, 128]))
        return CubaLIFNode(1.0, decay, threshold, scale=scale)
    if draw(st.booleans()):
        return neuron.IFNode(threshold)
    return neuron.LIFNode(draw(st.sampled_from([1.7, 4.0])), False, threshold)


def stays_inside(layer, neu):
    scale = getattr(neu, "scale", 64)
    bias = getattr(layer, "bias", None)
    return bias is None or bool((torch.round(bias * scale).abs() < 4096).all())


@given(drawn=layers(), neu=biased_neurons(), seed=seeds)
def test_container_blocks_file_and_integers_spike_alike(lava, tmp_path_factory, drawn, neu, seed):
    layer, shape = drawn
    assume(stays_inside(layer, neu))
    container = BlockContainer(layer, neu, "m")
    x_seq = spikes((6, 2, *shape), seed)
    mine = container(x_seq)
    block = container.to_lava_block()
    for made in (block, container.to_lava_block(slayer=lava)):
        assert torch.equal(NXT_to_TNX(made(TNX_to_NXT(x_seq))), mine), type(made)
    path = tmp_path_factory.mktemp("net") / "net.net"
    export_hdf5([block], path)
    read = load_hdf5(path)
    assert torch.equal(NXT_to_TNX(read(TNX_to_NXT(x_seq))), mine)
    ran = Network(path, aligned=True, input_shape=shape[::-1]).run(x_seq, layout="TNX")
    assert torch.equal(ran[1:], mine[:-1])


@given(
    st.integers(1, 5),
    st.lists(biases, min_size=3, max_size=3),
    st.sampled_from([16, 64]),
    st.booleans(),
    seeds,
)
def test_a_last_linear_gives_the_voltages_of_an_affine_block(
    lava, tmp_path_factory, inputs, bias, scale, analog, seed
):
    layer = nn.Linear(inputs, 3)
    layer.weight.data = sequence((3, inputs), seed, 1.0)
    layer.bias.data = torch.tensor(bias)
    container = BlockContainer(layer, None, "m", scale)
    x_seq = sequence((5, 2, inputs), seed, 1.0) if analog else spikes((5, 2, inputs), seed)
    if analog:  # whatever the order of the sum
        x_seq = x_seq.mul(2).round().div(512)
    mine = container(x_seq)
    for which in (slayer, lava):
        block = container.to_lava_block(slayer=which)
        assert type(block) is which.block.cuba.Affine
        assert torch.equal(NXT_to_TNX(block(TNX_to_NXT(x_seq))), mine)
    if not analog:
        path = tmp_path_factory.mktemp("net") / "net.net"
        export_hdf5([container.to_lava_block()], path)
        report = check_equivalence(container, path, x_seq, integers=True)
        assert report.ok
        assert report.layers[0].spikes == 5 * 2 * 3
        assert check_equivalence(load_hdf5(path), container, x_seq).ok


@given(layers(), biased_neurons(), seeds)
def test_the_originals_file_has_the_same_integers(lava, tmp_path_factory, drawn, neu, seed):
    layer, shape = drawn
    assume(stays_inside(layer, neu) and hasattr(layer, "bias"))
    container = BlockContainer(layer, neu, "m")
    ours, theirs = container.to_lava_block(), container.to_lava_block(slayer=lava)
    x = TNX_to_NXT(spikes((2, 1, *shape), seed))
    ours(x), theirs(x)
    path = tmp_path_factory.mktemp("net") / "two.net"
    with h5py.File(path, "w") as file:
        groups = file.create_group("ours"), file.create_group("theirs")
        ours.export_hdf5(groups[0])
        theirs.export_hdf5(groups[1])
        assert groups[0]["bias"][()].tolist() == groups[1]["bias"][()].tolist()
        assert groups[0]["bias"].dtype == groups[1]["bias"].dtype
        assert (groups[0]["weight"][()] == groups[1]["weight"][()]).all()


@BOTH_MODES
def test_the_users_layer_and_neuron_are_left_as_they_are_and_share_their_parameters(step_mode):
    layer, neu = nn.Linear(4, 3), CubaLIFNode(1.0, 0.1, 0.7, scale=128)
    container = BlockContainer(layer, neu, step_mode)
    assert layer.bias is not None
    assert neu.norm is None
    assert container.synapse.weight is layer.weight
    assert isinstance(container.neuron.norm, ChannelBias)
    assert container.neuron.norm.value is layer.bias
    assert container.neuron.norm.scale == 128
    assert {id(p) for p in container.parameters()} == {id(layer.weight), id(layer.bias)}
    x_seq = spikes((6, 2, 4), 1)
    y = container(x_seq) if step_mode == "m" else torch.stack([container(x) for x in x_seq])
    y.sum().backward()
    assert layer.weight.grad.any()
    assert layer.bias.grad.any()


def test_a_containers_bias_survives_deepcopy_and_state_dict():
    for neu in (neuron.IFNode(), None):
        container = BlockContainer(nn.Linear(4, 3), neu, "m")
        other = BlockContainer(nn.Linear(4, 3), copy.deepcopy(neu), "m")
        other.load_state_dict(container.state_dict())
        x_seq = spikes((6, 2, 4), 1)
        expected = container(x_seq)
        functional.reset_net(container)
        for again in (other, copy.deepcopy(container)):
            assert torch.equal(again(x_seq), expected)


def test_the_sums_of_a_last_linear_have_a_gradient():
    layer = nn.Linear(4, 3)
    x_seq = spikes((6, 2, 4), 1).requires_grad_()
    BlockContainer(layer, None, "m")(x_seq).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((3,), 12.0))
    assert torch.equal(layer.weight.grad, x_seq.detach().sum((0, 1)).expand(3, 4))
    assert x_seq.grad.any()


@given(st.sampled_from(["linear", "conv"]), st.sampled_from([0.25, 0.5, 2.0, 3.0]), seeds)
def test_a_weight_factor_multiplies_weights_bias_and_threshold(which, kind, factor, seed):
    layer = nn.Linear(6, 3) if kind == "linear" else nn.Conv2d(6, 3, 1)
    # On a grid on which no factor is rounded, within 8 bits after it.
    for parameter in layer.parameters():
        drawn = sequence(tuple(parameter.shape), seed, 4.0).round().clamp(-5, 5)
        parameter.data = drawn * 8 / 64
    x = TNX_to_NXT(spikes((8, 2, 6) if kind == "linear" else (8, 2, 6, 1, 1), seed))
    for neu in (neuron.IFNode(0.75), neuron.LIFNode(2.0, False, 0.75)):
        plain = block_of(layer, neu, slayer=which)
        scaled = block_of(layer, neu, weight_factor=factor, slayer=which)
        assert scaled.neuron.threshold == plain.neuron.threshold * factor
        assert torch.equal(scaled.synapse.weight, plain.synapse.weight * factor)
        if isinstance(neu, neuron.IFNode):  # a leak is rounded in steps that are not scaled
            assert torch.equal(scaled(x), plain(x))


def test_a_weight_factor_reaches_the_bias_that_a_twins_neuron_has():
    container = BlockContainer(nn.Linear(4, 3), neuron.IFNode())
    block = block_of(container.synapse, container.neuron, weight_factor=2, threshold_factor=4)
    assert torch.equal(block.neuron.norm.value, container.neuron.norm.value * 8)
    assert block.neuron.threshold == 8.0


@pytest.mark.parametrize("neu", [neuron.IFNode(), None])
@pytest.mark.parametrize("make", [block_of, lambda *of: BlockContainer(*of).to_lava_block()])
def test_a_block_is_made_without_a_draw_and_without_a_trace_of_the_layer(make, neu):
    layer = nn.Linear(4, 3)
    state = torch.get_rng_state()
    block = make(layer, neu)
    assert torch.equal(torch.get_rng_state(), state)
    before = block.synapse.weight.detach().clone(), block.neuron.norm.value.detach().clone()
    layer.weight.data.zero_()
    layer.bias.data.zero_()
    assert torch.equal(block.synapse.weight, before[0])
    assert torch.equal(block.neuron.norm.value, before[1])


def linear(bias=0.5):
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.bias, bias)
    return layer


def per_channel():
    return CubaLIFNode(torch.tensor([1.0, 0.5]), 0.1)


REFUSED = {
    "a bias that the current gathers": (linear, lambda: CubaLIFNode(0.3, 0.1), "current_decay=0.3"),
    "one of them": (linear, per_channel, "current_decay=0.5"),
    "a bias and a norm": (
        linear,
        lambda: CubaLIFNode(1.0, 0.1, norm=ChannelBias(2)),
        "ChannelBias",
    ),
    "a bias beyond 13 bits": (lambda: linear(64.0), neuron.IFNode, "4096 on the chip"),
    "a bias that is NaN": (lambda: linear(float("nan")), neuron.IFNode, "NaN"),
    "a convolution without a neuron": (lambda: nn.Conv2d(1, 1, 1), lambda: None, "Conv2d"),
    "an output padding": (
        lambda: nn.ConvTranspose2d(1, 1, 3, 2, output_padding=1),
        neuron.IFNode,
        "output_padding=(1, 1)",
    ),
    "a smooth upsampling": (
        lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
        neuron.IFNode,
        "mode='bilinear'",
    ),
    "an upsampling by a fraction": (lambda: nn.Upsample(scale_factor=1.5), neuron.IFNode, "1.5"),
    "an upsampling to a size": (lambda: nn.Upsample(size=(4, 4)), neuron.IFNode, "(4, 4)"),
}


@pytest.mark.parametrize("make", [BlockContainer, block_of])
@pytest.mark.parametrize("name", REFUSED)
def test_what_the_chip_has_not_is_refused_in_one_line(name, make):
    synapse, neu, part = REFUSED[name]
    with pytest.raises(ConversionError) as error:
        make(synapse(), neu())
    assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layer", [SumPool2d(2), nn.Upsample(scale_factor=2)])
def test_a_weight_factor_without_weights_is_refused(layer):
    with pytest.raises(ConversionError, match="weight_factor"):
        block_of(layer, neuron.IFNode(), weight_factor=2)


@given(
    st.lists(biases, min_size=3, max_size=3),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(3,), (3, 2), (3, 2, 2)]),
    seeds,
)
def test_a_bias_in_one_operator_with_the_neuron_does_what_it_does_by_itself(
    values, learned, detach, shape, seed
):
    norm = ChannelBias(3)
    norm.value.data = torch.tensor(values)
    fused = CubaLIFNode(
        0.3,
        0.1,
        norm=norm,
        requires_grad=learned,
        detach_reset=detach,
        step_mode="m",
        store_v_seq=True,
        store_i_seq=True,
    )
    apart = copy.deepcopy(fused)
    apart.norm.register_forward_hook(lambda *_: None)
    runs = []
    for node in (fused, apart):
        x = sequence((7, 2, *shape), seed, 1.0).requires_grad_()
        spikes = node(x[:3]), node(x[3:])
        kept = node.v_seq, node.i_seq, node.v
        sum((part * k).sum() for k, part in enumerate((*spikes, *kept), 1)).backward()
        own = node.norm.value, node.current_decay, node.voltage_decay
        runs.append(
            (
                [*spikes, *kept, node.current_state],
                [x.grad, *(p.grad for p in own if p.requires_grad)],
            )
        )
    (mine, my_gradients), (reference, gradients) = runs
    assert all(torch.equal(a, b) for a, b in zip(mine, reference, strict=True))
    for gradient, expected in zip(my_gradients, gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-4)


@BOTH_MODES
def test_what_hooks_on_to_a_bias_is_called_and_what_it_gives_is_taken(step_mode):
    class Twice(ChannelBias):
        def forward(self, inp):
            return 2 * inp

    x = sequence((5, 2, 3), 1, 1.0)
    nodes = [CubaLIFNode(0.3, 0.1, norm=made(3)) for made in (ChannelBias, Twice)]
    nodes[0].norm.register_forward_hook(lambda module, inputs, output: 2 * inputs[0])
    twice = CubaLIFNode(0.3, 0.1, step_mode="m")
    voltages = []
    for node, given_x in (*((node, x) for node in nodes), (twice, 2 * x)):
        node.step_mode = step_mode
        for part in [given_x] if step_mode == "m" else given_x:
            node(part)
        voltages.append(node.v)
    assert voltages[0].any()
    assert torch.equal(voltages[0], voltages[1])
    torch.testing.assert_close(voltages[0], voltages[2], rtol=0, atol=0.01)


def test_a_bias_takes_the_scale_of_its_node():
    node = CubaLIFNode(0.3, 0.1, scale=7, norm=ChannelBias(3), step_mode="m")
    node.norm.value.data.fill_(0.3)
    assert node.norm.bias.tolist() == [2, 2, 2]
    node(torch.zeros(1, 1, 3))
    assert (node.v * node.s_scale).round().tolist() == [[2 * 64] * 3]
