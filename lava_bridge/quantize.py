"""Quantisers: onto a grid, onto 8-bit weights, and the chip's shift toward zero."""

from typing import Any

import torch
from torch import Tensor

from .errors import BridgeError

__all__ = [
    "WEIGHT_MAX",
    "WEIGHT_MIN",
    "quantize_8bit",
    "quantize_down",
    "right_shift_to_zero",
    "step_quantize",
    "step_quantize_atgf",
    "unquantized",
]

# Loihi holds a signed synaptic weight in 8 bits, the lowest of which is spent on the sign: the
# descaled weights are the 256 even integers from -256 to 254 (slayer's neuron.quantize_8bit).
WEIGHT_MIN = -256
WEIGHT_MAX = 254


class step_quantize_atgf(torch.autograd.Function):
    r"""Rounding onto multiples of a step, with the identity as its gradient.

    .. math:: y = \mathrm{round}(x / \mathrm{step}) \cdot \mathrm{step}, \qquad
              \partial y / \partial x := 1
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float = 1.0) -> Tensor:
        return torch.round(x / step) * step

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0], None


def step_quantize(x: Tensor, step: float = 1.0) -> Tensor:
    """Round ``x`` to the nearest multiple of ``step``; the gradient passes straight through.

    Halves round to the even multiple, as :func:`torch.round` does.
    """
    return step_quantize_atgf.apply(x, step)


def quantize_8bit(x: Tensor, scale: float, descale: bool = False) -> Tensor:
    """Round weights to what 8 bits hold: ``2k / scale`` with k in -128 ... 127.

    .. math:: y = \\mathrm{clamp}(\\mathrm{round}(x\\,s/2) \\cdot 2/s,\\; -256/s,\\; 254/s)

    Parameters
    ----------
    x : Tensor
        Weights, of any shape.
    scale : float
        The integer that stands for a weight of 1.
    descale : bool
        Give the integers themselves (even, -256 ... 254) in place of the scaled weights.

    Source: ``lava.lib.dl.slayer.neuron.base.Neuron.quantize_8bit``. (SpikingJelly's function of
    this name clamps at ``255 / scale``, which is not a weight that 8 bits can hold.)
    """
    quantized = step_quantize(x, 2 / scale).clamp(WEIGHT_MIN / scale, WEIGHT_MAX / scale)
    return quantized * scale if descale else quantized


def unquantized(x: Tensor, descale: bool = False) -> Tensor:
    """``x`` itself: the hook of a layer that has no quantiser."""
    return x


def quantize_down(threshold: float, scale: int) -> float:
    """The largest ``k / scale`` that is not above ``threshold`` (for thresholds of 0 and more)."""
    return int(threshold * scale) / scale


def right_shift_to_zero(x: Tensor, bits: int) -> Tensor:
    """Shift integers right, rounding toward zero: ``sign(x) * (|x| >> bits)``.

    Raises
    ------
    BridgeError
        If ``x`` is neither int32 nor int64.
    """
    if x.dtype not in (torch.int32, torch.int64):
        raise BridgeError(
            f"right_shift_to_zero: expected int32 or int64, found {x.dtype}; "
            "scale and cast the values first"
        )
    # The same in one operation, and right for the lowest integer, whose abs() overflows.
    return torch.div(x, 1 << bits, rounding_mode="trunc")
