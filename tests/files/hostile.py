"""A corpus of hostile ``.net`` files: each function spoils a good file, or writes a bad one.

``CORPUS`` maps a name to a function ``(path, outside) -> None``. ``outside`` is a folder whose
files no reader may open.
"""

import functools
import os
import pickle
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from lava_bridge import export_hdf5, slayer

from .nets import conv_blocks

CORPUS: dict[str, Callable[[Path, Path], None]] = {}

WEIGHT = "layer/1/weight"  # float32 [4, 1, 3, 2]
MANY = 100_000


@functools.cache
def _good() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "good.net"
        torch.manual_seed(0)
        blocks: Any = conv_blocks(slayer)
        blocks[2].neuron.norm.running_var.fill_(0.5)  # of an exponent of 0, which all readers take
        export_hdf5(blocks, path, input_shape=(1, 9, 8))
        return path.read_bytes()


def write_good(path: Path) -> None:
    """A file of many kinds of blocks, the same each time."""
    path.write_bytes(_good())


def hostile(name: str) -> Callable[[Callable[[Path, Path], None]], Any]:
    """Put a function into the corpus; it finds no file at its path."""

    def register(function: Callable[[Path, Path], None]) -> Any:
        assert name not in CORPUS
        CORPUS[name] = function
        return function

    return register


def spoiled(name: str) -> Callable[[Callable[[h5py.File, Path], None]], Any]:
    """Put a function into the corpus that gets an open good file."""

    def register(function: Callable[[h5py.File, Path], None]) -> Any:
        def write(path: Path, outside: Path) -> None:
            write_good(path)
            with h5py.File(path, "r+") as file:
                function(file, outside)

        return hostile(name)(write)

    return register


def replaced(name: str, place: str, make: Callable[[h5py.File], Any]) -> None:
    """Put a good file into the corpus in which one object is another."""

    @spoiled(name)
    def write(file: h5py.File, outside: Path) -> None:
        value = make(file)
        if place in file:
            del file[place]
        if value is not None:
            file[place] = value


# No HDF5, or half of it ---------------------------------------------------------------------------


@hostile("empty file")
def _empty(path: Path, outside: Path) -> None:
    path.write_bytes(b"")


@hostile("signature alone")
def _signature(path: Path, outside: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))


@hostile("pickle")
def _pickle(path: Path, outside: Path) -> None:
    path.write_bytes(pickle.dumps(_Payload(outside / "executed")))


@hostile("checkpoint")
def _checkpoint(path: Path, outside: Path) -> None:
    torch.save({"layer": torch.ones(3)}, path)


