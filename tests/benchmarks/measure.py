"""Timing by turns: what is compared runs in the same process, one round after the other."""

import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from typing import Any

import torch

import lava_bridge

__all__ = ["COPY", "FRAMEWORKS", "LAVA", "LAVA_NC", "LIF", "SPIKINGJELLY", "THEIRS"]
__all__ += ["Case", "Run", "Sizes", "compared", "machine", "measure", "one_line", "timed"]

Run = Callable[[], Any]

# The sides that are not ours.
LAVA = "lava-dl"
SPIKINGJELLY = "SpikingJelly CubaLIFNode"
LIF = "SpikingJelly LIFNode"
COPY = "copy of as many bytes"
FRAMEWORKS = (LAVA, SPIKINGJELLY, LIF)
LAVA_NC = "lava-nc"
THEIRS = (*FRAMEWORKS, LAVA_NC, COPY)

# A side that takes long runs in fewer of the rounds: about this many seconds in all.
BUDGET = 4.0
FEWEST = 3
WARM_UPS = 2


@dataclass(frozen=True)
class Sizes:
    """How large the cases are, and how often each runs."""

    steps: int = 32
    batch: int = 32
    shape: tuple[int, int, int] = (16, 14, 14)
    rounds: int = 9
    # The training steps: T and N of the digits net, of the VGG-like net, of the Conv blocks.
    digits: tuple[int, int] = (16, 64)
    vgg: tuple[int, int] = (8, 8)
    blocks: tuple[int, int] = (32, 32)
    # The processes' convolution: W and H, and the channels in and out.
    layer: tuple[int, int, int] = (32, 16, 32)
    # The growth: steps, batches and neurons, and what stays while one of them grows.
    growth: tuple[tuple[int, ...], ...] = (
        (8, 16, 32, 64, 128, 256, 512),
        (1, 2, 4, 8, 16, 32, 64, 128),
        (16, 64, 256, 1024, 4096, 16384),
    )
    growth_base: tuple[int, int, int] = (32, 8, 1024)
    # Integer runs: samples at once, and steps of Lava's own.
    netx_batch: int = 64
    lava_steps: int = 24
    gpu_batch: int = 1000  # 32 steps of 1000 x 3136 neurons: 100 million neuron-steps
    gpu_vgg: tuple[int, int] = (8, 128)


@dataclass
class Case:
    """What is compared, and what is to be reached.

    Attributes:
        targets: For another side, how many times as fast as it ours is to be; for the copy, how
            many times as long as it ours may take at most; ``"frameworks"`` is the fastest of them.
        clock: Seconds of one run, where that is not for the caller to say.
    """

    group: str
    name: str
    sides: dict[str, Run]
    targets: dict[str, float] = field(default_factory=dict)
    clock: Callable[[Run], float] | None = None


def timed(run: Run, time_now: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a run."""
    start = time_now()
    run()
    return time_now() - start


def measure(case: Case, rounds: int, clock: Callable[[Run], float] = timed) -> dict[str, Any]:
    """Seconds of the rounds of each side, turn by turn, after warm-ups; why a side did not run."""
    clock = case.clock or clock
    turns: dict[str, int] = {}
    skipped: dict[str, str] = {}
    for side, run in case.sides.items():
        try:
            for i in range(WARM_UPS):
                took = clock(run)
                turns[side] = min(rounds, max(FEWEST, int(BUDGET / max(took, 1e-9))))
                # (On a GPU the first one may have compiled the side's kernels.)
                if i == 0 and case.clock is None and took > BUDGET / rounds:
                    break
        except Exception as error:  # the side of a GPU that is too small, or without its compiler
            if side not in THEIRS:
                raise
            turns.pop(side, None)
            skipped[side] = one_line(error)
    seconds: dict[str, list[float]] = {side: [] for side in turns}
    for turn in range(rounds):
        for side, times in turns.items():
            # Spread evenly over the rounds.
            if math.floor((turn + 1) * times / rounds) > math.floor(turn * times / rounds):
                seconds[side].append(clock(case.sides[side]))
    return {
        "group": case.group,
        "name": case.name,
        "targets": case.targets,
        "seconds": seconds,
        "skipped": skipped,
    }


def one_line(error: BaseException) -> str:
    """An error in one line, not too long for a table."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:160]}"


def compared(case: dict[str, Any], side: str) -> dict[str, float]:
    """How many times as fast as each of theirs a side was, by the medians; for the copy, its time.

    ``"frameworks"`` is the fastest of them.
    """
    medians = {name: statistics.median(times) for name, times in case["seconds"].items()}
    found = {name: medians[name] / medians[side] for name in FRAMEWORKS if name in medians}
    if found:
        found["frameworks"] = min(found.values())
    if LAVA_NC in medians:
        found[LAVA_NC] = medians[LAVA_NC] / medians[side]
    if COPY in medians:
        found[COPY] = medians[side] / medians[COPY]
    return found


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
        cpu = names[0] if names else cpu
    except OSError:
        pass
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": lava_bridge.backends()["native"],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "spikingjelly": version("spikingjelly"),
        "date": date.today().isoformat(),
        # Above the number of cores: others were at work, and the figures are worth less.
        "load": round(os.getloadavg()[0], 1),
    }
