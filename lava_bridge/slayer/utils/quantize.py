"""slayer's quantisers, with the straight-through gradient."""

from enum import IntEnum, unique

import torch
from torch import Tensor

from ...errors import BridgeError
from ...quantize import step_quantize, straight_through

__all__ = ["MODE", "quantize", "quantize_hook_fx"]


@unique
class MODE(IntEnum):
    """How a value between two steps is taken: to the nearest, or down."""

    ROUND = 0
    FLOOR = 1


class _Floor(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, step):
        return torch.floor(x / step) * step

    @staticmethod
    def backward(ctx, *grad_outputs):
        return grad_outputs[0], None


def quantize(input: Tensor, step: float = 1, mode: MODE = MODE.ROUND) -> Tensor:
    """Bring ``input`` onto multiples of ``step``; the gradient passes straight through.

    A BridgeError is raised if ``mode`` is not one of :class:`MODE`.
    """
    if mode == MODE.ROUND:
        return step_quantize(input, step)
    if mode == MODE.FLOOR:
        return straight_through(_Floor, input, step)
    raise BridgeError(f"quantize: expected mode MODE.ROUND or MODE.FLOOR, found {mode!r}")


def quantize_hook_fx(
    x: Tensor, scale: int = 1 << 6, num_bits: int = 8, descale: bool = False
) -> Tensor:
    """Round to even integers over ``scale``, from ``-2 * 2**n`` to ``2 * (2**n - 1)``, n bits.

    A ``pre_hook_fx`` for a synapse without a neuron. With ``descale`` the integers are given.
    """
    low, high = -2 * (1 << num_bits), 2 * ((1 << num_bits) - 1)
    quantized = quantize(x, step=2 / scale).clamp(low / scale, high / scale)
    return quantized * scale if descale else quantized
