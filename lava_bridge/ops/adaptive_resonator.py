r"""The resonator with an adaptive threshold on its imaginary part, and no reset.

:mod:`.resonator` without a threshold, then :mod:`.adaptive_threshold` on :math:`\Im z`.
Source: ``lava.lib.dl.slayer.neuron.dynamics.adaptive_resonator``.
"""

from torch import Tensor

from ..quantize import exact_dtype
from . import resonator
from .adaptive_threshold import adapt

__all__ = ["dynamics"]


def dynamics(
    real_input: Tensor,
    imag_input: Tensor,
    sin_decay: Tensor,
    cos_decay: Tensor,
    ref_decay: Tensor,
    th_decay: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    ref_state: Tensor,
    th_state: Tensor,
    th_scale: float,
    th0: float,
    w_scale: int,
    debug: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Real and imaginary state, threshold and refractory state, each ``[N, *, T]``.

    Parameters as in :func:`.resonator.dynamics` and :func:`.adaptive_threshold.dynamics`.
    """
    decays, states = (sin_decay, cos_decay), (real_state, imag_state)
    real, imag, level = resonator.with_integers(
        real_input, imag_input, *decays, *states, w_scale, None
    )
    threshold_args = ref_state, ref_decay, th_state, th_decay, th_scale, th0, w_scale
    threshold, refractory = adapt(level, None, threshold_args, exact_dtype(imag))
    return real, imag, threshold, refractory
