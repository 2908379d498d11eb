"""From spikes ``[N, C, *, T]`` to classes, each a place of ``C, *``, by their rates."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BridgeError
from .utils.filter import FIR

__all__ = ["MovingWindow", "Rate"]


def _confidence(rate: Tensor, mode: str, eps: float) -> Tensor:
    if mode == "probability":
        return rate / (torch.sum(rate, dim=1, keepdim=True) + eps)
    if mode == "softmax":
        return F.softmax(rate, dim=1)
    if mode == "logsoftmax":
        return F.log_softmax(rate, dim=1)
    expected = "'probability', 'softmax' or 'logsoftmax'"
    raise BridgeError(f"confidence: mode is {mode!r}; expected {expected}")


class Rate(torch.nn.Module):
    r"""The class of the highest rate over all time.

    .. math:: r = \frac{1}{T} \sum_t s[t], \qquad p = \arg\max_k r_k, \qquad
              c = r / (\textstyle\sum_k r_k + \epsilon) \text{ or } \mathrm{softmax}(r)

    Source: ``lava.lib.dl.slayer.classifier.Rate``.
    """

    def forward(self, spike: Tensor) -> Tensor:
        """Classes p, ``[N]``."""
        return Rate.predict(spike)

    @staticmethod
    def rate(spike: Tensor) -> Tensor:
        """Rates r, ``[N, C, *]``."""
        return torch.mean(spike, dim=-1)

    @staticmethod
    def confidence(spike: Tensor, mode: str = "probability", eps: float = 1e-6) -> Tensor:
        """The c of each class, ``[N, K]``; ``mode`` is probability, softmax or logsoftmax."""
        return _confidence(Rate.rate(spike).flatten(1), mode, eps)

    @staticmethod
    def predict(spike: Tensor) -> Tensor:
        """Classes p, ``[N]``."""
        return torch.max(Rate.rate(spike).flatten(1), dim=1)[1]


class MovingWindow(torch.nn.Module):
    r"""The class at each step, by the rate in the ``time_window`` W: :math:`\sum_{k<W} s[t-k] / W`.

    Source: ``lava.lib.dl.slayer.classifier.MovingWindow``. (There ``forward`` returns None, and
    ``predict`` takes only C as classes.)
    """

    def __init__(self, time_window: int, mode: str = "probability", eps: float = 1e-6) -> None:
        super().__init__()
        if time_window < 1:
            raise BridgeError(f"MovingWindow: time_window is {time_window}; expected 1 or more")
        self.filter = FIR(fir_response=torch.ones(time_window) / time_window)
        self.mode = mode
        self.eps = eps

    def rate(self, spike: Tensor) -> Tensor:
        """Rates ``[N, C, *, T]``."""
        return self.filter(spike)

    def confidence(self, spike: Tensor, mode: str | None = None) -> Tensor:
        """As :meth:`Rate.confidence` at each step, ``[N, K, T]``; by default of its own mode."""
        return _confidence(self.rate(spike).flatten(1, -2), mode or self.mode, self.eps)

    def predict(self, spike: Tensor) -> Tensor:
        """Classes ``[N, T]``; the forward too."""
        return torch.argmax(self.rate(spike).flatten(1, -2), dim=1)

    forward = predict
