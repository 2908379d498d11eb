"""Finite impulse response filters: a fixed one, and a bank of learned ones."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ....errors import BridgeError
from .conv import conv

__all__ = ["FIR", "FIRBank"]


class FIR(torch.nn.Module):
    r""":func:`.conv` with a fixed ``filter``, a buffer ``[K]``.

    It is ``fir_response``, or :math:`h[k] = e^{-k / \tau}` with ``length`` K and ``time_constant``
    :math:`\tau` in steps. Source: ``lava.lib.dl.slayer.utils.filter.FIR``.
    """

    filter: Tensor

    def __init__(
        self,
        fir_response: Any = None,
        time_constant: float = 1,
        length: int = 20,
        sampling_time: float = 1,
    ) -> None:
        super().__init__()
        if fir_response is None:
            fir_response = np.exp(-np.arange(length) / time_constant)
        self.register_buffer("filter", torch.as_tensor(fir_response).to(torch.float32, copy=True))
        self.sampling_time = sampling_time

    def forward(self, input: Tensor) -> Tensor:
        """Filter ``[N, *, T]``."""
        return conv(input, self.filter, self.sampling_time)


class FIRBank(torch.nn.Conv3d):
    r"""F learned filters, each applied to every channel: ``[N, C, *, T]`` to ``[N, FC, *, T]``.

    .. math:: y[f C + c, t] = \tau \sum_{k=0}^{K-1} h_f[k]\; x[c, t - k]

    The times ``filter_length`` and ``sampling_time`` :math:`\tau` make K steps, at least 1 (else a
    BridgeError is raised); ``scale`` is a factor on the initial h.

    Source: ``lava.lib.dl.slayer.utils.filter.FIRBank``. (There a ``sampling_time`` other than 1
    pads wrongly, and mixes times and channels.)
    """

    def __init__(
        self, num_filter: int, filter_length: float, sampling_time: float = 1, scale: float = 1
    ) -> None:
        steps = int(filter_length / sampling_time)
        if steps < 1:
            raise BridgeError(f"FIRBank: filter_length {filter_length} is less than one step")
        super().__init__(1, num_filter, (1, 1, steps), bias=False)
        self.sampling_time = sampling_time
        self.weight.data *= scale

    def forward(self, input: Tensor) -> Tensor:
        """Filter ``[N, C, *, T]``; a BridgeError if there is no dimension of channels."""
        if input.dim() < 3:
            raise BridgeError(f"FIRBank: expected [N, C, *, T], found shape {tuple(input.shape)}")
        batch = input.reshape(input.shape[0], 1, 1, -1, input.shape[-1])
        filtered = F.conv3d(F.pad(batch, (self.filter_length - 1, 0)), self.weight)
        return filtered.reshape(input.shape[0], -1, *input.shape[2:]) * self.sampling_time

    num_filter = property(lambda self: self.out_channels, doc="The number F of filters.")
    filter_length = property(lambda self: self.kernel_size[2], doc="The number K of steps.")

    @property
    def impulse_response(self) -> np.ndarray:
        """The filters h, ``[F, K]``; ``weight`` holds them with the last step first."""
        return self.weight.flatten(1).detach().cpu().numpy()[:, ::-1]
