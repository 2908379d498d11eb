r"""The neurons that resonate and fire, each in one operator: the turn, its threshold, the spike.

:mod:`.resonator`, then for the adaptive ones :mod:`.adaptive_phase_th` or, on :math:`\Im z`,
:mod:`.adaptive_threshold`, then :mod:`.spike` at phase zero, or on :math:`\Im z` (Izhikevich's).
The gradients are theirs: the surrogate, the adjoint of the turn, nothing through resets and
thresholds.

What the backward pass reads is all that is kept: how far the state was over its threshold, at phase
zero the imaginary state, and both parts if the decays are learned.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import kernels
from ..quantize import exact_dtype, integers, scalar
from .adaptive_phase_th import phase_turns
from .adaptive_threshold import adapt, adaptation_steps
from .autograd import last_of, no_gradients, per_neuron, reduced
from .operator import operator
from .resonator import reset_steps, resonate, turn_adjoint, turn_sums
from .shift import shifted
from .spike import (
    Surrogate,
    at_phase_zero,
    at_threshold,
    phase_slopes,
    require_width,
    slope,
)

__all__ = ["Adaptation", "Fired", "fire"]

Pair = tuple[Tensor, Tensor]


class Adaptation(NamedTuple):
    """An adaptive threshold, as :func:`.adaptive_threshold.dynamics` takes it."""

    ref_state: Tensor
    ref_decay: Tensor
    th_state: Tensor
    th_decay: Tensor
    th_scale: float
    th0: float


class Fired(NamedTuple):
    """What the operators give.

    Attributes:
        spike: ``[N, *, T]``.
        last: The states at the last step, before what its spike does to them, ``[N, *]``: real and
            imaginary state (ALIF: current and voltage) and, if there is an adaptive threshold,
            threshold and refractory state.
    """

    spike: Tensor
    last: tuple[Tensor, ...]


class _Kind(NamedTuple):
    """How a neuron fires, as the operator takes it: a kernel, and the order of what it needs."""

    phase: bool
    adaptive: bool

    @property
    def kernel(self) -> str:
        return ("adrf" if self.adaptive else "rf") + ("" if self.phase else "_iz")

    def kept(self, learns: bool, learns_decays: bool) -> tuple[bool, bool, bool]:
        """Whether the backward pass reads: how far over the threshold, real, imaginary state."""
        real = learns_decays or (self.phase and not self.adaptive)
        imag = learns_decays or self.phase or not self.adaptive
        return learns and self.adaptive, learns and real, learns and imag


@operator("lava_bridge::resonate_and_fire")
def _fire(
    real_input: Tensor,
    imag_input: Tensor,
    sin_decay: Tensor,
    cos_decay: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    ref_decay: Tensor | None,
    th_decay: Tensor | None,
    ref_state: Tensor | None,
    th_state: Tensor | None,
    th_scale: float,
    th0: float,
    scale: float,
    threshold: float,
    tau: float,
    height: float,
    graded: bool,
    delay_shift: bool,
    phase: bool,
    keep_above: bool,
    keep_real: bool,
    keep_imag: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Spikes; what is kept (else empty): over the threshold, real, imaginary; the last states."""
    inputs = real_input, imag_input
    turn = (sin_decay, cos_decay), (real_state, imag_state)
    adaptation = [p for p in (ref_decay, th_decay, ref_state, th_state) if p is not None]
    exact, kind = exact_dtype(real_input), _Kind(phase, bool(adaptation))
    keep = keep_above, keep_real, keep_imag
    steps = adaptation_steps(th_scale, th0, scale)
    compiled = kernels.chosen(backend, real_input)
    if compiled is None or not real_input.shape[-1]:
        settings = steps, scale, threshold, graded, delay_shift, phase, keep
        return _reference(inputs, turn, adaptation, *settings)
    reset = None if phase or adaptation else reset_steps(threshold, scale)
    numbers = scale, threshold, graded, reset is not None, *(reset or (0, 0)), *steps, delay_shift
    parameters = *turn[0], *turn[1], *adaptation
    wanted = [real_input.dtype, *(exact if kept else None for kept in keep)]
    results = True, True, kind.adaptive, kind.adaptive
    done = kernels.run(
        compiled, kind.kernel, real_input, inputs, parameters, numbers, wanted, results
    )
    return (*done.sequences, *done.neurons)


