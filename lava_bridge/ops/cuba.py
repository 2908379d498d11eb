r"""The CUBA neuron in one operator: two leaky integrators, threshold, reset and spike.

.. math::
    u &= \mathrm{leak}(x, d_u), \qquad
    v = \mathrm{leak}(u + b, d_v)\ \text{with reset at } \vartheta \\
    s[t] &= v[t] \ge \vartheta, \qquad h[t] = v[t]\,(1 - s[t])

with :mod:`.leaky_integrator`'s recurrence. :func:`fire` has slayer's gradient: the leaks' adjoints
and the exponential surrogate, nothing through the reset. :mod:`.cuba_reset` has SpikingJelly's.

The backward pass keeps the voltages before the reset and nothing else: whether a neuron fired, and
the current (from two voltages), cost less to compute again than to read.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import kernels
from ..quantize import DECAY_SCALE, decayed, integers, kept
from .autograd import last_of, no_gradients, per_neuron, reduced, summed
from .leaky_integrator import integrate, leak_adjoint
from .operator import operator
from .shift import shifted
from .spike import require_width

__all__ = ["Fired", "Parameters", "Six", "currents", "fake", "fire", "run"]


class Fired(NamedTuple):
    """What the operators give. A sequence that was not asked for is empty.

    Attributes:
        spike, voltage, current, held: ``[N, *, T]``; the voltage is the one before the reset,
            ``held`` the one after it.
        last_current, last_held: The current and the voltage after the last step, ``[N, *]``.
    """

    spike: Tensor
    voltage: Tensor
    current: Tensor
    held: Tensor
    last_current: Tensor
    last_held: Tensor


# As operators give it: Fired's six.
Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
# Decays of current and voltage, states before the first step, and a bias, if there is one.
Parameters = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]


def run(
    x: Tensor,
    parameters: Parameters,
    scale: float,
    threshold: float,
    graded: bool,
    is_current: bool,
    keeps: tuple[bool, bool, bool],
    backend: str,
    delay_shift: bool = False,
) -> Six:
    """Forward, on whichever backend; ``keeps``: voltage, current, voltage after the reset."""
    real = x.dtype if x.dtype == torch.float64 else torch.float32
    compiled = kernels.chosen(backend, x)
    if compiled is None or not x.shape[-1]:
        settings = scale, threshold, graded, is_current, keeps, delay_shift
        return _reference(x.to(real), parameters, *settings, x)
    biased = parameters[4] is not None
    numbers = scale, threshold * scale, threshold, graded, is_current, biased, delay_shift
    outputs = [x.dtype, *(real if kept else None for kept in keeps)]
    given = [parameter for parameter in parameters if parameter is not None]
    done = kernels.run(compiled, "cuba", x, [x], given, numbers, outputs, (True, True))
    return (*done.sequences, *done.neurons)


def _reference(
    x: Tensor,
    parameters: Parameters,
    scale: float,
    threshold: float,
    graded: bool,
    is_current: bool,
    keeps: tuple[bool, bool, bool],
    delay_shift: bool,
    like: Tensor,
) -> Six:
    current_decay, voltage_decay, current_state, voltage_state, bias = parameters
    current = x.clone() if is_current else integrate(x, current_decay, current_state, scale)
    drive = current
    if bias is not None:
        drive = torch.empty_like(x).copy_(current + bias.unsqueeze(-1).to(current.dtype))
    voltage = integrate(drive, voltage_decay, voltage_state, scale, threshold)
    fired = voltage >= threshold
    spike = (fired * voltage if graded else fired).to(like.dtype)
    held = torch.where(fired, 0, voltage)  # (masked_fill would not keep the order in memory)
    last = last_of(current, current_state), last_of(held, voltage_state)
    sequences: kernels.Tensors = [
        sequence if keep else x.new_empty(0)
        for sequence, keep in zip((voltage, current, held), keeps, strict=True)
    ]
    return (shifted(spike, 1) if delay_shift else spike, *sequences, *last)


def fake(x: Tensor, keeps: tuple[bool, bool, bool]) -> Six:
    real = x.dtype if x.dtype == torch.float64 else torch.float32
    sequences: kernels.Tensors = [
        torch.empty_like(x, dtype=real) if keep else x.new_empty(0, dtype=real) for keep in keeps
    ]
    return (torch.empty_like(x), *sequences, per_neuron(x), per_neuron(x))


@operator("lava_bridge::cuba")
def _cuba(
    x: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    current_state: Tensor,
    voltage_state: Tensor,
    bias: Tensor | None,
    scale: float,
    threshold: float,
    tau: float,
    height: float,
    graded: bool,
    delay_shift: bool,
    keep_voltage: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    parameters = current_decay, voltage_decay, current_state, voltage_state, bias
    keeps = keep_voltage, False, False
    return run(x, parameters, scale, threshold, graded, False, keeps, backend, delay_shift)


@_cuba.register_fake
def _(x: Tensor, *args: Any) -> Any:
    return fake(x, (args[11], False, False))


@operator("lava_bridge::cuba_backward")
def _cuba_backward(
    grad: Tensor,
    voltage: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    voltage_state: Tensor,
    bias: Tensor | None,
    scale: float,
    threshold: float,
    tau: float,
    height: float,
    graded: bool,
    delay_shift: bool,
    wants_sums: bool,
    wants_bias: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient of x, and per neuron the decays' and the bias'."""
    compiled = kernels.chosen(backend, voltage)
    if compiled is not None:
        numbers = scale, threshold * scale, threshold, tau, height, graded, delay_shift
        parameters = current_decay, voltage_decay, voltage_state, *([] if bias is None else [bias])
        wanted = [grad.dtype], (wants_sums, wants_sums, wants_bias)
        done = kernels.run(
            compiled, "cuba_slayer_backward", voltage, (grad, voltage), parameters, numbers, *wanted
        )
        return (done.sequences[0], *done.neurons)
    if delay_shift:
        grad = shifted(grad, -1)
    above = voltage - threshold
    away = above.clamp(max=0) if graded else -above.abs()
    slope = (height if graded else height / 2 / tau) * torch.exp(away / tau)
    left = [1 - d.to(voltage.dtype) / DECAY_SCALE for d in (current_decay, voltage_decay)]
    of_voltage = leak_adjoint(torch.empty_like(voltage).copy_(slope * grad), left[1])
    of_current = leak_adjoint(of_voltage, left[0])
    found = wants_sums, wants_sums, wants_bias
    sums: kernels.Tensors = [per_neuron(voltage, wants) for wants in found]
    if wants_sums:
        current = currents(voltage, voltage_decay, voltage_state, bias, scale, threshold)
        both = (of_current, current), (of_voltage, voltage)
        sums[:2] = (summed(grads[..., 1:] * states[..., :-1], voltage) for grads, states in both)
    if wants_bias:
        sums[2] = summed(of_voltage, voltage)
    return (of_current.to(grad.dtype), *sums)


