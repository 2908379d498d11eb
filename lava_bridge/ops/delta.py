r"""The delta encoder: send what changed since the last message, once it is large enough.

.. math::
    d[t] &= x[t] - x[t-1] + \rho[t-1], \qquad e[t] = d[t] \;(\text{cumulated: } e[t-1] + d[t]) \\
    y[t] &= d[t]\,\mathcal{H}(|e[t]| - \vartheta), \qquad
    \rho[t] = d[t] - y[t], \qquad e[t] \leftarrow e[t]\,(y[t] = 0)

and, with a scale s, the message is :math:`\lfloor s\,y[t] \rfloor / s`. The backward pass needs
nothing but the gradient of y; that of the threshold encodes x once more.

Source: ``lava.lib.dl.slayer.axon.delta``.
"""

from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..quantize import exact_dtype
from .autograd import in_order, no_gradients, per_neuron, reduced
from .operator import operator

__all__ = ["dynamics", "encoded", "rounded_down", "sent_always", "threshold_slope"]


def encoded(
    x: Tensor, threshold: Tensor, states: tuple[Tensor, ...], cum_error: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The torch reference: changes, messages (not rounded), and the last residual and error."""
    x = x.to(exact_dtype(x))
    threshold = threshold.to(x.dtype)
    before, residual, error = (state.to(x.dtype) for state in states)
    changes, output = torch.empty_like(x), torch.empty_like(x)
    for t in range(x.shape[-1]):
        change = x[..., t] - before + residual
        error = error + change if cum_error else change
        sent = torch.where(error.abs() >= threshold, change, 0)
        error = error * (sent == 0)
        residual, before = change - sent, x[..., t]
        changes[..., t], output[..., t] = change, sent
    residual, error = (per_neuron(x).copy_(last) for last in (residual, error))
    return changes, output, residual, error


def rounded_down(message: Tensor, scale: float) -> Tensor:
    """Messages, in place, rounded down to multiples of ``1 / scale``; 0: as they are."""
    return message.div_(1 / scale).floor_().mul_(1 / scale) if scale else message


def sent_always(grad: Tensor) -> Tensor:
    """The gradient of x where all is sent, :math:`g[t] - g[t+1]`."""
    grad_x = torch.empty_like(grad).copy_(grad)
    grad_x[..., :-1] -= grad[..., 1:]
    return grad_x


def threshold_slope(changes: Tensor, threshold: Tensor, width: float, height: float) -> Tensor:
    """What the gradient of a message is times, by the threshold ``[N, *]``."""
    level = threshold.to(changes.dtype).unsqueeze(-1)
    above = changes.abs() - level
    near = height * torch.exp(-above.abs() / width)
    return torch.where(above > 0, -changes * near / level, -changes.sign())


@operator("lava_bridge::delta")
def _delta(
    x: Tensor,
    threshold: Tensor,
    before: Tensor,
    residual: Tensor,
    error: Tensor,
    cum_error: bool,
    width: float,
    height: float,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    compiled = kernels.chosen(backend, x)
    if compiled is not None:
        parameters, numbers = (threshold, before, residual, error), (cum_error, scale)
        wanted = [x.dtype], (True, True)
        done = kernels.run(compiled, "delta", x, [x], parameters, numbers, *wanted)
        return (*done.sequences, *done.neurons)
    _, output, residual, error = encoded(x, threshold, (before, residual, error), cum_error)
    return rounded_down(output, scale).to(x.dtype), residual, error


@_delta.register_fake
def _(x: Tensor, *args: Any) -> Any:
    return torch.empty_like(x), *(per_neuron(x) for _ in range(2))


@operator("lava_bridge::delta_backward")
def _backward(grad: Tensor, backend: str) -> Tensor:
    """The gradient of x."""
    compiled = kernels.chosen(backend, grad)
    if compiled is not None:
        return kernels.run(
            compiled, "delta_backward", grad, [grad], outputs=[grad.dtype]
        ).sequences[0]
    return sent_always(grad)


@_backward.register_fake
def _(grad: Tensor, backend: str) -> Tensor:
    return torch.empty_like(grad)


@operator("lava_bridge::delta_threshold")
def _threshold_gradient(
    grad: Tensor,
    x: Tensor,
    threshold: Tensor,
    before: Tensor,
    residual: Tensor,
    error: Tensor,
    cum_error: bool,
    width: float,
    height: float,
    backend: str,
) -> Tensor:
    """The gradient of the threshold per neuron, ``[N, *]``."""
    compiled = kernels.chosen(backend, x)
    states = before, residual, error
    if compiled is not None:
        parameters, numbers = (threshold, *states), (cum_error, width, height)
        wanted = [None], [True]
        done = kernels.run(compiled, "delta_threshold", x, (x, grad), parameters, numbers, *wanted)
        return done.neurons[0]
    changes = encoded(x, threshold, states, cum_error)[0]
    slope = threshold_slope(changes, threshold, width, height)
    return per_neuron(x).copy_((slope * grad).sum(-1))


@_threshold_gradient.register_fake
def _(grad: Tensor, x: Tensor, *args: Any) -> Tensor:
    return per_neuron(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, threshold, *states = inputs[:5]
    *ctx.settings, _, ctx.backend = inputs[5:]
    ctx.strides = output[0].stride()
    ctx.save_for_backward(*(x, threshold, *states) if ctx.needs_input_grad[1] else ())
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx: Any, grad: Tensor, *rest: Tensor) -> tuple[Tensor | None, ...]:
    grad = in_order(grad, ctx.strides)
    grad_x = grad_threshold = None
    if ctx.needs_input_grad[0]:
        grad_x = _backward(grad, ctx.backend)
    if ctx.needs_input_grad[1]:
        x, threshold, *states = ctx.saved_tensors
        sums = _threshold_gradient(grad, x, threshold, *states, *ctx.settings, ctx.backend)
        grad_threshold = reduced(sums, threshold)
    return grad_x, grad_threshold, *(None,) * 8


_delta.register_autograd(_gradients, setup_context=_save)
no_gradients(_backward)
no_gradients(_threshold_gradient)


def dynamics(
    x: Tensor,
    threshold: Tensor,
    before: Tensor,
    residual: Tensor,
    error: Tensor,
    cum_error: bool = False,
    tau_grad: float = 1,
    scale_grad: float = 1,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Messages y ``[N, *, T]``, and the last residual :math:`\rho` and error e ``[N, *]``.

    ``x`` is ``[N, *, T]``; y has its dtype and memory order. The threshold, and x, :math:`\rho` and
    e before the first step (``before``, ``residual``, ``error``), broadcast with ``[N, *]``. All is
    computed in the dtype of ``x``, half precision in float32. With a ``scale`` the messages are
    rounded down to multiples of its reciprocal.

    The gradient of ``x`` is that of sending always, :math:`g[t] - g[t+1]`; that of the threshold is
    slayer's surrogate, of width ``tau_grad`` and height ``scale_grad``. The states get none.
    """
    states = (state.detach() for state in (before, residual, error))
    backend = kernels.current_backend()
    return _delta(x, threshold, *states, cum_error, tau_grad, scale_grad, scale or 0.0, backend)
