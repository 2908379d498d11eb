"""Normalisation of a neuron's dendritic input, of a form that the chip can hold."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...checks import kept_copy, require
from ...quantize import unquantized
from ..lazy import LazyChannels
from .bias import ChannelBias

__all__ = ["ChannelBias", "MeanOnlyBatchNorm", "WgtScaleBatchNorm"]


class MeanOnlyBatchNorm(LazyChannels):
    r"""Subtract each channel's mean; on the chip that is a bias of ``-mean``.

    .. math:: y = x - q(\mu)

    with the batch's mean in training, the running mean in evaluation.

    Args:
        num_features: Number of channels C. None: taken from the first input.
        momentum: Weight of the new batch in ``running_mean`` ``[C]`` (while ``update`` is True).
        pre_hook_fx: The quantiser q, called as ``q(x)`` and ``q(x, descale=True)``; a neuron's own.

    Source: ``lava.lib.dl.slayer.neuron.norm.MeanOnlyBatchNorm``.
    """

    lazy_channels = ("running_mean",)
    running_mean: Tensor

    def __init__(
        self,
        num_features: int | None = None,
        momentum: float = 0.1,
        pre_hook_fx: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.momentum = momentum
        self.pre_hook_fx = unquantized if pre_hook_fx is None else pre_hook_fx
        self.register_buffer("running_mean", torch.zeros(num_features or 1))
        self.update = True

    def reset_parameters(self) -> None:
        """Set the running statistics to zero."""
        self.running_mean.zero_()

    def _draw(self, channels: int) -> None:
        if self.running_mean.numel() == 1:
            self.running_mean = self.running_mean.expand(channels).clone()

    @property
    def bias(self) -> Tensor:
        """The chip's bias, ``-q(mean)`` as integers, ``[C]``."""
        return -self.pre_hook_fx(self.running_mean, descale=True)

    def forward(self, inp: Tensor) -> Tensor:
        """Normalise ``[N, C, *]``.

        A BridgeError is raised if the channels are not those that the norm has.
        """
        self._check_channels(inp)
        if self.training and self.update and inp.numel():
            mean = inp.mean(dim=[d for d in range(inp.dim()) if d != 1])
            self._follow("running_mean", mean)
        else:
            mean = self.running_mean
        return inp - self.pre_hook_fx(mean.reshape(-1, *[1] * (inp.dim() - 2)))

    def _follow(self, name: str, new: Tensor, count: float | None = None) -> None:
        """Move a running statistic towards its value in this batch, by n / (n + 1) if counted."""
        with torch.no_grad():
            moved = self.momentum * new.detach()
            if count is not None:
                moved = moved * count / (count + 1)  # in slayer's order: the same last bit
            followed = kept_copy((1 - self.momentum) * getattr(self, name) + moved)
            if followed is not None:
                setattr(self, name, followed)

    def _check_channels(self, inp: Tensor) -> None:
        require(type(self).__name__, inp, "[N, C, *]", self.num_features)
        if self.num_features is None:
            loaded = self.running_mean.numel()
            self.num_features = loaded if loaded > 1 else inp.shape[1]
            self._check_channels(inp)

    def extra_repr(self) -> str:
        return f"{self.num_features}, momentum={self.momentum}"


class WgtScaleBatchNorm(MeanOnlyBatchNorm):
    r"""Subtract each channel's mean and divide by a power of two near the standard deviation.

    .. math:: y = (x - q(\mu)) / 2^{e}, \qquad
              e = \mathrm{clamp}(\lceil \log_2 \sqrt{\sigma^2 + \epsilon} \rceil, -b, b)

    One variance for all channels, ``running_var`` ``[1]``: on the chip a shift of the layer's
    weights. ``weight_exp_bits`` is b; the other arguments are :class:`MeanOnlyBatchNorm`'s.

    Source: ``lava.lib.dl.slayer.neuron.norm.WgtScaleBatchNorm``.
    """

    def __init__(
        self,
        num_features: int | None = None,
        momentum: float = 0.1,
        weight_exp_bits: int = 3,
        eps: float = 1e-5,
        pre_hook_fx: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(num_features, momentum, pre_hook_fx)
        self.weight_exp_bits = weight_exp_bits
        self.eps = eps
        self.register_buffer("running_var", torch.zeros(1))

    def reset_parameters(self) -> None:
        """Set the running statistics to zero."""
        super().reset_parameters()
        self.running_var.zero_()

    def std(self, var: Tensor) -> Tensor:
        """The power of two that stands for the standard deviation of a variance."""
        exponent = torch.ceil(torch.log2(torch.sqrt(var + self.eps)))
        return torch.pow(2.0, exponent.clamp(-self.weight_exp_bits, self.weight_exp_bits))

    @property
    def weight_exp(self) -> Tensor:
        """The exponent before it is clamped, ``[1]``; what slayer writes into its files."""
        return torch.ceil(torch.log2(torch.sqrt(self.running_var + self.eps)))

    def forward(self, inp: Tensor) -> Tensor:
        """Normalise ``[N, C, *]``."""
        centred = super().forward(inp)
        if self.training and self.update and inp.numel():
            var = torch.var(inp, unbiased=False)
            self._follow("running_var", var, inp.numel() / inp.shape[1])
        else:
            var = self.running_var
        return centred / self.std(var)
