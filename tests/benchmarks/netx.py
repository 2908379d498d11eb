"""Integer runs of ``.net`` files against Lava's own, which needs a Python of its own.

With ``LAVA_BRIDGE_LAVA_PYTHON``, the Python 3.10 of ``pip install lava-dl==0.6.0``, the real Lava
is timed in the same run (tests/reference/time_netx.py, in a process of its own); without it Lava's
rows are those that were recorded, and are marked so.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lava_bridge.netx import Network

from ..netx.wheel_cases import ntidigits
from .measure import Sizes, timed

__all__ = ["VARIABLE", "netx", "seconds_of_lava"]

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "netx"
RECORDED = DATA / "seconds.json"
VARIABLE = "LAVA_BRIDGE_LAVA_PYTHON"
NAMES = ("dense", "conv", "cuba", "recurrent", "rf", "digits")
# How many times as fast as Lava's a sample of a batch is to be; a step of ntidigits, one sample.
TARGET, TARGET_ALONE = 1000, 500
BATCH = 64
LAVA_STEPS = 100
TIMEOUT = 900


def netx(sizes: Sizes, clock: Callable[[Callable[[], Any]], float] = timed) -> dict[str, Any]:
    """Seconds of a time step of a sample, of ours and of Lava's, for each net.

    Lava runs one sample at a time, and starts its processes for each; given are both its steps
    alone and a sample with that start. A step of ours is one of a batch, over its samples.
    """
    lava = seconds_of_lava(sizes)
    rows = []
    for name in (*NAMES, "ntidigits"):
        if name == "ntidigits":
            path, options, recorded, _ = ntidigits(Path())
            x, target = torch.from_numpy(recorded).float(), TARGET_ALONE
        else:
            path, options, target = DATA / f"{name}.net", {}, TARGET
            with np.load(DATA / f"{name}.npz") as run:
                x = torch.from_numpy(run["x"]).float()
            x = x.repeat(BATCH // len(x) + 1, *[1] * (x.dim() - 1))[: sizes.netx_batch]
        net = Network(path, **options)
        for _ in range(2):
            net.run(x)
        seconds = [clock(lambda net=net, x=x: net.run(x)) for _ in range(sizes.rounds)]
        places = len(x) * x.shape[-1]
        rows.append(
            {
                "name": name,
                "batch": len(x),
                "lava_steps": lava["steps"],
                "seconds": [value / places for value in seconds],
                "lava": lava["seconds"][name],
                "target": target,
                "of": "step" if name == "ntidigits" else "sample",
            }
        )
    return {"lava": lava["from"], "rows": rows}


def seconds_of_lava(sizes: Sizes) -> dict[str, Any]:
    """Seconds of a step and of a sample in Lava by name, and where they are from."""
    python = os.environ.get(VARIABLE)
    if python is None:
        recorded = json.loads(RECORDED.read_text())
        return {"from": f"recorded, not this run ({VARIABLE} is not set)", **recorded}
    paths = [str(DATA / f"{name}.net") for name in NAMES]
    done = subprocess.run(
        [
            python,
            "tests/reference/time_netx.py",
            str(sizes.lava_steps),
            *paths,
            str(ntidigits(Path())[0]),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{python}: {done.stderr.strip()[-500:]}")
    steps = sizes.lava_steps
    measured = json.loads(done.stdout.splitlines()[-1])
    return {"from": f"{steps} steps in this run", "steps": steps, "seconds": measured}
