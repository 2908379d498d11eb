"""The CUBA neuron of :mod:`.cuba` with SpikingJelly's gradients.

Any surrogate, through the reset unless it is detached, and to the decays, the first states and the
bias.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..errors import BridgeError
from ..quantize import DECAY_SCALE
from .autograd import no_gradients, per_neuron, reduced, summed
from .cuba import Fired, Six, currents, fake, run
from .operator import operator
from .surrogate import Smooth, derivative, of_any

__all__ = ["fire_and_reset"]


@operator("lava_bridge::cuba_reset")
def _cuba_reset(
    x: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    current_state: Tensor,
    voltage_state: Tensor,
    bias: Tensor | None,
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
    parameters = current_decay, voltage_decay, current_state, voltage_state, bias
    keeps = keep_voltage, keep_current, keep_held
    return run(x, parameters, scale, threshold, False, is_current, keeps, backend)


@_cuba_reset.register_fake
def _(x: Tensor, *args: Any) -> Any:
    return fake(x, args[9:12])


@operator("lava_bridge::cuba_reset_backward")
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
    bias: Tensor | None,
    scale: float,
    threshold: float,
    detach_reset: bool,
    is_current: bool,
    wants_sums: bool,
    wants_bias: bool,
    kind: int,
    alpha: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, and per neuron of the decays (times -4096), first states and the bias."""
    compiled = kernels.chosen(backend, voltage)
    decays, states = (current_decay, voltage_decay), (current_state, voltage_state)
    none = voltage.new_zeros(1)
    last = [none if g is None else g for g in (grad_last_current, grad_last_held)]
    if compiled is not None:
        sequences = grad, voltage, slope, grad_held, grad_current
        numbers = scale, threshold, detach_reset, is_current, kind, alpha
        wanted = [voltage.dtype], (wants_sums, wants_sums, True, True, wants_bias)
        parameters = (*decays, *states, *last, *([] if bias is None else [bias]))
        done = kernels.run(
            compiled, "cuba_reset_backward", voltage, sequences, parameters, numbers, *wanted
        )
        return (done.sequences[0], *done.neurons)
    left = [1 - decay.to(voltage.dtype) / DECAY_SCALE for decay in decays]
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
    found = wants_sums, wants_sums, True, True, wants_bias
    totals: kernels.Tensors = [per_neuron(voltage, wants) for wants in found]
    if wants_sums:
        held = voltage.masked_fill(fired, 0)
        current = currents(voltage, voltage_decay, voltage_state, bias, scale, threshold)
        for k, sequence in enumerate((current, held)):
            first = states[k].to(voltage.dtype).expand(shape).unsqueeze(-1)
            before = torch.cat([first, sequence[..., :-1]], dim=-1)
            totals[k] = summed(grads[k] * before, voltage)
    totals[2:4] = (per_neuron(voltage).copy_(of_first) for of_first in through)
    if wants_bias:
        totals[4] = summed(grads[1], voltage)
    return (grads[0], *totals)


@_cuba_reset_backward.register_fake
def _(*args: Any) -> Any:
    voltage, wants_sums, wants_bias = args[6], *args[16:18]
    wanted = wants_sums, wants_sums, True, True, wants_bias
    return torch.empty_like(voltage), *(per_neuron(voltage, wants) for wants in wanted)


def _save_for_reset(ctx: Any, inputs: tuple[Any, ...], output: Six) -> None:
    x, *parameters, ctx.scale, ctx.threshold, ctx.detach_reset, ctx.is_current = inputs[:10]
    *ctx.smooth, ctx.backend, ctx.dtype = *inputs[13:], x.dtype
    ctx.save_for_backward(output[1], *parameters)
    ctx.set_materialize_grads(False)


def _gradients_through_reset(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return _through_reset(ctx, ctx.saved_tensors, grads)


def _through_reset(
    ctx: Any, saved: tuple[Tensor, ...], grads: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    grad, slope, grad_current, grad_held, *grad_last = grads
    if slope is None and not ctx.detach_reset and not ctx.smooth[0]:
        raise BridgeError(
            "fire_and_reset: expected a loss that reads the spikes, where it is compiled (or under "
            "torch.func) and the reset is not detached, found one on states only; add the spikes, "
            "or detach the reset"
        )
    voltage, *parameters = saved
    wanted = ctx.needs_input_grad[1:6]
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
        wanted[4],
        *ctx.smooth,
        ctx.backend,
    )
    found = [
        reduced(total / -DECAY_SCALE if k < 2 else total, parameters[k]) if wanted[k] else None
        for k, total in enumerate(per_neuron)
    ]
    return grad_x.to(ctx.dtype), *found, *(None,) * 10


_cuba_reset.register_autograd(_gradients_through_reset, setup_context=_save_for_reset)
no_gradients(_cuba_reset_backward)


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
    bias: Tensor | None = None,
) -> Fired:
    """Spikes with SpikingJelly's gradients for x ``[N, *, T]``, decays, states and bias.

    Args:
        x, decays, states, scale, threshold, bias: As in :func:`.cuba.fire`; all get gradients.
        surrogate: From the voltage over the threshold to spikes; its gradient is the spike's. Or
            one that the kernels compute.
        detach_reset: Take the spikes of the reset as constants.
        is_current: ``x`` is the current itself: there is one integrator only, the voltage's.
        keep_current, keep_held: Whether the current, and the voltage after the reset, are wanted.
        backend: One of :mod:`lava_bridge.kernels`.
    """
    learned = any(t.requires_grad for t in (x, *decays, *states, bias) if t is not None)
    learns = torch.is_grad_enabled() and learned
    keeps = learns, keep_current, keep_held
    smooth = surrogate if isinstance(surrogate, Smooth) else Smooth(0, 0.0)
    settings = scale, threshold, detach_reset, is_current, *keeps, *smooth, backend
    if not learns or isinstance(surrogate, Smooth):
        return Fired(*_cuba_reset(x, *decays, *states, bias, *settings))
    compiled = torch.compiler.is_compiling()
    transformed = not compiled and torch._C._are_functorch_transforms_active()
    if not (compiled or transformed):
        return Fired(*_EagerReset.apply(x, *decays, *states, bias, *settings, surrogate))
    fired = Fired(*_cuba_reset(x, *decays, *states, bias, *settings))
    # The surrogate may be any function of torch's. What comes back through `voltage` is its
    # derivative alone, the gradient comes back through `spike`: the backward kernel wants both.
    smooth_spike = surrogate(fired.voltage - threshold)
    attached = _TransformedAttached if transformed else _Attached
    return Fired(attached.apply(fired.spike, smooth_spike), *fired[1:])


class _Attached(torch.autograd.Function):
    """The spikes; backward, their gradient, and for the surrogate's output ones."""

    @staticmethod
    def forward(ctx, spike, smooth):
        ctx.dtype = smooth.dtype
        return spike.view_as(spike)

    @staticmethod
    def backward(ctx, *grad_outputs):
        return grad_outputs[0], torch.ones_like(grad_outputs[0], dtype=ctx.dtype)


class _TransformedAttached(torch.autograd.Function):
    """:class:`_Attached` of the form that torch.func asks for."""

    generate_vmap_rule = True

    @staticmethod
    def forward(spike, smooth):
        return spike.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.dtype = inputs[1].dtype

    backward = _Attached.backward


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
        saved = ctx.saved_tensors  # once: torch's checkpoint gives them no second time
        slope = None
        if grads[0] is not None or not ctx.detach_reset:
            slope = of_any(ctx.surrogate, saved[0], ctx.threshold)
        return *_through_reset(ctx, saved, (grads[0], slope, *grads[2:])), None
