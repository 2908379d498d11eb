"""Filters along time, the last dimension."""

from .conv import conv, corr
from .fir import FIR, FIRBank

__all__ = ["FIR", "FIRBank", "conv", "corr"]
