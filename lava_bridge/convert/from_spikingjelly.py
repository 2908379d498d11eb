"""From a SpikingJelly net to slayer blocks: rewritten first, in floats, then rounded to 8 bits."""

import copy
import math
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import layer, neuron

from .. import slayer as native_slayer
from ..checks import HOOKS, checked_shape
from ..encoder import Encoder, GradedInput, split_encoder
from ..errors import BridgeError, ConversionError
from ..layout import NXT_to_TNX, TNX_to_NXT
from . import neuron_rules as neuron_rules  # registers the rules of neurons
from .build import build_blocks
from .calibration import (
    LEAST_THRESHOLD,
    calibrate as calibrate_layers,
    calibration_of,
    checked_data,
)
from .chain import ENCODINGS, Chain
from .choices import Calibration
from .layer_run import scale_of
from .layers import FloatLayer
from .modules import eight_bit_synapse
from .result import ConversionReport, SlayerNet
from .rules import rule_of
from .trace import leaves
from .waiting import SYNAPSES

__all__ = ["rewrite", "to_slayer"]

# The share of a layer's weights that calibration may clip without a warning.
MOST_CLIPPED = 0.05


def to_slayer(
    net: nn.Module | list | tuple,
    input_shape: tuple[int, ...] | None = None,
    delay_shift: bool = False,
    slayer: Any = native_slayer,
    calibrate: Any = None,
    encoding: str | None = None,
) -> SlayerNet:
    """Convert a trained SpikingJelly net to slayer blocks, weights of 8 bits and all.

    The net is rewritten, exactly, as layers of a synapse and a neuron (:func:`rewrite`); these are
    rounded: weights to 8 bits, thresholds down to the chip's grid. The blocks give the spikes of
    that rounded net, step for step (:func:`to_spikingjelly` of them is it). The net is not changed
    and shares nothing with the blocks.

    Args:
        net: Layers in order, nested as you like, or any module whose forward is a chain of them:
            Linear, Conv1d, Conv2d, ConvTranspose2d, BatchNorm, poolings, padding, Upsample,
            Flatten, Dropout (of torch or SpikingJelly), IFNode, LIFNode, ParametricLIFNode,
            CubaLIFNode, VotingLayer, BlockContainer, and SpikingJelly's step-mode containers.
        input_shape: Shape of one input, without batch and time: ``(C, H, W)``, ``(C,)``, or
            ``(C, L)``, of which blocks take ``[N, C, 1, L, T]``. With it every block knows its
            shape, so that it can be exported at once, and an Input block comes first. Without,
            poolings are taken to fit their input (slayer's Pool counts a window that is cut off,
            AvgPool2d leaves it out).
        delay_shift: Whether each block delays its spikes by one step, as the chip does. Without,
            the blocks equal the SpikingJelly net step for step; with it they equal it later by the
            delays, but for biases behind a delay, which act before the spikes arrive.
        slayer: ``lava_bridge.slayer``, or ``lava.lib.dl.slayer`` for the original's blocks.
        calibrate: How each layer is scaled to 8 bits. None: as it is. ``"weights"``: so that its
            weights take all of them. A batch of input ``[T, N, *]``: so that its spikes are
            nearest to those of the net. A :class:`Calibration`, or blocks of this net: as there.
        encoding: What the net is fed with. None: spikes, 0 or 1. ``"direct"``: numbers; its first
            synapse and neuron stay in floats, in front of the blocks (:class:`Encoder`).
            ``"graded"``: numbers in 0 ... 1, of which integers of 8 bits are made.

    Returns:
        The blocks; ``print(blocks.report)`` says what was rewritten and calibrated.

    Raises:
        ConversionError: If a part can't be converted; it names the part's path in the net.

    Warns
    -----
    UserWarning
        If weights lie outside the 8-bit range and are clipped, or use few of its levels; if a bias
        acts before delayed spikes arrive; if data for calibration are no spikes, and no encoding
        is given; if modules have forward hooks, which are left out.
    """
    if not hasattr(slayer, "block"):
        raise ConversionError(
            f"slayer: expected lava_bridge.slayer or lava.lib.dl.slayer, found {slayer!r}"
        )
    chain = rewritten(net, input_shape, encoding)
    shape = _planes(checked_shape(input_shape, ConversionError))
    front: list[nn.Module] = []
    if chain.front is not None:
        front.append(chain.front)
    elif encoding == "graded":
        front.append(GradedInput(input_shape=shape))
    elif chain.encoder is not None:
        front.append(_encoder(chain.encoder, shape))
    _require_layers(chain)
    made = torch.empty(0).device  # where the blocks will be, whatever the net's
    front = [part.to(made) for part in front]
    chosen = _calibration(chain, calibrate, front, shape)
    factors = None if chosen is None else chosen.factors
    for choice in () if chosen is None else chosen.layers:
        if choice.limit == LEAST_THRESHOLD and choice.clipped > MOST_CLIPPED:
            warnings.warn(
                f"{choice.place}: {choice.clipped:.0%} of its weights are clipped, since its "
                "threshold can't be lower with them; scale the net's weights down, or its "
                "threshold up",
                stacklevel=2,
            )
    blocks = build_blocks(chain.layers, chain.input_shape, delay_shift, slayer, factors)
    everything = [*([chain.encoder] if chain.encoder else []), *chain.layers]
    return SlayerNet(*front, *blocks, report=ConversionReport.of(everything, chosen))


