"""The layers with feedback, which run step by step: recurrent and k-winners-take-all."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import net_writer
from ...checks import held, kept_copy
from ..utils.recurrent import called_weights, recur
from .common import step_delay
from .layers import DenseFields

__all__ = ["AbstractKWTA", "AbstractRecurrent"]


class _FedBack(DenseFields):
    """What the two share: ``spike_state``, the spikes ``[N, C]`` that are fed back next.

    A checkpoint has zeros for it, as slayer's has: a loaded block starts from rest, as its neuron
    does, whatever the batch it was trained with.
    """

    spike_state: Tensor
    persistent_state = True
    # Whether slayer's buffer of that name takes the shape of the batch, or stays at one element.
    saves_batch: bool

    def forget(self) -> None:
        super().forget()
        self.spike_state = self.spike_state.new_zeros(1)

    def _recur(self, z: Any, feedback: Callable[[Tensor], list[Tensor]]) -> Tensor:
        x = recur(self.neuron, z, self.spike_state, feedback)
        spike = kept_copy(x[..., -1])
        if spike is not None:
            self.spike_state = spike
        return x

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        shape = self.spike_state.shape if self.saves_batch else (1,)
        destination[prefix + "spike_state"] = self.spike_state.new_zeros(shape)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(prefix + "spike_state")
        if saved is not None:
            self.forget()
            self.neuron.forget()
            self.spike_state = self.spike_state.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


class AbstractKWTA(_FedBack):
    r"""K winners take all.

    .. math::
        s[t] = f\bigl(W x[t] + R s[t-1] + \vartheta (N - 2K) / (N w)\bigr), \qquad
        R = (1 + a) I - 1

    with the number N of neurons, the number K of winners, the self-excitation a and the scale w of
    the weights. With a complex neuron the feedback goes into the real part. The state, s[t-1]
    included, goes on in the next forward of the same batch size.

    Args:
        num_winners: K.
        self_excitation: The start of a, kept in 0 ... 1.
        requires_grad: Whether a is learned.
        neuron_params, in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx, delay_shift,
            count_log: As in :class:`AbstractDense`.
    """

    kind = "kwta"
    saves_batch = False

    def __init__(
        self,
        neuron_params: dict[str, Any],
        in_neurons: Any,
        out_neurons: int,
        num_winners: int,
        self_excitation: float = 0.5,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = None,
        delay_shift: bool = True,
        requires_grad: bool = True,
        count_log: bool = False,
    ) -> None:
        synapse = "Dense", in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx
        neuron_params = {**neuron_params, "persistent_state": True}
        super().__init__(neuron_params, synapse, False, delay_shift, count_log=count_log)
        self.num_neurons = out_neurons
        self.num_winners = num_winners
        self.requires_grad = requires_grad
        self.self_excitation = torch.nn.Parameter(
            torch.tensor([float(self_excitation)]), requires_grad=requires_grad
        )
        self.register_buffer("spike_state", torch.zeros(1))
        self._know_shape(in_neurons)

    def clamp(self) -> Tensor:
        """Bring the self-excitation back into 0 ... 1, and give it; each forward does it."""
        return held(self.self_excitation, 0, 1)

    def feedback_weight(self, descale: bool = False) -> Tensor:
        """R ``[N, N]``, quantised to 8 bits; with ``descale`` as the chip's integers."""
        excitation = self.clamp()
        identity = torch.eye(self.num_neurons, device=excitation.device, dtype=excitation.dtype)
        feedback = (1 + excitation) * identity - 1
        return self.neuron.quantize_8bit(feedback, descale)

    def forward(self, x: Tensor) -> Any:
        losers_over_winners = self.num_neurons - 2 * self.num_winners
        bias = self.neuron.threshold * losers_over_winners / self.num_neurons / self.neuron.w_scale
        bias = self.neuron.quantize_8bit(self.self_excitation.new_full((1,), bias))
        recurrent = self.feedback_weight()

        def feed_back(spike: Tensor) -> list[Tensor]:
            fed_back = F.linear(spike, recurrent) + bias
            return [fed_back, torch.zeros_like(fed_back)]

        x = self._recur(self.synapse(x), feed_back)
        if self.delay_shift:
            x = step_delay(self, x)
        return self._counted(x)

    def _fields(self) -> dict[str, Any]:
        # lava-dl writes nothing for this block; the names of its own integers are this library's.
        return {
            **super()._fields(),
            "numWinners": self.num_winners,
            "selfExcitation": self.self_excitation.item(),
        }


class AbstractRecurrent(_FedBack):
    r"""All-to-all layer with all-to-all feedback: ``s[t] = f(W x[t] + R s[t-1])``.

    The state, s[t-1] included, goes on in the next forward of the same batch size. As in slayer the
    gradient goes from step to step by the spikes, not by the neuron's state: decays get none, nor
    do real weights of rf_iz and adrf_iz, which fire by their imaginary part.

    Args:
        requires_grad: Without effect, as in slayer.
        neuron_params, in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx, delay,
            delay_shift, count_log: As in :class:`AbstractDense`.
    """

    kind = "dense_rec"
    saves_batch = True

    def __init__(
        self,
        neuron_params: dict[str, Any],
        in_neurons: Any,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = None,
        requires_grad: bool = True,
        delay: bool = False,
        delay_shift: bool = True,
        count_log: bool = False,
    ) -> None:
        neuron_params = {**neuron_params, "persistent_state": True}
        super().__init__(neuron_params, (), delay, delay_shift, count_log=count_log)
        self.requires_grad = requires_grad
        weight, dense = (weight_scale, weight_norm, pre_hook_fx), self.synapse_types.Dense
        self.input_synapse = dense(in_neurons, out_neurons, *weight)
        self.recurrent_synapse = dense(out_neurons, out_neurons, *weight)
        self.num_neurons = out_neurons
        self.register_buffer("spike_state", torch.zeros(1))
        self._know_shape(in_neurons)

    @property
    def synapse(self) -> Any:
        """The synapse from the layer before: ``input_synapse``."""
        return self.input_synapse

    def forward(self, x: Tensor) -> Any:
        weights = [w.flatten(1) for w in called_weights(self.recurrent_synapse)]
        z = self.input_synapse(x)
        x = self._recur(z, lambda spike: [F.linear(spike, w) for w in weights])
        x = step_delay(self, x) if self.delay_shift else x
        return self._counted(self._axon(x))

    def export_hdf5(self, handle: Any) -> None:
        super().export_hdf5(handle)
        net_writer.write_weight(handle, self.recurrent_synapse, 2, name="weight_rec")
