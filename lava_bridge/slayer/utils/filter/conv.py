"""Convolution and correlation in time with one filter for all channels."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["conv", "corr"]


def conv(input: Tensor, filter: Tensor, sampling_time: float = 1) -> Tensor:
    r"""Convolve ``[N, *, T]`` or ``[T]`` with a causal filter h ``[K]``; both get a gradient.

    .. math:: y[t] = \tau \sum_{k=0}^{K-1} h[k]\; x[t - k]

    Source: ``lava.lib.dl.slayer.utils.filter.conv``. (There the filter's gradient is missing.)
    """
    reach = filter.numel() - 1
    return _correlated(input, filter.flatten().flip(-1), (reach, 0)) * sampling_time


def corr(input: Tensor, filter: Tensor, sampling_time: float = 1) -> Tensor:
    r"""Correlate in the same way: :math:`y[t] = \tau \sum_k h[k]\; x[t + k]`.

    Source: ``lava.lib.dl.slayer.utils.filter.corr``.
    """
    return _correlated(input, filter, (0, filter.numel() - 1)) * sampling_time


def _correlated(input: Tensor, kernel: Tensor, zeros: tuple[int, int]) -> Tensor:
    """With ``zeros`` before and after. Slayer's own operation: the same to the last bit."""
    if not input.is_floating_point():  # spikes held as integers
        input = input.to(kernel.dtype)
    batch = input.shape[0] if input.dim() > 1 else 1
    padded = F.pad(input.reshape(batch, 1, 1, -1, input.shape[-1]), zeros)
    return F.conv3d(padded, kernel.to(input.dtype).reshape(1, 1, 1, 1, -1)).reshape(input.shape)
