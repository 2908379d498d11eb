"""Run .net files in Lava's own netx and record the spikes that it gives.

lava_bridge is not needed, and would not install beside Lava's old torch. Lava runs on Python 3.10
alone; an environment for it takes about 4 minutes and several GB:

    python3.10 -m venv lava310
    lava310/bin/pip install lava-dl==0.6.0 lava-nc==0.10.0
    lava310/bin/python tests/reference/netx_runs.py tests/data/netx
    lava310/bin/python tests/reference/netx_runs.py tests/data/netx/lowered

(make_netx_inputs.py, in the same place, makes the nets and inputs of both.)

Every NAME.net in the folder that has a NAME.npz beside it is run on the npz's array ``x``, the
input spikes ``[N, *, T]``. Into the same npz go ``y``, the output spikes ``[N, *, T + L]``, and
``layers``, the number L of netx's layers: after its T steps a sample goes on for L silent ones,
which the last spikes need to come out. Each sample has a network of its own, so none sees the state
that another left.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from lava.lib.dl.netx.hdf5 import Network
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import RunConfig
from lava.proc import io


class FixedPoint(RunConfig):
    """Picks the models that compute as the chip does, as the run config of netx's own tests."""

    def __init__(self) -> None:
        super().__init__(custom_sync_domains=None)

    def select(self, process: object, models: list) -> object:
        for model in models:
            if "fixed_pt" in model.tags:
                return model
        raise LookupError(f"{process} has no fixed point model")


def space_reversed(spikes: np.ndarray) -> np.ndarray:
    """Slayer's order of axes ``[C, H, W, T]`` to Lava's ``[W, H, C, T]``, and back."""
    return np.moveaxis(spikes.transpose(), 0, -1)


def run_sample(path: Path, x: np.ndarray) -> tuple[np.ndarray, int]:
    """Run one sample ``[*, T]`` through a new network.

    Returns
    -------
    ndarray
        Output spikes ``[*, T + layers]``.
    int
        The number of layers that netx made of the file.

    netx takes input for a neuron of the input layer by another way; such a file can't be run here.
    """
    net = Network(net_config=str(path))
    steps = x.shape[-1] + len(net)
    # netx drops a flatten that comes first: the net then takes its input flat, in slayer's order.
    x = x.reshape(*net.inp.shape[::-1], -1)
    # The source starts over at the end of its data, which is hence as long as the run.
    silence = np.zeros((*x.shape[:-1], len(net)), dtype=x.dtype)
    data = space_reversed(np.concatenate([x, silence], axis=-1)).astype(np.int32)
    source = io.source.RingBuffer(data=data)
    sink = io.sink.RingBuffer(shape=net.out.shape, buffer=steps)
    source.s_out.connect(net.inp)
    net.out.connect(sink.a_in)
    try:
        net.run(condition=RunSteps(num_steps=steps), run_cfg=FixedPoint())
        spikes = sink.data.get()
    finally:
        net.stop()
    return space_reversed(spikes), len(net)


def record(path: Path) -> None:
    """Run a .net file on the input beside it and put the output there."""
    beside = path.with_suffix(".npz")
    with np.load(beside) as recorded:
        x = recorded["x"]
    begun = time.perf_counter()
    runs = [run_sample(path, sample) for sample in x]
    seconds = (time.perf_counter() - begun) / len(x)
    y = np.stack([spikes for spikes, _ in runs])
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"{path}: the output is no spikes but has values up to {np.abs(y).max()}")
    np.savez_compressed(beside, x=x, y=y.astype(np.uint8), layers=runs[0][1])
    print(
        f"{path.name}: {runs[0][1]} layers, {len(x)} samples of {x.shape[-1]} steps, output "
        f"{y.shape[1:-1]} with {y.mean():.1%} spikes, {seconds:.2f} s a sample"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Record what Lava's netx makes of .net files.")
    parser.add_argument("folder", type=Path, help="has NAME.net and NAME.npz files")
    parser.add_argument("names", nargs="*", help="only these names (default: all)")
    arguments = parser.parse_args()
    for path in sorted(arguments.folder.glob("*.net")):
        if path.with_suffix(".npz").exists() and path.stem in (arguments.names or [path.stem]):
            record(path)


if __name__ == "__main__":
    main()
