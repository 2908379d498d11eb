"""Peak memory of a training step, of each side in a process of its own.

``python -m tests.benchmarks.memory SIDE T N`` prints the bytes: by how much the process grows over
what it holds before the step (net, optimiser and data), as the operating system counts.
"""

import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path

import torch

from ..conftest import import_lava_slayer
from .measure import LAVA, Sizes
from .training import BLOCKS, SIDES, Plan, training_step

__all__ = ["memory"]

ROOT = Path(__file__).resolve().parents[2]
SMALL = Plan("small", (16, 4, 4), BLOCKS.layers)


def memory(sizes: Sizes, sides: tuple[str, ...] = SIDES) -> dict[str, object]:
    """Bytes of each side."""
    peaks = {}
    for side in sides:
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, side, *map(str, sizes.blocks)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"memory of {side}: {done.stderr.strip()[-500:]}")
        peaks[side] = int(done.stdout.split()[-1])
    steps, batch = sizes.blocks
    return {"name": f"{BLOCKS.name}, 14x14, T={steps}, N={batch}", "bytes": peaks}


def status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def peak(side: str, steps: int, batch: int) -> int:
    """By how many bytes the process grows at most during steps of a side."""
    lava = import_lava_slayer() if side == LAVA else None
    training_step(side, SMALL, 2, 1, lava)()  # loads what is loaded when first used
    step = training_step(side, BLOCKS, steps, batch, lava)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    for _ in range(3):
        step()
    return status("VmHWM") - before


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    print(peak(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
