"""Run the nets of make_integer_nets.py in Lava's own netx and record every state of every layer.

The environment is that of netx_runs.py:

    lava310/bin/python tests/reference/netx_traces.py tests/data/loihi

Into NAME.npz go, beside ``x`` ``[N, *, T]`` and ``kwargs``, all in slayer's order of axes:

- ``y`` ``[N, *, T]``: what Lava's sink has at each step;
- ``s0``, ``s1`` ... ``[N, *, T]``: the spikes of each of netx's layers, as they leave its neurons;
- ``current0``, ``voltage0`` ...: the state after each step (so after the reset of a spike) of
  integrate and fire neurons; ``real``, ``imag`` of resonators; ``sigma``, ``act``, ``residue`` of
  sigma-delta neurons, as far as they have them;
- ``decays0`` ... ``(sin, cos)``: the integers that Lava's resonators turn by;
- ``seconds``: how long a sample took, without building and compiling the net.

Each sample has a network of its own. It is run step by step, and the states are read between the
steps; the spikes come through sinks of their own.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from lava.lib.dl.netx.hdf5 import Network
from lava.magma.core.run_conditions import RunSteps
from lava.proc import io
from netx_runs import FixedPoint, space_reversed

# The names of the states that are recorded, and Lava's names of them.
STATES = {"current": "u", "voltage": "v"}
STATES |= {name: name for name in ("real", "imag", "sigma", "act", "residue")}
# Lava's Delta has a sigma that it never uses.
UNUSED = {("Delta", "sigma")}


def states(neuron: Any) -> dict[str, Any]:
    """The variables that a neuron has of these."""
    kind = type(neuron).__name__
    return {
        name: getattr(neuron, var)
        for name, var in STATES.items()
        if hasattr(neuron, var) and (kind, var) not in UNUSED
    }


def run_sample(
    path: Path, x: np.ndarray, kwargs: dict[str, Any]
) -> tuple[dict[str, np.ndarray], float]:
    """Run one sample ``[*, T]``: the arrays to record, ``[*, T]``, and the seconds of the run."""
    net = Network(net_config=str(path), **kwargs)
    steps = x.shape[-1]
    first, neuron = net.in_layer, net.in_layer.neuron
    is_input = type(first).__name__ == "Input"
    # A flatten that comes first is dropped: the net then takes its input flat, in slayer's order.
    data = space_reversed(x.reshape(*net.inp.shape[::-1], -1)).astype(np.int32)
    by_bias = is_input and hasattr(neuron, "bias_mant")
    if by_bias:
        data = data * first.transform["weight"] + first.transform["bias"]
        neuron.bias_mant.init = data[..., 0]
    else:
        source = io.source.RingBuffer(data=data)
        source.s_out.connect(neuron.a_in if is_input else net.inp)
    sinks = []
    for port in [net.out, *(layer.neuron.s_out for layer in net.layers)]:
        sinks.append(io.sink.RingBuffer(shape=port.shape, buffer=steps))
        port.connect(sinks[-1].a_in)
    read: dict[str, list[np.ndarray]] = {}
    begun = time.perf_counter()
    try:
        for step in range(steps):
            net.run(condition=RunSteps(num_steps=1), run_cfg=FixedPoint())
            if step == 0:
                begun = time.perf_counter()  # the first run has compiled the net
            for i, layer in enumerate(net.layers):
                for name, var in states(layer.neuron).items():
                    read.setdefault(f"{name}{i}", []).append(var.get())
            if by_bias and step + 1 < steps:
                neuron.bias_mant.set(data[..., step + 1])
        seconds = (time.perf_counter() - begun) * steps / max(1, steps - 1)
        spikes = [sink.data.get() for sink in sinks]
    finally:
        net.stop()
    recorded = {"y": spikes[0], **{f"s{i}": s for i, s in enumerate(spikes[1:])}}
    recorded |= {name: np.stack(values, axis=-1) for name, values in read.items()}
    recorded = {name: space_reversed(integers(values)) for name, values in recorded.items()}
    for i, layer in enumerate(net.layers):
        if hasattr(layer.neuron, "sin_decay"):
            pair = layer.neuron.sin_decay.init, layer.neuron.cos_decay.init
            recorded[f"decays{i}"] = np.array(pair, dtype=np.int32)
    return recorded, seconds


def integers(values: np.ndarray) -> np.ndarray:
    """The same as int32, if that is what they are."""
    whole = values.astype(np.int32)
    if not np.array_equal(whole, values):
        raise ValueError("a recorded value is no integer of 32 bits")
    return whole


def record(path: Path) -> None:
    """Run a .net file on the input beside it and put what was recorded there."""
    beside = path.with_suffix(".npz")
    with np.load(beside) as given:
        x, kwargs = given["x"], str(given["kwargs"])
    arguments = json.loads(kwargs)
    if "input_shape" in arguments:
        arguments["input_shape"] = tuple(arguments["input_shape"])
    runs = [run_sample(path, sample, arguments) for sample in x]
    arrays = {name: np.stack([run[name] for run, _ in runs]) for name in runs[0][0]}
    seconds = float(np.mean([taken for _, taken in runs]))
    np.savez_compressed(beside, x=x, kwargs=kwargs, seconds=seconds, **arrays)
    rates = [
        f"{(arrays[name] != 0).mean():.0%}"
        for name in sorted(arrays)
        if name[0] == "s" and name[1:].isdigit()
    ]
    print(f"{path.name}: spikes {' '.join(rates)}, {seconds:.2f} s a sample")


def main() -> None:
    parser = argparse.ArgumentParser(description="Record all states of Lava's netx.")
    parser.add_argument("folder", type=Path, help="has NAME.net and NAME.npz files")
    parser.add_argument("names", nargs="*", help="only these names (default: all)")
    arguments = parser.parse_args()
    for path in sorted(arguments.folder.glob("*.net")):
        if path.with_suffix(".npz").exists() and path.stem in (arguments.names or [path.stem]):
            record(path)


if __name__ == "__main__":
    main()
