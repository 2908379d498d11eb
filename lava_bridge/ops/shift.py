"""Shifts in time: the one step between layers, and learnable axonal delays."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["shift", "shift_channels"]


def shift(x: Tensor, steps: int) -> Tensor:
    """Shift ``[*, T]`` later in time by whole steps (earlier if negative), filling with zeros.

    .. math:: y[t] = x[t - \\mathrm{steps}]
    """
    length = x.shape[-1]
    steps = max(-length, min(length, steps))
    if steps >= 0:
        return F.pad(x[..., : length - steps], (steps, 0))
    return F.pad(x[..., -steps:], (0, -steps))


class _ShiftChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, delay, sampling_time, grad_scale):
        output = _gather_in_time(x, (delay / sampling_time).to(torch.int64))
        ctx.save_for_backward(output, delay)
        ctx.sampling_time, ctx.grad_scale = sampling_time, grad_scale
        return output

    @staticmethod
    def backward(ctx, *grad_outputs):
        output, delay = ctx.saved_tensors
        (grad_output,) = grad_outputs
        slope = shift(output, 1) - output
        grad_delay = (grad_output * slope).sum(-1).sum_to_size(delay.shape) * ctx.grad_scale
        steps = (delay / ctx.sampling_time).to(torch.int64)
        return _gather_in_time(grad_output, -steps), grad_delay.to(delay.dtype), None, None


def _gather_in_time(x: Tensor, steps: Tensor) -> Tensor:
    """``y[..., t] = x[..., t - steps]``, zero outside; ``steps`` broadcasts with ``[N, *]``."""
    length = x.shape[-1]
    source = torch.arange(length, device=x.device) - steps.unsqueeze(-1)
    inside = (source >= 0) & (source < length)
    taken = x.gather(-1, source.clamp(0, max(length - 1, 0)).expand(x.shape))
    return torch.where(inside, taken, 0)


def shift_channels(
    x: Tensor, delay: Tensor, sampling_time: float = 1, grad_scale: float = 1
) -> Tensor:
    r"""Delay each channel of ``[N, C, *, T]`` by its own time, rounded down to whole steps.

    .. math::
        y[t] = x[t - \lfloor d / \tau \rfloor], \qquad
        \partial L / \partial d = g\,\sum_t \partial L / \partial y[t]\;(y[t-1] - y[t])

    with delays d of 0 and more that broadcast with ``[N, C, *]``, the time :math:`\tau` of one step
    (``sampling_time``) and the factor g (``grad_scale``).

    Source: ``lava.lib.dl.slayer.axon.delay``. (There a ``sampling_time`` other than 1 divides the
    delays twice; here once.)
    """
    return _ShiftChannels.apply(x, delay, sampling_time, grad_scale)
