"""Blocks of adaptive leaky integrate-and-fire neurons, quantised to 8 bits.

Source: ``lava.lib.dl.slayer.block.alif``.
"""

from ..neuron import alif
from ..synapse import layer
from . import base
from .plain import Average as Average, Flatten as Flatten, TimeDecimation as TimeDecimation


class AbstractALIF(base.NeuronFamily):
    """Makes a block one of adaptive leaky integrate-and-fire neurons with real synapses."""

    neuron_class = alif.Neuron
    synapse_types = layer


# fmt: off
class Input(AbstractALIF, base.AbstractInput): ...
class Dense(AbstractALIF, base.AbstractDense): ...
class Conv(AbstractALIF, base.AbstractConv): ...
class ConvT(AbstractALIF, base.AbstractConvT): ...
class Pool(AbstractALIF, base.AbstractPool): ...
class Unpool(AbstractALIF, base.AbstractUnpool): ...
class KWTA(AbstractALIF, base.AbstractKWTA): ...
class Recurrent(AbstractALIF, base.AbstractRecurrent): ...
# fmt: on
