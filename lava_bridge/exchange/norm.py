"""slayer's batch norm under SpikingJelly's name."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import slayer as native_slayer
from ..quantize import unquantized

__all__ = ["BatchNorm2d"]


class BatchNorm2d(native_slayer.neuron.norm.WgtScaleBatchNorm):
    r"""slayer's ``WgtScaleBatchNorm`` under the name and with the arguments of SpikingJelly.

    .. math:: y = (x - q(\mu)) / 2^{e}, \qquad
              e = \mathrm{clamp}(\lceil \log_2 \sqrt{\sigma^2 + \epsilon} \rceil, -b, b)

    for inputs ``[N, C, *]``, with one variance for all channels.

    Args:
        num_features: Number of channels C.
        eps, momentum: As in :class:`torch.nn.BatchNorm2d`.
        track_running_stats: Whether training uses the batch's statistics and updates the running
            ones. If not, the running statistics are used always.
        weight_exp_bits: The bound b of the exponent.
        pre_hook_fx: The quantiser q of the mean; a :class:`CubaLIFNode` sets its own.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        track_running_stats: bool = True,
        weight_exp_bits: int = 3,
        pre_hook_fx: Callable[..., Tensor] = unquantized,
    ) -> None:
        super().__init__(num_features, momentum, weight_exp_bits, eps, pre_hook_fx)
        self.track_running_stats = track_running_stats

    @property
    def track_running_stats(self) -> bool:
        """As the argument; slayer calls it ``update``."""
        return self.update

    @track_running_stats.setter
    def track_running_stats(self, value: bool) -> None:
        self.update = value

    def to_lava(self, slayer: Any = native_slayer) -> torch.nn.Module:
        """The same norm as slayer's ``neuron.norm.WgtScaleBatchNorm``, with a copy of its state."""
        norm = slayer.neuron.norm.WgtScaleBatchNorm(
            self.num_features, self.momentum, self.weight_exp_bits, self.eps, self.pre_hook_fx
        )
        norm.load_state_dict(self.state_dict())
        norm.train(self.training)
        norm.update = self.update
        return norm
