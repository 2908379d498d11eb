"""The resonate-and-fire neuron with an adaptive threshold (ADRF)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...ops import adaptive_phase_th, resonator
from . import rf
from .adaptive import Adaptive, adaptive_params

__all__ = ["Neuron", "neuron_params"]


def neuron_params(
    device_params: Mapping[str, Any], scale: int = 1 << 6, p_scale: int = 1 << 12
) -> dict[str, Any]:
    """The constructor's arguments from :attr:`Neuron.device_params`.

    ``scale`` is the neuron's, ``p_scale`` that of the decays.
    """
    return {
        **rf.neuron_params(device_params, scale, p_scale),
        **adaptive_params(device_params, scale, p_scale),
    }


class Neuron(Adaptive, rf.Neuron):
    r"""The resonate-and-fire neuron with an adaptive threshold: it fires at phase zero.

    .. math::
        z[t] &= (1 - \alpha)\,e^{i 2\pi / P}\,z[t-1] + x[t] \\
        s[t] &= (\Re z[t] \ge \vartheta[t] + r[t])\,(\Im z[t-1] < 0)\,(\Im z[t] \ge 0)

    with :math:`\vartheta` and r of :class:`lava_bridge.slayer.neuron.adaptive.Adaptive`.

    Args:
        threshold, threshold_step, threshold_decay, refractory_decay: The adaptive threshold's
            (:class:`lava_bridge.slayer.neuron.adaptive.Adaptive`).
        period, decay, tau_grad, scale_grad, scale, norm, dropout, shared_param, persistent_state,
            requires_grad, graded_spike, log_init: As in
            :class:`lava_bridge.slayer.neuron.rf.Neuron`.

    Source: ``lava.lib.dl.slayer.neuron.adrf.Neuron``.
    """

    kind = "ADRF_PHASE"
    tau_rho_mult = 100
    scale_rho_mult = 0.1

    def __init__(
        self,
        threshold: float,
        threshold_step: float,
        period: float | tuple[float, float],
        decay: float | tuple[float, float],
        threshold_decay: float | tuple[float, float],
        refractory_decay: float | tuple[float, float],
        tau_grad: float = 1,
        scale_grad: float = 1,
        scale: int = 1 << 6,
        norm: Any = None,
        dropout: torch.nn.Module | None = None,
        shared_param: bool = True,
        persistent_state: bool = False,
        requires_grad: bool = False,
        graded_spike: bool = False,
        log_init: bool = True,
    ) -> None:
        common = tau_grad, scale_grad, scale, norm, dropout
        flags = shared_param, persistent_state, requires_grad, graded_spike, log_init
        super().__init__(threshold, period, decay, *common, *flags)
        self.add_adaptation(threshold_step, threshold_decay, refractory_decay)

    def dynamics(self, input: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Real, imaginary, threshold and refractory state, for inputs ``[N, C, *, T]``."""
        inputs, decays, states = self.resonator_args(input)
        real, imag = resonator.dynamics(*inputs, *decays, *states, self.s_scale)
        threshold, refractory = adaptive_phase_th.dynamics(
            real, imag, self.imag_before, *self.threshold_args(real)
        )
        self.keep(real_state=real, imag_state=imag)
        self.keep(threshold_state=threshold, refractory_state=refractory)
        return real, imag, threshold, refractory

    def spike(  # type: ignore[override] # each family's spike takes what its dynamics gives
        self, real: Tensor, imag: Tensor, threshold: Tensor, refractory: Tensor
    ) -> Tensor:
        """Spikes ``[N, C, *, T]`` of what :meth:`dynamics` gives."""
        spike = self.phase_spike(real, imag, threshold + refractory)
        self.keep_spike(spike)
        return self.dropped(spike)
