"""Hostile files: one NetFileError, in bounded time and memory; nothing outside is opened or run."""

import ctypes
import importlib
import json
import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lava_bridge import NetFileError

from .hostile import CORPUS, DTYPES, write_good

ROOT = Path(__file__).parents[2]
# Each takes the path of a file.
READERS = ["lava_bridge.load_hdf5", "lava_bridge.netx.Network"]

# Of one file.
MOST_SECONDS = 20
MOST_MEMORY = 1 << 30
# Address space of the process that reads the corpus: torch alone maps several GiB.
ADDRESS_SPACE = 16 << 30
# What readers may take: other forms of the same numbers, and what they, as Lava's, don't look at.
# What takes no memory may be large.
HARMLESS = {
    "lava_bridge.load_hdf5": {
        "weight: enumeration",
        "weight: array type",
        "weight: 32 dimensions",
    },
    "lava_bridge.netx.Network": {
        "weight: enumeration",
        "weight: array type",
        "attribute scale: strings",
        "attribute scale: array",
        "attribute scale: nothing",
        "attribute scale: float",
        "attribute scale: not a number",
        "attribute scale: lowest",
        "attribute: a reference",
        "number: layer/6/shape [2147483647, 1, 1]",
        "number: layer/1/inChannels 2147483647",
        "number: layer/1/outChannels 2147483647",
        "number: layer/1/kernelSize [2147483647, 2147483647]",
        "number: layer/7/inFeatures 2147483647",
        "number: layer/7/outFeatures 2147483647",
        "number: layer/1/neuron/vThMant 2147483647",
        "number: layer/2/neuron/weight_exp [2147483647]",
        "number: layer/1/delay [1.e+30 1.e+30 1.e+30 1.e+30]",
    },
}

IN_OPEN = 0x20


def reader(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


class Watch:
    """Counts how often a file in a folder is opened, by anyone."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK)
        assert libc.inotify_add_watch(self._handle, os.fsencode(folder), IN_OPEN) >= 0

    def opened(self) -> list[str]:
        """The names opened since the last call."""
        try:
            events = os.read(self._handle, 1 << 16)
        except BlockingIOError:
            return []
        names, at = [], 0
        while at < len(events):
            length = struct.unpack_from("iIII", events, at)[3]
            names.append(events[at + 16 : at + 16 + length].rstrip(b"\0").decode())
            at += 16 + length
        return names


def read_corpus(name: str, folder: Path) -> None:
    """In a process of its own: read each file of the corpus and print a line about it."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    read, outside = reader(name), folder / "outside"
    watch = Watch(outside)
    (outside / "seen").write_bytes(b"")
    assert watch.opened() == ["seen"]  # that watching works
    for case in CORPUS:
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        try:
            read(folder / f"{list(CORPUS).index(case)}.net")
            found = "read"
        except Exception as error:  # whatever it is: the test tells
            found = f"{type(error).__name__}: {error}"
        line = {
            "case": case,
            "found": found,
            "seconds": time.perf_counter() - begun,
            "memory": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10,
            "opened": watch.opened(),
            "executed": (outside / "executed").exists() or Path("executed").exists(),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "outside").mkdir()
    for i, write in enumerate(CORPUS.values()):
        write(folder / f"{i}.net", folder / "outside")
    return folder


@pytest.fixture(scope="module", params=READERS)
def outcomes(request: Any, corpus: Path) -> tuple[str, dict[str, Any]]:
    code = "from tests.files import test_hostile_files as t; from pathlib import Path; "
    code += f"t.read_corpus({request.param!r}, Path({str(corpus)!r}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=corpus,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"died after {lines[-1:]}: {done.stderr[-2000:]}"
    return request.param, {line["case"]: line for line in lines}


@pytest.mark.parametrize("case", CORPUS)
def test_a_hostile_file_is_one_error_in_bounded_time_and_memory(
    outcomes: tuple[str, dict[str, Any]], case: str
) -> None:
    name, outcome = outcomes[0], outcomes[1][case]
    assert outcome["opened"] == []
    assert not outcome["executed"]
    assert outcome["seconds"] < MOST_SECONDS
    assert outcome["memory"] < MOST_MEMORY
    if outcome["found"] == "read":
        assert case in HARMLESS[name]
        return
    kind, _, message = outcome["found"].partition(": ")
    assert kind == "NetFileError", outcome["found"]
    assert len(message.splitlines()) == 1
    assert ".net: " in message


@pytest.mark.parametrize("name", READERS)
def test_the_file_that_is_spoiled_is_good(good: Path, name: str) -> None:
    assert reader(name)(good) is not None


# Drawn damage -------------------------------------------------------------------------------------


def read_or_refuse(name: str, path: Path) -> None:
    message = ""
    try:
        reader(name)(path)
    except NetFileError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@pytest.fixture(scope="module")
def good(tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.net"
    write_good(path)
    return path


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_bytes_changed_are_read_or_refused(
    good: Path, tmp_path_factory: Any, name: str, data: Any
) -> None:
    content = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(piece)] = piece
    path = tmp_path_factory.mktemp("flip") / "flip.net"
    path.write_bytes(content[: data.draw(st.sampled_from([None, len(content) - 1]))])
    read_or_refuse(name, path)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=30)
@given(data=st.data())
def test_any_length_is_read_or_refused(
    good: Path, tmp_path_factory: Any, name: str, data: Any
) -> None:
    content = good.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "cut.net"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    read_or_refuse(name, path)


def datasets(path: Path) -> list[str]:
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda place, item: found.append(place) if isinstance(item, h5py.Dataset) else None
        )
    return found


VALUES = st.one_of(
    st.sampled_from(list(DTYPES.values())),
    st.builds(
        lambda shape, dtype, value: lambda file: np.full(shape, value).astype(dtype),
        st.lists(st.integers(0, 5), max_size=5),
        st.sampled_from(["f4", "f8", ">f8", "f2", "i1", "i8", ">u4", "?", "S3", "c8"]),
        st.sampled_from([0, 1, 2, -2, 64, 127]),
    ),
)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_datasets_replaced_are_read_or_refused(
    good: Path, tmp_path_factory: Any, name: str, data: Any
) -> None:
    path = tmp_path_factory.mktemp("replaced") / "replaced.net"
    path.write_bytes(good.read_bytes())
    places = data.draw(st.lists(st.sampled_from(datasets(good)), min_size=1, max_size=3))
    with h5py.File(path, "r+") as file:
        for place in dict.fromkeys(places):
            value = data.draw(VALUES)(file)
            del file[place]
            file[place] = value
    read_or_refuse(name, path)
