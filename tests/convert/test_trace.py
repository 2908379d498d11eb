"""Modules of their own forward give the chain of modules that they call, and stay as they were."""

import copy
import warnings

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, monitor, neuron
from spikingjelly.activation_based.functional import seq_to_ann_forward

from lava_bridge import ConversionError, to_slayer
from lava_bridge.convert.trace import leaves
from lava_bridge.exchange import CubaLIFNode

from ..conftest import traced_since
from .nets import described, run

IF = neuron.IFNode


class Forward(nn.Module):
    """A net of the given parts, whose forward is the given function ``(net, x)``."""

    def __init__(self, forward, **parts):
        super().__init__()
        self._run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self._run(self, x)


def traced(forward, **parts):
    return list(leaves(Forward(forward, **parts)))


# Calls of functions -----------------------------------------------------------------------------

WEIGHTS = {
    "linear": nn.Linear(18, 3),
    "conv": nn.Conv2d(2, 4, 3, 2, 1, groups=2),
    "conv1d": nn.Conv1d(2, 3, 2),
    "transpose": nn.ConvTranspose2d(2, 4, 3, 2, 1, 1, groups=2),
}
IMAGE, ROW = (5, 2, 6, 6), (5, 2, 6)
CALLS = {
    "torch.flatten": (lambda net, x: torch.flatten(x, 1), IMAGE, nn.Flatten()),
    "flatten": (lambda net, x: x.flatten(start_dim=1), IMAGE, nn.Flatten()),
    "view size": (lambda net, x: x.view(x.size(0), -1), IMAGE, nn.Flatten()),
    "view size()": (lambda net, x: x.view(x.size()[0], -1), IMAGE, nn.Flatten()),
    "view a number": (lambda net, x: x.view(-1, 72), IMAGE, nn.Flatten()),
    "reshape": (lambda net, x: torch.reshape(x, (x.shape[0], -1)), IMAGE, nn.Flatten()),
    "reshape slice": (lambda net, x: x.reshape((*x.shape[:1], -1)), IMAGE, nn.Flatten()),
    "avg_pool2d": (lambda net, x: F.avg_pool2d(x, 2), IMAGE, nn.AvgPool2d(2)),
    "avg_pool2d with all": (
        lambda net, x: F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False),
        IMAGE,
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    ),
    "avg_pool1d": (lambda net, x: F.avg_pool1d(x, kernel_size=2), ROW, nn.AvgPool1d(2)),
    "max_pool2d": (lambda net, x: F.max_pool2d(x, 3, 2, 1), IMAGE, nn.MaxPool2d(3, 2, 1)),
    "torch.max_pool2d": (
        lambda net, x: torch.max_pool2d(x, 2, 2, 0, 1, True),
        IMAGE,
        nn.MaxPool2d(2, 2, ceil_mode=True),
    ),
    "max_pool1d": (lambda net, x: F.max_pool1d(x, 2), ROW, nn.MaxPool1d(2)),
    "adaptive": (
        lambda net, x: F.adaptive_avg_pool2d(x, (1, 2)),
        IMAGE,
        nn.AdaptiveAvgPool2d((1, 2)),
    ),
    "adaptive 1d": (lambda net, x: F.adaptive_avg_pool1d(x, 1), ROW, nn.AdaptiveAvgPool1d(1)),
    "pad": (lambda net, x: F.pad(x, (1, 0, 2, 3)), IMAGE, nn.ZeroPad2d((1, 0, 2, 3))),
    "interpolate": (
        lambda net, x: F.interpolate(x, scale_factor=(2, 3)),
        IMAGE,
        nn.Upsample(scale_factor=(2, 3)),
    ),
    "linear": (
        lambda net, x: F.linear(x, net.linear.weight, bias=net.linear.bias),
        (5, 18),
        WEIGHTS["linear"],
    ),
    "conv2d": (
        lambda net, x: F.conv2d(x, net.conv.weight, net.conv.bias, 2, padding=1, groups=2),
        IMAGE,
        WEIGHTS["conv"],
    ),
    "conv1d": (
        lambda net, x: F.conv1d(x, net.conv1d.weight, net.conv1d.bias),
        ROW,
        WEIGHTS["conv1d"],
    ),
    "conv_transpose2d": (
        lambda net, x: F.conv_transpose2d(
            x, net.transpose.weight, net.transpose.bias, 2, 1, 1, groups=2
        ),
        IMAGE,
        WEIGHTS["transpose"],
    ),
    "dropout": (lambda net, x: F.dropout(x, 0.5, net.training), IMAGE, None),
    "dropout2d": (lambda net, x: F.dropout2d(x, training=net.training), IMAGE, None),
    "torch.dropout": (lambda net, x: torch.dropout(x, 0.5, net.training), IMAGE, None),
    "nothing": (lambda net, x: x.contiguous().clone().detach().float().data, IMAGE, None),
    "to": (lambda net, x: x.to("cpu").to(net.conv.weight.device, torch.float32), IMAGE, None),
}


