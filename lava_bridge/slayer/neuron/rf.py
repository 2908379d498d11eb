"""The resonate-and-fire neuron that fires at phase zero (RF)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checks import exporting
from ...ops import DECAY_SCALE, resonate_and_fire, resonator
from ...quantize import exact_dtype, from_steps, inside_circle
from ..spike import complex
from . import base

__all__ = ["Neuron", "neuron_params"]

Pair = tuple[Tensor, Tensor]

# A shorter period can't turn in steps that have a sense (slayer's bound).
SHORTEST_PERIOD = 4


def neuron_params(
    device_params: Mapping[str, Any], scale: int = 1 << 6, p_scale: int = 1 << 12
) -> dict[str, Any]:
    """The constructor's arguments from ``device_params``: ``vThMant``, ``sinDecay``, ``cosDecay``.

    ``scale`` is the neuron's, ``p_scale`` that of the decays.
    """
    parts = inside_circle(device_params["sinDecay"], device_params["cosDecay"])
    sine, cosine = (part / p_scale for part in parts)
    return {
        "threshold": from_steps(device_params["vThMant"], scale),
        "period": 2 * np.pi / np.arctan2(sine, cosine),
        "decay": 1 - np.sqrt(sine**2 + cosine**2),
    }


class Neuron(base.Neuron):
    r"""The resonate-and-fire neuron, with a spike where its phase passes zero.

    .. math::
        z[t] &= (1 - \alpha)\,e^{i 2\pi / P}\,z[t-1] + x[t] \\
        s[t] &= (\Re z[t] \ge \vartheta)\,(\Im z[t-1] < 0)\,(\Im z[t] \ge 0)

    without a reset, computed in integers over ``s_scale = 64 * scale`` with 12-bit decays
    (:mod:`lava_bridge.ops.resonator`).

    Args:
        threshold: The threshold :math:`\vartheta`, rounded down to a multiple of ``1 / scale``.
        period: The period P in steps, 4 or more. With ``shared_param=False`` a pair (min, max),
            over which the channels' frequencies are spread.
        decay: The decay :math:`\alpha` in 0 ... 1; a pair as above.
        log_init: Spread the frequencies evenly on a logarithmic axis; else draw them.
        tau_grad, scale_grad, scale, norm, dropout, shared_param, persistent_state, requires_grad,
            graded_spike: As in :class:`lava_bridge.slayer.neuron.cuba.Neuron`; there is a norm for
            each part of the input, and it comes before the dynamics.

    Attributes:
        sin_decay, cos_decay: :math:`4096\,(1 - \alpha)\,(\sin, \cos)(2\pi / P)`, ``[1]`` or
            ``[C]``, kept in a quarter circle of radius 4095.
        real_state, imag_state: z before the next step, ``[N, *]``.

    Source: ``lava.lib.dl.slayer.neuron.rf.Neuron``.
    """

    kind = "RF_PHASE"
    tau_rho_mult: float = 0.5
    scale_rho_mult: float = 10
    # Whether it fires by its real part where its phase passes zero; else by its imaginary part.
    fires_at_phase_zero = True

    def __init__(
        self,
        threshold: float,
        period: float | tuple[float, float],
        decay: float | tuple[float, float],
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
        scales = DECAY_SCALE, scale, scale * base.STATE_OVER_WEIGHT
        flags = persistent_state, shared_param, requires_grad
        super().__init__(
            threshold, tau_grad, scale_grad, *scales, norm, dropout, *flags, complex=True
        )
        self.graded_spike = graded_spike
        self.log_init = log_init
        jitter = base.CHANNEL_JITTER
        self._periods = self.range_of("period", period, jitter, SHORTEST_PERIOD, math.inf)
        self._decays = self.range_of("decay", decay, jitter, 0, 1)
        angle, radius = 2 * np.pi / self._periods[0], 1 - self._decays[0]
        for name, part in (("sin_decay", np.sin(angle)), ("cos_decay", np.cos(angle))):
            start = torch.tensor([self.p_scale * (part * radius)], dtype=torch.float)
            parameter = torch.nn.Parameter(start, requires_grad=requires_grad)
            self.register_parameter(name, parameter)
        if not shared_param:
            self.lazy_channels = ("sin_decay", "cos_decay")
        self.add_state("real_state")
        self.add_state("imag_state")
        self.add_state("imag_before")
        self.clamp()

    def _draw(self, channels: int) -> None:
        slowest, fastest = 1 / self._periods[1], 1 / self._periods[0]
        if self.log_init:
            low, high = (-float(np.log10(period)) for period in reversed(self._periods))
            frequency = torch.logspace(low, high, steps=channels)
        else:
            frequency = slowest + (fastest - slowest) * torch.rand(channels, dtype=torch.float)
        low, high = self._decays
        radius = 1 - (low + (high - low) * torch.rand(channels, dtype=torch.float))
        self._set_channels("sin_decay", self.p_scale * (torch.sin(2 * np.pi * frequency) * radius))
        self._set_channels("cos_decay", self.p_scale * (torch.cos(2 * np.pi * frequency) * radius))
        super()._draw(channels)

    def clamp(self) -> None:
        """Bring the decays back into the quarter circle in which the state shrinks."""
        super().clamp()
        with torch.no_grad():
            for decay, inside in zip((self.sin_decay, self.cos_decay), self._inside(), strict=True):
                decay.data.copy_(inside)

    def _inside(self) -> Pair:
        gain = torch.sqrt(self.sin_decay**2 + self.cos_decay**2)
        shrink = torch.where(gain > 0, gain.clamp(0, self.p_scale - 1) / gain, 1)
        return (self.sin_decay * shrink).clamp(1), (self.cos_decay * shrink).clamp(0)

    def _turn(self) -> tuple[np.ndarray, np.ndarray]:
        """Sine and cosine parts of the turn, as the chip has them, over ``p_scale``."""
        self.clamp()
        parts = (self.sin_decay, self.cos_decay)
        sine, cosine = (torch.round(part.detach()).cpu().numpy() / self.p_scale for part in parts)
        return sine, cosine

    @property
    def decay(self) -> np.ndarray:
        """The decay on the chip, ``[1]`` or ``[C]``."""
        sine, cosine = self._turn()
        return 1 - np.sqrt(sine**2 + cosine**2)

    @property
    def lam(self) -> np.ndarray:
        """The rate of the exponential decay, :math:`-\\ln(1 - \\alpha)`."""
        return -np.log(1 - self.decay)

    @property
    def frequency(self) -> np.ndarray:
        """Turns in a step, ``1 / period``."""
        sine, cosine = self._turn()
        return np.arctan2(sine, cosine) / 2 / np.pi

    @property
    def period(self) -> np.ndarray:
        """The period on the chip, in steps."""
        return 1 / self.frequency

    cx_sin_decay = base.on_chip("sin_decay")
    cx_cos_decay = base.on_chip("cos_decay")

    @property
    def device_params(self) -> dict[str, Any]:
        """The neuron's parameters as the chip's integers; :func:`neuron_params` is the way back."""
        return {
            "type": self.kind,
            "sinDecay": self.cx_sin_decay,
            "cosDecay": self.cx_cos_decay,
            "vThMant": self.v_th_mant,
            "gradedSpike": self.graded_spike,
        }

    def resonator_args(self, input: Pair) -> tuple[Pair, Pair, Pair]:
        """Inputs, decays and states: the first arguments of the dynamics."""
        real, imag = self.require_pair(input)
        self.prepare(real)
        if self.real_norm is not None:
            real, imag = self.real_norm(real), self.imag_norm(imag)
        exact = exact_dtype(real)
        inside = self._inside() if self.requires_grad and exporting() else None
        sine, cosine = inside or (self.sin_decay, self.cos_decay)
        decays = self.per_neuron(sine, real), self.per_neuron(cosine, real)
        self.imag_before = self.imag_state.detach()  # torch.jit wants each buffer its own
        return (real.to(exact), imag.to(exact)), decays, (self.real_state, self.imag_state)

    def dynamics(self, input: Pair) -> tuple[Tensor, ...]:
        """Real and imaginary state of z, for a pair (real, imag) of inputs ``[N, C, *, T]``."""
        inputs, decays, states = self.resonator_args(input)
        real, imag = resonator.dynamics(*inputs, *decays, *states, self.s_scale)
        self.keep(real_state=real, imag_state=imag)
        return real, imag

    def phase_spike(self, real: Tensor, imag: Tensor, threshold: Any) -> Tensor:
        """Spikes ``[N, C, *, T]`` where the phase passes zero."""
        last = self.imag_before
        return complex.Spike.apply(
            real, imag, threshold, *self.surrogate, self.graded_spike, last, 1
        )

    def spike(self, real: Tensor, imag: Tensor) -> Tensor:
        """Spikes ``[N, C, *, T]`` of a state from :meth:`dynamics`."""
        return self.dropped(self.phase_spike(real, imag, self.threshold))

    def adaptation(self, input: Tensor) -> resonate_and_fire.Adaptation | None:
        """The adaptive threshold, for a family that has one."""
        return None

    def keep_spike(self, spike: Tensor) -> None:
        """Let the last step's spike act on the states that go on: here it does nothing."""

    def _fired(self, input: Pair, delay_shift: bool) -> Tensor:
        arguments = self.resonator_args(input)
        assert self.threshold is not None
        fired = resonate_and_fire.fire(
            *arguments,
            self.s_scale,
            self.threshold,
            (*self.surrogate, self.graded_spike),
            self.fires_at_phase_zero,
            self.adaptation(arguments[0][0]),
            delay_shift,
        )
        self.keep_last("real_state", "imag_state", fired)
        self.keep_spike(fired.spike)
        return self.dropped(fired.spike).to(input[0].dtype)

    def extra_repr(self) -> str:
        period: Any = self._periods
        decay: Any = self._decays
        if self.shared_param:
            period, decay = f"{self.period[0]:.4g}", f"{self.decay[0]:.4g}"
        elif self.init:
            period = decay = f"[{self.sin_decay.numel()}]"
        return f"threshold={self.threshold}, period={period}, decay={decay}, scale={self.scale}"
