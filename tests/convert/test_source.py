"""Blocks against the SpikingJelly net itself, where quantising changes nothing.

Weights that 8 bits hold, neurons that do not leak, and thresholds between two sums that can occur:
then the float net and the chip must agree in every spike, whatever the twin says.
"""

import pytest
import torch
import torch.nn as nn
from hypothesis import given, strategies as st
from spikingjelly.activation_based import functional, layer as sj, neuron

from lava_bridge import ConversionError, TNX_to_NXT, to_slayer, to_spikingjelly
from lava_bridge.exchange import BatchNorm2d, BlockContainer, CubaLIFNode

from .nets import conv_nets, spikes


def on_the_grid(layers: list[nn.Module], seed: int) -> nn.Sequential:
    """The net with IFNodes, weights of 8 bits, and thresholds that no sum meets."""
    generator = torch.Generator().manual_seed(seed)
    divisor, modules = 1, []
    for module in layers:
        if isinstance(module, nn.Linear | nn.Conv2d):
            even = torch.randint(-12, 24, module.weight.shape, generator=generator) * 2
            module.weight = nn.Parameter(even / 64)
        elif isinstance(module, nn.AvgPool2d):
            k = module.kernel_size
            divisor *= module.divisor_override or (k * k if isinstance(k, int) else k[0] * k[1])
        elif isinstance(module, neuron.BaseNode):
            odd = 2 * int(torch.randint(8, 40, (), generator=generator)) + 1
            module = neuron.IFNode(v_threshold=odd / 64 / divisor)  # sums are even over 64
            divisor = 1
        modules.append(module)
    net = nn.Sequential(*modules).double()
    functional.set_step_mode(net, "m")
    return net


def spikes_of(net: nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    """The spikes of every neuron, by SpikingJelly alone."""
    outputs: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda m, i, output: outputs.append(output.float()))
        for module in net
        if isinstance(module, neuron.BaseNode)
    ]
    net(x.double())
    functional.reset_net(net)
    for hook in hooks:
        hook.remove()
    return outputs


def assert_blocks_spike_as(net: nn.Sequential, shape: tuple[int, ...], x: torch.Tensor) -> None:
    expected, signal = spikes_of(net, x), TNX_to_NXT(x)
    found = []
    for block in to_slayer(net, shape):
        signal = block(signal)
        if getattr(block, "neuron", None) is not None:
            found.append(signal)
    assert len(found) == len(expected)
    for ours, truth in zip(found, expected, strict=True):
        assert torch.equal(ours, TNX_to_NXT(truth))


@given(net=conv_nets(), seed=st.integers(0, 1000))
def test_blocks_spike_as_the_float_net_does_in_every_layer(net, seed):
    layers, shape = net
    assert_blocks_spike_as(on_the_grid(layers, seed), shape, spikes(9, 2, *shape, seed=seed))


@pytest.mark.parametrize(
    "pool",
    [
        sj.AvgPool2d(3, stride=2),
        sj.AvgPool2d(3, stride=2, padding=1),
        sj.AvgPool2d((2, 3)),
        sj.AvgPool2d(2, divisor_override=3),
        sj.AvgPool2d(2, ceil_mode=True, divisor_override=4),
    ],
    ids=str,
)
def test_every_pooling_with_a_neuron_spikes_as_the_float_net_does(pool):
    layers = [sj.Conv2d(1, 3, 2, bias=False), neuron.IFNode(), pool, neuron.IFNode()]
    net = on_the_grid(layers, seed=3)
    x = spikes(12, 2, 1, 12, 11, rate=0.6)
    assert spikes_of(net, x)[-1].any()
    assert_blocks_spike_as(net, (1, 12, 11), x)


@pytest.mark.parametrize("padding", [0, 1])
def test_a_merged_pooling_spikes_as_the_float_net_does(padding):
    layers = [
        sj.AvgPool2d(2),
        sj.Conv2d(2, 4, 3, 2, padding, dilation=2, groups=2, bias=False),
        neuron.IFNode(),
        sj.AvgPool2d((1, 2)),
        sj.Flatten(),
        sj.Linear(4 * 3 * 1, 5, bias=False),  # of 3 x 3, the pooling leaves a column out
        neuron.IFNode(),
    ]
    size = 16 if padding else 20
    net = on_the_grid(layers, seed=1)
    x = spikes(12, 2, 2, size, size, rate=0.6)
    assert spikes_of(net, x)[-1].any()
    assert_blocks_spike_as(net, (2, size, size), x)


