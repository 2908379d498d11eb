"""Nets that can't be converted: one line that names the place, and the net as it was."""

import copy

import pytest
import torch
import torch.nn as nn
from spikingjelly.activation_based import layer, neuron, surrogate
from torch.nn.utils import prune

from lava_bridge import BridgeError, ConversionError, to_slayer
from lava_bridge.exchange import CubaLIFNode, SumPool2d

IF = neuron.IFNode


class StandardisedConv2d(nn.Conv2d):
    """Computes something else than its base, as SpikingJelly's WSConv2d does."""


def linear(inputs: int = 4, outputs: int = 3, **options) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False, **options)


def with_weight(value: float) -> nn.Linear:
    broken = linear()
    broken.weight.data[0, 0] = value
    return broken


def out_of_range_decay() -> CubaLIFNode:
    node = CubaLIFNode(0.5, 0.5)
    node.voltage_decay.fill_(5000.0)
    return node


def started_at(reset: float) -> neuron.IFNode:
    node = IF()
    node.v_reset = reset
    return node


def with_bias(value: float) -> nn.Linear:
    layer_of_three = nn.Linear(3, 3)
    layer_of_three.bias.data[0] = value
    return layer_of_three


def with_number(name: str, value: torch.Tensor | None) -> nn.Module:
    node = neuron.ParametricLIFNode() if name == "w" else neuron.LIFNode()
    setattr(node, name, value)
    return node


def with_forward(module: nn.Module, name: str = "forward") -> nn.Module:
    setattr(module, name, lambda x: x)
    return module


def with_tensor(name: str, tensor: torch.Tensor, module: nn.Module | None = None) -> nn.Module:
    made = linear() if module is None else module
    made.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    return made


def shifted_norm(features: int, mean: float = 1.0, kind: type = nn.BatchNorm2d) -> nn.Module:
    norm = kind(features)
    norm.running_mean.fill_(mean)
    return norm


def shifted_in_one_of_two() -> nn.Module:
    norm = shifted_norm(2)
    norm.running_mean[0] = 0
    return norm


