"""Forwards that are no chain of layers: one line that names the module and the call."""

import operator

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron

from lava_bridge import ConversionError, to_slayer
from lava_bridge.convert.trace import leaves

IF = neuron.IFNode


class Block(nn.Module):
    """Two layers, a neuron and a forward that is given."""

    def __init__(self, forward, step_mode="s"):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.node = IF(step_mode=step_mode)
        self.register_buffer("mask", torch.ones(2, 2, 1, 1))
        self.loose = [nn.Conv2d(2, 2, 1)]
        self.forward = forward.__get__(self)

    def forward(self, x):
        raise AssertionError("another forward runs")


def net_of(forward, step_mode="s"):
    block = nn.Sequential(IF(step_mode=step_mode), Block(forward, step_mode))
    return nn.Sequential(nn.Conv2d(2, 2, 3), block, IF(step_mode=step_mode))


def loop(net, x):
    total = net.a(x)
    for _ in range(3):
        total += net.a(x)
    return total / 4


def sum_over_time(net, x):
    total = 0
    for _ in range(3):
        total = total + net.a(x)
    return total


def branch(net, x):
    if x.mean() > 0.5:
        return net.a(x)
    return net.b(x)


def by_shape(net, x):
    return net.a(x) if x.dim() == 4 else net.b(x)


def clamp(net, x):
    net.a.weight.data.clamp_(-1, 1)
    return net.a(x)


def in_place(net, x):
    x = net.a(x)
    x.mul_(2)
    return net.b(x)


def replace(net, x):
    net.a.weight = nn.Parameter(torch.ones(2, 2, 1, 1))
    return net.a(x)


def set_data(net, x):
    net.a.weight.data = torch.ones(2, 2, 1, 1)
    return net.a(x)


AT = "1.1 (Block): "
# The forward and what the message says after the place.
NO_CHAINS = {
    "residual": (lambda net, x: x + net.b(net.a(x)), "adds the outputs of 1.0 and b"),
    "in-place residual": (
        lambda net, x: operator.iadd(net.a(x), x),
        "adds the outputs of a and 1.0",
    ),
    "of one module": (lambda net, x: net.a(x) + net.b(x), "adds the outputs of a and b"),
    "of functions": (
        lambda net, x: F.max_pool2d(x, 2) - x.contiguous(),
        "subtracts the outputs of max_pool2d and contiguous",
    ),
    "product": (lambda net, x: net.a(x).mul(net.b(x)), "multiplies the outputs of a and b"),
    "concat": (
        lambda net, x: torch.cat([net.a(x), x, net.b(x)], 1),
        "concatenates the outputs of a",
    ),
    "two inputs of a module": (
        lambda net, x: net.node(net.a(x), x),
        "calls 1.1.node on the outputs",
    ),
    "two outputs": (lambda net, x: (x, net.a(x)), None),
    "loop over time": (loop, "leave a loop over time to the caller"),
    "sum over time": (sum_over_time, "leave a loop over time to the caller"),
    "unused": (lambda net, x: (net.b(x), net.a(x))[1], "does not use the output of 1.1.b"),
    "in place": (in_place, "does not use the output of 1.1: mul_"),
    "branch": (branch, "branches on a tensor or its shape (test_trace_refusals.py, line "),
    "shape": (by_shape, "branches on a tensor or its shape"),
    "iteration": (lambda net, x: next(net.a(part) for part in x), "loops over a tensor"),
    "length": (
        lambda net, x: net.a(x) * len(x),
        "loops over a tensor or its shape (test_trace_ref",
    ),
    "an error of its own": (lambda net, x: net.nothing(x), "AttributeError: 'Block' object has no"),
    "another input": (lambda net, x, y: net.a(x), "missing a required argument: 'y'"),
    "loose module": (lambda net, x: net.loose[0](x), "calls a Conv2d that is not registered"),
    "changed weights": (clamp, "changes its own weights or buffers in the forward (clamp_)"),
    "data of weights": (set_data, "sets .data of a tensor"),
    "other weights": (replace, None),
    "no signal": (lambda net, x: net.mask, None),
    # Functions that are no layers.
    "half precision": (lambda net, x: net.a(x.to(torch.float16)), "into torch.float16"),
    "relu": (lambda net, x: F.relu(net.a(x)), "calls relu"),
    "scaling": (lambda net, x: 2 * x, "calls mul"),
    "doubling": (lambda net, x: x + x, "calls add"),
    "softmax": (lambda net, x: x.softmax(1), "calls softmax"),
    "slice": (lambda net, x: x[:, :1], "takes a part of a signal"),
    "transpose": (lambda net, x: net.a(x.T), "takes .T of a signal"),
    "computed weight": (lambda net, x: F.conv2d(x, net.a.weight * net.mask), "computes its weight"),
    "dropout": (lambda net, x: F.dropout(x), "training=self.training"),
    "indices": (lambda net, x: F.max_pool2d(x, 2, return_indices=True)[0], "with_indices"),
    "pad with ones": (lambda net, x: F.pad(x, (1, 1, 1, 1), value=1.0), "pads with"),
    "reflect": (lambda net, x: F.pad(x, (1, 1, 1, 1), "reflect"), "mode='reflect'"),
    "pad channels": (lambda net, x: F.pad(x, (0, 0, 0, 0, 1, 1)), "pads with"),
    "bilinear": (lambda net, x: F.interpolate(x, scale_factor=2, mode="bilinear"), "bilinear"),
    "half": (lambda net, x: F.interpolate(x, scale_factor=1.5), "scale_factor=1.5"),
    "to a size": (lambda net, x: F.interpolate(x, (8, 8)), "size=(8, 8)"),
    "flatten time and batch": (lambda net, x: x.flatten(0, 1), "flattens dimensions 0 to 1"),
    "flatten all": (lambda net, x: torch.flatten(x), "flattens dimensions 0 to -1"),
    "flatten of one step": (lambda net, x: x.flatten(2), "start_dim=1"),
    "view of pixels": (lambda net, x: x.view(-1, x.size(1)), "another shape than a Flatten"),
    "view of channels": (lambda net, x: x.view(x.shape[0], x.shape[1], -1), "another shape"),
    "view of a fixed batch": (lambda net, x: x.view(32, -1), "use flatten(start_dim=1)"),
    "view of a dtype": (lambda net, x: x.view(torch.int32), "another shape"),
    "view by another's shape": (lambda net, x: x.view(net.mask.shape[0], -1), "another shape"),
    "mean of pixels": (lambda net, x: x.mean((2, 3)), "nn.AdaptiveAvgPool2d(1)"),
    "mean of all": (lambda net, x: x.mean(), "averages or sums over dimensions None"),
    "mean of the batch": (lambda net, x: x.mean(0), "which is the batch"),
    "signal elsewhere": (lambda net, x: F.linear(net.mask, x), "in an unusual place"),
    "unknown argument": (lambda net, x: x.sum(0, dtype=torch.float64), "with arguments"),
}


