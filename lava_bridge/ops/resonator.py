r"""The resonator: a complex state that turns and shrinks, in fixed point.

.. math::
    a[t] &= D(c\,a[t-1]) - D(s\,b[t-1]) + \mathrm{trunc}(w\,\Re x[t]) \\
    b[t] &= D(s\,a[t-1]) + D(c\,b[t-1]) + \mathrm{trunc}(w\,\Im x[t])

with the shift toward zero :math:`D(n) = \mathrm{sign}(n)(|n| \gg 12)`, the 12-bit integers
:math:`s, c = 4096\,(1-\alpha)\,(\sin, \cos)\,2\pi f` and the scale ``w`` of the states. With a
threshold (Izhikevich's reset) a neuron of :math:`b \ge w\vartheta` goes on from :math:`a = 0`,
:math:`b = w\vartheta - 1`. Outputs are :math:`a/w` and :math:`b/w`, before that reset.

Source: ``lava.lib.dl.slayer.neuron.dynamics.resonator``.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ..quantize import DECAY_SCALE, decayed, exact_dtype, integers

__all__ = ["dynamics", "resonate", "with_integers"]


Pair = tuple[Tensor, Tensor]


def resonate(
    inputs: Pair, decays: Pair, states: Pair, w_scale: int, threshold: float | None
) -> Pair:
    """Run the recurrence of this module; gives the integers a and b, ``[N, *, T]``; no gradient."""
    (real_input, imag_input), (sine, cosine) = inputs, map(integers, decays)
    real, imag = (integers(state, w_scale) for state in states)
    real_steps, imag_steps = (torch.empty_like(x, dtype=torch.int64) for x in inputs)
    if threshold is not None:
        # In single precision as in slayer: 0.29 * 6400 is then 1856.
        threshold = torch.tensor(threshold * w_scale, dtype=torch.float32).item()
    for t in range(real_input.shape[-1]):
        real, imag = (
            decayed(real, cosine) - decayed(imag, sine) + integers(real_input[..., t], w_scale),
            decayed(real, sine) + decayed(imag, cosine) + integers(imag_input[..., t], w_scale),
        )
        real_steps[..., t], imag_steps[..., t] = real, imag
        if threshold is not None and threshold >= 0:
            fired = imag >= math.ceil(threshold)
            real = real.masked_fill(fired, 0)
            imag = imag.masked_fill(fired, int(threshold - 1))
    return real_steps, imag_steps


class _Resonator(torch.autograd.Function):
    """The recurrence with slayer's gradient: the adjoint of the turn, nothing through the reset."""

    @staticmethod
    def forward(ctx, real_input, imag_input, sin_decay, cos_decay, *args):
        *states, w_scale, threshold = args
        decays = sin_decay, cos_decay
        steps = resonate((real_input, imag_input), decays, tuple(states), w_scale, threshold)
        exact = exact_dtype(real_input)
        real, imag = ((part.to(exact) / w_scale).to(real_input.dtype) for part in steps)
        ctx.save_for_backward(real, imag, sin_decay, cos_decay)
        ctx.mark_non_differentiable(steps[1])
        return real, imag, steps[1]

    @staticmethod
    def backward(ctx, *grad_outputs):
        real, imag, sin_decay, cos_decay = ctx.saved_tensors
        sine, cosine = (d.to(real.dtype) / DECAY_SCALE for d in (sin_decay, cos_decay))
        grads = grad_outputs[:2]
        grad_real, grad_imag = (torch.empty_like(grad) for grad in grads)
        later_real = later_imag = torch.zeros_like(real[..., 0])
        for t in reversed(range(real.shape[-1])):
            later_real, later_imag = (
                grads[0][..., t] + cosine * later_real + sine * later_imag,
                grads[1][..., t] - sine * later_real + cosine * later_imag,
            )
            grad_real[..., t], grad_imag[..., t] = later_real, later_imag
        grad_sin = grad_cos = None
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            of_real, of_imag = grad_real[..., 1:], grad_imag[..., 1:]
            before_real, before_imag = real[..., :-1], imag[..., :-1]
            by_sin = (of_imag * before_real - of_real * before_imag).sum(-1)
            by_cos = (of_real * before_real + of_imag * before_imag).sum(-1)
            grad_sin = by_sin.sum_to_size(sin_decay.shape).to(sin_decay.dtype)
            grad_cos = by_cos.sum_to_size(cos_decay.shape).to(cos_decay.dtype)
        return grad_real, grad_imag, grad_sin, grad_cos, None, None, None, None


def dynamics(
    real_input: Tensor,
    imag_input: Tensor,
    sin_decay: Tensor,
    cos_decay: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    w_scale: int,
    threshold: float | None = None,
    debug: bool = False,
) -> Pair:
    """The resonator's real and imaginary state ``[N, *, T]``, with slayer's gradients.

    Inputs ``[N, *, T]``; the integers s and c in ``sin_decay`` and ``cos_decay``, and the state
    before the first step, broadcast with ``[N, *]``. ``w_scale``: what 1 is as an integer;
    ``threshold``: where the imaginary state is reset (None: nowhere). ``debug`` has no effect. The
    gradients of the decays come without the factor 1/4096, as in slayer.
    """
    decays, states = (sin_decay, cos_decay), (real_state, imag_state)
    return with_integers(real_input, imag_input, *decays, *states, w_scale, threshold)[:2]


def with_integers(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`dynamics`, and the integers b."""
    return _Resonator.apply(*args)