# What is wrong, the input shape, and what the message must name: place, finding and cure.
BAD_NETS = {
    "bias that the current's decay would change": (
        lambda: [nn.Linear(4, 3), CubaLIFNode(0.5, 0.5)],
        (4,),
        ["1 (CubaLIFNode)", "bias", "decay"],
    ),
    "reset above the threshold": (
        lambda: [linear(), IF(v_reset=1.5)],
        (4,),
        ["1 (IFNode)", "v_reset=1.5", "v_reset=0."],
    ),
    "start other than the reset": (
        lambda: (
            [linear(), neuron.SimpleLIFNode(2.0, True, v_reset=0.5)]
            if hasattr(neuron, "SimpleLIFNode")
            else [linear(), started_at(0.5)]
        ),
        (4,),
        ["1 (", "begins at 0", "v_reset=0.5"],
    ),
    "soft reset": (
        lambda: [linear(), IF(v_reset=None)],
        (4,),
        ["1 (IFNode)", "soft reset", "v_reset=0."],
    ),
    "flatten": (
        lambda: [nn.Flatten(2), linear(), IF()],
        (1, 2, 2),
        ["0 (Flatten)", "2 to -1", "start_dim=1"],
    ),
    "neuron without a synapse": (
        lambda: [IF(), linear(), IF()],
        (4,),
        ["0 (IFNode)", "no synapse before it"],
    ),
    "two neurons": (lambda: [linear(), IF(), IF()], (4,), ["2 (IFNode)", "no synapse before it"]),
    "synapse without a neuron": (
        lambda: [nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, padding=1), IF()],
        (1, 8, 8),
        ["1 (Conv2d)", "is padded, after a convolution without a neuron", "IFNode"],
    ),
    "convolution without a neuron at the end": (
        lambda: [nn.Conv2d(1, 2, 3)],
        None,
        ["0 (Conv2d)", "without a neuron"],
    ),
    "largest of sums": (
        lambda: [nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), IF()],
        (1, 8, 8),
        ["1 (MaxPool2d)", "0 (Conv2d)", "after the neuron"],
    ),
    "indices": (
        lambda: [nn.MaxPool2d(2, return_indices=True), linear(), IF()],
        (1, 8, 8),
        ["0 (MaxPool2d)", "return_indices=False"],
    ),
    "norm without statistics": (
        lambda: [linear(), nn.BatchNorm1d(3, track_running_stats=False), IF()],
        (4,),
        ["1 (BatchNorm1d)", "no running statistics"],
    ),
    "norm of other features": (
        lambda: [linear(), nn.BatchNorm1d(4), IF()],
        (4,),
        ["1 (BatchNorm1d)", "4 features after a layer of 3"],
    ),
    "norm before a padded convolution": (
        lambda: [shifted_in_one_of_two(), nn.Conv2d(2, 2, 3, padding=1), IF()],
        (2, 8, 8),
        ["1 (Conv2d)", "after a BatchNorm", "padding=0"],
    ),
    "norm of no numbers": (
        lambda: [linear(), shifted_norm(3, float("nan"), nn.BatchNorm1d), IF()],
        (4,),
        ["1 (BatchNorm1d)", "NaN"],
    ),
    "bilinear": (
        lambda: [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(1, 2, 3), IF()],
        (1, 8, 8),
        ["0 (Upsample)", "bilinear", "nearest"],
    ),
    "upsampling by a fraction": (
        lambda: [nn.Upsample(scale_factor=1.5), nn.Conv2d(1, 2, 3), IF()],
        (1, 8, 8),
        ["0 (Upsample)", "1.5", "whole"],
    ),
    "adaptive pooling of an unknown shape": (
        lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear(), IF()],
        None,
        ["0 (AdaptiveAvgPool2d)", "input_shape"],
    ),
    "adaptive pooling of uneven windows before a neuron": (
        lambda: [nn.AdaptiveAvgPool2d(3), IF()],
        (1, 8, 8),
        ["0 (AdaptiveAvgPool2d)", "divide"],
    ),
    "layers after the mean of votes": (
        lambda: [linear(), IF(), layer.VotingLayer(3), linear(1, 2), IF()],
        (4,),
        ["3 (Linear)", "comes after 2 (VotingLayer)"],
    ),
    "votes that don't divide": (
        lambda: [linear(), IF(), layer.VotingLayer(2)],
        (4,),
        ["2 (VotingLayer)", "groups of 2 of 3"],
    ),
    "a nonlinearity": (
        lambda: [linear(), nn.ReLU(), IF()],
        (4,),
        ["1 (ReLU)", "not linear between neurons"],
    ),
    "attention": (
        lambda: [nn.MultiheadAttention(4, 2), IF()],
        (4,),
        ["0 (MultiheadAttention)", "multiplies its inputs"],
    ),
    "unknown type": (
        lambda: [linear(), nn.LayerNorm(3), IF()],
        (4,),
        ["1 (LayerNorm)", "not linear between neurons", "BatchNorm"],
    ),
    "subclass": (
        lambda: [StandardisedConv2d(1, 2, 3, bias=False), IF()],
        (1, 8, 8),
        ["0 (StandardisedConv2d)", "no rule", "kind of Conv2d"],
    ),
    "a type without a rule": (
        lambda: [linear(), nn.Threshold(1, 0), IF()],
        (4,),
        ["1 (Threshold)", "no rule", "lava_bridge.convert.rule"],
    ),
    "NaN": (lambda: [with_weight(float("nan")), IF()], (4,), ["0 (Linear)", "1 weights", "NaN"]),
    "infinite": (lambda: [with_weight(float("inf")), IF()], (4,), ["0 (Linear)", "infinite"]),
    "too few inputs": (lambda: [linear(5), IF()], (4,), ["0 (Linear)", "5 neurons", "(4,)"]),
    "no flatten": (
        lambda: [nn.Conv2d(1, 2, 3, bias=False), IF(), linear(), IF()],
        (1, 8, 8),
        ["2 (Linear)", "(2, 6, 6)", "Flatten"],
    ),
    "channels": (
        lambda: [nn.Conv2d(2, 2, 3, bias=False), IF()],
        (1, 8, 8),
        ["0 (Conv2d)", "(2, H, W)", "(1, 8, 8)"],
    ),
    "kernel": (
        lambda: [nn.Conv2d(1, 2, 9, bias=False), IF()],
        (1, 8, 8),
        ["0 (Conv2d)", "(9, 9)", "(1, 8, 8)", "leaves nothing"],
    ),
    "threshold below the grid": (
        lambda: [linear(), IF(v_threshold=0.01)],
        (4,),
        ["1 (IFNode)", "0.01", "1/64"],
    ),
    "threshold above 17 bits": (
        lambda: [linear(), IF(v_threshold=2048.0)],
        (4,),
        ["1 (IFNode)", "2048", "131072", "131071"],
    ),
    "threshold NaN": (
        lambda: [linear(), IF(v_threshold=float("nan"))],
        (4,),
        ["1 (IFNode)", "nan"],
    ),
    "decay": (
        lambda: [
            linear(),
            neuron.LIFNode(tau=1.5, decay_input=False),
            linear(3),
            out_of_range_decay(),
        ],
        (4,),
        ["3 (CubaLIFNode)", "voltage_decay", "0 ... 1"],
    ),
    "padding mode": (
        lambda: [nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect", bias=False), IF()],
        (1, 8, 8),
        ["0 (Conv2d)", "reflect", "zeros"],
    ),
    "same padding of an even kernel": (
        lambda: [nn.Conv2d(1, 2, 2, padding="same", bias=False), IF()],
        (1, 8, 8),
        ["padding='same'", "odd kernel"],
    ),
    "pool without a neuron at the end": (
        lambda: [nn.AvgPool2d(2)],
        (1, 8, 8),
        ["0 (AvgPool2d)", "without a neuron"],
    ),
    "pool then linear": (
        lambda: [nn.AvgPool2d(2), linear(), IF()],
        (1, 8, 8),
        ["1 (Linear)", "Flatten"],
    ),
    "sum over the plane at the end": (
        lambda: [nn.Conv2d(1, 2, 3), IF(), SumPool2d(6), nn.Flatten()],
        (1, 8, 8),
        ["2 (SumPool2d)", "without a neuron"],
    ),
    "mean of another divisor at the end": (
        lambda: [nn.Conv2d(1, 2, 3), IF(), nn.AvgPool2d(6, divisor_override=3), nn.Flatten()],
        (1, 8, 8),
        ["2 (AvgPool2d)", "without a neuron"],
    ),
    "votes of means": (
        lambda: [linear(4, 4), IF(), layer.VotingLayer(2), layer.VotingLayer(2)],
        (4,),
        ["3 (VotingLayer)", "2 (VotingLayer)", "end the net there"],
    ),
    "a threshold for each neuron": (
        lambda: [linear(), with_number("v_threshold", torch.ones(3))],
        (4,),
        ["1 (LIFNode)", "v_threshold of shape (3,)", "train with a number"],
    ),
    "a tau for each neuron": (
        lambda: [linear(), with_number("tau", torch.full((3,), 2.0))],
        (4,),
        ["1 (LIFNode)", "tau of shape (3,)", "train with a number"],
    ),
    "learned tau that is infinite": (
        lambda: [linear(), with_number("w", nn.Parameter(torch.tensor(-800.0)))],
        (4,),
        ["1 (ParametricLIFNode)", "infinite tau", "training"],
    ),
    "bias that is pruned": (
        lambda: [prune.l1_unstructured(nn.Linear(4, 3), "bias", 1), IF()],
        (4,),
        ["0 (Linear)", "computes its bias in a hook", "prune.remove"],
    ),
    "norm that is pruned": (
        lambda: [linear(), prune.l1_unstructured(nn.BatchNorm1d(3), "weight", 1), IF()],
        (4,),
        ["1 (BatchNorm1d)", "computes its weight in a hook", "prune.remove"],
    ),
    "leak that is pruned": (
        lambda: [linear(), prune.random_unstructured(neuron.ParametricLIFNode(), "w", 0)],
        (4,),
        ["1 (ParametricLIFNode)", "computes its w in a hook", "prune.remove"],
    ),
    "parametrized weight": (
        lambda: [nn.utils.parametrizations.weight_norm(linear()), IF()],
        (4,),
        ["0 (ParametrizedLinear)", "parametrize.remove_parametrizations"],
    ),
    "compiled": (
        lambda: [torch.compile(linear(), backend="eager"), IF()],
        (4,),
        ["0 (OptimizedModule)", "net._orig_mod"],
    ),
    "a layer's own forward": (
        lambda: [with_forward(linear()), IF()],
        (4,),
        ["0 (Linear)", "has a forward of its own", "lava_bridge.convert.rule"],
    ),
    "a neuron's own step": (
        lambda: [linear(), with_forward(IF(), "single_step_forward")],
        (4,),
        ["1 (IFNode)", "has a single_step_forward of its own"],
    ),
    "numbers in place of spikes": (
        lambda: [linear(), IF(surrogate_function=surrogate.Sigmoid(spiking=False))],
        (4,),
        ["1 (IFNode)", "spiking=False", "set_spiking_mode(True)"],
    ),
    "integer weights": (
        lambda: [with_tensor("weight", torch.ones(3, 4, dtype=torch.int8)), IF()],
        (4,),
        ["0 (Linear)", "weight of torch.int8", "torch.float32"],
    ),
    "complex weights": (
        lambda: [with_tensor("weight", torch.ones(3, 4, dtype=torch.complex64)), IF()],
        (4,),
        ["0 (Linear)", "weight of torch.complex64", "torch.float32"],
    ),
    "integer bias": (
        lambda: [with_tensor("bias", torch.ones(3, dtype=torch.int64)), IF()],
        (4,),
        ["0 (Linear)", "bias of torch.int64"],
    ),
    "weights of another size": (
        lambda: [with_tensor("weight", torch.ones(2, 4)), IF()],
        (4,),
        ["0 (Linear)", "weight of shape (2, 4)", "(3, 4)", "pruning"],
    ),
    "one bias for all": (
        lambda: [with_tensor("bias", torch.ones(1)), IF()],
        (4,),
        ["0 (Linear)", "bias of shape (1,)", "(3,)"],
    ),
    "kernels of another size": (
        lambda: [with_tensor("weight", torch.ones(2, 1, 5, 5), nn.Conv2d(1, 2, 3)), IF()],
        (1, 8, 8),
        ["0 (Conv2d)", "weight of shape (2, 1, 5, 5)", "(2, 1, 3, 3)"],
    ),
    "transposed kernels of another size": (
        lambda: [
            with_tensor("weight", torch.ones(4, 2, 2, 2), nn.ConvTranspose2d(4, 2, 2, groups=2)),
            IF(),
        ],
        (4, 8, 8),
        ["0 (ConvTranspose2d)", "weight of shape (4, 2, 2, 2)", "(4, 1, 2, 2)"],
    ),
    "a learned tau for each neuron": (
        lambda: [linear(), with_number("w", nn.Parameter(torch.zeros(3)))],
        (4,),
        ["1 (ParametricLIFNode)", "w of shape (3,)"],
    ),
    "a threshold that is none": (
        lambda: [linear(), with_number("v_threshold", None)],
        (4,),
        ["1 (LIFNode)", "v_threshold=None", "no number"],
    ),
    "bias beyond 13 bits": (
        lambda: [linear(), IF(), with_bias(1e5), IF()],
        (4,),
        ["2 (Linear)", "outside its 13 bits", "calibrate='weights'"],
    ),
    "pool larger than its input": (
        lambda: [nn.Conv2d(1, 2, 3), IF(), nn.AvgPool2d(9), nn.Flatten(), nn.Linear(2, 3), IF()],
        (1, 8, 8),
        ["2 (AvgPool2d)", "no input of shape (2, 6, 6)"],
    ),
    "pool of what is flat": (
        lambda: [linear(), IF(), nn.MaxPool2d(2), IF()],
        (4,),
        ["2 (MaxPool2d)", "no input of shape (3,)"],
    ),
    "norm of other channels": (
        lambda: [linear(4, 4), IF(), nn.BatchNorm1d(5), linear(4, 4), IF()],
        (4,),
        ["2 (BatchNorm1d)", "5 features", "4 channels"],
    ),
    "layer of one dimension on a plane": (
        lambda: [nn.Conv2d(1, 2, 3), IF(), nn.Conv1d(2, 2, 3), IF()],
        (1, 8, 8),
        ["2 (Conv1d)", "(C, L)", "(2, 6, 6)"],
    ),
    "overlapping pool before a padded convolution": (
        lambda: [nn.AvgPool2d(3, 2), nn.Conv2d(1, 2, 3, padding=1, bias=False), IF()],
        (1, 9, 9),
        ["1 (Conv2d)", "overlap"],
    ),
    "pool that leaves rows before a padded convolution": (
        lambda: [nn.AvgPool2d(2), nn.Conv2d(1, 2, 3, padding=1, bias=False), IF()],
        (1, 9, 9),
        ["1 (Conv2d)", "(1, 9, 9)", "padding=0"],
    ),
    "pool that counts no padding": (
        lambda: [nn.AvgPool2d(3, 2, 1, count_include_pad=False), IF()],
        (1, 9, 9),
        ["0 (AvgPool2d)", "count_include_pad"],
    ),
    "ceil_mode": (
        lambda: [nn.AvgPool2d(3, 2, ceil_mode=True), IF()],
        (1, 10, 10),
        ["0 (AvgPool2d)", "ceil_mode"],
    ),
    "largest of windows that overlap and are cut off": (
        lambda: [nn.Conv2d(1, 2, 1), IF(), nn.MaxPool2d(3, 2, ceil_mode=True), IF()],
        (1, 8, 8),
        ["2 (MaxPool2d)", "overlap", "ceil_mode=False"],
    ),
    "input shape": (lambda: [linear(), IF()], (1, 1, 2, 2), ["input_shape", "(1, 1, 2, 2)"]),
    "input shape of zero": (lambda: [linear(), IF()], (0,), ["input_shape", "(0,)"]),
    "no net": (lambda: nn.AvgPool2d(2), (1, 4, 4), ["net (AvgPool2d)", "without a neuron"]),
}


