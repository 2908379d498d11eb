r"""The leaky integrator of a CUBA neuron: the fixed-point recurrence, and two ways back through it.

.. math::
    y[t] &= \mathrm{sign}(h[t-1])\,\bigl(|h[t-1]|\,(4096 - d) \gg 12\bigr)
            + \mathrm{trunc}(s\,x[t]) \\
    h[t] &= y[t]\,\bigl(y[t] < s\,\vartheta\bigr)

with the scale ``s`` of the states, the 12-bit decay ``d`` and, for a current, no threshold (then
``h = y``). Outputs are ``y / s``: the state before its reset. Integers are 64 bits wide.

The forward pass is one function, :func:`integrate`. The two backward passes differ because the two
frameworks differ:

- :func:`dynamics` has slayer's: the adjoint of the leak, nothing through the reset.
- :func:`leaky_integrator_with_reset_path` has SpikingJelly's: through the reset as well, with the
  derivative of any surrogate function.

Source: ``lava.lib.dl.slayer.neuron.dynamics.leaky_integrator``.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .fixed_point import DECAY_SCALE, decayed, exact_dtype, integers, kept

__all__ = ["LeakyIntegratorStep", "dynamics", "integrate", "leaky_integrator_with_reset_path"]


def integrate(
    x: Tensor, decay: Tensor, state: Tensor, scale: int, threshold: float | None = None
) -> Tensor:
    """Run the recurrence of this module; no gradient.

    Parameters
    ----------
    x : Tensor
        Input ``[N, *, T]`` of a floating dtype, in any memory order.
    decay : Tensor
        Integers 0 ... 4096, of a shape that broadcasts with ``[N, *]``.
    state : Tensor
        The state before the first step, of a shape that broadcasts with ``[N, *]``.
    scale : int
        What a state of 1 is as an integer.
    threshold : float, optional
        Where the state is reset to 0 for the next step. None: never.

    Returns
    -------
    Tensor
        The states before their reset, ``[N, *, T]``, in the dtype and memory order of ``x``.
    """
    x, exact, factor = x.detach(), exact_dtype(x), kept(decay)
    held = integers(state.to(exact), scale)
    output = torch.empty_like(x)
    for t in range(x.shape[-1]):
        level = decayed(held, factor) + integers(x[..., t], scale)
        real = level.to(exact)
        output[..., t] = real / scale
        held = level if threshold is None else level * (real < threshold * scale)
    return output


class _LeakyIntegrator(torch.autograd.Function):
    """The recurrence with slayer's gradient."""

    @staticmethod
    def forward(ctx, x, decay, state, scale, threshold):
        output = integrate(x, decay, state, scale, threshold)
        ctx.save_for_backward(output, decay)
        return output

    @staticmethod
    def backward(ctx, *grad_outputs):
        output, decay = ctx.saved_tensors
        kept = (1 - decay / DECAY_SCALE).to(grad_outputs[0].dtype)
        grad_x = _leak_adjoint(grad_outputs[0], kept)
        grad_decay = None
        if ctx.needs_input_grad[1]:
            products = grad_x[..., 1:] * output[..., :-1]
            grad_decay = products.sum(-1).sum_to_size(decay.shape).to(decay.dtype)
        return grad_x, grad_decay, None, None, None


