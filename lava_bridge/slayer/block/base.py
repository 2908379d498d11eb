r"""The blocks, without their neuron: what all neuron families share.

A family (``block.cuba``, ...) makes its blocks by mixing :class:`NeuronFamily`, which knows its
neuron and its synapses, into the abstract classes here.

A block takes and gives ``[N, C, T]`` or ``[N, C, H, W, T]``. With ``count_log`` it gives a pair:
that and its event rate (None where there is no neuron). Source: ``lava.lib.dl.slayer.block.base``.
"""

from .common import *  # noqa: F403 # re-exported: what its __all__ names
from .common import Block
from .layers import *  # noqa: F403
from .plain import *  # noqa: F403
from .recurrent import *  # noqa: F403


class AbstractResidual(Block):
    """Named in slayer, without content there as here."""
