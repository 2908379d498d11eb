"""Neurons that a net would not run step after step are refused; containers of steps convert."""

import pytest
import torch
import torch.nn as nn
from spikingjelly.activation_based import functional, layer, neuron

from lava_bridge import ConversionError, check_equivalence, to_slayer, to_spikingjelly
from lava_bridge.exchange import BlockContainer

from .nets import spikes

IF = neuron.IFNode


def stepped(kind: str, *modules: nn.Module) -> nn.Module:
    """A StepModeContainer in step mode ``"m"``, whose arguments differ from release to release."""
    made = layer.StepModeContainer(kind == "stateful")
    for i, module in enumerate(modules):
        made.add_module(str(i), module)
    made.step_mode = "m"
    return made


class Merged(nn.Module):
    """Runs its layer and its neuron on all steps as one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.node = nn.Linear(4, 3), IF()

    def forward(self, x):
        return functional.seq_to_ann_forward(x, [self.linear, self.node])


def in_multi_step() -> nn.Module:
    net = layer.MultiStepContainer(nn.Linear(4, 3), IF())
    net[1].step_mode = "m"
    return net


def one_forgotten() -> nn.Module:
    net = nn.Sequential(
        layer.Linear(4, 3), IF(), layer.Linear(3, 3), nn.Sequential(neuron.LIFNode())
    )
    functional.set_step_mode(net, "m")
    net[1].step_mode = "s"
    return net


class Called(nn.Module):
    """A forward of its own around a net."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


MERGES = "which runs all steps as one batch, so that it keeps no state from one step to the next"
WRONG = {
    "batch": (
        lambda: layer.SeqToANNContainer(nn.Linear(4, 3), IF()),
        "1 (IFNode): is in a SeqToANNContainer, " + MERGES,
    ),
    "batch of a stateless container": (
        lambda: nn.Sequential(stepped("stateless", nn.Linear(4, 3), IF())),
        "0.1 (IFNode): is in a StepModeContainer, " + MERGES,
    ),
    "batch of a container within": (
        lambda: layer.SeqToANNContainer(BlockContainer(nn.Linear(4, 3), IF())),
        "0.neuron (CubaLIFNode): is in a SeqToANNContainer, " + MERGES,
    ),
    "time within steps": (
        in_multi_step,
        "1 (IFNode): is in step mode 'm' in a MultiStepContainer, which gives it one step at a",
    ),
    "one of another mode": (
        one_forgotten,
        "1 (IFNode): is in step mode 's', but 3.0 is run over time, so that it takes time for the "
        "batch; call functional.set_step_mode(net, 'm'), or 's'",
    ),
    "step by step behind a layer over time": (
        lambda: nn.Sequential(layer.SeqToANNContainer(nn.Linear(4, 3)), IF()),
        "1 (IFNode): is in step mode 's', but 0.0 is run over time, so that it takes time for",
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("traced", [False, True])
def test_a_neuron_that_would_keep_no_state_is_refused_in_one_line(name, traced):
    make, expected = WRONG[name]
    with pytest.raises(ConversionError) as caught:
        to_slayer(Called(make()) if traced else make(), (4,))
    place = expected if not traced else f"net.{expected}".replace("but ", "but net.")
    assert str(caught.value).startswith(place)
    assert "\n" not in str(caught.value)


def test_a_neuron_in_a_call_that_merges_time_and_batch_is_refused():
    net = nn.Sequential(Merged())
    with pytest.raises(ConversionError) as caught:
        to_slayer(net, (4,))
    expected = "0.node (IFNode): is called by seq_to_ann_forward, " + MERGES
    assert str(caught.value).startswith(expected)
    # It really forgets there: no step alone is enough for a spike.
    with torch.no_grad():
        net[0].linear.weight.fill_(0.2)
        net[0].linear.bias.zero_()
    x = torch.ones(5, 1, 4)
    assert not net(x).any()
    functional.reset_net(net)
    assert functional.multi_step_forward(x, [net[0].linear, net[0].node]).any()


RIGHT = {
    "container of steps": lambda: layer.MultiStepContainer(
        nn.Conv2d(2, 3, 3), IF(0.3), nn.Flatten(), nn.Linear(75, 4), neuron.LIFNode(v_threshold=0.1)
    ),
    "containers of both kinds": lambda: nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(2, 3, 3), nn.Flatten()),
        layer.MultiStepContainer(IF(0.3)),
        layer.SeqToANNContainer(nn.Linear(75, 4)),
        neuron.LIFNode(v_threshold=0.1, step_mode="m"),
    ),
    "containers with a state and without": lambda: nn.Sequential(
        stepped("stateless", nn.Conv2d(2, 3, 3)),
        stepped("stateful", IF(0.3), nn.Flatten(), nn.Linear(75, 4)),
        IF(0.2, step_mode="m"),
    ),
    "one step, whatever the container": lambda: nn.Sequential(
        layer.StepModeContainer(False), nn.Conv2d(2, 3, 3), IF(0.3)
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_containers_of_steps_convert_and_are_compared(name):
    torch.manual_seed(3)
    net = RIGHT[name]()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(3)
    x = spikes(12, 3, 2, 7, 7)
    blocks = to_slayer(net, (2, 7, 7), calibrate="weights")
    assert check_equivalence(to_spikingjelly(blocks), blocks, x).ok
    report = check_equivalence(net, blocks, x)
    assert report.claim == "drift"
    assert report.drift < 0.03
    assert all(part.fired_a for part in report.layers)


@pytest.mark.skipif(not hasattr(neuron, "SimpleIFNode"), reason="not in 0.0.0.0.14")
def test_simple_neurons_are_compared_too():
    torch.manual_seed(3)
    net = nn.Sequential(
        layer.Linear(6, 5), neuron.SimpleIFNode(0.3), layer.Linear(5, 4), neuron.IFNode(0.2)
    )
    functional.set_step_mode(net, "m")
    report = check_equivalence(net, to_slayer(net, (6,), calibrate="weights"), spikes(12, 3, 6))
    assert [part.name_a for part in report.layers] == ["1", "3"]
    assert report.drift < 0.05
    assert all(part.fired_a for part in report.layers)
