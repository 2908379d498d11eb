r"""The CUBA neuron in one operator: two leaky integrators, threshold, reset and spike.

.. math::
    u &= \mathrm{leak}(x, d_u), \qquad
    v = \mathrm{leak}(u, d_v)\ \text{with reset at } \vartheta \\
    s[t] &= v[t] \ge \vartheta, \qquad h[t] = v[t]\,(1 - s[t])

with :mod:`.leaky_integrator`'s recurrence. :func:`fire` has slayer's gradient: the leaks' adjoints
and the exponential surrogate, nothing through the reset. :func:`fire_and_reset` has SpikingJelly's:
any surrogate, through the reset unless it is detached, and to the decays and the first states.

The backward pass keeps the voltages before the reset and nothing else: whether a neuron fired, and
the current (from two voltages), cost less to compute again than to read.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import kernels
from ..errors import BridgeError
from ..quantize import DECAY_SCALE, decayed, integers, kept
from .autograd import no_gradients, reduced
from .leaky_integrator import integrate, leak_adjoint
from .spike import require_width
from .surrogate import Smooth, derivative, of_any

__all__ = ["Fired", "fire", "fire_and_reset"]


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


_Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _run(
    x: Tensor,
    parameters: tuple[Tensor, ...],
    scale: float,
    threshold: float,
    graded: bool,
    is_current: bool,
    keeps: tuple[bool, bool, bool],
    backend: str,
) -> _Six:
    """Forward, on whichever backend."""
    real = x.dtype if x.dtype == torch.float64 else torch.float32
    compiled = kernels.chosen(backend, x)
    if compiled is None:
        return _reference(x.to(real), parameters, scale, threshold, graded, is_current, keeps, x)
    numbers = scale, threshold * scale, threshold, graded, is_current
    outputs = [x.dtype, *(real if kept else None for kept in keeps)]
    done = kernels.run(compiled, "cuba", x, [x], parameters, numbers, outputs, (True, True))
    return (*done.sequences, *done.neurons)  # type: ignore[return-value] # four and two


def _reference(
    x: Tensor,
    parameters: tuple[Tensor, ...],
    scale: float,
    threshold: float,
    graded: bool,
    is_current: bool,
    keeps: tuple[bool, bool, bool],
    like: Tensor,
) -> _Six:
    current_decay, voltage_decay, current_state, voltage_state = parameters
    current = x.clone() if is_current else integrate(x, current_decay, current_state, scale)
    voltage = integrate(current, voltage_decay, voltage_state, scale, threshold)
    fired = voltage >= threshold
    spike = fired * voltage if graded else fired
    held = voltage.masked_fill(fired, 0)
    last = current[..., -1].clone(), held[..., -1].clone()
    sequences = [
        sequence if keep else x.new_empty(0)
        for sequence, keep in zip((voltage, current, held), keeps, strict=True)
    ]
    return (spike.to(like.dtype), *sequences, *last)  # type: ignore[return-value] # three and two


def _fake(x: Tensor, keeps: tuple[bool, bool, bool]) -> _Six:
    real = x.dtype if x.dtype == torch.float64 else torch.float32
    sequences = [
        torch.empty_like(x, dtype=real) if keep else x.new_empty(0, dtype=real) for keep in keeps
    ]
    last = (torch.empty_like(x[..., 0], dtype=real) for _ in range(2))
    return (torch.empty_like(x), *sequences, *last)  # type: ignore[return-value] # three and two


# slayer's gradient ------------------------------------------------------------------------------


@torch.library.custom_op("lava_bridge::cuba", mutates_args=())
def _cuba(
    x: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    current_state: Tensor,
    voltage_state: Tensor,
    scale: float,
    threshold: float,
    tau: float,
    height: float,
    graded: bool,
    keep_voltage: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    parameters = current_decay, voltage_decay, current_state, voltage_state
    keeps = keep_voltage, False, False
    return _run(x, parameters, scale, threshold, graded, False, keeps, backend)


@_cuba.register_fake
def _(x: Tensor, *args: Any) -> Any:
    return _fake(x, (args[9], False, False))


@torch.library.custom_op("lava_bridge::cuba_backward", mutates_args=())
def _cuba_backward(
    grad: Tensor,
    voltage: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    voltage_state: Tensor,
    scale: float,
    threshold: float,
    tau: float,
    height: float,
    graded: bool,
    wants_sums: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of x, and the decays' per neuron."""
    compiled = kernels.chosen(backend, voltage)
    if compiled is not None:
        numbers = scale, threshold * scale, threshold, tau, height, graded
        parameters = current_decay, voltage_decay, voltage_state
        wanted = [grad.dtype], (wants_sums, wants_sums)
        done = kernels.run(
            compiled, "cuba_slayer_backward", voltage, (grad, voltage), parameters, numbers, *wanted
        )
        return done.sequences[0], done.neurons[0], done.neurons[1]
    above = voltage - threshold
    away = above.clamp(max=0) if graded else -above.abs()
    slope = (height if graded else height / 2 / tau) * torch.exp(away / tau)
    left = [(1 - d / DECAY_SCALE).to(voltage.dtype) for d in (current_decay, voltage_decay)]
    of_voltage = leak_adjoint(slope * grad, left[1])
    of_current = leak_adjoint(of_voltage, left[0])
    sums: tuple[Tensor, ...] = (voltage.new_empty(0), voltage.new_empty(0))
    if wants_sums:
        current = _currents(voltage, voltage_decay, voltage_state, scale, threshold)
        sums = tuple(
            (grads[..., 1:] * states[..., :-1]).sum(-1)
            for grads, states in ((of_current, current), (of_voltage, voltage))
        )
    return (of_current.to(grad.dtype), *sums)  # type: ignore[return-value] # one and two


