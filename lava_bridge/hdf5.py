"""``.net`` files: slayer blocks as HDF5, in the form that lava-dl 0.6.0 writes and Lava reads.

A file has a group ``layer`` with groups ``0``, ``1``, ...: one for each block, with the block's
``type`` and its integers (weights, thresholds, decays as the chip has them).
"""

import io
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn as nn

from . import slayer
from .errors import BridgeError, NetFileError
from .net_reader import LayerReader, open_layers
from .ops import DECAY_SCALE
from .quantize import WEIGHT_MAX, WEIGHT_MIN
from .slayer.block.common import MAX_DELAY
from .slayer.neuron.base import NEVER_FIRES

__all__ = ["export_hdf5", "load_hdf5"]

_blocks = slayer.block.cuba

# Of a norm's shift of the weights: more than any register is wide.
MAX_EXPONENT = 32


# Writing ----------------------------------------------------------------------------------------


def export_hdf5(
    blocks: Iterable[nn.Module] | nn.Module,
    path: str | os.PathLike[str],
    input_shape: tuple[int, ...] | None = None,
) -> None:
    """Write slayer blocks to a ``.net`` file.

    The file appears whole or not at all: if anything fails, a former file at ``path`` is left as it
    was. The blocks are not changed, but for their shape where it was not known.

    Parameters
    ----------
    blocks : iterable of Module
        Blocks of ``lava_bridge.slayer.block``, in order.
    path : path
        The file, by custom ``NAME.net``.
    input_shape : (C, H, W) or (C,), optional
        Shape of one input; needed where the blocks have neither run nor been told their shape.

    Raises
    ------
    NetFileError
        If a block can't be exported (it is named), or the file can't be written.
    """
    target = Path(path)
    layers_of: Any = [blocks] if hasattr(blocks, "export_hdf5") else blocks
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        layers = file.create_group("layer")
        block: Any
        for i, block in enumerate(layers_of):
            place = f"{i} ({type(block).__name__})"
            if not hasattr(block, "export_hdf5"):
                raise NetFileError(
                    f"{place}: is no slayer block; convert the net with lava_bridge.to_slayer first"
                )
            try:
                if input_shape is not None and hasattr(block, "infer_shape"):
                    input_shape = block.infer_shape(input_shape)
                block.export_hdf5(layers.create_group(str(i)))
            except (BridgeError, TypeError, AttributeError, RuntimeError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise NetFileError(f"{place}: {reason}") from error
        if not len(layers):
            raise NetFileError(f"{target}: there are no blocks to write; give at least one")
    _write_whole(target, image.getbuffer())


def _write_whole(target: Path, content: memoryview) -> None:
    """Write a file beside the target, then put it in the target's place."""
    target = target.resolve()  # a link stays a link
    if target.exists() and not target.is_file():
        raise NetFileError(f"{target}: is a directory or a device, not a file; choose another path")
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}.", suffix=".part"
        )
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode_of(target))
        os.replace(temporary, target)
    except OSError as error:
        raise NetFileError(
            f"{target}: can't be written ({error.strerror or error}); free space or choose another "
            "path"
        ) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _mode_of(target: Path) -> int:
    """The permissions of the file that is replaced, or those of a new file."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


# Reading ----------------------------------------------------------------------------------------


def load_hdf5(path: str | os.PathLike[str]) -> nn.Sequential:
    """Read a ``.net`` file back to slayer blocks.

    Files of lava-dl are read too. They do not say whether the blocks delay their spikes by one
    step; as on the chip, they then do. What training needs (surrogate gradients, dropout,
    persistent state) is in no file and has its default.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    nn.Sequential
        Of ``lava_bridge.slayer.block.cuba`` blocks that know their shape.

    Raises
    ------
    NetFileError
        If the file is missing, truncated, not HDF5, or not a net that these blocks can hold; it
        names the place in the file.
    """
    blocks = []
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
                blocks.append(read(layer))
            except NetFileError:
                raise
            except (BridgeError, ValueError, TypeError, RuntimeError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise layer.error("", f"is no valid layer of type {kind!r}: {reason}") from error
    return nn.Sequential(*blocks)


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
        block = _blocks.Input(delay_shift=layer.flag("delay_shift", False))
    else:
        if layer.has("neuron/weight_exp"):
            raise layer.error("neuron/weight_exp", "is a norm's, which an input has not")
        params, scale = _neuron_params(layer)
        block = _blocks.Input(
            params,
            weight=_input_number(layer, "weight", scale),
            bias=_input_number(layer, "bias", scale),
            delay_shift=layer.flag("delay_shift", True),
        )
    block.infer_shape(shape)
    if block.neuron is not None:
        _restore_neuron(layer, block.neuron)
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
    block = _blocks.Flatten()
    block.infer_shape(layer.shape())
    return block


@_reader("average")
def _read_average(layer: LayerReader) -> nn.Module:
    return _blocks.Average(layer.shape()[0])


@_reader("decimation")
def _read_decimation(layer: LayerReader) -> nn.Module:
    block = _blocks.TimeDecimation(layer.integer("factor"))
    block.infer_shape(layer.shape())
    return block


@_reader("dense")
def _read_dense(layer: LayerReader) -> nn.Module:
    if not layer.has("neuron") or layer.integer("neuron/vThMant") == NEVER_FIRES:
        params, _ = _neuron_params(layer) if layer.has("neuron") else _no_neuron(layer)
        block: Any = _blocks.Affine(params, *_dense_sizes(layer), dynamics=layer.has("neuron"))
    else:
        params, _ = _neuron_params(layer)
        block = _blocks.Dense(params, *_dense_sizes(layer), **_axon(layer))
    return _restore(layer, block)


@_reader("dense_rec")
def _read_recurrent(layer: LayerReader) -> nn.Module:
    params, _ = _neuron_params(layer)
    block = _blocks.Recurrent(params, *_dense_sizes(layer), **_axon(layer))
    _restore_weight(layer, block.recurrent_synapse, "weight_rec")
    return _restore(layer, block)


@_reader("kwta")
def _read_kwta(layer: LayerReader) -> nn.Module:
    params, _ = _neuron_params(layer)
    block = _blocks.KWTA(
        params,
        *_dense_sizes(layer),
        layer.integer("numWinners"),
        layer.number("selfExcitation"),
        delay_shift=layer.flag("delay_shift", True),
    )
    return _restore(layer, block)


@_reader("conv")
def _read_conv(layer: LayerReader) -> nn.Module:
    inputs, outputs, groups = _channels(layer)
    params, _ = _neuron_params(layer)
    window = _window(layer, outputs, inputs // groups)
    block = _blocks.Conv(params, inputs, outputs, *window, groups=groups, **_axon(layer))
    return _restore(layer, block)


@_reader("convT")
def _read_conv_transpose(layer: LayerReader) -> nn.Module:
    inputs, outputs, groups = _channels(layer)
    params, _ = _neuron_params(layer)
    window = _window(layer, inputs, outputs // groups)
    block = _blocks.ConvT(params, inputs, outputs, *window, groups=groups, **_axon(layer))
    return _restore(layer, block)


@_reader("pool")
def _read_pool(layer: LayerReader) -> nn.Module:
    params, _ = _neuron_params(layer)
    return _restore(layer, _blocks.Pool(params, *_window(layer, 1, 1), **_axon(layer)))


@_reader("unpool")
def _read_unpool(layer: LayerReader) -> nn.Module:
    params, _ = _neuron_params(layer)
    return _restore(layer, _blocks.Unpool(params, *_window(layer, 1, 1), **_axon(layer)))


# The parts of a layer ---------------------------------------------------------------------------


def _dense_sizes(layer: LayerReader) -> tuple[Any, int]:
    """Inputs and outputs; the weight says whether the layer sees height and width."""
    inputs, outputs = layer.integer("inFeatures", 1), layer.integer("outFeatures", 1)
    weight = layer.shape_of("weight")
    window = weight[2:] if len(weight) == 4 else (1, 1)
    layer.expect("weight", outputs, inputs, *window)
    if layer.has("weight_rec"):
        layer.expect("weight_rec", outputs, outputs)
    _expect_channels(layer, outputs)
    return (inputs if window == (1, 1) else (window[1], window[0], inputs)), outputs


def _expect_channels(layer: LayerReader, channels: int) -> None:
    if layer.shape()[0] != channels:
        raise layer.error("shape", f"is {layer.shape()}, but the layer has {channels} channels")


def _window(layer: LayerReader, *channels: int) -> list[tuple[int, int]]:
    """Kernel, stride, padding and dilation of a weight ``[*channels, height, width]``."""
    kernel = layer.pair("kernelSize", 1)
    layer.expect("weight", *channels, *kernel)
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
    return {"delay": layer.has("delay"), "delay_shift": layer.flag("delay_shift", True)}


def _scale(layer: LayerReader) -> int:
    return layer.attribute("scale", 1 << 6, 1)


def _no_neuron(layer: LayerReader) -> tuple[dict[str, Any], int]:
    """For an Affine without dynamics: a neuron that is there but does nothing."""
    scale = _scale(layer)
    return {"threshold": 1, "current_decay": 1, "voltage_decay": 1, "scale": scale}, scale


def _neuron_params(layer: LayerReader) -> tuple[dict[str, Any], int]:
    """Constructor arguments of the neuron, and its scale."""
    kind = layer.text("neuron/type")
    if kind not in ("CUBA", "LOIHI"):
        raise layer.error("neuron/type", f"is {kind!r}, but only 'CUBA' neurons can be read")
    scale = _scale(layer)
    current, voltage = (layer.integers(f"neuron/{name}") for name in ("iDecay", "vDecay"))
    for name, decay in (("iDecay", current), ("vDecay", voltage)):
        if decay.size not in (1, layer.shape()[0]):
            raise layer.error(
                f"neuron/{name}", f"has {decay.size} decays for {layer.shape()[0]} channels"
            )
        if decay.min() < 0 or decay.max() > DECAY_SCALE:
            raise layer.error(f"neuron/{name}", f"is outside 0 ... {DECAY_SCALE}")
    mantissa = layer.integer("neuron/vThMant", 0)
    if mantissa > NEVER_FIRES:
        raise layer.error("neuron/vThMant", f"is {mantissa}, above {NEVER_FIRES}")
    shared = current.size == voltage.size == 1
    params: dict[str, Any] = {
        # In the middle between two steps of the grid, so that it rounds down to this one.
        "threshold": (mantissa + 0.5) / scale,
        "scale": scale,
        "shared_param": shared,
        "graded_spike": layer.has("neuron/gradedSpike")
        and bool(layer.integer("neuron/gradedSpike")),
    }
    for name, decay in (("current_decay", current), ("voltage_decay", voltage)):
        low, high = decay.min() / DECAY_SCALE, decay.max() / DECAY_SCALE
        params[name] = float(low) if shared else (float(low), float(high))
    if layer.has("neuron/weight_exp"):
        params["norm"] = slayer.neuron.norm.WgtScaleBatchNorm
    elif layer.has("bias") and layer.text("type") != "input":
        params["norm"] = slayer.neuron.norm.MeanOnlyBatchNorm
    return params, scale


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
        block.delay.draw(shape[0])
        block.delay.delay.data = torch.from_numpy(delays)
    if layer.has("neuron"):
        _restore_neuron(layer, block.neuron)
    return block


def _restore_weight(layer: LayerReader, synapse: Any, name: str) -> None:
    weight = layer.floats(name)
    scale = _scale(layer)
    integers = torch.from_numpy(weight.astype(np.float32)).reshape(synapse.weight.shape)
    restored = synapse.pre_hook_fx(integers / scale, descale=True)
    if not torch.equal(restored, integers):
        wrong = integers[restored != integers].flatten()[0].item()
        raise layer.error(name, _not_8_bit(wrong))
    synapse.weight.data = integers / scale


def _restore_neuron(layer: LayerReader, neuron: Any) -> None:
    """Decays per channel and the norm."""
    neuron.draw(neuron.shape[0])
    if not neuron.shared_param:
        for name, key in (("current_decay", "iDecay"), ("voltage_decay", "vDecay")):
            decay = layer.integers(f"neuron/{key}").astype(np.float32).reshape(-1)
            per_channel = np.broadcast_to(decay, neuron.shape[0]).copy()
            getattr(neuron, name).data = torch.from_numpy(per_channel)
    if neuron.norm is None:
        return
    bias = layer.floats("bias").astype(np.float32).reshape(-1)
    if bias.size not in (1, neuron.shape[0]):
        raise layer.error("bias", f"has {bias.size} values for {neuron.shape[0]} channels")
    neuron.norm.running_mean = torch.from_numpy(-bias / neuron.scale)
    neuron.norm.num_features = neuron.shape[0]
    neuron.norm.eval()
    if layer.has("neuron/weight_exp"):
        exponent = layer.integer("neuron/weight_exp")
        if abs(exponent) > MAX_EXPONENT:
            raise layer.error("neuron/weight_exp", f"is {exponent}, beyond {MAX_EXPONENT} bits")
        # Any variance between two powers of four has the exponent of the upper.
        neuron.norm.running_var = torch.tensor([4.0 ** (exponent - 0.5)])
        neuron.norm.weight_exp_bits = layer.attribute("weight_exp_bits", 3, 0)
