"""Blocks of CUBA LIF neurons, quantised to 8 bits.

Source: ``lava.lib.dl.slayer.block.cuba``.
"""

from ..neuron import cuba
from ..synapse import layer
from . import base
from .plain import Average as Average
from .plain import Flatten as Flatten
from .plain import TimeDecimation as TimeDecimation


class AbstractCuba(base.NeuronFamily):
    """Makes a block one of CUBA LIF neurons with real synapses."""

    neuron_class = cuba.Neuron
    synapse_types = layer


# fmt: off
class Input(AbstractCuba, base.AbstractInput): ...
class Affine(AbstractCuba, base.AbstractAffine): ...
class Dense(AbstractCuba, base.AbstractDense): ...
class Conv(AbstractCuba, base.AbstractConv): ...
class ConvT(AbstractCuba, base.AbstractConvT): ...
class Pool(AbstractCuba, base.AbstractPool): ...
class Unpool(AbstractCuba, base.AbstractUnpool): ...
class KWTA(AbstractCuba, base.AbstractKWTA): ...
class Recurrent(AbstractCuba, base.AbstractRecurrent): ...
# fmt: on
