"""From a SpikingJelly net to slayer blocks: rewritten first, in floats, then rounded to 8 bits."""

import copy
import operator
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import layer

from .. import slayer as native_slayer
from ..errors import BridgeError, ConversionError
from . import neuron_rules as neuron_rules  # registers the rules of neurons
from .build import build_blocks
from .chain import ENCODINGS, Chain
from .rules import rule_of
from .trace import leaves

__all__ = ["rewrite", "to_slayer"]


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
    chain = rewritten(net, input_shape, None)
    return nn.Sequential(*build_blocks(chain.layers, chain.input_shape, delay_shift, slayer))


def rewrite(
    net: nn.Module | list | tuple,
    input_shape: tuple[int, ...] | None = None,
    encoding: str | None = None,
) -> nn.Sequential:
    """Rewrite a SpikingJelly net, exactly and in floats, as one that slayer's blocks can be.

    It gives the spikes of the net in evaluation, but for the rounding of floats: BatchNorm is
    folded, poolings are merged, neurons neither decay their input nor reset to other than 0. This
    is what :func:`to_slayer` rounds to 8 bits.

    Args:
        net, input_shape, encoding: As in :func:`to_slayer`. With ``"direct"`` the encoder is
            the first layer here; with ``"graded"`` the first threshold is 255 times larger.

    Returns:
        A multi-step net of copies, for inputs ``[T, N, *]``; a synapse, then its neuron, ...

    Raises:
        ConversionError: If a part can't be rewritten; it names the part's path in the net.
    """
    chain = rewritten(net, input_shape, encoding)
    modules: list[nn.Module] = []
    dtype = next((p.dtype for p in _parameters(net) if p.is_floating_point()), torch.float32)
    for part in [*([chain.encoder] if chain.encoder else []), *chain.layers]:
        synapse = copy.deepcopy(part.synapse).to(dtype)
        if isinstance(synapse, layer.VotingLayer):
            modules.append(synapse)
        else:
            modules.append(layer.SeqToANNContainer(synapse))
        if part.neuron is not None:
            node: Any = _fresh(part.neuron)
            node.step_mode = "m"
            modules.append(node)
    return nn.Sequential(*modules)


def rewritten(net: Any, input_shape: Any, encoding: str | None) -> Chain:
    """The chain of a net's layers, rewritten."""
    if encoding is not None and encoding not in ENCODINGS:
        raise ConversionError(f"encoding: expected None, 'direct' or 'graded', found {encoding!r}")
    chain = Chain(_checked_shape(input_shape), encoding)
    for place, module in leaves(net):
        chain.place = f"{place or 'net'} ({type(module).__name__})"
        try:
            rule_of(module)(module, chain)
        except BridgeError as error:
            raise ConversionError(f"{chain.place}: {error}") from error
    try:
        chain.finish()
    except BridgeError as error:
        raise ConversionError(f"{chain.place}: {error}") from error
    return chain


def _parameters(net: Any) -> Iterator[torch.Tensor]:
    if isinstance(net, list | tuple):
        for part in net:
            yield from _parameters(part)
    else:
        yield from net.parameters()


def _fresh(node: Any) -> nn.Module:
    """A copy of a neuron without the state of a run."""
    made = copy.copy(node)
    made.__dict__ = {**node.__dict__, "_memories": dict(node._memories_rv)}
    return copy.deepcopy(made)


def _checked_shape(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if shape is None:
        return None
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = ()
    if len(sizes) not in (1, 2, 3) or min(sizes) < 1:
        raise ConversionError(
            f"input_shape: expected (C, H, W), (C, L) or (C,) of positive integers, found {shape!r}"
        )
    return sizes