def _require_layers(chain: Chain) -> None:
    """Refuse a net of which all is in front of the chip: no file of it could be verified."""
    if not (chain.layers or chain.encoder or chain.front):
        raise ConversionError("net: has no layers; give a net of a synapse and a neuron or more")
    if chain.encoder is None and chain.front is None:
        return
    if any(not isinstance(part.synapse, nn.Flatten | layer.VotingLayer) for part in chain.layers):
        return
    place = "net" if chain.encoder is None else chain.encoder.neuron_place
    raise ConversionError(
        f"{place}: the net's one spiking layer becomes the encoder, and no layer is left for the "
        "chip; give a net of two layers or more, or encode the input as spikes (encoding=None)"
    )


def _encoder(part: FloatLayer, shape: tuple[int, ...] | None) -> Encoder:
    """The layer in front of the blocks, in floats."""
    node: Any = part.neuron
    if not isinstance(node, neuron.IFNode | neuron.LIFNode):
        raise ConversionError(
            f"{part.neuron_place}: is quantised, but the first neuron of a net with "
            "encoding='direct' stays in floats; use an IFNode or LIFNode there"
        )
    tau = node.tau if isinstance(node, neuron.LIFNode) else math.inf
    try:
        return Encoder(part.synapse, node.v_threshold, tau, shape)
    except BridgeError as error:
        raise ConversionError(f"{part.place}: {error}") from error


def _calibration(
    chain: Chain, given: Any, front: list[nn.Module], shape: tuple[int, ...] | None
) -> Calibration | None:
    """The choices for the layers that a caller asked for."""
    layers = chain.layers
    if given is None:
        return None
    if isinstance(given, str):
        if given != "weights":
            raise ConversionError(
                f"calibrate: expected None, 'weights', or a batch of input [T, N, *], found "
                f"{given!r}"
            )
        first = chain.input_shape or ()
        return calibrate_layers(layers, channels=first[0] if len(first) == 3 else 1)
    if isinstance(given, Calibration):
        if len(given.layers) != len(layers):
            raise ConversionError(
                f"calibrate: has choices for {len(given.layers)} layers, but the net has "
                f"{len(layers)}; give the calibration of this net"
            )
        for done, choice in zip(layers, given.layers, strict=True):
            if done.quantised and choice.factor != 1:
                raise ConversionError(
                    f"calibrate: has a factor of {choice.factor:.4g} for {done.place}, which is "
                    "quantised already; give the calibration of this net"
                )
        return given
    if isinstance(given, list | tuple) and all(isinstance(part, nn.Module) for part in given):
        given = nn.Sequential(*given)
    if isinstance(given, nn.Sequential):
        return _of_blocks(layers, given)
    x = checked_data(given)
    _require_samples(x, shape)
    if not front and not torch.equal(x, (x != 0).to(x.dtype)):
        warnings.warn(
            "calibrate: the data have values other than 0 and 1, but the net takes spikes; give "
            "encoding='direct' or 'graded' for a net that is fed with such",
            stacklevel=3,
        )
    if chain.flat and x.dim() == 4:  # [T, N, C, L]
        x = x.unsqueeze(3)
    for part in front:
        try:
            x = NXT_to_TNX(part(TNX_to_NXT(x.float())))
        except BridgeError as error:
            raise ConversionError(f"calibrate: {error}") from error
    return calibrate_layers(layers, x)


