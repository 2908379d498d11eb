"""Convolution and correlation in time with one filter for all channels."""

from torch import Tensor

from ....ops.correlate import correlate

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
    """With ``zeros`` before and after."""
    if not input.is_floating_point():  # spikes held as integers
        input = input.to(kernel.dtype)
    return correlate(input, kernel.to(input.dtype), *zeros)
