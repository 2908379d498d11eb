"""The arithmetic of the convolution, and the same as a sparse matrix.

Images are ``[W, H, C]`` and pairs are in the order (W, H), unless a :class:`TensorOrder` says
otherwise.
"""

from collections.abc import Sequence
from enum import IntEnum, unique
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from ...checks import as_array, described, integer
from ...errors import BridgeError

__all__ = ["TORCH_IS_AVAILABLE", "TensorOrder", "check_channels", "conv", "conv_scipy"]
__all__ += ["conv_to_sparse", "make_tuple", "output_shape", "signed_clamp"]

Pair = int | Sequence[int] | np.ndarray
Clamped = TypeVar("Clamped", int, float, np.ndarray)

# Lava's tests ask for it, and then compare with torch's convolution.
TORCH_IS_AVAILABLE = True

# Sums below these are exact integers in the dtype, in whatever order they are added up. (A float64
# holds twice as much, but the bound itself is rounded.)
EXACT_BELOW: dict[type[np.floating], int] = {np.float32: 2**24, np.float64: 2**52}


@unique
class TensorOrder(IntEnum):
    """The order of a kernel's axes: N output channels, C input channels, height and width.

    NCHW is PyTorch's, HWCN TensorFlow's, NWHC Lava's.
    """

    NCHW = 1
    CHWN = 2
    HWCN = 3
    NWHC = 4


# The order of an image's axes.
IMAGE_AXES = {
    TensorOrder.NCHW: "CHW",
    TensorOrder.CHWN: "CHW",
    TensorOrder.HWCN: "HWC",
    TensorOrder.NWHC: "WHC",
}


class _DivisionError(BridgeError, AssertionError):
    """Channels that groups do not divide: Lava documents an AssertionError."""


def make_tuple(value: Pair) -> tuple[int, int]:
    """A pair from one integer, or from a sequence of one or two; else a BridgeError is raised."""
    numbers = np.ravel(np.asarray(value, dtype=object)).tolist()
    if len(numbers) not in (1, 2):
        raise BridgeError(f"make_tuple: {numbers} has {len(numbers)} numbers; give one or two")
    return integer("make_tuple", numbers[0]), integer("make_tuple", numbers[-1])


def signed_clamp(x: Clamped, bits: int) -> Clamped:
    r"""Numbers wrapped to signed ``bits``, as a register of so many bits holds them.

    .. math:: (x + 2^{b-1}) \bmod 2^b - 2^{b-1}

    Args:
        x: A number or an array; the result has its type and dtype. Nothing overflows or is rounded
            on the way; integers whose dtype has no more than ``bits`` bits are what they were.
        bits: b, an integer from 1 on (else a BridgeError is raised).
    """
    # As NumPy's integer it could overflow in the powers, and widen what it meets.
    bits = integer("signed_clamp", bits)
    if isinstance(x, torch.Tensor) or np.asarray(x).dtype.kind not in "biufO":
        raise BridgeError(f"signed_clamp: found {described(x)}; give real numbers of NumPy")
    if bits < 1:
        raise BridgeError(f"signed_clamp: a number of {bits} bits can't be; give 1 or more")
    base, half = 1 << bits, 1 << (bits - 1)
    dtype = getattr(x, "dtype", np.dtype(object if isinstance(x, int) else float))
    if dtype.kind in "iu" and 8 * dtype.itemsize <= bits:
        return x
    if dtype.kind in "iuO":
        return ((x & (base - 1)) ^ half) - half  # type: ignore[operator] # integers, by their kind
    # NumPy 1 would take the wider of the types of x and an int.
    real: Any = np.result_type(dtype, np.float32).type
    if bits >= np.finfo(real).maxexp:  # beyond what it holds
        return x
    width, middle = real(base), real(half)
    rest = np.fmod(x, width)  # exact, as the differences are; x + middle would be rounded
    above, below = rest >= middle, rest < -middle
    wrapped = np.where(above, rest - width, np.where(below, rest + width, rest))
    result: Any = wrapped.astype(dtype, copy=False)[()]
    return float(result) if type(x) is float else result


