"""A linear layer that waits for its neuron, and what is known of it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch.nn as nn

from ..quantize import held_by_8bit, quantize_bias
from .layers import SCALE, ChannelAffine
from .modules import eight_bit_synapse, shape_after

__all__ = ["SYNAPSES", "Waiting", "copies_first", "merged"]

SYNAPSES = nn.Linear, nn.Conv2d, nn.ConvTranspose2d


@dataclass
class Waiting:
    """A linear layer that waits for its neuron.

    Attributes:
        module: What it computes.
        place: Its path in the net.
        shape: Shape ``[C, *]`` of its input, if known.
        alone: Why it can't be a layer by itself; empty if it can.
        weight_factor: As a :class:`~lava_bridge.convert.FloatLayer` has it.
        scale, factor: What a weight of 1 is on the chip, and by what the bias here is larger than
            the net's, if it has such a factor.
        eight_bits: Whether its weights are those of a container, which 8 bits hold.
    """

    module: nn.Module
    place: str
    shape: tuple[int, ...] | None
    alone: str = ""
    weight_factor: float | None = None
    scale: int = SCALE
    factor: float = 1.0
    eight_bits: bool = False

    @property
    def computed(self) -> Any:
        """The layer with the weights that it computes with: of 8 bits, if it is a container's."""
        if self.weight_factor is None or not isinstance(self.module, SYNAPSES):
            return self.module
        return eight_bit_synapse(self.module, self.scale, self.factor)


def merged(
    module: Any, place: str, shape: tuple[int, ...] | None, parts: Iterable[Waiting]
) -> Waiting:
    """What several layers became, as one that waits; it knows whether 8 bits still hold it."""
    scale = next((part.scale for part in parts if part.eight_bits), None)
    if scale is None:
        return Waiting(module, place, shape)
    bias = getattr(module, "bias", None)
    held = held_by_8bit(module.weight, scale) and (
        bias is None or bool((quantize_bias(bias.detach(), scale) == bias).all())
    )
    return Waiting(module, place, shape, scale=scale, eight_bits=held)


def copies_first(waiting: Iterable[Waiting]) -> list[Waiting]:
    """The same layers, with an Upsample before the norms and paddings that it follows.

    Copies of ``a x + c`` are ``a`` times copies of x, plus c; copies of what has zeros around it
    are copies with as many times more zeros around them.
    """
    ordered: list[Waiting] = []
    for item in waiting:
        passed: list[Waiting] = []
        while (
            ordered
            and isinstance(item.module, nn.Upsample)
            and isinstance(ordered[-1].module, ChannelAffine | nn.ZeroPad2d)
        ):
            passed.insert(0, ordered.pop())
        if not passed:
            ordered.append(item)
            continue
        shape = passed[0].shape
        ordered.append(replace(item, shape=shape))
        for layer in passed:
            shape = None if shape is None else shape_after(ordered[-1].module, shape)
            ordered.append(replace(layer, module=_enlarged(layer.module, item.module), shape=shape))
    return ordered


def _enlarged(layer: Any, upsample: Any) -> nn.Module:
    """What a norm or a padding is after an Upsample in front of it."""
    if isinstance(layer, ChannelAffine):
        return layer
    height, width = (int(factor) for factor in upsample.scale_factor)
    left, right, top, bottom = layer.padding
    return nn.ZeroPad2d((left * width, right * width, top * height, bottom * height))
