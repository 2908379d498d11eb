"""Leaky integrate and fire in Loihi's arithmetic."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import kernels
from ...errors import BridgeError
from ...quantize import decayed, integers, kept
from ..operator import operator
from .register import STATE_MAX, in_32_bits, launched, raised, require_same_shape, stepped, unfilled

__all__ = ["LifRun", "lif"]


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


@operator("lava_bridge::loihi_lif")
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
        return launched(compiled, "loihi_lif", *given, keep, 2)
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

    return stepped(activation, states, keep, step)


@_lif.register_fake
def _(activation: Tensor, *args: Any) -> Any:
    return unfilled(activation, args[9], 2)


@torch.no_grad()
def lif(
    activation: Tensor,
    current_decay: Tensor,
    voltage_decay: Tensor,
    bias: Tensor,
    threshold: Tensor,
    current: Tensor,
    voltage: Tensor,
    *,
    reset_interval: int = 0,
    reset_phase: int = 0,
    drive: Tensor | None = None,
    keep: bool = False,
    backend: str = "auto",
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
        current_decay, voltage_decay: :math:`d_u` and :math:`d_v`, 0 ... 4096; as Lava, also
            integers beyond (its ``du`` is one less than the first).
        bias: b, the mantissa already shifted by its exponent.
        threshold: :math:`\vartheta`, already shifted left by 6.
        current, voltage: States before the first step. The parameters from ``current_decay`` on are
            whole numbers that broadcast with ``[N, *]``; beyond :math:`2^{24}` they need an
            activation in float64.
        reset_interval: Zero both states before every so many steps; 0: never.
        reset_phase: A step where that happens, counted from 0 within this call; any integer.
        drive: e, a bias that changes: whole numbers ``[N, *, T]``, with the bounds of a bias.
        keep: Whether the states after each step are wanted.
        backend: One of :mod:`lava_bridge.kernels`.

    Raises:
        BridgeError: If the drive has another shape, or the interval is negative.

    Source: lava-nc 0.10.0, ``lava.proc.lif.models``: ``PyLifModelBitAcc``,
    ``PyLifResetModelBitAcc``.
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