@pytest.mark.parametrize("name", NO_CHAINS)
def test_what_is_no_chain_is_refused_with_its_place(name):
    forward, expected = NO_CHAINS[name]
    net = net_of(forward)
    with pytest.raises(ConversionError) as caught:
        leaves(net)
    message = str(caught.value)
    assert "\n" not in message
    assert "torch.fx" not in message
    if expected:
        assert message.startswith(AT)
        assert expected in message, message


IN_TIME = {
    "flatten of all steps": (lambda net, x: net.node(x).flatten(1), "start_dim=2"),
    "view of the batch": (lambda net, x: x.view(x.size(0), -1), "only (T, N, -1)"),
    "interpolate": (lambda net, x: F.interpolate(x, scale_factor=2), "seq_to_ann_forward"),
    "mean in the middle": (lambda net, x: net.node(x.mean(0)), "averages or sums over time; only"),
    "unsqueeze in the middle": (lambda net, x: x.unsqueeze(0), "adds a dimension; only"),
    "repeat in the middle": (
        lambda net, x: x.unsqueeze(0).repeat(4, 1, 1, 1, 1),
        "adds a dimension; only unsqueeze(0).repeat(T, 1, ...) over time at the very start",
    ),
    "stack in the middle": (lambda net, x: torch.stack([x, x]), "stacks its input over time; only"),
    "division": (lambda net, x: x / 4, "divides; only"),
    "repeat of the batch": (lambda net, x: x.repeat(1, 4, 1, 1, 1), "other dimensions than time"),
}


@pytest.mark.parametrize("name", IN_TIME)
def test_time_is_touched_only_at_the_ends(name):
    forward, expected = IN_TIME[name]
    with pytest.raises(ConversionError) as caught:
        leaves(net_of(forward, "m"))
    message = str(caught.value)
    assert message.startswith("1.1"), message
    assert expected in message, message


def test_a_repeat_without_an_axis_for_time_is_refused():
    net = Block(lambda net, x: net.node(x.repeat(4, 1, 1, 1, 1)), "m")
    with pytest.raises(ConversionError, match="repeats its input; only unsqueeze"):
        leaves(net)


