"""Neurons: the dynamics from dendritic input to spikes."""

from . import adrf, adrf_iz, alif, base, cuba, dynamics, norm, rf, rf_iz, sigma_delta
from .dropout import Dropout

__all__ = [
    "Dropout",
    "adrf",
    "adrf_iz",
    "alif",
    "base",
    "cuba",
    "dynamics",
    "norm",
    "rf",
    "rf_iz",
    "sigma_delta",
]
