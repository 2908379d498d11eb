"""Reading a ``.net`` file: a table of rules, one for each type of layer."""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn as nn

from .. import slayer
from ..checks import first_line
from ..drawing import no_drawing
from ..errors import BridgeError, NetFileError
from ..net_reader import LayerReader, open_layers
from ..net_writer import SLICE
from ..quantize import WEIGHT_MAX, WEIGHT_MIN
from ..slayer.block import plain
from ..slayer.block.common import MAX_DELAY
from ..slayer.neuron.base import NEVER_FIRES
from .encoder import read_encoder
from .neurons import block_of, family_of, neuron_params, no_neuron, restore_neuron, scale_of

__all__ = ["load_hdf5"]


def load_hdf5(path: str | os.PathLike[str], encoder: bool = True) -> nn.Sequential:
    """Read a ``.net`` file back to slayer blocks.

    Files of lava-dl are read too. They do not say whether the blocks delay their spikes by one
    step; as on the chip, they then do. What training needs (surrogate gradients, dropout,
    persistent state) is in no file and has its default.

    Args:
        path: The file.
        encoder: Whether the encoder of the net's input, if it has one, comes first. Without it the
            blocks take spikes.

    Returns:
        Of ``lava_bridge.slayer.block`` blocks that know their shape, after the encoder.

    Raises:
        NetFileError: If the file is missing, truncated, not HDF5, or not a net that these blocks
            can hold; it names the place in the file. If the encoder's file is missing, damaged, or
            another net's.
    """
    front = read_encoder(path) if encoder else None
    blocks: list[Any] = [] if front is None else [front]
    before = None if front is None else front.shape
    with open_layers(path) as layers:
        for layer in layers:
            kind = None
            try:
                kind = layer.text("type")
                read = _READERS.get(kind)
                if read is None:
                    raise layer.error(
                        "type", f"is {kind!r}, which is none of {', '.join(_READERS)}"
                    )
                with no_drawing():
                    block = read(layer)
                before = _followed(layer, block, before)
                blocks.append(block)
            except NetFileError:
                raise
            except (BridgeError, ValueError, TypeError, RuntimeError) as error:
                reason = first_line(error)
                raise layer.error("", f"is no valid layer of type {kind!r}: {reason}") from error
    return nn.Sequential(*blocks)


