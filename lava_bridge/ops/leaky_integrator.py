r"""The leaky integrator of a CUBA neuron: the fixed-point recurrence, and two ways back through it.

.. math::
    y[t] &= \mathrm{sign}(h[t-1])\,\bigl(|h[t-1]|\,(4096 - d) \gg 12\bigr)
            + \mathrm{trunc}(s\,x[t]) \\
    h[t] &= y[t]\,\bigl(y[t] < s\,\vartheta\bigr)

with the scale ``s`` of the states, the 12-bit decay ``d`` and, for a current, no threshold (then
``h = y``). Outputs are ``y / s``: the state before its reset. Integers are 64 bits wide.

The gradient of :func:`dynamics` is slayer's: the adjoint of the leak, nothing through the reset.
That of :func:`leak` is the recurrence's own, as SpikingJelly has it.

Source: ``lava.lib.dl.slayer.neuron.dynamics.leaky_integrator``.
"""

from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..quantize import DECAY_SCALE, decayed, exact_dtype, integers, kept
from .autograd import before_last, no_gradients, per_neuron, reduced, summed
from .operator import operator
from .persistent import persistent_state

__all__ = ["dynamics", "integrate", "leak", "leak_adjoint", "persistent_state"]


def integrate(
    x: Tensor, decay: Tensor, state: Tensor, scale: float, threshold: float | None = None
) -> Tensor:
    """The torch reference of this module's recurrence; no gradient.

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


def leak_adjoint(grad_output: Tensor, kept: Tensor) -> Tensor:
    """``g[t] = grad_output[t] + kept * g[t+1]``, from the last step back: the torch reference."""
    grad_x = torch.empty_like(grad_output)
    carried: Tensor | int = 0
    for t in reversed(range(grad_output.shape[-1])):
        grad = grad_output[..., t] + carried
        grad_x[..., t] = grad
        carried = kept * grad
    return grad_x


@operator("lava_bridge::leaky_integrator")
def _leaky_integrator(
    x: Tensor,
    decay: Tensor,
    state: Tensor,
    scale: float,
    threshold: float | None,
    own_gradient: bool,
    backend: str,
) -> Tensor:
    compiled = kernels.chosen(backend, x)
    if compiled is None:
        return integrate(x, decay, state, scale, threshold)
    numbers = scale, threshold is not None, 0 if threshold is None else threshold * scale
    parameters = decay, state
    done = kernels.run(compiled, "leaky_integrator", x, [x], parameters, numbers, [x.dtype])
    return done.sequences[0]


@_leaky_integrator.register_fake
def _(
    x: Tensor,
    decay: Tensor,
    state: Tensor,
    scale: float,
    threshold: float | None,
    own_gradient: bool,
    backend: str,
) -> Tensor:
    return torch.empty_like(x)


@operator("lava_bridge::leaky_integrator_backward")
def _backward(
    grad: Tensor, output: Tensor, decay: Tensor, wants_sum: bool, backend: str
) -> tuple[Tensor, Tensor]:
    """The input's gradient, and its sum over time with the output one step before ``[N, *]``."""
    compiled = kernels.chosen(backend, output)
    if compiled is None:
        exact = exact_dtype(output)
        grads = torch.empty_like(output, dtype=exact).copy_(grad)
        grads = leak_adjoint(grads, 1 - decay.to(exact) / DECAY_SCALE)
        grad_x = torch.empty_like(output).copy_(grads)
        if not wants_sum:
            return grad_x, per_neuron(output, False)
        return grad_x, summed(grads[..., 1:] * output[..., :-1].to(exact), output)
    inputs = grad, before_last(output) if wants_sum else None
    wanted = [output.dtype], [wants_sum]
    done = kernels.run(compiled, "leaky_integrator_backward", output, inputs, [decay], [], *wanted)
    return done.sequences[0], done.neurons[0]


@_backward.register_fake
def _(
    grad: Tensor, output: Tensor, decay: Tensor, wants_sum: bool, backend: str
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(output), per_neuron(output, wants_sum)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, decay, state, _, _, ctx.own_gradient, ctx.backend = inputs
    ctx.save_for_backward(output, decay, state)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    output, decay, state = ctx.saved_tensors
    wants_sum = ctx.needs_input_grad[1]
    grad_x, products = _backward(grad, output, decay, wants_sum, ctx.backend)
    grad_decay = grad_state = None
    if ctx.own_gradient:
        first = grad_x[..., 0] if grad_x.shape[-1] else grad_x.new_zeros(grad_x.shape[:-1])
        first = first.to(exact_dtype(grad_x))
        if wants_sum:
            products = (products + first * state) / -DECAY_SCALE
        if ctx.needs_input_grad[2]:
            grad_state = reduced((1 - decay.to(first.dtype) / DECAY_SCALE) * first, state)
    if wants_sum:
        grad_decay = reduced(products, decay)
    return grad_x, grad_decay, grad_state, None, None, None, None


_leaky_integrator.register_autograd(_gradients, setup_context=_save)
no_gradients(_backward)


def dynamics(
    input: Tensor,
    decay: Tensor,
    state: Tensor,
    w_scale: int,
    threshold: float | None = None,
    debug: bool = False,
) -> Tensor:
    """Run the recurrence of this module on ``[N, *, T]``, with slayer's gradients.

    The decay, integers 0 ... 4096, and the state before the first step broadcast with ``[N, *]``.
    ``w_scale``: what 1 is as an integer; ``threshold``: where the state is reset to 0 for the next
    step (None: nowhere). ``debug`` has no effect. Gives the states before their reset, in the dtype
    and memory order of ``input``.

    The decay's gradient is slayer's own: the sum over time of the input's gradient at ``t+1`` times
    the output at ``t``, without the factor -1/4096. ``state`` gets none.
    """
    backend = kernels.current_backend()
    return _leaky_integrator(input, decay, state.detach(), w_scale, threshold, False, backend)


def leak(x: Tensor, decay: Tensor, state: Tensor, scale: int, backend: str) -> Tensor:
    """:func:`dynamics` without a threshold, with the true gradients of x, decay and state."""
    return _leaky_integrator(x, decay, state, scale, None, True, backend)
