"""Small nets behind an encoder."""

from typing import Any

import torch
import torch.nn as nn

from lava_bridge import Encoder, slayer
from lava_bridge.encoder import GradedInput, InputEncoder

INPUT = (1, 8, 8)
PARAMS = {"current_decay": 1, "voltage_decay": 0.25}


def blocks(front: InputEncoder, threshold: float = 0.5) -> nn.Sequential:
    """Blocks after an encoder that gives ``[C, H, W]``; the first has this threshold."""
    assert front.shape is not None
    channels, height, width = front.shape
    block: Any = slayer.block.cuba
    first = block.Conv({**PARAMS, "threshold": threshold}, channels, 4, 3, delay_shift=False)
    dense = block.Dense(
        {**PARAMS, "threshold": 0.5}, 4 * (height - 2) * (width - 2), 5, delay_shift=False
    )
    with torch.no_grad():
        first.synapse.weight.mul_(3)
        dense.synapse.weight.mul_(3)
    net = nn.Sequential(front, block.Input(delay_shift=False), first, block.Flatten(), dense)
    shape = front.shape
    for layer in net[1:]:
        shape = layer.infer_shape(shape)
    return net


def direct(**conv: Any) -> nn.Sequential:
    """Behind a convolution with a bias and leaky neurons, for inputs of shape INPUT."""
    return blocks(Encoder(nn.Conv2d(1, 3, 3, **conv), 0.4, tau=2.5, input_shape=INPUT))


def graded() -> nn.Sequential:
    """Behind integers of 8 bits, for inputs of shape INPUT."""
    return blocks(GradedInput(input_shape=INPUT), threshold=0.5 * 255)
