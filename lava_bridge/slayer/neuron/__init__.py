"""Neurons: the fixed-point dynamics of the chip's compartments, with surrogate gradients."""

from . import base, cuba, norm
from .dropout import Dropout

__all__ = ["Dropout", "base", "cuba", "norm"]
