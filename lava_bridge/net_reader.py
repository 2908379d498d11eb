"""Reading the groups and datasets of a ``.net`` file, each checked before it is believed.

Nothing outside the file is opened, nothing is allocated that the file does not hold, and whatever
is wrong is one :class:`NetFileError` that names the place in the file.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .checks import first_line, path_text
from .errors import NetFileError

__all__ = ["LayerReader", "open_layers", "root_text"]

# More layers than any chip has cores: a file that has them is no net.
MAX_LAYERS = 4096
# Deflate shrinks by 1032 at most: what claims to be larger is not in the file.
MAX_COMPRESSION = 1032
# Below this many bytes a dataset is believed.
SMALL = 1 << 16
# What all layers together may claim: so many bytes, or so many times the file's size. Layers that
# are one and the same, or compressed zeros, make a small file claim much.
TOTAL, TOTAL_RATIO = 1 << 26, 64
# The longest type that is told apart or shown.
MAX_TEXT = 40
# The largest integer that a layer's geometry or a neuron's parameter may have.
MAX_INTEGER = 1 << 31
# Values that are looked at together.
SLICE = 1 << 18


# What h5py raises where a file is damaged.
DAMAGE = (OSError, KeyError, RuntimeError, OverflowError, MemoryError, TypeError, ValueError)


class _Budget:
    """The bytes that the layers of a file may still claim."""

    def __init__(self, size: int) -> None:
        self.left = max(TOTAL, TOTAL_RATIO * size)


class LayerReader:
    """One group ``layer/N``, read with checks.

    Attributes:
        name: ``layer/N``.
    """

    def __init__(self, file: str, place: str, group: h5py.Group, budget: _Budget) -> None:
        self._file = file
        self.name = place
        self._group = group
        self._budget = budget
        self._claimed: set[str] = set()

    def error(self, name: str, what: str, todo: str = "export the net anew") -> NetFileError:
        """The error for a dataset of this layer."""
        place = f"{self.name}/{name}" if name else self.name
        return NetFileError(f"{self._file}: {place} {what}; {todo}")

    def has(self, name: str) -> bool:
        """Whether the layer has such a dataset or group; a link to one elsewhere is an error."""
        first = name.split("/")[0]
        link = self._group.get(first, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise self.error(first, "is a link to another place")
        return self._find(name) is not None

    def text(self, name: str) -> str:
        """A dataset of one string."""
        value = np.asarray(self._read(name)).reshape(-1)
        if value.size != 1 or not isinstance(value[0], bytes | str):
            raise self.error(name, "is not a string")
        text = value[0].decode("ascii", "replace") if isinstance(value[0], bytes) else value[0]
        return text[:MAX_TEXT]

    def floats(self, name: str) -> np.ndarray:
        """A dataset of finite numbers."""
        value = np.asarray(self._read(name))
        if value.dtype.kind not in "iufb":
            raise self.error(name, f"has the dtype {value.dtype}, not numbers")
        # Beyond float32, in which nets are held, a value is infinite too.
        with np.errstate(over="ignore"):
            for part in _slices(value):
                if not np.isfinite(part.astype(np.float32, copy=False)).all():
                    raise self.error(name, "has values that are NaN or infinite")
        return value

    def integers(self, name: str) -> np.ndarray:
        """A dataset of whole numbers."""
        return self._whole(name, self.floats(name))

    def weights(self, name: str) -> np.ndarray:
        """A dataset of whole numbers, in 32 bits: there may be many."""
        return self._whole(name, self.floats(name), np.int32, MAX_INTEGER - 1)

    def _whole(
        self, name: str, value: np.ndarray, dtype: Any = np.int64, most: int = MAX_INTEGER
    ) -> np.ndarray:
        whole = np.empty(value.shape, dtype)
        # Some at a time, so that no second copy is held.
        for part, made in zip(_slices(value), _slices(whole), strict=True):
            with np.errstate(over="ignore"):
                largest = np.abs(part.astype(np.float64)).max(initial=0)
            if largest > most:
                raise self.error(name, f"has values above {most}")
            made[:] = part
            if not (made == part).all():
                raise self.error(name, "has values that are not whole")
        return whole

    def rounded_down(self, name: str) -> np.ndarray:
        """A dataset of numbers, each down to a whole one."""
        return self._whole(name, np.floor(self.floats(name)))

    def number(self, name: str) -> float:
        """A dataset of one finite number."""
        value = self.floats(name)
        if value.size != 1:
            raise self.error(name, f"has {value.size} values where one is expected")
        return float(value.reshape(-1)[0])

    def integer(self, name: str, least: int | None = None) -> int:
        """A dataset of one whole number, of ``least`` or more."""
        value = self.integers(name)
        if value.size != 1:
            raise self.error(name, f"has {value.size} values where one is expected")
        number = int(value.reshape(-1)[0])
        if least is not None and number < least:
            raise self.error(name, f"is {number}, below {least}")
        return number

    def pair(self, name: str, least: int) -> tuple[int, int]:
        """A dataset of one whole number or two (height, width), of ``least`` or more."""
        value = self.integers(name).reshape(-1)
        if value.size not in (1, 2) or value.min() < least:
            raise self.error(name, f"is {value[:4].tolist()}, not two integers from {least} up")
        return int(value[0]), int(value[-1])

    def shape(self) -> tuple[int, ...]:
        """The layer's ``shape``: one to three positive integers."""
        value = self.integers("shape").reshape(-1)
        if not 1 <= value.size <= 3 or value.min() < 1:
            raise self.error("shape", f"is {value[:4].tolist()}, not 1 to 3 positive integers")
        if math.prod(value.tolist()) > MAX_INTEGER:
            raise self.error("shape", f"is {value.tolist()}, more than {MAX_INTEGER} neurons")
        return tuple(value.tolist())

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a dataset, without reading it."""
        return self._dataset(name).shape

    def expect(self, name: str, *shape: int) -> None:
        """Require a dataset of as many values as ``shape`` has, without reading it."""
        found = self.shape_of(name)
        if found is None or math.prod(found) != math.prod(shape):
            raise self.error(
                name, f"has the shape {found}, but the layer's integers ask for {tuple(shape)}"
            )

    def attribute(self, name: str, default: int, least: int) -> int:
        """An attribute of the group, a whole number of ``least`` or more."""
        value = self._attribute(name, default)
        if not isinstance(value, int | np.integer) or not least <= value <= MAX_INTEGER:
            raise self.error("", f"has an attribute {name} that is no integer from {least} up")
        return int(value)

    def positive(self, name: str, default: float) -> float:
        """An attribute of the group, a finite number above 0."""
        value = self._attribute(name, default)
        if not isinstance(value, float | np.floating) or not 0 < value < math.inf:
            raise self.error("", f"has an attribute {name} that is no number above 0")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """An attribute of the group, true or false."""
        value = self._attribute(name, default)
        if not isinstance(value, bool | np.bool_):
            raise self.error("", f"has an attribute {name} that is neither true nor false")
        return bool(value)

    def claim(self, name: str, size: int) -> None:
        """Require that ``size`` bytes may be held for a dataset, once for each name."""
        if name in self._claimed:
            return
        self._claimed.add(name)
        self._budget.left -= size
        if self._budget.left < 0:
            raise self.error(name, f"claims {size} bytes, more than is left for a file of its size")

    def _attribute(self, name: str, default: Any) -> Any:
        """An attribute of one value that is no string or reference; None if it is not such."""
        with self._undamaged(f"attribute {name}"):
            attributes = self._group.attrs
            if name not in attributes:
                return default
            found = attributes.get_id(name)
            if found.shape != () or found.dtype.hasobject:
                return None
            return attributes[name]

    @contextmanager
    def _undamaged(self, name: str) -> Iterator[None]:
        """Whatever h5py raises is one error that names the dataset."""
        try:
            yield
        except NetFileError:
            raise
        except DAMAGE as error:
            reason = first_line(error)
            raise self.error(name, f"is damaged ({reason})") from error

    def _find(self, name: str) -> Any:
        with self._undamaged(name):
            return _find(self._group, name)

    def _dataset(self, name: str) -> h5py.Dataset:
        with self._undamaged(name):
            return self._checked(name)

    def _checked(self, name: str) -> h5py.Dataset:
        found = self._find(name)
        if not isinstance(found, h5py.Dataset):
            raise self.error(name, "is missing" if found is None else "is no dataset")
        if found.is_virtual or found.external:
            raise self.error(name, "lies in another file")
        if found.shape is None:
            raise self.error(name, "is empty")
        declared = math.prod(found.shape) * found.dtype.itemsize
        if declared > max(SMALL, MAX_COMPRESSION * found.id.get_storage_size()):
            raise self.error(name, f"claims {declared} bytes, which the file does not hold")
        if found.dtype.hasobject and found.size != 1:
            # Strings of any length lie elsewhere in the file, where many may share one.
            raise self.error(name, f"has {found.size} values where one string is expected")
        self.claim(name, declared)
        return found

    def _read(self, name: str) -> Any:
        with self._undamaged(name):
            return self._dataset(name)[()]


def _slices(value: np.ndarray) -> Iterator[np.ndarray]:
    """An array's values, some at a time, as views."""
    flat = value.reshape(-1)
    return (flat[start : start + SLICE] for start in range(0, flat.size, SLICE))


