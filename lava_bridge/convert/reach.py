"""How far the states of a layer reach, by its weights alone."""

import math
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..ops.loihi.register import STATE_MAX
from ..slayer.neuron.base import STATE_OVER_WEIGHT
from .layers import FloatLayer

__all__ = ["channels_after", "expected_reach"]

# Inputs are taken to spike at random, half of the time, each by itself or all of a channel; sums
# then stay within so many standard deviations of their mean.
DEVIATIONS = 6


def expected_reach(layer: FloatLayer, channels: int) -> tuple[float, float]:
    """The largest state of one step, and how far down a step takes a voltage.

    Inputs spike at random half of the time, each by itself or those of a channel all or none, as
    behind an average pooling, where a current that wraps around would make spikes of inhibition.
    Below zero nothing resets: there a leak by tau lets the sums of tau steps gather. Without a
    leak no factor is small enough for all runs, and each halving of it doubles the spikes that
    differ: an IFNode is given the room of one step.

    Args:
        layer: The layer.
        channels: The channels of its input, where a Linear's is flat.
    """
    synapse: Any = layer.synapse
    if not synapse.weight.numel():
        return 0.0, 0.0
    weight = synapse.weight
    if isinstance(synapse, nn.ConvTranspose2d):  # [C_in, C_out / groups, H, W]
        weight = weight.unflatten(0, (synapse.groups, -1)).transpose(1, 2).flatten(0, 1)
    if weight.dim() == 2:
        weight = weight.unflatten(1, (math.gcd(channels, weight.shape[1]), -1))
    rows = weight.flatten(1)
    # Squares of what is larger overflow; in 64 bits all the others would only be copied.
    wide = torch.float64 if max(abs(x) for x in torch.aminmax(rows)) > 1e15 else rows.dtype
    planes = weight.flatten(2).sum(2, dtype=wide)
    bias = 0 if synapse.bias is None else synapse.bias
    sums = zip(_expected_sums(rows, wide), _expected_sums(planes, wide), strict=True)
    rise, fall = (torch.maximum(*pair) * layer.largest_input for pair in sums)
    up, down, lowest = (x.max().item() for x in (rise.maximum(rise + bias), fall, fall - bias))
    # The current has no bias. A voltage beyond the threshold, of 17 bits, fires wherever it ends.
    reach = max(up, down, lowest * getattr(layer.neuron, "tau", 1.0))
    # Each weight is rounded by up to half of its step of 2.
    rounding = rows.shape[1] * layer.largest_input * STATE_OVER_WEIGHT / STATE_MAX
    return reach / (1 - min(rounding, 0.5)), lowest


def _expected_sums(parts: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """The largest sums ``[O]`` up and down of parts ``[O, K]``, each there half of the time."""
    total = parts.sum(1, dtype=dtype)
    size, spread = (torch.linalg.vector_norm(parts, n, dim=1, dtype=dtype) for n in (1, 2))
    return [torch.minimum(size, DEVIATIONS * spread).add(x).div(2) for x in (total, -total)]


def channels_after(layer: FloatLayer, before: int) -> int:
    """Channels of what a layer gives, by those ``before`` it; 1: all neurons are alike."""
    synapse = layer.synapse
    if isinstance(synapse, nn.Conv2d | nn.ConvTranspose2d):
        return synapse.out_channels
    return 1 if isinstance(synapse, nn.Linear) else before