def currents(
    voltage: Tensor,
    decay: Tensor,
    state: Tensor,
    bias: Tensor | None,
    scale: float,
    threshold: float,
) -> Tensor:
    """The currents that led to these voltages: what the leak left of the voltage is taken off."""
    held = torch.where(voltage * scale < threshold * scale, voltage, 0)
    first = state.to(voltage.dtype).expand(voltage.shape[:-1]).unsqueeze(-1)
    before = torch.cat([first, held[..., :-1]], dim=-1)
    left = decayed(integers(before, scale), kept(decay).unsqueeze(-1))
    drive = voltage - left.to(voltage.dtype) / scale
    return drive if bias is None else drive - bias.unsqueeze(-1).to(drive.dtype)


@_cuba_backward.register_fake
def _(grad: Tensor, voltage: Tensor, *args: Any) -> Any:
    sums = (per_neuron(voltage, args[k]) for k in (10, 10, 11))
    return torch.empty_like(voltage, dtype=grad.dtype), *sums


def _save(ctx: Any, inputs: tuple[Any, ...], output: Six) -> None:
    _, *decays, _, voltage_state, bias, ctx.scale, ctx.threshold, ctx.tau, ctx.height = inputs[:10]
    *_, ctx.graded, ctx.delay_shift, _, ctx.backend = inputs
    ctx.save_for_backward(output[1], *decays, voltage_state, bias)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, *rest: Tensor) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 14
    require_width(ctx.tau)
    voltage, *decays, voltage_state, bias = ctx.saved_tensors
    wanted = [*ctx.needs_input_grad[1:3], ctx.needs_input_grad[5]]
    settings = ctx.scale, ctx.threshold, ctx.tau, ctx.height, ctx.graded, ctx.delay_shift
    wants = any(wanted[:2]), wanted[2]
    grad_x, *sums = _cuba_backward(
        grad, voltage, *decays, voltage_state, bias, *settings, *wants, ctx.backend
    )
    *grad_decays, grad_bias = (
        reduced(total, parameter) if needed else None
        for total, parameter, needed in zip(sums, (*decays, bias), wanted, strict=True)
    )
    return grad_x, *grad_decays, None, None, grad_bias, *(None,) * 8


_cuba.register_autograd(_gradients, setup_context=_save)
no_gradients(_cuba_backward)


def fire(
    x: Tensor,
    decays: tuple[Tensor, Tensor],
    states: tuple[Tensor, Tensor],
    scale: int,
    threshold: float,
    surrogate: tuple[float, float],
    graded: bool,
    bias: Tensor | None = None,
    delay_shift: bool = False,
) -> Fired:
    """Spikes with slayer's gradients for ``x`` ``[N, *, T]``, the decays and the bias.

    Args:
        x: The dendritic input, in any memory order; spikes come in its dtype and order. Half
            precision is computed in float32.
        decays: Of current and voltage, integers 0 ... 4096.
        states: Current and voltage before the first step; each of the four broadcasts with
            ``[N, *]``. They get no gradient.
        scale: What a state of 1 is as an integer.
        threshold: Where the neuron fires and is reset.
        surrogate: Width and height of :class:`lava_bridge.slayer.spike.Spike`'s derivative.
        graded: Whether a spike carries its voltage.
        bias: Added to the current on its way to the voltage, in each step; broadcasts likewise.
        delay_shift: Give the spikes one step later, as :func:`.shift` by 1 would: 0 in the first
            step, and the last step's are left out. The states are not delayed.

    The decays' gradients are slayer's, as :func:`.leaky_integrator.dynamics`'s. Their sums need the
    current, which is taken from the voltages: the scale must be a power of two then.
    """
    learned = any(t.requires_grad for t in (x, *decays, bias) if t is not None)
    keep = torch.is_grad_enabled() and learned
    held = (state.detach() for state in states)
    backend = kernels.current_backend()
    settings = scale, threshold, *surrogate, graded, delay_shift, keep, backend
    return Fired(*_cuba(x, *decays, *held, bias, *settings))
