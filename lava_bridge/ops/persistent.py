r"""What a spike in the last step leaves of a state, for neurons that users write on the dynamics.

With :math:`s = 1` where the neuron spiked (its spike is above 0), else 0. The states ``[N, *]`` and
the spikes broadcast. The neurons here need none of it: their operators give the states after the
last step.

Source: ``lava.lib.dl.slayer.neuron.dynamics``.
"""

from torch import Tensor

__all__ = [
    "persistent_imag_state",
    "persistent_real_state",
    "persistent_ref_state",
    "persistent_state",
    "persistent_th_state",
]


def persistent_state(state: Tensor, spike: Tensor) -> Tensor:
    """The state of a neuron that is reset by its spike: ``(1 - s) state``."""
    return state * (1 - _spiked(spike, state))


def persistent_real_state(real_state: Tensor, spike: Tensor) -> Tensor:
    """The real part of a resonator that is reset by its spike: ``(1 - s) real_state``."""
    return persistent_state(real_state, spike)


def persistent_imag_state(
    imag_state: Tensor, spike: Tensor, threshold: float, scale: int
) -> Tensor:
    """The imaginary part of a resonator that is reset: ``s`` puts it just below the threshold.

    It is ``s (threshold - 1 / scale) + (1 - s) imag_state``, with ``scale`` for what 1 is as an
    integer.
    """
    fired = _spiked(spike, imag_state)
    return fired * (threshold - 1 / scale) + (1 - fired) * imag_state


def persistent_ref_state(ref_state: Tensor, spike: Tensor, th_state: Tensor) -> Tensor:
    """The refractory state, which a spike raises: ``ref_state + 2 s th_state``."""
    return ref_state + 2 * _spiked(spike, ref_state) * th_state


def persistent_th_state(th_state: Tensor, spike: Tensor, th_step: float) -> Tensor:
    """The adaptive threshold, which a spike raises: ``th_state + s th_step``."""
    return th_state + _spiked(spike, th_state) * th_step


def _spiked(spike: Tensor, like: Tensor) -> Tensor:
    return (spike > 0).to(like.dtype)
