"""Writing a ``.net`` file: the blocks write themselves, the file appears whole or not at all."""

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch.nn as nn

from ..encoder import split_encoder
from ..errors import BridgeError, NetFileError
from .encoder import MARK, checksum, encoder_file, encoder_image
from .lowering import Layer, lower

__all__ = ["TARGETS", "export_hdf5", "write_whole"]

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
            layer's.

    Raises:
        NetFileError: If a block can't be exported (it is named), or the file can't be written.
        ConversionError: If netx has nothing that gives a block's spikes (it is named).
    """
    if target is not None and target not in TARGETS:
        raise BridgeError(f"expected target as None or {TARGETS[0]!r}, found {target!r}")
    given = Path(path)
    encoder, blocks = split_encoder(blocks)
    files: list[tuple[Path, memoryview]] = []
    if encoder is not None:
        if input_shape is not None:
            try:
                encoder.infer_shape(input_shape)
            except BridgeError as error:
                raise NetFileError(str(error)) from error
        files.append((encoder_file(given), encoder_image(encoder)))
        input_shape = encoder.shape
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        if files:
            file.attrs[MARK] = np.bytes_(checksum(files[0][1]))
        layers = file.create_group("layer")
        if target is None:
            for i, (place, block) in enumerate(_shaped(blocks, input_shape)):
                _write_block(place, block, layers.create_group(str(i)))
        else:
            lowered = lower(_in_memory(blocks, input_shape), input_shape)
            for i, (_, layer) in enumerate(lowered):
                layer.write(layers.create_group(str(i)))
        if not len(layers):
            raise NetFileError(f"{given}: there are no blocks to write; give at least one")
    write_all([*files, (given, image.getbuffer())])


def _shaped(blocks: Any, input_shape: tuple[int, ...] | None) -> Iterator[tuple[str, Any]]:
    """The blocks with their places, told their shape."""
    for i, block in enumerate([blocks] if hasattr(blocks, "export_hdf5") else blocks):
        place = f"{i} ({type(block).__name__})"
        if not hasattr(block, "export_hdf5"):
            raise NetFileError(
                f"{place}: is no slayer block; convert the net with lava_bridge.to_slayer first"
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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NetFileError(f"{place}: {reason}") from error


def write_whole(target: Path, content: memoryview) -> None:
    """Write a file beside the target, then put it in the target's place."""
    write_all([(target, content)])


def write_all(files: list[tuple[Path, memoryview]]) -> None:
    """Write files beside their targets, then put one after the other in its target's place.

    All are written before the first is put in place, so that a full disk leaves the old ones.
    """
    written: list[tuple[str, Path]] = []
    target = files[0][0]
    try:
        for path, content in files:
            target = path.resolve()  # a link stays a link
            if target.exists() and not target.is_file():
                raise NetFileError(
                    f"{target}: is a directory or a device, not a file; choose another path"
                )
            handle, temporary = tempfile.mkstemp(
                dir=target.parent, prefix=f".{target.name}.", suffix=".part"
            )
            written.append((temporary, target))
            with open(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, _mode_of(target))
        for temporary, target in written:
            os.replace(temporary, target)
    except OSError as error:
        raise NetFileError(
            f"{target}: can't be written ({error.strerror or error}); free space or choose another "
            "path"
        ) from error
    finally:
        for temporary, _ in written:
            if os.path.exists(temporary):
                os.unlink(temporary)


def _mode_of(target: Path) -> int:
    """The permissions of the file that is replaced, or those of a new file."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
