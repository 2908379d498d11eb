"""What stands between a SpikingJelly net and slayer blocks: its layers, rewritten, in floats."""

from dataclasses import dataclass, field

import torch.nn as nn

__all__ = ["FloatLayer"]


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
    """

    place: str
    synapse: nn.Module
    neuron: nn.Module | None
    rewrites: list[str] = field(default_factory=list)
