"""The delta encoder: sends what changed, once it is large enough."""

import math

import torch
from torch import Tensor

from ...checks import held, set_data
from ...errors import BridgeError
from ...ops import delta
from ...quantize import exact_dtype
from ..stateful import Stateful

__all__ = ["Delta"]


class Delta(Stateful):
    r"""Messages of the changes of a signal that reach a threshold.

    .. math::
        d[t] = x[t] - x[t-1] + \rho[t-1], \qquad
        y[t] = d[t]\,\mathcal{H}(|d[t]| - \vartheta), \qquad
        \rho[t] = d[t] - y[t]

    and y is rounded down to multiples of ``1 / scale`` (:mod:`lava_bridge.ops.delta`).

    Args:
        threshold: The threshold :math:`\vartheta`, kept at ``1 / scale`` or more.
        scale: What a message of 1 is on the chip.
        cum_error: Compare the sum of the changes since the last message, not the last change.
        tau_grad, scale_grad, shared_param, persistent_state, requires_grad: As in
            :class:`lava_bridge.slayer.neuron.base.Neuron`, for the threshold.

    Attributes:
        threshold: ``[1]``, or ``[C, 1, ...]`` of the input's spatial dimensions.
        pre_state, residual_state, error_state: :math:`x`, :math:`\rho` and the sum before the next
            step, ``[N, *]``.

    Source: ``lava.lib.dl.slayer.axon.Delta``.
    """

    def __init__(
        self,
        threshold: float,
        scale: int = 1 << 6,
        tau_grad: float = 1,
        scale_grad: float = 1,
        cum_error: bool = False,
        shared_param: bool = True,
        persistent_state: bool = False,
        requires_grad: bool = False,
    ) -> None:
        super().__init__(persistent_state)
        if not 0 <= threshold < math.inf:
            raise BridgeError(f"axon.Delta: expected threshold of 0 or more, found {threshold!r}")
        self.scale = scale
        self.tau_grad = tau_grad
        self.scale_grad = scale_grad
        self.cum_error = cum_error
        self.shared_param = shared_param
        self.requires_grad = requires_grad
        self.threshold = torch.nn.Parameter(torch.tensor([float(threshold)]), requires_grad)
        if not shared_param:
            self.lazy_channels = ("threshold",)
        for name in ("pre_state", "residual_state", "error_state"):
            self.add_state(name)

    def clamp(self) -> Tensor:
        """Bring the threshold back to ``1 / scale`` or more, and give it; each forward does it."""
        return held(self.threshold, 1 / self.scale)

    def _draw(self, channels: int) -> None:
        assert self.shape is not None
        shape = (channels, *[1] * (len(self.shape) - 1))
        set_data(self.threshold, self.threshold.data.flatten()[:1].repeat(channels).reshape(shape))

    def forward(self, input: Tensor) -> Tensor:
        """Messages ``[N, C, *, T]`` of a signal ``[N, C, *, T]``."""
        self.prepare(input)
        x = input.to(exact_dtype(input))
        output, residual, error = delta.dynamics(
            x,
            self.clamp().reshape(-1, *[1] * (x.dim() - 3)),
            self.pre_state,
            self.residual_state,
            self.error_state,
            self.cum_error,
            self.tau_grad,
            self.scale_grad,
            self.scale,
        )
        self.keep(pre_state=x)
        if self.persistent_state:
            self.set_states(residual_state=residual)
            if self.cum_error:
                self.set_states(error_state=error)
        return output.to(input.dtype)

    def extra_repr(self) -> str:
        return f"scale={self.scale}, cum_error={self.cum_error}"