@hostile("half a file")
def _half(path: Path, outside: Path) -> None:
    write_good(path)
    os.truncate(path, path.stat().st_size // 2)


@hostile("root without layers")
def _no_layers(path: Path, outside: Path) -> None:
    with h5py.File(path, "w") as file:
        file["weights"] = np.ones(3)


class _Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return (open, (self.marker, "w"))


# Other types --------------------------------------------------------------------------------------


def _ragged() -> np.ndarray:
    rows = np.empty(24, dtype=h5py.vlen_dtype(np.float32))
    for i in range(24):
        rows[i] = np.ones(i % 3, np.float32)
    return rows


DTYPES: dict[str, Callable[[h5py.File], Any]] = {
    "strings": lambda file: np.array(["a"] * 24, dtype=h5py.string_dtype()),
    "one long string": lambda file: "x" * (1 << 20),
    "fixed strings": lambda file: np.array([b"1"] * 24),
    "compound": lambda file: np.zeros((4, 1, 3, 2), dtype=[("a", "f4"), ("b", "i2")]),
    "complex": lambda file: np.zeros((4, 1, 3, 2), dtype=np.complex64),
    "opaque": lambda file: np.zeros(24, dtype=h5py.opaque_dtype("M8[us]")),
    "void": lambda file: np.void(pickle.dumps(_Payload(Path("executed")))),
    "references": lambda file: np.array([file["layer"].ref] * 24, dtype=h5py.ref_dtype),
    "one reference": lambda file: np.array(file["layer"].ref, dtype=h5py.ref_dtype),
    "ragged": lambda file: _ragged(),
    "enumeration": lambda file: np.zeros(
        (4, 1, 3, 2), dtype=h5py.enum_dtype({"a": 0, "b": 9}, basetype="i4")
    ),
    "long double": lambda file: np.full((4, 1, 3, 2), np.longdouble("1e4000")),
    "array type": lambda file: np.zeros(4, dtype="(1,3,2)f4"),
    "unsigned 64": lambda file: np.full((4, 1, 3, 2), 2**64 - 2, dtype=np.uint64),
    "lowest 64": lambda file: np.full((4, 1, 3, 2), -(2**63)),
    "not a number": lambda file: np.full((4, 1, 3, 2), np.nan, dtype=np.float32),
    "infinity": lambda file: np.full((4, 1, 3, 2), np.inf, dtype=np.float64),
    "nothing": lambda file: h5py.Empty("f4"),
    "no elements": lambda file: np.zeros((0, 1, 3, 2), dtype=np.float32),
    "32 dimensions": lambda file: np.zeros((1,) * 31 + (24,), dtype=np.float32),
    "a type by name": lambda file: np.dtype("f4"),
}
for _name, _make in DTYPES.items():
    replaced(f"weight: {_name}", WEIGHT, _make)
    replaced(f"type: {_name}", "layer/1/type", _make)
    replaced(f"decay: {_name}", "layer/1/neuron/iDecay", _make)
replaced("type: two lines", "layer/1/type", lambda file: np.bytes_(b"con\nv\xff"))
replaced("neuron type: two lines", "layer/1/neuron/type", lambda file: "CU\nBA\u2028")
replaced("neuron: a dataset", "layer/1/neuron", lambda file: np.ones(3))


def _group(place: str) -> Callable[[h5py.File], None]:
    def make(file: h5py.File) -> None:
        del file[place]
        file.create_group(place)

    return make


for _place in (WEIGHT, "layer/1/type", "layer/1/shape", "layer/1/neuron/vThMant"):
    replaced(f"group in place of {_place}", "none", _group(_place))

ATTRIBUTES: dict[str, Any] = {
    "strings": np.array(["a" * 1000] * 50, dtype=h5py.string_dtype()),
    "array": np.arange(900),
    "nothing": h5py.Empty("i4"),
    "float": 64.5,
    "not a number": np.nan,
    "lowest": np.int64(-(2**63)),
}
for _name, _value in ATTRIBUTES.items():
    for _attribute in ("scale", "delay_shift"):

        @spoiled(f"attribute {_attribute}: {_name}")
        def _attributes(file: h5py.File, outside: Path, attribute=_attribute, value=_value) -> None:
            file["layer/1"].attrs[attribute] = value


@spoiled("attribute: a reference")
def _attribute_reference(file: h5py.File, outside: Path) -> None:
    file["layer/1"].attrs["scale"] = file["layer"].ref


# Numbers and sizes that lie -----------------------------------------------------------------------

MOST = (1 << 31) - 1
for _place, _value in {
    "layer/3/shape": [MOST, 1, 1],
    "layer/5/shape": [6, MOST // 6, 1],
    "layer/6/shape": [MOST, 1, 1],
    "layer/0/shape": [MOST],
    "layer/1/inChannels": MOST,
    "layer/1/outChannels": MOST,
    "layer/1/groups": MOST,
    "layer/1/kernelSize": [MOST, MOST],
    "layer/1/padding": [MOST, MOST],
    "layer/1/stride": [MOST, 0],
    "layer/1/dilation": MOST,
    "layer/7/inFeatures": MOST,
    "layer/7/outFeatures": MOST,
    "layer/2/neuron/weight_exp": [MOST],
    "layer/1/neuron/vThMant": MOST,
    "layer/1/neuron/iDecay": -1,
    "layer/1/delay": np.full(4, 1e30),
}.items():
    replaced(f"number: {_place} {_value}", _place, lambda file, value=_value: np.array(value))


@hostile("sigma-delta bias for a huge plane")
def _bias(path: Path, outside: Path) -> None:
    params = {"threshold": 1, "activation": torch.nn.functional.relu}
    made = slayer.block.sigma_delta.Conv(params, 1, 2, 1)
    export_hdf5(made, path, input_shape=(1, 2, 2))
    with h5py.File(path, "r+") as file:
        file["layer/0/shape"][:] = [2, 1 << 15, 1 << 15]
        file["layer/0/bias"] = np.ones(2, dtype=np.float32)


def _huge(name: str, dtype: str, **options: Any) -> None:
    for place in (WEIGHT, "layer/1/type", "layer/1/shape", "layer/1/delay", "layer/2/bias"):

        @spoiled(f"{name}: {place}")
        def _declared(file: h5py.File, outside: Path, place=place) -> None:
            if place in file:
                del file[place]
            file.create_dataset(place, dtype=dtype, **options)


_huge("declared, never written", "f4", shape=(1 << 40,), chunks=(1 << 20,))
_huge("declared, compressed", "f4", shape=(1 << 40,), chunks=(1 << 20,), compression="gzip")
_huge("declared as strings", "S1000000", shape=(1 << 20,), chunks=(1,))
_huge("declared as ragged", h5py.vlen_dtype("f4"), shape=(1 << 30,), chunks=(1 << 10,))


def _as_dense(file: h5py.File, size: int, dtype: str = "f4", **options: Any) -> h5py.Dataset:
    """Make the last layer one of ``size`` inputs and outputs, with a weight of its own."""
    layer = file["layer/7"]
    for name in ("weight", "inFeatures", "outFeatures", "shape", "bias"):
        del layer[name]
    layer["inFeatures"], layer["outFeatures"], layer["shape"] = size, size, [size]
    return layer.create_dataset("weight", (size, size), dtype=dtype, **options)


@spoiled("zeros, compressed a thousandfold")
def _bomb(file: h5py.File, outside: Path) -> None:
    weight = _as_dense(file, 1 << 14, chunks=(1 << 9, 1 << 14), compression="gzip")
    chunk = zlib.compress(bytes(4 << 23), 9)
    for row in range(0, 1 << 14, 1 << 9):
        weight.id.write_direct_chunk((row, 0), chunk)


@spoiled("zeros, of one bit")
def _one_bit(file: h5py.File, outside: Path) -> None:
    weight = _as_dense(file, 1 << 12, "i4", chunks=(1 << 12, 1 << 12), scaleoffset=0)
    weight[:] = np.zeros((1 << 12, 1 << 12), np.int32)


# Links --------------------------------------------------------------------------------------------

PLACES = ("layer", "layer/1", "layer/1/neuron", WEIGHT, "layer/1/type")


def _decoy(outside: Path) -> str:
    path = outside / "decoy.net"
    if not path.exists():
        write_good(path)
    return str(path)


for _place in PLACES:

    @spoiled(f"external link: {_place}")
    def _external(file: h5py.File, outside: Path, place=_place) -> None:
        del file[place]
        file[place] = h5py.ExternalLink(_decoy(outside), f"/{place}")

    @spoiled(f"soft link through an external one: {_place}")
    def _soft(file: h5py.File, outside: Path, place=_place) -> None:
        del file[place]
        file["away"] = h5py.ExternalLink(_decoy(outside), "/")
        file[place] = h5py.SoftLink(f"/away/{place}")

    @spoiled(f"soft link to itself: {_place}")
    def _itself(file: h5py.File, outside: Path, place=_place) -> None:
        del file[place]
        file[place] = h5py.SoftLink(f"/{place}")


@spoiled("external storage")
def _storage(file: h5py.File, outside: Path) -> None:
    del file[WEIGHT]
    raw = outside / "raw"
    raw.write_bytes(bytes(96))
    file.create_dataset(WEIGHT, (4, 1, 3, 2), dtype="f4", external=[(str(raw), 0, 96)])


@spoiled("virtual dataset")
def _virtual(file: h5py.File, outside: Path) -> None:
    del file[WEIGHT]
    layout = h5py.VirtualLayout((4, 1, 3, 2), dtype="f4")
    layout[...] = h5py.VirtualSource(_decoy(outside), WEIGHT, (4, 1, 3, 2))
    file.create_virtual_dataset(WEIGHT, layout)


@spoiled("virtual dataset without an end")
def _unlimited(file: h5py.File, outside: Path) -> None:
    del file["layer/1/delay"]
    layout = h5py.VirtualLayout((1,), dtype="f4", maxshape=(None,))
    source = h5py.VirtualSource(
        _decoy(outside), "layer/1/delay", (1,), dtype="f4", maxshape=(None,)
    )
    layout[0 : h5py.h5s.UNLIMITED : 1] = source[0 : h5py.h5s.UNLIMITED : 1]
    file.create_virtual_dataset("layer/1/delay", layout)


@spoiled("circle of hard links")
def _circle(file: h5py.File, outside: Path) -> None:
    file["layer/8"] = file["layer"]
    file["layer/0/neuron/neuron"] = file["layer/0"]


@spoiled("layers that are the root")
def _root(file: h5py.File, outside: Path) -> None:
    del file["layer"]
    file["layer"] = file["/"]


@hostile("layers that are one layer many times")
def _aliases(path: Path, outside: Path) -> None:
    made = slayer.block.cuba.Dense(
        {"threshold": 1, "current_decay": 1, "voltage_decay": 1}, 700, 700
    )
    export_hdf5(made, path)
    with h5py.File(path, "r+") as file:
        layers = file["layer"]
        for i in range(1, 4096):
            layers[str(i)] = layers["0"]


@hostile("a hundred thousand layers")
def _many(path: Path, outside: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        layers = file.create_group("layer")
        first = layers.create_group("0")
        for i in range(1, MANY):
            h5py.h5o.link(first.id, layers.id, str(i).encode())


@spoiled("numbers in words")
def _words(file: h5py.File, outside: Path) -> None:
    file.move("layer/1", "layer/one")


@spoiled("a filter that no one has")
def _filter(file: h5py.File, outside: Path) -> None:
    values = file[WEIGHT][()]
    del file[WEIGHT]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4, 1, 3, 2))
    plist.set_deflate(1)
    space = h5py.h5s.create_simple(values.shape)
    kind = h5py.h5t.NATIVE_FLOAT
    made = h5py.h5d.create(file.id, WEIGHT.encode(), kind, space, plist)
    made.write_direct_chunk((0, 0, 0, 0), b"no deflated data", 0)
