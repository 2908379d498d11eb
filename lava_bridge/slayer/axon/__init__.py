"""Axons: what happens to spikes on their way to the next layer."""

from .delay import Delay, delay

__all__ = ["Delay", "delay"]
