"""The nets that the tests in the tests compare, as the head of a test file."""

__all__ = ["NETS"]

NETS = """
import copy
import pytest, torch
from torch import nn
from spikingjelly.activation_based import neuron
import lava_bridge

torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(20, 5, bias=False), neuron.IFNode(step_mode="m"))
NET[0].weight.data *= 2
BLOCKS = lava_bridge.to_slayer(NET, (20,))
TWIN = lava_bridge.to_spikingjelly(BLOCKS)
OTHER = copy.deepcopy(BLOCKS)
OTHER[-1].neuron.threshold = 0.5
FLOAT = copy.deepcopy(NET)
FLOAT[1].v_threshold = 0.9
X = (torch.rand(12, 4, 20) < 0.5).float()
"""
