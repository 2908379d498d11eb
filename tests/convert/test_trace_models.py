"""SpikingJelly's own nets and random ones give the chain of their modules."""

import importlib
import sys
import types
import warnings

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import given, strategies as st
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import parametric_lif_net

from lava_bridge import to_slayer
from lava_bridge.convert.trace import leaves

from .nets import described, run

IF = neuron.IFNode


@pytest.fixture
def model(monkeypatch):
    """Imports a model of SpikingJelly's; these want one function of torchvision."""
    for name in ("torchvision", "torchvision.models", "torchvision.models.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["torchvision.models.utils"].load_state_dict_from_url = None
    return lambda name: importlib.import_module(f"spikingjelly.activation_based.model.{name}")


@pytest.mark.parametrize("name", parametric_lif_net.__all__)
@pytest.mark.parametrize("node", [IF, neuron.LIFNode, neuron.ParametricLIFNode])
def test_nets_of_the_plif_paper_give_their_layers(name, node):
    net = getattr(parametric_lif_net, name)(channels=4, spiking_neuron=node)
    found = list(leaves(net))
    assert found == [(f"conv_fc.{i}", module) for i, module in enumerate(net.conv_fc)]


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_spiking_vgg_gives_its_layers_with_the_flatten_between(model, step_mode, batch_norm):
    net = model("spiking_vgg").SpikingVGG(
        [4, "M", 8, "M"], batch_norm, spiking_neuron=IF, init_weights=False, num_classes=3
    )
    net.avgpool = layer.AdaptiveAvgPool2d((2, 2))
    net.classifier = nn.Sequential(layer.Linear(32, 6), IF(), layer.Dropout(), layer.Linear(6, 3))
    functional.set_step_mode(net, step_mode)
    found = list(leaves(net))
    expected = [*net.features, net.avgpool, nn.Flatten(), *net.classifier]
    assert described(found) == list(map(repr, expected))
    assert [path for path, _ in found if ":" in path] == ["forward: flatten"]
    net.eval()
    x = (torch.rand(*([3] if step_mode == "m" else []), 2, 3, 8, 8) < 0.5).float()
    expected_output = net(x)
    functional.reset_net(net)
    assert torch.equal(run(found, x, step_mode), expected_output)


@pytest.mark.parametrize(
    ("name", "options", "place"),
    [
        (
            "sew_resnet",
            {"cnf": "ADD"},
            "layer1.0 (BasicBlock): adds the outputs of maxpool and sn2",
        ),
        ("sew_resnet", {"cnf": "AND"}, "layer1.0 (BasicBlock): multiplies the outputs of maxpool"),
        ("spiking_resnet", {}, "layer1.0 (BasicBlock): adds the outputs of bn2 and maxpool"),
    ],
)
def test_a_residual_net_is_refused_where_it_joins(model, name, options, place):
    net = getattr(model(name), f"{name}18")(spiking_neuron=IF, **options)
    with pytest.raises(ValueError) as caught:
        leaves(net)
    assert str(caught.value).startswith(place)


def test_the_wrapper_of_spikingjellys_tutorial_converts():
    class CSNN(nn.Module):
        def __init__(self, steps: int):
            super().__init__()
            self.T = steps
            self.conv_fc = nn.Sequential(
                layer.Conv2d(1, 2, 3, bias=False),
                IF(),
                layer.Flatten(),
                layer.Linear(2 * 36, 3, bias=False),
                IF(),
            )
            functional.set_step_mode(self, "m")

        def forward(self, x):
            x_seq = x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)
            x_seq = self.conv_fc(x_seq)
            return x_seq.mean(0)

    net = CSNN(5)
    with pytest.warns(UserWarning, match="net \\(CSNN\\): repeats"):
        blocks = to_slayer(net, (1, 8, 8))
    expected = to_slayer(net.conv_fc, (1, 8, 8))
    x = torch.rand(2, 1, 8, 8, 5).round()
    assert torch.equal(blocks(x), expected(x))


# Random chains ----------------------------------------------------------------------------------

STEPS = {
    "conv": (lambda: nn.Conv2d(2, 2, 3, padding=1), None),
    "node": (IF, None),
    "norm": (lambda: nn.BatchNorm2d(2), None),
    "max": (lambda: nn.MaxPool2d(2, 1), lambda x: F.max_pool2d(x, 2, 1)),
    "average": (lambda: nn.AvgPool2d(3, 1, 1), lambda x: F.avg_pool2d(x, 3, stride=1, padding=1)),
    "pad": (lambda: nn.ZeroPad2d((1, 1, 0, 0)), lambda x: F.pad(x, [1, 1, 0, 0])),
    "up": (lambda: nn.Upsample(scale_factor=2), lambda x: F.interpolate(x, scale_factor=2)),
    "own conv": (lambda: nn.Conv2d(2, 2, 1), "conv"),
}


class Stage(nn.Module):
    """Runs its parts, each a module or a function, in order; owns the modules of functions."""

    def __init__(self, parts, owned=()):
        super().__init__()
        self.parts = parts
        self.owned = nn.ModuleList([*(p for p in parts if isinstance(p, nn.Module)), *owned])

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


def as_function(step: str, module: nn.Module):
    function = STEPS[step][1]
    if function == "conv":
        return lambda x: F.conv2d(x, module.weight, bias=module.bias)
    return function


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[nn.Module], nn.Module, str]:
    """Modules in order, a net that runs them (nested, some as functions), and its step mode."""
    modules: list[nn.Module] = []
    step_mode = draw(st.sampled_from("sm"))

    def over_time(part):
        """In step mode m, what is of torch.nn takes all steps as one batch."""
        if step_mode == "s" or isinstance(part, IF):
            return part
        if isinstance(part, nn.Module) and draw(st.booleans()):
            return layer.SeqToANNContainer(part)
        return lambda x: functional.seq_to_ann_forward(x, part)

    def level(depth: int) -> nn.Module:
        parts, first = [], len(modules)
        for _ in range(draw(st.integers(0, 4))):
            if depth and draw(st.booleans()):
                parts.append(level(depth - 1))
                continue
            step = draw(st.sampled_from(sorted(STEPS)))
            module = STEPS[step][0]()
            modules.append(module)
            function = as_function(step, module)
            parts.append(over_time(function if function and draw(st.booleans()) else module))
        if all(isinstance(part, nn.Module) for part in parts) and draw(st.booleans()):
            return nn.Sequential(*parts)
        return Stage(parts, modules[first:])

    # A neuron first, which says the step mode.
    modules.append(IF())
    parts, flatten = [modules[0], level(2)], nn.Flatten()
    modules.append(flatten)
    if draw(st.booleans()):
        net = Stage([*parts, over_time(flatten)], [flatten])
    elif step_mode == "s":
        net = Stage([*parts, lambda x: x.view(x.size(0), -1)])
    else:
        net = Stage([*parts, lambda x: x.view(*x.shape[:2], -1)])
    functional.set_step_mode(net, step_mode)
    return modules, net, step_mode


@given(chains())
def test_any_chain_gives_the_list_of_its_modules_and_computes_what_they_compute(chain):
    modules, net, step_mode = chain
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(leaves(net))
    assert described(found) == list(map(repr, modules))
    for (path, module), expected in zip(found, modules, strict=True):
        assert module is expected or ":" in path
        assert getattr(module, "weight", None) is getattr(expected, "weight", None)
    net.eval()
    x = torch.randn(*([3] if step_mode == "m" else []), 2, 2, 4, 4)
    expected_output = net(x)
    functional.reset_net(net)
    assert torch.equal(run(found, x, step_mode), expected_output)
