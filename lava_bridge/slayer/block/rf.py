"""Blocks of resonate-and-fire neurons (phase threshold), quantised to 8 bits.

Source: ``lava.lib.dl.slayer.block.rf``.
"""

from ..neuron import rf
from ..synapse import complex
from . import base
from .plain import Average as Average
from .plain import Flatten as Flatten
from .plain import TimeDecimation as TimeDecimation


class AbstractRF(base.NeuronFamily):
    """Makes a block one of resonate-and-fire neurons (phase threshold) with complex synapses."""

    neuron_class = rf.Neuron
    synapse_types = complex


# fmt: off
class Input(AbstractRF, base.AbstractInput): ...
class Affine(AbstractRF, base.AbstractAffine): ...
class Dense(AbstractRF, base.AbstractDense): ...
class Conv(AbstractRF, base.AbstractConv): ...
class ConvT(AbstractRF, base.AbstractConvT): ...
class Pool(AbstractRF, base.AbstractPool): ...
class Unpool(AbstractRF, base.AbstractUnpool): ...
class KWTA(AbstractRF, base.AbstractKWTA): ...
class Recurrent(AbstractRF, base.AbstractRecurrent): ...
# fmt: on
