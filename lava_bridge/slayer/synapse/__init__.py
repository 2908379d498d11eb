"""Synapses: the linear maps from spikes to dendritic input."""

from . import complex
from .layer import Conv, ConvTranspose, Dense, Pool, Unpool

__all__ = ["Conv", "ConvTranspose", "Dense", "Pool", "Unpool", "complex"]
