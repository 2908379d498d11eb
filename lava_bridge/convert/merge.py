"""Linear layers without a neuron between them, as one; each rule exact, its derivation beside it.

``MERGES`` holds a rule for each pair of types that stands for one layer of either type; the last
resort is :func:`into_linear`, which takes any linear layers into the linear layer after them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConversionError
from ..exchange.pool import SumPool2d
from ..exchange.synapses import conv_padding
from .layers import ChannelAffine

__all__ = ["MERGES", "affine_after", "affine_as_conv", "affine_as_linear", "affine_before_conv"]
__all__ += ["as_linear", "into_linear", "pad_before_conv", "pool_as_conv", "pool_before_conv"]
__all__ += ["refuse_ceil"]

Shape = tuple[int, ...] | None
Synapse = nn.Linear | nn.Conv2d | nn.ConvTranspose2d

# Two layers, and the shape [C, *] of the first one's input if known, to the one that equals them.
MERGES: dict[tuple[type, type], Callable[[Any, Any, Shape], nn.Module]] = {}

# Rows of a weight that are taken through the layers before it at once.
ROWS = 256


def _merge(first: type, *seconds: type) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        MERGES.update({(first, second): function for second in seconds})
        return function

    return register


# A number for each channel ------------------------------------------------------------------------


@_merge(nn.Linear, ChannelAffine)
@_merge(nn.Conv2d, ChannelAffine)
@_merge(nn.ConvTranspose2d, ChannelAffine)
def affine_after(synapse: Synapse, affine: ChannelAffine, shape: Shape) -> nn.Module:
    r"""A BatchNorm after a synapse.

    .. math:: a_o (\sum_i W_{oi} x_i + b_o) + c_o = \sum_i (a_o W_{oi})\,x_i + (a_o b_o + c_o)

    for each output channel o, with :math:`a = \gamma / \sqrt{\sigma^2 + \epsilon}` and
    :math:`c = \beta - a \mu`.
    """
    weight = synapse.weight.detach().double()
    scale, shift = affine.scale.to(weight), affine.shift.to(weight)
    channels = getattr(synapse, "out_channels", None) or synapse.out_features
    if len(scale) != channels:
        raise ConversionError(
            f"has {len(scale)} features after a layer of {channels} channels; give it as many"
        )
    if isinstance(synapse, nn.ConvTranspose2d):  # [in, out / groups, height, width]
        groups = weight.reshape(synapse.groups, -1, *weight.shape[1:])
        by_channel = scale.reshape(synapse.groups, 1, -1, 1, 1)
        weight = (groups * by_channel).reshape(weight.shape)
    else:
        weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    bias = shift if synapse.bias is None else scale * synapse.bias.detach().double() + shift
    return _remade(synapse, weight, bias)


@_merge(ChannelAffine, nn.Conv2d)
def affine_before_conv(affine: ChannelAffine, conv: nn.Conv2d, shape: Shape) -> nn.Module:
    r"""A BatchNorm before a convolution.

    .. math:: \sum_{ik} W_{oik} (a_i x_{ik} + c_i) + b_o
        = \sum_{ik} (W_{oik} a_i)\,x_{ik} + (b_o + \sum_{ik} W_{oik} c_i)

    With padding the zeros at the edge come after the norm, without its shift c: refused, unless
    c is 0.
    """
    weight = conv.weight.detach().double()
    scale, shift = affine.scale.to(weight), affine.shift.to(weight)
    if len(scale) != conv.in_channels:
        raise ConversionError(
            f"takes {conv.in_channels} channels after a norm of {len(scale)}; give it as many"
        )
    if any(conv_padding(conv)) and bool(shift.any()):
        raise ConversionError(
            "is padded after a BatchNorm, whose shift the zeros at the edge do not have; use "
            "padding=0, or put the BatchNorm after it"
        )
    # Input channel of each tap of [out, in / groups, height, width]: that of its group.
    inputs = torch.arange(conv.in_channels, device=weight.device).reshape(conv.groups, -1)
    of_output = inputs.repeat_interleave(conv.out_channels // conv.groups, dim=0)
    bias = (weight.sum(dim=(2, 3)) * shift[of_output]).sum(dim=1)
    if conv.bias is not None:
        bias = bias + conv.bias.detach()
    return _remade(conv, weight * scale[of_output][..., None, None], bias)


@_merge(ChannelAffine, ChannelAffine)
def affine_twice(first: ChannelAffine, second: ChannelAffine, shape: Shape) -> nn.Module:
    """Two norms: ``a' (a x + c) + c' = (a' a) x + (a' c + c')``."""
    return ChannelAffine(first.scale * second.scale, second.scale * first.shift + second.shift)


def affine_as_conv(affine: ChannelAffine) -> nn.Conv2d:
    """A norm that stands alone before its neuron: a convolution by 1, each channel on its own."""
    channels = len(affine.scale)
    conv = nn.Conv2d(channels, channels, 1, groups=channels, device="meta")
    conv.weight = nn.Parameter(affine.scale.reshape(channels, 1, 1, 1))
    conv.bias = nn.Parameter(affine.shift)
    return conv


def affine_as_linear(affine: ChannelAffine) -> nn.Linear:
    """A norm of a flat signal that stands alone before its neuron: a diagonal matrix."""
    return _linear(torch.diag(affine.scale), affine.shift)


# Padding ------------------------------------------------------------------------------------------


@_merge(nn.ZeroPad2d, nn.Conv2d)
def pad_before_conv(pad: nn.ZeroPad2d, conv: nn.Conv2d, shape: Shape) -> nn.Module:
    r"""Zeros at the edges, then a convolution: more padding, on both sides the same.

    With t rows at the top, b at the bottom and P = max(t, b),

    .. math:: \sum_i W_i\,x[s n + d i - t] = \sum_m V_m\,x[s n + m - P],
        \qquad V_{d i + P - t} = W_i

    the kernel begins with P - t rows of zeros and ends with P - b, so that there are as many
    outputs.
    """
    left, right, top, bottom = pad.padding
    if min(left, right, top, bottom) < 0:
        raise ConversionError(
            f"has a padding of {tuple(pad.padding)}, which cuts off; use 0 or more"
        )
    own = conv_padding(conv)
    rows, columns = max(top, bottom), max(left, right)
    zeros = (columns - left, columns - right, rows - top, rows - bottom)
    if any(zeros):
        weight = F.pad(_spread(conv.weight.detach(), conv.dilation), zeros)
        dilation: Any = 1
    else:
        weight, dilation = conv.weight.detach(), conv.dilation
    return _conv(conv, weight, conv.bias, conv.stride, (own[0] + rows, own[1] + columns), dilation)


@_merge(nn.ZeroPad2d, nn.ZeroPad2d)
def pad_twice(first: nn.ZeroPad2d, second: nn.ZeroPad2d, shape: Shape) -> nn.Module:
    """Zeros around zeros: their sums."""
    left, right, top, bottom = (a + b for a, b in zip(first.padding, second.padding, strict=True))
    return nn.ZeroPad2d((left, right, top, bottom))


# Pooling ------------------------------------------------------------------------------------------


def pool_as_conv(pool: SumPool2d, shape: Shape) -> nn.Conv2d:
    """A sum pooling as a convolution with weights of 1, each channel on its own."""
    if shape is None:
        raise ConversionError(
            "is a pooling that needs the shape of its input to be converted; pass input_shape to "
            "to_slayer"
        )
    if len(shape) != 3:
        raise ConversionError(f"pools height and width, but its input has the shape {shape}")
    refuse_ceil(pool)
    conv = nn.Conv2d(
        shape[0],
        shape[0],
        pool.kernel_size,
        pool.stride,
        pool.padding,
        pool.dilation,
        groups=shape[0],
        bias=False,
        device="meta",  # so that nothing is drawn
    )
    conv.weight = nn.Parameter(torch.ones(conv.weight.shape), requires_grad=False)
    return conv


@_merge(SumPool2d, nn.Conv2d)
def pool_before_conv(pool: SumPool2d, conv: nn.Conv2d, shape: Shape) -> nn.Module:
    r"""A sum pooling (k taps, stride s', dilation d', padding p'), then a convolution.

    .. math:: \sum_i W_i \sum_{j<k} x[s'(s n + d i - p) + d' j - p']
        = \sum_m V_m\, x[(s' s) n + m - (s' p + p')], \qquad V_m = \sum_{s' d i + d' j = m} W_i

    so the strides multiply, and for a pooling that tiles its input each tap is repeated k times.
    With padding p, the convolution sees zeros beyond the pooled input; the merged one must see
    them too, so that the windows must tile the input and leave no rows over.
    """
    refuse_ceil(pool)
    padding = conv_padding(conv)
    if any(padding):
        _require_tiles(pool)
        _require_fit(pool, shape)
    weight = _with_taps(
        conv.weight.detach(),
        tuple(s * d for s, d in zip(pool.stride, conv.dilation, strict=True)),
        pool.kernel_size,
        pool.dilation,
    )
    sides = zip(pool.stride, padding, pool.padding, strict=True)
    together = tuple(s * p + q for s, p, q in sides)
    stride = tuple(s * t for s, t in zip(pool.stride, conv.stride, strict=True))
    return _conv(conv, weight, conv.bias, stride, together, 1)


@_merge(nn.Conv2d, SumPool2d)
def pool_after_conv(conv: nn.Conv2d, pool: SumPool2d, shape: Shape) -> nn.Module:
    r"""A convolution, then a sum pooling (k taps, stride s', dilation d').

    .. math:: \sum_{j<k} \Bigl(b + \sum_i W_i\,x[s (s' n + d' j) + d i - p]\Bigr)
        = k b + \sum_m V_m\, x[(s s') n + m - p], \qquad V_m = \sum_{s d' j + d i = m} W_i

    A padded pooling would count zeros where the merged convolution goes on: refused.
    """
    refuse_ceil(pool)
    if any(pool.padding):
        raise ConversionError(
            "is a padded pooling of sums (a convolution without a neuron is before it); use "
            "padding=0, or put the pooling after the neuron"
        )
    weight = _with_taps(
        conv.weight.detach(),
        conv.dilation,
        pool.kernel_size,
        tuple(s * d for s, d in zip(conv.stride, pool.dilation, strict=True)),
    )
    bias = None if conv.bias is None else conv.bias.detach() * math.prod(pool.kernel_size)
    stride = tuple(s * t for s, t in zip(conv.stride, pool.stride, strict=True))
    return _conv(conv, weight, bias, stride, conv_padding(conv), 1)


# Anything linear before a linear layer ------------------------------------------------------------


def into_linear(
    before: Sequence[nn.Module], linear: nn.Linear, shape: tuple[int, ...]
) -> nn.Linear:
    r"""Linear layers A, and the linear layer after them, as one linear layer of A's input.

    .. math:: W (A x + a) + b = (A^T W^T)^T x + (W a + b)

    The rows of W are taken through the transpose of A, which is what backpropagation does. Exact
    whatever A is: poolings that overlap, cut-off windows, norms, convolutions.

    Args:
        before: The layers of A, in order; a Flatten may be among them.
        linear: The linear layer.
        shape: Shape ``[C, *]`` of the input of the first one.
    """
    weight = linear.weight.detach()

    def sums(x: Tensor) -> Tensor:
        for module in before:
            x = _applied(module, x)
        return x.flatten(1)

    with torch.enable_grad():
        zero = torch.zeros(1, *shape, dtype=torch.float64, device=weight.device)
        offset = sums(zero).detach()
        if offset.shape[1] != linear.in_features:
            raise ConversionError(
                f"has {linear.in_features} inputs, but the layers before it give "
                f"{offset.shape[1]}; check them or input_shape"
            )
        parts = []
        for rows in weight.split(ROWS):
            x = zero.expand(len(rows), *shape).clone().requires_grad_()
            (part,) = torch.autograd.grad(sums(x), x, rows.double())
            parts.append(part.flatten(1).to(weight.dtype))
    bias = weight.double() @ offset[0]
    if linear.bias is not None:
        bias = bias + linear.bias.detach()
    return _linear(torch.cat(parts), bias if bool(bias.any()) else None)


def as_linear(module: nn.Module, shape: tuple[int, ...]) -> nn.Linear:
    """A layer that is linear in its input of a known shape ``[C, *]``, as a linear layer."""
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    outputs = _applied(module, zero).numel()
    identity = _linear(torch.eye(outputs, dtype=torch.float64), None)
    merged = into_linear([module], identity, shape)
    dtype = next(module.parameters()).dtype
    return _linear(merged.weight.detach().to(dtype), merged.bias)


def _applied(module: Any, x: Tensor) -> Tensor:
    """A layer in double precision, whatever its own is, without a copy of the user's module."""
    if not isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        return x.flatten(1) if isinstance(module, nn.Flatten) else module(x)
    state = {name: value.detach().double() for name, value in module.named_parameters()}
    made: Tensor = torch.func.functional_call(module, state, (x,))
    return made


# Making layers ------------------------------------------------------------------------------------


_TRANSPOSED = "kernel_size", "stride", "padding", "output_padding", "groups", "dilation"


def _remade(synapse: Synapse, weight: Tensor, bias: Tensor) -> nn.Module:
    """A synapse of the same geometry with another weight and bias, in its own dtype."""
    if isinstance(synapse, nn.Linear):
        return _linear(weight.to(synapse.weight.dtype), bias)
    if isinstance(synapse, nn.ConvTranspose2d):
        # Any: torch's stubs take tuples of length 2 only, and say less of what a layer has.
        kept: Any = {name: getattr(synapse, name) for name in _TRANSPOSED}
        made: Any = nn.ConvTranspose2d(
            synapse.in_channels,
            synapse.out_channels,
            **kept,
            device="meta",
        )
        made.weight = nn.Parameter(weight.to(synapse.weight.dtype))
        made.bias = nn.Parameter(bias.to(synapse.weight.dtype))
        return made
    padding = conv_padding(synapse)
    return _conv(
        synapse, weight.to(synapse.weight.dtype), bias, synapse.stride, padding, synapse.dilation
    )


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().to(weight.dtype))
    return made


