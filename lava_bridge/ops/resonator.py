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

from .. import kernels
from ..quantize import DECAY_SCALE, decayed, exact_dtype, integers
from .autograd import before_last, no_gradients, per_neuron, reduced, summed
from .operator import operator
from .persistent import persistent_imag_state, persistent_real_state

__all__ = ["dynamics", "input_gradients", "persistent_imag_state", "persistent_real_state"]
__all__ += ["reset_steps", "resonate", "turn_adjoint", "turn_sums"]


Pair = tuple[Tensor, Tensor]


def reset_steps(threshold: float | None, scale: float) -> tuple[int, int] | None:
    """Izhikevich's reset in integers: from where on, and to what; None: there is none."""
    if threshold is None:
        return None
    # In single precision as in slayer: 0.29 * 6400 is then 1856.
    steps = torch.tensor(threshold * scale, dtype=torch.float32).item()
    return (math.ceil(steps), int(steps - 1)) if 0 <= steps < 2**63 else None


def resonate(
    inputs: Pair, decays: Pair, states: Pair, scale: float, threshold: float | None
) -> Pair:
    """The torch reference of this module's recurrence: the integers a and b, ``[N, *, T]``."""
    (real_input, imag_input), (sine, cosine) = inputs, map(integers, decays)
    real, imag = (integers(state.to(exact_dtype(real_input)), scale) for state in states)
    real_steps, imag_steps = (torch.empty_like(real_input, dtype=torch.int64) for _ in inputs)
    reset = reset_steps(threshold, scale)
    for t in range(real_input.shape[-1]):
        real, imag = (
            decayed(real, cosine) - decayed(imag, sine) + integers(real_input[..., t], scale),
            decayed(real, sine) + decayed(imag, cosine) + integers(imag_input[..., t], scale),
        )
        real_steps[..., t], imag_steps[..., t] = real, imag
        if reset is not None:
            fired = imag >= reset[0]
            real, imag = real.masked_fill(fired, 0), imag.masked_fill(fired, reset[1])
    return real_steps, imag_steps


def turn_adjoint(grads: Pair, decays: Pair) -> Pair:
    """The adjoint of the turn, from the last step back, nothing through the reset: the reference.

    From gradients of the states ``[N, *, T]`` to those of the inputs.
    """
    sine, cosine = ((d / DECAY_SCALE).to(grads[0].dtype) for d in decays)
    grad_real, grad_imag = (torch.empty_like(grads[0]) for _ in grads)
    later_real = later_imag = grads[0].new_zeros(grads[0].shape[:-1])
    for t in reversed(range(grads[0].shape[-1])):
        later_real, later_imag = (
            grads[0][..., t] + cosine * later_real + sine * later_imag,
            grads[1][..., t] - sine * later_real + cosine * later_imag,
        )
        grad_real[..., t], grad_imag[..., t] = later_real, later_imag
    return grad_real, grad_imag


def turn_sums(grads: Pair, states: Pair) -> Pair:
    """slayer's gradients of sine and cosine, ``[N, *]``, from those of the inputs and the states.

    The sums over time of the products of each state with the gradients of the step after it.
    """
    of_real, of_imag = (grad[..., 1:] for grad in grads)
    real, imag = (state[..., :-1] for state in states)
    by_sine = summed(of_imag * real - of_real * imag, grads[0])
    return by_sine, summed(of_real * real + of_imag * imag, grads[0])


