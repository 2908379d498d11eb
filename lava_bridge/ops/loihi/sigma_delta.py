"""Sigma-delta neurons in Loihi's arithmetic.

float32 is right as long as no sum leaves -2^24 ... 2^24. Lava's error is not cumulated, its
activation is a ReLU.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import kernels
from ...errors import BridgeError
from ...quantize import integers
from ..operator import operator
from .register import in_32_bits, launched, raised, stepped, unfilled

__all__ = ["DeltaRun", "SigmaDeltaRun", "SigmaRun", "delta", "sigma", "sigma_delta"]

# What a register of 32 bits can be shifted by.
_SHIFT_MAX = 31


class SigmaRun(NamedTuple):
    """What :func:`sigma` gives: sums ``[N, *, T]``, and the last ones, ``[N, *]``."""

    spike: Tensor
    last: Tensor


class DeltaRun(NamedTuple):
    """What :func:`delta` gives.

    Attributes:
        spike: What is sent, ``[N, *, T]``.
        act, residue: ``[N, *, T]`` after each step; empty unless they were asked for.
        last_act, last_residue: The states after the last step, ``[N, *]``.
    """

    spike: Tensor
    act: Tensor
    residue: Tensor
    last_act: Tensor
    last_residue: Tensor


class SigmaDeltaRun(NamedTuple):
    """What :func:`sigma_delta` gives.

    Attributes:
        spike: What is sent, ``[N, *, T]``.
        sigma, act, residue: ``[N, *, T]`` after each step; empty unless they were asked for.
        last_sigma, last_act, last_residue: The states after the last step, ``[N, *]``.
    """

    spike: Tensor
    sigma: Tensor
    act: Tensor
    residue: Tensor
    last_sigma: Tensor
    last_act: Tensor
    last_residue: Tensor


def _encoded(
    x: Tensor, before: Tensor, residue: Tensor, threshold: Tensor
) -> tuple[Tensor, Tensor]:
    """What is sent of a step's change, and what is left of it."""
    change = in_32_bits(x - before + residue)
    # The lowest integer has no absolute value in 32 bits: it stays what it is.
    sends = in_32_bits(change.abs()) >= threshold
    return change * sends, change * ~sends


def _require_shift(place: str, bits: int) -> None:
    if not 0 <= bits <= _SHIFT_MAX:
        raise BridgeError(f"{place}: expected exponents of 0 to {_SHIFT_MAX} in all, found {bits}")