def _conv(
    like: nn.Conv2d, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any
) -> nn.Conv2d:
    """A convolution of the channels and groups of another."""
    made = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        (weight.shape[2], weight.shape[3]),
        stride,
        padding,
        dilation,
        like.groups,
        bias=bias is not None,
        device="meta",
    )
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().to(weight.dtype))
    return made


def _spread(weight: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """Put ``dilation - 1`` zeros between the taps of a kernel ``[O, I, H, W]``."""
    return _with_taps(weight, dilation, (1, 1), (1, 1))


def _with_taps(
    weight: Tensor, steps: tuple[int, ...], taps: tuple[int, ...], between: tuple[int, ...]
) -> Tensor:
    """``V[m] = sum of W[i] where steps i + between j = m, j < taps``, of a ``[O, I, H, W]``."""
    sides = zip(weight.shape[2:], steps, taps, between, strict=True)
    height, width = ((size - 1) * s + (k - 1) * b + 1 for size, s, k, b in sides)
    made = weight.new_zeros(*weight.shape[:2], height, width)
    rows, columns = ((size - 1) * s + 1 for size, s in zip(weight.shape[2:], steps, strict=True))
    for i in range(taps[0]):
        for j in range(taps[1]):
            top, left = i * between[0], j * between[1]
            window = made[:, :, top : top + rows : steps[0], left : left + columns : steps[1]]
            window += weight
    return made


def _require_tiles(pool: SumPool2d) -> None:
    if not pool.tiles:
        raise ConversionError(
            "follows a pooling whose windows overlap or are padded, and which has no neuron; give "
            "the pooling its own neuron, or stride=kernel_size and padding=0"
        )


def _require_fit(pool: SumPool2d, shape: Shape) -> None:
    if shape is None:
        raise ConversionError(
            "is padded, after a pooling, so the shape of the pooling's input must be known; pass "
            "input_shape=(C, H, W)"
        )
    if any(size % k for size, k in zip(shape[1:], pool.kernel_size, strict=False)):
        raise ConversionError(
            f"is padded, after a pooling by {pool.kernel_size} that leaves rows or columns of its "
            f"input {shape} over; use padding=0 or give the pooling its own neuron"
        )


def refuse_ceil(pool: SumPool2d) -> None:
    if pool.ceil_mode:
        raise ConversionError("follows a pooling with ceil_mode=True; use ceil_mode=False")