def _reference(
    inputs: Pair,
    turn: tuple[Pair, Pair],
    adaptation: list[Tensor],
    steps: tuple[int, int],
    scale: float,
    threshold: float,
    graded: bool,
    delay_shift: bool,
    phase: bool,
    keep: tuple[bool, bool, bool],
) -> Any:
    dtype, exact = inputs[0].dtype, exact_dtype(inputs[0])
    parts = resonate(inputs, *turn, scale, None if phase or adaptation else threshold)
    real, imag = (part.to(exact) / scale for part in parts)
    carried, holds = (real if phase else imag), scalar(threshold, real)
    last = [last_of(real, turn[1][0]), last_of(imag, turn[1][1])]
    last += [real.new_empty(0), real.new_empty(0)]
    if adaptation:
        turns = phase_turns(imag, turn[1][1], scale) if phase else None
        level = integers(real, scale) if phase else parts[1]
        pairs = (adaptation[0], adaptation[1]), (adaptation[2], adaptation[3])
        state = adapt(level, turns, *pairs, steps, scale, exact)
        holds = state[0] + state[1]
        last[2:] = last_of(state[0], adaptation[3]), last_of(state[1], adaptation[2])
    if phase:
        spike = at_phase_zero(real, imag, holds, turn[1][1], graded)
    else:
        spike = at_threshold(imag, holds, graded)
    spike = shifted(spike, 1) if delay_shift else spike
    sequences = (
        sequence if kept else real.new_empty(0)
        for sequence, kept in zip((carried - holds, real, imag), keep, strict=True)
    )
    return spike.to(dtype), *sequences, *last


@_fire.register_fake
def _(real_input: Tensor, *args: Any) -> Any:
    exact, ref_decay, keep = exact_dtype(real_input), args[5], args[18:21]
    none = (real_input.new_empty(0, dtype=exact) for _ in range(5))
    sequences = [torch.empty_like(real_input, dtype=exact) if kept else next(none) for kept in keep]
    last = [
        per_neuron(real_input) if k < 2 or ref_decay is not None else next(none) for k in range(4)
    ]
    return torch.empty_like(real_input), *sequences, *last


