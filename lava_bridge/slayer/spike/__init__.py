"""Spike functions with surrogate gradients."""

from . import complex
from .spike import Spike

__all__ = ["Spike", "complex"]
