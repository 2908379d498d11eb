r"""Neurons in Loihi's arithmetic, as Lava's ``fixed_pt`` models run it: whole numbers, no gradient.

Sums are registers of 32 bits, which wrap; a state x decays to
:math:`D(x, d) = \mathrm{sign}(x)\,(|x|\,(4096 - d) \gg 12)`. Sequences are whole numbers in
floating point: float32 holds those up to :math:`2^{24}`, float64 all. A run in parts, each from the
last states of the one before, gives what one run does.

Source: lava-nc 0.10.0, ``lava.proc.lif.models`` (``PyLifModelBitAcc``, ``PyLifResetModelBitAcc``),
``lava.proc.rf.models`` (``PyRFModelFixed``), ``lava.proc.rf_iz.models`` (``PyRF_IZModelFixed``).
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import kernels
from ..errors import BridgeError
from ..quantize import decayed, exact_dtype, integers, kept
from .autograd import per_neuron

__all__ = ["ACTIVATION_BITS", "STATE_MAX", "LifRun", "RfRun", "in_32_bits", "lif", "raised"]
__all__ += ["launched", "require_same_shape", "rf", "rf_iz", "stepped", "unfilled"]

# Loihi aligns activations with its states of 24 bits by this shift.
ACTIVATION_BITS = 6

# States are held within -STATE_MAX ... STATE_MAX.
STATE_MAX = (1 << 23) - 1

_Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


# What these operators share -----------------------------------------------------------------------


def in_32_bits(x: Tensor) -> Tensor:
    """Integers of 64 bits as a register of 32 holds them: they wrap."""
    return x.to(torch.int32).to(torch.int64)


def raised(x: Tensor, bits: int = ACTIVATION_BITS) -> Tensor:
    """Whole numbers of a sequence shifted left, in a register of 32 bits."""
    return in_32_bits(integers(x) << bits)


def require_same_shape(place: str, name: str, x: Tensor, other: Tensor | None) -> None:
    """Raise a BridgeError if a second sequence is there and has another shape."""
    if other is not None and other.shape != x.shape:
        found = f"found {list(other.shape)}; expand it"
        raise BridgeError(f"{place}: expected {name} of shape {list(x.shape)}, {found}")


def unfilled(x: Tensor, keep: bool, states: int) -> tuple[Tensor, ...]:
    """What an operator gives: y as x, and for each state a sequence and the last one ``[N, *]``."""
    real = exact_dtype(x)
    sequences = [
        torch.empty_like(x, dtype=real) if keep else x.new_empty(0, dtype=real)
        for _ in range(states)
    ]
    return torch.empty_like(x), *sequences, *(per_neuron(x) for _ in range(states))


def launched(
    backend: ModuleType,
    kernel: str,
    inputs: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    numbers: Sequence[float],
    keep: bool,
    states: int,
) -> tuple[Tensor, ...]:
    """The operator on a kernel; the first of the inputs says dtype and order."""
    x = inputs[0]
    assert x is not None
    outputs = [x.dtype, *[exact_dtype(x) if keep else None] * states]
    results = (True,) * states
    done = kernels.run(backend, kernel, x, inputs, parameters, numbers, outputs, results)
    return *done.sequences, *done.neurons


Step = Callable[[int, list[Tensor]], tuple[Tensor, list[Tensor]]]


def stepped(x: Tensor, states: Sequence[Tensor], keep: bool, step: Step) -> tuple[Tensor, ...]:
    """The operator in plain torch: y and states of step t, from t and the states before it."""
    outputs = unfilled(x, keep, len(states))
    now = [integers(state).expand(x.shape[:-1]) for state in states]
    for t in range(x.shape[-1]):
        outputs[0][..., t], now = step(t, now)
        if keep:
            for k, state in enumerate(now):
                outputs[1 + k][..., t] = state
    for last, state in zip(outputs[1 + len(states) :], now, strict=True):
        last.copy_(state)
    return outputs


# Leaky integrate and fire -------------------------------------------------------------------------


class LifRun(NamedTuple):
    """What :func:`lif` gives.

    Attributes:
        spike: ``[N, *, T]``, 0 or 1.
        current, voltage: ``[N, *, T]`` after each step; empty unless they were asked for.
        last_current, last_voltage: The states after the last step, ``[N, *]``.
    """

    spike: Tensor
    current: Tensor
    voltage: Tensor
    last_current: Tensor
    last_voltage: Tensor


@torch.library.custom_op("lava_bridge::loihi_lif", mutates_args=())
def _lif(
    activation: Tensor,
    drive: Tensor | None,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor,
    threshold: Tensor,
    current: Tensor,
    voltage: Tensor,
    reset_interval: int,
    first_reset: int,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    states = current, voltage
    compiled = kernels.chosen(backend, activation)
    if compiled is not None:
        parameters = current_decay, voltage_decay, bias, threshold, *states
        given = (activation, drive), parameters, (reset_interval, first_reset)
        return launched(compiled, "loihi_lif", *given, keep, 2)  # type: ignore[return-value] # five
    kept_of_current, kept_of_voltage = kept(current_decay), kept(voltage_decay)
    shift, level = integers(bias), integers(threshold)
    incoming = raised(activation)

    def step(t: int, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        u, v = states
        if reset_interval and t % reset_interval == first_reset:
            u, v = torch.zeros_like(u), torch.zeros_like(v)
        u = in_32_bits(decayed(u, kept_of_current) + incoming[..., t])
        over, under = u > STATE_MAX + 1, u < -STATE_MAX
        u = u + (under.to(u.dtype) - over.to(u.dtype)) * 2 * (STATE_MAX + 1)
        v = decayed(v, kept_of_voltage) + u + shift
        if drive is not None:
            v = v + integers(drive[..., t])
        v = in_32_bits(v).clamp(-STATE_MAX, STATE_MAX)
        fired = v > level
        return fired, [u, v.masked_fill(fired, 0)]

    return stepped(activation, states, keep, step)  # type: ignore[return-value] # five


@_lif.register_fake
def _(activation: Tensor, *args: Any) -> Any:
    return unfilled(activation, args[9], 2)


def lif(
    activation: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor,
    threshold: Tensor,
    current: Tensor,
    voltage: Tensor,
    reset_interval: int = 0,
    reset_phase: int = 0,
    keep: bool = False,
    backend: str = "auto",
    drive: Tensor | None = None,
) -> LifRun:
    r"""Leaky integrate and fire, to the bit as on Loihi.

    .. math::
        u[t] &= W(D(u[t-1], d_u) + (a[t] \ll 6)) \\
        v[t] &= \mathrm{clip}(D(v[t-1], d_v) + u[t] + b + e[t],\; -M,\; M), \qquad M = 2^{23} - 1 \\
        s[t] &= v[t] > \vartheta, \qquad v[t] \leftarrow v[t]\,(1 - s[t])

    All sums wrap at 32 bits. W takes :math:`2^{24}` off what is above :math:`2^{23}`, and adds it
    to what is not above :math:`-2^{23}`, once: a current of more than 25 bits stays beyond 24.

    Args:
        activation: a, whole numbers ``[N, *, T]`` in any memory order, in float32 below
            :math:`2^{17}`, in float64 below :math:`2^{31}`. Spikes come in its dtype and order.
        current_decay, voltage_decay: :math:`d_u` and :math:`d_v`, integers 0 ... 4096 (Lava's
            ``du`` is one less than the first).
        bias: b, the mantissa already shifted by its exponent.
        threshold: :math:`\vartheta`, already shifted left by 6.
        current, voltage: States before the first step. The parameters from ``current_decay`` on are
            whole numbers that broadcast with ``[N, *]``; beyond :math:`2^{24}` they need an
            activation in float64.
        reset_interval: Zero both states before every so many steps; 0: never.
        reset_phase: A step where that happens, counted from 0 within this call; any integer.
        keep: Whether the states after each step are wanted.
        backend: One of :mod:`lava_bridge.kernels`.
        drive: e, a bias that changes: whole numbers ``[N, *, T]``, with the bounds of a bias.

    Raises:
        BridgeError: If the drive has another shape, or the interval is negative.
    """
    require_same_shape("lif", "a drive", activation, drive)
    if reset_interval < 0:
        raise BridgeError(f"lif: expected a reset_interval of 0 or more, found {reset_interval}")
    steps = activation.shape[-1]
    first_reset = reset_phase % reset_interval if reset_interval else 0
    if first_reset >= steps:
        reset_interval = first_reset = 0
    # A second reset after the last step is none: the kernels count in 32 bits.
    interval = min(reset_interval, first_reset + steps)
    parameters = current_decay, voltage_decay, bias, threshold, current, voltage
    return LifRun(*_lif(activation, drive, *parameters, interval, first_reset, keep, backend))


# Resonate and fire --------------------------------------------------------------------------------


class RfRun(NamedTuple):
    """What :func:`rf` and :func:`rf_iz` give.

    Attributes:
        spike: ``[N, *, T]``, 0 or 1.
        real, imag: ``[N, *, T]`` after each step; empty unless they were asked for.
        last_real, last_imag: The state after the last step, ``[N, *]``.
    """

    spike: Tensor
    real: Tensor
    imag: Tensor
    last_real: Tensor
    last_imag: Tensor


@torch.library.custom_op("lava_bridge::loihi_rf", mutates_args=())
def _rf(
    real: Tensor,
    imag: Tensor | None,
    sin_decay: Tensor,
    cos_decay: Tensor,
    threshold: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    izhikevich: bool,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    states = real_state, imag_state
    compiled = kernels.chosen(backend, real)
    if compiled is not None:
        kernel = "loihi_rf_iz" if izhikevich else "loihi_rf"
        given = (real, imag), (sin_decay, cos_decay, threshold, *states), ()
        return launched(compiled, kernel, *given, keep, 2)  # type: ignore[return-value] # five
    sine, cosine, level = integers(sin_decay), integers(cos_decay), integers(threshold)
    incoming = raised(real), None if imag is None else raised(imag)

    def step(t: int, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        x, y = states
        of_real = decayed(x, cosine) - decayed(y, sine) + incoming[0][..., t]
        of_imag = decayed(x, sine) + decayed(y, cosine)
        if incoming[1] is not None:
            of_imag = of_imag + incoming[1][..., t]
        turned = [part.clamp(-STATE_MAX, STATE_MAX) for part in (of_real, of_imag)]
        if not izhikevich:
            return (turned[0] >= level) & (turned[1] >= 0) & (y < 0), turned
        fired = turned[1] >= level
        back = in_32_bits(level - 1)
        return fired, [turned[0].masked_fill(fired, 0), torch.where(fired, back, turned[1])]

    return stepped(real, states, keep, step)  # type: ignore[return-value] # five


@_rf.register_fake
def _(real: Tensor, *args: Any) -> Any:
    return unfilled(real, args[7], 2)


def rf(
    real: Tensor,
    imag: Tensor | None,
    sin_decay: Tensor,
    cos_decay: Tensor,
    threshold: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    keep: bool = False,
    backend: str = "auto",
) -> RfRun:
    r"""Resonate and fire where the phase passes zero, to the bit as Lava's ``RF`` in fixed point.

    .. math::
        x[t] &= \mathrm{clip}(P(x[t-1], c) - P(y[t-1], s) + (a[t] \ll 6),\; -M,\; M) \\
        y[t] &= \mathrm{clip}(P(x[t-1], s) + P(y[t-1], c) + (b[t] \ll 6),\; -M,\; M) \\
        f[t] &= x[t] \ge \vartheta \;\wedge\; y[t] \ge 0 \;\wedge\; y[t-1] < 0

    with :math:`M = 2^{23} - 1` and :math:`P(z, d) = \mathrm{sign}(z d)\,(|z d| \gg 12)`. The
    shifted inputs wrap at 32 bits.

    Args:
        real, imag: a and b, whole numbers ``[N, *, T]`` in any memory order, below
            :math:`2^{24}` in float32 and :math:`2^{31}` in float64; b None: 0. Spikes come in the
            dtype and order of a.
        sin_decay, cos_decay: s and c, in 4096ths.
        threshold: :math:`\vartheta`, as large as a state (already shifted left by 6).
        real_state, imag_state: x and y before the first step. The parameters from ``sin_decay`` on
            are whole numbers that broadcast with ``[N, *]``.
        keep: Whether the states after each step are wanted.
        backend: One of :mod:`lava_bridge.kernels`.

    Raises:
        BridgeError: If ``imag`` has another shape than ``real``.
    """
    require_same_shape("rf", "an imaginary part", real, imag)
    parameters = sin_decay, cos_decay, threshold, real_state, imag_state
    return RfRun(*_rf(real, imag, *parameters, False, keep, backend))


def rf_iz(
    real: Tensor,
    imag: Tensor | None,
    sin_decay: Tensor,
    cos_decay: Tensor,
    threshold: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    keep: bool = False,
    backend: str = "auto",
) -> RfRun:
    r"""Resonate and fire with Izhikevich's reset, to the bit as Lava's ``RF_IZ`` in fixed point.

    .. math::
        f[t] = y[t] \ge \vartheta, \qquad
        x[t] \leftarrow x[t]\,(1 - f[t]), \qquad
        y[t] \leftarrow \vartheta - 1 \;\text{where}\; f[t]

    and else as :func:`rf`, with its arguments and errors.
    """
    require_same_shape("rf_iz", "an imaginary part", real, imag)
    parameters = sin_decay, cos_decay, threshold, real_state, imag_state
    return RfRun(*_rf(real, imag, *parameters, True, keep, backend))
