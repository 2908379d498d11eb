"""The bias of a layer's neurons."""

import torch
from torch import Tensor

from ...checks import has_hooks, require, set_data
from ...quantize import quantize_bias
from ..lazy import LazyChannels

__all__ = ["ChannelBias"]


class ChannelBias(LazyChannels):
    r"""Add a learnable bias to each channel: the chip's bias mantissa.

    .. math:: y = x + \mathrm{clamp}(\mathrm{round}(s\,b),\; -4096,\; 4095) / s

    It stands where a norm does, as ``neuron.norm``: after the current's leak, so that it reaches
    the voltage anew in every step, as on the chip. Where the current decay is 1 that is the bias of
    the layer in front. The gradient passes straight through the rounding.

    Exact where the scale is a power of two, as the weights are.

    Args:
        num_features: Number of channels C. None: taken from the first input.
        scale: What a weight of 1 is on the chip (s); a neuron that is given this class as its
            ``norm`` sets its own.

    Attributes:
        value: The bias before it is rounded, ``[C]``.

    Source: this library's own; ``bias_mant`` of ``lava.proc.lif`` is what the chip makes of it.
    """

    lazy_channels = ("value",)
    # It adds and does nothing else; a file says so.
    is_bias = True

    def __init__(self, num_features: int | None = None, scale: int = 1 << 6) -> None:
        super().__init__()
        self.num_features = num_features
        self.scale = scale
        self.value = torch.nn.Parameter(torch.zeros(num_features or 1))

    def reset_parameters(self) -> None:
        """Set the bias to zero."""
        torch.nn.init.zeros_(self.value)

    def _draw(self, channels: int) -> None:
        if self.value.numel() == 1:
            set_data(self.value, self.value.data.expand(channels).clone())

    @property
    def bias(self) -> Tensor:
        """The chip's bias as integers, ``[C]``."""
        return quantize_bias(self.value, self.scale, descale=True)

    @property
    def is_plain(self) -> bool:
        """Whether a call does no more than add :meth:`of`: nobody has hooked on to it."""
        return type(self) is ChannelBias and not has_hooks(self)

    def of(self, inp: Tensor) -> Tensor:
        """The rounded bias ``[C, 1, ...]``, to be added to ``[N, C, *]``.

        A BridgeError is raised if the channels are not those that the bias has.
        """
        if self.num_features is None and self.value.numel() > 1:
            self.num_features = self.value.numel()
        require(type(self).__name__, inp, "[N, C, *]", self.num_features)
        if self.num_features is None:
            self.num_features = inp.shape[1]
            self.draw(inp.shape[1])
        bias = quantize_bias(self.value, self.scale)
        return bias.reshape(-1, *[1] * (inp.dim() - 2))

    def forward(self, inp: Tensor) -> Tensor:
        """Add the bias to ``[N, C, *]``; half precision becomes the bias' float32."""
        return inp + self.of(inp)

    def extra_repr(self) -> str:
        return f"{self.num_features}, scale={self.scale}"
