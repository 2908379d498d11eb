r"""The leaky integrator of a CUBA neuron: the fixed-point recurrence, and two ways back through it.

.. math::
    y[t] &= \mathrm{sign}(h[t-1])\,\bigl(|h[t-1]|\,(4096 - d) \gg 12\bigr)
            + \mathrm{trunc}(s\,x[t]) \\
    h[t] &= y[t]\,\bigl(y[t] < s\,\vartheta\bigr)

with the scale ``s`` of the states, the 12-bit decay ``d`` and, for a current, no threshold (then
``h = y``). Outputs are ``y / s``: the state before its reset. Integers are 64 bits wide.

The gradient of :func:`dynamics` is slayer's: the adjoint of the leak, nothing through the reset.
(SpikingJelly's is in :mod:`lava_bridge.exchange.gradient`.)

Source: ``lava.lib.dl.slayer.neuron.dynamics.leaky_integrator``.
"""

import torch
from torch import Tensor

from ..quantize import DECAY_SCALE, decayed, exact_dtype, integers, kept

__all__ = ["dynamics", "integrate", "leak_adjoint"]


def integrate(
    x: Tensor, decay: Tensor, state: Tensor, scale: int, threshold: float | None = None
) -> Tensor:
    """Run the recurrence of this module; no gradient.

    ``x`` is ``[N, *, T]`` of a floating dtype, in any memory order; the decay, integers 0 ... 4096,
    and the state before the first step broadcast with ``[N, *]``. ``scale``: what 1 is as an
    integer; ``threshold``: where the state is reset to 0 for the next step (None: nowhere). Gives
    the states before their reset, ``[N, *, T]``, in the dtype and memory order of ``x``.
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
        grad_x = leak_adjoint(grad_outputs[0], kept)
        grad_decay = None
        if ctx.needs_input_grad[1]:
            products = grad_x[..., 1:] * output[..., :-1]
            grad_decay = products.sum(-1).sum_to_size(decay.shape).to(decay.dtype)
        return grad_x, grad_decay, None, None, None


def leak_adjoint(grad_output: Tensor, kept: Tensor, held_by_output: Tensor | None = None) -> Tensor:
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