@operator("lava_bridge::loihi_sigma")
def _sigma(activation: Tensor, state: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    compiled = kernels.chosen(backend, activation)
    if compiled is not None:
        y, _, last = launched(compiled, "loihi_sigma", [activation], [state], (), False, 1)
        return y, last
    incoming = raised(activation, 0)

    def step(t: int, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        total = in_32_bits(states[0] + incoming[..., t])
        return total, [total]

    y, _, last = stepped(activation, [state], False, step)
    return y, last


@_sigma.register_fake
def _(activation: Tensor, state: Tensor, backend: str) -> Any:
    y, _, last = unfilled(activation, False, 1)
    return y, last


@torch.no_grad()
def sigma(activation: Tensor, state: Tensor, *, backend: str = "auto") -> SigmaRun:
    r"""Sums :math:`\sigma[t] = \sigma[t-1] + a[t]` that wrap at 32 bits.

    Args:
        activation: a, whole numbers ``[N, *, T]`` in any memory order.
        state: :math:`\sigma` before the first step, whole numbers that broadcast with ``[N, *]``.
        backend: One of :mod:`lava_bridge.kernels`.

    Source: lava-nc 0.10.0, ``lava.proc.sdn.models``: ``PySigmaModelFixed``.
    """
    return SigmaRun(*_sigma(activation, state, backend))


@operator("lava_bridge::loihi_delta")
def _delta(
    x: Tensor,
    threshold: Tensor,
    act: Tensor,
    residue: Tensor,
    input_bits: int,
    message_bits: int,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    states = act, residue
    compiled = kernels.chosen(backend, x)
    if compiled is not None:
        given = [x], (threshold, *states), (input_bits, message_bits)
        done = launched(compiled, "loihi_delta", *given, keep, 2)
        return done
    level, incoming = integers(threshold), raised(x, input_bits)

    def step(t: int, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        before, left = states
        sent, left = _encoded(incoming[..., t], before, left, level)
        return sent >> message_bits, [incoming[..., t], left]

    return stepped(x, states, keep, step)


@_delta.register_fake
def _(x: Tensor, *args: Any) -> Any:
    return unfilled(x, args[5], 2)


@torch.no_grad()
def delta(
    x: Tensor,
    threshold: Tensor,
    act_state: Tensor,
    residue_state: Tensor,
    *,
    spike_exp: int = 0,
    state_exp: int = 0,
    keep: bool = False,
    backend: str = "auto",
) -> DeltaRun:
    r"""Send what changed, once it is large enough.

    .. math::
        \alpha[t] &= x[t] \ll (p + q), \qquad d[t] = \alpha[t] - \alpha[t-1] + \rho[t-1] \\
        m[t] &= d[t]\;\text{where}\;|d[t]| \ge \vartheta, \qquad
        \rho[t] = d[t] - m[t], \qquad y[t] = m[t] \gg q

    The last shift rounds down.

    Args:
        x: Whole numbers ``[N, *, T]`` in any memory order. Spikes y come in its dtype and order.
        threshold: :math:`\vartheta`, as large as a state (already shifted left by q).
        act_state, residue_state: :math:`\alpha` and :math:`\rho` before the first step. These and
            the threshold are whole numbers that broadcast with ``[N, *]``.
        spike_exp, state_exp: p and q, together at most 31.
        keep: Whether the states after each step are wanted.
        backend: One of :mod:`lava_bridge.kernels`.

    Raises:
        BridgeError: If the exponents are out of range.

    Source: lava-nc 0.10.0, ``lava.proc.sdn.models``: ``PyDeltaModelFixed``.
    """
    for bits in (spike_exp, state_exp, spike_exp + state_exp):
        _require_shift("delta", bits)
    settings = spike_exp + state_exp, state_exp, keep, backend
    return DeltaRun(*_delta(x, threshold, act_state, residue_state, *settings))


@operator("lava_bridge::loihi_sigma_delta")
def _sigma_delta(
    activation: Tensor,
    bias: Tensor,
    threshold: Tensor,
    sigma: Tensor,
    act: Tensor,
    residue: Tensor,
    message_bits: int,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    states = sigma, act, residue
    compiled = kernels.chosen(backend, activation)
    if compiled is not None:
        given = [activation], (bias, threshold, *states), [message_bits]
        done = launched(compiled, "loihi_sigma_delta", *given, keep, 3)
        return done
    shift, level, incoming = integers(bias), integers(threshold), raised(activation, 0)

    def step(t: int, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        total, before, left = states
        total = in_32_bits(total + incoming[..., t])
        now = in_32_bits(total + shift).clamp(min=0)
        sent, left = _encoded(now, before, left, level)
        return sent >> message_bits, [total, now, left]

    return stepped(activation, states, keep, step)


@_sigma_delta.register_fake
def _(activation: Tensor, *args: Any) -> Any:
    return unfilled(activation, args[6], 3)


@torch.no_grad()
def sigma_delta(
    activation: Tensor,
    bias: Tensor,
    threshold: Tensor,
    sigma_state: Tensor,
    act_state: Tensor,
    residue_state: Tensor,
    *,
    state_exp: int = 0,
    keep: bool = False,
    backend: str = "auto",
) -> SigmaDeltaRun:
    r"""A layer of sigma-delta neurons with ReLU: sum, add the bias, and send what changed.

    .. math::
        \sigma[t] &= \sigma[t-1] + a[t], \qquad \alpha[t] = \max(\sigma[t] + b,\; 0) \\
        d[t] &= \alpha[t] - \alpha[t-1] + \rho[t-1], \qquad
        m[t] = d[t]\;\text{where}\;|d[t]| \ge \vartheta \\
        \rho[t] &= d[t] - m[t], \qquad y[t] = m[t] \gg q

    The last shift rounds down.

    Args:
        activation: a, whole numbers ``[N, *, T]`` in any memory order. Spikes y come in its dtype
            and order.
        bias, threshold: b and :math:`\vartheta`, as large as a state (already shifted left by q).
        sigma_state, act_state, residue_state: :math:`\sigma`, :math:`\alpha` and :math:`\rho`
            before the first step. The parameters from ``bias`` on are whole numbers that broadcast
            with ``[N, *]``.
        state_exp: q, 0 to 31.
        keep: Whether the states after each step are wanted.
        backend: One of :mod:`lava_bridge.kernels`.

    Raises:
        BridgeError: If the exponent is out of range.

    Source: lava-nc 0.10.0, ``lava.proc.sdn.models``: ``PySigmaDeltaModelFixed``.
    """
    _require_shift("sigma_delta", state_exp)
    parameters = bias, threshold, sigma_state, act_state, residue_state
    return SigmaDeltaRun(*_sigma_delta(activation, *parameters, state_exp, keep, backend))
