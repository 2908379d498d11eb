"""From a SpikingJelly net to slayer blocks."""

import operator
from typing import Any

import torch.nn as nn

from .. import slayer as native_slayer
from ..errors import BridgeError, ConversionError
from .chain import Chain
from .rules import rule_of
from .trace import leaves

__all__ = ["to_slayer"]


def to_slayer(
    net: nn.Module | list | tuple,
    input_shape: tuple[int, ...] | None = None,
    delay_shift: bool = False,
    slayer: Any = native_slayer,
) -> nn.Sequential:
    """Convert a trained SpikingJelly net to slayer blocks, weights of 8 bits and all.

    The blocks give, step for step, the spikes of the net with its weights quantised to 8 bits and
    its thresholds rounded down to the grid (:func:`to_spikingjelly` of them is that net). The net
    is not changed and shares nothing with the blocks.

    Args:
        net: Layers in order, nested as you like: Linear, Conv2d, AvgPool2d, SumPool2d, Flatten,
            Dropout, Identity (of torch or SpikingJelly), IFNode, LIFNode, CubaLIFNode,
            BlockContainer, and SpikingJelly's step-mode containers. The layers must have no bias.
        input_shape: Shape of one input, without batch and time. With it every block knows its
            shape, so that it can be exported at once, and an Input block comes first. Without,
            poolings are taken to fit their input (slayer's Pool counts a window that is cut off,
            AvgPool2d leaves it out).
        delay_shift: Whether each block delays its spikes by one step, as the chip does. Without,
            the blocks equal the SpikingJelly net step for step.
        slayer: ``lava_bridge.slayer``, or ``lava.lib.dl.slayer`` for the original's blocks.

    Returns:
        Of slayer blocks, for inputs ``[N, C, H, W, T]`` or ``[N, C, T]``.

    Raises:
        ConversionError: If a part can't be converted; it names the part's path in the net.

    Warns
    -----
    UserWarning
        If weights lie outside the 8-bit range and are clipped.
    """
    chain = Chain(_checked_shape(input_shape), slayer, delay_shift)
    for place, module in leaves(net):
        chain.place = f"{place or 'net'} ({type(module).__name__})"
        try:
            rule_of(module)(module, chain)
        except BridgeError as error:
            raise ConversionError(f"{chain.place}: {error}") from error
    try:
        return nn.Sequential(*chain.finish())
    except BridgeError as error:
        raise ConversionError(f"{chain.place}: {error}") from error


def _checked_shape(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if shape is None:
        return None
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = ()
    if len(sizes) not in (1, 3) or min(sizes) < 1:
        raise ConversionError(
            f"input_shape: expected (C, H, W) or (C,) of positive integers, found {shape!r}"
        )
    return sizes
