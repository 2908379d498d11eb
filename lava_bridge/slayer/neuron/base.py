"""What every neuron shares: scales, threshold, parameters, shape and persistent state."""

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ...checks import exporting, has_hooks, held, overridden, set_data
from ...errors import BridgeError
from ...net_writer import NEVER_FIRES
from ...ops import shift
from ...ops.resonate_and_fire import Fired
from ...quantize import elementwise, quantize_8bit, quantize_down
from ..lazy import LazyChannels
from ..spike import Spike
from ..stateful import Stateful
from ..utils import quantize
from .norm import ChannelBias

__all__ = ["CHANNEL_JITTER", "NEVER_FIRES", "STATE_OVER_WEIGHT", "Neuron", "on_chip"]

# A decay range given as one number is spread by one per cent where each channel draws its own.
CHANNEL_JITTER = 0.01

# States are held 64 times finer than weights: the chip shifts weights left by 6.
STATE_OVER_WEIGHT = 1 << 6


def on_chip(name: str) -> Any:
    """A property of a neuron: its parameter ``name`` as the chip's integer, or integers ``[C]``."""

    def cx(neuron: "Neuron") -> Any:
        neuron.clamp()
        value = torch.round(getattr(neuron, name).detach()).cpu().numpy().astype(int)
        return value[0] if len(value) == 1 else value

    return property(cx, doc=f"``{name}`` as the chip's integer, or integers ``[C]``.")


