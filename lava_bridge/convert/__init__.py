"""Whole nets, from SpikingJelly to slayer and back.

``to_slayer`` walks a net and lets the rule of each module's type act on a :class:`Chain`; a rule
for a type of one's own is a function::

    @lava_bridge.convert.rule(MyConv)
    def my_conv(module, chain):
        chain.synapse(module.as_conv2d())
"""

from .chain import Chain
from .from_slayer import TWINS, to_spikingjelly, twin
from .from_spikingjelly import rewrite, to_slayer
from .layers import FloatLayer
from .rules import RULES, rule

__all__ = ["RULES", "TWINS", "Chain", "FloatLayer", "rewrite", "rule", "to_slayer"]
__all__ += ["to_spikingjelly", "twin"]
