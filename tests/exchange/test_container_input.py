"""What a container takes: inputs with the axes of its synapse, layers that compute as torch's."""

from functools import partial

import pytest
import torch
import torch.nn as nn
from spikingjelly.activation_based import layer as sj_layer, neuron

from lava_bridge import BridgeError, ConversionError
from lava_bridge.exchange import (
    BlockContainer,
    SumPool2d,
    conv2d_to_lava_synapse_conv,
    linear_to_lava_synapse_dense,
    to_lava_block_conv,
    to_lava_block_dense,
    to_lava_block_pool,
    to_lava_neuron,
    to_lava_neuron_param_dict,
)

from .strategies import run_steps, spikes

LAYERS = {
    "linear": (lambda: nn.Linear(8, 4), (8,)),
    "conv": (lambda: nn.Conv2d(8, 4, 1), (8, 3, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(8, 4, 1), (8, 3, 3)),
    "pool": (lambda: SumPool2d(2), (8, 4, 4)),
    "upsample": (lambda: nn.Upsample(scale_factor=2), (8, 2, 2)),
}


def refused(call, *parts):
    with pytest.raises(BridgeError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("mode", ["s", "m"])
def test_an_input_of_other_axes_is_refused(name, mode):
    make, shape = LAYERS[name]
    made = BlockContainer(make(), neuron.IFNode(), mode)
    batch = (2,) if mode == "s" else (5, 2)
    made(torch.ones(*batch, *shape))
    # [..., N, L, F] of a linear layer too: its bias would go along L
    for wrong in ((*batch, 4, *shape), (*batch[1:], *shape), shape[-1:]):
        x = torch.ones(wrong)
        refused(partial(made, x), "BlockContainer: expected a tensor [", str(wrong))


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("name", ["linear", "conv", "transposed"])
def test_an_input_of_other_channels_is_refused(name, mode):
    make, shape = LAYERS[name]
    made = BlockContainer(make(), neuron.IFNode(), mode)
    wrong = torch.ones(*((2,) if mode == "s" else (5, 2)), 7, *shape[1:])
    refused(lambda: made(wrong), "expected 8 channels", "7")


@pytest.mark.parametrize("x", [torch.ones(5, 2, 8).int(), torch.ones(5, 2, 8).bool(), [1.0], None])
def test_what_is_no_floating_tensor_is_refused(x):
    made = BlockContainer(nn.Linear(8, 4), neuron.IFNode(), "m")
    refused(lambda: made(x), "BlockContainer: expected a ")


@pytest.mark.skipif(not hasattr(sj_layer, "Upsample"), reason="this SpikingJelly has no Upsample")
def test_spikingjellys_upsample_is_torchs_in_both_modes():
    x_seq = spikes((3, 2, 4, 5, 5), 1)
    plain = BlockContainer(nn.Upsample(scale_factor=2), neuron.IFNode(0.4), "m")
    expected = plain(x_seq)
    assert expected.any()
    for mode in ("s", "m"):
        upsample = sj_layer.Upsample(scale_factor=2)
        made = BlockContainer(upsample, neuron.IFNode(0.4), mode)
        assert torch.equal(made(x_seq) if mode == "m" else run_steps(made, x_seq), expected)


def test_a_layer_with_a_bias_that_is_put_in_later_is_refused():
    made = BlockContainer(nn.Linear(8, 4), neuron.IFNode(0.4), "m")
    made.synapse = nn.Linear(8, 4)
    refused(lambda: made(torch.ones(5, 2, 8)), "Linear has a bias", "make a new one")
    made.synapse = nn.Linear(8, 4, bias=False)
    made(torch.ones(5, 2, 8))


class NegativeLinear(nn.Linear):
    def forward(self, x):
        return -super().forward(x)


class NegativeConv(nn.Conv2d):
    def forward(self, x):
        return -super().forward(x)


class MaxOfAverages(nn.AvgPool2d):
    def forward(self, x):
        return super().forward(x).max()


class Reluctant(neuron.IFNode):
    def neuronal_charge(self, x):
        super().neuronal_charge(x / 2)


def _liaf():
    # SpikingJelly's own: what it gives is analog. (In 0.0.0.0.14 it can't be constructed.)
    return neuron.LIAFNode(nn.ReLU(), False, tau=2.0, decay_input=False)


NEURONS = {"a subclass": Reluctant, "SpikingJelly's": _liaf}


@pytest.mark.parametrize("name", NEURONS)
def test_a_neuron_that_may_compute_something_else_is_refused(name):
    try:
        node = NEURONS[name]()
    except AttributeError as error:
        pytest.skip(f"SpikingJelly's constructor: {error}")
    linear, conv = nn.Linear(2, 2, bias=False), nn.Conv2d(2, 2, 1, bias=False)
    for call in (
        lambda: to_lava_neuron(node),
        lambda: to_lava_neuron_param_dict(node),
        lambda: to_lava_block_dense(linear, node),
        lambda: to_lava_block_conv(conv, node),
        lambda: to_lava_block_pool(nn.AvgPool2d(2), node),
        lambda: BlockContainer(linear, node),
    ):
        refused(call, type(node).__name__, "use IFNode")


def test_spikingjellys_own_cuba_node_is_told_from_this_one(sj):
    node = sj.CubaLIFNode(0.3, 0.1)
    refused(
        lambda: BlockContainer(nn.Linear(2, 2, bias=False), node),
        "CubaLIFNode of spikingjelly.activation_based.lava_exchange",
        "lava_bridge.exchange.CubaLIFNode",
    )


WS_LINEAR = [sj_layer.WSLinear] if hasattr(sj_layer, "WSLinear") else []
WS_CONV = [sj_layer.WSConv2d] if hasattr(sj_layer, "WSConv2d") else []


@pytest.mark.parametrize("kind", [NegativeLinear, nn.LazyLinear, *WS_LINEAR])
def test_a_linear_layer_that_may_compute_something_else_is_refused(kind):
    layer = kind(3, bias=False) if kind is nn.LazyLinear else kind(3, 3, bias=False)
    part = "run the net once" if kind is nn.LazyLinear else "may compute something else"
    for call in (
        lambda: linear_to_lava_synapse_dense(layer),
        lambda: to_lava_block_dense(layer, neuron.IFNode()),
        lambda: BlockContainer(layer, neuron.IFNode()),
    ):
        refused(call, part)


@pytest.mark.parametrize("kind", [NegativeConv, *WS_CONV])
def test_a_convolution_that_may_compute_something_else_is_refused(kind):
    layer = kind(3, 3, 1, bias=False)
    for call in (
        lambda: conv2d_to_lava_synapse_conv(layer),
        lambda: to_lava_block_conv(layer, neuron.IFNode()),
        lambda: BlockContainer(layer, neuron.IFNode()),
    ):
        refused(call, kind.__name__, "may compute something else")


def test_a_pooling_that_may_compute_something_else_is_refused():
    refused(lambda: to_lava_block_pool(MaxOfAverages(2), neuron.IFNode()), "MaxOfAverages")


def test_layers_of_spikingjelly_and_materialised_ones_are_taken():
    lazy = nn.LazyLinear(3, bias=False)
    lazy(torch.ones(1, 4))
    for layer in (lazy, sj_layer.Linear(4, 3, bias=False, step_mode="m")):
        assert linear_to_lava_synapse_dense(layer).weight.shape == (3, 4, 1, 1, 1)
        BlockContainer(layer, neuron.IFNode())
    BlockContainer(nn.UpsamplingNearest2d(scale_factor=2), neuron.IFNode())


@pytest.mark.parametrize("scale", [0, 64.5, float("nan"), "64"])
def test_a_scale_is_a_whole_number(scale):
    make = lambda: BlockContainer(nn.Linear(2, 2), None, scale=scale)  # noqa: E731
    with pytest.raises(BridgeError, match="BlockContainer: scale must be a whole number") as error:
        make()
    assert not isinstance(error.value, ConversionError)
