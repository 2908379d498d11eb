"""The synapses of an integer run: what the spikes of single steps add to the currents.

Everything is a whole number held in a float: sums are computed by torch's matrix products and
convolutions, in float32 where no partial sum can reach 2^24 and torch only multiplies and adds
(:func:`_float32_is_plain`), else in float64. That is exact.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import no_samples, plain_channel
from .copies import Copies
from .weights import slices

__all__ = ["PORT_BITS", "Synapse", "conv", "conv_transpose", "dense", "pool", "unpool", "wrapped"]

# Below these every whole number is a float's.
EXACT_FLOAT32 = 1 << 24
_HAS_ONEDNN = torch.backends.mkldnn.is_available()
# The whole numbers up to here are bfloat16's.
BFLOAT16 = 1 << 8
# Below this an activation shifted left by six bits, added to a current of 24 bits, is exact in
# float32 too: what the neurons need to run in float32.
NEURON_FLOAT32 = 1 << 17
# Lava's convolution wraps its output around to 24 bits, its ports to 32.
CONV_BITS, PORT_BITS = 24, 32


class Synapse:
    """A linear map of integer spikes.

    Args:
        weight: Whole numbers, of any shape that ``apply`` takes.
        apply: ``(spikes [M, *], weight) -> [M, *]``.
        fan_in: The largest sum of magnitudes of weights that one output has.
        bits: What the output wraps around to.
        exponent: The output is shifted right by so many bits, rounding down.
    """

    def __init__(
        self,
        weight: np.ndarray,
        apply: Callable[[Tensor, Tensor], Tensor],
        fan_in: int,
        bits: int = PORT_BITS,
        exponent: int = 0,
    ) -> None:
        # Doubles are made when they are needed: of large nets they seldom are.
        dtype = np.float32 if fan_in < EXACT_FLOAT32 else np.float64
        self._weight = torch.from_numpy(np.ascontiguousarray(weight, dtype=dtype))
        self._copies = Copies()
        self._apply = apply
        self._fan_in = fan_in
        self._largest = max(-int(weight.min(initial=0)), int(weight.max(initial=0)))
        self._bits = bits
        self._exponent = exponent

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape ``[C, *]`` of the activations for spikes of shape ``[C, *]``; nothing is computed.

        What torch raises (a RuntimeError) says why there is none.
        """
        spikes = no_samples(input_shape, self._weight)
        return tuple(self._apply(spikes, self._weight).shape[1:])

    def __call__(self, spikes: Tensor, largest: int) -> Tensor:
        """Activations ``[M, *]`` of spikes ``[M, *]`` whose magnitude is at most ``largest``."""
        bound, device = max(self._fan_in, 1) * max(largest, 1), spikes.device
        narrow = largest <= BFLOAT16 and self._largest <= BFLOAT16
        if bound < EXACT_FLOAT32 and _float32_is_plain(device, narrow):
            spikes, dtype = spikes.float(), torch.float32
        else:
            spikes, dtype = spikes.double(), torch.float64
        value = self._apply(spikes, self._copies.on(device, self._weight, dtype))
        if device.type != "cpu":
            # cuDNN has an FFT for doubles too, for windows of one row: next to whole numbers.
            value = value.round_()
        if self._exponent:
            value = torch.floor(value / (1 << self._exponent))
        if bound >= 1 << (self._bits - 1):
            # In float64: half of the range is added, which may leave what float32 holds.
            value, bound = wrapped(value.double(), self._bits), 1 << (self._bits - 1)
        return value.float() if bound < NEURON_FLOAT32 else value.double()


