"""How long Lava's own netx takes for a .net file, in its ``fixed_pt`` models.

Run with the Python 3.10 that has lava-dl 0.6.0 (see netx_runs.py):

    lava310/bin/python tests/reference/time_netx.py STEPS NAME.net ... > seconds.json

Prints a JSON object: for each file the seconds of one step (without the start of its processes),
and of a sample of so many steps, from the making of its network to the end of its processes. A
silent input is fed: the models' time does not depend on it. ``make bench`` calls this.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from lava.lib.dl.netx.hdf5 import Network
from lava.magma.core.run_conditions import RunSteps
from lava.proc import io
from netx_runs import FixedPoint


def seconds(path: Path, steps: int) -> dict[str, float]:
    """Seconds of one step, after one that starts everything, and of a sample."""
    made = time.perf_counter()
    # The last layer of some files averages, which netx can't; the others are the net.
    with_neurons = 5 if path.stem == "ntidigits" else None
    net = Network(net_config=str(path), num_layers=with_neurons)
    source = io.source.RingBuffer(data=np.zeros((*net.inp.shape, steps), dtype=np.int32))
    sink = io.sink.RingBuffer(shape=net.out.shape, buffer=steps)
    source.s_out.connect(net.inp)
    net.out.connect(sink.a_in)
    try:
        net.run(condition=RunSteps(num_steps=1), run_cfg=FixedPoint())
        begun = time.perf_counter()
        net.run(condition=RunSteps(num_steps=steps - 1), run_cfg=FixedPoint())
        step = (time.perf_counter() - begun) / (steps - 1)
    finally:
        net.stop()
    return {"step": step, "sample": time.perf_counter() - made}


if __name__ == "__main__":
    steps, *paths = sys.argv[1:]
    found = {Path(path).stem: seconds(Path(path), int(steps)) for path in paths}
    print(json.dumps(found))
