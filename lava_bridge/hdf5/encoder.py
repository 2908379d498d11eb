"""The encoder beside a ``.net`` file: NAME.encoder.h5, which the file names by its checksum.

Its one group ``layer/0`` has ``type`` (``direct`` or ``graded``), ``shape`` (of the input) and the
numbers, floats as they are. The ``.net`` file's root has the attribute ``encoder``: the SHA-256 of
the encoder's file. Lava's reader does not look at it.
"""

import hashlib
import io
import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn as nn

from ..checks import first_line
from ..encoder import SYNAPSES, Encoder, GradedInput, InputEncoder, plain_synapse
from ..errors import BridgeError, NetFileError
from ..net_reader import LayerReader, open_layers, root_text

__all__ = ["MARK", "checksum", "encoder_file", "encoder_image", "read_encoder"]

# The attribute of a .net file's root.
MARK = "encoder"
CHECKSUM_LENGTH = 64
CHUNK = 1 << 20

WITHOUT = "pass encoder=False (on the command line --no-encode) to take spikes"


def encoder_file(path: str | os.PathLike[str]) -> Path:
    """Where the encoder of a ``.net`` file lies: beside it, NAME.net and NAME.encoder.h5."""
    net = Path(os.path.realpath(path))  # beside the file itself, not beside a link to it
    return net.with_name(f"{net.name.removesuffix('.net')}.encoder.h5")


def encoder_image(encoder: Any) -> memoryview:
    """The content of an encoder's file.

    Raises:
        NetFileError: If the encoder's shape is not known, or its numbers are none.
    """
    if encoder.input_shape is None:
        raise NetFileError(
            f"{type(encoder).__name__}: the shape of its input is not known; run it once, or call "
            "infer_shape((C, H, W)), or pass input_shape to lava_bridge.export_hdf5"
        )
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        layer = file.create_group("layer/0")
        layer.create_dataset("type", (1,), "S10", [encoder.kind.encode("ascii")])
        layer.create_dataset("shape", data=np.array(encoder.input_shape, dtype=np.int64))
        if isinstance(encoder, Encoder):
            _write_encoder(layer, encoder)
        else:
            layer.create_dataset("levels", data=encoder.levels)
            layer.create_dataset("amplitude", data=encoder.amplitude)
    return image.getbuffer()


def _write_encoder(layer: Any, encoder: Encoder) -> None:
    synapse = encoder.synapse
    layer.create_dataset("synapse", (1,), "S10", [encoder.synapse_kind.encode("ascii")])
    for name, parameter in synapse.named_parameters():
        if not bool(torch.isfinite(parameter.float()).all()):
            raise NetFileError(
                f"Encoder: {name} has values that are NaN or infinite in float32; check the "
                "training or the checkpoint"
            )
        layer.create_dataset(name, data=parameter.detach().cpu().numpy())
    layer.create_dataset("threshold", data=encoder.threshold)
    if not math.isinf(encoder.tau):
        layer.create_dataset("tau", data=encoder.tau)
    if encoder.synapse_kind == "linear":
        return
    for name in ("stride", "dilation"):
        layer.create_dataset(name, data=getattr(synapse, name))
    layer.create_dataset("groups", data=synapse.groups)
    if isinstance(synapse.padding, str):
        layer.create_dataset("padding_name", (1,), "S10", [synapse.padding.encode("ascii")])
    else:
        layer.create_dataset("padding", data=synapse.padding)
    layer.create_dataset("padding_mode", (1,), "S10", [synapse.padding_mode.encode("ascii")])
    if encoder.synapse_kind == "convT":
        layer.create_dataset("output_padding", data=synapse.output_padding)


def checksum(content: memoryview) -> bytes:
    """What a ``.net`` file says of its encoder's file."""
    return hashlib.sha256(content).hexdigest().encode("ascii")


def read_encoder(path: str | os.PathLike[str]) -> InputEncoder | None:
    """The encoder that belongs to a ``.net`` file; None if the file has none.

    Raises:
        NetFileError: If one of the files can't be read, or the encoder is missing or another.
    """
    mark = root_text(path, MARK)
    if mark is None:
        return None
    if len(mark) != CHECKSUM_LENGTH:
        raise NetFileError(
            f"{os.fspath(path)}: has an attribute {MARK} that is no checksum; export the net anew"
        )
    beside = encoder_file(path)
    if not beside.is_file():
        raise NetFileError(
            f"{os.fspath(path)}: has an encoder, but there is no {beside.name} beside it; copy it "
            f"there, or {WITHOUT}"
        )
    if _checksum_of(beside) != mark:
        raise NetFileError(
            f"{beside}: is not the encoder that {Path(path).name} was exported with (its checksum "
            f"differs); copy that one, export the net anew, or {WITHOUT}"
        )
    with open_layers(beside) as layers:
        layer = next(layers)
        try:
            kind = layer.text("type")
            if kind == Encoder.kind:
                encoder: InputEncoder = _read_encoder(layer)
            elif kind == GradedInput.kind:
                encoder = GradedInput(layer.integer("levels"), layer.number("amplitude"))
            else:
                raise layer.error("type", f"is {kind!r}, neither direct nor graded")
            encoder.infer_shape(layer.shape())
        except NetFileError:
            raise
        except (BridgeError, ValueError, TypeError, RuntimeError, OverflowError) as error:
            reason = first_line(error)
            raise layer.error("", f"is no valid encoder: {reason}") from error
    return encoder


def _checksum_of(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(CHUNK):
                digest.update(part)
    except OSError as error:
        raise NetFileError(f"{path}: can't be read ({error.strerror or error})") from error
    return digest.hexdigest()


def _read_encoder(layer: LayerReader) -> Encoder:
    kind = layer.text("synapse")
    if kind not in SYNAPSES:
        raise layer.error("synapse", f"is {kind!r}, which is none of {', '.join(SYNAPSES)}")
    tau = layer.number("tau") if layer.has("tau") else math.inf
    return Encoder(_read_synapse(layer, kind), layer.number("threshold"), tau)


def _read_synapse(layer: LayerReader, kind: str) -> nn.Module:
    weight = _tensor(layer, "weight", 2 if kind == "linear" else 4)
    bias = _tensor(layer, "bias", 1) if layer.has("bias") else None
    settings: dict[str, Any] = {}
    if kind != "linear":
        settings = {
            "stride": layer.pair("stride", 1),
            "dilation": layer.pair("dilation", 1),
            "groups": layer.integer("groups", 1),
            "padding_mode": layer.text("padding_mode"),
            "padding": layer.text("padding_name")
            if layer.has("padding_name")
            else layer.pair("padding", 0),
        }
    if kind == "convT":
        settings["output_padding"] = layer.pair("output_padding", 0)
    outputs = weight.shape[0]
    if kind == "convT":
        outputs = weight.shape[1] * settings["groups"]
    if bias is not None and (len(bias) != outputs or bias.dtype != weight.dtype):
        raise layer.error("bias", f"has {len(bias)} values of {bias.dtype} for {outputs} channels")
    return plain_synapse(kind, weight, bias, **settings)


def _tensor(layer: LayerReader, name: str, dimensions: int) -> torch.Tensor:
    """Floats, of so many dimensions."""
    shape = layer.shape_of(name)
    if len(shape) != dimensions or 0 in shape:
        raise layer.error(name, f"has the shape {shape}, not {dimensions} dimensions")
    value = layer.floats(name)
    if value.dtype not in (np.float32, np.float64):
        raise layer.error(name, f"has the dtype {value.dtype}, not float32 or float64")
    return torch.from_numpy(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
