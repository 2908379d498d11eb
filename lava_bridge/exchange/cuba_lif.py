"""slayer's CUBA neuron as a SpikingJelly neuron."""

import copy
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor

from ..checks import held, made_in_inference_mode, require
from ..errors import BridgeError
from ..kernels import current_backend
from ..layout import NXT_to_TNX, TNX_to_NXT
from ..ops import DECAY_SCALE, cuba, cuba_reset
from ..ops.leaky_integrator import leak
from ..quantize import (
    exact_dtype,
    quantize_8bit,
    quantize_down,
    step_quantize,
    threshold_eps,
)
from ..slayer.neuron.base import STATE_OVER_WEIGHT
from ..slayer.neuron.norm import ChannelBias
from .norm import BatchNorm2d
from .smooth import smooth

__all__ = ["CubaLIFNode", "check_scale"]

# Loihi's voltage threshold has a mantissa of 17 bits.
THRESHOLD_MAX = (1 << 17) - 1

_SIGMOID = surrogate.Sigmoid()


class CubaLIFNode(neuron.BaseNode):
    r"""Loihi's CUBA LIF neuron, quantised as on the chip, trainable as SpikingJelly's neurons are.

    .. math::
        I[t] &= (1 - \alpha_I)\,I[t-1] + X[t] \\
        V[t] &= (1 - \alpha_V)\,V[t-1] + I[t] \\
        S[t] &= V[t] > \vartheta \\
        V[t] &\leftarrow V[t]\,(1 - S[t])

    in integers over ``s_scale``, with decays of 12 bits and the threshold rounded down to a
    multiple of ``1 / scale``: spike for spike slayer's ``neuron.cuba.Neuron``. A multi-step run
    carries the integers from step to step; between runs the state is held as floats (exact below
    2**24).

    Gradients are SpikingJelly's: the surrogate's for the spike, through the reset unless
    ``detach_reset``, and through the state from run to run.

    Args:
        current_decay, voltage_decay: :math:`\alpha_I`, :math:`\alpha_V` in 0 ... 1; a tensor must
            broadcast with ``[N, *]``, e.g. ``[C, 1, 1]`` for a decay per channel.
        v_threshold: :math:`\vartheta`, above 0.
        v_reset: 0: the chip has no other.
        scale: What a weight of 1 is on the chip; ``s_scale = 64 * scale``.
        requires_grad: Whether the decays are learned.
        surrogate_function: Any of SpikingJelly's surrogate functions (with ``spiking=True``), or
            one of the user's without parameters that learn.
        norm: Applied to the current on its way to the voltage, as in slayer: a
            :class:`BatchNorm2d`, or a :class:`~lava_bridge.slayer.neuron.norm.ChannelBias`.
        detach_reset: Take the spikes of the reset as constants in backward.
        step_mode: ``"s"``: inputs ``[N, *]``; ``"m"``: inputs ``[T, N, *]``.
        backend: ``"torch"``, as in SpikingJelly: torch operators, on the backend that
            :class:`lava_bridge.use_backend` has set, the fastest there is otherwise. Or
            ``"native"``, ``"cupy"``: those kernels, or an error.
        store_v_seq, store_i_seq: Keep the voltages (after the reset) and currents of all steps in
            ``v_seq``, ``i_seq`` ``[T, N, *]``.

    Attributes:
        current_decay, voltage_decay: 4096 times the decays.
        current_state, voltage_state: The states ``[N, *]`` after the last step; 0.0 after
            ``reset()``. ``v`` is the voltage too.

    Raises:
        BridgeError: For a ``v_reset`` other than 0, a decay outside 0 ... 1, a threshold that is
            not above 0, a scale below 1.
    """

    v: Any
    current_decay: Tensor
    voltage_decay: Tensor
    current_state: Any
    voltage_state: Any
    v_seq: Tensor | None
    i_seq: Tensor | None

    def __init__(
        self,
        current_decay: float | Tensor,
        voltage_decay: float | Tensor,
        v_threshold: float = 1.0,
        v_reset: float = 0.0,
        scale: int = 1 << 6,
        requires_grad: bool = False,
        surrogate_function: Callable[[Tensor], Tensor] = _SIGMOID,
        norm: BatchNorm2d | ChannelBias | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "torch",
        store_v_seq: bool = False,
        store_i_seq: bool = False,
    ) -> None:
        _check_reset_and_threshold(v_reset, v_threshold)
        check_scale("CubaLIFNode", scale)
        if norm is not None and not isinstance(norm, BatchNorm2d | ChannelBias):
            raise BridgeError(
                "CubaLIFNode: norm must be a lava_bridge.exchange.BatchNorm2d or a "
                f"slayer.neuron.norm.ChannelBias, found {type(norm).__name__}"
            )
        if surrogate_function is _SIGMOID:
            surrogate_function = copy.deepcopy(_SIGMOID)
        super().__init__(
            v_threshold=float(v_threshold),
            v_reset=0.0,
            surrogate_function=surrogate_function,
            detach_reset=detach_reset,
            step_mode=step_mode,
            store_v_seq=store_v_seq,
        )
        self.backend = backend
        self.store_i_seq = store_i_seq
        self._scale = int(scale)
        self.lava_s_cale = self._scale
        self.requires_grad = requires_grad
        for name, decay in (("current_decay", current_decay), ("voltage_decay", voltage_decay)):
            held = _held(name, decay)
            if requires_grad:
                self.register_parameter(name, torch.nn.Parameter(held))
            else:
                self.register_buffer(name, held)
        self.register_memory("current_state", 0.0)
        self.register_memory("voltage_state", 0.0)
        self.norm = norm
        if isinstance(norm, ChannelBias):
            norm.scale = self._scale
        elif norm is not None:
            norm.pre_hook_fx = self.quantize_8bit

    # Scales and parameters ----------------------------------------------------------------------

    @property
    def scale(self) -> int:
        """What a weight of 1 is on the chip."""
        return self._scale

    @property
    def s_scale(self) -> int:
        """What a state of 1 is as an integer."""
        return self._scale * STATE_OVER_WEIGHT

    @property
    def p_scale(self) -> int:
        """What a decay of 1 is as an integer."""
        return DECAY_SCALE

    @property
    def v_threshold_eps(self) -> float:
        """What is added to the threshold so that >= here is > on the chip."""
        return threshold_eps(self.quantized_threshold, self.s_scale)

    @property
    def quantized_threshold(self) -> float:
        """``v_threshold`` rounded down to a multiple of ``1 / scale``."""
        return quantize_down(self.v_threshold, self.scale)

    @property
    def lava_cuba_neuron_params(self) -> dict[str, Any]:
        """Constructor arguments of slayer's CUBA neuron, from the decays as they are now."""
        return {
            "threshold": self.v_threshold,
            "current_decay": self._decay_now("current_decay"),
            "voltage_decay": self._decay_now("voltage_decay"),
            "scale": self.scale,
        }

    def _decay_now(self, name: str) -> float | Tensor:
        decay = getattr(self, name).detach() / DECAY_SCALE
        if decay.is_meta:
            raise BridgeError(
                f"CubaLIFNode: {name} is on the meta device, without numbers; load its state first"
            )
        if self.requires_grad:  # as the next forward does
            decay = decay.clamp(0, 1)
        return decay.item() if decay.numel() == 1 else decay.cpu()

    def quantize_8bit(self, x: Tensor, descale: bool = False) -> Tensor:
        """Weights as 8 bits hold them (:func:`lava_bridge.quantize.quantize_8bit`)."""
        return quantize_8bit(x, self.scale, descale)

    def clamp_decay_parameters(self) -> None:
        """Bring the decays back into 0 ... 4096."""
        for decay in self.current_decay, self.voltage_decay:
            decay.data.clamp_(0, DECAY_SCALE)

    def _decays_in_range(self) -> tuple[Tensor, Tensor]:
        low_high = 0, DECAY_SCALE
        return held(self.current_decay, *low_high), held(self.voltage_decay, *low_high)

    # What is kept of a run ----------------------------------------------------------------------

    @property
    def store_v_seq(self) -> bool:
        """Whether the voltages of all steps are kept in ``v_seq``."""
        return self._store_v_seq

    @store_v_seq.setter
    def store_v_seq(self, value: bool) -> None:
        self._store_v_seq = value
        self.v_seq = None

    @property
    def store_i_seq(self) -> bool:
        """Whether the currents of all steps are kept in ``i_seq``."""
        return self._store_i_seq

    @store_i_seq.setter
    def store_i_seq(self, value: bool) -> None:
        self._store_i_seq = value
        self.i_seq = None

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """The backends of either step mode."""
        return ("torch", "native", "cupy")

    @property
    def backend(self) -> str:
        """The backend in use."""
        return self._backend

    @backend.setter
    def backend(self, value: str) -> None:
        if value not in self.supported_backends:
            raise BridgeError(
                f"CubaLIFNode: backend must be one of {self.supported_backends}, found {value!r}"
            )
        self._backend = value

    def reset(self) -> None:
        """Forget the state and what was kept of the run."""
        super().reset()
        self.v_seq = self.i_seq = None

    def detach(self) -> None:
        """Cut the state, and what was kept of the run, from its past."""
        super().detach()
        self.v_seq = None if self.v_seq is None else self.v_seq.detach()
        self.i_seq = None if self.i_seq is None else self.i_seq.detach()

    def __deepcopy__(self, memo: dict[int, Any]) -> "CubaLIFNode":
        """A copy, of which what is kept of a run is cut from its past: no graph can be copied."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        for kept in (*self.memories(), self.v_seq, self.i_seq):
            if isinstance(kept, Tensor) and not kept.is_leaf:
                memo[id(kept)] = kept.detach().clone()
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def __getattr__(self, name: str) -> Any:
        # The AttributeMonitor of SpikingJelly 0.0.0.0.14 calls this for plain attributes, too.
        return self.__dict__[name] if name in self.__dict__ else super().__getattr__(name)

    # Running ------------------------------------------------------------------------------------

    def materialize_states(
        self, inputs: tuple[Any, ...], states: tuple[Any, ...], step_mode: str
    ) -> tuple[Any, ...]:
        """The states as tensors ``[N, *]``; a state of another shape starts from zero."""
        x = inputs[0]
        shape = x.shape[1:] if step_mode == "m" else x.shape
        dtype = x.dtype if x.dtype == torch.float64 else torch.float32
        return tuple(
            _taken_up(state, x.device, dtype)
            if isinstance(state, Tensor) and state.shape == shape
            else torch.zeros(shape, dtype=dtype, device=x.device)
            for state in states
        )

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """One step from explicit states: ``((spike,), states)``, all ``[N, *]``."""
        x_seq = inputs[0].unsqueeze(0)
        (spike_seq,), states = self.multi_step_functional_forward((x_seq,), states)
        return (spike_seq.squeeze(0),), states

    def multi_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """All steps from explicit states: ``((spike_seq,), states)``.

        Sequences are ``[T, N, *]``, states ``[N, *]``.
        """
        require("CubaLIFNode", inputs[0], "[T, N, *]", device=self.current_decay.device)
        run = self._run(inputs[0], states)
        return (NXT_to_TNX(run.spike),), (run.last_held, run.last_current, run.last_held)

    def _run(self, x_seq: Tensor, states: tuple[Any, ...]) -> cuba.Fired:
        """Spikes, in the input's dtype, and what else is wanted of a run over ``[T, N, *]``."""
        if x_seq.shape[:1] == (0,):
            raise BridgeError(
                f"CubaLIFNode: expected one time step or more, found shape {tuple(x_seq.shape)}"
            )
        if not getattr(self.surrogate_function, "spiking", True):
            raise BridgeError(
                "CubaLIFNode: its surrogate_function has spiking=False, but the quantised neuron "
                "gives spikes only; call surrogate_function.set_spiking_mode(True)"
            )
        surrogate_function = smooth(self.surrogate_function)
        if isinstance(surrogate_function, torch.nn.Module) and any(
            p.requires_grad for p in surrogate_function.parameters()
        ):
            raise BridgeError(
                "CubaLIFNode: its surrogate_function has parameters that learn, but they get no "
                "gradient here; freeze them with surrogate_function.requires_grad_(False)"
            )
        given: Any = self.v_threshold
        # They may be set. (The first look is the cheap one: single steps come here one by one.)
        known = type(given) is float or torch.compiler.is_compiling()  # there it may be a symbol
        if self.v_reset != 0 or not known or not 0 < given < math.inf:
            _check_reset_and_threshold(self.v_reset, given)
        decays = self.current_decay, self.voltage_decay
        if self.requires_grad:
            decays = self._decays_in_range()
        _, current_state, voltage_state = states
        x = TNX_to_NXT(x_seq)
        decays = step_quantize(decays[0]), step_quantize(decays[1])
        for name, decay in zip(("current_decay", "voltage_decay"), decays, strict=True):
            if decay.numel() != 1:
                _require_broadcast(name, decay.shape, x_seq.shape[1:])
        threshold = self.quantized_threshold + self.v_threshold_eps
        firing = self.s_scale, threshold, surrogate_function, self.detach_reset
        keep_held, backend = self.store_v_seq, self._backend_now()
        power_of_two = self.scale & (self.scale - 1) == 0
        plain = self.norm is None or (isinstance(self.norm, ChannelBias) and self.norm.is_plain)
        if plain and (power_of_two or not self.requires_grad):
            states = current_state, voltage_state
            keeps = self.store_i_seq, keep_held
            bias = None if self.norm is None else self.norm.of(x).squeeze(-1)
            return cuba_reset.fire_and_reset(
                x, decays, states, *firing, False, *keeps, backend, bias
            )
        # The current by itself, for the norm; and for its decay's gradient at other scales.
        x = x.to(exact_dtype(x))
        current = leak(x, decays[0], current_state, self.s_scale, backend)
        drive = current if self.norm is None else self.norm(current)
        run = cuba_reset.fire_and_reset(
            drive,
            (decays[0].detach(), decays[1]),
            (current_state.detach(), voltage_state),
            *firing,
            is_current=True,
            keep_held=keep_held,
            backend=backend,
        )
        spike, voltage, _, held, _, last_held = run
        return cuba.Fired(spike.to(x_seq.dtype), voltage, current, held, _last(current), last_held)

    def _backend_now(self) -> str:
        return current_backend() if self.backend == "torch" else self.backend

    def _advance(self, x_seq: Tensor) -> cuba.Fired:
        """Run from the module's state and keep the state at the end."""
        states = (self.v, self.current_state, self.voltage_state)
        run = self._run(x_seq, self.materialize_states((x_seq,), states, "m"))
        self.v = self.voltage_state = run.last_held
        self.current_state = run.last_current
        return run

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Spikes ``[N, *]`` of one step. ``v_seq``, ``i_seq`` grow by it until ``reset()``."""
        require("CubaLIFNode", x, "[N, *]", device=self.current_decay.device)
        run = self._advance(x.unsqueeze(0))
        if self.store_v_seq:
            self.v_seq = _append(self.v_seq, NXT_to_TNX(run.held))
        if self.store_i_seq:
            self.i_seq = _append(self.i_seq, NXT_to_TNX(run.current))
        return NXT_to_TNX(run.spike).squeeze(0)

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Spikes ``[T, N, *]`` of all steps."""
        require("CubaLIFNode", x_seq, "[T, N, *]", device=self.current_decay.device)
        run = self._advance(x_seq)
        if self.store_v_seq:
            self.v_seq = NXT_to_TNX(run.held)
        if self.store_i_seq:
            self.i_seq = NXT_to_TNX(run.current)
        return NXT_to_TNX(run.spike)

    def extra_repr(self) -> str:
        decays = [
            f"{name}={list(decay.shape)}"
            if decay.numel() != 1 or decay.is_meta
            else f"{name}={self._decay_now(name):.4g}"
            for name in ("current_decay", "voltage_decay")
            for decay in [getattr(self, name)]
        ]
        return ", ".join(
            [
                f"v_threshold={self.v_threshold}",
                *decays,
                f"scale={self.scale}",
                f"detach_reset={self.detach_reset}",
                f"step_mode={self.step_mode}",
            ]
        )


