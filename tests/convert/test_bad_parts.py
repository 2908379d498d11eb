"""Parts without numbers, sparse ones, and what is no slayer: refused in one line."""

import re

import pytest
import torch
import torch.nn as nn
from spikingjelly.activation_based import neuron

from lava_bridge import ConversionError, to_slayer
from lava_bridge.exchange import CubaLIFNode

from .test_bad_nets import linear, with_tensor

IF = neuron.IFNode


def test_layers_without_numbers_are_refused():
    with pytest.raises(ConversionError, match=r"0 \(Linear\): is on the meta device, .* load its"):
        to_slayer([linear(device="meta"), IF()], (4,))
    with pytest.raises(ConversionError, match=r"0 \(LazyLinear\): has no weights yet; run the net"):
        to_slayer([nn.LazyLinear(3), IF()], (4,))


def test_sparse_weights_are_refused():
    with pytest.raises(
        ConversionError, match=r"0 \(Linear\): has a weight that is sparse .* dense"
    ):
        to_slayer([with_tensor("weight", torch.eye(4)[:3].to_sparse()), IF()], (4,))


@pytest.mark.parametrize(
    "module",
    [
        lambda: nn.BatchNorm1d(3),
        neuron.ParametricLIFNode,
        lambda: CubaLIFNode(1.0, 0.5),
        lambda: nn.Linear(3, 3),
    ],
)
@pytest.mark.parametrize("calibrate", [None, "weights"])
def test_any_part_without_numbers_is_named(module, calibrate):
    empty = module().to("meta")
    if isinstance(empty, nn.Linear):
        empty.weight = nn.Parameter(torch.ones(3, 3))  # its bias is left
    net = [linear(), *([IF()] if isinstance(empty, nn.Linear) else []), empty, linear(3), IF()]
    place = rf"{net.index(empty)} \({type(empty).__name__}\): is on the meta device, without num"
    with pytest.raises(ConversionError, match=place):
        to_slayer(net, (4,), calibrate=calibrate)


@pytest.mark.parametrize("slayer", [None, "lava", torch])
def test_a_slayer_that_is_none_is_said(slayer):
    with pytest.raises(ConversionError, match=r"^slayer: expected lava_bridge\.slayer or "):
        to_slayer([linear(), IF()], (4,), slayer=slayer)


@pytest.mark.parametrize(
    ("shape", "data", "fits"),
    [
        ((1, 6, 6), (1, 6, 6), True),
        ((1, 6, 6), (1, 5, 5), False),
        ((1, 6, 6), (6, 6, 1), False),
        ((2, 18), (2, 18), True),
        ((2, 18), (18, 2), False),
        ((36,), (36,), True),
        ((36,), (35,), False),
    ],
)
def test_samples_for_calibration_are_compared_with_the_input_shape(shape, data, fits):
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), IF(0.5))
    x = (torch.rand(5, 2, *data) < 0.5).float()
    if fits:
        blocks = to_slayer(net, shape, calibrate=x)
        sparse = to_slayer(net, shape, calibrate=x.to_sparse())
        assert torch.equal(blocks[-1].synapse.weight, sparse[-1].synapse.weight)
        return
    planes = shape if len(shape) != 2 else (shape[0], 1, shape[1])
    message = (
        f"calibrate: expected samples of shape {planes}, which input_shape says, found {data} "
    )
    with pytest.raises(ConversionError, match=re.escape(message)) as caught:
        to_slayer(net, shape, calibrate=x)
    assert "\n" not in str(caught.value)
