"""Integers on the chip: shifts and rounding toward zero."""

from typing import Any

import torch
from torch import Tensor

from ...quantize import right_shift_to_zero

__all__ = ["Q2Zero", "right_shift_to_zero"]


class Q2Zero(torch.autograd.Function):
    r"""``Q2Zero.apply(x)``: :math:`y = \mathrm{trunc}(x)`, with the identity as its gradient.

    Source: ``lava.lib.dl.slayer.utils.int_utils.Q2Zero``. (There what 32 bits can't hold wraps.)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.trunc(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]
