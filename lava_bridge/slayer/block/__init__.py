"""Blocks: a synapse, its neuron and its axon as one layer that exports to HDF5."""

from . import base, cuba

__all__ = ["base", "cuba"]
