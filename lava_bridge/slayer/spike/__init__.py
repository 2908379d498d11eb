"""Spike functions with surrogate gradients."""

from .spike import Spike

__all__ = ["Spike"]
