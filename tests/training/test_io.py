"""Events are lava's, and survive every way to a tensor or a file and back."""

import contextlib
import os

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge.errors import BridgeError
from lava_bridge.slayer import io

seeds = st.integers(0, 10_000)
counts = st.integers(1, 12)
dims = st.sampled_from([1, 2])
CODECS = {
    1: (io.encode_1d_spikes, io.read_1d_spikes, {"x": 16, "c": 1, "t": 23}),
    2: (io.encode_2d_spikes, io.read_2d_spikes, {"x": 8, "y": 8, "c": 1, "t": 23}),
    3: (io.encode_3d_spikes, io.read_3d_spikes, {"x": 12, "y": 12, "c": 8, "t": 24}),
}


def arrays(count, dim, seed, graded=False, bits=None):
    """The arguments of an Event."""
    rng = np.random.default_rng(seed)
    limit = (
        {"x": 6, "y": 5, "c": 3, "t": 9000} if bits is None else {k: 2**n for k, n in bits.items()}
    )
    x, y, c, t = (rng.integers(limit.get(name, 1), size=count) for name in "xyct")
    c[0] = 0  # lava shifts the channels to begin with 0
    payload = rng.integers(1, 9, size=count) / 2 if graded else None
    return x, y if dim == 2 else None, c, t / 1000, payload


def assert_same_event(mine, theirs, kinds=True):
    assert (mine.dim, mine.graded) == (theirs.dim, theirs.graded)
    for name in "xct" + "y" * (mine.dim == 2) + "p" * mine.graded:
        ours, reference = getattr(mine, name), getattr(theirs, name)
        assert ours.dtype == reference.dtype or not kinds, name
        assert np.array_equal(ours, reference), name


@given(counts, dims, seeds, st.booleans(), st.sampled_from([0.5, 1, 3]))
def test_events_and_their_tensors_are_lavas(lava, count, dim, seed, graded, sampling_time):
    x, y, c, t, p = arrays(count, dim, seed, graded)
    # lava counts payloads of one place and time once, and loses a time of 1.5 steps
    kept = np.unique(
        np.stack([x, 0 * x if y is None else y, c, np.round(t / sampling_time)]),
        axis=1,
        return_index=True,
    )[1]
    x, y, c, t, p = (a if a is None else a[np.sort(kept)] for a in (x, y, c, t, p))
    t = np.where(t / sampling_time % 1 == 0.5, t + 0.1, t)
    mine, theirs = (which.Event(x + 0.5, y, c - 1, t, p) for which in (io, lava.io))
    assert_same_event(mine, theirs)
    assert np.array_equal(mine.to_tensor(sampling_time), theirs.to_tensor(sampling_time))
    dim_ = (2, 4, 3, 8) if dim == 2 else (2, 3, 8)
    assert np.array_equal(*(event.to_tensor(sampling_time, dim_) for event in (mine, theirs)))
    shape = (2, 4, 3, 8) if dim == 2 else (2, 1, 3, 8)
    kind = torch.float64 if graded else torch.float32  # lava fails at a payload of another dtype
    for mode in ("or", "SUM"):
        for empty in (np.zeros(shape), torch.ones(shape, dtype=kind)):
            filled, expected = (
                e.fill_tensor(empty + 0, sampling_time, binning_mode=mode) for e in (mine, theirs)
            )
            assert filled.dtype == expected.dtype
            assert (filled == expected).all()


@given(dims, seeds, st.sampled_from([1, 0.5, 2]), st.sampled_from(["binary", "graded", "few"]))
def test_a_tensor_becomes_lavas_events_and_itself_again(lava, dim, seed, sampling_time, kind):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, 2, 5) if dim == 2 else (2, 3, 5)
    x = torch.rand(shape, generator=generator)
    x = (
        x * (x > 0.5)
        if kind == "graded"
        else (x > {"binary": 0.5, "few": 0.97}[kind]).float() / sampling_time
    )
    event = io.tensor_to_event(x, sampling_time)
    assert np.array_equal(event.to_tensor(sampling_time, shape), x.numpy())
    assert_same_event(event, io.tensor_to_event(x.numpy(), sampling_time))
    if x[0].any() and (sampling_time == 1 or kind == "binary"):
        assert_same_event(event, lava.io.tensor_to_event(x, sampling_time), kinds=False)


def test_tensors_of_any_kind_become_events():
    x = torch.zeros(2, 3, 4)
    x[1, 2, 3] = 1
    for kind in (x.bool(), x.to(torch.uint8), x.double(), x.requires_grad_(), x.detach().mT.mT):
        event = io.tensor_to_event(kind)
        assert not event.graded
        assert (event.c, event.x, event.t) == (1, 2, 3)


