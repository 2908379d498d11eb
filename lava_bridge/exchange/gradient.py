"""SpikingJelly's gradients through slayer's leaky integrator.

Forward is :func:`lava_bridge.ops.integrate`. Backward goes through the reset as well, with the
derivative of any surrogate function, and reaches the decay and the first state.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..ops import DECAY_SCALE, integrate
from ..ops.leaky_integrator import leak_adjoint

__all__ = ["LeakyIntegratorStep", "leaky_integrator_with_reset_path"]


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
        grad_x = leak_adjoint(grad_output, kept, held_by_output)
        grad_decay = grad_state = None
        if ctx.needs_input_grad[1]:
            before = torch.cat([state.expand_as(held[..., 0]).unsqueeze(-1), held[..., :-1]], -1)
            products = (before * grad_x).sum(-1) / -DECAY_SCALE
            grad_decay = products.sum_to_size(decay.shape).to(decay.dtype)
        if ctx.needs_input_grad[2]:
            grad_state = (kept * grad_x[..., 0]).sum_to_size(state.shape).to(state.dtype)
        return grad_x, grad_decay, grad_state, None, None, None, None


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

    Args:
        spike: From the states before the reset to spikes, elementwise, with a surrogate gradient.
            It says how the reset ``h = y (1 - spike(y))`` depends on ``y``. None where there is no
            threshold.
        detach_reset: Take the spikes of the reset as constants.
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
