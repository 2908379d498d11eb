r"""Neurons in Loihi's arithmetic, as Lava's ``fixed_pt`` models run it: whole numbers, no gradient.

Sums are registers of 32 bits, which wrap; a state x decays to
:math:`D(x, d) = \mathrm{sign}(x)\,(|x|\,(4096 - d) \gg 12)`. Sequences are whole numbers in
floating point: float32 holds those up to :math:`2^{24}`, float64 all.

Source: lava-nc 0.10.0, ``lava.proc.lif.models`` (``PyLifModelBitAcc``, ``PyLifResetModelBitAcc``).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import kernels
from ..errors import BridgeError
from ..quantize import decayed, exact_dtype, integers, kept
from .autograd import per_neuron

__all__ = ["ACTIVATION_BITS", "STATE_MAX", "LifRun", "in_32_bits", "lif", "raised"]

# Loihi aligns activations with its states of 24 bits by this shift.
ACTIVATION_BITS = 6

# States are held within -STATE_MAX ... STATE_MAX.
STATE_MAX = (1 << 23) - 1


def in_32_bits(x: Tensor) -> Tensor:
    """Integers of 64 bits as a register of 32 holds them: they wrap."""
    return x.to(torch.int32).to(torch.int64)


def raised(x: Tensor, bits: int = ACTIVATION_BITS) -> Tensor:
    """Whole numbers of a sequence shifted left, in a register of 32 bits."""
    return in_32_bits(integers(x) << bits)


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


_Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


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
    parameters = current_decay, voltage_decay, bias, threshold, current, voltage
    compiled = kernels.chosen(backend, activation)
    if compiled is None:
        return _lif_reference(activation, drive, parameters, reset_interval, first_reset, keep)
    state = exact_dtype(activation) if keep else None
    done = kernels.run(
        compiled,
        "loihi_lif",
        activation,
        (activation, drive),
        parameters,
        (reset_interval, first_reset),
        (activation.dtype, state, state),
        (True, True),
    )
    return (*done.sequences, *done.neurons)  # type: ignore[return-value] # three and two


def _lif_reference(
    activation: Tensor,
    drive: Tensor | None,
    parameters: tuple[Tensor, ...],
    reset_interval: int,
    first_reset: int,
    keep: bool,
) -> _Five:
    kept_of_current, kept_of_voltage = (kept(decay) for decay in parameters[:2])
    bias, threshold, *first = (integers(parameter) for parameter in parameters[2:])
    shape = activation.shape[:-1]
    u, v = (state.expand(shape) for state in first)
    spike, *kept_states = _lif_fake(activation, keep)[:3]
    incoming = raised(activation)
    for t in range(activation.shape[-1]):
        if reset_interval and t % reset_interval == first_reset:
            u, v = torch.zeros_like(u), torch.zeros_like(v)
        u = in_32_bits(decayed(u, kept_of_current) + incoming[..., t])
        over, under = u > STATE_MAX + 1, u < -STATE_MAX
        u = u + (under.to(u.dtype) - over.to(u.dtype)) * 2 * (STATE_MAX + 1)
        v = decayed(v, kept_of_voltage) + u + bias
        if drive is not None:
            v = v + integers(drive[..., t])
        v = in_32_bits(v).clamp(-STATE_MAX, STATE_MAX)
        fired = v > threshold
        v = v.masked_fill(fired, 0)
        spike[..., t] = fired
        if keep:
            for sequence, state in zip(kept_states, (u, v), strict=True):
                sequence[..., t] = state
    last = (per_neuron(activation).copy_(state) for state in (u, v))
    return (spike, *kept_states, *last)  # type: ignore[return-value] # two and two


@_lif.register_fake
def _(activation: Tensor, *args: Any) -> Any:
    return _lif_fake(activation, args[9])


def _lif_fake(activation: Tensor, keep: bool) -> _Five:
    real = exact_dtype(activation)
    sequences = (
        torch.empty_like(activation, dtype=real) if keep else activation.new_empty(0, dtype=real)
        for _ in range(2)
    )
    last = (per_neuron(activation) for _ in range(2))
    return (torch.empty_like(activation), *sequences, *last)  # type: ignore[return-value] # two and two


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
        drive: e, a bias that changes: whole numbers ``[N, *, T]`` below :math:`2^{31}`.

    Raises:
        BridgeError: If the drive has another shape, or the interval is negative.
    """
    if drive is not None and drive.shape != activation.shape:
        found = f"found {list(drive.shape)}; expand it"
        raise BridgeError(f"lif: expected a drive of {list(activation.shape)}, {found}")
    if reset_interval < 0:
        raise BridgeError(f"lif: reset_interval must be 0 or more, found {reset_interval}")
    steps = activation.shape[-1]
    first_reset = reset_phase % reset_interval if reset_interval else 0
    if first_reset >= steps:
        reset_interval = first_reset = 0
    # A later reset than the last step is none: the kernels count in 32 bits.
    interval = min(reset_interval, first_reset + steps)
    parameters = current_decay, voltage_decay, bias, threshold, current, voltage
    return LifRun(*_lif(activation, drive, *parameters, interval, first_reset, keep, backend))
