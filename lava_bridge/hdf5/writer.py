"""Writing a ``.net`` file: the blocks write themselves, the file appears whole or not at all."""

import os
import secrets
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import h5py
import numpy as np
import torch.nn as nn

from ..checks import checked_shape, first_line, path_text
from ..encoder import is_block, split_encoder
from ..errors import BridgeError, NetFileError
from .encoder import MARK, checksum, encoder_file, encoder_image
from .layer import Layer
from .lowering import lower

__all__ = ["TARGETS", "export_hdf5", "whole_files", "write_whole"]

TARGETS = ("lava",)


def export_hdf5(
    blocks: Iterable[nn.Module] | nn.Module,
    path: str | os.PathLike[str],
    input_shape: tuple[int, ...] | None = None,
    target: Literal["lava"] | None = None,
) -> None:
    """Write slayer blocks to a ``.net`` file.

    The file appears whole or not at all: if anything fails, a former file at ``path`` is left as it
    was. The blocks are not changed, but for their shape where it was not known.

    An encoder in front of the blocks is written beside the file, as ``NAME.encoder.h5``; the file
    says that it belongs to it. A file written without one takes none, whatever lies beside it.

    Args:
        blocks: Blocks of ``lava_bridge.slayer.block``, in order; the first may be a
            :class:`lava_bridge.Encoder` or another encoder of the input.
        path: The file, by custom ``NAME.net``.
        input_shape: Shape of one input; needed where the blocks have neither run nor been told
            their shape.

        target: What has to run the file. ``None``: anything that reads all that blocks can say, as
            :func:`load_hdf5` does. ``"lava"``: Lava's own ``netx``; layers that it has not are
            written as such as it has, with the same spikes: a pooling as a convolution, a dense
            layer that sees height and width as a flat one, a sigma-delta neuron's bias as the
            layer's. (A warning says where Lava's biases begin too early for that.)

    Raises:
        NetFileError: If a block can't be exported (it is named), or the file can't be written; if
            ``path`` is no file's path, or ``input_shape`` no shape.
        ConversionError: If netx has nothing that gives a block's spikes (it is named).
    """
    if target is not None and target not in TARGETS:
        raise BridgeError(f"expected target as None or {TARGETS[0]!r}, found {target!r}")
    given = Path(path_text(path))
    input_shape = checked_shape(input_shape, NetFileError)
    encoder, blocks = split_encoder(blocks)
    targets, images = [given], []
    if encoder is not None:
        if input_shape is not None:
            try:
                encoder.infer_shape(input_shape)
            except BridgeError as error:
                raise NetFileError(str(error)) from error
        images.append(encoder_image(encoder))
        targets.insert(0, encoder_file(given))
        input_shape = encoder.shape
    biased: list[str] = []
    waits = False
    with whole_files(*targets) as files, h5py.File(files[-1], "w") as file:
        for image in images:
            files[0].write(image)
            file.attrs[MARK] = np.bytes_(checksum(image))
        layers = file.create_group("layer")
        if target is None:
            for i, (place, block) in enumerate(_shaped(blocks, input_shape)):
                _write_block(place, block, layers.create_group(str(i)))
        else:
            lowered = lower(_in_memory(blocks, input_shape), input_shape)
            for i, (_, layer) in enumerate(lowered):
                layer.write(layers.create_group(str(i)))
            biased = [place for place, layer in lowered if _is_biased(layer)]
            waits = any(_waits(layer) for _, layer in lowered)
        if not len(layers):
            raise NetFileError(f"{given}: there are no blocks to write; give at least one")
    if biased:
        others = f" (as {len(biased) - 1} more)" if biased[1:] else ""
        remedy = (
            "its spikes are not the blocks', and with delays or feedback no reset makes them so"
            if waits
            else "for the blocks' spikes give Lava's Network the steps of a sample as its "
            "reset_interval, and a reset_offset of 1"
        )
        warnings.warn(
            f"{given}: {biased[0]}{others} has a bias, which Lava runs from the first step on, "
            f"before the input has come to it: {remedy} (docs/netx.md, Time)",
            stacklevel=2,
        )


