"""Blocks of adaptive resonate-and-fire neurons, quantised to 8 bits.

Source: ``lava.lib.dl.slayer.block.adrf``.
"""

from ..neuron import adrf
from ..synapse import complex
from . import base
from .plain import Average as Average, Flatten as Flatten, TimeDecimation as TimeDecimation


class AbstractADRF(base.NeuronFamily):
    """Makes a block one of adaptive resonate-and-fire neurons with complex synapses."""

    neuron_class = adrf.Neuron
    synapse_types = complex


# fmt: off
class Input(AbstractADRF, base.AbstractInput): ...
class Dense(AbstractADRF, base.AbstractDense): ...
class Conv(AbstractADRF, base.AbstractConv): ...
class ConvT(AbstractADRF, base.AbstractConvT): ...
class Pool(AbstractADRF, base.AbstractPool): ...
class Unpool(AbstractADRF, base.AbstractUnpool): ...
class KWTA(AbstractADRF, base.AbstractKWTA): ...
class Recurrent(AbstractADRF, base.AbstractRecurrent): ...
# fmt: on
