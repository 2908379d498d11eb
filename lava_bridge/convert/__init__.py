"""Whole nets, from SpikingJelly to slayer and back.

``to_slayer`` walks a net and lets the rule of each module's type act on a :class:`Chain`; a rule
for a type of one's own is a function::

    @lava_bridge.convert.rule(MyConv)
    def my_conv(module, chain):
        chain.synapse(module.as_conv2d())
"""

from .calibration import calibrate
from .chain import Chain
from .choices import Calibration, LayerChoice
from .from_slayer import TWINS, to_spikingjelly, twin
from .from_spikingjelly import rewrite, to_slayer
from .layers import FloatLayer
from .rules import RULES, rule

__all__ = ["RULES", "TWINS", "Calibration", "Chain", "FloatLayer", "LayerChoice", "calibrate"]
__all__ += ["rewrite", "rule", "to_slayer", "to_spikingjelly", "twin"]