LATER = {"reshape": traced_since("2.9")}  # sizes that are no plain numbers


@pytest.mark.parametrize("name", [pytest.param(n, marks=LATER.get(n, ())) for n in CALLS])
def test_a_call_of_a_function_comes_as_the_module_that_computes_the_same(name):
    forward, shape, expected = CALLS[name]
    net = Forward(forward, **WEIGHTS)
    assert net.training  # and yet the net is traced in evaluation
    found = list(leaves(net))
    assert described(found) == ([] if expected is None else [repr(expected)])
    if expected is not None:
        assert found[0][0].startswith("forward: ")
    x = torch.randn(shape)
    assert torch.equal(run(found, x), net.eval()(x))
    net.train()


def test_a_layer_made_of_weights_of_the_net_shares_them():
    weight, bias = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3))
    (_, found), *more = traced(lambda net, x: F.linear(x, net.w, net.b), w=weight, b=bias)
    assert not more
    assert found.weight is weight
    assert found.bias is bias
    net = Forward(lambda net, x: F.linear(x, net.kernel))
    net.register_buffer("kernel", torch.randn(3, 4))
    ((_, found),) = leaves(net)
    assert found.weight.data_ptr() == net.kernel.data_ptr()
    assert not found.weight.requires_grad


FLATTENS = {
    "flatten": lambda x: x.flatten(2),
    "torch.flatten": lambda x: torch.flatten(x, start_dim=2),
    "view": lambda x: x.view(x.shape[0], x.shape[1], -1),
    "reshape": lambda x: x.reshape(*x.shape[:2], -1),
    "added sizes": lambda x: x.reshape(x.size()[:2] + torch.Size([-1])),
    "seq_to_ann": lambda x: functional.seq_to_ann_forward(x, lambda y: y.flatten(1)),
    "seq_to_ann view": lambda x: seq_to_ann_forward(x, lambda y: y.view(y.size(0), -1)),
}


@pytest.mark.parametrize("name", FLATTENS)
def test_a_flatten_over_all_steps_leaves_time_and_batch(name):
    def forward(net, x):
        return FLATTENS[name](net.node(x))

    net = Forward(forward, node=IF(step_mode="m"))
    found = list(leaves(net))
    assert described(found) == [repr(net.node), repr(nn.Flatten())]
    x = torch.randn(3, 2, 4, 5, 5)
    expected = net(x)
    functional.reset_net(net)
    assert torch.equal(run(found, x, "m"), expected)


def test_a_view_by_unpacked_sizes_is_a_flatten():
    def forward(net, x):
        steps, batch, channels, height, width = x.shape
        return net.node(x).view(steps, batch, channels * height * width)

    assert described(traced(forward, node=IF(step_mode="m")))[1:] == [repr(nn.Flatten())]


# Structure --------------------------------------------------------------------------------------


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 2, bias=False)
        self.out = IF()

    def forward(self, x):
        return self.out(self.fc(torch.flatten(x, 1)))


