"""Real synapses on ``[N, C, H, W, T]`` (Dense also ``[N, C, T]``).

Each is torch's three-dimensional convolution with a kernel of one step in time, so that weights
have five dimensions and the names of torch's layers. It is run on single steps: time and batch are
merged, and a step is a matrix product or a convolution in two dimensions. Source:
``lava.lib.dl.slayer.synapse.layer``.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import exporting, require
from ...errors import BridgeError
from ...layout import plain_channel

__all__ = ["Conv", "ConvTranspose", "Dense", "GenericLayer", "Pool", "Unpool"]

PreHook = Callable[..., Tensor] | None


def _window(kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    """A window in height and width as torch's arguments in height, width and time."""
    window = {}
    for name, value, in_time in (
        ("kernel_size", kernel_size, 1),
        ("stride", stride, 1),
        ("padding", padding, 0),
        ("dilation", dilation, 1),
    ):
        pair = (value, value) if isinstance(value, int) else tuple(value)
        if len(pair) != 2 or not all(isinstance(size, int) for size in pair):
            raise BridgeError(f"{name}: expected an int or a pair (height, width), found {value!r}")
        window[name] = (*pair, in_time)
    return window


class GenericLayer(torch.nn.Module):
    """What the synapses share: weight norm, the hook on the weight, the norm of the gradient.

    Attributes:
        weight_norm_enabled: Whether the weight is held as direction ``weight_v`` and magnitude
            ``weight_g``.
        complex: False: the weights are real.
    """

    weight_norm_enabled = False
    complex = False
    weight: Tensor
    # Applied to the weight before use, typically a quantiser.
    pre_hook_fx: PreHook = None

    def _set_up(self, weight_norm: bool, pre_hook_fx: PreHook, scale: float, fill: bool) -> None:
        """Finish a constructor: scale the drawn weight, or fill it with ``scale``, and so on."""
        if fill:
            filled = torch.full_like(self.weight, scale)
            self.weight = torch.nn.Parameter(filled, requires_grad=False)
        elif scale != 1:
            self.weight = torch.nn.Parameter(scale * self.weight.detach())
        self.pre_hook_fx = pre_hook_fx
        if weight_norm:
            self.enable_weight_norm()

    def enable_weight_norm(self) -> None:
        """Hold the weight as ``weight_g * weight_v / |weight_v|``, a magnitude for each output."""
        if self.weight_norm_enabled:
            return
        weight = self._parameters.pop("weight")
        assert weight is not None
        magnitude = torch.norm_except_dim(weight.detach(), 2, 0)
        grad = weight.requires_grad
        self.weight_g = torch.nn.Parameter(magnitude, requires_grad=grad)
        self.weight_v = torch.nn.Parameter(weight.detach().clone(), requires_grad=grad)
        self.weight_norm_enabled = True

    def disable_weight_norm(self) -> None:
        """Hold the weight as one parameter ``weight`` again."""
        if not self.weight_norm_enabled:
            return
        weight, grad = self.weight.detach(), self.weight_v.requires_grad
        del self.weight_g, self.weight_v
        self.weight_norm_enabled = False
        self.weight = torch.nn.Parameter(weight, requires_grad=grad)

    def __getattr__(self, name: str) -> Any:
        # With weight norm on, `weight` is no parameter but computed; unlike torch's own weight norm
        # this keeps no derived tensor on the module, so that it can be copied and compiled.
        if name == "weight" and self.__dict__.get("weight_norm_enabled"):
            return torch._weight_norm(self.weight_v, self.weight_g, 0)
        return super().__getattr__(name)

    @property
    def grad_norm(self) -> float:
        """Norm of the weight's gradient over its number of elements; 0 before a backward."""
        weight = self.weight_g if self.weight_norm_enabled else self.weight
        return 0 if weight.grad is None else torch.norm(weight.grad).item() / weight.numel()

    @property
    def shape(self) -> torch.Size:
        """Shape of the weight, five dimensions."""
        return self.weight.shape

    def parts(self, name: str) -> list[tuple[str, "GenericLayer"]]:
        """The real synapses that this one is made of, with their places under ``name``: itself."""
        return [(name, self)]

    def hooked_weight(self, mask: Tensor | None = None) -> Tensor:
        """The weight as it is used: times ``mask``, then through ``pre_hook_fx``."""
        weight = self.weight if mask is None else self.weight * mask
        return weight if self.pre_hook_fx is None else self.pre_hook_fx(weight)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape ``[C, *]`` of the dendritic input for spikes of shape ``[C, *]``.

        A BridgeError is raised if the synapse can't take spikes of that shape.
        """
        raise NotImplementedError

    def _each_step(self, input: Tensor, weight: Tensor) -> Tensor:
        """What :meth:`_weigh` makes of each step of ``[N, C, H, W, T]`` or ``[N, C, T]``.

        Steps that lie whole in memory, batch or time outermost, are not copied; the result has
        their order, so that a chain of layers moves no data. Others (time last) are copied once,
        to ``[N, T, (H, W,) C]``: measured, the fastest to copy to and to convolve.
        """
        outer = input.transpose(1, -1)  # [N, T, H, W, C]
        time_first = outer.stride(1) > outer.stride(0)
        if time_first:
            outer = outer.transpose(0, 1)
        # Channels are last where batch and time are merged and split, so that a copy, if there
        # must be one (of the gradient, too), is in this order; a view is as it was.
        frames = outer.flatten(0, 1).movedim(-1, 1)
        z = self._weigh(frames, weight.squeeze(-1))
        z = z.movedim(1, -1).unflatten(0, outer.shape[:2])
        return (z.transpose(0, 1) if time_first else z).transpose(1, -1)

    def _weigh(self, frames: Tensor, weight: Tensor) -> Tensor:
        """The convolution, or its transpose, of ``[*, C, H, W]``; Dense takes ``[*, C]`` too."""
        return self._convolve(frames, weight, self.groups)

    def _convolve(self, frames: Tensor, weight: Tensor, groups: int) -> Tensor:
        stride, padding, dilation = self.stride[:2], self.padding[:2], self.dilation[:2]
        frames = plain_channel(frames)
        if self.transposed:
            size = stride, padding, self.output_padding[:2], groups, dilation
            z = F.conv_transpose2d(frames, weight, None, *size)
        else:
            z = F.conv2d(frames, weight, None, stride, padding, dilation, groups)
        if exporting() and z.is_cuda:  # torch 2.11 traces another order than runs: views would fail
            z = z.clone(memory_format=torch.channels_last)
        return plain_channel(z)  # its gradient comes plain as well

    def _plane(self, input_shape: tuple[int, ...], height: int, width: int) -> tuple[int, int]:
        """Height and width after the convolution of a plane of this height and width."""
        sizes = []
        for i, size in enumerate((height, width)):
            stride, padding = self.stride[i], self.padding[i]
            reach = self.dilation[i] * (self.kernel_size[i] - 1) + 1
            if self.transposed:
                sizes.append((size - 1) * stride - 2 * padding + reach)
            else:
                sizes.append((size + 2 * padding - reach) // stride + 1)
        if min(sizes) < 1:
            raise BridgeError(
                f"{self._place}: a kernel of {self.kernel_size[:2]} leaves nothing of an input of "
                f"shape {tuple(input_shape)}; use a smaller kernel or more padding"
            )
        return sizes[0], sizes[1]

    @property
    def _place(self) -> str:
        return f"synapse.{type(self).__name__}"

    def _require_shape(self, input_shape: tuple[int, ...], channels: int) -> None:
        if len(input_shape) != 3 or input_shape[0] != channels:
            raise BridgeError(
                f"{self._place}: expected an input of shape ({channels}, H, W), found "
                f"{tuple(input_shape)}; check the layer before it"
            )


class Dense(GenericLayer, torch.nn.Conv3d):
    r"""All-to-all synapse: ``z[n, o, t] = sum_i W[o, i] x[n, i, t]``.

    Args:
        in_neurons: Number of inputs; or ``(W, H)`` or ``(W, H, C)``, then the input is ``[N, C, H,
            W, T]``.
        out_neurons: Number of outputs.
        weight_scale: Factor on the initial weights.
        weight_norm: Whether to start with weight norm.
        pre_hook_fx: Applied to the weight before use, typically a neuron's ``quantize_8bit``.

    The input is ``[N, C, T]`` or ``[N, C, H, W, T]``, the output of as many dimensions.
    """

    def __init__(
        self,
        in_neurons: int | tuple[int, ...],
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: PreHook = None,
    ) -> None:
        sizes = (in_neurons,) if isinstance(in_neurons, int) else tuple(in_neurons)
        if len(sizes) not in (1, 2, 3):
            raise BridgeError(
                "synapse.Dense: expected in_neurons as C, (W, H) or (W, H, C), found "
                f"{in_neurons!r}"
            )
        if not isinstance(out_neurons, int):
            raise BridgeError(
                f"synapse.Dense: expected out_neurons as an int, found {out_neurons!r}"
            )
        if len(sizes) == 1:
            channels, kernel = sizes[0], (1, 1, 1)
        else:
            channels, kernel = (*sizes, 1)[2], (sizes[1], sizes[0], 1)
        super().__init__(channels, out_neurons, kernel, bias=False)
        self._set_up(weight_norm, pre_hook_fx, weight_scale, fill=False)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        expected = (self.in_channels, *self.kernel_size[:2])
        if math.prod(expected[1:]) == 1 and tuple(input_shape) == expected[:1]:
            return (self.out_channels,)
        if tuple(input_shape) != expected:
            raise BridgeError(
                f"synapse.Dense: expected an input of {math.prod(expected)} neurons, found shape "
                f"{tuple(input_shape)}; check the layer before it (a Flatten may be missing)"
            )
        return (self.out_channels, 1, 1)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Dendritic input from spikes ``[N, C, T]`` or ``[N, C, H, W, T]``.

        ``mask`` ``[out, in, 1, 1, 1]``, if given, multiplies the weight.
        """
        is_flat = isinstance(input, Tensor) and input.dim() == 3 and self.kernel_size == (1, 1, 1)
        axes = "[N, C, T]" if is_flat else "[N, C, H, W, T]"
        require(self._place, input, axes, self.in_channels)
        return self._each_step(input, self.hooked_weight(mask))

    def _weigh(self, frames: Tensor, weight: Tensor) -> Tensor:
        if frames.dim() == 2:  # [*, C]
            return F.linear(frames, weight.flatten(1))
        if frames.shape[2:] != weight.shape[2:]:  # as Conv3d: the weight slides over a larger plane
            return self._convolve(frames, weight, 1)
        if frames.stride(1) == 1:  # the weight follows the order of the larger one, the frames
            frames, weight = frames.movedim(1, -1), weight.movedim(1, -1)
        return F.linear(frames.flatten(1), weight.flatten(1))[:, :, None, None]


