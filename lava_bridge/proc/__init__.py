"""As ``lava.proc``: processes that are wired by ports and run step by step.

``conv`` has the convolution, ``io`` a source and a sink. A net runs in this process, a model at a
time; there is no message passing between processes of the machine.
"""

from . import conv, io
from .model import LavaPyType, PyLoihiProcessModel, implements, requires, tag
from .ports import InPort, OutPort, PyInPort, PyOutPort
from .process import AbstractProcess, LogConfig, Var
from .run import Loihi1SimCfg, Loihi2SimCfg, RunConfig, RunSteps

__all__ = [
    "AbstractProcess",
    "InPort",
    "LavaPyType",
    "LogConfig",
    "Loihi1SimCfg",
    "Loihi2SimCfg",
    "OutPort",
    "PyInPort",
    "PyLoihiProcessModel",
    "PyOutPort",
    "RunConfig",
    "RunSteps",
    "Var",
    "conv",
    "implements",
    "io",
    "requires",
    "tag",
]