@given(counts, dims, seeds)
def test_each_of_several_events_counts(count, dim, seed):
    """lava counts those of one place and step once."""
    _, y, _, _, p = arrays(count, dim, seed, graded=True)
    zero = np.zeros(count, dtype=int)
    for empty in (np.zeros((1, 1, 1, 99)), torch.zeros(1, 1, 1, 99)):
        event = io.Event(zero, None if y is None else zero, zero, zero, p)
        assert event.fill_tensor(empty)[0, 0, 0, 0] == p.sum()
        binary = io.Event(zero, None if y is None else zero, zero, zero + 1)
        assert binary.fill_tensor(empty, binning_mode="sum")[0, 0, 0, 1] == count


@given(st.lists(st.floats(0, 50), min_size=1, max_size=5), st.sampled_from([0.5, 1, 2, 3]))
def test_no_event_is_outside_a_tensor_of_its_own_size(times, sampling_time):
    """lava's is a step short for a last time of 1.5, 3.5, ... steps."""
    place = np.arange(len(times))
    event = io.Event(place, None, 0 * place, times)
    assert event.to_tensor(sampling_time).sum() == pytest.approx(len(times) / sampling_time)


def test_a_tensor_of_another_dtype_takes_the_payload():
    event = io.Event([0], None, [0], [0], np.array([2.5]))
    for kind in (torch.float32, torch.bfloat16):
        assert event.fill_tensor(torch.zeros(1, 1, 1, 1, dtype=kind)).item() == 2.5


def test_the_callers_arrays_stay_as_they_are():
    channels = np.array([3, 4])
    assert io.Event([0, 1], None, channels, [0.0, 1.0]).c.tolist() == [0, 1]
    assert channels.tolist() == [3, 4]


def test_a_wider_than_high_picture_is_filled_and_cut():
    event = io.Event([5, 1], [1, 1], [0, 1], [0, 1])
    assert event.to_tensor().shape == (2, 2, 6, 2)
    assert event.fill_tensor(np.zeros((2, 2, 6, 2))).sum() == 2
    assert event.fill_tensor(np.zeros((2, 2, 5, 2))).sum() == 1


@given(st.integers(1, 30), st.integers(0, 80), st.integers(1, 50), seeds)
def test_a_random_shift_keeps_all_events_or_fills_the_tensor(length, start, steps, seed):
    """lava's drops most, or all of them."""
    np.random.seed(seed)
    place = np.zeros(length, dtype=int)
    event = io.Event(place, None, place, np.arange(length) + start)
    filled = event.fill_tensor(np.zeros((1, 1, 1, steps)), random_shift=True)
    assert filled.sum() == min(length, steps)
    starts = {
        event.fill_tensor(np.zeros((1, 1, 1, 99)), random_shift=True).argmax() for _ in range(20)
    }
    assert len(starts) > 1


@given(counts, st.sampled_from([1, 2, 3]), seeds)
def test_a_binary_file_gives_back_its_events(tmp_path_factory, count, dim, seed):
    encode, read, bits = CODECS[dim]
    path = str(tmp_path_factory.getbasetemp() / f"{dim}.bs")
    event = io.Event(*arrays(count, min(dim, 2), seed, bits=bits))
    event.c = event.c + (2 ** bits["c"] - 1 - event.c.max())  # also without channel 0
    encode(path, event)
    assert os.path.getsize(path) == count * sum(bits.values()) // 8
    assert_same_event(read(path), event)


@given(counts, dims, seeds)
def test_binary_files_are_lavas(lava, tmp_path_factory, count, dim, seed):
    encode, read, bits = CODECS[dim]
    theirs_encode, theirs_read = (
        getattr(lava.io, f"{n}_{dim}d_spikes") for n in ("encode", "read")
    )
    mine, theirs = (str(tmp_path_factory.getbasetemp() / name) for name in ("mine", "theirs"))
    given_ = arrays(count, dim, seed, bits={**bits, "x": 8})  # lava loses what is above 255
    encode(mine, io.Event(*given_))
    theirs_encode(theirs, lava.io.Event(*given_))
    with open(mine, "rb") as a, open(theirs, "rb") as b:
        assert a.read() == b.read()
    assert_same_event(read(theirs), theirs_read(mine))


def test_a_neuron_above_255_is_kept_and_read_as_by_lava(lava, tmp_path):
    path = str(tmp_path / "wide.bs1")
    io.encode_1d_spikes(path, io.Event([1, 300, 65535], None, [0, 1, 0], [0, 1, 8388.607]))
    assert_same_event(io.read_1d_spikes(path), lava.io.read_1d_spikes(path))
    assert io.read_1d_spikes(path).x.tolist() == [1, 300, 65535]