def _require_samples(x: torch.Tensor, shape: tuple[int, ...] | None) -> None:
    """Refuse data ``[T, N, *]`` whose samples have not the shape of one input, or it flattened."""
    found = tuple(x.shape[2:])
    flat = shape is not None and min(len(shape), len(found)) == 1
    if shape is None or found == shape or _planes(found) == shape:
        return
    if not flat or math.prod(found) != math.prod(shape):
        raise ConversionError(
            f"calibrate: expected samples of shape {shape}, which input_shape says, found {found} "
            f"in data of shape {tuple(x.shape)}; give data [T, N, *] of such samples"
        )


def _of_blocks(layers: list[FloatLayer], blocks: nn.Sequential) -> Calibration | None:
    """The factors that the blocks of a net have, for its layers; None if all are 1."""
    synapses = [block for block in split_encoder(blocks)[1] if hasattr(block, "synapse")]
    factors = [getattr(block, "weight_factor", 1.0) for block in synapses]
    neurons = [not isinstance(part.synapse, nn.Flatten | layer.VotingLayer) for part in layers]
    if sum(neurons) != len(factors):
        raise ConversionError(
            f"calibrate: the blocks or the file have {len(factors)} layers with a synapse, but the "
            f"net has {sum(neurons)}; give those of this net, converted with the same encoding"
        )
    if all(factor == 1 for factor in factors):
        return None
    left = iter(factors)
    return calibration_of(layers, [next(left) if has_neuron else 1.0 for has_neuron in neurons])


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
    dtype = next((p.dtype for p in _tensors(net) if p.is_floating_point()), torch.float32)
    flat = input_shape is not None and len(input_shape) == 1
    if chain.encoder and isinstance(chain.encoder.synapse, nn.Linear) and not flat:
        modules.append(layer.SeqToANNContainer(nn.Flatten()))
    for part in [*([chain.encoder] if chain.encoder else []), *chain.layers]:
        synapse = copy.deepcopy(part.synapse).to(dtype)
        if part.weight_factor is not None and isinstance(synapse, SYNAPSES):
            synapse = eight_bit_synapse(synapse, scale_of(part))
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
    chain = Chain(checked_shape(input_shape, ConversionError), encoding)
    device = next((p.device for p in _tensors(net)), torch.device("cpu"))
    # Layers are merged with gradients, and those that the rules make join the net's where it is.
    # A forward that is traced may draw numbers.
    gpus = [device] if device.type == "cuda" else []
    with torch.inference_mode(False), torch.random.fork_rng(gpus), device:
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


def _tensors(net: Any) -> Iterator[torch.Tensor]:
    if isinstance(net, list | tuple):
        for part in net:
            yield from _tensors(part)
    elif isinstance(net, nn.Module):
        yield from net.parameters()
        yield from net.buffers()


def _fresh(node: Any) -> nn.Module:
    """A copy of a neuron without the state of a run, and without the hooks of monitors."""
    made = copy.copy(node)
    hooks: dict[str, Any] = {name: OrderedDict() for name in HOOKS}
    made.__dict__ = {**node.__dict__, "_memories": dict(node._memories_rv), **hooks}
    return copy.deepcopy(made)


def _planes(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """A shape ``(C, L)`` as ``(C, 1, L)``."""
    return shape if shape is None or len(shape) != 2 else (shape[0], 1, shape[1])
