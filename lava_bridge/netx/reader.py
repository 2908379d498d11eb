"""Reading a ``.net`` file into the layers of an integer run: a rule for each type of layer."""

import math
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checks import first_line
from ..errors import BridgeError, NetFileError
from ..net_reader import LayerReader, open_layers
from ..quantize import DECAY_SCALE
from . import synapse
from .layer import UNIT, Average, InputLayer, Layer, SynapticLayer
from .neuron import Delta, Lif, Neuron
from .neuron_reader import (
    GRADED_BITS,
    Options,
    Reading,
    leave_out,
    lif,
    message_bits,
    neuron_of,
    neuron_type,
    sigma_delta_left_out,
    values,
)
from .weights import cut, slices, spread

__all__ = ["Read", "read_layers"]

# Loihi 2 delays a spike by at most so many steps (lava-dl: slayer.axon.Delay, netx).
MAX_DELAY = 62


class Read(NamedTuple):
    """What reading gives: the layers, and shapes ``(C, H, W)`` or ``(C,)``; None: not known.

    ``shifted_input``: whether the block of the input delays it by a step.
    """

    layers: list[Layer]
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...]
    shifted_input: bool


def read_layers(path: str | os.PathLike[str], options: Options) -> Read:
    """Read the layers of a file.

    Raises:
        NetFileError: If the file is missing, damaged, or no net that can be run with integers; it
            names the place in the file.
    """
    reading = Reading(options)
    layers: list[Layer] = []
    input_shape = reading.shape
    with open_layers(path) as found:
        for i, group in enumerate(found):
            if options.num_layers is not None and i >= options.num_layers:
                break
            kind = None
            try:
                kind = group.text("type")
                rule = _RULES.get(kind)
                if rule is None:
                    raise group.error(
                        "type", f"is {kind!r}; an integer run has none but {', '.join(_RULES)}"
                    )
                before = reading.shape
                layer = rule(group, reading)
            except NetFileError:
                raise
            except (BridgeError, ValueError, TypeError, RuntimeError) as error:
                reason = first_line(error)
                raise group.error("", f"is no valid layer of type {kind!r}: {reason}") from error
            if layer is not None:
                if layer.steps and group.has("neuron"):
                    layer.delay_shift = group.flag("delay_shift", neuron_type(group) != "SDNN")
                reading.shape = layer.shape
                reading.message_bits = layer.message_bits
            if reading.shape != before:
                reading.before = "the layer before it", "export the net anew"
            if i < options.skip_layers:
                input_shape = reading.shape
            elif layer is not None:
                if not layers:
                    input_shape = layer.shape if isinstance(layer, InputLayer) else before
                layers.append(layer)
                reading.reset_offset += 1
    if not layers:
        raise NetFileError(
            f"{os.fspath(path)}: no layer is left to run: none has synapses, or num_layers and "
            "skip_layers leave none; give a whole net"
        )
    if input_shape is None:
        input_shape = getattr(layers[0], "inputs", None)
    assert reading.shape is not None
    return Read(layers, input_shape, reading.shape, reading.shifted_input)


_RULES: dict[str, Callable[[LayerReader, Reading], Layer | None]] = {}


def _rule(kind: str) -> Callable[[Callable[[LayerReader, Reading], Layer | None]], Any]:
    def register(function: Callable[[LayerReader, Reading], Layer | None]) -> Any:
        _RULES[kind] = function
        return function

    return register


# The layers --------------------------------------------------------------------------------------