def test_a_layer_that_stands_in_the_net_twice_is_converted_twice():
    linear = sj.Linear(8, 8, bias=False)
    net = on_the_grid([linear, neuron.IFNode(), linear, neuron.IFNode()], seed=2)
    assert len(to_slayer(net, (8,))) == 3
    assert_blocks_spike_as(net, (8,), spikes(10, 3, 8))


def test_a_sequential_of_ones_own_name_is_opened_and_one_of_its_own_forward_is_not():
    class Stage(nn.Sequential):
        """Only a name."""

    class Doubled(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

    parts = [nn.Linear(4, 3, bias=False), neuron.IFNode()]
    assert len(to_slayer(Stage(*parts), (4,))) == 2
    with pytest.raises(ConversionError, match=r"net \(Doubled\): calls mul"):
        to_slayer(Doubled(*parts), (4,))


REFUSED = {
    "shared neuron": (
        lambda n: [nn.Linear(4, 4, bias=False), n, nn.Linear(4, 4, bias=False), n],
        "second",
    ),
    "weight norm": (
        lambda n: [torch.nn.utils.weight_norm(nn.Linear(4, 4, bias=False)), n],
        "remove_weight_norm",
    ),
    "norm of another width": (
        lambda n: [nn.Linear(4, 4, bias=False), CubaLIFNode(1.0, 0.5, norm=BatchNorm2d(3))],
        "3 features on a layer of 4 channels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_convert_to_another_net_is_refused(name):
    make, what = REFUSED[name]
    with pytest.raises(ConversionError, match=what) as caught:
        to_slayer(make(neuron.IFNode()), (4,))
    assert "\n" not in str(caught.value)


POOLED = {
    "ceil_mode": (nn.AvgPool2d(2, ceil_mode=True), neuron.IFNode(), "ceil_mode=True"),
    "norm": (nn.AvgPool2d(2), CubaLIFNode(1.0, 0.5, norm=BatchNorm2d(2)), "has a norm"),
    "scale 1": (nn.AvgPool2d(2), CubaLIFNode(1.0, 0.5, scale=1), "scale of 1,"),
    "scale 3": (nn.AvgPool2d(2), CubaLIFNode(1.0, 0.5, scale=3), "scale of 3,"),
    "scale 512": (nn.AvgPool2d(2), CubaLIFNode(1.0, 0.5, scale=512), "scale of 512,"),
}


@pytest.mark.parametrize("name", POOLED)
def test_a_pooling_that_would_be_another_is_refused(name):
    pool, node, what = POOLED[name]
    with pytest.raises(ConversionError, match=what):
        to_slayer([pool, node], (2, 7, 7))


def test_learned_decays_just_outside_their_range_convert_as_the_forward_takes_them():
    node = CubaLIFNode(1.0, 0.0, requires_grad=True, step_mode="m")
    with torch.no_grad():
        node.current_decay.add_(3.0)
        node.voltage_decay.sub_(5.0)
    (block,) = to_slayer([nn.Linear(4, 3, bias=False), node])
    assert block.neuron.cx_current_decay == 4096
    assert block.neuron.cx_voltage_decay == 0


def test_decays_per_channel_come_back_in_their_shape_without_a_known_input_shape():
    node = CubaLIFNode(torch.rand(4, 1, 1), torch.rand(4, 1, 1), 0.5, step_mode="m")
    net = [nn.Conv2d(2, 4, 3, padding=1, bias=False), node]
    blocks = to_slayer(net)
    twin = to_spikingjelly(blocks)
    x = spikes(8, 3, 2, 4, 4, rate=0.6)
    assert twin[0].neuron.voltage_decay.shape == (4, 1, 1)
    assert torch.equal(TNX_to_NXT(twin(x)), blocks(TNX_to_NXT(x)))


def test_spikingjellys_own_flatten_keeps_time_apart():
    container = BlockContainer(sj.Flatten(step_mode="m"), None, step_mode="m")
    assert container(torch.zeros(5, 3, 2, 4, 4)).shape == (5, 3, 32)
