"""The dynamics as differentiable torch operators; time is the last dimension of every sequence."""

from .leaky_integrator import (
    DECAY_BITS,
    DECAY_SCALE,
    LeakyIntegratorStep,
    integrate,
    leaky_integrator,
    leaky_integrator_with_reset_path,
)
from .shift import shift, shift_channels

__all__ = [
    "DECAY_BITS",
    "DECAY_SCALE",
    "LeakyIntegratorStep",
    "integrate",
    "leaky_integrator",
    "leaky_integrator_with_reset_path",
    "shift",
    "shift_channels",
]
