"""Blocks: a synapse, its neuron and its axon as one layer that exports to HDF5."""

from . import adrf, adrf_iz, alif, base, cuba, rf, rf_iz, sigma_delta

__all__ = ["adrf", "adrf_iz", "alif", "base", "cuba", "rf", "rf_iz", "sigma_delta"]
