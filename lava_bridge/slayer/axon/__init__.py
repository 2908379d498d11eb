"""Axons: what happens to spikes on their way to the next layer."""

from .delay import Delay, delay
from .delta import Delta

__all__ = ["Delay", "Delta", "delay"]
