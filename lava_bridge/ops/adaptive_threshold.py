r"""The adaptive threshold: it rises with each spike, and a refractory state holds the next off.

.. math::
    r[t] &= D\bigl((4096 - d_r)\,r[t-1]\bigr), \qquad
    \vartheta[t] = D\bigl((4096 - d_\vartheta)(\vartheta[t-1] - \vartheta_0)\bigr) + \vartheta_0 \\
    s[t] &= x[t] \ge \vartheta[t] + r[t] \\
    r[t] &\leftarrow r[t] + 2\,s[t]\,\vartheta[t], \qquad
    \vartheta[t] \leftarrow \vartheta[t] + s[t]\,\Delta\vartheta

in integers over the scale ``w``, with the shift toward zero of :mod:`lava_bridge.quantize`. Outputs
are :math:`\vartheta[t] / w` and :math:`r[t] / w`, before the spike; no gradient.

Source: ``lava.lib.dl.slayer.neuron.dynamics.adaptive_threshold``.
"""

from typing import Any

import torch
from torch import Tensor

from ..quantize import decayed, exact_dtype, integers, kept

__all__ = ["adapt", "dynamics"]


def dynamics(
    input: Tensor,
    ref_state: Tensor,
    ref_decay: Tensor,
    th_state: Tensor,
    th_decay: Tensor,
    th_scale: float,
    th0: float,
    w_scale: int,
    debug: bool = False,
) -> tuple[Tensor, Tensor]:
    """Threshold and refractory state ``[N, *, T]`` of a neuron of voltage ``[N, *, T]``.

    ``ref_state``, ``th_state``: the states before the first step; ``ref_decay``, ``th_decay``: the
    decays in 0 ... 4096; each broadcasts with ``[N, *]``. ``th_scale``: how much a spike raises the
    threshold; ``th0``: the threshold at rest; ``w_scale``: what 1 is as an integer. ``debug`` has
    no effect.
    """
    threshold_args = ref_state, ref_decay, th_state, th_decay, th_scale, th0, w_scale
    return adapt(integers(input, w_scale), None, threshold_args, exact_dtype(input))


def adapt(
    level: Tensor, may_fire: Tensor | None, threshold_args: tuple[Any, ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Run the recurrence of this module on integers; the gradients of the decays are zeros.

    ``level`` ``[N, *, T]`` is compared with the threshold; ``may_fire``, of that shape, says where
    a spike is possible at all; ``threshold_args`` are :func:`dynamics`'s from ``ref_state`` on.
    """
    return _Adaptation.apply(level, may_fire, dtype, *threshold_args)


class _Adaptation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, level, may_fire, dtype, ref_state, ref_decay, th_state, th_decay, *scales):
        th_scale, th0, w_scale = scales
        refractory, threshold = integers(ref_state, w_scale), integers(th_state, w_scale)
        ref_kept, th_kept = kept(ref_decay), kept(th_decay)
        rise, rest = int(th_scale * w_scale), int(th0 * w_scale)
        outputs = torch.empty_like(level, dtype=dtype), torch.empty_like(level, dtype=dtype)
        for t in range(level.shape[-1]):
            refractory = decayed(refractory, ref_kept)
            threshold = decayed(threshold - rest, th_kept) + rest
            for output, state in zip(outputs, (threshold, refractory), strict=True):
                output[..., t] = state.to(dtype) / w_scale
            fired = level[..., t] >= threshold + refractory
            if may_fire is not None:
                fired = fired & may_fire[..., t]
            refractory, threshold = refractory + 2 * threshold * fired, threshold + rise * fired
        return outputs

    @staticmethod
    def backward(ctx, *grad_outputs):
        return (None,) * 10
