"""What stands between a SpikingJelly net and slayer blocks: its layers, rewritten, in floats."""

from dataclasses import dataclass, field

import torch.nn as nn
from torch import Tensor

from ..exchange import CubaLIFNode

__all__ = ["SCALE", "ChannelAffine", "FloatLayer"]

# What a weight of 1 is on the chip, unless a neuron has a scale of its own.
SCALE = 1 << 6


@dataclass
class FloatLayer:
    """A synapse and the neuron that it drives, after the exact rewrites, weights still floats.

    Attributes:
        place: The synapse's path in the net, and its type, for errors and tables.
        synapse: A Linear, Conv2d or ConvTranspose2d (with a bias or without), a SumPool2d, or an
            Upsample by whole factors; a Flatten or VotingLayer, which have no neuron. It may share
            its weight with the user's net: it is read, never written.
        neuron: An IFNode or LIFNode with ``v_reset=0`` and ``decay_input=False``, or a CubaLIFNode.
            None: the last synapse of a net, whose sums are its output.
        rewrites: What was rewritten to come here, a phrase for each.
        neuron_place: The neuron's path in the net, and its type.
        scale: What a weight of 1 is on the chip, where no neuron says it.
        largest_input: The largest number that comes in; 1: spikes.
        outputs: The number of groups that a VotingLayer averages.
        weight_factor: Of a BlockContainer: by what it was multiplied before; None: it is of none.
    """

    place: str
    synapse: nn.Module
    neuron: nn.Module | None
    rewrites: list[str] = field(default_factory=list)
    neuron_place: str = ""
    scale: int = SCALE
    largest_input: int = 1
    outputs: int = 0
    weight_factor: float | None = None

    @property
    def quantised(self) -> bool:
        """Whether the net itself computes it with 8 bits, which a factor would change."""
        return self.weight_factor is not None or isinstance(self.neuron, CubaLIFNode)


class ChannelAffine(nn.Module):
    """``scale x + shift`` with numbers ``[C]``, on ``[N, C, *]``: a BatchNorm in evaluation."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, ``[N, C, *]``."""
        spread = -1, *[1] * (x.dim() - 2)
        return self.scale.to(x).reshape(spread) * x + self.shift.to(x).reshape(spread)