@_rule("input")
def _input(group: LayerReader, reading: Reading) -> Layer | None:
    shape = group.shape() if group.has("shape") else reading.shape
    if not group.has("neuron"):
        reading.shape = shape
        reading.shifted_input = group.flag("delay_shift", False)
        return None
    if shape is None:
        raise group.error("shape", "is missing")
    weight = group.integer("weight") if group.has("weight") else UNIT
    bias = group.integer("bias") if group.has("bias") else 0
    kind, scale = neuron_type(group), group.attribute("scale", UNIT, 1)
    reading.shifted_input = group.flag("delay_shift", kind != "SDNN")
    if kind == "SDNN":
        sigma_delta_left_out(group)
        bits = message_bits(group, GRADED_BITS)
        threshold = values(group, "vThMant", shape)
        neuron: Neuron = Delta(threshold, reading.options.spike_exp, bits)
    elif kind == "CUBA":
        made = lif(group, shape, reading, None)
        if bool((made.current_decay != DECAY_SCALE).any()):
            leave_out(group, "the input goes to the voltage, past the current")
        if scale != UNIT and not group.has("weight"):
            leave_out(group, f"the input is weighed by {UNIT}, not by its scale of {scale}")
        neuron = made
    else:
        raise group.error("neuron/type", f"is {kind!r}, which an input has not in Lava")
    return InputLayer(group.name, shape, neuron, weight, bias, scale)


@_rule("flatten")
def _flatten(group: LayerReader, reading: Reading) -> None:
    if reading.shape is not None:
        reading.shape = (math.prod(reading.shape),)


@_rule("average")
def _average(group: LayerReader, reading: Reading) -> Layer:
    outputs = group.shape()[0]
    if reading.shape is not None and math.prod(reading.shape) % outputs:
        raise group.error("shape", f"is {outputs}, which does not divide {reading.shape}")
    return Average(group.name, (outputs,))


@_rule("dense")
def _dense(group: LayerReader, reading: Reading) -> Layer:
    return _all_to_all(group, reading)


@_rule("dense_rec")
def _dense_recurrent(group: LayerReader, reading: Reading) -> Layer:
    return _all_to_all(group, reading, "weight_rec")


def _all_to_all(group: LayerReader, reading: Reading, fed_back: str | None = None) -> Layer:
    shape = (math.prod(group.shape()),)
    delays: dict[str, Any] = {}
    synapses: list[synapse.Synapse] = []
    recurrent: list[synapse.Synapse] = []
    inputs = 0
    for part in _parts(group):
        name = f"weight{part}"
        weight = _matrix(group, name, shape[0])
        if synapses and weight.shape[1] != inputs:
            raise group.error(name, f"takes {weight.shape[1]} neurons, not {inputs}")
        inputs = weight.shape[1]
        back = np.zeros((shape[0], 0), np.int32)
        if fed_back is not None:
            back = _matrix(group, f"{fed_back}{part}", shape[0])
        (forward, again), shift = _spread(group, name, weight, back)
        if group.has("delay"):
            forward, delays = _dense_delays(group, forward, fed_back)
            if fed_back is None and (group.has("bias") or group.has("neuron/bias")):
                leave_out(group, "delays hold back the input, and not what the bias does")
        synapses.append(_dense_synapse(forward, shift))
        if fed_back is not None:
            recurrent.append(_dense_synapse(again, shift))
    if reading.shape is not None and math.prod(reading.shape) != inputs:
        before, todo = reading.before
        what = f"takes {inputs} neurons, but {before} has {reading.shape}"
        raise group.error("weight", what, todo)
    neuron = neuron_of(group, shape, reading)
    if fed_back is not None and isinstance(neuron, Lif) and group.has("bias"):
        lasts = bool((neuron.current_decay != DECAY_SCALE).any())
        if lasts and bool(neuron.bias.any()) and not group.flag("channel_bias", False):
            leave_out(group, "the current goes on without what its norm added to it")
    layer = SynapticLayer(
        group.name,
        "Dense",
        shape,
        tuple(synapses),
        neuron,
        reading.message_bits > 0,
        tuple(recurrent),
        **delays,
    )
    layer.inputs = (inputs,)
    return layer