def is_number(value: Any) -> bool:
    """Whether a value is a real number, of Python, NumPy or torch."""
    return isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)


def check_scale(place: str, scale: Any) -> None:
    """Refuse a scale that is no whole number: what a weight of 1 is on the chip."""
    if not (is_number(scale) and math.isfinite(scale) and scale >= 1 and scale == int(scale)):
        raise BridgeError(f"{place}: scale must be a whole number, 1 or more, found {scale!r}")


def _check_reset_and_threshold(v_reset: Any, v_threshold: Any) -> None:
    if v_reset is None or v_reset != 0:
        raise BridgeError(
            f"CubaLIFNode: v_reset must be 0, found {v_reset}; the chip resets to 0 only"
        )
    if not (is_number(v_threshold) and 0 < v_threshold < math.inf):
        raise BridgeError(
            f"CubaLIFNode: v_threshold must be a number above 0, found {v_threshold!r}"
        )


def _require_broadcast(name: str, decay: torch.Size, neurons: torch.Size) -> None:
    sizes = neurons[len(neurons) - len(decay) :]
    if len(decay) > len(neurons) or any(d not in (1, n) for d, n in zip(decay, sizes, strict=True)):
        raise BridgeError(
            f"CubaLIFNode: {name} of shape {tuple(decay)} does not broadcast with an input [N, *] "
            f"of shape {tuple(neurons)}; a decay for each channel is [C] after a linear layer, "
            "[C, 1, 1] after a convolution"
        )


