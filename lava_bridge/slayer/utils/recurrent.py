"""A neuron that is fed back its own spikes, step by step."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import recompute

__all__ = ["custom_recurrent", "custom_recurrent_ground_truth_1", "recur"]
__all__ += ["custom_recurrent_ground_truth_2"]


def recur(neuron: Any, z: Any, spike: Tensor, feedback: Callable[[Tensor], list[Any]]) -> Tensor:
    """Spikes ``s[t] = neuron(z[t] + feedback(s[t-1]))``, ``[N, C, *, T]``.

    ``z`` is ``[N, C, *, T]`` or a pair (real, imaginary) of that; ``spike`` is s before the first
    step, begun anew if of another shape; ``feedback`` takes ``[N, C]``, gives a list for the parts.
    """
    parts = z if isinstance(z, tuple) else (z,)
    shape = parts[0].shape[:-1]
    spike = spike.clone() if spike.shape == shape else parts[0].new_zeros(shape)
    steps = []
    for t in range(parts[0].shape[-1]):
        fed_back = zip(parts, feedback(spike.flatten(1)), strict=False)
        drive = tuple((part[..., t] + fed.reshape(shape)).unsqueeze(-1) for part, fed in fed_back)
        spike = neuron(drive if isinstance(z, tuple) else drive[0]).squeeze(-1)
        steps.append(spike)
    return torch.stack(steps, dim=-1)


def called_weights(synapse: Any) -> list[Tensor]:
    """The weights of a synapse's parts as a call of it would use them."""
    parts = [part for _, part in synapse.parts("")]
    for part in parts:
        recompute(part)
    return [part.hooked_weight() for part in parts]


def custom_recurrent(z: Any, neuron: Any, recurrent_synapse: Any) -> Tensor:
    """Spikes for ``z`` ``[N, C, T]`` with feedback through an all-to-all synapse, from silence.

    The neuron should have persistent state. Source: ``lava.lib.dl.slayer.utils.recurrent``.
    """
    weights = [weight.flatten(1) for weight in called_weights(recurrent_synapse)]
    return recur(neuron, z, torch.zeros(0), lambda spike: [F.linear(spike, w) for w in weights])


def custom_recurrent_ground_truth_1(z: Tensor, neuron: Any, recurrent_synapse: Any) -> Tensor:
    """:func:`custom_recurrent` by the synapse's own forward; slayer's check of the other."""
    return recur(neuron, z, torch.zeros(0), lambda spike: [recurrent_synapse(spike[..., None])])


# slayer's second check multiplies by the matrix, which custom_recurrent itself does here.
custom_recurrent_ground_truth_2 = custom_recurrent