def test_two_outputs_are_refused_by_the_net_that_returns_them():
    net = Block(lambda net, x: [x, net.a(x)])
    with pytest.raises(ConversionError, match=r"^net \(Block\): returns 2 output\(s\)"):
        leaves(net)
    for nothing in (lambda net, x: net.mask, lambda net, x: None, lambda net, x: (3, net.mask)):
        with pytest.raises(ConversionError, match=r"^net \(Block\): returns what is not computed"):
            leaves(Block(nothing))


def test_modules_of_libraries_and_kinds_of_known_ones_are_left_to_the_rules():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    class Own(neuron.BaseNode):
        pass

    for module in (Standardised(2, 2, 1), Own(), layer.NeuNorm(2, 4, 4), nn.PReLU()):
        assert list(leaves([Block(lambda net, x: net.a(x)), module]))[-1] == ("1", module)
        with pytest.raises(ConversionError, match=rf"^1 \({type(module).__name__}\): no rule"):
            to_slayer(
                [Block(lambda net, x: net.node(net.a(x))), module] and [nn.Identity(), module]
            )


def test_spikingjellys_functions_are_its_own_after_a_refusal():
    before = functional.seq_to_ann_forward, functional.multi_step_forward
    with pytest.raises(ConversionError):
        leaves(Block(lambda net, x: functional.seq_to_ann_forward(x, [net.a, F.relu])))
    assert before == (functional.seq_to_ann_forward, functional.multi_step_forward)


def test_a_loop_over_the_steps_is_refused_as_one():
    def forward(net, x):
        return torch.stack([net.node(net.a(x[t])) for t in range(x.shape[0])])

    place = r"^net \(Block\): needs a size of the signal as a number, as a loop over time does "
    with pytest.raises(ConversionError, match=place) as caught:
        leaves(Block(forward))
    assert "\n" not in str(caught.value)


# Layers that a forward gives other numbers --------------------------------------------------------


class Sets(nn.Module):
    """A layer and a neuron, after a forward that sets something of them."""

    def __init__(self, sets, step_mode="m"):
        super().__init__()
        self.first, self.fire = layer.Linear(6, 5), neuron.LIFNode()
        self.learned = nn.Parameter(torch.tensor(-2.0))
        self.sets = sets
        functional.set_step_mode(self, step_mode)

    def forward(self, x):
        self.sets(self)
        return self.fire(self.first(x))


def setting(name, value):
    return lambda net: setattr(net.fire, name, value)


@pytest.mark.parametrize(
    ("sets", "name"),
    [
        (lambda net: setattr(net.fire, "v_threshold", torch.sigmoid(net.learned)), "v_threshold"),
        (setting("v_threshold", 0.1), "v_threshold"),
        (setting("v_threshold", torch.tensor(0.1)), "v_threshold"),
        (setting("tau", 4.0), "tau"),
        (setting("v_reset", None), "v_reset"),
        (setting("decay_input", False), "decay_input"),
        (setting("step_mode", "s"), "step_mode"),
        (setting("v", 0.3), "v"),
        (lambda net: setattr(net.first, "step_mode", "s"), "step_mode"),
    ],
)
def test_a_forward_that_sets_a_layers_numbers_is_refused(sets, name):
    net = Sets(sets).eval()
    before = dict(net.fire.__dict__), net.fire.v
    with pytest.raises(
        ConversionError, match=f"^net: its forward sets {name} of a L[Ii]"
    ) as caught:
        to_slayer(net, (6,))
    assert len(str(caught.value).splitlines()) == 1
    assert (net.fire.__dict__, net.fire.v) == before


def test_a_forward_that_resets_a_neuron_in_each_step_is_refused():
    reset = functional.reset_net
    with pytest.raises(ConversionError, match=r"^net: its forward sets v of a LIFNode"):
        to_slayer(Sets(reset, "s").eval(), (6,))


@pytest.mark.parametrize(
    "sets",
    [
        functional.reset_net,
        lambda net: net.fire.reset(),
        setting("tau", 2.0),
        setting("store_v_seq", True),
    ],
)
def test_a_forward_that_changes_nothing_by_what_it_sets_converts(sets):
    assert len(to_slayer(Sets(sets).eval(), (6,))) == 2


def test_a_sum_of_two_signals_is_not_taken_for_a_loop_over_time():
    pool = torch.nn.MaxPool2d(2)
    net = net_of(lambda net, x: pool(net.a(x)) + pool(net.b(x)))
    net.pool = pool
    with pytest.raises(ConversionError, match="adds the outputs of") as caught:
        leaves(net)
    assert "loop" not in str(caught.value)