def output_shape(
    input_shape: Sequence[int],
    out_channels: int,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> tuple[int, int, int]:
    r"""The shape ``(W', H', C')`` of a convolution's output, for an input ``(W, H, C)``.

    .. math:: W' = \lfloor (W + 2p - d(k - 1) - 1) / s \rfloor + 1

    for the kernel size k, stride s, padding p and dilation d of the axis.

    Raises:
        BridgeError: If W' or H' is less than 1, for a stride or dilation below 1 or a negative
            padding, and for what is no integer.
    """
    pairs = [make_tuple(pair) for pair in (kernel_size, stride, padding, dilation)]
    if len(input_shape) < 2:
        raise BridgeError(f"output_shape: input_shape is {tuple(input_shape)}; give (W, H, C)")
    image = [integer("output_shape", size) for size in input_shape[:2]]
    sizes = []
    for axis, size, k, s, p, d in zip("xy", image, *pairs, strict=True):
        if min(k, s, d) < 1 or p < 0:
            raise BridgeError(
                f"output_shape: kernel {k}, stride {s}, padding {p}, dilation {d} in {axis}; give "
                "a padding from 0 and the others from 1 on"
            )
        found = (size + 2 * p - d * (k - 1) - 1) // s + 1
        if found < 1:
            raise BridgeError(
                f"output_shape: the output has {found} places in {axis}, for an input of {size}, "
                f"kernel {k}, stride {s}, padding {p}, dilation {d}; give a larger input or padding"
            )
        sizes.append(found)
    return sizes[0], sizes[1], integer("output_shape", out_channels)


def check_channels(place: str, weight: Sequence[int], in_channels: int, groups: int) -> None:
    """Require that a weight ``[C', kW, kH, C / groups]`` takes so many channels.

    A BridgeError is raised at ``place``, with what was found and what to do.
    """
    shape = tuple(weight)
    if len(shape) != 4 or not shape[0]:
        raise BridgeError(f"{place}: weight has the shape {shape}; give [C', kW, kH, C / groups]")
    if groups < 1 or in_channels % groups or shape[0] % groups:
        raise BridgeError(
            f"{place}: {groups} groups do not divide {in_channels} input and {shape[0]} output "
            "channels; give groups that do"
        )
    if shape[3] * groups != in_channels:
        raise BridgeError(
            f"{place}: weight {shape} in {groups} groups takes {shape[3] * groups} channels, the "
            f"input has {in_channels}; give [C', kW, kH, C / groups]"
        )


def _array(place: str, value: Any) -> np.ndarray:
    try:
        return as_array(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor with a gradient, say
        raise BridgeError(f"{place}: is no array ({error}); give one") from error


class _Window:
    """The checked arguments of a convolution."""

    def __init__(
        self,
        place: str,
        input: np.ndarray,
        weight: np.ndarray,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> None:
        self.groups = integer(place, groups)
        for name, array in ("input", input), ("weight", weight):
            if array.dtype.kind not in "biufO":
                raise BridgeError(
                    f"{place}: {name} has the dtype {array.dtype}; give integers or real floats"
                )
        if input.ndim != 3:
            raise BridgeError(f"{place}: input has the shape {input.shape}; give [W, H, C]")
        check_channels(place, weight.shape, input.shape[2], self.groups)
        self.kernel = weight.shape[1:3]
        if make_tuple(kernel_size) != self.kernel:
            raise BridgeError(
                f"{place}: kernel_size is {make_tuple(kernel_size)}, but the weight's "
                f"{self.kernel}; give that"
            )
        self.output = output_shape(
            input.shape, weight.shape[0], self.kernel, stride, padding, dilation
        )
        self.stride, self.padding, self.dilation = map(make_tuple, (stride, padding, dilation))

    def padded(self, input: np.ndarray) -> np.ndarray:
        """The input with its padding, zeros."""
        x, y = self.padding
        return np.pad(input, ((x, x), (y, y), (0, 0)))


def conv(
    input: np.ndarray,
    weight: np.ndarray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    r"""The convolution of an image ``[W, H, C]``, in the dtype of the weight: ``[W', H', C']``.

    .. math:: y[i, j, n] = \sum_{a, b, c} w[n, k_x - 1 - a, k_y - 1 - b, c] \,
        x[s_x i + d_x a - p_x, s_y j + d_y b - p_y, c]

    over the channels c of n's group; x is 0 outside the image.

    Integers (and booleans) give the exact sum, modulo :math:`2^b` if the b bits of the weight's
    dtype can't hold it. Floats are summed in float64, in another order than
    :func:`conv_scipy`'s: there the last bits can differ, but for numbers whose sums are exact.

    Args:
        input: ``[W, H, C]``.
        weight: ``[C', kW, kH, C / groups]``.
        kernel_size: The weight's ``(kW, kH)``.
        stride, padding, dilation: One number, or two for W and H.
        groups: Divides C and C'.

    Raises:
        BridgeError: For shapes that do not fit together.

    Source: ``lava.proc.conv.utils.conv``. (There sums of integers above :math:`2^{31}` are in int32
    whatever the machine makes of them, mostly :math:`-2^{31}`.)
    """
    input, weight = _array("conv", input), _array("conv", weight)
    window = _Window("conv", input, weight, kernel_size, stride, padding, dilation, groups)
    if not input.size:  # torch takes no image of no width
        return np.zeros(window.output, weight.dtype)
    integers = input.dtype.kind in "biu" and weight.dtype.kind in "biu"
    dtype = _exact_dtype(input, weight) if integers else np.float64
    if dtype is None:
        return _conv_modular(input, weight, window).astype(weight.dtype)
    # Torch correlates, with the kernel turned round; its first axis of space is W here.
    turned = weight[:, ::-1, ::-1].transpose(0, 3, 1, 2)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        sums = F.conv2d(
            torch.from_numpy(input.transpose(2, 0, 1)[None].astype(dtype)),
            torch.from_numpy(turned.astype(dtype, order="C")),
            None,
            window.stride,
            window.padding,
            window.dilation,
            window.groups,
        )
    output = sums[0].permute(1, 2, 0).numpy()
    # From one integer to another they wrap; from a float they would be undefined.
    return (output.astype(np.int64) if integers else output).astype(weight.dtype)


def _exact_dtype(input: np.ndarray, weight: np.ndarray) -> type[np.floating] | None:
    """The smaller float that holds every sum and part of a sum; None if there is none."""
    largest = max(abs(int(input.max(initial=0))), abs(int(input.min(initial=0))))
    bound = largest * float(np.abs(weight.astype(np.float64)).sum(axis=(1, 2, 3)).max())
    for dtype, limit in EXACT_BELOW.items():
        if bound < limit and (dtype != np.float32 or _float32_is_whole()):
            return dtype
    return None


def _float32_is_whole() -> bool:
    """Whether torch multiplies float32 with all its bits: it may be told to use fewer."""
    try:
        precisions = [torch.get_float32_matmul_precision()]
    except RuntimeError:  # torch does not say, once it was told in the terms of a backend
        return False
    backend = getattr(torch.backends.mkldnn, "conv", None)  # from torch 2.9 on
    precisions.append(getattr(backend, "fp32_precision", "none"))
    return precisions[0] == "highest" and precisions[1] in ("none", "ieee")


def _conv_modular(input: np.ndarray, weight: np.ndarray, window: _Window) -> np.ndarray:
    """The convolution of integers of any size, modulo 2**64."""
    x = window.padded(input.astype(np.int64))
    w = weight.astype(np.int64)[:, ::-1, ::-1]
    groups, (width, height, channels) = window.groups, window.output
    w = w.reshape(groups, channels // groups, *w.shape[1:])
    (sx, sy), (dx, dy) = window.stride, window.dilation
    output = np.zeros((width, height, groups, channels // groups), np.int64)
    for a, b in np.ndindex(*window.kernel):
        part = x[a * dx :, b * dy :][: (width - 1) * sx + 1 : sx, : (height - 1) * sy + 1 : sy]
        part = part.reshape(width, height, groups, -1)
        output += np.einsum("xygc,gnc->xygn", part, w[:, :, a, b])
    return output.reshape(window.output)


def conv_scipy(
    input: np.ndarray,
    weight: np.ndarray,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """As :func:`conv`, by ``scipy.signal.convolve2d`` of each pair of channels, in float64.

    Raises:
        BridgeError: For shapes that do not fit together, or if SciPy is not installed.

    Source: ``lava.proc.conv.utils.conv_scipy``, whose sums these are to the last bit.
    """
    try:
        from scipy.signal import convolve2d
    except ImportError as error:
        raise BridgeError(
            f"conv_scipy: SciPy can't be imported ({error}); install it, or use conv"
        ) from error
    input, weight = _array("conv_scipy", input), _array("conv_scipy", weight)
    window = _Window("conv_scipy", input, weight, kernel_size, stride, padding, dilation, groups)
    x = window.padded(input)
    channels, *kernel, in_group = weight.shape
    (sx, sy), (dx, dy) = window.stride, window.dilation
    spread = np.zeros((channels, dx * (kernel[0] - 1) + 1, dy * (kernel[1] - 1) + 1, in_group))
    spread[:, ::dx, ::dy] = weight
    output = np.zeros(window.output)
    for n in range(channels):
        first = n // (channels // window.groups) * in_group
        for c in range(in_group):
            full = convolve2d(x[:, :, first + c], spread[n, :, :, c], mode="valid")
            output[:, :, n] += full[::sx, ::sy]
    return output


def conv_to_sparse(
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    kernel: np.ndarray,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    group: int,
    order: TensorOrder = TensorOrder.NWHC,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The convolution as a sparse matrix from the flat input to the flat output.

    ==== ========== ===============================================
    ..   images     operation
    ==== ========== ===============================================
    NWHC ``W H C``  Lava's: convolution, as :func:`conv`
    NCHW ``C H W``  PyTorch's: correlation
    HWCN ``H W C``  TensorFlow's: correlation
    CHWN ``C H W``  correlation
    ==== ========== ===============================================

    Every weight that meets the image is an entry, zeros too. The entries are ordered by group,
    output place (y, then x), kernel place (y, then x, from the image's side), output channel and
    input channel.

    Args:
        input_shape, output_shape: Of the images, in the order of the table.
        kernel: In the order that ``order`` names; C is here the number of channels of a group.
        stride, padding, dilation: One number, or two in the order of the images' axes.
        group: Divides the channels of the input and of the output.
        order: A :class:`TensorOrder`.

    Returns:
        Row (output), column (input) and weight of each entry: int64, int64, dtype of the kernel.

    Raises:
        BridgeError: For an unknown order, or shapes that do not fit together. One that is an
            AssertionError too if ``group`` does not divide the channels.

    Source: ``lava.proc.conv.utils.conv_to_sparse``. (There NCHW turns the kernel round in the wrong
    axes, HWCN numbers the output by its height instead of its channels, and CHWN takes the kernel's
    axes for NWHC: each is wrong or fails for kernels that are not of one size throughout.)
    """
    try:
        order = TensorOrder(order)
    except ValueError:
        raise BridgeError(
            f"conv_to_sparse: {order!r} is no order of a kernel; give a TensorOrder"
        ) from None
    source = _Image(input_shape, order)
    target = _Image(output_shape, order)
    strides, pads, steps = (source.by_axis(pair) for pair in (stride, padding, dilation))
    kernel = _array("conv_to_sparse", kernel)
    if kernel.ndim != 4:
        raise BridgeError(f"conv_to_sparse: kernel has the shape {kernel.shape}; give {order.name}")
    correlated = kernel.transpose([order.name.index(axis) for axis in "HWNC"])
    if order == TensorOrder.NWHC:
        correlated = correlated[::-1, ::-1]
    height, width, out_channels, in_group = correlated.shape
    kernel_size = source.pair({"H": height, "W": width})
    group = integer("conv_to_sparse", group)
    _check_sparse(source, target, group, out_channels, in_group)
    expected = _places(source, kernel_size, stride, padding, dilation)
    if expected != target.pair(target.size):
        raise BridgeError(
            f"conv_to_sparse: output_shape is {tuple(output_shape)}, but the output has {expected} "
            "places; give output_shape(...)"
        )

    # Where each kernel place lies in the image for each output place, along H and along W.
    row, column = (
        np.arange(target.size[axis])[:, None] * strides[axis]
        + np.arange(places) * steps[axis]
        - pads[axis]
        for axis, places in (("H", height), ("W", width))
    )
    inside = [(at >= 0) & (at < source.size[a]) for at, a in ((row, "H"), (column, "W"))]
    y, x, b, a = np.nonzero(inside[0][:, None, :, None] & inside[1][None, :, None, :])
    sources = row[y, b] * source.step["H"] + column[x, a] * source.step["W"]
    targets = y * target.step["H"] + x * target.step["W"]
    weights = correlated.reshape(height * width, group, -1)
    kernel_place = b * width + a

    # Every such place with all pairs of channels of a group.
    out_group = out_channels // group
    shape = (group, len(y), out_group * in_group)
    rows, columns = np.empty(shape, np.int64), np.empty(shape, np.int64)
    values = np.empty(shape, kernel.dtype)
    for g in range(group):
        n = (g * out_group + np.arange(out_group)) * target.step["C"]
        c = (g * in_group + np.arange(in_group)) * source.step["C"]
        np.add(targets[:, None], np.repeat(n, in_group), out=rows[g])
        np.add(sources[:, None], np.tile(c, out_group), out=columns[g])
        np.take(weights[:, g], kernel_place, axis=0, out=values[g], mode="clip")
    return rows.ravel(), columns.ravel(), values.ravel()


class _Image:
    """An image's sizes by axis, and how far apart neighbours lie when it is flat."""

    def __init__(self, shape: Sequence[int], order: TensorOrder) -> None:
        self.axes = IMAGE_AXES[order]
        if len(shape) != 3:
            raise BridgeError(
                f"conv_to_sparse: an image has the shape {tuple(shape)}; give {self.axes}"
            )
        sizes = [int(size) for size in shape]
        self.size = dict(zip(self.axes, sizes, strict=True))
        self.step = dict(zip(self.axes, (sizes[1] * sizes[2], sizes[2], 1), strict=True))

    def by_axis(self, pair: Pair) -> dict[str, int]:
        """A pair in the order of the image's axes, by axis."""
        return dict(zip(self.axes.replace("C", ""), make_tuple(pair), strict=True))

    def pair(self, by_axis: dict[str, int]) -> tuple[int, int]:
        """The two numbers of space, in the order of the image's axes."""
        first, second = (by_axis[axis] for axis in self.axes if axis != "C")
        return first, second


def _places(
    image: _Image, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[int, int]:
    """The sizes of the output, in the order of the image's axes."""
    found = output_shape(image.pair(image.size), 1, kernel_size, stride, padding, dilation)
    return found[:2]


def _check_sparse(
    source: _Image, target: _Image, group: int, out_channels: int, in_group: int
) -> None:
    """Require that the channels of images, kernel and groups fit together."""
    found = f"{source.size['C']} input and {target.size['C']} output channels"
    if group < 1 or source.size["C"] % group or target.size["C"] % group:
        raise _DivisionError(f"conv_to_sparse: {group} groups do not divide {found}; give others")
    if (out_channels, in_group * group) != (target.size["C"], source.size["C"]):
        raise BridgeError(
            f"conv_to_sparse: the kernel in {group} groups is for {in_group * group} input and "
            f"{out_channels} output channels, the images have {found}; give N = output channels "
            "and C = input channels / group"
        )
