"""Encoders in files: what is written comes back, and only where it belongs."""

import os
import shutil

import h5py
import numpy as np
import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings, strategies as st

from lava_bridge import Encoder, NetFileError, export_hdf5, load_hdf5, netx
from lava_bridge.chip import LOIHI2, check_chip
from lava_bridge.encoder import GradedInput
from lava_bridge.hdf5.encoder import MARK, checksum, read_encoder

from .nets import INPUT, blocks, direct, graded

READERS = [load_hdf5, netx.Network]


@pytest.fixture
def net(tmp_path):
    """A file with an encoder."""
    export_hdf5(direct(), tmp_path / "n.net")
    return tmp_path / "n.net"


@st.composite
def fronts(draw):
    """An encoder of (2, 7, 6) inputs that gives three dimensions."""
    if draw(st.booleans()):
        levels, amplitude = draw(st.integers(1, 255)), draw(st.floats(1e-3, 1e3))
        return GradedInput(levels, amplitude, (2, 7, 6))
    made = draw(st.sampled_from([nn.Conv2d, nn.ConvTranspose2d]))
    stride = draw(st.integers(1, 2))
    settings = {
        "stride": (stride, 1),
        "dilation": draw(st.integers(1, 2)),
        "groups": draw(st.sampled_from([1, 2])),
        "bias": draw(st.booleans()),
        "padding": draw(st.integers(0, 1)),
    }
    if made is nn.ConvTranspose2d:
        settings["output_padding"] = (stride - 1, 0)
    else:
        settings["padding_mode"] = draw(st.sampled_from(["zeros", "reflect", "circular"]))
    if made is nn.Conv2d and stride == 1 and draw(st.booleans()):
        settings |= {"padding": "same", "stride": 1}
    synapse = made(2, 2 * draw(st.integers(1, 2)), draw(st.sampled_from([(1, 2), 2])), **settings)
    if draw(st.booleans()):
        synapse.double()
    tau = draw(st.one_of(st.just(float("inf")), st.floats(1, 1e3)))
    return Encoder(synapse, draw(st.floats(-5, 5)), tau, (2, 7, 6))


@settings(max_examples=20)
@given(fronts())
def test_what_is_written_comes_back_to_the_bit(tmp_path_factory, front):
    path = tmp_path_factory.mktemp("round") / "n.net"
    net = blocks(front)
    export_hdf5(net, path)
    loaded = load_hdf5(path)
    back = loaded[0]
    assert repr(back) == repr(front)
    for name, value in front.__dict__.items():
        if not name.startswith("_"):
            assert getattr(back, name) == value
    for name, value in front.state_dict().items():
        assert back.state_dict()[name].dtype == value.dtype
        assert torch.equal(back.state_dict()[name], value)
    x = torch.rand(2, 2, 7, 6, 3)
    assert torch.equal(loaded(x), net(x))
    run = netx.Network(path, aligned=True)
    assert repr(run.encoder) == repr(front)
    assert torch.equal(run.encoded(x), front(x))


def test_a_linear_encoder_comes_back(tmp_path):
    block = direct()[4]
    net = [Encoder(nn.Linear(64, block.synapse.in_channels), 0.3, 2.0), block]
    export_hdf5(net, tmp_path / "n.net", input_shape=INPUT)
    x = torch.randn(3, *INPUT, 9)
    assert torch.equal(load_hdf5(tmp_path / "n.net")(x), nn.Sequential(*net)(x))


def test_the_encoder_lies_beside_the_file_without_pickle(net):
    assert sorted(os.listdir(net.parent)) == ["n.encoder.h5", "n.net"]
    with h5py.File(net.parent / "n.encoder.h5") as file:
        assert file["layer/0/type"][0] == b"direct"
        assert file["layer/0/weight"].shape == (3, 1, 3, 3)
        assert file["layer/0/weight"].dtype == np.float32
    with h5py.File(net) as file:
        assert len(file.attrs[MARK]) == 64
        assert sorted(file["layer"]) == ["0", "1", "2", "3"]
    assert (net.parent / "n.encoder.h5").stat().st_mode == net.stat().st_mode


