"""The CPU's kernels in torch's threads, in several of Python's, and in a child of a fork."""

import ctypes
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lava_bridge.kernels import native
from lava_bridge.ops import cuba

DECAYS = torch.tensor([1024.0]), torch.tensor([400.0])
STATES = torch.zeros(1), torch.zeros(1)
# 131,072 neuron-steps, which up to five threads share.
SHAPE = (8, 512, 32)

CHILD = """
import os, sys, torch
from tests.kernels.test_threads import SHAPE, fired
from lava_bridge.kernels import native
torch.set_num_threads(2)
x = torch.randn(SHAPE)
expected = fired(x).numpy().tobytes()
child = os.fork()
if not child:
    same = fired(x).numpy().tobytes() == expected
    os._exit(0 if same and not native._native.has_team() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def fired(x):
    return cuba.fire(x, DECAYS, STATES, 64, 0.5, (1.0, 1.0), False).spike


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_calls_run_in_torchs_team_where_one_is_loaded():
    loaded = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "GOMP_parallel")
    assert native._native.has_team() == loaded
    assert native.described().endswith("of torch's" if loaded else "of its own")


def test_calls_from_several_of_pythons_threads_do_not_disturb_each_other(two_threads):
    inputs = [torch.randn(SHAPE) for _ in range(8)]
    expected = [fired(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = list(pool.map(fired, inputs))
            assert all(map(torch.equal, found, expected))
    assert not torch.equal(expected[0], expected[1])


def test_a_kernel_lets_other_python_threads_run(monkeypatch):
    counted, passed, done = [0], [], threading.Event()

    def count():
        while not done.wait(0.0005):
            counted[0] += 1

    def run(*call):
        start = counted[0]
        kernel(*call)
        passed.append(counted[0] - start)

    kernel = native._native.run
    monkeypatch.setattr(native._native, "run", run)
    before = sys.getswitchinterval()
    sys.setswitchinterval(100)  # Python takes its lock from nobody: a kernel has to give it up
    other = threading.Thread(target=count)
    try:
        other.start()
        fired(torch.zeros(8, 4096, 512))
    finally:
        sys.setswitchinterval(before)
        done.set()
        other.join()
    assert len(passed) == 1
    assert passed[0] >= 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_child_of_a_fork_does_without_the_team_and_gives_the_same():
    # A team's threads are not there in the child: to wait for them would be for ever.
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
