r"""The ALIF neuron in one operator: two leaks, the adaptive threshold, the spike.

:mod:`.leaky_integrator` twice, :mod:`.adaptive_threshold` on the voltage, and :mod:`.spike`. The
gradients are theirs: the surrogate and the leaks' adjoints, nothing through the threshold. Kept for
the backward pass are how far the voltage was over the threshold and, if the decays are learned,
current and voltage.
"""

from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..quantize import DECAY_SCALE, exact_dtype, integers
from .adaptive_threshold import adapt, adaptation_steps
from .autograd import last_of, no_gradients, per_neuron, reduced, summed
from .leaky_integrator import integrate, leak_adjoint
from .operator import operator
from .resonate_and_fire import Adaptation, Fired
from .shift import shifted
from .spike import Surrogate, at_threshold, require_width, slope

__all__ = ["fire"]


@operator("lava_bridge::alif")
def _fire(
    x: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    current_state: Tensor,
    voltage_state: Tensor,
    ref_decay: Tensor,
    th_decay: Tensor,
    ref_state: Tensor,
    th_state: Tensor,
    th_scale: float,
    th0: float,
    scale: float,
    tau: float,
    height: float,
    graded: bool,
    delay_shift: bool,
    keep_above: bool,
    keep_states: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Spikes; what is kept (else empty): over the threshold, current, voltage; the last states."""
    compiled, exact = kernels.chosen(backend, x), exact_dtype(x)
    keep = keep_above, keep_states, keep_states
    decays, states = (ref_decay, th_decay), (ref_state, th_state)
    steps = adaptation_steps(th_scale, th0, scale)
    if compiled is None or not x.shape[-1]:
        current = integrate(x.to(exact), current_decay, current_state, scale)
        voltage = integrate(current, voltage_decay, voltage_state, scale)
        level = integers(voltage, scale)
        threshold, refractory = adapt(level, None, decays, states, steps, scale, exact)
        holds = threshold + refractory
        spike = at_threshold(voltage, holds, graded).to(x.dtype)
        spike = shifted(spike, 1) if delay_shift else spike
        sequences: kernels.Tensors = [
            sequence if kept else voltage.new_empty(0)
            for sequence, kept in zip((voltage - holds, current, voltage), keep, strict=True)
        ]
        last = (
            last_of(current, current_state),
            last_of(voltage, voltage_state),
            last_of(threshold, th_state),
            last_of(refractory, ref_state),
        )
        return spike, *sequences, *last
    parameters = current_decay, voltage_decay, current_state, voltage_state, *decays, *states
    numbers = scale, *steps, graded, delay_shift
    wanted = [x.dtype, *(exact if kept else None for kept in keep)], [True] * 4
    done = kernels.run(compiled, "alif", x, [x], parameters, numbers, *wanted)
    return (*done.sequences, *done.neurons)


@_fire.register_fake
def _(x: Tensor, *args: Any) -> Any:
    exact, keep = exact_dtype(x), (args[15], args[16], args[16])
    sequences = [
        torch.empty_like(x, dtype=exact) if kept else x.new_empty(0, dtype=exact) for kept in keep
    ]
    last = (per_neuron(x) for _ in range(4))
    return torch.empty_like(x), *sequences, *last


@operator("lava_bridge::alif_backward")
def _backward(
    grad: Tensor,
    above: Tensor,
    current: Tensor,
    voltage: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    tau: float,
    height: float,
    graded: bool,
    delay_shift: bool,
    wants_sums: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of x, and the decays' per neuron, for which current and voltage are read."""
    compiled, decays = kernels.chosen(backend, above), (current_decay, voltage_decay)
    states = (current, voltage) if wants_sums else (None, None)
    if compiled is not None:
        numbers = 0, tau, height, graded, delay_shift
        wanted = [above.dtype], (wants_sums, wants_sums)
        inputs = grad, above, *states
        done = kernels.run(compiled, "alif_backward", above, inputs, decays, numbers, *wanted)
        return done.sequences[0], done.neurons[0], done.neurons[1]
    grad = shifted(grad, -1) if delay_shift else grad
    left = [1 - decay.to(above.dtype) / DECAY_SCALE for decay in decays]
    of_spike = torch.empty_like(above).copy_(grad * slope(above, tau, height, graded))
    of_voltage = leak_adjoint(of_spike, left[1])
    of_current = leak_adjoint(of_voltage, left[0])
    sums = [
        per_neuron(above, False)
        if steps is None
        else summed(grads[..., 1:] * steps[..., :-1], above)
        for grads, steps in zip((of_current, of_voltage), states, strict=True)
    ]
    return of_current, sums[0], sums[1]


@_backward.register_fake
def _(grad: Tensor, above: Tensor, *args: Any) -> Any:
    sums = (per_neuron(above, args[8]) for _ in range(2))
    return torch.empty_like(above), *sums


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.surrogate, ctx.backend, ctx.dtype = inputs[12:15], inputs[-1], inputs[0].dtype
    ctx.delay_shift = inputs[15]
    # All outputs stay differentiable: a gradient of the gradient, which needs them, is refused.
    ctx.save_for_backward(*output[1:4], *inputs[1:3])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, *rest: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 19
    require_width(ctx.surrogate[0])
    wanted = ctx.needs_input_grad[1:3]
    settings = *ctx.surrogate, ctx.delay_shift, any(wanted), ctx.backend
    saved = ctx.saved_tensors  # once: torch's checkpoint gives them no second time
    grad_x, *sums = _backward(grad, *saved, *settings)
    of_decays = (
        reduced(total, decay) if wants else None
        for total, decay, wants in zip(sums, saved[3:], wanted, strict=True)
    )
    return grad_x.to(ctx.dtype), *of_decays, *(None,) * 16


_fire.register_autograd(_gradients, setup_context=_save)
no_gradients(_backward)


def fire(
    x: Tensor,
    decays: tuple[Tensor, Tensor],
    states: tuple[Tensor, Tensor],
    adaptation: Adaptation,
    scale: int,
    surrogate: Surrogate,
    delay_shift: bool = False,
) -> Fired:
    """Spikes, with slayer's gradients for x ``[N, *, T]`` and the decays.

    Args:
        x: The dendritic input, in any memory order; spikes come in its dtype and order. Half
            precision is computed in float32.
        decays: Of current and voltage, integers 0 ... 4096.
        states: Current and voltage before the first step; each of the four broadcasts with
            ``[N, *]``. States get no gradient.
        adaptation: The adaptive threshold. It gets no gradient.
        scale: What a state of 1 is as an integer.
        surrogate: Width and height of the surrogate, and whether a spike carries its voltage.
        delay_shift: As in :func:`.cuba.fire`.
    """
    ref_state, ref_decay, th_state, th_decay, *steps = adaptation
    tensors = (part.detach() for part in (*states, ref_decay, th_decay, ref_state, th_state))
    learns_decays = any(decay.requires_grad for decay in decays)
    learns = torch.is_grad_enabled() and (x.requires_grad or learns_decays)
    keep = learns, learns and learns_decays
    tau, height, graded = surrogate
    settings = scale, tau, height, bool(graded), delay_shift, *keep, kernels.current_backend()
    spike, *rest = _fire(x, *decays, *tensors, *steps, *settings)
    return Fired(spike, tuple(rest[3:]))