def _is_biased(layer: Layer) -> bool:
    return layer.kind != "input" and "bias" in layer and bool(np.any(layer["bias"]))


def _waits(layer: Layer) -> bool:
    """Whether a block's spikes reach beyond the step after them: by a delay, or fed back."""
    return (
        bool(layer.attrs.get("delay_shift", False)) or "delay" in layer or layer.kind == "dense_rec"
    )


def _shaped(blocks: Any, input_shape: tuple[int, ...] | None) -> Iterator[tuple[str, Any]]:
    """The blocks with their places, told their shape."""
    for i, block in enumerate(blocks):
        place = f"{i} ({type(block).__name__})"
        if not is_block(block):
            raise NetFileError(
                f"{place}: is no slayer block; convert the net with lava_bridge.to_slayer first, "
                "of a mixed net its SpikingJelly parts"
            )
        if input_shape is not None and hasattr(block, "infer_shape"):
            with _named(place):
                input_shape = block.infer_shape(input_shape)
        yield place, block


def _in_memory(blocks: Any, input_shape: tuple[int, ...] | None) -> Iterator[tuple[str, Layer]]:
    """The layers that the blocks write."""
    for place, block in _shaped(blocks, input_shape):
        layer = Layer()
        _write_block(place, block, layer)
        yield place, layer


def _write_block(place: str, block: Any, handle: Any) -> None:
    with _named(place):
        block.export_hdf5(handle)


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Errors of a block name its place."""
    try:
        yield
    except (BridgeError, TypeError, AttributeError, RuntimeError) as error:
        reason = first_line(error)
        raise NetFileError(f"{place}: {reason}") from error


def write_whole(target: Path, content: memoryview) -> None:
    """Write a file that appears whole or not at all."""
    with whole_files(target) as (file,):
        file.write(content)


@contextmanager
def whole_files(*targets: Path) -> Iterator[list[IO[bytes]]]:
    """Files beside their targets to write to; if nothing fails they take the targets' places then.

    All are on the disk before the first takes its place, so that a full disk leaves the old ones.

    Raises:
        NetFileError: If one can't be written.
    """
    written: list[tuple[IO[bytes], Path, Path]] = []
    place = targets[-1]
    try:
        for given in targets:
            place = Path(os.path.realpath(given))  # a link stays a link
            if place.is_symlink():
                raise NetFileError(f"{place}: is a link to itself; choose another path")
            if place.exists() and not place.is_file():
                raise NetFileError(
                    f"{place}: is a directory or a device, not a file; choose another path"
                )
            temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
            # As readable as what it replaces; of a new file the umask takes its share.
            mode = place.stat().st_mode & 0o777 if place.exists() else 0o666
            opened = open(temporary, "x+b", opener=partial(os.open, mode=mode))  # noqa: SIM115
            written.append((opened, temporary, place))
        yield [file for file, _, _ in written]
        for file, temporary, place in written:
            file.flush()
            os.fsync(file.fileno())
            if place.exists():  # a new file has what the umask leaves it
                os.chmod(temporary, place.stat().st_mode & 0o777)
        for _, temporary, place in written:
            os.replace(temporary, place)
    except (OSError, SystemError) as error:
        # On Python 3.13 h5py ends with a SystemError, whose cause is the disk's error.
        cause = error.__cause__ if isinstance(error, SystemError) else error
        if not isinstance(cause, OSError):
            raise
        lacking = isinstance(cause, FileNotFoundError)
        remedy = "make its folder" if lacking else "free space or choose another path"
        raise NetFileError(
            f"{place}: can't be written ({cause.strerror or cause}); {remedy}"
        ) from error
    finally:
        for file, temporary, _ in written:
            with suppress(OSError):  # a full disk's, which has been told
                file.close()
            temporary.unlink(missing_ok=True)
