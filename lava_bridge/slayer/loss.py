"""Losses on spikes ``[N, C, *, T]``, summed or meaned by ``reduction``; each place is a class k.

With a ``moving_window`` of steps, rates are :class:`.MovingWindow`'s and labels may be of each
step, else :class:`.Rate`'s and of each sample. Source: ``lava.lib.dl.slayer.loss``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import described
from ..errors import BridgeError
from .classifier import MovingWindow, Rate
from .utils.filter import FIR
from .utils.time import replicate

__all__ = ["SparsityEnforcer", "SpikeMax", "SpikeMoid", "SpikeRate", "SpikeTime"]


class SpikeTime(torch.nn.Module):
    r"""The van Rossum distance, the squared error of low-pass filtered spikes.

    .. math:: L = \sum_t ((h * (s - \hat s))[t])^2, \qquad h[k] = e^{-k / \tau}

    ``time_constant`` is :math:`\tau` and ``length`` that of h, in steps; for a ``filter_order``
    of n the filter is h convolved n times with itself.
    """

    def __init__(
        self,
        time_constant: float = 5,
        length: int = 100,
        filter_order: int = 1,
        reduction: str = "sum",
    ) -> None:
        super().__init__()
        self.filter = FIR(time_constant=time_constant, length=length)
        response = self.filter.filter
        for _ in range(filter_order - 1):
            response = self.filter(response.reshape(1, -1))
        self.filter.filter = response
        self.reduction = reduction

    def forward(self, input: Tensor, desired: Tensor) -> Tensor:
        """The loss of ``[N, *, T]`` for as many desired spikes, else a BridgeError."""
        if input.shape[-1:] != desired.shape[-1:] or input.numel() != desired.numel():
            raise BridgeError(
                f"loss.SpikeTime: expected desired spikes of shape {tuple(input.shape)}, found "
                f"{tuple(desired.shape)}; labels are for SpikeRate and SpikeMax"
            )
        spikes = self.filter(input).flatten(), self.filter(desired).flatten()
        return F.mse_loss(*spikes, reduction=self.reduction)


class _RateLoss(torch.nn.Module):
    def __init__(self, moving_window: int | None = None, reduction: str = "sum") -> None:
        super().__init__()
        self.window = None if moving_window is None else MovingWindow(moving_window)
        self.reduction = reduction

    def _rate(self, input: Tensor) -> Tensor:
        """``[N, K]``, or ``[N, K, T]`` with a window."""
        input = input.reshape(input.shape[0], -1, input.shape[-1])
        return Rate.rate(input) if self.window is None else self.window.rate(input)

    def _labels(self, label: Tensor, input: Tensor) -> Tensor:
        """Classes ``[N]``, or ``[N, T]`` with a window, as torch takes them: of 64 bits."""
        fits = (label.shape[0] if label.dim() else 1) == input.shape[0]
        if label.is_floating_point() or label.is_complex() or not fits:
            raise BridgeError(
                f"loss.{type(self).__name__}: expected an integer label for each of "
                f"{input.shape[0]} samples, found {described(label)}; give classes, [N]"
            )
        label = label if label.dim() else label.reshape(1)
        if self.window is None or label.dim() > 1:
            return label.long()
        return replicate(label.long(), input.shape[-1])


class SpikeRate(_RateLoss):
    r"""The squared error of the rates: :math:`L = \sum_k (r_k - \hat r_k)^2` at each step.

    The target :math:`\hat r_k` is ``true_rate`` for the label, an integer, and ``false_rate`` for
    the other classes. A BridgeError is raised if they are not from 0 to 1.
    """

    def __init__(
        self,
        true_rate: float,
        false_rate: float,
        moving_window: int | None = None,
        reduction: str = "sum",
    ) -> None:
        super().__init__(moving_window, reduction)
        if not (0 <= true_rate <= 1 and 0 <= false_rate <= 1):
            found = f"{true_rate} and {false_rate}"
            raise BridgeError(f"SpikeRate: expected rates of 0 to 1, found {found}")
        self.true_rate, self.false_rate = true_rate, false_rate

    def forward(self, input: Tensor, label: Tensor) -> Tensor:
        """The loss of ``[N, C, *, T]`` for labels ``[N]``, or ``[N, T]`` with a window."""
        rate = self._rate(input)
        one_hot = F.one_hot(self._labels(label, input), rate.shape[1]).movedim(-1, 1)
        target = self.true_rate * one_hot + self.false_rate * (1 - one_hot)
        target = target.flatten().to(rate.dtype)
        return F.mse_loss(rate.flatten(), target, reduction=self.reduction)


class SpikeMax(_RateLoss):
    r"""The negative log-likelihood :math:`L = -\log c_\mathrm{label}` of the label at each step.

    c is the classifiers' confidence of the ``mode`` "probability" or "softmax" (else a BridgeError
    is raised). With "probability" L is infinite where the label's neuron is silent.
    """

    def __init__(
        self, moving_window: int | None = None, mode: str = "probability", reduction: str = "sum"
    ) -> None:
        super().__init__(moving_window, reduction)
        if mode not in ("probability", "softmax", "logsoftmax"):
            raise BridgeError(f"SpikeMax: mode is {mode!r}; expected 'probability' or 'softmax'")
        self.mode = mode

    def forward(self, input: Tensor, label: Tensor) -> Tensor:
        """The loss of ``[N, C, *, T]`` for labels ``[N]``, or ``[N, T]`` with a window."""
        confidence = (self.window or Rate).confidence
        if self.mode == "probability":
            log_p = torch.log(confidence(input, self.mode))
        else:
            log_p = confidence(input, "logsoftmax")
        label = self._labels(label, input).flatten()
        log_p = log_p.movedim(1, -1).reshape(-1, log_p.shape[1])
        return F.nll_loss(log_p, label, reduction=self.reduction)


class SpikeMoid(_RateLoss):
    r"""The binary cross-entropy of each class, its probability p the sigmoid of its rate r.

    .. math:: L = -\sum_k \hat y_k \log p_k + (1 - \hat y_k) \log (1 - p_k), \qquad
              p = \sigma((r - \theta) / \alpha)
    """

    def __init__(
        self,
        moving_window: int | None = None,
        reduction: str = "sum",
        alpha: float = 1,
        theta: float = 0,
    ) -> None:
        super().__init__(moving_window, reduction)
        self.alpha, self.theta = alpha, theta

    def forward(self, input: Tensor, label: Tensor) -> Tensor:
        """The loss of ``[N, C, *, T]`` for labels of 0 to 1 for each rate, or without T."""
        if self.window is None:
            logit = ((input - self.theta) / self.alpha).mean(-1)
        else:
            logit = (self._rate(input) - self.theta) / self.alpha
            label = label if label.numel() == logit.numel() else replicate(label, input.shape[-1])
        label = label.flatten().to(logit.dtype)
        return F.binary_cross_entropy(logit.sigmoid().flatten(), label, reduction=self.reduction)


class SparsityEnforcer:
    r"""Punishes layers of more than ``max_rate`` events a step, weighted by ``lam``.

    .. math:: L = \lambda \sum_x \max(\mathrm{mean} |x| - r_\mathrm{max}, 0)^2
    """

    def __init__(self, max_rate: float = 0.01, lam: float = 1.0) -> None:
        self.max_rate = max_rate
        self.lam = lam
        self.clear()

    def clear(self) -> None:
        """Forget what was appended."""
        self.loss_list: list[Tensor] = []

    @property
    def loss(self) -> Tensor:
        """The L of all that was appended, one number; at first zero."""
        return self.lam * sum(self.loss_list, torch.zeros(()))

    def append(self, x: Tensor) -> None:
        """Add the events x of a layer, of any shape."""
        self.loss_list.append(F.relu(torch.mean(torch.abs(x)) - self.max_rate) ** 2)
