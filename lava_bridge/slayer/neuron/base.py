"""What every neuron shares: scales, threshold, parameters, shape and persistent state."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import BridgeError
from ...quantize import quantize_8bit, quantize_down
from ..lazy import LazyChannels

__all__ = ["Neuron"]

# A decay range given as one number is spread by one per cent where each channel draws its own.
CHANNEL_JITTER = 0.01

# The largest threshold mantissa: how lava-dl writes a neuron that never fires.
NEVER_FIRES = (1 << 18) - 1


class Neuron(LazyChannels):
    r"""The common part of the neurons. A family adds its parameters, dynamics and spike.

    Numbers are scaled to the ranges in which nets train; the chip's integers are these numbers
    times a scale: weights times ``w_scale``, states times ``s_scale``, parameters times
    ``p_scale``. The threshold is rounded down to a multiple of ``1 / w_scale``.

    Parameters
    ----------
    threshold : float
        Where the neuron fires, in units of weights.
    tau_grad, scale_grad : float
        Width (in thresholds) and height of the spike's surrogate gradient.
    p_scale, w_scale, s_scale : int
        The scales above; ``s_scale`` must not be smaller than ``w_scale``.
    norm : callable, optional
        Makes the normalisation of the dendritic input, e.g. ``neuron.norm.MeanOnlyBatchNorm``.
    dropout : Module, optional
        Applied to the spikes.
    persistent_state : bool
        Go on from the state at the end of the last forward (of the same batch size).
    shared_param : bool
        One value of each parameter for all neurons; else one for each channel.
    requires_grad : bool
        Whether the parameters are learned.
    complex : bool
        Whether the neuron takes a complex input (then it has a ``real_norm`` and an ``imag_norm``).

    Attributes
    ----------
    shape : torch.Size or None
        Shape ``[C, *]`` of the layer, without batch and time. Taken from the first input; it may
        be set before.
    debug : bool
        slayer's switch for its own comparisons; without effect here.

    Source: ``lava.lib.dl.slayer.neuron.base.Neuron``.
    """

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
        super().__init__()
        self._shape: torch.Size | None = None
        self.p_scale = p_scale
        self.w_scale = int(w_scale)
        self.s_scale = int(s_scale)
        if self.s_scale < self.w_scale:
            raise BridgeError(
                f"{type(self).__name__}: the state scale must not be smaller than the weight "
                f"scale, found s_scale={self.s_scale} and w_scale={self.w_scale}"
            )
        self._threshold: float | None = quantize_down(threshold, self.w_scale)
        self.tau_rho = tau_grad * self._threshold
        self.scale_rho = scale_grad
        self.shared_param = shared_param
        self.persistent_state = persistent_state
        self.requires_grad = requires_grad
        self.debug = False
        self.complex = complex
        self._ranges: dict[str, tuple[float, float]] = {}
        self._states: list[str] = []
        for name in ("real_norm", "imag_norm") if complex else ("norm",):
            setattr(self, name, None if norm is None else norm())
            if hasattr(getattr(self, name), "pre_hook_fx"):
                getattr(self, name).pre_hook_fx = self.quantize_8bit
        self.drop = dropout

    # Parameters ---------------------------------------------------------------------------------

    def add_parameter(self, name: str, value: Any) -> None:
        """Register a decay ``name``, a fraction in 0 ... 1 held as ``p_scale`` times its value.

        Shared: ``[1]``. Per channel: ``[C]``, drawn from the range ``value`` (a number stands for
        one per cent around it) at the first forward.

        Raises
        ------
        BridgeError
            If the value is not a number (shared), or neither a number nor a pair (per channel).
        """
        scalar = isinstance(value, int | float) or getattr(value, "ndim", None) == 0
        if self.shared_param and not scalar:
            raise BridgeError(
                f"{name}: expected one number where shared_param is True, found {value!r}; pass "
                "shared_param=False for a range (min, max)"
            )
        low = high = value
        if not scalar:
            if len(value) != 2:
                raise BridgeError(f"{name}: expected a number or (min, max), found {value!r}")
            low, high = value
        elif not self.shared_param:
            low, high = value * (1 - CHANNEL_JITTER), value * (1 + CHANNEL_JITTER)
        start = torch.tensor([self.p_scale * low], dtype=torch.float)
        self.register_parameter(name, torch.nn.Parameter(start, requires_grad=self.requires_grad))
        if not self.shared_param:
            self._ranges[name] = (low, high)
            self.lazy_channels = (*self.lazy_channels, name)

    def _draw(self, channels: int) -> None:
        for name, (low, high) in self._ranges.items():
            parameter = getattr(self, name)
            drawn = low + (high - low) * torch.rand(channels, dtype=torch.float)
            parameter.data = (self.p_scale * drawn).to(parameter.device, parameter.dtype)

    def per_neuron(self, parameter: Tensor, input: Tensor) -> Tensor:
        """View a parameter ``[1]`` or ``[C]`` so that it broadcasts with ``[N, C, *]``."""
        if parameter.numel() == 1:
            return parameter
        return parameter.reshape(-1, *[1] * (input.dim() - 3))

    # Shape and state ----------------------------------------------------------------------------

    @property
    def shape(self) -> torch.Size | None:
        return self._shape

    @shape.setter
    def shape(self, shape: tuple[int, ...] | None) -> None:
        self._shape = None if shape is None else torch.Size(shape)

    def draw(self, channels: int) -> None:
        """Draw the parameters of each channel, and size the norm, unless that has happened."""
        super().draw(channels)
        for norm in self.children():
            if isinstance(norm, LazyChannels):
                norm.draw(channels)

    @property
    def num_neurons(self) -> int | None:
        """Number of neurons in the layer, or None before its shape is known."""
        return None if self._shape is None else math.prod(self._shape)

    def add_state(self, name: str) -> None:
        """Register a state ``[N, *]``, zero at the start, not part of the ``state_dict``."""
        self.register_buffer(name, torch.zeros(1), persistent=False)
        self._states.append(name)

    def prepare(self, input: Tensor) -> None:
        """Check ``[N, C, *, T]`` against the layer's shape, and bring the states to that shape.

        A batch of another size starts from zero.

        Raises
        ------
        BridgeError
            If a dimension is missing, or the shape is not that of the first forward.
        """
        name = type(self).__module__.rpartition(".")[2] + "." + type(self).__name__
        if input.dim() < 3:
            raise BridgeError(
                f"{name}: expected [N, C, *, T] of 3 or more dimensions, found shape "
                f"{tuple(input.shape)}; add the missing dimension with unsqueeze"
            )
        if not input.is_floating_point():
            raise BridgeError(
                f"{name}: expected a floating dtype, found {input.dtype}; pass input.float()"
            )
        found = input.shape[1:-1]
        if self._shape is None or self._is_same_row(found):
            self.shape = found
        elif found != self._shape:
            raise BridgeError(
                f"{name}: expected neurons of shape {tuple(self._shape)} as at the first forward, "
                f"found {tuple(found)} in an input {tuple(input.shape)}; use one neuron for each "
                "layer"
            )
        self.draw(found[0])
        for state_name in self._states:
            state = getattr(self, state_name)
            if state.shape[0] != input.shape[0]:
                state = state.new_zeros(input.shape[:-1])
            elif state.shape[1:] != found:
                state = state * state.new_ones(input.shape[:-1])
            setattr(self, state_name, state)
        if self.requires_grad:
            self.clamp()

    def _is_same_row(self, found: torch.Size) -> bool:
        """Whether a layer that has not run was given as [C] and gets [C, 1, 1], or the reverse."""
        fresh = all(getattr(self, name).dim() == 1 for name in self._states)
        assert self._shape is not None
        return fresh and found[0] == self._shape[0] == found.numel() == self._shape.numel()

    # Scales and device parameters ---------------------------------------------------------------

    @property
    def threshold(self) -> float | None:
        """Where the neuron fires; None: it neither fires nor resets."""
        return self._threshold

    @threshold.setter
    def threshold(self, threshold: float | None) -> None:
        self._threshold = None if threshold is None else quantize_down(threshold, self.w_scale)

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
    def device(self) -> torch.device | None:
        """Where the neuron's tensors are; None if it has none."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return None

    @property
    def device_params(self) -> Mapping[str, Any]:
        """The neuron's parameters as the chip's integers."""
        raise NotImplementedError

    def cx(self, parameter: Tensor) -> Any:
        """A parameter as the chip's integers: one NumPy integer, or an array ``[C]``."""
        self.clamp()
        value = torch.round(parameter.detach()).cpu().numpy().astype(int)
        return value[0] if len(value) == 1 else value

    def quantize_8bit(self, weight: Tensor, descale: bool = False) -> Tensor:
        """Weights as 8 bits hold them (:func:`lava_bridge.quantize.quantize_8bit`).

        Meant as a synapse's ``pre_hook_fx``.
        """
        return quantize_8bit(weight, self.w_scale, descale)

    def clamp(self) -> None:
        """Bring the parameters back into their range."""