def _held(name: str, decay: Any) -> Tensor:
    """4096 times a decay, in float32."""
    try:
        given = torch.as_tensor(decay).detach()
    except (TypeError, ValueError, RuntimeError):
        given = torch.tensor(0j)
    if given.is_complex():
        raise BridgeError(f"CubaLIFNode: {name} must be a number or a tensor, found {decay!r}")
    held = DECAY_SCALE * given.to(torch.float32)
    if held.is_meta:  # without numbers
        return held
    outside = held[~((held >= 0) & (held <= DECAY_SCALE))]
    if outside.numel():
        raise BridgeError(
            f"CubaLIFNode: {name} must be in 0 ... 1, found {outside[0] / DECAY_SCALE:g}"
        )
    return held


def _taken_up(state: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    state = state.to(device, dtype)
    # What a run under torch.inference_mode left can't be kept for a gradient.
    return state.clone() if torch.is_grad_enabled() and made_in_inference_mode(state) else state


def _last(sequence: Tensor) -> Tensor:
    """The last step of ``[N, *, T]``, no view: SpikingJelly detaches states in place."""
    return sequence[..., -1].clone()


def _append(sequence: Tensor | None, step: Tensor) -> Tensor:
    if sequence is None or sequence.shape[1:] != step.shape[1:]:
        return step
    return torch.cat([sequence, step])