@contextmanager
def open_layers(path: str | os.PathLike[str]) -> Iterator[Iterator[LayerReader]]:
    """Open a ``.net`` file for its layers, in order."""
    with _opened(path) as file:
        yield _layers(os.fspath(path), file, _Budget(Path(path).stat().st_size))


def root_text(path: str | os.PathLike[str], name: str) -> str | None:
    """An attribute of a ``.net`` file's root, a string; None if there is none."""
    with _opened(path) as file:
        root = LayerReader(os.fspath(path), "/", file, _Budget(0))
        value = root._attribute(name, "")
    if value == "":
        return None
    if not isinstance(value, bytes):
        raise NetFileError(
            f"{os.fspath(path)}: has an attribute {name} that is no string; export the net anew"
        )
    return value.decode("ascii", "replace")


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """A file, open; whatever h5py raises of it is one error."""
    name = path_text(path)
    try:
        exists, is_file = Path(path).exists(), Path(path).is_file()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise NetFileError(f"{name!r}: can't be a file's path ({error}); check the path") from error
    if exists and not is_file:
        raise NetFileError(f"{name}: is a directory or a device, not a file; check the path")
    if not exists:
        raise NetFileError(f"{name}: there is no such file; check the path")
    try:
        file = h5py.File(path, "r")
    except (BlockingIOError, PermissionError) as error:
        locked = isinstance(error, BlockingIOError)
        reason = "a program has it open for writing" if locked else "permission denied"
        remedy = "close it there" if locked else "check its permissions"
        raise NetFileError(f"{name}: can't be read ({reason}); {remedy}") from error
    except DAMAGE as error:
        reason = first_line(error)
        raise NetFileError(
            f"{name}: is no HDF5 file, or a truncated one ({reason}); export the net anew"
        ) from error
    try:
        with file:
            yield file
    except (OSError, KeyError, RuntimeError, OverflowError, MemoryError) as error:
        reason = first_line(error)
        raise NetFileError(f"{name}: is damaged ({reason}); export the net anew") from error


def _layers(name: str, file: h5py.File, budget: _Budget) -> Iterator[LayerReader]:
    group = _find(file, "layer")
    if not isinstance(group, h5py.Group):
        raise NetFileError(
            f"{name}: has no group 'layer', so it is no .net file but another program's; give a "
            "file written by export_hdf5"
        )
    count = len(group)
    if not 1 <= count <= MAX_LAYERS:
        raise NetFileError(
            f"{name}: layer has {count} layers, not 1 to {MAX_LAYERS}; export the net anew"
        )
    for i in range(count):
        layer = _find(group, str(i))
        if not isinstance(layer, h5py.Group):
            raise NetFileError(f"{name}: layer/{i} is missing among {count}; export the net anew")
        yield LayerReader(name, f"layer/{i}", layer, budget)


def _find(group: h5py.Group, path: str) -> Any:
    """What lies at a path of hard links; None if nothing does. Other links are not followed."""
    found: Any = group
    for name in path.split("/"):
        if not isinstance(found, h5py.Group):
            return None
        if not isinstance(found.get(name, getlink=True), h5py.HardLink):
            return None
        found = found[name]
    return found
