r"""The blocks, without their neuron: what all neuron families share.

A family (``block.cuba``, ...) makes its blocks by mixing :class:`NeuronFamily`, which knows its
neuron and its synapses, into the abstract classes here.

A block takes and gives ``[N, C, T]`` or ``[N, C, H, W, T]``. With ``count_log`` it gives a pair:
that and its event rate (None where there is no neuron). Source: ``lava.lib.dl.slayer.block.base``.
"""

from .common import Block, NeuronFamily, SynapticBlock, step_delay
from .layers import (
    AbstractAffine,
    AbstractConv,
    AbstractConvT,
    AbstractDense,
    AbstractPool,
    AbstractUnpool,
    DenseFields,
)
from .plain import AbstractAverage, AbstractFlatten, AbstractInput, AbstractTimeDecimation
from .recurrent import AbstractKWTA, AbstractRecurrent

__all__ = [
    "AbstractAffine",
    "AbstractAverage",
    "AbstractConv",
    "AbstractConvT",
    "AbstractDense",
    "AbstractFlatten",
    "AbstractInput",
    "AbstractKWTA",
    "AbstractPool",
    "AbstractRecurrent",
    "AbstractResidual",
    "AbstractTimeDecimation",
    "AbstractUnpool",
    "Block",
    "DenseFields",
    "NeuronFamily",
    "SynapticBlock",
    "step_delay",
]


class AbstractResidual(Block):
    """Named in slayer, without content there as here."""