def _float32_is_plain(device: torch.device, narrow: bool) -> bool:
    """Whether float32 products and convolutions only multiply and add float32 numbers there.

    ``narrow``: bfloat16 holds the numbers themselves.

    On a GPU they do not: torch rounds what comes in to TF32's 11 bits, in convolutions by default
    and in products if the user allows it, and cuDNN may take Winograd's or Fourier's way, which
    has fractions. Of float64 nothing is rounded, and there is no Winograd. (The user's settings
    could be changed for a while instead, but they are those of all threads.) On a CPU oneDNN may be
    told to round to bfloat16, and where it is off, NNPACK takes Winograd's way.
    """
    if device.type != "cpu" or not (_HAS_ONEDNN and torch._C._get_mkldnn_enabled()):
        return False
    if narrow:  # most are, and to ask takes as long as a small product
        return True
    onednn: Any = torch.backends.mkldnn
    if not hasattr(onednn, "matmul"):  # before torch 2.9
        return torch.get_float32_matmul_precision() != "medium"
    plain = "none", "ieee"
    return onednn.matmul.fp32_precision in plain and onednn.conv.fp32_precision in plain


def wrapped(x: Tensor, bits: int) -> Tensor:
    """Whole numbers as a signed register of so many bits holds them, wrapped around."""
    half = 1 << (bits - 1)
    return torch.remainder(x + half, 2 * half) - half


def dense(weight: np.ndarray, exponent: int = 0) -> Synapse:
    """All to all: ``[M, *]`` of I neurons to ``[M, O]`` by a weight ``[O, I]``."""

    return Synapse(weight, _matrix_product, _largest_sum(weight, 1), exponent=exponent)


def conv(
    weight: np.ndarray,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Synapse:
    """``[M, C, H, W]`` by a weight ``[O, C / groups, height, width]``, as torch convolves."""

    window = partial(_convolved, window=(stride, padding, dilation), groups=groups)
    return Synapse(weight, window, _largest_sum(weight, 1), CONV_BITS)


def conv_transpose(
    weight: np.ndarray,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Synapse:
    """``[M, C, H, W]`` by a weight ``[C, O / groups, height, width]``, transposed."""

    window = partial(_transposed, window=(stride, padding, dilation), groups=groups)
    each_group = weight.reshape(groups, -1, *weight.shape[1:])
    fan_in = int(np.abs(each_group).sum(axis=(1, 3, 4)).max(initial=0))
    return Synapse(weight, window, fan_in, CONV_BITS)


def pool(
    weight: np.ndarray,
    channels: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    fill: tuple[int, int],
) -> Synapse:
    """Each channel by itself with one weight ``[1, 1, height, width]``.

    ``fill`` rows and columns of zeros are added below and at the right.
    """
    each = np.broadcast_to(weight, (channels, *weight.shape[1:]))

    window = partial(_convolved, window=(stride, padding, dilation), groups=channels, fill=fill)
    return Synapse(each, window, _largest_sum(weight, 1), CONV_BITS)


def unpool(
    weight: np.ndarray,
    channels: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Synapse:
    """The transpose of :func:`pool`."""
    each = np.broadcast_to(weight, (channels, *weight.shape[1:]))
    return conv_transpose(each, stride, padding, dilation, channels)


Pair = tuple[int, int]


def _matrix_product(spikes: Tensor, weight: Tensor) -> Tensor:
    return F.linear(spikes.flatten(1), weight)


def _convolved(
    spikes: Tensor,
    weight: Tensor,
    window: tuple[Pair, Pair, Pair],
    groups: int,
    fill: Pair = (0, 0),
) -> Tensor:
    stride, padding, dilation = window
    if any(fill):
        spikes = F.pad(spikes, (0, fill[1], 0, fill[0]))
    return F.conv2d(plain_channel(spikes), weight, None, stride, padding, dilation, groups)


def _transposed(
    spikes: Tensor, weight: Tensor, window: tuple[Pair, Pair, Pair], groups: int
) -> Tensor:
    stride, padding, dilation = window
    frames = plain_channel(spikes)
    return F.conv_transpose2d(frames, weight, None, stride, padding, 0, groups, dilation)


def _largest_sum(weight: np.ndarray, first: int) -> int:
    """The largest sum of magnitudes over the dimensions from ``first`` on."""
    flat = weight.reshape(math.prod(weight.shape[:first]), -1)
    return max((int(np.abs(rows).sum(axis=1).max()) for rows in slices(flat)), default=0)