class _Convolving(GenericLayer):
    """What the two convolutions share."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: PreHook = None,
    ) -> None:
        window = _window(kernel_size, stride, padding, dilation)
        super().__init__(in_features, out_features, **window, groups=groups, bias=False)
        self._set_up(weight_norm, pre_hook_fx, weight_scale, fill=False)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._require_shape(input_shape, self.in_channels)
        return (self.out_channels, *self._plane(input_shape, *input_shape[1:]))

    def forward(self, input: Tensor, output_size: None = None) -> Tensor:
        """Dendritic input from spikes ``[N, C, H, W, T]``; torch's ``output_size`` is not used."""
        require(self._place, input, "[N, C, H, W, T]", self.in_channels)
        return self._each_step(input, self.hooked_weight())


class Conv(_Convolving, torch.nn.Conv3d):
    """Convolution over height and width.

    Args:
        in_features, out_features: Channels in and out.
        kernel_size, stride, padding, dilation: As in :class:`torch.nn.Conv2d`, in (height, width)
            order.
        groups: Blocks of channels that see each other.
        weight_scale, weight_norm, pre_hook_fx: As in :class:`Dense`.
    """


class ConvTranspose(_Convolving, torch.nn.ConvTranspose3d):  # type: ignore[misc] # see forward
    """Transposed convolution over height and width; parameters as in :class:`Conv`."""


