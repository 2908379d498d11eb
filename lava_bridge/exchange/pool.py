"""Sum pooling, slayer's pooling, as a SpikingJelly layer."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

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
        self.kernel_size = _pair(kernel_size)
        self.stride = self.kernel_size if stride is None else _pair(stride)
        self.padding = _pair(padding)
        self.dilation = _pair(dilation)
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
        """Sums ``[N, C, H', W']`` over the windows of ``[N, C, H, W]``."""
        if self.ceil_mode:
            rows, columns = (
                -size % k for size, k in zip(x.shape[-2:], self.kernel_size, strict=True)
            )
            x = F.pad(x, (0, columns, 0, rows))
        planes = x.flatten(0, 1).unsqueeze(1)
        sums = F.conv2d(planes, self.ones.to(x), None, self.stride, self.padding, self.dilation)
        return sums.squeeze(1).unflatten(0, x.shape[:2])

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
