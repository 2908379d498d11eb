"""Layers that are one where no synapse comes after them: exact, in all forms."""

import pytest
import torch
import torch.nn as nn
from hypothesis import assume, given, settings, strategies as st
from spikingjelly.activation_based import functional, layer, neuron

from lava_bridge import ConversionError, check_equivalence, export_hdf5, to_slayer, to_spikingjelly
from lava_bridge.convert import rewrite
from lava_bridge.convert.merge_late import LATE_MERGES
from lava_bridge.exchange import SumPool2d

from .nets import spikes
from .random_nets import run

PAIR = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=60)
@given(
    kernels=st.tuples(PAIR, PAIR),
    strides=PAIR,
    ratio=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    finer=st.booleans(),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()),
    groups=st.integers(1, 2),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    bias=st.booleans(),
)
def test_sums_of_a_transposed_convolution_are_one_layer(
    kernels, strides, ratio, finer, dilations, padding, groups, size, bias
):
    torch.manual_seed(0)
    wide = tuple(s * r for s, r in zip(strides, ratio, strict=True))
    fine, coarse = (strides, wide) if finer else (wide, strides)
    height, width, pads = padding
    conv = nn.ConvTranspose2d(
        2 * groups, 3 * groups, kernels[0], fine, groups=groups, dilation=dilations[0], bias=bias
    )
    pool = SumPool2d(kernels[1], coarse, 0, dilations[1])
    if pads and not bias:  # its own zeros, else what is cut off
        pool = SumPool2d(kernels[1], coarse, (height, width), dilations[1])
    else:
        conv.padding = (height, width)
    for p in conv.parameters():
        p.data = torch.randint(-8, 8, p.shape).float()
    x = torch.randint(0, 5, (2, 2 * groups, *size)).float()
    try:
        wanted = pool(conv(x))
    except RuntimeError:  # nothing is left
        assume(False)
    assume(wanted.numel())
    merged = LATE_MERGES[nn.ConvTranspose2d, SumPool2d](conv, pool, None)
    assert torch.equal(merged(x), wanted)


@settings(max_examples=100)
@given(
    kernels=st.tuples(PAIR, PAIR),
    strides=st.tuples(PAIR, PAIR),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    groups=st.sampled_from([(1, 1), (2, 2), (4, 1), (1, 4), (4, 2), (2, 4), (4, 4), (2, 1)]),
    biases=st.tuples(st.booleans(), st.booleans()),
    by_one=st.booleans(),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
)
def test_two_convolutions_are_one(
    kernels, strides, dilations, padding, groups, biases, by_one, size
):
    torch.manual_seed(0)
    if by_one:  # of which padding may follow
        first = nn.Conv2d(4, 8, 1, groups=groups[0], bias=False)
    else:
        first = nn.Conv2d(
            4, 8, kernels[0], strides[0], padding, dilations[0], groups[0], bias=biases[0]
        )
    second = nn.Conv2d(
        8, 4, kernels[1], strides[1], padding if by_one else 0, dilations[1], groups[1],
        bias=biases[1],
    )  # fmt: skip
    for p in (*first.parameters(), *second.parameters()):
        p.data = torch.randint(-8, 8, p.shape).float()
    x = torch.randint(0, 5, (2, 4, *size)).float()
    try:
        wanted = second(first(x))
    except RuntimeError:  # nothing is left
        assume(False)
    merged = LATE_MERGES[nn.Conv2d, nn.Conv2d](first, second, None)
    assert torch.equal(merged(x), wanted)
    assert merged.groups == min(groups)


def test_a_depthwise_convolution_and_one_by_1_are_a_block():
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(3, 3, 3, padding=1, groups=3, bias=False),
        layer.Conv2d(3, 8, 1),
        norm(layer.BatchNorm2d, 8),
        neuron.IFNode(0.4),
        layer.Conv2d(8, 8, 1, bias=False),
        layer.Conv2d(8, 8, 3, padding=1, groups=8),
        neuron.IFNode(0.4),
    ).eval()
    functional.set_step_mode(net, "m")
    x = spikes(6, 2, 3, 7, 6)
    rewritten = rewrite(net, (3, 7, 6))
    assert len([part for part in rewritten if isinstance(part, neuron.IFNode)]) == 2
    wanted, found = net(x), rewritten(x)
    assert torch.equal(found, wanted)
    assert 0 < wanted.mean() < 1
    blocks = to_slayer(net, (3, 7, 6), calibrate="weights")
    assert [type(block).__name__ for block in blocks] == ["Input", "Conv", "Conv"]
    assert check_equivalence(to_spikingjelly(blocks), blocks, x).ok