@pytest.mark.parametrize("read", READERS)
def test_without_the_encoder_a_file_takes_spikes(net, read):
    os.unlink(net.parent / "n.encoder.h5")
    with pytest.raises(NetFileError, match=r"there is no n.encoder.h5 beside it.*encoder=False"):
        read(net)
    alone = read(net, encoder=False)
    assert not isinstance(next(iter(alone), None) if read is load_hdf5 else alone.encoder, Encoder)
    assert check_chip(net, LOIHI2).layers[0].name == "0 Input"
    loaded = load_hdf5(net, encoder=False)
    with_encoder = nn.Sequential(direct()[0], *loaded)
    assert check_chip(with_encoder, LOIHI2).layers == check_chip(net, LOIHI2).layers


@pytest.mark.parametrize("read", READERS)
def test_another_nets_encoder_is_refused(net, read):
    export_hdf5(direct(bias=False), net.parent / "other.net")
    shutil.copy(net.parent / "other.encoder.h5", net.parent / "n.encoder.h5")
    with pytest.raises(NetFileError, match=r"is not the encoder that n.net was exported with"):
        read(net)


@pytest.mark.parametrize("read", READERS)
def test_an_export_without_encoder_takes_none_that_lies_there(net, read):
    export_hdf5(direct()[1:], net)
    assert (net.parent / "n.encoder.h5").is_file()
    assert read_encoder(net) is None
    read(net)


def test_a_renamed_pair_and_a_link_are_read(net, tmp_path):
    (tmp_path / "linked").mkdir()
    link = tmp_path / "linked" / "a.net"
    link.symlink_to(net)
    assert isinstance(load_hdf5(link)[0], Encoder)
    export_hdf5(direct(), link)
    assert link.is_symlink()
    assert isinstance(load_hdf5(net)[0], Encoder)
    for name in ("net", "encoder.h5"):
        os.rename(tmp_path / f"n.{name}", tmp_path / f"m.{name}")
    assert isinstance(load_hdf5(tmp_path / "m.net")[0], Encoder)


def test_a_failed_export_leaves_the_old_pair(net, monkeypatch):
    before = {path: path.read_bytes() for path in net.parent.iterdir()}
    broken = direct()
    broken[2].synapse.pre_hook_fx = None
    with pytest.raises(NetFileError, match="has no pre_hook_fx"):
        export_hdf5(broken, net)
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NetFileError, match=r"n.net: can't be written \(No space"):
        export_hdf5(direct(), net)
    assert len(calls) == 2
    assert {path: path.read_bytes() for path in net.parent.iterdir()} == before


def test_what_can_not_be_exported_is_refused(tmp_path):
    path = tmp_path / "n.net"
    with pytest.raises(NetFileError, match="Encoder: the shape of its input is not known"):
        export_hdf5([Encoder(nn.Conv2d(1, 3, 3)), *direct()[1:]], path)
    with pytest.raises(NetFileError, match=r"Encoder: .*an input of shape \(1, H, W\), found \(2"):
        export_hdf5(direct(), path, input_shape=(2, 8, 8))
    with pytest.raises(NetFileError, match=r"1 \(Encoder\): is no slayer block"):
        export_hdf5([direct()[1], *direct()], path, input_shape=INPUT)
    with pytest.raises(NetFileError, match="there are no blocks to write"):
        export_hdf5([direct()[0]], path)
    infinite = direct()
    infinite[0].synapse.weight.data.fill_(float("inf"))
    with pytest.raises(NetFileError, match="weight has values that are NaN or infinite"):
        export_hdf5(infinite, path)
    assert not os.listdir(tmp_path)


