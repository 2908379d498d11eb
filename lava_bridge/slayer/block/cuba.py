"""Blocks of CUBA LIF neurons, quantised to 8 bits: what ``lava.lib.dl.slayer.block.cuba`` has."""

from ..neuron import cuba
from ..synapse import layer
from . import base

__all__ = [
    "KWTA",
    "AbstractCuba",
    "Affine",
    "Average",
    "Conv",
    "ConvT",
    "Dense",
    "Flatten",
    "Input",
    "Pool",
    "Recurrent",
    "TimeDecimation",
    "Unpool",
]


class AbstractCuba(base.NeuronFamily):
    """Makes a block one of CUBA LIF neurons with real synapses."""

    neuron_class = cuba.Neuron
    synapse_types = layer


class Input(AbstractCuba, base.AbstractInput):
    __doc__ = base.AbstractInput.__doc__


class Flatten(base.AbstractFlatten):
    __doc__ = base.AbstractFlatten.__doc__


class Average(base.AbstractAverage):
    __doc__ = base.AbstractAverage.__doc__


class TimeDecimation(base.AbstractTimeDecimation):
    __doc__ = base.AbstractTimeDecimation.__doc__


class Affine(AbstractCuba, base.AbstractAffine):
    __doc__ = base.AbstractAffine.__doc__


class Dense(AbstractCuba, base.AbstractDense):
    __doc__ = base.AbstractDense.__doc__


class Conv(AbstractCuba, base.AbstractConv):
    __doc__ = base.AbstractConv.__doc__


class ConvT(AbstractCuba, base.AbstractConvT):
    __doc__ = base.AbstractConvT.__doc__


class Pool(AbstractCuba, base.AbstractPool):
    __doc__ = base.AbstractPool.__doc__


class Unpool(AbstractCuba, base.AbstractUnpool):
    __doc__ = base.AbstractUnpool.__doc__


class KWTA(AbstractCuba, base.AbstractKWTA):
    __doc__ = base.AbstractKWTA.__doc__


class Recurrent(AbstractCuba, base.AbstractRecurrent):
    __doc__ = base.AbstractRecurrent.__doc__
