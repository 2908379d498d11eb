"""Blocks of resonate-and-fire neurons with Izhikevich's reset, quantised to 8 bits.

Source: ``lava.lib.dl.slayer.block.rf_iz``.
"""

from ..neuron import rf_iz
from ..synapse import complex
from . import base
from .plain import Average as Average
from .plain import Flatten as Flatten
from .plain import TimeDecimation as TimeDecimation


class AbstractRFIz(base.NeuronFamily):
    """Makes a block one of resonate-and-fire neurons, reset, with complex synapses."""

    neuron_class = rf_iz.Neuron
    synapse_types = complex


# fmt: off
class Input(AbstractRFIz, base.AbstractInput): ...
class Affine(AbstractRFIz, base.AbstractAffine): ...
class Dense(AbstractRFIz, base.AbstractDense): ...
class Conv(AbstractRFIz, base.AbstractConv): ...
class ConvT(AbstractRFIz, base.AbstractConvT): ...
class Pool(AbstractRFIz, base.AbstractPool): ...
class Unpool(AbstractRFIz, base.AbstractUnpool): ...
class KWTA(AbstractRFIz, base.AbstractKWTA): ...
class Recurrent(AbstractRFIz, base.AbstractRecurrent): ...
# fmt: on
