"""The leaky integrate-and-fire neuron with an adaptive threshold (ALIF)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...ops import adaptive_threshold, alif, leaky_integrator
from ...quantize import exact_dtype
from . import cuba
from .adaptive import Adaptive, adaptive_params

__all__ = ["Neuron", "neuron_params"]

Pair = tuple[Tensor, Tensor]


def neuron_params(
    device_params: Mapping[str, Any], scale: int = 1 << 6, p_scale: int = 1 << 12
) -> dict[str, Any]:
    """The constructor's arguments from :attr:`Neuron.device_params`.

    ``scale`` is the neuron's, ``p_scale`` that of the decays.
    """
    return {
        **cuba.neuron_params(device_params, scale, p_scale),
        **adaptive_params(device_params, scale, p_scale),
    }


class Neuron(Adaptive, cuba.Neuron):
    r"""The CUBA neuron with an adaptive threshold and a refractory state in place of a reset.

    .. math::
        u[t] &= (1 - \alpha_u)\,u[t-1] + x[t] \\
        v[t] &= (1 - \alpha_v)\,v[t-1] + u[t] \\
        s[t] &= v[t] \ge \vartheta[t] + r[t]

    with :math:`\vartheta` and r of :class:`lava_bridge.slayer.neuron.adaptive.Adaptive`.

    Args:
        threshold, threshold_step, threshold_decay, refractory_decay: The adaptive threshold's
            (:class:`lava_bridge.slayer.neuron.adaptive.Adaptive`).
        current_decay, voltage_decay, tau_grad, scale_grad, scale, norm, dropout, shared_param,
            persistent_state, requires_grad, graded_spike: As in
            :class:`lava_bridge.slayer.neuron.cuba.Neuron`; the norm comes before the current.

    Source: ``lava.lib.dl.slayer.neuron.alif.Neuron``.
    """

    kind = "ALIF"

    def __init__(
        self,
        threshold: float,
        threshold_step: float,
        current_decay: float | tuple[float, float],
        voltage_decay: float | tuple[float, float],
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
    ) -> None:
        common = tau_grad, scale_grad, scale, norm, dropout
        flags = shared_param, persistent_state, requires_grad, graded_spike
        super().__init__(threshold, current_decay, voltage_decay, *common, *flags)
        self.add_adaptation(threshold_step, threshold_decay, refractory_decay)

    def leak_args(self, input: Tensor) -> tuple[Tensor, Pair, Pair]:
        """The normed input, and decays and states of current and voltage."""
        self.prepare(input)
        if self.norm is not None:
            input = self.norm(input)
        current, voltage = self.current_decay, self.voltage_decay
        decays = self.per_neuron(current, input), self.per_neuron(voltage, input)
        states = self.current_state, self.voltage_state
        return input.to(exact_dtype(input)), decays, states

    def dynamics(self, input: Tensor) -> tuple[Tensor, ...]:
        """Current, voltage, threshold and refractory state for ``[N, C, *, T]``, of that shape."""
        input, decays, states = self.leak_args(input)
        current = leaky_integrator.dynamics(input, decays[0], states[0], self.s_scale)
        voltage = leaky_integrator.dynamics(current, decays[1], states[1], self.s_scale)
        threshold, refractory = adaptive_threshold.dynamics(voltage, *self.threshold_args(input))
        self.keep(current_state=current, voltage_state=voltage)
        self.keep(threshold_state=threshold, refractory_state=refractory)
        return current, voltage, threshold, refractory

    def spike(  # type: ignore[override] # each family's spike takes what its dynamics gives
        self, voltage: Tensor, threshold: Tensor, refractory: Tensor
    ) -> Tensor:
        """Spikes ``[N, C, *, T]`` of what :meth:`dynamics` gives."""
        spike = self.fire(voltage, threshold + refractory, self.voltage_state)
        self.keep_spike(spike)
        return self.dropped(spike)

    def _fired(self, input: Tensor, delay_shift: bool) -> Tensor:
        x, decays, states = self.leak_args(input)
        settings = self.s_scale, (*self.surrogate, self.graded_spike), delay_shift
        fired = alif.fire(x, decays, states, self.adaptation(x), *settings)
        self.keep_last("current_state", "voltage_state", fired)
        self.keep_spike(fired.spike)
        return self.dropped(fired.spike).to(input.dtype)
