"""The rules of neurons: each becomes an IFNode or LIFNode that the chip can hold."""

import math
from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import neuron

from ..errors import ConversionError
from ..exchange import CubaLIFNode
from .chain import Chain
from .rules import NEAREST, rule

__all__: list[str] = []

# A LIFNode's tau is above 1, though that of a ParametricLIFNode may round to 1.
LEAST_TAU = 1 + 2**-20


def _named(*names: str) -> list[type]:
    """SpikingJelly's neurons of these names, as far as its release has them."""
    return [kind for name in names if (kind := getattr(neuron, name, None))]


@rule(CubaLIFNode)
def _cuba(node: CubaLIFNode, chain: Chain) -> None:
    chain.neuron(node)


@rule(*_named("IFNode", "SimpleIFNode"))
def _integrate_and_fire(node: Any, chain: Chain) -> None:
    r"""``v[t] = v[t-1] + x[t]``: no leak.

    With a reset to :math:`v_r` other than 0, the state :math:`v' = v - v_r` begins at 0, is reset
    to 0, obeys the same equation, and fires at :math:`\vartheta - v_r`.
    """
    threshold = _threshold(node, chain)
    if type(node) is neuron.IFNode and threshold is node.v_threshold:
        chain.neuron(node)
    else:
        chain.neuron(_like(node, neuron.IFNode(threshold, 0.0)), node)


@rule(*_named("LIFNode", "SimpleLIFNode"))
def _leaky(node: Any, chain: Chain) -> None:
    _leak(node, chain, _number(node, "tau"), node.decay_input)


@rule(*_named("ParametricLIFNode"))
def _parametric(node: Any, chain: Chain) -> None:
    r"""A LIFNode whose learned parameter w gives :math:`1 / \tau = \mathrm{sigmoid}(w)`."""
    share = torch.sigmoid(torch.tensor(_number(node, "w"), dtype=torch.float64)).item()
    tau = 1 / share if share else math.inf
    chain.note(f"learned tau = {tau:.4g}")
    _leak(node, chain, tau, node.decay_input)


def _leak(node: Any, chain: Chain, tau: float, decay_input: bool) -> None:
    r"""A leak, with the input divided by tau or not.

    .. math:: v[t] = v[t-1] - \tfrac1\tau (v[t-1] - v_r) + \tfrac1\tau x[t]

    With :math:`v' = \tau (v - v_r)`:

    .. math:: v'[t] = (1 - \tfrac1\tau)\,v'[t-1] + x[t], \qquad
        v \ge \vartheta \iff v' \ge \tau (\vartheta - v_r)

    so that the input needs no division: the threshold is tau times larger. Without
    ``decay_input``, :math:`v' = v - v_r` as for an IFNode.
    """
    threshold = _threshold(node, chain)
    if not tau >= 1:
        raise ConversionError(f"has tau={tau:g}, but a leak needs a tau of 1 or more")
    if decay_input and math.isinf(tau):
        raise ConversionError("divides its input by an infinite tau; check the training")
    if decay_input:
        chain.note(f"decay_input: threshold times tau = {tau:.4g}")
        chain.scale(tau)
    elif type(node) is neuron.LIFNode and threshold is node.v_threshold and tau is node.tau:
        chain.neuron(node)
        return
    made = neuron.LIFNode(max(tau, LEAST_TAU), False, threshold, 0.0)
    chain.neuron(_like(node, made), node)


def _threshold(node: Any, chain: Chain) -> float:
    """The threshold above the reset."""
    if not getattr(node.surrogate_function, "spiking", True):
        raise ConversionError(
            "has a surrogate_function with spiking=False, so that it gives numbers, not spikes; "
            "call surrogate_function.set_spiking_mode(True)"
        )
    if node.v_reset is None:
        raise ConversionError(
            "has a soft reset (v_reset=None), but the chip sets the voltage to 0 after a spike; "
            "train with v_reset=0."
        )
    threshold, reset = _number(node, "v_threshold"), _number(node, "v_reset")
    start = node._memories_rv["v"]
    if start != reset:
        raise ConversionError(
            f"begins at {start} but resets to v_reset={reset}, where the chip has 0 for "
            "both; use v_reset=0."
        )
    if reset == 0:
        return threshold
    if not threshold > reset:
        raise ConversionError(
            f"has v_reset={reset}, not below v_threshold={threshold}, so that it "
            "fires without an input; train with v_reset=0."
        )
    chain.note(f"v_reset = {reset:g}: state and threshold shifted by it")
    return threshold - reset


def _number(node: Any, name: str) -> float:
    """A neuron's number, which may be a tensor of one that was learned; the float itself if so."""
    value = getattr(node, name)
    if isinstance(value, torch.Tensor) and value.numel() != 1:
        raise ConversionError(
            f"has a {name} of shape {tuple(value.shape)}, but all neurons of a slayer layer have "
            "one; train with a number"
        )
    try:
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError) as error:
        raise ConversionError(f"has {name}={value!r}, which is no number; set one") from error


def _like(node: Any, made: Any) -> nn.Module:
    """A new neuron with the surrogate gradient, the step mode and the scale of another."""
    made.surrogate_function = node.surrogate_function
    made.detach_reset = node.detach_reset
    made.step_mode = node.step_mode
    if hasattr(node, "lava_s_cale"):
        made.lava_s_cale = node.lava_s_cale
    return made


for _kind in _named("QIFNode", "EIFNode"):
    NEAREST[_kind] = "has a leak that is not linear; use LIFNode"
for _kind in _named("PSN", "MaskedPSN", "SlidingPSN"):
    NEAREST[_kind] = "mixes time steps without a state that resets; use LIFNode"