@operator("lava_bridge::resonator")
def _resonator(
    real_input: Tensor,
    imag_input: Tensor,
    sin_decay: Tensor,
    cos_decay: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    scale: float,
    threshold: float | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    inputs, decays, states = (
        (real_input, imag_input),
        (sin_decay, cos_decay),
        (real_state, imag_state),
    )
    compiled = kernels.chosen(backend, real_input)
    if compiled is None:
        steps = resonate(inputs, decays, states, scale, threshold)
        exact = exact_dtype(real_input)
        real, imag = ((part.to(exact) / scale).to(real_input.dtype) for part in steps)
        return real, imag
    reset = reset_steps(threshold, scale)
    numbers = scale, 0, False, reset is not None, *(reset or (0, 0))
    wanted = None, None, real_input.dtype, real_input.dtype
    done = kernels.run(compiled, "rf_iz", real_input, inputs, (*decays, *states), numbers, wanted)
    return done.sequences[2], done.sequences[3]


@_resonator.register_fake
def _(real_input: Tensor, *args: Any) -> Pair:
    return torch.empty_like(real_input), torch.empty_like(real_input)


@operator("lava_bridge::resonator_backward")
def _backward(
    grad_real: Tensor,
    grad_imag: Tensor,
    real: Tensor,
    imag: Tensor,
    sin_decay: Tensor,
    cos_decay: Tensor,
    wants_sums: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inputs' gradients, and per neuron those of sine and cosine."""
    grads, states, decays = (grad_real, grad_imag), (real, imag), (sin_decay, cos_decay)
    compiled = kernels.chosen(backend, real)
    exact = exact_dtype(real)
    if compiled is None:
        exact_grads = (torch.empty_like(real, dtype=exact).copy_(grad) for grad in grads)
        found = turn_adjoint((next(exact_grads), next(exact_grads)), decays)
        by_real, by_imag = (torch.empty_like(real).copy_(grad) for grad in found)
        sums = per_neuron(real, False), per_neuron(real, False)
        if wants_sums:
            sums = turn_sums(found, (real.to(exact), imag.to(exact)))
        return by_real, by_imag, *sums
    inputs = *grads, *(map(before_last, states) if wants_sums else ())
    wanted = [real.dtype, real.dtype], (wants_sums, wants_sums)
    done = kernels.run(compiled, "resonator_backward", real, inputs, decays, (), *wanted)
    return (*done.sequences, *done.neurons)


@_backward.register_fake
def _(grad_real: Tensor, grad_imag: Tensor, real: Tensor, *args: Any) -> Any:
    sums = (per_neuron(real, args[3]) for _ in range(2))
    return torch.empty_like(real), torch.empty_like(real), *sums


def _save(ctx: Any, inputs: tuple[Any, ...], output: Pair) -> None:
    ctx.backend = inputs[-1]
    ctx.save_for_backward(*output, *inputs[2:4])


def input_gradients(ctx: Any, grads: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """Gradients of inputs and decays, where the states and the decays were saved, in pairs."""
    *states, sine, cosine = ctx.saved_tensors
    wanted = ctx.needs_input_grad[2:4]
    *found, by_sine, by_cosine = _backward(
        *grads[:2], *states, sine, cosine, any(wanted), ctx.backend
    )
    sums = (by_sine, sine), (by_cosine, cosine)
    of_decays = (
        reduced(*pair) if wants else None for pair, wants in zip(sums, wanted, strict=True)
    )
    return *found, *of_decays


def _gradients(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    return *input_gradients(ctx, grads), *(None,) * 5


_resonator.register_autograd(_gradients, setup_context=_save)
no_gradients(_backward)


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

    Inputs ``[N, *, T]`` of one dtype; the integers s and c in ``sin_decay`` and ``cos_decay``, and
    the state before the first step, broadcast with ``[N, *]``. ``w_scale``: what 1 is as an
    integer; ``threshold``: where the imaginary state is reset (None: nowhere). ``debug`` has no
    effect. Dtype and memory order are the real input's. The gradient is the adjoint of the turn,
    nothing through the reset; that of the decays comes without the factor 1/4096, as in slayer.
    """
    states = real_state.detach(), imag_state.detach()
    backend = kernels.current_backend()
    return _resonator(
        real_input, imag_input, sin_decay, cos_decay, *states, w_scale, threshold, backend
    )