if issubclass(layer.TemporalWiseAttention, nn.Module):  # not in 0.0.0.0.14
    BAD_NETS["attention over time"] = (
        lambda: [layer.TemporalWiseAttention(T=4, reduction=2), linear(), IF()],
        (4,),
        ["0 (TemporalWiseAttention)", "multiplies its inputs"],
    )


@pytest.mark.parametrize("name", BAD_NETS)
def test_a_bad_net_gives_one_line_that_names_place_and_cure_and_stays_as_it_was(name):
    make, shape, expected = BAD_NETS[name]
    net = make()
    modules = nn.ModuleList(net if isinstance(net, list) else [net])
    before = copy.deepcopy(modules.state_dict())
    with pytest.raises(ConversionError) as caught:
        to_slayer(net, input_shape=shape)
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message, message
    assert isinstance(caught.value, BridgeError | ValueError)
    after = modules.state_dict()
    assert list(before) == list(after)
    for key, value in before.items():
        assert torch.equal(torch.nan_to_num(value), torch.nan_to_num(after[key])), key


def test_a_good_net_is_bit_identical_after_conversion_states_and_modes_included():
    node = neuron.LIFNode(tau=2.0, decay_input=False, step_mode="m")
    net = nn.Sequential(layer.Linear(4, 3, bias=False, step_mode="m"), node)
    net(torch.ones(3, 2, 4))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    voltage, attributes = node.v, dict(node.__dict__)
    to_slayer(net, input_shape=(4,))
    assert node.v is voltage
    assert net.training
    assert {k: id(v) for k, v in node.__dict__.items()} == {k: id(v) for k, v in attributes.items()}
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("net", [[], nn.Sequential(), nn.Sequential(nn.Dropout(0.5))])
def test_a_net_without_layers_is_refused(net):
    with pytest.raises(ConversionError, match="net: has no layers; give a net of a synapse and a"):
        to_slayer(net, (4,))