class _LeakyIntegratorWithResetPath(torch.autograd.Function):
    """The recurrence with SpikingJelly's gradient."""

    @staticmethod
    def forward(ctx, x, decay, state, scale, threshold, spike, detach_reset):
        output = integrate(x, decay, state, scale, threshold)
        ctx.save_for_backward(output, decay, state)
        ctx.spike, ctx.detach_reset = spike, detach_reset
        return output

    @staticmethod
    def backward(ctx, *grad_outputs):
        output, decay, state = ctx.saved_tensors
        grad_output = grad_outputs[0]
        kept = (1 - decay / DECAY_SCALE).to(grad_output.dtype)
        held, held_by_output = output, None  # the state after the reset, d(held) / d(output)
        if ctx.spike is not None:
            with torch.enable_grad():
                voltage = output.detach().requires_grad_()
                spikes = ctx.spike(voltage)
                (slope,) = torch.autograd.grad(spikes.sum(), voltage)
            held_by_output = 1 - spikes.detach()
            held = output * held_by_output
            if not ctx.detach_reset:
                held_by_output = held_by_output - output * slope
        grad_x = _leak_adjoint(grad_output, kept, held_by_output)
        grad_decay = grad_state = None
        if ctx.needs_input_grad[1]:
            before = torch.cat([state.expand_as(held[..., 0]).unsqueeze(-1), held[..., :-1]], -1)
            products = (before * grad_x).sum(-1) / -DECAY_SCALE
            grad_decay = products.sum_to_size(decay.shape).to(decay.dtype)
        if ctx.needs_input_grad[2]:
            grad_state = (kept * grad_x[..., 0]).sum_to_size(state.shape).to(state.dtype)
        return grad_x, grad_decay, grad_state, None, None, None, None


def _leak_adjoint(
    grad_output: Tensor, kept: Tensor, held_by_output: Tensor | None = None
) -> Tensor:
    """``g[t] = grad_output[t] + held_by_output[t] * kept * g[t+1]``, from the last step back."""
    grad_x = torch.empty_like(grad_output)
    carried: Tensor | int = 0
    for t in reversed(range(grad_output.shape[-1])):
        through = carried if held_by_output is None else held_by_output[..., t] * carried
        grad = grad_output[..., t] + through
        grad_x[..., t] = grad
        carried = kept * grad
    return grad_x


def dynamics(
    input: Tensor,
    decay: Tensor,
    state: Tensor,
    w_scale: int,
    threshold: float | None = None,
    debug: bool = False,
) -> Tensor:
    """:func:`integrate` with slayer's gradients, for ``input`` and for ``decay``.

    The decay's gradient is slayer's own: the sum over time of the input's gradient at ``t+1`` times
    the output at ``t``, without the factor -1/4096. ``state`` gets none. ``debug`` has no effect.
    """
    return _LeakyIntegrator.apply(input, decay, state, w_scale, threshold)


def leaky_integrator_with_reset_path(
    x: Tensor,
    decay: Tensor,
    state: Tensor,
    scale: int,
    threshold: float | None = None,
    spike: Callable[[Tensor], Tensor] | None = None,
    detach_reset: bool = False,
) -> Tensor:
    """:func:`integrate` with SpikingJelly's gradients, for ``x``, ``decay`` and ``state``.

    Parameters
    ----------
    spike : callable, optional
        From the states before the reset to spikes, elementwise, with a surrogate gradient. It says
        how the reset ``h = y (1 - spike(y))`` depends on ``y``. None where there is no threshold.
    detach_reset : bool
        Take the spikes of the reset as constants.
    """
    return _LeakyIntegratorWithResetPath.apply(
        x, decay, state, scale, threshold, spike, detach_reset
    )


class LeakyIntegratorStep(torch.autograd.Function):
    r"""One step of the recurrence without a threshold, with SpikingJelly's gradients.

    .. math:: y = \mathrm{sign}(h)\,(|h|\,(4096 - d) \gg 12)/s + \mathrm{trunc}(s\,x)/s

    ``LeakyIntegratorStep.apply(x, decay, state, w_scale)``: ``x`` and ``state`` ``[N, *]``,
    ``decay`` in 0 ... 4096 of a shape that broadcasts with them. The decay's gradient comes in the
    decay's own shape (in SpikingJelly it is always one number).
    """

    @staticmethod
    def forward(ctx, x, decay, state, w_scale):
        ctx.save_for_backward(decay, state)
        return integrate(x.unsqueeze(-1), decay, state, w_scale).squeeze(-1)

    @staticmethod
    def backward(ctx, *grad_outputs):
        decay, state = ctx.saved_tensors
        (grad_output,) = grad_outputs
        grad_decay = (state * grad_output / -DECAY_SCALE).sum_to_size(decay.shape)
        grad_state = ((1 - decay / DECAY_SCALE) * grad_output).sum_to_size(state.shape)
        return grad_output, grad_decay.to(decay.dtype), grad_state.to(state.dtype), None
