"""The recurrences of the neurons, under slayer's name: ``dynamics.resonator.dynamics(...)``."""

from ...ops import (
    adaptive_phase_th,
    adaptive_resonator,
    adaptive_threshold,
    leaky_integrator,
    resonator,
)

__all__ = ["adaptive_phase_th", "adaptive_resonator", "adaptive_threshold"]
__all__ += ["leaky_integrator", "resonator"]