def _spread(
    group: LayerReader, name: str, *parts: np.ndarray
) -> tuple[tuple[np.ndarray, ...], int]:
    """Matrices side by side, spread over eight bits as one and cut each by itself; the shift."""
    try:
        spread_out = spread(np.hstack(parts) if parts[-1].size else parts[0])
    except ValueError as error:
        raise group.error(name, str(error)) from error
    ends = np.cumsum([part.shape[1] for part in parts])[:-1]
    each = np.split(spread_out.weight, ends, axis=1)
    kept = tuple(cut(part, spread_out.bits) for part in each)
    for part, held in zip(parts, kept, strict=True):
        changed, found = 0, (0, 0)
        for rows, now in zip(slices(part), slices(held), strict=True):
            wrong = (rows.astype(np.int64) << spread_out.shift) != now
            if wrong.any():
                found = found if changed else (int(rows[wrong][0]), int(now[wrong][0]))
                changed += int(wrong.sum())
        if changed:
            first, becomes = found[0], found[1] / (1 << spread_out.shift)
            what = f"{changed} numbers of its {name} become others in 8 bits"
            advice = f"({first} is {becomes:g}); give it a positive one or none of {first}"
            leave_out(group, f"{what} {advice}")
    return kept, spread_out.shift


def _dense_synapse(weight: np.ndarray, shift: int) -> synapse.Synapse:
    lost = (1 << shift) - 1
    if shift and not any((rows & lost).any() for rows in slices(weight)):
        weight >>= shift  # shifting the sum is shifting the weights
        shift = 0
    return synapse.dense(weight, shift)


def _dense_delays(
    group: LayerReader, weight: np.ndarray, fed_back: str | None
) -> tuple[np.ndarray, dict[str, Tensor]]:
    """Delays, where Lava has them: on the synapse; and the weights that go with them."""
    delay, (outputs, inputs) = _delays(group), weight.shape
    if delay.size == weight.size and delay.size not in (1, outputs):
        # Each synapse its own: the weights of each delay by themselves.
        steps, delay = np.unique(delay), delay.reshape(weight.shape)
        each = [np.where(delay == step, weight, 0) for step in steps]
        repeated = torch.from_numpy(np.repeat(steps[:, None], outputs, axis=1))
        return np.concatenate(each), {"synaptic": repeated}
    if delay.size not in (1, outputs, inputs):
        raise group.error("delay", f"has {delay.size} delays for {outputs} neurons")
    if delay.size == inputs != outputs and fed_back is None:
        return weight, {"arriving": torch.from_numpy(delay)}
    axon = torch.from_numpy(np.broadcast_to(delay, (outputs,)).copy())
    return weight, {"synaptic" if fed_back is None else "leaving": axon}


Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@_rule("conv")
def _conv(group: LayerReader, reading: Reading) -> Layer:
    groups, weights, window = group.integer("groups", 1), _kernels(group), _window(group)
    outputs, each_group = weights[0].shape[:2]
    if outputs % groups:
        raise group.error("groups", f"is {groups}, which does not divide {outputs}")
    made = [synapse.conv(weight, *window, groups) for weight in weights]
    return _windowed(group, reading, "Conv", made, weights[0], window, groups, each_group * groups)


@_rule("convT")
def _conv_transpose(group: LayerReader, reading: Reading) -> Layer:
    groups, weights, window = group.integer("groups", 1), _kernels(group), _window(group)
    inputs = weights[0].shape[0]
    if inputs % groups:
        raise group.error("groups", f"is {groups}, which does not divide {inputs}")
    made = [synapse.conv_transpose(weight, *window, groups) for weight in weights]
    return _windowed(group, reading, "ConvT", made, weights[0], window, groups, inputs)


@_rule("pool")
def _pool(group: LayerReader, reading: Reading) -> Layer:
    weights, window = _single_kernels(group), _window(group)
    channels, height, width = _plane(group, reading)
    stride, padding, dilation = window
    fill = (0, 0)
    if stride == weights[0].shape[2:] and not any(padding) and dilation == (1, 1):
        # A window that the edge cuts off counts too.
        fill = (-height % stride[0], -width % stride[1])
    made = [synapse.pool(weight, channels, *window, fill) for weight in weights]
    return _windowed(group, reading, "Pool", made, weights[0], window, channels, channels)


@_rule("unpool")
def _unpool(group: LayerReader, reading: Reading) -> Layer:
    weights, window = _single_kernels(group), _window(group)
    channels = _plane(group, reading)[0]
    made = [synapse.unpool(weight, channels, *window) for weight in weights]
    return _windowed(group, reading, "Unpool", made, weights[0], window, channels, channels)


