"""A synapse and its quantised neuron as one SpikingJelly module: the twin of a slayer block."""

from typing import Any

import torch.nn as nn
import torch.nn.functional as F
from spikingjelly.activation_based import base, neuron
from torch import Tensor

from .. import slayer as native_slayer
from ..errors import BridgeError, ConversionError
from .cuba_lif import CubaLIFNode
from .pool import SumPool2d
from .to_lava import (
    block_of,
    check_flatten,
    check_synapse,
    to_lava_block_flatten,
    to_lava_neuron_param_dict,
)

__all__ = ["BlockContainer", "to_cuba_lif"]


class BlockContainer(nn.Module, base.StepModule):
    """A synapse with weights of 8 bits and a :class:`CubaLIFNode`: spike for spike a slayer block.

    .. math:: s = \\mathrm{neuron}(q(W)\\,x)

    The weights stay floats and are quantised in every forward, with a straight-through gradient, so
    that a net of these containers can be trained on (quantisation-aware).

    Args:
        synapse: Without bias.
        neu: SpikingJelly's neurons become a :class:`CubaLIFNode` with their surrogate function;
            None for a Flatten.
        step_mode: ``"s"``: ``[N, *]``; ``"m"``: ``[T, N, *]``.

    Raises:
        ConversionError: If slayer has no such synapse or neuron: bias, soft reset,
            ``decay_input=True``, ...
    """

    def __init__(self, synapse: nn.Module, neu: nn.Module | None, step_mode: str = "s") -> None:
        super().__init__()
        if isinstance(synapse, nn.Flatten):
            check_flatten(synapse)
            if neu is not None:
                raise ConversionError("a Flatten has no neuron; put None in its place")
        elif isinstance(synapse, nn.Linear | nn.Conv2d | SumPool2d):
            check_synapse(synapse)
            if neu is None:
                raise ConversionError(f"a {type(synapse).__name__} needs a neuron; found None")
            if not isinstance(neu, CubaLIFNode):
                neu = to_cuba_lif(neu)
        else:
            raise ConversionError(
                f"no block has a {type(synapse).__name__} for its synapse; use Linear, Conv2d, "
                "SumPool2d or Flatten"
            )
        self.synapse: Any = synapse
        self.neuron: CubaLIFNode | None = neu
        self.step_mode = step_mode

    @property
    def step_mode(self) -> str:
        """``"s"`` or ``"m"``; setting it sets the parts' too."""
        return self._step_mode

    @step_mode.setter
    def step_mode(self, value: str) -> None:
        if value not in ("s", "m"):
            raise BridgeError(f"BlockContainer: step_mode must be 's' or 'm', found {value!r}")
        self._step_mode = value
        for part in (self.synapse, self.neuron):
            if isinstance(part, base.StepModule):
                part.step_mode = value

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[T, N, *]`` for spikes ``[T, N, *]``; without T in step mode ``"s"``."""
        if self.step_mode == "s":
            z = self._apply_synapse(x)
        else:
            z = self._apply_synapse(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return z if self.neuron is None else self.neuron(z)

    def _apply_synapse(self, x: Tensor) -> Tensor:
        synapse = self.synapse
        if self.neuron is None:
            return x.flatten(1)
        if isinstance(synapse, nn.Conv2d):
            weight = self.neuron.quantize_8bit(synapse.weight)
            return F.conv2d(
                x,
                weight,
                None,
                synapse.stride,
                synapse.padding,
                synapse.dilation,
                synapse.groups,
            )
        if isinstance(synapse, nn.Linear):
            return F.linear(x, self.neuron.quantize_8bit(synapse.weight))
        return synapse(x) * self.neuron.quantize_8bit(x.new_ones(()))

    def to_lava_block(self, slayer: Any = native_slayer) -> nn.Module:
        """The slayer block that gives the same spikes, with copies of the weights.

        Args:
            slayer: ``lava_bridge.slayer``, or ``lava.lib.dl.slayer`` for the original's blocks.
        """
        if self.neuron is None:
            return to_lava_block_flatten(self.synapse, slayer=slayer)
        return block_of(self.synapse, self.neuron, slayer=slayer)


def to_cuba_lif(neu: nn.Module) -> CubaLIFNode:
    """A :class:`CubaLIFNode` for SpikingJelly's IFNode or LIFNode, with its surrogate function."""
    params = to_lava_neuron_param_dict(neu)
    assert isinstance(neu, neuron.IFNode | neuron.LIFNode)
    return CubaLIFNode(
        params["current_decay"],
        params["voltage_decay"],
        params["threshold"],
        scale=params["scale"],
        surrogate_function=neu.surrogate_function,
        detach_reset=neu.detach_reset,
        step_mode=neu.step_mode,
        store_v_seq=neu.store_v_seq,
    )
