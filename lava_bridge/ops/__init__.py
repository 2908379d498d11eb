"""The dynamics as differentiable torch operators; time is the last dimension of every sequence.

Each module has one recurrence, which its ``dynamics`` runs, in the arithmetic of
:mod:`lava_bridge.quantize`.
"""

from ..quantize import DECAY_SCALE
from . import (
    adaptive_phase_th,
    adaptive_resonator,
    adaptive_threshold,
    alif,
    cuba,
    cuba_reset,
    delta,
    leaky_integrator,
    loihi,
    resonate_and_fire,
    resonator,
    sigma,
    sigma_delta,
    spike,
)
from .leaky_integrator import integrate
from .shift import shift, shift_channels, shift_on

__all__ = ["DECAY_SCALE", "adaptive_phase_th", "adaptive_resonator", "adaptive_threshold", "alif"]
__all__ += [
    "cuba",
    "cuba_reset",
    "delta",
    "integrate",
    "leaky_integrator",
    "loihi",
    "resonate_and_fire",
    "resonator",
    "shift",
    "shift_channels",
    "shift_on",
    "sigma",
    "sigma_delta",
    "spike",
]