def _windowed(
    group: LayerReader,
    reading: Reading,
    kind: str,
    made: list[synapse.Synapse],
    weight: np.ndarray,
    window: Window,
    groups: int,
    inputs: int,
) -> Layer:
    """A layer whose synapses slide a window over planes."""
    if not group.has("neuron"):
        raise group.error("neuron", "is missing")
    plane, shape = _plane(group, reading), group.shape()
    if plane[0] != inputs:
        raise group.error("weight", f"takes {inputs} channels, but the layer before has {plane}")
    for part in made:
        reached = part.output_shape(plane)
        if reached != shape:
            raise group.error("shape", f"is {shape}, but the layer's window gives {reached}")
    leaving = None
    if group.has("delay"):
        delay = _delays(group)
        if delay.size not in (1, shape[0]):
            raise group.error("delay", f"has {delay.size} delays for {shape[0]} channels")
        leaving = torch.from_numpy(delay).reshape(-1, 1, 1)
    cells = (weight.shape[2:], *window)
    table = (*(f"{pair[1]:2d},{pair[0]:2d}" for pair in cells), f"{groups:5d}")
    layer = SynapticLayer(
        group.name,
        kind,
        shape,
        tuple(made),
        neuron_of(group, shape, reading),
        reading.message_bits > 0,
        leaving=leaving,
        table=table,
    )
    layer.inputs = plane
    return layer


# Their parts -------------------------------------------------------------------------------------


def _parts(group: LayerReader) -> tuple[str, ...]:
    """The suffixes of a weight's datasets: one, or a real and an imaginary one."""
    return ("/real", "/imag") if group.has("weight/imag") else ("",)


def _matrix(group: LayerReader, name: str, rows: int) -> np.ndarray:
    """A weight ``[O, I]``; one of more dimensions sees a plane, in the order of a flattened one."""
    weight = group.weights(name)
    if weight.size % rows or (weight.ndim > 1 and weight.shape[0] != rows):
        raise group.error(name, f"has the shape {weight.shape}, but the layer has {rows} neurons")
    return weight.reshape(rows, -1)


def _kernels(group: LayerReader) -> list[np.ndarray]:
    """Weights of four dimensions; lava-dl's may have a fifth, of one step in time."""
    weights = []
    for part in _parts(group):
        weight = group.weights(f"weight{part}")
        if weight.ndim not in (4, 5) or weight.shape[4:] not in ((), (1,)) or not weight.size:
            raise group.error(
                f"weight{part}", f"has the shape {weight.shape}, not (out, in, height, width)"
            )
        weights.append(weight.reshape(weight.shape[:4]))
    return weights


def _single_kernels(group: LayerReader) -> list[np.ndarray]:
    """Weights of one kernel for all channels."""
    size = group.pair("kernelSize", 1)
    weights = []
    for part in _parts(group):
        weight = group.weights(f"weight{part}")
        if weight.size != math.prod(size):
            raise group.error(
                f"weight{part}", f"has the shape {weight.shape}, not one kernel of {size}"
            )
        weights.append(weight.reshape(1, 1, *size))
    return weights


def _window(group: LayerReader) -> Window:
    return group.pair("stride", 1), group.pair("padding", 0), group.pair("dilation", 1)


def _plane(group: LayerReader, reading: Reading) -> tuple[int, int, int]:
    shape = reading.shape
    if shape is None:
        raise group.error(
            "",
            "has a window, and the shape of its input is not known",
            "give input_shape=(W, H, C)",
        )
    if len(shape) != 3:
        before, todo = reading.before
        raise group.error("", f"has a window, but {before} has {shape}, no planes", todo)
    return shape[0], shape[1], shape[2]


def _delays(group: LayerReader) -> np.ndarray:
    delay = np.atleast_1d(group.floats("delay")).reshape(-1).astype(np.float64)
    if not delay.size or delay.min() < 0:
        raise group.error("delay", "has delays below 0, or none at all")
    if delay.max() > MAX_DELAY:
        warnings.warn(
            f"{group.name}/delay: clamped from {delay.max():g} to {MAX_DELAY} steps, as Lava does",
            stacklevel=2,
        )
    return np.floor(delay.clip(0, MAX_DELAY)).astype(np.int64)
