"""Writing a ``.net`` file: the blocks write themselves, the file appears whole or not at all."""

import io
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import torch.nn as nn

from ..errors import BridgeError, NetFileError

__all__ = ["export_hdf5", "write_whole"]


def export_hdf5(
    blocks: Iterable[nn.Module] | nn.Module,
    path: str | os.PathLike[str],
    input_shape: tuple[int, ...] | None = None,
) -> None:
    """Write slayer blocks to a ``.net`` file.

    The file appears whole or not at all: if anything fails, a former file at ``path`` is left as it
    was. The blocks are not changed, but for their shape where it was not known.

    Args:
        blocks: Blocks of ``lava_bridge.slayer.block``, in order.
        path: The file, by custom ``NAME.net``.
        input_shape: Shape of one input; needed where the blocks have neither run nor been told
            their shape.

    Raises:
        NetFileError: If a block can't be exported (it is named), or the file can't be written.
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
    write_whole(target, image.getbuffer())


def write_whole(target: Path, content: memoryview) -> None:
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