class _Pooling(GenericLayer):
    """What the two poolings share: one weight for all, each channel by itself."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: PreHook = None,
    ) -> None:
        step = kernel_size if stride is None else stride
        super().__init__(1, 1, **_window(kernel_size, step, padding, dilation), bias=False)
        self._set_up(weight_norm, pre_hook_fx, weight_scale, fill=True)

    def fill(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of zeros that are added below and at the right."""
        tiles = self.stride == self.kernel_size and self.dilation == (1, 1, 1)
        if self.transposed or not tiles or any(self.padding):
            return 0, 0
        return -height % self.kernel_size[0], -width % self.kernel_size[1]

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._require_shape(input_shape, input_shape[0])
        channels, height, width = input_shape
        rows, columns = self.fill(height, width)
        return (channels, *self._plane(input_shape, height + rows, width + columns))

    def forward(self, input: Tensor, output_size: None = None) -> Tensor:
        """Dendritic input from spikes ``[N, C, H, W, T]``; torch's ``output_size`` is not used."""
        require(self._place, input, "[N, C, H, W, T]")
        return self._each_step(input, self.hooked_weight())

    def _weigh(self, frames: Tensor, weight: Tensor) -> Tensor:
        channels, height, width = frames.shape[1:]
        rows, columns = self.fill(height, width)
        if rows or columns:
            frames = F.pad(frames, (0, columns, 0, rows))
        # One weight for all, each channel a group by itself: faster than channels as a batch.
        return self._convolve(frames, weight.expand(channels, -1, -1, -1), channels)


class Pool(_Pooling, torch.nn.Conv3d):
    """Sum pooling: each channel's window is summed with one weight, ``weight_scale``.

    Where ``stride`` is the kernel size (and there is no padding or dilation), height and width are
    first filled with zeros up to a multiple of it, so that a window cut off at the edge counts too:
    7 x 7 pooled by 2 is 4 x 4. Elsewhere the sizes are :class:`torch.nn.AvgPool2d`'s.

    ``weight_scale`` is the weight; ``stride`` is the kernel size by default; the other arguments
    are those of :class:`torch.nn.AvgPool2d` and of :class:`Dense`.

    (lava-dl joins channels and height before it pools: with padding, overlap or dilation its
    windows reach into the next channel. Here they never do.)
    """


class Unpool(_Pooling, torch.nn.ConvTranspose3d):  # type: ignore[misc] # see forward
    """The transpose of :class:`Pool`: each spike is copied over a window, with one weight.

    Parameters as in :class:`Pool`.
    """
