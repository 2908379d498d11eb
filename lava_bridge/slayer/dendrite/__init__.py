"""Dendrites: what gathers messages before the neuron."""

from .sigma import Sigma

__all__ = ["Sigma"]
