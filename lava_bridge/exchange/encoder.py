"""The encoder of a net's input as a SpikingJelly module."""

import copy
from typing import Any

from spikingjelly.activation_based import base
from torch import Tensor

from ..encoder import Encoder, InputEncoder

__all__ = ["EncoderNode"]


class EncoderNode(base.MemoryModule):
    """An :class:`~lava_bridge.Encoder` or ``GradedInput`` in a SpikingJelly net, bit for bit.

    It has no gradients: what stands after it is trained, the encoder itself is not. Its voltage
    stays from one forward to the next, as every neuron's, until ``reset_net``.

    Args:
        encoder: It is copied.
        step_mode: ``"s"``: ``[N, *]``; ``"m"``: ``[T, N, *]``.
    """

    v: Any

    def __init__(self, encoder: InputEncoder, step_mode: str = "m") -> None:
        super().__init__()
        self.encoder: Any = copy.deepcopy(encoder)
        self.step_mode = step_mode
        self.register_memory("v", 0.0)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What it makes of one step ``[N, *]``."""
        return self.multi_step_forward(x.unsqueeze(0)).squeeze(0)

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What it makes of all steps ``[T, N, *]``."""
        if not isinstance(self.encoder, Encoder):
            return self.encoder.steps(x_seq)
        before = self.v if isinstance(self.v, Tensor) else None
        spikes, self.v = self.encoder.steps(x_seq, before)
        return spikes
