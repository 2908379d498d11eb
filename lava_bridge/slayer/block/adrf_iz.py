"""Blocks of resonate-and-fire neurons that fire by their imaginary part, their threshold adaptive.

Source: ``lava.lib.dl.slayer.block.adrf_iz``.
"""

from ..neuron import adrf_iz
from ..synapse import complex
from . import base
from .plain import Average as Average, Flatten as Flatten, TimeDecimation as TimeDecimation


class AbstractADRFIZ(base.NeuronFamily):
    """Makes a block one of adaptive resonate-and-fire neurons with complex synapses."""

    neuron_class = adrf_iz.Neuron
    synapse_types = complex


# fmt: off
class Input(AbstractADRFIZ, base.AbstractInput): ...
class Dense(AbstractADRFIZ, base.AbstractDense): ...
class Conv(AbstractADRFIZ, base.AbstractConv): ...
class ConvT(AbstractADRFIZ, base.AbstractConvT): ...
class Pool(AbstractADRFIZ, base.AbstractPool): ...
class Unpool(AbstractADRFIZ, base.AbstractUnpool): ...
class KWTA(AbstractADRFIZ, base.AbstractKWTA): ...
class Recurrent(AbstractADRFIZ, base.AbstractRecurrent): ...
# fmt: on
