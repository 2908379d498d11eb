"""Files that are no nets: one NetFileError of one line that names the place."""

import contextlib
import io
import os
import shutil

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import BridgeError, NetFileError, export_hdf5, load_hdf5, slayer
from lava_bridge.netx import Network
from lava_bridge.slayer.block import cuba

from .nets import PARAMS, conv_blocks, dense_blocks


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A file of many kinds of blocks."""
    path = tmp_path_factory.mktemp("good") / "good.net"
    export_hdf5(conv_blocks(slayer), path, input_shape=(1, 9, 8))
    return path


def refuse(path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(NetFileError) as caught:
        load_hdf5(path)
    message = str(caught.value)
    assert isinstance(caught.value, BridgeError)
    assert "\n" not in message
    assert os.path.basename(path) in message
    return message


def test_a_missing_file(tmp_path):
    assert "there is no such file" in refuse(tmp_path / "none.net")
    assert "is a directory or a device" in refuse(tmp_path)


@pytest.mark.parametrize("use", [load_hdf5, Network, lambda path: export_hdf5([], path)])
def test_what_is_no_path_is_one_error(use):
    for path in (None, 3, b"net.net", "", "a\0b", io.BytesIO(), ["net.net"]):
        with pytest.raises(NetFileError, match=r"^expected the path of a \.net file, found "):
            use(path)


def test_an_open_file_is_no_path(good):
    with h5py.File(good) as file, pytest.raises(NetFileError, match="found a File; give its name"):
        load_hdf5(file)


@pytest.mark.parametrize("shape", [6, "6", (6.0,), (), (0,), (1, 2, 3, 4)])
def test_what_is_no_shape_is_one_error(shape, tmp_path):
    with pytest.raises(NetFileError, match=r"^input_shape: expected \(C, H, W\)"):
        export_hdf5([cuba.Dense(dict(PARAMS), 6, 5)], tmp_path / "net.net", input_shape=shape)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_hdf5(tmp_path):
    path = tmp_path / "text.net"
    for content in (b"", b"hello", b"\x89HDF\r\n\x1a\n", os.urandom(4096)):
        path.write_bytes(content)
        assert "no HDF5 file, or a truncated one" in refuse(path)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (BlockingIOError(11, "unable to lock"), "a program has it open for writing); close it"),
        (PermissionError(13, "Permission denied"), "permission denied); check its permissions"),
    ],
)
def test_a_file_that_can_not_be_opened_is_not_called_damaged(good, monkeypatch, error, what):
    def failing(*args, **kwargs):
        raise error

    monkeypatch.setattr(h5py, "File", failing)
    assert f"can't be read ({what}" in refuse(good)


def test_a_file_truncated_anywhere(good, tmp_path):
    content = good.read_bytes()
    path = tmp_path / "cut.net"
    for length in range(0, len(content), max(len(content) // 60, 1)):
        path.write_bytes(content[:length])
        refuse(path)


def test_a_file_of_another_program(tmp_path):
    path = tmp_path / "other.net"
    with h5py.File(path, "w") as file:
        file["weights"] = np.ones(3)
    assert "has no group 'layer'" in refuse(path)
    with h5py.File(path, "w") as file:
        file["layer"] = np.ones(3)
    assert "has no group 'layer'" in refuse(path)
    with h5py.File(path, "w") as file:
        file.create_group("layer")
    assert "0 layers" in refuse(path)


def names_of(path) -> list[str]:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
    return names


# lava-dl leaves these out where a layer has no such thing.
OPTIONAL = ("gradedSpike", "refDelay", "delay", "weight_exp", "bias")


def test_a_file_that_lacks_any_dataset_names_it(good, tmp_path):
    path = tmp_path / "lacks.net"
    checked = 0
    for name in names_of(good):
        if name.endswith(OPTIONAL) or name == "layer/0/weight":
            continue
        shutil.copy(good, path)
        with h5py.File(path, "r+") as file:
            del file[name]
        assert f"{name} is missing" in refuse(path), name
        checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    "value",
    [
        "text",
        np.array([], dtype=np.int64),
        np.full((3, 3, 3), -7),
        float("nan"),
        1.5,
        2**62,
        -1,
        h5py.Empty("f"),
    ],
    ids=str,
)
def test_a_dataset_with_a_wrong_value_is_refused_and_named(good, tmp_path, value):
    path = tmp_path / "wrong.net"
    for name in names_of(good):
        if name.endswith(("refDelay", "padding", "bias", "gradedSpike")):
            continue  # not read, or one of the values is right there
        if name.endswith("weight_exp") and isinstance(value, int) and value == -1:
            continue
        shutil.copy(good, path)
        with h5py.File(path, "r+") as file:
            del file[name]
            file[name] = value
        assert name.rpartition("/")[0] in refuse(path), name


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("layer/1/type", b"spam", "is 'spam'"),
        ("layer/1/neuron/type", b"RF_ZERO", "none of CUBA"),
        ("layer/1/neuron/iDecay", 4097, "outside 0 ... 4096"),
        ("layer/1/neuron/vDecay", -1, "outside 0 ... 4096"),
        ("layer/1/neuron/iDecay", np.arange(3), "3 values for 4 channels"),
        ("layer/1/neuron/vThMant", 1 << 18, "outside 0 ... 262143"),
        ("layer/1/shape", [4, 0, 2], "not 1 to 3 positive integers"),
        ("layer/1/shape", [7, 9, 7], "the layer has 4 channels"),
        ("layer/1/stride", [0, 1], "not two integers from 1 up"),
        ("layer/1/groups", 3, "does not divide"),
        ("layer/1/inChannels", 1 << 30, "the layer's integers ask for"),
        ("layer/7/inFeatures", 1 << 30, "the layer's integers ask for"),
        ("layer/1/delay", [1.0, 2.0], "2 delays for 4 channels"),
        ("layer/1/delay", [1.0, 2.0, 63.0, 0.0], "outside 0 ... 62"),
    ],
)
def test_a_lie_in_the_file_is_named(good, tmp_path, name, value, what):
    path = tmp_path / "lie.net"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = value
    assert what in refuse(path)


@pytest.mark.parametrize(
    ("value", "what"), [(3.0, "has 3"), (256.0, "has 256"), (-258.0, "has -258"), (0.5, "has 0.5")]
)
def test_a_weight_that_8_bits_cannot_hold_is_named(good, tmp_path, value, what):
    path = tmp_path / "weight.net"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        file["layer/1/weight"][0, 0, 0, 0] = value
    message = refuse(path)
    assert "layer/1/weight" in message
    assert what in message


def test_no_link_is_followed_out_of_the_file_or_in_a_circle(good, tmp_path):
    path, other = tmp_path / "links.net", tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["weight"] = np.ones((4, 1, 3, 2), dtype=np.float32)
    for link in (
        h5py.ExternalLink(str(other), "/weight"),
        h5py.SoftLink("/layer/1/weight"),
        h5py.SoftLink("/layer/2/weight"),
    ):
        shutil.copy(good, path)
        with h5py.File(path, "r+") as file:
            del file["layer/1/weight"]
            file["layer/1/weight"] = link
        assert "layer/1/weight is a link to another place" in refuse(path)
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        del file["layer/1/weight"]
        file.create_dataset(
            "layer/1/weight",
            (4, 1, 3, 2),
            dtype="f4",
            external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)],
        )
    assert "layer/1/weight lies in another file" in refuse(path)
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        file["layer/8"] = file["layer"]  # a circle of hard links
    assert "layer/8/type is missing" in refuse(path)


def test_a_huge_declared_size_is_refused_before_it_is_allocated(good, tmp_path):
    path = tmp_path / "huge.net"
    for name in ("layer/1/neuron/iDecay", "layer/1/delay", "layer/1/type", "layer/1/shape"):
        shutil.copy(good, path)
        with h5py.File(path, "r+") as file:
            del file[name]
            file.create_dataset(name, (1 << 40,), dtype="f4", chunks=(1 << 20,), compression="gzip")
        assert "which the file does not hold" in refuse(path)


def test_a_million_layers_are_refused_at_once(tmp_path):
    path = tmp_path / "many.net"
    with h5py.File(path, "w") as file:
        layers = file.create_group("layer")
        for i in range(5000):
            layers.create_group(str(i))
    assert "5000 layers, not 1 to 4096" in refuse(path)


def test_missing_layer_numbers_are_named(good, tmp_path):
    path = tmp_path / "gap.net"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        file.move("layer/3", "layer/30")
    assert "layer/3 is missing among 8" in refuse(path)


@given(data=st.data())
def test_a_file_with_any_byte_changed_is_read_or_refused_never_crashes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "flip.net"
    torch.manual_seed(0)
    export_hdf5(dense_blocks(slayer), path, input_shape=(12,))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(NetFileError):
        load_hdf5(path)


def test_many_strings_that_share_one_are_refused_before_they_are_read(good, tmp_path):
    path = tmp_path / "strings.net"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        del file["layer/1/type"]
        file["layer/1/type"] = np.array(["conv"] * 3, dtype=h5py.string_dtype())
    assert "3 values where one string is expected" in refuse(path)


def test_a_weight_that_was_never_written_is_refused_before_its_layer_is_built(good, tmp_path):
    path = tmp_path / "empty.net"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        layer = file["layer/7"]
        for name in ("weight", "inFeatures", "outFeatures", "shape"):
            del layer[name]
        layer["inFeatures"], layer["outFeatures"], layer["shape"] = 1 << 17, 1 << 17, [1 << 17]
        layer.create_dataset("weight", (1 << 17, 1 << 17), dtype="f4", chunks=(1 << 10, 1 << 10))
    assert "which the file does not hold" in refuse(path)


@pytest.mark.parametrize("value", [np.arange(900), np.zeros((5, 5)), "text", -3])
@pytest.mark.parametrize("name", ["scale", "delay_shift"])
def test_a_wrong_attribute_is_one_line(good, tmp_path, name, value):
    path = tmp_path / "attribute.net"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        file["layer/1"].attrs[name] = value
    assert f"attribute {name}" in refuse(path)


def test_an_input_with_a_norm_is_refused(good, tmp_path):
    path = tmp_path / "input.net"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        file["layer/0/neuron/weight_exp"] = np.zeros(1)
    assert "layer/0/neuron/weight_exp is a norm's" in refuse(path)


def test_weights_that_are_not_finite_are_refused_when_written(tmp_path):
    block = slayer.block.cuba.Dense({"threshold": 1, "current_decay": 1, "voltage_decay": 0}, 3, 2)
    block.synapse.weight.data[0, 0] = torch.nan
    with pytest.raises(NetFileError, match=r"0 \(Dense\).*NaN"):
        export_hdf5(block, tmp_path / "nan.net")
    assert not os.listdir(tmp_path)
