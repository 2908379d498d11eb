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
least = []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(10_000_000) for _ in range(3)]
    del tensors
    least.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(least[6:]))
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


@pytest.mark.parametrize("error", [TypeError("argument of type 'NoneType'"), OSError("none")])
def test_where_there_is_no_library_to_ask_nothing_is_done(error, monkeypatch):
    def refused(name: None) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refused)  # Windows has no CDLL(None)
    assert keep_memory() is False
