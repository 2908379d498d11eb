"""What an adapter's parts may be: any module that SpikingJelly resets, states that are views."""

import copy

import pytest
import torch
import torch.nn as nn
from spikingjelly.activation_based import layer, neuron

from lava_bridge.exchange import AsSlayer, AsSpikingJelly

from .strategies import spikes as drawn


def spikes(*shape):
    return drawn(shape, 1)


class Counter(nn.Module):
    """A user's module with a state, none of SpikingJelly's."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x_seq):
        self.calls += 1
        return x_seq + self.calls

    def reset(self):
        self.calls = 0


def test_as_slayer_resets_also_what_is_no_module_of_spikingjellys():
    x = spikes(2, 3, 4)
    for persistent, expected in ((False, 1), (True, 2)):
        adapter = AsSlayer(Counter(), persistent)
        adapter(x)
        assert torch.equal(adapter(x), x + expected)
        assert torch.equal(adapter(x[:1]), x[:1] + 1), "a batch of another size"


class Twice(nn.Sequential):
    """A user's module, whose forward is its own."""

    def forward(self, x):
        return super().forward(super().forward(x))


def test_a_sequential_with_a_forward_of_its_own_is_run_as_it_is():
    x = spikes(3, 2, 4)
    assert torch.equal(AsSpikingJelly(Twice(Counter()), "m")(x), x + 1 + 2)


def test_as_slayer_goes_on_from_a_state_that_is_a_view():
    x = spikes(2, 4, 6)
    linear, recurrent = layer.Linear(4, 4), layer.LinearRecurrentContainer(neuron.IFNode(), 4, 4)
    linear.weight.data.fill_(0.2)
    adapter = AsSlayer([linear, recurrent], persistent_state=True)
    again = copy.deepcopy(adapter)
    adapter(x)
    y = adapter(x)
    y.sum().backward()
    assert adapter.module[0].weight.grad.any()
    with torch.no_grad():
        first = again(x)
        assert torch.equal(again(x), y)
    assert not torch.equal(first, y), "the state went on"


@pytest.mark.parametrize("adapter", [AsSlayer, lambda parts: AsSpikingJelly(parts, "m")])
def test_a_module_list_is_a_list_of_modules(adapter):
    parts = nn.ModuleList([nn.Identity(), nn.Identity()])
    x = spikes(3, 2, 4)
    assert torch.equal(adapter(parts)(x), x)
