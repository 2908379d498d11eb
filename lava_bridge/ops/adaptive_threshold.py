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

from .. import kernels
from ..quantize import decayed, exact_dtype, integers, kept
from .operator import operator
from .persistent import persistent_ref_state, persistent_th_state

__all__ = ["adapt", "adaptation_steps", "adapted_like", "dynamics"]
__all__ += ["persistent_ref_state", "persistent_th_state"]


def adaptation_steps(th_scale: float, th0: float, scale: float) -> tuple[int, int]:
    """The threshold at rest, and what a spike adds to it, as integers."""
    return int(th0 * scale), int(th_scale * scale)


def adapt(
    level: Tensor,
    may_fire: Tensor | None,
    decays: tuple[Tensor, Tensor],
    states: tuple[Tensor, Tensor],
    steps: tuple[int, int],
    scale: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The torch reference of this module's recurrence, on integers.

    ``level`` ``[N, *, T]`` is compared with the threshold; ``may_fire``, of that shape, says where
    a spike is possible at all. ``decays`` and ``states`` are those of the refractory state and of
    the threshold, ``steps`` is :func:`adaptation_steps`'s.
    """
    refractory, threshold = (integers(state.to(dtype), scale) for state in states)
    ref_kept, th_kept = map(kept, decays)
    rest, rise = steps
    outputs = torch.empty_like(level, dtype=dtype), torch.empty_like(level, dtype=dtype)
    for t in range(level.shape[-1]):
        refractory = decayed(refractory, ref_kept)
        threshold = decayed(threshold - rest, th_kept) + rest
        for output, state in zip(outputs, (threshold, refractory), strict=True):
            output[..., t] = state.to(dtype) / scale
        fired = level[..., t] >= threshold + refractory
        if may_fire is not None:
            fired = fired & may_fire[..., t]
        refractory, threshold = refractory + 2 * threshold * fired, threshold + rise * fired
    return outputs


@operator("lava_bridge::adaptive_threshold")
def _adaptive_threshold(
    input: Tensor,
    ref_state: Tensor,
    ref_decay: Tensor,
    th_state: Tensor,
    th_decay: Tensor,
    th_scale: float,
    th0: float,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    compiled, exact = kernels.chosen(backend, input), exact_dtype(input)
    decays, states = (ref_decay, th_decay), (ref_state, th_state)
    steps = adaptation_steps(th_scale, th0, scale)
    if compiled is None:
        return adapt(integers(input, scale), None, decays, states, steps, scale, exact)
    parameters, wanted = (*decays, *states), [exact, exact]
    done = kernels.run(
        compiled, "adaptive_threshold", input, [input], parameters, (scale, *steps), wanted
    )
    return done.sequences[0], done.sequences[1]


def adapted_like(input: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    """Empty thresholds and refractory states for an input."""
    exact = exact_dtype(input)
    return torch.empty_like(input, dtype=exact), torch.empty_like(input, dtype=exact)


def _no_gradient(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
    return (None,) * 9


_adaptive_threshold.register_fake(adapted_like)
_adaptive_threshold.register_autograd(_no_gradient)


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
    no effect. Memory order and dtype are the input's (half precision: float32).
    """
    states = ref_state.detach(), ref_decay, th_state.detach(), th_decay
    backend = kernels.current_backend()
    return _adaptive_threshold(input.detach(), *states, th_scale, th0, w_scale, backend)
