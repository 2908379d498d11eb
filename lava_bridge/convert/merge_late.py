"""Pairs of layers that are one only if no synapse comes after them, which would take them in.

Each exact, as those of ``merge.py``; ``LATE_MERGES`` is asked where no pair of ``MERGES`` is left.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConversionError
from ..exchange.pool import SumPool2d
from ..exchange.synapses import conv_padding
from .layers import ChannelAffine
from .merge import (
    Shape,
    affine_after,
    affine_as_conv,
    affine_before_conv,
    pad_before_conv,
    pool_as_conv,
    pool_before_conv,
    refuse_ceil,
)

__all__ = ["LATE_MERGES", "pad_before_pool"]


def _affine_after_pool(pool: SumPool2d, affine: ChannelAffine, shape: Shape) -> nn.Module:
    """A norm of a pooling's sums: of the convolution by 1 that sums the same."""
    conv = pool_as_conv(pool, shape or (len(affine.scale), 1, 1))
    return affine_after(conv.to(affine.scale), affine, shape)


def _affine_before_pool(affine: ChannelAffine, pool: SumPool2d, shape: Shape) -> nn.Module:
    """The sums of what a norm gives: a convolution by 1 after the norm."""
    conv = pool_as_conv(pool, shape or (len(affine.scale), 1, 1))
    return affine_before_conv(affine, conv.to(affine.scale), shape)


def _pool_twice(first: SumPool2d, second: SumPool2d, shape: Shape) -> nn.Module:
    """Sums of windows that tile the input, summed again: windows of the product of the sizes.

    Others are a convolution whose weights say how often an input is in the sums.
    """
    for pool in (first, second):
        refuse_ceil(pool)
    if first.tiles and second.tiles:
        sizes = zip(first.kernel_size, second.kernel_size, strict=True)
        height, width = (a * b for a, b in sizes)
        return SumPool2d((height, width))
    return pool_before_conv(first, pool_as_conv(second, shape), shape)


def _pad_before_affine(pad: nn.ZeroPad2d, affine: ChannelAffine, shape: Shape) -> nn.Module:
    """A norm of what has zeros around it: a padded convolution by 1, each channel on its own."""
    return pad_before_conv(pad, affine_as_conv(affine), shape)


def pad_before_pool(pad: nn.ZeroPad2d, pool: SumPool2d, shape: Shape) -> nn.Module:
    """Sums of what has zeros around it; windows that are cut off end in more zeros."""
    if pool.ceil_mode and shape is not None:
        left, right, top, bottom = pad.padding
        height, width = shape[1] + top + bottom, shape[2] + left + right
        rows, columns = -height % pool.kernel_size[0], -width % pool.kernel_size[1]
        pad = nn.ZeroPad2d((left, right + columns, top, bottom + rows))
        pool = SumPool2d(pool.kernel_size)
    return pad_before_conv(pad, pool_as_conv(pool, shape), shape)


