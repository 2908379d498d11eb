"""Run nets with a convolution in Lava's own runtime and record what comes out.

lava_bridge is not needed. Lava runs on Python 3.10 alone:

    python3.10 -m venv lava310 && lava310/bin/pip install lava-nc==0.10.0
    PYTHONPATH=. lava310/bin/python tests/reference/conv_runs.py tests/data/proc

Each net of tests/proc/nets.py becomes a NAME.npz: its arrays ``weight`` and ``x``, and of the run
``y`` (what the sink keeps), ``a_buf`` and ``w`` (what the convolution holds in the end). Each runs
in a process of its own: Lava does not always survive a second net.
"""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tests.proc.nets import NETS, arrays, run


def record(folder: Path, name: str) -> None:
    """Run a net in Lava and write its file."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc import io
    from lava.proc.conv.process import Conv

    lava = SimpleNamespace(Conv=Conv, RunSteps=RunSteps, Loihi2SimCfg=Loihi2SimCfg, io=io)
    weight, x = arrays(NETS[name], list(NETS).index(name))
    found = run(lava, NETS[name], weight, x)
    np.savez_compressed(folder / f"{name}.npz", weight=weight, x=x, **found)
    print(f"{name}: output {found['y'].shape}, largest {np.abs(found['y']).max():g}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        record(Path(sys.argv[1]), sys.argv[2])
    else:
        for each in NETS:
            subprocess.run([*sys.orig_argv, each], check=True)