def test_a_3d_file_is_of_the_documented_bytes(tmp_path):
    path = tmp_path / "event.bs3"
    path.write_bytes(bytes([0xAB, 0xC1, 0x23, 0x07, 0x01, 0x02, 0x03]))
    event = io.read_3d_spikes(path)
    assert (event.x, event.y, event.c, event.t) == (0xABC, 0x123, 7, 0x010203 / 1000)


@given(counts, dims, seeds, st.sampled_from([1e-3, 1e-6, 1.0]))
def test_a_numpy_file_gives_back_its_events(lava, tmp_path_factory, count, dim, seed, time_unit):
    path = str(tmp_path_factory.getbasetemp() / "events.npy")
    mine, theirs = (which.Event(*arrays(count, dim, seed)) for which in (io, lava.io))
    io.encode_np_spikes(path, mine, time_unit=time_unit)
    back = io.read_np_spikes(path, time_unit=time_unit)
    np.testing.assert_allclose(back.t, mine.t, rtol=1e-12)  # lava's encode forgets the unit
    assert_same_event(back, lava.io.read_np_spikes(path, time_unit=time_unit))
    if time_unit == 1e-3:
        lava.io.encode_np_spikes(path, theirs)
        assert_same_event(io.read_np_spikes(path), back)


@pytest.mark.parametrize("dim", CODECS)
def test_a_file_without_events(tmp_path, dim):
    encode, read, _ = CODECS[dim]
    nothing = io.Event([], None if dim == 1 else [], [], [])
    encode(str(tmp_path / "empty"), nothing)
    assert (tmp_path / "empty").read_bytes() == b""
    assert_same_event(
        read(str(tmp_path / "empty")),
        io.Event(
            *([] if a is not None else a for a in (nothing.x, nothing.y, nothing.c)), np.zeros(0)
        ),
    )
    io.encode_np_spikes(str(tmp_path / "empty.npy"), nothing)
    assert io.read_np_spikes(str(tmp_path / "empty.npy")).dim == nothing.dim
    shape = (1, 2, 3) if dim == 1 else (1, 1, 2, 3)
    assert not nothing.to_tensor(dim=shape).any()
    assert not nothing.fill_tensor(np.zeros((1, 1, 1, 2)), random_shift=True).any()
    assert io.tensor_to_event(np.zeros(shape)).t.size == 0


@given(st.binary(max_size=200), st.sampled_from(["raw", "npy", "head", "zip"]))
def test_a_foreign_file_is_an_event_or_one_clear_error(tmp_path_factory, content, kind):
    path = tmp_path_factory.getbasetemp() / "foreign"
    np.save(path.with_suffix(".npy"), np.zeros((3, 4)))
    whole = path.with_suffix(".npy").read_bytes()
    start = {"raw": b"", "npy": whole[: len(content)], "head": whole[:10], "zip": b"PK\x03\x04"}[
        kind
    ]
    path.write_bytes(start + content)
    for read in (io.read_np_spikes, *(codec[1] for codec in CODECS.values())):
        with contextlib.suppress(BridgeError):
            assert isinstance(read(path), io.Event)


@pytest.mark.parametrize(
    ("old", "new"), [(b"(3, 4)", b"(3, 4 "), (b"(3, 4)", b"(3, 04"), (b"<f8", b"<z8")]
)
def test_a_numpy_file_with_a_damaged_header_is_refused(tmp_path, old, new):
    path = tmp_path / "damaged.npy"
    np.save(path, np.zeros((3, 4)))
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(BridgeError, match=r"damaged\.npy: can't be read") as error:
        io.read_np_spikes(path)
    assert "\n" not in str(error.value)


def bad_table(tmp_path, table):
    path = str(tmp_path / "bad.npy")
    np.save(path, table)
    return path


