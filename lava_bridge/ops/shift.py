"""Shifts in time: the one step between layers, and learnable axonal delays."""

from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..quantize import exact_dtype
from .autograd import in_order, no_gradients, per_neuron, reduced
from .operator import operator

__all__ = ["shift", "shift_channels", "shift_on", "shifted"]


@operator("lava_bridge::shift")
def _shift(x: Tensor, steps: int, backend: str) -> Tensor:
    length = x.shape[-1]
    steps = max(-length, min(length, steps))
    compiled = kernels.chosen(backend, x)
    if compiled is not None and kernels.can_gather(compiled):
        return kernels.gather(compiled, "shift", x, numbers=[steps])
    return shifted(x, steps)


def shifted(x: Tensor, steps: int) -> Tensor:
    """:func:`shift` in plain torch, by no more steps than there are, without a gradient."""
    length = x.shape[-1]
    output = torch.empty_like(x)
    ahead, behind = max(steps, 0), max(-steps, 0)
    output[..., :ahead] = output[..., length - behind :] = 0
    output[..., ahead : length - behind] = x[..., behind : length - ahead]
    return output


@_shift.register_fake
def _(x: Tensor, steps: int, backend: str) -> Tensor:
    return torch.empty_like(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.steps, ctx.backend = inputs
    ctx.strides = output.stride()


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return _shift(in_order(grad, ctx.strides), -ctx.steps, ctx.backend), None, None


_shift.register_autograd(_gradient, setup_context=_save)


def shift(x: Tensor, steps: int) -> Tensor:
    """Shift ``[*, T]`` later in time by whole steps (earlier if negative), filling with zeros.

    .. math:: y[t] = x[t - \\mathrm{steps}]

    The output has the dtype and memory order of ``x``.
    """
    return _shift(x, steps, kernels.current_backend())


@operator("lava_bridge::shift_channels")
def _shift_channels(
    x: Tensor,
    delay: Tensor,
    sampling_time: float,
    grad_scale: float,
    backwards: bool,
    backend: str,
) -> Tensor:
    length = x.shape[-1]
    # Whatever is beyond the sequence, NaN among it, moves everything out of it.
    steps = (delay / sampling_time).to(torch.int64).clamp(-length, length)
    steps = -steps if backwards else steps
    compiled = kernels.chosen(backend, x)
    if compiled is not None and kernels.can_gather(compiled):
        return kernels.gather(compiled, "shift", x, [steps])
    source = torch.arange(length, device=x.device) - steps.unsqueeze(-1)
    inside = (source >= 0) & (source < length)
    taken = x.gather(-1, source.clamp(0, max(length - 1, 0)).expand(x.shape))
    return torch.empty_like(x).copy_(torch.where(inside, taken, 0))


@_shift_channels.register_fake
def _(x: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(x)


@operator("lava_bridge::delay_gradient")
def _delay_gradient(grad: Tensor, output: Tensor, backend: str) -> Tensor:
    """The sum over time of ``grad[t] (output[t-1] - output[t])``, ``[N, *]``."""
    compiled = kernels.chosen(backend, output)
    if compiled is None:
        y, grad = output.to(exact_dtype(output)), grad.to(exact_dtype(output))
        return per_neuron(output).copy_((grad * (_shift(y, 1, backend) - y)).sum(-1))
    inputs, wanted = (grad, output), ([None], [True])
    done = kernels.run(compiled, "delay_gradient", output, inputs, (), (), *wanted)
    return done.neurons[0]


@_delay_gradient.register_fake
def _(grad: Tensor, output: Tensor, backend: str) -> Tensor:
    return per_neuron(output)


def _save_for_channels(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, delay, ctx.sampling_time, ctx.grad_scale, ctx.backwards, ctx.backend = inputs
    ctx.strides = output.stride()
    ctx.save_for_backward(delay, *[output] * ctx.needs_input_grad[1])


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    delay, *output = ctx.saved_tensors
    grad = in_order(grad, ctx.strides)
    back = ctx.sampling_time, ctx.grad_scale, not ctx.backwards, ctx.backend
    grad_delay = None
    if output:
        grad_delay = reduced(_delay_gradient(grad, *output, ctx.backend), delay) * ctx.grad_scale
    return _shift_channels(grad, delay.detach(), *back), grad_delay, None, None, None, None


_shift_channels.register_autograd(_gradients, setup_context=_save_for_channels)
no_gradients(_delay_gradient)


def shift_channels(
    x: Tensor, delay: Tensor, sampling_time: float = 1, grad_scale: float = 1
) -> Tensor:
    r"""Delay each channel of ``[N, C, *, T]`` by its own time, rounded down to whole steps.

    .. math::
        y[t] = x[t - \lfloor d / \tau \rfloor], \qquad
        \partial L / \partial d = g\,\sum_t \partial L / \partial y[t]\;(y[t-1] - y[t])

    with delays d of 0 and more that broadcast with ``[N, C, *]``, the time :math:`\tau` of one step
    (``sampling_time``) and the factor g (``grad_scale``). The output has the dtype and memory order
    of ``x``.

    Source: ``lava.lib.dl.slayer.axon.delay``. (There a ``sampling_time`` other than 1 divides the
    delays twice; here once.)
    """
    backend = kernels.current_backend()
    return _shift_channels(x, delay, sampling_time, grad_scale, False, backend)


def shift_on(
    x: Tensor,
    past: Tensor | None,
    most: float | None,
    delay: Tensor,
    sampling_time: float = 1,
    grad_scale: float = 1,
) -> tuple[Tensor, Tensor]:
    """:func:`shift_channels` of ``[N, C, *, T]`` as the steps that follow ``past``.

    ``past`` is what came before, or None; of another batch size or shape it is left out. ``most``
    is the longest that a delay can become, in the unit of ``sampling_time``; None: the longest now.

    Returns:
        The T steps, and the past of the steps that follow: as many as a delay can reach back. They
        get no gradient.
    """
    steps = x.shape[-1]
    if past is not None and past.shape[:-1] == x.shape[:-1]:
        x = torch.cat([past.to(x), x], dim=-1)  # the module may have been moved between
    longest = delay.max().item() if most is None else most
    first = max(x.shape[-1] - int(longest / sampling_time), 0)
    shifted = shift_channels(x, delay, sampling_time, grad_scale)
    return shifted[..., shifted.shape[-1] - steps :], x[..., first:].detach()
