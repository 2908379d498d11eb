"""The current-based leaky integrate-and-fire neuron (CUBA LIF)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...ops import DECAY_SCALE, cuba, leaky_integrator, shift
from ...quantize import exact_dtype, from_steps, threshold_eps
from . import base
from .norm import ChannelBias

__all__ = ["Neuron", "neuron_params"]


def neuron_params(
    device_params: Mapping[str, Any], scale: int = 1 << 6, p_scale: int = 1 << 12
) -> dict[str, Any]:
    """The constructor's arguments from ``device_params``: ``vThMant``, ``iDecay``, ``vDecay``.

    ``scale`` is the neuron's, ``p_scale`` that of the decays.
    """
    return {
        "threshold": from_steps(device_params["vThMant"], scale),
        "current_decay": device_params["iDecay"] / p_scale,
        "voltage_decay": device_params["vDecay"] / p_scale,
    }


class Neuron(base.Neuron):
    r"""Loihi's CUBA neuron.

    .. math::
        u[t] &= (1 - \alpha_u)\,u[t-1] + x[t] \\
        v[t] &= (1 - \alpha_v)\,v[t-1] + u[t] \\
        s[t] &= v[t] > \vartheta \\
        v[t] &\leftarrow v[t]\,(1 - s[t])

    computed in integers over ``s_scale = 64 * scale`` with decays of 12 bits
    (:mod:`lava_bridge.ops.cuba`). float16 and bfloat16 inputs are integrated in float32.

    Args:
        threshold: The threshold :math:`\vartheta`, rounded down to a multiple of ``1 / scale``.
        current_decay, voltage_decay: The decays :math:`\alpha_u`, :math:`\alpha_v` in 0 ... 1. With
            ``shared_param=False`` a pair (min, max) from which each channel draws its own.
        scale: What a weight of 1 is on the chip.
        graded_spike: Whether a spike carries its voltage.
        tau_grad, scale_grad, norm, dropout, shared_param, persistent_state, requires_grad: As in
            :class:`lava_bridge.slayer.neuron.base.Neuron`; the norm is applied to the current.

    Attributes:
        current_decay, voltage_decay: 4096 times the decays, ``[1]`` or ``[C]``.
        current_state, voltage_state: The states before the next step, ``[N, *]``.

    Source: ``lava.lib.dl.slayer.neuron.cuba.Neuron``.
    """

    kind = "CUBA"
    before_spike = 1  # the current

    def __init__(
        self,
        threshold: float,
        current_decay: float | tuple[float, float],
        voltage_decay: float | tuple[float, float],
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
        scales = DECAY_SCALE, scale, scale * base.STATE_OVER_WEIGHT
        flags = persistent_state, shared_param, requires_grad
        super().__init__(threshold, tau_grad, scale_grad, *scales, norm, dropout, *flags)
        self.graded_spike = graded_spike
        self.add_parameter("current_decay", current_decay)
        self.add_parameter("voltage_decay", voltage_decay)
        self.add_state("current_state")
        self.add_state("voltage_state")
        self.clamp()

    @property
    def threshold_eps(self) -> float:
        """What is added to the threshold so that >= here is > on the chip."""
        return threshold_eps(self.threshold, self.s_scale)

    cx_current_decay = base.on_chip("current_decay")
    cx_voltage_decay = base.on_chip("voltage_decay")

    @property
    def ref_delay(self) -> int:
        """The refractory delay, in steps."""
        return 1

    @property
    def device_params(self) -> dict[str, Any]:
        """The neuron's parameters as the chip's integers; :func:`neuron_params` is the way back."""
        return {
            "type": self.kind,
            "iDecay": self.cx_current_decay,
            "vDecay": self.cx_voltage_decay,
            "vThMant": self.v_th_mant,
            "refDelay": self.ref_delay,
            "gradedSpike": self.graded_spike,
        }

    def _integrated(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """The current, normalised; and what goes on of it to the next forward."""
        self.prepare(input)
        input = input.to(exact_dtype(input))
        current = leaky_integrator.dynamics(
            input, self.per_neuron(self.current_decay, input), self.current_state, self.s_scale
        )
        if self.norm is None:
            return current, current
        normalised = self.norm(current)
        # With a norm, what goes on is the normalised current, as in slayer; a bias is, as on the
        # chip, no part of it.
        return normalised, current if isinstance(self.norm, ChannelBias) else normalised

    def dynamics(self, input: Tensor) -> tuple[Tensor, ...]:
        """Integrate ``[N, C, *, T]`` to current and voltage, of the same shape.

        The voltage is the one before the reset. Without a threshold there is no reset.
        """
        current, held = self._integrated(input)
        voltage = leaky_integrator.dynamics(
            current,
            self.per_neuron(self.voltage_decay, input),
            self.voltage_state,
            self.s_scale,
            None if self.threshold is None else self.threshold + self.threshold_eps,
        )
        self.keep(current_state=held, voltage_state=voltage)
        return current, voltage

    def spike(self, voltage: Tensor) -> Tensor:
        """Spikes ``[N, C, *, T]`` of a voltage from :meth:`dynamics`."""
        assert self.threshold is not None
        spike = self.fire(voltage, self.threshold + self.threshold_eps, self.voltage_state)
        if self.persistent_state:
            fired = spike[..., -1].detach() > 0
            self.set_states(voltage_state=self.voltage_state * ~fired)
        return self.dropped(spike)

    def _fired(self, input: Tensor, delay_shift: bool) -> Tensor:
        learned = self.current_decay.requires_grad and self.s_scale & (self.s_scale - 1) != 0
        if self.threshold is None or learned:
            spike = self._by_parts(input)
            return shift(spike, 1) if delay_shift else spike
        bias = held = None
        if self.norm is None or (isinstance(self.norm, ChannelBias) and self.norm.is_plain):
            self.prepare(input)
            drive, decay = input, self.per_neuron(self.current_decay, input)
            current_state = self.current_state
            bias = None if self.norm is None else self.norm.of(input).squeeze(-1)
        else:
            # The rest runs at once on a current that is forgotten, since it is there already.
            drive, held = self._integrated(input)
            decay = self.current_decay.new_full((1,), DECAY_SCALE)
            current_state = self.current_state.new_zeros(1)
        run = cuba.fire(
            drive,
            (decay, self.per_neuron(self.voltage_decay, input)),
            (current_state, self.voltage_state),
            self.s_scale,
            self.threshold + self.threshold_eps,
            self.surrogate,
            self.graded_spike,
            bias,
            delay_shift,
        )
        if self.persistent_state:
            last = run.last_current if held is None else held[..., -1]
            self.set_states(current_state=last, voltage_state=run.last_held)
        return self.dropped(run.spike).to(input.dtype)