class Net(nn.Module):
    """Layers under names, in a ModuleList and in a module in a module; one of them called twice."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), IF())
        self.pool = nn.MaxPool2d(2)
        self.stages = nn.ModuleList([nn.Conv2d(2, 2, 1, bias=False), IF()])
        self.tail = nn.ModuleDict({"head": nn.Sequential(Head())})
        self.pooled = True

    def forward(self, x):
        x = self.features(x)
        if self.pooled:
            x = self.pool(x)
        for stage in self.stages:
            x = stage(x)
        x = self.pool(x)
        return self.tail["head"](x)


PATHS = [
    "features.0",
    "features.1",
    "pool",
    "stages.0",
    "stages.1",
    "pool",
    "tail.head.0: flatten",
    "tail.head.0.fc",
    "tail.head.0.out",
]


def test_paths_are_those_in_the_net_and_modules_are_its_own():
    net = Net()
    found = list(leaves(net))
    assert [path for path, _ in found] == PATHS
    for path, module in found:
        if ":" not in path:
            assert module is net.get_submodule(path)


def test_lists_and_containers_around_a_module_of_its_own_forward_are_opened():
    net = Net()
    head, twice = Head(), nn.Identity()
    found = list(leaves([(net,), nn.Sequential(twice, head), [twice]]))
    assert [path for path, _ in found] == [
        *(f"0.0.{path}" for path in PATHS),
        *("1.0", "1.1: flatten", "1.1.fc", "1.1.out", "2.0"),
    ]
    assert [module for _, module in found][-3:] == [head.fc, head.out, twice]


def test_without_a_forward_of_its_own_a_net_is_opened_as_it_stands():
    twice = nn.Linear(2, 2)
    parts = [[nn.Sequential(twice, IF())], twice, 3]
    assert list(leaves(parts)) == [
        ("0.0.0", twice),
        ("0.0.1", parts[0][0][1]),
        ("1", twice),
        ("2", 3),
    ]
    assert list(leaves(twice)) == [("", twice)]


def test_step_mode_containers_and_functions_are_opened():
    conv, norm, node = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), IF(step_mode="m")

    def forward(net, x):
        x = net.node(net.block(x))
        x = functional.seq_to_ann_forward(x, [net.conv, net.norm])
        x = functional.multi_step_forward(x, net.conv)
        x = functional.chunk_multi_step_forward(2, x, net.node)
        return net.mode(seq_to_ann_forward(x, stateless_module=net.conv))

    found = traced(
        forward,
        conv=conv,
        norm=norm,
        node=node,
        block=layer.SeqToANNContainer(conv, norm),
        mode=layer.StepModeContainer(False, conv),
    )
    expected = [conv, norm, node, conv, norm, conv, node, conv, conv]
    assert [module for _, module in found] == expected
    assert functional.seq_to_ann_forward is seq_to_ann_forward


def test_a_sequential_with_a_forward_of_its_own_is_traced():
    class Reversed(nn.Sequential):
        def forward(self, x):
            return super().forward(self.first(x))

    net = Reversed(nn.Linear(2, 2), IF())
    net.add_module("first", nn.Linear(2, 2))
    assert [path for path, _ in leaves(net)] == ["first", "0", "1", "first"]


def test_a_forward_that_is_set_on_a_module_is_the_one_that_is_traced():
    net = nn.Sequential(nn.Linear(2, 2), IF())
    net.forward = lambda x: net[1](net[0](net[0](x)))
    assert [path for path, _ in leaves([net])] == ["0.0", "0.0", "0.1"]


def test_the_graph_module_of_a_trace_by_torch_gives_the_same_chain():
    class Taken(torch.fx.Tracer):
        def is_leaf_module(self, m, name):
            return super().is_leaf_module(m, name) or isinstance(m, neuron.BaseNode)

    net = Net()
    graph_module = torch.fx.GraphModule(net, Taken().trace(net))
    assert described(leaves(graph_module)) == described(leaves(net))


def test_a_rule_keeps_its_module_whole():
    net = Forward(lambda net, x: net.node(x), node=CubaLIFNode(0.5, 0.5))
    assert [module for _, module in leaves(net)] == [net.node]


# Time -------------------------------------------------------------------------------------------

STARTS = {
    "repeat": lambda x: x.unsqueeze(0).repeat(4, 1, 1, 1, 1),
    "repeat of a list": lambda x: torch.unsqueeze(x, 0).repeat([4, 1, 1, 1, 1]),
    "expand": lambda x: x[None].expand(4, -1, -1, -1, -1),
    "interleave": lambda x: x.unsqueeze(dim=0).repeat_interleave(4, dim=0),
    "stack": lambda x: torch.stack([x] * 4),
}
ENDS = {
    "mean": lambda x: x.mean(0),
    "torch.mean": lambda x: torch.mean(x, dim=0),
    "sum": lambda x: x.sum(dim=0),
    "divided sum": lambda x: x.sum(0) / 4,
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("end", ENDS)
def test_repeating_at_the_start_and_averaging_at_the_end_are_left_out_with_one_warning(start, end):
    def forward(net, x):
        steps = STARTS[start](x.float())
        return ENDS[end](net.body(steps).view(steps.shape[0], x.size(0), -1))

    net = Forward(forward, body=nn.Sequential(layer.Conv2d(1, 2, 3), IF()))
    functional.set_step_mode(net, "m")
    with pytest.warns(UserWarning, match="repeats its input .* averages .* caller") as caught:
        found = list(leaves(net))
    assert len(caught) == 1
    assert described(found) == [*map(repr, net.body), repr(nn.Flatten())]


def test_a_warning_of_to_slayer_points_at_its_caller():
    net = Forward(
        lambda net, x: net.body(x).mean(0),
        body=nn.Sequential(layer.Linear(3, 2, bias=False), IF()),
    )
    functional.set_step_mode(net, "m")
    with pytest.warns(UserWarning, match="every step") as caught:
        assert len(to_slayer(net, (3,))) == 2
    assert caught[0].filename == __file__


# The net afterwards -----------------------------------------------------------------------------


class Busy(nn.Module):
    """Its forward sets, appends, resets and counts."""

    def __init__(self, fails: bool):
        super().__init__()
        self.fc, self.node = nn.Linear(3, 3), IF(step_mode="m")
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("counter", torch.zeros(3))
        self.history, self.named, self.count, self.fails = [], {}, 0, fails
        self.plain = torch.zeros(2)

    def forward(self, x):
        functional.reset_net(self)
        self.plain += 1
        self.count += 1
        self.history.append(x)
        self.named["x"] = x
        self.last = x
        self.extra = nn.Identity()
        self.eval()
        self.seen = self.seen
        self.counter = self.counter + 1
        if self.fails:
            self.node.v_threshold = 2.0
            self.no_such_name(x)
        return self.node(self.fc(x))


def snapshot(net):
    containers = (dict, list, set)
    return {
        name: {
            key: copy.copy(value) if isinstance(value, containers) else value
            for key, value in module.__dict__.items()
        }
        for name, module in net.named_modules()
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name, attributes in before.items():
        assert attributes.keys() == after[name].keys()
        for key, value in attributes.items():
            now = after[name][key]
            if isinstance(value, dict):
                assert list(value) == list(now)
                assert all(value[k] is now[k] for k in value), key
            elif isinstance(value, list):
                assert all(a is b for a, b in zip(value, now, strict=True))
            else:
                assert value is now or (isinstance(value, set) and value == now), key


@traced_since("2.9")  # a buffer that is assigned
@pytest.mark.parametrize("fails", [False, True])
def test_the_net_is_as_it_was_also_after_an_error_and_nothing_in_it_is_run(fails):
    net = Busy(fails)
    net.node(torch.ones(1, 1, 3))  # a state, with no owner but the net
    runs = []
    for module in (net, net.fc, net.node):
        module.register_forward_hook(lambda *_: runs.append(1))
    net.fc.eval()
    before = snapshot(net)
    if fails:
        with pytest.raises(ValueError, match="no_such_name"):
            leaves(net)
    else:
        assert [path for path, _ in leaves(net)] == ["fc", "node"]
    assert_same(before, snapshot(net))
    assert net.training
    assert not net.fc.training
    assert torch.equal(net.plain, torch.zeros(2))
    assert not runs


# Hooks --------------------------------------------------------------------------------------------


def test_hooks_are_said_to_be_left_out_but_for_monitors_and_those_that_make_a_weight():
    net = nn.Sequential(
        layer.Linear(4, 3), IF(), nn.Sequential(layer.Linear(3, 2, bias=False), IF())
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor.OutputMonitor(net, IF)
        monitor.InputMonitor(net, IF)
        to_slayer(net, (4,), calibrate="weights")
    hooks = [net[2][0].register_forward_pre_hook(lambda _, x: (1 - x[0],))]
    for given in (net, [*net], Forward(lambda self, x: self.net(x), net=net)):
        with pytest.warns(UserWarning, match=r"2.0 \(Linear\): has a forward hook, which the bl"):
            to_slayer(given, (4,), calibrate="weights")
    hooks.append(net.register_forward_hook(lambda *_: None))
    with pytest.warns(UserWarning, match=r"net \(Sequential\): has a forward hook \(one of 2 in"):
        to_slayer(net, (4,), calibrate="weights")
    assert all(hook.id in hook.hooks_dict_ref() for hook in hooks)


@pytest.mark.parametrize("ends", ["", "refused"])
def test_a_forward_that_draws_numbers_leaves_the_generator_as_it_was(ends):
    def forward(self, x):
        torch.randn(3)
        return self.fc(x).sigmoid() if ends else self.node(self.fc(x))

    net = Forward(forward, fc=layer.Linear(4, 3), node=IF())
    before = torch.get_rng_state()
    if ends:
        with pytest.raises(ConversionError, match="sigmoid"):
            to_slayer(net, (4,))
    else:
        to_slayer(net, (4,))
    assert torch.equal(torch.get_rng_state(), before)