def _currents(
    voltage: Tensor, decay: Tensor, state: Tensor, scale: float, threshold: float
) -> Tensor:
    """The currents that led to these voltages: what the leak left of the voltage is taken off."""
    held = torch.where(voltage * scale < threshold * scale, voltage, 0)
    first = state.to(voltage.dtype).expand(voltage.shape[:-1]).unsqueeze(-1)
    before = torch.cat([first, held[..., :-1]], dim=-1)
    left = decayed(integers(before, scale), kept(decay).unsqueeze(-1))
    return voltage - left.to(voltage.dtype) / scale


@_cuba_backward.register_fake
def _(grad: Tensor, voltage: Tensor, *args: Any) -> Any:
    sums = (voltage.new_empty(voltage.shape[:-1] if args[8] else 0) for _ in range(2))
    return torch.empty_like(voltage, dtype=grad.dtype), *sums


def _save(ctx: Any, inputs: tuple[Any, ...], output: _Six) -> None:
    _, *decays, _, voltage_state, ctx.scale, ctx.threshold, ctx.tau, ctx.height = inputs[:9]
    *_, ctx.graded, _, ctx.backend = inputs
    ctx.save_for_backward(output[1], *decays, voltage_state)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, *rest: Tensor) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 12
    require_width(ctx.tau)
    voltage, *decays, voltage_state = ctx.saved_tensors
    wants_sums = any(ctx.needs_input_grad[1:3])
    surrogate = ctx.scale, ctx.threshold, ctx.tau, ctx.height, ctx.graded
    grad_x, *sums = _cuba_backward(
        grad, voltage, *decays, voltage_state, *surrogate, wants_sums, ctx.backend
    )
    grad_decays = [
        reduced(total, decay) if wanted else None
        for total, decay, wanted in zip(sums, decays, ctx.needs_input_grad[1:3], strict=True)
    ]
    return grad_x, *grad_decays, *(None,) * 9


torch.library.register_autograd("lava_bridge::cuba", _gradients, setup_context=_save)
no_gradients("lava_bridge::cuba_backward")


def fire(
    x: Tensor,
    decays: tuple[Tensor, Tensor],
    states: tuple[Tensor, Tensor],
    scale: int,
    threshold: float,
    surrogate: tuple[float, float],
    graded: bool,
) -> Fired:
    """Spikes with slayer's gradients for ``x`` ``[N, *, T]`` and the decays.

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

    The decays' gradients are slayer's, as :func:`.leaky_integrator.dynamics`'s. Their sums need the
    current, which is taken from the voltages: the scale must be a power of two then.
    """
    learned = any(tensor.requires_grad for tensor in (x, *decays))
    keep = torch.is_grad_enabled() and learned
    held = (state.detach() for state in states)
    backend = kernels.current_backend()
    return Fired(*_cuba(x, *decays, *held, scale, threshold, *surrogate, graded, keep, backend))


# SpikingJelly's gradient ------------------------------------------------------------------------


