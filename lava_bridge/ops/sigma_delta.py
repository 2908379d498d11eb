r"""The sigma-delta neuron in one operator: sum, bias, activation, and messages of what changed.

.. math::
    a[t] = f\Bigl(s + \sum_{\tau \le t} x[\tau] + b\Bigr), \qquad y = \Delta(a)

with the sum of :mod:`.sigma` from s on, the encoder :math:`\Delta` of :mod:`.delta`, and ReLU or
the identity for f. Values and gradients are those of the operators one by one, to the bit; only the
threshold's gradient is summed in another order.

The backward pass keeps a bit for each neuron and step, whether the ReLU lets its gradient pass;
where the threshold is learned also x, which is summed and encoded once more.

Source: ``lava.lib.dl.slayer.neuron.sigma_delta``.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import kernels
from ..quantize import exact_dtype
from .autograd import in_order, no_gradients, per_neuron, reduced
from .delta import encoded, rounded_down, sent_always, threshold_slope
from .operator import operator

__all__ = ["Sent", "States", "dynamics"]

# Bits in a word, as MARKS in cuda/lanes.h.
_MARKS = 32

_Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class States(NamedTuple):
    r"""A neuron's numbers before a step; each broadcasts with ``[N, *]``.

    Attributes:
        before: What the encoder saw last, a.
        residual, error: The encoder's :math:`\rho` and e.
        total: The sum of all that came, s.
    """

    before: Tensor
    residual: Tensor
    error: Tensor
    total: Tensor


class Sent(NamedTuple):
    """Messages y ``[N, *, T]``, and the states after the last step, ``[N, *]`` each or empty."""

    message: Tensor
    states: States


def _words_for(steps: int) -> int:
    """As many words as the marks of so many steps take, and one more.

    Never one: torch.export makes of a size of 1 that it has seen a condition, here on the steps.
    """
    return -(-steps // _MARKS) + 1


def _words(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], _words_for(x.shape[-1])), dtype=torch.int32)


def _packed(marks: Tensor) -> Tensor:
    """Booleans ``[N, *, T]`` as bits of words ``[N, *, words]``."""
    room = _words_for(marks.shape[-1]) * _MARKS
    bits = F.pad(marks.to(torch.int32), (0, room - marks.shape[-1]))
    place = torch.arange(_MARKS, dtype=torch.int32, device=marks.device)
    words = (bits.unflatten(-1, (-1, _MARKS)) << place).sum(-1, dtype=torch.int32)
    return words.contiguous()


def _unpacked(words: Tensor, steps: int) -> Tensor:
    place = torch.arange(_MARKS, dtype=torch.int32, device=words.device)
    return ((words.unsqueeze(-1) >> place) & 1).flatten(-2)[..., :steps].bool()


def _activated(x: Tensor, bias: Tensor, total: Tensor, rectifies: bool) -> tuple[Tensor, Tensor]:
    """The torch reference: sums and what the encoder sees of them, ``[N, *, T]`` each."""
    sums = torch.cumsum(x.to(exact_dtype(x)), -1)
    sums = sums + total.to(sums.dtype).unsqueeze(-1)
    level = sums + bias.to(sums.dtype).unsqueeze(-1)
    return sums, level.relu_() if rectifies else level


@operator("lava_bridge::sigma_delta")
def _sigma_delta(
    x: Tensor,
    threshold: Tensor,
    bias: Tensor,
    before: Tensor,
    residual: Tensor,
    error: Tensor,
    total: Tensor,
    rectifies: bool,
    cum_error: bool,
    width: float,
    height: float,
    scale: float,
    keep_marks: bool,
    keep_states: bool,
    backend: str,
) -> _Six:
    """Messages, marks, and what the encoder saw, residual, error and sum at the end."""
    compiled = kernels.chosen(backend, x)
    keeps_marks = keep_marks and rectifies
    if compiled is not None:
        marks = _words(x).zero_() if keeps_marks else None  # (no kernel writes the one more)
        parameters = threshold, before, residual, error, total, bias
        numbers, wanted = (cum_error, scale, rectifies), ([x.dtype], [keep_states] * 4)
        done = kernels.run(
            compiled, "sigma_delta", x, [x], parameters, numbers, *wanted, marks=marks
        )
        residual, error, total, before = done.neurons
        marks = x.new_empty(0, dtype=torch.int32) if marks is None else marks
        return done.sequences[0], marks, before, residual, error, total
    sums, seen = _activated(x, bias, total, rectifies)
    _, output, residual, error = encoded(seen, threshold, (before, residual, error), cum_error)
    message = torch.empty_like(x).copy_(rounded_down(output, scale))
    marks = _packed(seen <= 0) if keeps_marks else x.new_empty(0, dtype=torch.int32)
    if not keep_states:
        none: kernels.Tensors = [seen.new_empty(0) for _ in range(4)]
        return message, marks, *none
    if x.shape[-1]:
        before, total = seen[..., -1], sums[..., -1]
    ends = before, residual, error, total
    last: kernels.Tensors = [per_neuron(x).copy_(state) for state in ends]
    return message, marks, *last


@_sigma_delta.register_fake
def _(x: Tensor, *args: Any) -> Any:
    rectifies, keep_marks, keep_states = args[6], args[11], args[12]
    marks = _words(x) if keep_marks and rectifies else x.new_empty(0, dtype=torch.int32)
    none = x.new_empty(0, dtype=exact_dtype(x))
    states = (per_neuron(x) if keep_states else torch.empty_like(none) for _ in range(4))
    return torch.empty_like(x), marks, *states


@operator("lava_bridge::sigma_delta_backward")
def _backward(
    grad: Tensor, marks: Tensor, rectifies: bool, wants_bias: bool, backend: str
) -> tuple[Tensor, Tensor]:
    """The gradients of x, and of the bias per neuron, ``[N, *]``."""
    compiled = kernels.chosen(backend, grad)
    if compiled is not None:
        wanted = [grad.dtype], [wants_bias]
        held = marks if rectifies else None
        done = kernels.run(
            compiled, "sigma_delta_backward", grad, [grad], (), (), *wanted, marks=held
        )
        return done.sequences[0], done.neurons[0]
    grads = sent_always(grad.to(exact_dtype(grad)))
    if rectifies:
        grads = grads.masked_fill_(_unpacked(marks, grad.shape[-1]), 0)
    sums = grads.flip(-1).cumsum(-1).flip(-1)
    grad_x = torch.empty_like(grad).copy_(sums)
    if not wants_bias:
        return grad_x, sums.new_empty(0)
    first = sums[..., 0] if grad.shape[-1] else sums.new_zeros(sums.shape[:-1])
    return grad_x, per_neuron(grad).copy_(first)


@_backward.register_fake
def _(grad: Tensor, marks: Tensor, rectifies: bool, wants_bias: bool, backend: str) -> Any:
    none = grad.new_empty(0, dtype=exact_dtype(grad))
    return torch.empty_like(grad), per_neuron(grad) if wants_bias else none


@operator("lava_bridge::sigma_delta_threshold")
def _threshold_gradient(
    grad: Tensor,
    x: Tensor,
    threshold: Tensor,
    bias: Tensor,
    before: Tensor,
    residual: Tensor,
    error: Tensor,
    total: Tensor,
    rectifies: bool,
    cum_error: bool,
    width: float,
    height: float,
    backend: str,
) -> Tensor:
    """The gradient of the threshold per neuron, ``[N, *]``."""
    compiled = kernels.chosen(backend, x)
    if compiled is not None:
        parameters = threshold, before, residual, error, total, bias
        numbers, wanted = (cum_error, width, height, rectifies), ([None], [True])
        done = kernels.run(
            compiled, "sigma_delta_threshold", x, (x, grad), parameters, numbers, *wanted
        )
        return done.neurons[0]
    seen = _activated(x, bias, total, rectifies)[1]
    changes = encoded(seen, threshold, (before, residual, error), cum_error)[0]
    slope = threshold_slope(changes, threshold, width, height)
    return per_neuron(x).copy_((slope * grad).sum(-1))


@_threshold_gradient.register_fake
def _(grad: Tensor, x: Tensor, *args: Any) -> Tensor:
    return per_neuron(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: _Six) -> None:
    x, threshold, bias, *states = inputs[:7]
    ctx.rectifies, *ctx.encoding, _, _, _, ctx.backend = inputs[7:]
    ctx.strides, ctx.bias_shape, ctx.bias_dtype = output[0].stride(), bias.shape, bias.dtype
    kept = (x, threshold, bias, *states) if ctx.needs_input_grad[1] else ()
    ctx.save_for_backward(output[1], *kept)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx: Any, grad: Tensor | None, *rest: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 15
    grad = in_order(grad, ctx.strides)
    marks, *kept = ctx.saved_tensors
    found: list[Tensor | None] = [None] * 3
    of_x, of_threshold, of_bias = ctx.needs_input_grad[:3]
    if of_x or of_bias:
        grad_x, sums = _backward(grad, marks, ctx.rectifies, of_bias, ctx.backend)
        found[0] = grad_x if of_x else None
        if of_bias:
            found[2] = sums.sum_to_size(ctx.bias_shape).to(ctx.bias_dtype)
    if of_threshold:
        sums = _threshold_gradient(grad, *kept, ctx.rectifies, *ctx.encoding, ctx.backend)
        found[1] = reduced(sums, kept[1])
    return *found, *(None,) * 12


_sigma_delta.register_autograd(_gradients, setup_context=_save)
no_gradients(_backward)
no_gradients(_threshold_gradient)


def dynamics(
    x: Tensor,
    threshold: Tensor,
    bias: Tensor,
    states: States,
    rectifies: bool,
    cum_error: bool = False,
    surrogate: tuple[float, float] = (1, 1),
    scale: float | None = None,
    keep_states: bool = False,
) -> Sent:
    """Messages of x ``[N, *, T]``, in its dtype and memory order; half precision in float32.

    Args:
        x: What came, of a floating dtype.
        threshold, bias: Each broadcasts with ``[N, *]``, and gets a gradient as x does.
        states: The states before the first step. They get no gradient.
        rectifies: Whether the activation is ReLU; else it is the identity.
        cum_error, scale: As in :func:`.delta.dynamics`.
        surrogate: Width and height of the threshold's surrogate gradient.
        keep_states: Whether the states after the last step are wanted.
    """
    learned = torch.is_grad_enabled() and (x.requires_grad or bias.requires_grad)
    held = (state.detach() for state in states)
    settings = rectifies, cum_error, *surrogate, scale or 0.0, learned, keep_states
    sent = _sigma_delta(x, threshold, bias, *held, *settings, kernels.current_backend())
    return Sent(sent[0], States(*sent[2:]))
