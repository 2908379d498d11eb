"""What the parts of slayer share."""

from . import filter, int_utils, time
from .assistant import Assistant
from .quantize import MODE as QUANTIZE_MODE, quantize, quantize_hook_fx
from .stats import LearningStat, LearningStats
from .utils import diagonal_mask, dotdict, event_rate, staticproperty

__all__ = [
    "QUANTIZE_MODE",
    "Assistant",
    "LearningStat",
    "LearningStats",
    "diagonal_mask",
    "dotdict",
    "event_rate",
    "filter",
    "int_utils",
    "quantize",
    "quantize_hook_fx",
    "staticproperty",
    "time",
]