@operator("lava_bridge::resonate_and_fire_backward")
def _backward(
    grad: Tensor,
    compared: Tensor,
    real: Tensor,
    imag: Tensor,
    sin_decay: Tensor,
    cos_decay: Tensor,
    threshold: float,
    tau: float,
    height: float,
    graded: bool,
    delay_shift: bool,
    phase: bool,
    wants_sums: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inputs' gradients, and per neuron those of sine and cosine.

    ``compared`` is what was compared with ``threshold``. The real state is read for the decays'
    gradients, the imaginary one for these and at phase zero; else they may be empty.
    """
    decays, dtype = (sin_decay, cos_decay), compared.dtype
    compiled = kernels.chosen(backend, compared)
    if compiled is None:
        grad = shifted(grad, -1) if delay_shift else grad
        above = compared - threshold
        if phase:
            slopes = phase_slopes(above, imag, tau, height, graded)
            grads = grad * slopes[0], grad * slopes[1]
        else:
            of_imag = grad * slope(above, tau, height, graded)
            grads = torch.zeros_like(of_imag), of_imag
        real_grad, imag_grad = (torch.empty_like(compared).copy_(part) for part in grads)
        found = turn_adjoint((real_grad, imag_grad), decays)
        sums = per_neuron(compared, wants_sums), per_neuron(compared, wants_sums)
        if wants_sums:
            for total, summed in zip(sums, turn_sums(found, (real, imag)), strict=True):
                total.copy_(summed)
        return *found, *sums
    inputs = (
        grad,
        compared,
        imag if phase or wants_sums else None,
        real if wants_sums else None,
    )
    kernel = "phase_zero_backward" if phase else "izhikevich_backward"
    numbers = threshold, tau, height, graded, delay_shift
    wanted = [dtype, dtype], (wants_sums, wants_sums)
    done = kernels.run(compiled, kernel, compared, inputs, decays, numbers, *wanted)
    return (*done.sequences, *done.neurons)


@_backward.register_fake
def _(grad: Tensor, compared: Tensor, *args: Any) -> Any:
    sums = (per_neuron(compared, args[10]) for _ in range(2))
    return torch.empty_like(compared), torch.empty_like(compared), *sums


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.threshold, ctx.dtype = inputs[13], inputs[0].dtype
    *ctx.surrogate, ctx.delay_shift, ctx.phase = inputs[14:19]
    ctx.backend = inputs[-1]
    _, above, real, imag, *_ = output
    compared = real if ctx.phase else imag
    if inputs[6] is not None:
        compared, ctx.threshold = above, 0
    # All outputs stay differentiable: a gradient of the gradient, which needs them, is refused.
    ctx.save_for_backward(compared, real, imag, *inputs[2:4])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, *rest: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 23
    require_width(ctx.surrogate[0])
    *states, sine, cosine = ctx.saved_tensors
    wanted = ctx.needs_input_grad[2:4]
    surrogate = ctx.threshold, *ctx.surrogate
    settings = *surrogate, ctx.delay_shift, ctx.phase, any(wanted), ctx.backend
    *found, by_sine, by_cosine = _backward(grad, *states, sine, cosine, *settings)
    sums = (by_sine, sine), (by_cosine, cosine)
    of_decays = (
        reduced(*pair) if wants else None for pair, wants in zip(sums, wanted, strict=True)
    )
    return *(part.to(ctx.dtype) for part in found), *of_decays, *(None,) * 19


_fire.register_autograd(_gradients, setup_context=_save)
no_gradients(_backward)


def fire(
    inputs: Pair,
    decays: Pair,
    states: Pair,
    scale: int,
    threshold: float,
    surrogate: Surrogate,
    phase: bool,
    adaptation: Adaptation | None = None,
    delay_shift: bool = False,
) -> Fired:
    """Spikes, with gradients for the inputs and the decays.

    Args:
        inputs: Real and imaginary input ``[N, *, T]`` of one dtype, in any memory order; spikes
            come in the real one's dtype and order. Half precision is computed in float32.
        decays: The integers s and c of :mod:`.resonator`.
        states: Real and imaginary state before the first step; decays and states broadcast with
            ``[N, *]``. States get no gradient.
        scale: What a state of 1 is as an integer.
        threshold: Where the neuron fires, if its threshold is not adaptive. Where it fires by its
            imaginary part, that is reset.
        surrogate: Width and height of the surrogate, and whether spikes carry what is compared.
        phase: Fire by the real part, at phase zero; else by the imaginary part.
        adaptation: The adaptive threshold, if there is one. It gets no gradient.
        delay_shift: As in :func:`.cuba.fire`.
    """
    kind = _Kind(phase, adaptation is not None)
    held = (state.detach() for state in states)
    tensors: tuple[Tensor | None, ...] = (None,) * 4
    steps: tuple[float, float] = (0, 0)
    if adaptation is not None:
        ref_state, ref_decay, th_state, th_decay, *_ = adaptation
        tensors = tuple(part.detach() for part in (ref_decay, th_decay, ref_state, th_state))
        steps = adaptation.th_scale, adaptation.th0
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (*inputs, *decays))
    keep = kind.kept(learns, any(decay.requires_grad for decay in decays))
    backend = kernels.current_backend()
    tau, height, graded = surrogate
    firing = scale, threshold, tau, height, bool(graded), delay_shift
    settings = *firing, phase, *keep, backend
    spike, *rest = _fire(*inputs, *decays, *held, *tensors, *steps, *settings)
    return Fired(spike, tuple(rest[3:5] if adaptation is None else rest[3:]))
