"""The sigma-delta neuron: an activation between a sum of changes and a change of sums."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...checks import described, has_hooks, require, set_data
from ...errors import BridgeError
from ...ops import sigma_delta
from ...quantize import exact_dtype, from_steps
from ..axon import Delta
from ..dendrite import Sigma
from . import base

__all__ = ["Neuron", "neuron_params"]


def neuron_params(device_params: Mapping[str, Any], scale: int = 1 << 6) -> dict[str, Any]:
    """The constructor's arguments from ``device_params``, but for the ``activation``.

    A file holds no more of that than its name. ``scale`` is the neuron's.
    """
    return {"threshold": from_steps(device_params["vThMant"], scale)}


def _rectifies(activation: Callable[[Tensor], Tensor]) -> bool | None:
    """Whether an activation is ReLU, or the identity; None: another."""
    if activation in (torch.relu, torch.nn.functional.relu) or type(activation) is torch.nn.ReLU:
        return True
    return False if type(activation) is torch.nn.Identity else None


class Neuron(base.Neuron):
    r"""Sigma, bias and activation, delta.

    .. math::
        y[t] = \Delta\bigl(f(\Sigma(x)[t] + b)\bigr)

    with the sum :math:`\Sigma` of :class:`lava_bridge.slayer.dendrite.Sigma` and the messages
    :math:`\Delta` of :class:`lava_bridge.slayer.axon.Delta`, of ``s_scale = 64 * scale``.

    Args:
        threshold: The delta's threshold, rounded down to a multiple of ``1 / scale``.
        activation: The activation f, elementwise, e.g. ``torch.nn.functional.relu``.
        cum_error: Whether the delta compares the sum of the changes since the last message.
        tau_grad, scale_grad: Width and height of the threshold's surrogate gradient.
        scale, norm, dropout, shared_param, persistent_state, requires_grad: As in
            :class:`lava_bridge.slayer.neuron.cuba.Neuron`; the norm is applied to the sum, and
            ``shared_param`` and ``requires_grad`` are the threshold's.

    Attributes:
        sigma, delta: The decoder and the encoder.
        bias: b, of the layer's shape once :meth:`set_bias` is called; ``[1]`` and not used before.

    Source: ``lava.lib.dl.slayer.neuron.sigma_delta.Neuron``.
    """

    def __init__(
        self,
        threshold: float,
        activation: Callable[[Tensor], Tensor],
        tau_grad: float = 1,
        scale_grad: float = 1,
        scale: int = 1 << 6,
        cum_error: bool = False,
        norm: Any = None,
        dropout: torch.nn.Module | None = None,
        shared_param: bool = True,
        persistent_state: bool = False,
        requires_grad: bool = False,
    ) -> None:
        scales = 1, scale, scale * base.STATE_OVER_WEIGHT
        flags = persistent_state, shared_param, requires_grad
        super().__init__(threshold, 1, 1, *scales, norm, dropout, *flags)
        self.graded_spike = True
        if not callable(activation):
            raise BridgeError(f"{self.place}: expected a callable activation, found {activation}")
        self.activation = activation
        self.sigma = Sigma(persistent_state)
        flags = shared_param, persistent_state, requires_grad
        self.delta = Delta(
            self._threshold or 0, self.s_scale, tau_grad, scale_grad, cum_error, *flags
        )
        self.bias_is_set = False
        self.bias = torch.nn.Parameter(torch.zeros(1), requires_grad)

    def _set_shape(self, shape: tuple[int, ...] | None) -> None:
        super()._set_shape(shape)
        self.sigma.shape = self.delta.shape = shape

    @property
    def threshold(self) -> Any:
        """The delta's threshold, a tensor ``[1]`` or ``[C, 1, ...]``."""
        return self.delta.threshold

    @threshold.setter
    def threshold(self, threshold: float | None) -> None:
        self.delta.threshold.data.fill_(self.on_grid("threshold", threshold or 0))

    @property
    def v_th_mant(self) -> Any:
        """The threshold as the chip's integer, or integers ``[C]``."""
        # Down, but float32 may hold a step of the grid half a unit in its last place below it.
        steps = self.threshold.detach().flatten().double() * self.w_scale * (1 + 2**-23)
        values = steps.cpu().numpy().astype(int)
        return values[0] if len(values) == 1 else values

    @property
    def device_params(self) -> dict[str, Any]:
        """The neuron's parameters as the chip's integers, and the activation's name."""
        activation = self.activation
        name = getattr(activation, "__name__", type(activation).__name__.lower())
        return {"type": "SDNN", "activation": name, "vThMant": self.v_th_mant}

    def set_bias(self, bias: Tensor) -> None:
        """Set the bias b, of the layer's shape ``[C, *]`` (or as many values)."""
        require(f"{self.place}: bias", bias, "[C, *]")
        if self.shape is not None and bias.numel() != self.num_neurons:
            expected = f"a bias for neurons of shape {tuple(self.shape)}"
            raise BridgeError(f"{self.place}: expected {expected}, found {described(bias)}")
        bias = bias.detach().clone().to(self.bias.device)
        set_data(self.bias, bias if self.shape is None else bias.reshape(self.shape))
        self.bias_is_set = True

    def forward(self, input: Tensor) -> Tensor:
        """Messages ``[N, C, *, T]`` for messages ``[N, C, *, T]``."""
        self.prepare(input)
        rectifies = _rectifies(self.activation)
        if rectifies is not None and self._is_whole(exact_dtype(input)):
            return self._in_one(input, rectifies)
        level = self.sigma(input.to(exact_dtype(input)))
        if self.norm is not None:
            level = self.norm(level)
        if self.bias_is_set:
            level = level + self._bias_of_layer().unsqueeze(0).unsqueeze(-1)
        return self.dropped(self.delta(self.activation(level))).to(input.dtype)

    def _bias_of_layer(self) -> Tensor:
        if self.bias.shape != self.shape:  # set before the shape was known
            self.set_bias(self.bias)
        return self.bias

    def _is_whole(self, dtype: torch.dtype) -> bool:
        """Whether the parts can run as one: as they were made, with nobody between them."""
        parts = self.sigma, self.delta, self.activation
        heard = any(has_hooks(part) for part in parts if isinstance(part, torch.nn.Module))
        own = type(self.sigma) is Sigma and type(self.delta) is Delta
        same = not self.bias_is_set or torch.promote_types(self.bias.dtype, dtype) == dtype
        return own and same and self.norm is None and not heard

    def _in_one(self, input: Tensor, rectifies: bool) -> Tensor:
        """Sigma, bias, activation and delta in one operator."""
        sigma, delta = self.sigma, self.delta
        sigma.prepare(input)
        delta.prepare(input)
        none = sigma.pre_state.new_zeros(1)
        total = sigma.pre_state if sigma.persistent_state else none
        sent = sigma_delta.dynamics(
            input,
            delta.clamp().reshape(-1, *[1] * (input.dim() - 3)),
            self._bias_of_layer() if self.bias_is_set else none,
            sigma_delta.States(delta.pre_state, delta.residual_state, delta.error_state, total),
            rectifies,
            delta.cum_error,
            (delta.tau_grad, delta.scale_grad),
            delta.scale,
            sigma.persistent_state or delta.persistent_state,
        )
        if sigma.persistent_state:
            sigma.set_states(pre_state=sent.states.total)
        if delta.persistent_state:
            delta.set_states(pre_state=sent.states.before, residual_state=sent.states.residual)
            if delta.cum_error:
                delta.set_states(error_state=sent.states.error)
        return self.dropped(sent.message).to(input.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        loaded = state_dict.get(prefix + "bias")
        if loaded is not None and (loaded.shape != self.bias.shape or loaded.any()):
            self.set_bias(torch.zeros_like(loaded))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        name = self.device_params["activation"]
        return f"threshold={self.v_th_mant / self.w_scale}, activation={name}, scale={self.scale}"