# Hostile files ----------------------------------------------------------------------------------

HUGE = 2**31 - 1


def replaced(name, value):
    def spoil(layer):
        if name in layer:
            del layer[name]
        if value is not None:
            layer[name] = value

    return spoil


def compressed(layer):
    """Zeros that claim what the file does not hold."""
    del layer["weight"]
    layer.create_dataset("weight", (1 << 14, 1, 256, 256), "f4", chunks=(1, 1, 256, 256))


SPOILED = {
    "another type": (replaced("type", [b"dense"]), "is 'dense', neither direct nor graded"),
    "no weight": (replaced("weight", None), "weight is missing"),
    "no shape": (replaced("shape", None), "shape is missing"),
    "no threshold": (replaced("threshold", None), "threshold is missing"),
    "another synapse": (replaced("synapse", [b"eval"]), "is 'eval', which is none of"),
    "integers": (replaced("weight", np.ones((3, 1, 3, 3), "i4")), "has the dtype int32"),
    "half": (replaced("weight", np.ones((3, 1, 3, 3), "f2")), "has the dtype float16"),
    "infinite": (replaced("weight", np.full((3, 1, 3, 3), 1e300)), "NaN or infinite"),
    "flat": (replaced("weight", np.ones(27, "f4")), "not 4 dimensions"),
    "empty": (replaced("weight", np.ones((3, 1, 0, 3), "f4")), "not 4 dimensions"),
    "compressed": (compressed, "which the file does not hold"),
    "longer bias": (replaced("bias", np.ones(4, "f4")), "bias has 4 values"),
    "bias of another dtype": (replaced("bias", np.ones(3, "f8")), "bias has 3 values of"),
    "no stride": (replaced("stride", [0, 0]), "not two integers from 1 up"),
    "groups": (replaced("groups", 2), "is no valid encoder"),
    "many groups": (replaced("groups", HUGE), "is no valid encoder"),
    "padding mode": (replaced("padding_mode", [b"evil"]), "is no valid encoder"),
    "padding name": (replaced("padding_name", [b"evil"]), "is no valid encoder"),
    "padding": (replaced("padding", [HUGE, HUGE]), ""),
    "some padding": (replaced("padding", [3, 3]), ""),
    "threshold": (replaced("threshold", np.nan), "NaN or infinite"),
    "tau": (replaced("tau", 0.5), "tau must be 1 or more"),
    "another shape": (replaced("shape", [1, 9, 8]), ""),
    "a large shape": (replaced("shape", [1, 46340, 46340]), ""),
    "channels": (replaced("shape", [2, 8, 8]), "is no valid encoder"),
    "a link": (replaced("weight", h5py.ExternalLink("/etc/passwd", "x")), "weight"),
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED)
def test_a_hostile_encoder_is_one_error(net, read, spoil, message):
    beside = net.parent / "n.encoder.h5"
    with h5py.File(beside, "r+") as file:
        spoil(file["layer/0"])
    with h5py.File(net, "r+") as file:
        file.attrs[MARK] = np.bytes_(checksum(memoryview(beside.read_bytes())))
    with pytest.raises(NetFileError) as caught:
        read(net)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("mark", [b"x", 7, [b"a" * 64] * 2, "text", b"\xff" * 64, np.nan])
def test_a_hostile_mark_is_one_error(net, read, mark):
    with h5py.File(net, "r+") as file:
        file.attrs[MARK] = mark
    with pytest.raises(NetFileError) as caught:
        read(net)
    assert "\n" not in str(caught.value)


@settings(max_examples=20)
@given(st.data())
def test_a_damaged_encoder_is_refused_for_its_checksum(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    export_hdf5(graded(), folder / "n.net")
    beside = folder / "n.encoder.h5"
    content = bytearray(beside.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    beside.write_bytes(content)
    with pytest.raises(NetFileError, match="checksum differs"):
        load_hdf5(folder / "n.net")