def _followed(layer: LayerReader, block: Any, before: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of a block's output, which has to be what it makes of the layer before it."""
    shape = layer.shape()
    if before is None:
        return tuple(block.infer_shape(shape)) if layer.text("type") == "flatten" else shape
    reached = tuple(block.infer_shape(before))
    if math.prod(reached) != math.prod(shape):
        raise layer.error("shape", f"is {shape}, but of {before} the layer makes {reached}")
    return reached


_READERS: dict[str, Callable[[LayerReader], nn.Module]] = {}


def _reader(kind: str) -> Callable[[Callable[[LayerReader], nn.Module]], Any]:
    def register(function: Callable[[LayerReader], nn.Module]) -> Any:
        _READERS[kind] = function
        return function

    return register


@_reader("input")
def _read_input(layer: LayerReader) -> nn.Module:
    shape = layer.shape()
    if not layer.has("neuron"):
        # Lava makes no process of such a layer, so nothing delays there.
        block: Any = slayer.block.cuba.Input(delay_shift=layer.flag("delay_shift", False))
    else:
        if layer.has("neuron/weight_exp"):
            raise layer.error("neuron/weight_exp", "is a norm's, which an input has not")
        family, scale = family_of(layer), scale_of(layer)
        block = block_of(layer, "Input")(
            neuron_params(layer),
            weight=_input_number(layer, "weight", scale),
            bias=_input_number(layer, "bias", scale),
            delay_shift=layer.flag("delay_shift", family.delay_shift),
        )
    block.infer_shape(shape)
    if block.neuron is not None:
        restore_neuron(layer, block.neuron)
    return block


def _input_number(layer: LayerReader, name: str, scale: int) -> float | None:
    """An Input block's weight or bias, which 8 bits hold; None if it has none."""
    if not layer.has(name):
        return None
    number = layer.integer(name)
    if number % 2 or not WEIGHT_MIN <= number <= WEIGHT_MAX:
        raise layer.error(name, _not_8_bit(number))
    return number / scale


def _not_8_bit(number: float) -> str:
    return f"has {number:g}, but 8 bits hold the even integers in {WEIGHT_MIN} ... {WEIGHT_MAX}"


@_reader("flatten")
def _read_flatten(layer: LayerReader) -> nn.Module:
    block = plain.Flatten()
    block.infer_shape(layer.shape())
    return block


@_reader("average")
def _read_average(layer: LayerReader) -> nn.Module:
    return plain.Average(layer.shape()[0])


@_reader("decimation")
def _read_decimation(layer: LayerReader) -> nn.Module:
    block = plain.TimeDecimation(layer.integer("factor"))
    block.infer_shape(layer.shape())
    return block


@_reader("dense")
def _read_dense(layer: LayerReader) -> nn.Module:
    if not layer.has("neuron"):
        block = block_of(layer, "Affine")(no_neuron(layer), *_dense_sizes(layer), dynamics=False)
    elif layer.has("neuron/sigma_output"):
        block = block_of(layer, "Output")(neuron_params(layer), *_dense_sizes(layer))
    elif NEVER_FIRES in layer.integers("neuron/vThMant"):
        block = block_of(layer, "Affine")(neuron_params(layer), *_dense_sizes(layer))
    else:
        block = block_of(layer, "Dense")(neuron_params(layer), *_dense_sizes(layer), **_axon(layer))
    return _restore(layer, block)


@_reader("dense_rec")
def _read_recurrent(layer: LayerReader) -> nn.Module:
    block = block_of(layer, "Recurrent")(neuron_params(layer), *_dense_sizes(layer), **_axon(layer))
    _restore_weight(layer, block.recurrent_synapse, "weight_rec")
    return _restore(layer, block)


@_reader("kwta")
def _read_kwta(layer: LayerReader) -> nn.Module:
    block = block_of(layer, "KWTA")(
        neuron_params(layer),
        *_dense_sizes(layer),
        layer.integer("numWinners"),
        layer.number("selfExcitation"),
        delay_shift=layer.flag("delay_shift", True),
    )
    return _restore(layer, block)


@_reader("conv")
def _read_conv(layer: LayerReader) -> nn.Module:
    inputs, outputs, groups = _channels(layer)
    return _read_window(layer, "Conv", (outputs, inputs // groups), inputs, outputs, groups=groups)


@_reader("convT")
def _read_conv_transpose(layer: LayerReader) -> nn.Module:
    inputs, outputs, groups = _channels(layer)
    return _read_window(layer, "ConvT", (inputs, outputs // groups), inputs, outputs, groups=groups)


@_reader("pool")
def _read_pool(layer: LayerReader) -> nn.Module:
    return _read_window(layer, "Pool", (1, 1))


@_reader("unpool")
def _read_unpool(layer: LayerReader) -> nn.Module:
    return _read_window(layer, "Unpool", (1, 1))


def _read_window(
    layer: LayerReader, name: str, channels: tuple[int, int], *args: int, **kwargs: int
) -> nn.Module:
    """A block ``name`` whose synapse slides a window; ``channels`` are its weight's."""
    params, window = neuron_params(layer), _window(layer, *channels)
    block_class = block_of(layer, name)
    return _restore(layer, block_class(params, *args, *window, **kwargs, **_axon(layer)))


# The parts of a layer ---------------------------------------------------------------------------


def _dense_sizes(layer: LayerReader) -> tuple[Any, int]:
    """Inputs and outputs; the weight says whether the layer sees height and width."""
    inputs, outputs = layer.integer("inFeatures", 1), layer.integer("outFeatures", 1)
    weight = layer.shape_of(_weights(layer, "weight")[0])
    window = weight[2:] if len(weight) == 4 else (1, 1)
    for name in _weights(layer, "weight"):
        layer.expect(name, outputs, inputs, *window)
    if layer.has("weight_rec"):
        for name in _weights(layer, "weight_rec"):
            layer.expect(name, outputs, outputs)
    _expect_channels(layer, outputs)
    return (inputs if window == (1, 1) else (window[1], window[0], inputs)), outputs


def _weights(layer: LayerReader, name: str) -> list[str]:
    """The datasets of a weight: one, or a real and an imaginary one."""
    parts = [f"{name}/real", f"{name}/imag"]
    return parts if layer.has(parts[0]) else [name]


def _expect_channels(layer: LayerReader, channels: int) -> None:
    if layer.shape()[0] != channels:
        raise layer.error("shape", f"is {layer.shape()}, but the layer has {channels} channels")


def _window(layer: LayerReader, *channels: int) -> list[tuple[int, int]]:
    """Kernel, stride, padding and dilation of a weight ``[*channels, height, width]``."""
    kernel = layer.pair("kernelSize", 1)
    for name in _weights(layer, "weight"):
        layer.expect(name, *channels, *kernel)
    return [kernel, layer.pair("stride", 1), layer.pair("padding", 0), layer.pair("dilation", 1)]


def _channels(layer: LayerReader) -> tuple[int, int, int]:
    """Channels in and out of a convolution, and its groups."""
    inputs, outputs = layer.integer("inChannels", 1), layer.integer("outChannels", 1)
    groups = layer.integer("groups", 1)
    if inputs % groups or outputs % groups:
        raise layer.error("groups", f"is {groups}, which does not divide {inputs} and {outputs}")
    _expect_channels(layer, outputs)
    return inputs, outputs, groups


def _axon(layer: LayerReader) -> dict[str, bool]:
    default = family_of(layer).delay_shift
    return {"delay": layer.has("delay"), "delay_shift": layer.flag("delay_shift", default)}


def _restore(layer: LayerReader, block: Any) -> nn.Module:
    """Shape, weights, delays and the rest of a layer that has a synapse."""
    shape = layer.shape()
    block.neuron.shape = shape
    _restore_weight(layer, block.synapse, "weight")
    if block.delay is not None:
        delays = layer.floats("delay").astype(np.float32).reshape(-1)
        if delays.size != shape[0]:
            raise layer.error("delay", f"has {delays.size} delays for {shape[0]} channels")
        if delays.min() < 0 or delays.max() > MAX_DELAY:
            raise layer.error("delay", f"has delays outside 0 ... {MAX_DELAY}")
        block.delay.init = True  # nothing is drawn: the file has it
        block.delay.delay.data = torch.from_numpy(delays)
    if layer.has("neuron"):
        restore_neuron(layer, block.neuron)
    block.weight_factor = layer.positive("weight_factor", 1.0)
    return block


def _restore_weight(layer: LayerReader, synapse: Any, name: str) -> None:
    scale = scale_of(layer)
    for place, part in synapse.parts(name):
        read = torch.from_numpy(layer.floats(place).astype(np.float32, copy=False))
        integers, weight = read.reshape(part.weight.shape), part.weight.data
        rows = max(1, SLICE // max(1, weight[:1].numel()))
        for wanted, held in zip(integers.split(rows), weight.split(rows), strict=True):
            torch.div(wanted, scale, out=held)
            restored = part.pre_hook_fx(held, descale=True)
            if not torch.equal(restored, wanted):
                wrong = wanted[restored != wanted].flatten()[0].item()
                raise layer.error(place, _not_8_bit(wrong))
