r"""The adaptive threshold of a neuron that fires at phase zero: where :math:`\Im z` turns positive.

The recurrence is :mod:`.adaptive_threshold`'s, with

.. math:: s[t] = \bigl(\Re z[t] \ge \vartheta[t] + r[t]\bigr)
                 \wedge (\Im z[t] \ge 0) \wedge (\Im z[t-1] < 0)

Source: ``lava.lib.dl.slayer.neuron.dynamics.adaptive_phase_th``.
"""

import torch
from torch import Tensor

from ..quantize import exact_dtype, integers
from .adaptive_threshold import adapt

__all__ = ["dynamics"]


def dynamics(
    re_input: Tensor,
    im_input: Tensor,
    im_state: Tensor,
    ref_state: Tensor,
    ref_decay: Tensor,
    th_state: Tensor,
    th_decay: Tensor,
    th_scale: float,
    th0: float,
    w_scale: int,
    debug: bool = False,
) -> tuple[Tensor, Tensor]:
    """Threshold and refractory state ``[N, *, T]`` for a resonator's state ``[N, *, T]``.

    ``im_state`` is the imaginary state before the first step; the other parameters are
    :func:`.adaptive_threshold.dynamics`'s.
    """
    imag = integers(im_input, w_scale)
    first = integers(im_state, w_scale).expand_as(imag[..., 0]).unsqueeze(-1)
    turns = (imag >= 0) & (torch.cat([first, imag[..., :-1]], dim=-1) < 0)
    threshold_args = ref_state, ref_decay, th_state, th_decay, th_scale, th0, w_scale
    return adapt(integers(re_input, w_scale), turns, threshold_args, exact_dtype(re_input))