@torch.library.custom_op("lava_bridge::cuba_reset", mutates_args=())
def _cuba_reset(
    x: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    current_state: Tensor,
    voltage_state: Tensor,
    scale: float,
    threshold: float,
    detach_reset: bool,
    is_current: bool,
    keep_voltage: bool,
    keep_current: bool,
    keep_held: bool,
    kind: int,
    alpha: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    parameters = current_decay, voltage_decay, current_state, voltage_state
    keeps = keep_voltage, keep_current, keep_held
    return _run(x, parameters, scale, threshold, False, is_current, keeps, backend)


@_cuba_reset.register_fake
def _(x: Tensor, *args: Any) -> Any:
    return _fake(x, args[8:11])


@torch.library.custom_op("lava_bridge::cuba_reset_backward", mutates_args=())
def _cuba_reset_backward(
    grad: Tensor | None,
    slope: Tensor | None,
    grad_held: Tensor | None,
    grad_current: Tensor | None,
    grad_last_current: Tensor | None,
    grad_last_held: Tensor | None,
    voltage: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    current_state: Tensor,
    voltage_state: Tensor,
    scale: float,
    threshold: float,
    detach_reset: bool,
    is_current: bool,
    wants_sums: bool,
    kind: int,
    alpha: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, and per neuron of the decays (times -4096) and of the first states."""
    compiled = kernels.chosen(backend, voltage)
    decays, states = (current_decay, voltage_decay), (current_state, voltage_state)
    none = voltage.new_zeros(1)
    last = [none if g is None else g for g in (grad_last_current, grad_last_held)]
    if compiled is not None:
        sequences = grad, voltage, slope, grad_held, grad_current
        numbers = scale, threshold, detach_reset, is_current, kind, alpha
        wanted = [voltage.dtype], (wants_sums, wants_sums, True, True)
        parameters = (*decays, *states, *last)
        done = kernels.run(
            compiled, "cuba_reset_backward", voltage, sequences, parameters, numbers, *wanted
        )
        return (done.sequences[0], *done.neurons)  # type: ignore[return-value] # one and four
    left = [(1 - decay / DECAY_SCALE).to(voltage.dtype) for decay in decays]
    if is_current:
        left[0] = none
    if kind:
        slope = derivative(kind, alpha, voltage - threshold)
    fired = voltage >= threshold
    held_by_voltage = (~fired).to(voltage.dtype)
    if slope is not None and not detach_reset:
        held_by_voltage = held_by_voltage - voltage * slope
    shape = voltage.shape[:-1]
    through = [g.expand(shape) for g in last]
    grads = torch.empty_like(voltage), torch.empty_like(voltage)
    for t in reversed(range(voltage.shape[-1])):
        of_held = through[1] if grad_held is None else through[1] + grad_held[..., t]
        of_voltage = of_held * held_by_voltage[..., t]
        if grad is not None and slope is not None:
            of_voltage = of_voltage + grad[..., t] * slope[..., t]
        of_current = of_voltage + through[0]
        if grad_current is not None:
            of_current = of_current + grad_current[..., t]
        grads[0][..., t], grads[1][..., t] = of_current, of_voltage
        through = [left[0] * of_current, left[1] * of_voltage]
    sums = [voltage.new_empty(0), voltage.new_empty(0)]
    if wants_sums:
        held = voltage.masked_fill(fired, 0)
        current = _currents(voltage, voltage_decay, voltage_state, scale, threshold)
        for k, sequence in enumerate((current, held)):
            first = states[k].to(voltage.dtype).expand(shape).unsqueeze(-1)
            before = torch.cat([first, sequence[..., :-1]], dim=-1)
            sums[k] = (grads[k] * before).sum(-1)
    firsts = (g.expand(shape).clone() for g in through)
    return (grads[0], *sums, *firsts)  # type: ignore[return-value] # one, two and two


@_cuba_reset_backward.register_fake
def _(*args: Any) -> Any:
    voltage, wants_sums = args[6], args[15]
    sums = (voltage.new_empty(voltage.shape[:-1] if wants_sums else 0) for _ in range(2))
    states = (torch.empty_like(voltage[..., 0]) for _ in range(2))
    return torch.empty_like(voltage), *sums, *states


def _save_for_reset(ctx: Any, inputs: tuple[Any, ...], output: _Six) -> None:
    x, *parameters, ctx.scale, ctx.threshold, ctx.detach_reset, ctx.is_current = inputs[:9]
    *ctx.smooth, ctx.backend, ctx.dtype = *inputs[12:], x.dtype
    ctx.save_for_backward(output[1], *parameters)
    ctx.set_materialize_grads(False)
    if ctx.smooth[0]:  # else the surrogate's derivative comes back through the voltage
        ctx.mark_non_differentiable(output[1])


def _gradients_through_reset(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    grad, slope, grad_current, grad_held, *grad_last = grads
    if slope is None and not ctx.detach_reset and not ctx.smooth[0]:
        raise BridgeError(
            "fire_and_reset: expected a loss that reads the spikes, where it is compiled and the "
            "reset is not detached, found one on states only; add the spikes, or detach the reset"
        )
    voltage, *parameters = ctx.saved_tensors
    wanted = ctx.needs_input_grad[1:5]
    settings = ctx.scale, ctx.threshold, ctx.detach_reset, ctx.is_current
    grad_x, *per_neuron = _cuba_reset_backward(
        grad,
        slope,
        grad_held,
        grad_current,
        *grad_last,
        voltage,
        *parameters,
        *settings,
        any(wanted[:2]),
        *ctx.smooth,
        ctx.backend,
    )
    found = [
        reduced(total / -DECAY_SCALE if k < 2 else total, parameters[k]) if wanted[k] else None
        for k, total in enumerate(per_neuron)
    ]
    return grad_x.to(ctx.dtype), *found, *(None,) * 10


torch.library.register_autograd(
    "lava_bridge::cuba_reset", _gradients_through_reset, setup_context=_save_for_reset
)
no_gradients("lava_bridge::cuba_reset_backward")


def fire_and_reset(
    x: Tensor,
    decays: tuple[Tensor, Tensor],
    states: tuple[Tensor, Tensor],
    scale: int,
    threshold: float,
    surrogate: Callable[[Tensor], Tensor] | Smooth,
    detach_reset: bool,
    is_current: bool = False,
    keep_current: bool = False,
    keep_held: bool = False,
    backend: str = "auto",
) -> Fired:
    """Spikes with SpikingJelly's gradients for x ``[N, *, T]``, decays and states.

    Args:
        x, decays, states, scale, threshold: As in :func:`fire`; all get gradients.
        surrogate: From the voltage over the threshold to spikes; its gradient is the spike's. Or
            one that the kernels compute.
        detach_reset: Take the spikes of the reset as constants.
        is_current: ``x`` is the current itself: there is one integrator only, the voltage's.
        keep_current, keep_held: Whether the current, and the voltage after the reset, are wanted.
        backend: One of :mod:`lava_bridge.kernels`.
    """
    learned = any(tensor.requires_grad for tensor in (x, *decays, *states))
    learns = torch.is_grad_enabled() and learned
    keeps = learns, keep_current, keep_held
    smooth = surrogate if isinstance(surrogate, Smooth) else Smooth(0, 0.0)
    settings = scale, threshold, detach_reset, is_current, *keeps, *smooth, backend
    if not learns or isinstance(surrogate, Smooth):
        return Fired(*_cuba_reset(x, *decays, *states, *settings))
    if not torch.compiler.is_compiling():
        return Fired(*_EagerReset.apply(x, *decays, *states, *settings, surrogate))
    fired = Fired(*_cuba_reset(x, *decays, *states, *settings))
    # The surrogate may be any function of torch's. What comes back through `voltage` is its
    # derivative alone, the gradient comes back through `spike`: the backward kernel wants both.
    smooth_spike = surrogate(fired.voltage - threshold)
    return fired._replace(spike=_Attached.apply(fired.spike, smooth_spike))


class _Attached(torch.autograd.Function):
    """The spikes; backward, their gradient, and for the surrogate's output ones."""

    @staticmethod
    def forward(ctx, spike, smooth):
        ctx.dtype = smooth.dtype
        return spike.view_as(spike)

    @staticmethod
    def backward(ctx, *grad_outputs):
        return grad_outputs[0], torch.ones_like(grad_outputs[0], dtype=ctx.dtype)


class _EagerReset(torch.autograd.Function):
    """The operator with the surrogate evaluated in backward only, piece by piece.

    torch.compile can't follow that, but fuses the other form by itself.
    """

    @staticmethod
    def forward(ctx, *args):
        *inputs, ctx.surrogate = args
        output = _cuba_reset(*inputs)
        _save_for_reset(ctx, tuple(inputs), output)
        return output

    @staticmethod
    def backward(ctx, *grads):
        voltage = ctx.saved_tensors[0]
        slope = None
        if grads[0] is not None or not ctx.detach_reset:
            slope = of_any(ctx.surrogate, voltage, ctx.threshold)
        return *_gradients_through_reset(ctx, grads[0], slope, *grads[2:]), None