class Neuron(Stateful):
    r"""The common part of the neurons. A family adds its parameters, dynamics and spike.

    Numbers are scaled to the ranges in which nets train; the chip's integers are these numbers
    times a scale: weights times ``w_scale``, states times ``s_scale``, parameters times
    ``p_scale``. The threshold is rounded down to a multiple of ``1 / w_scale``.

    Args:
        threshold: Where the neuron fires, in units of weights.
        tau_grad, scale_grad: Width (in thresholds, times ``tau_rho_mult``) and height of the
            spike's surrogate gradient.
        p_scale, w_scale, s_scale: The scales above, with ``w_scale <= s_scale``.
        norm: Makes a norm of the dendritic input, e.g. ``neuron.norm.MeanOnlyBatchNorm``, or a
            ``neuron.norm.ChannelBias``.
        dropout: Applied to the spikes.
        persistent_state: Go on from the state at the end of the last forward of this batch size.
        shared_param: One value of each parameter for all neurons; else one for each channel.
        requires_grad: Whether the parameters are learned.
        complex: Whether the input is complex (then there are a ``real_norm`` and ``imag_norm``).

    Attributes:
        scale_rho, tau_rho: Height and width of the surrogate gradient, without a family's factors.
        debug: slayer's switch for its own comparisons; without effect here.

    Source: ``lava.lib.dl.slayer.neuron.base.Neuron``.
    """

    # slayer's starting points for the surrogate gradient.
    tau_rho_mult: float = 100
    scale_rho_mult: float = 0.1
    graded_spike: bool = False
    # As many of what dynamics gives come before what spike takes.
    before_spike = 0
    dynamics: Callable[..., tuple[Tensor, ...]]
    spike: Callable[..., Tensor]

    def __init__(
        self,
        threshold: float,
        tau_grad: float = 1,
        scale_grad: float = 1,
        p_scale: int = 1,
        w_scale: int = 1,
        s_scale: int = 1,
        norm: Callable[[], torch.nn.Module] | None = None,
        dropout: torch.nn.Module | None = None,
        persistent_state: bool = False,
        shared_param: bool = True,
        requires_grad: bool = True,
        complex: bool = False,
    ) -> None:
        super().__init__(persistent_state)
        self.p_scale = p_scale
        self.w_scale = int(w_scale)
        self.s_scale = int(s_scale)
        if not 1 <= self.w_scale <= self.s_scale:
            found = f"found w_scale={w_scale} and s_scale={s_scale}"
            raise BridgeError(f"{self.place}: expected 1 <= weight scale <= state scale, {found}")
        self._threshold: float | None = self.on_grid("threshold", threshold)
        self.tau_rho = tau_grad * self._threshold
        self.scale_rho = scale_grad
        self.shared_param = shared_param
        self.requires_grad = requires_grad
        self.debug = False
        self.complex = complex
        self._fractions: list[str] = []
        self._ranges: dict[str, tuple[float, float]] = {}
        self.norm: Any = None  # a complex neuron has two others
        for name in ("real_norm", "imag_norm") if complex else ("norm",):
            made: Any = None if norm is None else norm()
            setattr(self, name, made)
            if isinstance(made, ChannelBias):
                made.scale = self.w_scale
            elif hasattr(made, "pre_hook_fx"):
                made.pre_hook_fx = self.quantize_8bit
        self.drop = dropout

    # Parameters ---------------------------------------------------------------------------------

    def on_grid(self, name: str, value: float, least: float = 0) -> float:
        """A finite threshold, not below ``least``, down (toward 0) to multiples of 1/w_scale."""
        if not (isinstance(value, Real | Tensor) and math.isfinite(value) and value >= least):
            raise BridgeError(
                f"{self.place}: expected {name} of {least:g} or more, found {value!r}"
            )
        return quantize_down(value, self.w_scale)

    def add_parameter(self, name: str, value: Any, jitter: float = CHANNEL_JITTER) -> None:
        """Register a decay, a fraction in 0 ... 1 held as ``p_scale`` times its value.

        It is ``[1]``; per channel ``[C]``, drawn from its range at the first forward.
        """
        low, high = self.range_of(name, value, jitter, 0, 1)
        start = torch.tensor([self.p_scale * low], dtype=torch.float)
        self.register_parameter(name, torch.nn.Parameter(start, requires_grad=self.requires_grad))
        self._fractions.append(name)
        if not self.shared_param:
            self._ranges[name] = (low, high)
            self.lazy_channels = (*self.lazy_channels, name)

    def range_of(
        self, name: str, value: Any, jitter: float, least: float, most: float
    ) -> tuple[float, float]:
        """The range of a constructor's argument; of one number, ``jitter`` to both sides of it.

        A BridgeError is raised if the value is not a number (shared), neither a number nor a pair
        (per channel), or not in ``least ... most``.
        """
        scalar = isinstance(value, int | float) or getattr(value, "ndim", None) == 0
        if not scalar and (self.shared_param or len(value) != 2):
            expected = "one number (shared_param is True)" if self.shared_param else "(min, max)"
            raise BridgeError(f"{self.place}: expected {name} as {expected}, found {value!r}")
        low, high = (value, value) if scalar else value
        if not (least <= low <= most and least <= high <= most and math.isfinite(low + high)):
            expected = f"a finite {name} in {least:g} ... {most:g}"
            raise BridgeError(f"{self.place}: expected {expected}, found {value!r}")
        if scalar and not self.shared_param:
            return value * (1 - jitter), value * (1 + jitter)
        return low, high

    def _draw(self, channels: int) -> None:
        for name, (low, high) in self._ranges.items():
            drawn = low + (high - low) * torch.rand(channels, dtype=torch.float)
            self._set_channels(name, self.p_scale * drawn)

        self.clamp()

    def _set_channels(self, name: str, value: Tensor) -> None:
        parameter = getattr(self, name)
        set_data(parameter, value.to(parameter.device, parameter.dtype))

    def per_neuron(self, parameter: Tensor, input: Tensor) -> Tensor:
        """A parameter ``[1]`` or ``[C]`` as integers that broadcast with ``[N, C, *]``."""
        # Then prepare() has not clamped it.
        if self.requires_grad and (exporting() or not isinstance(parameter, torch.nn.Parameter)):
            parameter = held(parameter, 0, self.p_scale)
        rounded = quantize(parameter)
        if parameter.numel() == 1:
            return rounded
        return rounded.reshape(-1, *[1] * (input.dim() - 3))

    # Forward ------------------------------------------------------------------------------------

    def draw(self, channels: int) -> None:
        """Draw the parameters of each channel, and size the norm, unless that has happened."""
        super().draw(channels)
        for part in self.children():
            if isinstance(part, LazyChannels):
                part.draw(channels)

    def prepare(self, input: Tensor) -> None:
        super().prepare(input)
        if self.requires_grad and not exporting():
            self.clamp()

    def forward(self, input: Any) -> Tensor:
        """Spikes ``[N, C, *, T]`` in the input's dtype; a complex neuron's input is a pair."""
        if overridden(self, "dynamics", "spike"):
            return self._by_parts(input)
        return self._fired(input, False)

    def delayed(self, input: Any) -> Tensor:
        """A forward's spikes one step later, as the next layer gets them: ``s[t-1]``, and 0 first.

        The neuron's own operator delays them, unless somebody is to see them before: the dropout,
        the state that goes on, a hook, or a method that is not this library's.
        """
        own = type(self).forward is Neuron.forward
        own = own and not overridden(self, "forward", "dynamics", "spike")
        if own and self.drop is None and not self.persistent_state and not has_hooks(self):
            return self._fired(input, True)
        return shift(self(input), 1)

    def _fired(self, input: Any, delay_shift: bool) -> Tensor:
        """Spikes for an input, with ``delay_shift`` one step later."""
        raise NotImplementedError

    def _by_parts(self, input: Any) -> Tensor:
        """``spike(dynamics(input))``, what slayer's forward is: for methods that users override."""
        spike = self.spike(*self.dynamics(input)[self.before_spike :])
        return spike.to((input[0] if self.complex else input).dtype)

    @property
    def surrogate(self) -> tuple[float, float]:
        """Width and height of the spike's surrogate gradient, with the family's factors."""
        return self.tau_rho * self.tau_rho_mult, self.scale_rho * self.scale_rho_mult

    def fire(self, voltage: Tensor, threshold: Any, last: Tensor) -> Tensor:
        """Spikes where a voltage reaches the threshold; ``last`` is the voltage before."""
        return Spike.apply(voltage, threshold, *self.surrogate, self.graded_spike, last, 1)

    def keep_last(self, first: str, second: str, fired: Fired) -> None:
        """If the state is persistent, go on from where the two named and the threshold's are."""
        if self.persistent_state:
            names = first, second, "threshold_state", "refractory_state"
            self.set_states(**dict(zip(names, fired.last, strict=False)))

    def dropped(self, spike: Tensor) -> Tensor:
        """The spikes after the dropout, if there is one."""
        return spike if self.drop is None else self.drop(spike)

    # Scales and device parameters ---------------------------------------------------------------

    @property
    def threshold(self) -> float | None:
        """Where the neuron fires; None: it neither fires nor resets."""
        return self._threshold

    @threshold.setter
    def threshold(self, threshold: float | None) -> None:
        self._threshold = None if threshold is None else self.on_grid("threshold", threshold)
        if "threshold_state" in self._starts:  # where an adaptive threshold begins
            self.add_state("threshold_state", self._threshold or 0)

    @property
    def v_th_mant(self) -> int:
        """The threshold as the chip's integer; the largest there is for a neuron without one."""
        return NEVER_FIRES if self._threshold is None else round(self._threshold * self.w_scale)

    @property
    def weight_exponent(self) -> int:
        """The exponent of the weights on the chip."""
        return int(math.log2(self.s_scale // self.w_scale) - 6)

    @property
    def scale(self) -> int:
        """What a weight of 1 is on the chip."""
        return self.w_scale

    @property
    def device_params(self) -> Mapping[str, Any]:
        """The neuron's parameters as the chip's integers."""
        raise NotImplementedError

    @elementwise
    def quantize_8bit(self, weight: Tensor, descale: bool = False) -> Tensor:
        """Weights as 8 bits hold them (:func:`lava_bridge.quantize.quantize_8bit`).

        Meant as a synapse's ``pre_hook_fx``.
        """
        return quantize_8bit(weight, self.w_scale, descale)

    def clamp(self) -> None:
        """Bring the decays back into 0 ... ``p_scale``."""
        for name in self._fractions:
            held(getattr(self, name), 0, self.p_scale)

    def extra_repr(self) -> str:
        decays = [
            f"{name}={parameter.item() / self.p_scale:.4g}"
            if self.shared_param
            else f"{name}={[parameter.numel()] if self.init else self._ranges.get(name)}"
            for name, parameter in self.named_parameters(recurse=False)
        ]
        return ", ".join([f"threshold={self.threshold}", *decays, f"scale={self.scale}"])