def test_a_bias_of_zeros_between_two_convolutions_is_none():
    parts = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False)
    net = nn.Sequential(*parts, nn.Conv2d(4, 2, 3, padding=1), neuron.IFNode(0.3)).eval()
    assert len(to_slayer(net, (3, 6, 6), calibrate="weights")) == 2
    net[1].running_mean.fill_(1)
    with pytest.raises(ConversionError, match="is padded, after a convolution without a neuron"):
        to_slayer(net, (3, 6, 6), calibrate="weights")


def norm(kind, channels):
    made = kind(channels)
    made.running_mean.uniform_(-0.5, 0.5)
    made.weight.data.uniform_(0.5, 2)
    made.bias.data.uniform_(-0.2, 0.5)
    return made.eval()


NETS = {
    "a norm after a mean": lambda: [nn.AvgPool2d(2), norm(nn.BatchNorm2d, 2)],
    "a norm after a mean of overlapping windows": lambda: [
        nn.AvgPool2d(3, 2, 1), norm(nn.BatchNorm2d, 2)
    ],
    "a mean after a norm": lambda: [norm(nn.BatchNorm2d, 2), nn.AvgPool2d(2)],
    "a mean of overlapping means": lambda: [nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(2, 1)],
    "a padded mean of means": lambda: [nn.AvgPool2d(1), nn.AvgPool2d(3, 2, 1)],
    "three means and a norm": lambda: [
        nn.AvgPool2d(2, 1), nn.AvgPool2d(3, 2), nn.AvgPool2d(2, 1), norm(nn.BatchNorm2d, 2)
    ],
    "copies of a norm": lambda: [norm(nn.BatchNorm2d, 2), nn.Upsample(scale_factor=2)],
    "copies of what has zeros around it": lambda: [
        nn.ZeroPad2d((1, 0, 2, 1)), nn.Upsample(scale_factor=(2, 3), mode="nearest-exact")
    ],
    "copies of both, and a convolution": lambda: [
        nn.ZeroPad2d((1, 0, 0, 1)), norm(nn.BatchNorm2d, 2), nn.Upsample(scale_factor=(2, 1)),
        nn.Upsample(scale_factor=(1, 2)), nn.Conv2d(2, 3, 3),
    ],
    "zeros alone": lambda: [nn.ZeroPad2d((1, 0, 2, 1))],
    "zeros, then a mean": lambda: [nn.ZeroPad2d((1, 0, 2, 1)), nn.AvgPool2d(2)],
    "zeros, a mean, a norm": lambda: [
        nn.ZeroPad2d((1, 0, 2, 1)), nn.AvgPool2d(2), norm(nn.BatchNorm2d, 2)
    ],
    "zeros, then a norm": lambda: [nn.ZeroPad2d(1), norm(nn.BatchNorm2d, 2)],
    "a mean after a transposed convolution": lambda: [
        nn.ConvTranspose2d(2, 3, 3, 2, padding=1, output_padding=1), nn.AvgPool2d(2)
    ],
    "a mean and a norm after one": lambda: [
        nn.ConvTranspose2d(2, 3, 2), nn.AvgPool2d(2), norm(nn.BatchNorm2d, 3)
    ],
    "the largest of copies": lambda: [nn.Upsample(scale_factor=2), nn.MaxPool2d(3)],
    "the largest, zeros around": lambda: [nn.ZeroPad2d((1, 0, 2, 1)), nn.MaxPool2d(3, 2, 1)],
    "the largest, zeros around, cut off": lambda: [
        nn.ZeroPad2d((0, 1, 1, 2)), nn.MaxPool2d(3, ceil_mode=True)
    ],
    "the largest of copies with zeros": lambda: [
        nn.Upsample(scale_factor=2), nn.ZeroPad2d(1), nn.MaxPool2d(2)
    ],
    "a norm of what was made flat": lambda: [
        nn.Conv2d(2, 3, 3), neuron.IFNode(0.4), nn.Flatten(), norm(nn.BatchNorm1d, 75)
    ],
    "a norm between flat neurons": lambda: [
        nn.Flatten(), nn.Linear(98, 6), neuron.IFNode(0.4), norm(nn.BatchNorm1d, 6)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_layers_without_a_neuron_between_them_say_the_same_in_all_forms(name, tmp_path):
    torch.manual_seed(2)
    parts, shape = NETS[name](), (2, 7, 7)
    if isinstance(parts[-1], nn.MaxPool2d):
        parts.append(nn.Conv2d(2, 3, 1))
    net = nn.Sequential(*parts, neuron.LIFNode(2.5, v_threshold=0.31)).eval()
    with torch.no_grad():
        for part in parts:
            if isinstance(part, nn.ConvTranspose2d | nn.Conv2d | nn.Linear):
                part.weight.mul_(4)
    x = spikes(10, 3, *shape)
    blocks = to_slayer(net, shape, calibrate="weights")
    export_hdf5(blocks, tmp_path / "n.net")
    twin = to_spikingjelly(blocks)
    for other in (blocks, tmp_path / "n.net"):
        for integers in (False, True):
            report = check_equivalence(twin, other, x, integers=integers and other is not blocks)
            assert report.ok, str(report)
    assert check_equivalence(twin, to_slayer(twin, shape), x).ok
    (output, seen), (found, rewritten) = run(net, x), run(rewrite(net, shape), x)
    assert torch.equal(found, output)
    assert all(map(torch.equal, seen, rewritten))
    assert output.any()


def test_a_norm_alone_is_known_to_be_flat_by_the_layer_before_it():
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Linear(4, 3), neuron.IFNode(0.2), norm(layer.BatchNorm1d, 3), neuron.IFNode(0.3)
    )
    x = spikes(8, 2, 4)
    assert check_equivalence(to_slayer(net, (4,)), to_slayer(net), x).ok


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [nn.BatchNorm2d(2), nn.AvgPool2d(3, 2, 1)],
            r"1 \(AvgPool2d\): is padded after a BatchNorm, .*; use padding=0",
        ),
        (
            [nn.AvgPool2d(3), nn.AvgPool2d(3, 1, 1)],
            r"1 \(AvgPool2d\): is padded, after a pooling by \(3, 3\) that leaves rows",
        ),
        (
            [nn.AvgPool2d(3, 1), nn.AvgPool2d(3, 1, 1)],
            r"1 \(AvgPool2d\): follows a pooling whose windows overlap",
        ),
        (
            [nn.BatchNorm2d(2), nn.ZeroPad2d(1), nn.Upsample(scale_factor=2)],
            r"1 \(ZeroPad2d\): follows 0 \(BatchNorm2d\) without a neuron",
        ),
        (
            [nn.AvgPool2d(2), nn.Upsample(scale_factor=2)],
            r"1 \(Upsample\): follows 0 \(AvgPool2d\) without a neuron",
        ),
        (
            [nn.ConvTranspose2d(2, 2, 3, 3), nn.AvgPool2d(2)],
            r"1 \(AvgPool2d\): has a stride of \(2, 2\) after .* \(3, 3\).*; use strides",
        ),
        (
            [nn.ConvTranspose2d(2, 2, 3), nn.AvgPool2d(3, 1, 1)],
            r"1 \(AvgPool2d\): is a padded pooling after a Conv.* bias.*; use padding",
        ),
        (
            [nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3, padding=1)],
            r"1 \(Conv2d\): is padded, after a convolution without a neuron; .*, or put an IFNode",
        ),
        (
            [nn.ZeroPad2d(1), nn.AvgPool2d(2), nn.MaxPool2d(2)],
            r"2 \(MaxPool2d\): takes the largest of sums \(of 1 \(AvgPool2d\)\)",
        ),
        (
            [nn.Flatten(), nn.BatchNorm1d(1 << 13)],
            r"1 \(BatchNorm1d\): is a norm of 8192 neurons .*; put it after a Linear",
        ),
    ],
)
def test_pairs_that_no_layer_equals_are_refused_in_one_line(parts, message):
    if isinstance(parts[0], nn.BatchNorm2d):
        nn.init.ones_(parts[0].bias)
    with pytest.raises(ConversionError, match=message) as caught:
        to_slayer(nn.Sequential(*parts, neuron.IFNode()).eval(), (2, 64, 64))
    assert "\n" not in str(caught.value)