one = io.Event([1], None, [0], [0.0])
graded = io.Event([1], None, [0], [0.0], [2])
flat = io.Event([1], [1], [0], [0.0])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda path: io.Event([1], None, [0, 1], [0.0]), "one length"),
        (lambda path: io.Event(1, None, 0, 0.0), "one length"),
        (lambda path: io.tensor_to_event(np.zeros((1, 1, 1, 1, 1))), "(1, 1, 1, 1, 1)"),
        (lambda path: io.tensor_to_event([1]), "(1,)"),
        (lambda path: io.Event([], None, [], []).to_tensor(), "give dim"),
        (lambda path: io.Event([], None, [], []).anim(), "no events"),
        (lambda path: one.fill_tensor(np.zeros((1, 1, 9))), "(1, 1, 9)"),
        (lambda path: one.fill_tensor(np.zeros((1, 1, 9, 9)), binning_mode="AND"), "'AND'"),
        (lambda path: io.encode_1d_spikes(path / "f", flat), "found dim 2"),
        (lambda path: io.encode_2d_spikes(path / "f", one), "found dim 1"),
        (lambda path: io.encode_1d_spikes(path / "f", graded), "payloads"),
        (lambda path: io.encode_np_spikes(path / "f", graded), "payloads"),
        (lambda path: io.encode_np_spikes(path / "f", one, fmt="xyz"), "'xyz'"),
        (lambda path: io.read_np_spikes(bad_table(path, np.zeros((2, 3))), fmt="xyz"), "'xyz'"),
        (lambda path: io.read_np_spikes(bad_table(path, np.zeros((2, 5)))), "(2, 5)"),
        (lambda path: io.read_np_spikes(bad_table(path, np.zeros(3))), "(3,)"),
        (lambda path: io.read_np_spikes(bad_table(path, np.array([["a"] * 3]))), "<U1"),
        (lambda path: io.read_np_spikes(bad_table(path, np.array([[None] * 3]))), "of numbers"),
        (lambda path: io.read_np_spikes(__file__), "it is no .npy file of numbers"),
        (lambda path: io.read_np_spikes(path / "none"), "No such file"),
        (lambda path: io.read_1d_spikes(path / "none"), "No such file"),
        (
            lambda path: io.encode_1d_spikes(path / "f", io.Event([65536], None, [0], [0])),
            "x of 65536",
        ),
        (lambda path: io.encode_2d_spikes(path / "f", io.Event([0], [256], [0], [0])), "y of 256"),
        (
            lambda path: io.encode_2d_spikes(path / "f", io.Event([0, 0], [0, 0], [0, 2], [0, 0])),
            "c of 0 to 2",
        ),
        (
            lambda path: io.encode_1d_spikes(path / "f", io.Event([0], None, [0], [9000])),
            "t of 9000000",
        ),
        (
            lambda path: io.encode_1d_spikes(path / "f", io.Event([0], None, [0], [-1])),
            "t of -1000",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, wrong, says):
    with pytest.raises(BridgeError) as error:
        wrong(tmp_path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("dim", CODECS)
def test_a_truncated_file_is_refused(tmp_path, dim):
    (tmp_path / "cut").write_bytes(bytes(36))
    with pytest.raises(BridgeError, match="36 bytes, no whole number"):
        CODECS[dim][1](tmp_path / "cut")


def artists(animation, frame):
    animation._func(frame)
    axes = animation._fig.axes[0]
    return axes, axes.images[0].get_array() if axes.images else axes.collections[0].get_offsets()


@pytest.mark.parametrize("keep", [False, True])
def test_pictures_are_lavas_and_show_the_last_event_too(lava, keep):
    times = [0.0, 30.0, 50.0, 100.0, 130.0]
    given_ = [0, 1, 2, 0, 3], [1, 0, 1, 2, 0], [0, 1, 2, 1, 0], times
    mine, theirs = (w.Event(*given_).anim(pre_compute_frames=keep) for w in (io, lava.io))
    for n in range(4):
        reference = theirs._func(n) if not keep else theirs._func(list(theirs.new_frame_seq())[n])
        assert np.array_equal(artists(mine, n)[1], reference.get_array())
    last = io.Event([0], [0], [1], [125.0]).anim(frame_rate=8)
    assert list(last.new_frame_seq()) == [1]
    assert artists(last, 1)[1].tolist() == [[[0, 0, 1]]]


@pytest.mark.parametrize("payload", [None, [1, 2, 3], [2, 2, 2]])
def test_a_raster_fills_with_time_also_of_equal_payloads(payload):
    event = io.Event([0, 1, 2], None, [0, 0, 0], [1000.0, 1050.0, 1100.0], payload)
    animation = event.anim(fig=7, frame_rate=10)
    assert list(animation.new_frame_seq()) == [10, 11]
    axes, seen = artists(animation, 10)
    assert seen.tolist() == [[1000, 0], [1050, 1]]
    assert np.isfinite(axes.collections[0].get_alpha()).all()
    assert len(artists(animation, 11)[1]) == 3
    assert "<img" in animation.to_jshtml()


def test_show_plays_in_the_figure_that_is_given(monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    figure = plt.figure(5)
    plt.figure(6)
    assert one.show(fig=figure) is None
    assert shown == [[5, 6]]
    assert figure.axes
    plt.close("all")


def test_without_matplotlib_only_drawing_fails(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(BridgeError, match="pip install matplotlib"):
        one.anim()
