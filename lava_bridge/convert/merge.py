"""Poolings that have no neuron of their own, merged into the layer after them; all of it exact."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConversionError
from ..exchange.pool import SumPool2d
from ..exchange.to_lava import conv_padding

__all__ = ["pool_as_conv", "pool_into_conv", "pool_into_linear"]


def pool_as_conv(pool: SumPool2d, shape: tuple[int, ...] | None) -> nn.Conv2d:
    """A sum pooling as a convolution with weights of 1, each channel on its own."""
    if shape is None:
        raise ConversionError(
            "is a pooling that needs the shape of its input to be converted; pass input_shape"
        )
    if len(shape) != 3:
        raise ConversionError(f"pools height and width, but its input has the shape {shape}")
    _refuse_ceil(pool)
    conv = nn.Conv2d(
        shape[0],
        shape[0],
        pool.kernel_size,
        pool.stride,
        pool.padding,
        pool.dilation,
        groups=shape[0],
        bias=False,
    )
    nn.init.ones_(conv.weight)
    return conv.requires_grad_(False)


def pool_into_conv(pool: SumPool2d, conv: nn.Conv2d, shape: tuple[int, ...] | None) -> nn.Conv2d:
    r"""A sum pooling by k and a convolution as one convolution of the unpooled input.

    .. math::
        \sum_i W_i \sum_{j<k} x[k (s n + d i - p) + j]
        = \sum_m V_m\, x[(s k) n + m - p k], \qquad V_{k d i + j} = W_i

    so the kernel is W with its taps spread by the dilation and each repeated k times; stride and
    padding are k times larger. With padding, the pooled input must leave no rows over: the merged
    convolution would see them where the net sees zeros.
    """
    _require_tiles(pool)
    _refuse_ceil(pool)
    padding = conv_padding(conv)
    if any(padding):
        _require_fit(pool, shape)
    kh, kw = pool.kernel_size
    weight = _repeat(_spread(conv.weight.detach(), conv.dilation), pool.kernel_size)
    merged = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (weight.shape[2], weight.shape[3]),
        (conv.stride[0] * kh, conv.stride[1] * kw),
        (padding[0] * kh, padding[1] * kw),
        groups=conv.groups,
        bias=False,
    )
    merged.weight = nn.Parameter(weight)
    return merged


def pool_into_linear(
    pool: SumPool2d, linear: nn.Linear, shape: tuple[int, ...] | None
) -> nn.Linear:
    r"""A sum pooling, a Flatten and a linear layer as one linear layer of the unpooled input.

    .. math:: \sum_i W_i \sum_{j \in window(i)} x_j = \sum_j W_{window(j)} x_j

    with weights of 0 for the rows and columns that the pooling leaves out.
    """
    _require_tiles(pool)
    _refuse_ceil(pool)
    if shape is None or len(shape) != 3:
        raise ConversionError(
            "follows a pooling and a Flatten, so the shape of the pooling's input must be known; "
            "pass input_shape=(C, H, W)"
        )
    channels, height, width = shape
    kh, kw = pool.kernel_size
    rows, columns = height // kh, width // kw
    if linear.in_features != channels * rows * columns:
        raise ConversionError(
            f"has {linear.in_features} inputs, but the pooling before it gives {channels} x {rows} "
            f"x {columns}; check the layers before it or input_shape"
        )
    weight = linear.weight.detach().reshape(-1, channels, rows, columns)
    weight = F.pad(_repeat(weight, (kh, kw)), (0, width - columns * kw, 0, height - rows * kh))
    merged = nn.Linear(channels * height * width, linear.out_features, bias=False)
    merged.weight = nn.Parameter(weight.flatten(1))
    return merged


def _require_tiles(pool: SumPool2d) -> None:
    if not pool.tiles:
        raise ConversionError(
            "follows a pooling whose windows overlap or are padded, and which has no neuron; give "
            "the pooling its own neuron, or stride=kernel_size and padding=0"
        )


def _require_fit(pool: SumPool2d, shape: tuple[int, ...] | None) -> None:
    if shape is None:
        raise ConversionError(
            "is a padded convolution after a pooling, so the shape of the pooling's input must be "
            "known; pass input_shape=(C, H, W)"
        )
    if any(size % k for size, k in zip(shape[1:], pool.kernel_size, strict=False)):
        raise ConversionError(
            f"is a padded convolution after a pooling by {pool.kernel_size} that leaves rows or "
            f"columns of its input {shape} over; use padding=0 or give the pooling its own neuron"
        )


def _refuse_ceil(pool: SumPool2d) -> None:
    if pool.ceil_mode:
        raise ConversionError("follows a pooling with ceil_mode=True; use ceil_mode=False")


def _spread(weight: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """Put ``dilation - 1`` zeros between the taps of a kernel ``[O, I, H, W]``."""
    (dh, dw), (height, width) = dilation, weight.shape[2:]
    spread = weight.new_zeros(*weight.shape[:2], (height - 1) * dh + 1, (width - 1) * dw + 1)
    spread[:, :, ::dh, ::dw] = weight
    return spread


def _repeat(weight: Tensor, times: tuple[int, ...]) -> Tensor:
    """Repeat each tap of ``[O, I, H, W]`` in height and width."""
    return torch.repeat_interleave(
        torch.repeat_interleave(weight, times[0], dim=2), times[1], dim=3
    )