def _pool_after_transpose(conv: nn.ConvTranspose2d, pool: SumPool2d, shape: Shape) -> nn.Module:
    r"""A transposed convolution (stride s, dilation d, padding p), then a sum pooling (s', d', p').

    .. math:: \sum_{j<k'} z[s' n + d' j - p'], \quad z[m] = b + \sum_{s i + d k - p = m} W_k\,x[i]
        \;=\; k' b + \sum_i U_{s' n - s i}\,x[i], \qquad
        U_l = \sum_{d k - d' j = l + p - p'} W_k

    which with s' a divisor of s is a transposed convolution of stride s / s', and with s a divisor
    of s' a convolution of stride s' / s. A padded pooling would see what the transposed convolution
    cuts off, and no bias in its own zeros: refused, where that makes a difference.
    """
    refuse_ceil(pool)
    if any(pool.padding) and (any(conv.padding) or conv.bias is not None):
        raise ConversionError(
            "is a padded pooling after a ConvTranspose2d with a bias or a padding of its own; use "
            "padding=0, or put an IFNode or LIFNode between"
        )
    sides = list(zip(conv.stride, pool.stride, strict=True))
    if all(s % t == 0 for s, t in sides):
        transposed, stride = True, tuple(s // t for s, t in sides)
    elif all(t % s == 0 for s, t in sides):
        transposed, stride = False, tuple(t // s for s, t in sides)
    else:
        raise ConversionError(
            f"has a stride of {pool.stride} after a ConvTranspose2d of stride {conv.stride}, and "
            "no layer has their ratio; use strides that divide, or put an IFNode or LIFNode between"
        )
    (rows, above), (columns, left) = (_side(conv, pool, axis, transposed) for axis in (0, 1))
    weight = conv.weight.detach()
    exact = weight.double()  # of float32 a GPU may keep TF32's 11 bits
    kernel = torch.einsum("mk,iokl,nl->iomn", rows.to(exact), exact, columns.to(exact))
    kernel = kernel.to(weight.dtype)
    bias = None if conv.bias is None else conv.bias.detach() * math.prod(pool.kernel_size)
    options: Any = {"groups": conv.groups, "bias": bias is not None, "device": "meta"}
    if not transposed:  # [in, out / groups, *] to [out, in / groups, *]
        kernel = kernel.unflatten(0, (conv.groups, -1)).transpose(1, 2).flatten(0, 1)
    kind: Any = nn.ConvTranspose2d if transposed else nn.Conv2d
    made = kind(
        conv.in_channels,
        conv.out_channels,
        tuple(kernel.shape[2:]),
        stride,
        (above, left),
        **options,
    )
    made.weight = nn.Parameter(kernel)
    made.bias = None if bias is None else nn.Parameter(bias)
    return made


def _side(conv: Any, pool: SumPool2d, axis: int, transposed: bool) -> tuple[Tensor, int]:
    """Along one axis: how often each tap of W is in each of the merged kernel, and its padding.

    Its taps are the U at multiples of the smaller stride t, ``l = t m``. The output has
    ``floor((s (I - 1) + end) / s') + 1`` places, I those of the input; the kernel begins and ends
    with as many zeros as make a padding, the same on both sides, give them.
    """
    taps, summed = conv.kernel_size[axis], pool.kernel_size[axis]
    apart, between = conv.dilation[axis], pool.dilation[axis]
    shift = pool.padding[axis] - conv.padding[axis]
    step = min(conv.stride[axis], pool.stride[axis])
    pairs = [(k, apart * k - between * j + shift) for k in range(taps) for j in range(summed)]
    found = [(place // step, k) for k, place in pairs if place % step == 0]
    end = (apart * (taps - 1) - between * (summed - 1) + 2 * shift) // step
    places = [m for m, _ in found] or [0]
    if transposed:
        padding = max(0, -min(places), max(places) - end)
        size = end + 2 * padding + 1
    else:
        padding = max(0, max(places), end - min(places))
        size = 2 * padding + 1 - end
    held = torch.zeros(size, taps)
    for m, k in found:
        held[m + padding if transposed else padding - m, k] += 1
    return held, padding


def _conv_twice(first: nn.Conv2d, second: nn.Conv2d, shape: Shape) -> nn.Module:
    r"""A convolution (weights A, stride s, dilation d, padding p), then another (W, s', d').

    .. math:: b' + \sum_j W_j \Bigl(b + \sum_i A_i\,x[s (s' n + d' j) + d i - p]\Bigr)
        = b' + \sum_j W_j b + \sum_m V_m\, x[(s s') n + m - p],
        \qquad V_m = \sum_{s d' j + d i = m} W_j A_i

    with as many groups as divide those of both, as of a depthwise convolution and one by 1. Zeros
    around the second's input are not what the first would give there: refused, but for a first one
    by 1 without a bias.
    """
    if second.in_channels != first.out_channels:
        raise ConversionError(
            f"takes {second.in_channels} channels after a layer of {first.out_channels}; give it "
            "as many"
        )
    own, padding = conv_padding(first), conv_padding(second)
    by_one = {*first.kernel_size, *first.stride} == {1} and not any(own)
    by_one &= first.bias is None or not first.bias.any()
    if any(padding) and not by_one:
        raise ConversionError(
            "is padded, after a convolution without a neuron; use padding=0, or put an IFNode or "
            "LIFNode between"
        )
    groups = math.gcd(first.groups, second.groups)
    taken = _ungrouped(first).double().chunk(groups)
    given = _ungrouped(second).double().chunk(groups)
    inputs, middle = first.in_channels // groups, first.out_channels // groups
    steps = tuple(s * d for s, d in zip(first.stride, second.dilation, strict=True))
    parts = [
        F.conv_transpose2d(
            w[:, k * middle : (k + 1) * middle],
            a[:, k * inputs : (k + 1) * inputs],
            stride=steps,
            dilation=first.dilation,
        )
        for k, (w, a) in enumerate(zip(given, taken, strict=True))
    ]
    bias = None if second.bias is None else second.bias.detach().double()
    if first.bias is not None:
        moved = _ungrouped(second).double().sum(dim=(2, 3)) @ first.bias.detach().double()
        bias = moved if bias is None else moved + bias
    stride: Any = tuple(s * t for s, t in zip(first.stride, second.stride, strict=True))
    around: Any = tuple(p + q for p, q in zip(own, padding, strict=True))
    made = nn.Conv2d(
        first.in_channels,
        second.out_channels,
        (parts[0].shape[2], parts[0].shape[3]),
        stride,
        around,
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    made.weight = nn.Parameter(torch.cat(parts).to(second.weight.dtype))
    if bias is not None:
        made.bias = nn.Parameter(bias.to(second.weight.dtype))
    return made


def _ungrouped(conv: nn.Conv2d) -> Tensor:
    """The weight ``[O, I, H, W]`` of a convolution without its groups: 0 between them."""
    weight = conv.weight.detach()
    made = weight.new_zeros(conv.out_channels, conv.in_channels, *weight.shape[2:])
    inputs = conv.in_channels // conv.groups
    for k, rows in enumerate(weight.chunk(conv.groups)):
        made.chunk(conv.groups)[k][:, k * inputs : (k + 1) * inputs] = rows
    return made


# Two layers, and the shape [C, *] of the first one's input if known, to the one that equals them.
LATE_MERGES: dict[tuple[type, type], Callable[[Any, Any, Shape], nn.Module]] = {
    (nn.Conv2d, nn.Conv2d): _conv_twice,
    (SumPool2d, SumPool2d): _pool_twice,
    (SumPool2d, ChannelAffine): _affine_after_pool,
    (ChannelAffine, SumPool2d): _affine_before_pool,
    (nn.ZeroPad2d, ChannelAffine): _pad_before_affine,
    (nn.ZeroPad2d, SumPool2d): pad_before_pool,
    (nn.ConvTranspose2d, SumPool2d): _pool_after_transpose,
}
