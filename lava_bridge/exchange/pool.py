"""Sum pooling, slayer's pooling, as a SpikingJelly layer."""

import operator
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..checks import described
from ..errors import BridgeError

__all__ = ["SumPool2d"]


class SumPool2d(nn.Module):
    """Sum pooling of ``[N, C, H, W]``, slayer's pooling (:class:`torch.nn.AvgPool2d` averages).

    Args:
        kernel_size, stride, padding, dilation: As in :class:`torch.nn.MaxPool2d`; ``stride`` is the
            kernel size by default.
        ceil_mode: Whether a window that is cut off at the lower or right edge counts too (where the
            windows tile the input, as slayer's Pool does): 7 x 7 pooled by 2 is then 4 x 4,
            otherwise 3 x 3.
    """

    ones: Tensor

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = _pair("kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else _pair("stride", stride, 1)
        self.padding = _pair("padding", padding, 0)
        self.dilation = _pair("dilation", dilation, 1)
        self.ceil_mode = ceil_mode
        if ceil_mode and not self.tiles:
            raise BridgeError(
                "SumPool2d: ceil_mode needs stride=kernel_size, padding=0 and dilation=1, found "
                f"{self.extra_repr()}"
            )
        self.register_buffer("ones", torch.ones(1, 1, *self.kernel_size), persistent=False)

    @property
    def tiles(self) -> bool:
        """Whether the windows lie side by side."""
        return (
            self.stride == self.kernel_size and self.padding == (0, 0) and self.dilation == (1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Sums ``[N, C, H', W']`` over the windows of ``[N, C, H, W]``; also without N.

        A BridgeError is raised if the input has no three dimensions.
        """
        if not isinstance(x, Tensor) or x.dim() < 3:
            raise BridgeError(
                f"SumPool2d: expected a tensor [N, C, H, W], found {described(x)}; bring it to "
                "these dimensions with reshape or unsqueeze"
            )
        if self.ceil_mode:
            rows, columns = (
                -size % k for size, k in zip(x.shape[-2:], self.kernel_size, strict=True)
            )
            x = F.pad(x, (0, columns, 0, rows))
        planes = x.flatten(0, -3).unsqueeze(1)
        sums = F.conv2d(planes, self.ones.to(x), None, self.stride, self.padding, self.dilation)
        return sums.squeeze(1).unflatten(0, x.shape[:-2])

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


def _pair(name: str, value: Any, least: int) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    try:
        height, width = (operator.index(number) for number in pair)
    except (TypeError, ValueError):
        height = width = least - 1
    if min(height, width) < least:
        raise BridgeError(
            f"SumPool2d: {name} must be a whole number or two, {least} or more, found {value!r}"
        )
    return height, width
