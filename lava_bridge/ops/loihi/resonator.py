"""Resonate and fire in Loihi's arithmetic."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import kernels
from ...quantize import decayed, integers
from ..operator import operator
from .register import STATE_MAX, in_32_bits, launched, raised, require_same_shape, stepped, unfilled

__all__ = ["RfRun", "rf", "rf_iz"]


class RfRun(NamedTuple):
    """What :func:`rf` and :func:`rf_iz` give.

    Attributes:
        spike: ``[N, *, T]``, 0 or 1.
        real, imag: ``[N, *, T]`` after each step; empty unless they were asked for.
        last_real, last_imag: The state after the last step, ``[N, *]``.
    """

    spike: Tensor
    real: Tensor
    imag: Tensor
    last_real: Tensor
    last_imag: Tensor


@operator("lava_bridge::loihi_rf")
def _rf(
    real: Tensor,
    imag: Tensor | None,
    sin_decay: Tensor,
    cos_decay: Tensor,
    threshold: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    izhikevich: bool,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    states = real_state, imag_state
    compiled = kernels.chosen(backend, real)
    if compiled is not None:
        kernel = "loihi_rf_iz" if izhikevich else "loihi_rf"
        given = (real, imag), (sin_decay, cos_decay, threshold, *states), ()
        return launched(compiled, kernel, *given, keep, 2)
    sine, cosine, level = integers(sin_decay), integers(cos_decay), integers(threshold)
    incoming = raised(real), None if imag is None else raised(imag)

    def step(t: int, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        x, y = states
        of_real = decayed(x, cosine) - decayed(y, sine) + incoming[0][..., t]
        of_imag = decayed(x, sine) + decayed(y, cosine)
        if incoming[1] is not None:
            of_imag = of_imag + incoming[1][..., t]
        turned = [part.clamp(-STATE_MAX, STATE_MAX) for part in (of_real, of_imag)]
        if not izhikevich:
            return (turned[0] >= level) & (turned[1] >= 0) & (y < 0), turned
        fired = turned[1] >= level
        back = in_32_bits(level - 1)
        return fired, [turned[0].masked_fill(fired, 0), torch.where(fired, back, turned[1])]

    return stepped(real, states, keep, step)


@_rf.register_fake
def _(real: Tensor, *args: Any) -> Any:
    return unfilled(real, args[7], 2)


@torch.no_grad()
def rf(
    real: Tensor,
    imag: Tensor | None,
    sin_decay: Tensor,
    cos_decay: Tensor,
    threshold: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    *,
    keep: bool = False,
    backend: str = "auto",
) -> RfRun:
    r"""Resonate and fire where the phase passes zero, to the bit as Lava's ``RF`` in fixed point.

    .. math::
        x[t] &= \mathrm{clip}(P(x[t-1], c) - P(y[t-1], s) + (a[t] \ll 6),\; -M,\; M) \\
        y[t] &= \mathrm{clip}(P(x[t-1], s) + P(y[t-1], c) + (b[t] \ll 6),\; -M,\; M) \\
        f[t] &= x[t] \ge \vartheta \;\wedge\; y[t] \ge 0 \;\wedge\; y[t-1] < 0

    with :math:`M = 2^{23} - 1` and :math:`P(z, d) = \mathrm{sign}(z d)\,(|z d| \gg 12)`. The
    shifted inputs wrap at 32 bits.

    Args:
        real, imag: a and b, whole numbers ``[N, *, T]`` in any memory order, below
            :math:`2^{24}` in float32 and :math:`2^{31}` in float64; b None: 0. Spikes come in the
            dtype and order of a.
        sin_decay, cos_decay: s and c, in 4096ths.
        threshold: :math:`\vartheta`, as large as a state (already shifted left by 6).
        real_state, imag_state: x and y before the first step. The parameters from ``sin_decay`` on
            are whole numbers that broadcast with ``[N, *]``.
        keep: Whether the states after each step are wanted.
        backend: One of :mod:`lava_bridge.kernels`.

    Raises:
        BridgeError: If ``imag`` has another shape than ``real``.

    Source: lava-nc 0.10.0, ``lava.proc.rf.models``: ``PyRFModelFixed``.
    """
    require_same_shape("rf", "an imaginary part", real, imag)
    parameters = sin_decay, cos_decay, threshold, real_state, imag_state
    return RfRun(*_rf(real, imag, *parameters, False, keep, backend))


@torch.no_grad()
def rf_iz(
    real: Tensor,
    imag: Tensor | None,
    sin_decay: Tensor,
    cos_decay: Tensor,
    threshold: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    *,
    keep: bool = False,
    backend: str = "auto",
) -> RfRun:
    r"""Resonate and fire with Izhikevich's reset, to the bit as Lava's ``RF_IZ`` in fixed point.

    .. math::
        f[t] = y[t] \ge \vartheta, \qquad
        x[t] \leftarrow x[t]\,(1 - f[t]), \qquad
        y[t] \leftarrow \vartheta - 1 \;\text{where}\; f[t]

    and else as :func:`rf`, with its arguments and errors.

    Source: lava-nc 0.10.0, ``lava.proc.rf_iz.models``: ``PyRF_IZModelFixed``.
    """
    require_same_shape("rf_iz", "an imaginary part", real, imag)
    parameters = sin_decay, cos_decay, threshold, real_state, imag_state
    return RfRun(*_rf(real, imag, *parameters, True, keep, backend))
