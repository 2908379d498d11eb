"""keep_memory, which is for a whole process: each test has one of its own."""

import ctypes
import subprocess
import sys

import pytest

from lava_bridge.memory import keep_memory

# Page faults where tensors of 40 MB come and go, which glibc gives back to the system otherwise.
STEP = """
import resource, sys, torch
from lava_bridge.memory import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(10_000_000) for _ in range(3)]
    del tensors
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def has_glibc() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", STEP, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not has_glibc(), reason="no glibc")
def test_tensors_take_what_others_left():
    assert faults("keep") < 100
    assert faults("leave") > 100  # of 4 KiB each, or of a few huge pages


@pytest.mark.parametrize("missing", ["gnu_get_libc_version", "mallopt"])
def test_without_glibc_nothing_is_done(missing, monkeypatch):
    class Other:
        def __getattr__(self, name: str) -> object:
            if name == missing:
                raise AttributeError(name)
            return pytest.fail if name == "mallopt" and missing != "mallopt" else object()

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Other())
    assert keep_memory() is False


def test_where_a_library_needs_a_name_nothing_is_done(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: name.upper())  # Windows has no CDLL(None)
    with pytest.raises(AttributeError):
        ctypes.CDLL(None)
    assert keep_memory() is False
