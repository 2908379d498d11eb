"""The recordings of tests/data/loihi: real Lava's outputs, spikes and states.

tests/reference/make_integer_nets.py made the nets, and says what each is for;
tests/reference/netx_traces.py ran them with lava-dl 0.6.0 and lava-nc 0.10.0.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parents[1] / "data" / "loihi"


@dataclass(frozen=True)
class Recording:
    """One net, run by Lava; all arrays are ``[N, *, T]``, in slayer's order of axes.

    Attributes:
        path: The ``.net`` file.
        kwargs: The arguments of ``Network`` that it was run with.
        x: Input.
        y: Output, as Lava's sink has it at each step.
        spikes: Of each layer, as they leave its neurons.
        states: Of each layer, after each step, by their names: ``current`` and ``voltage``,
            ``real`` and ``imag``, or ``sigma``, ``act`` and ``residue``.
        decays: Of each layer of resonators, the ``(sin, cos)`` that Lava ran with.
    """

    path: Path
    kwargs: dict[str, Any]
    x: np.ndarray
    y: np.ndarray
    spikes: list[np.ndarray]
    states: list[dict[str, np.ndarray]]
    decays: dict[int, np.ndarray]


def names() -> list[str]:
    return sorted(path.stem for path in DATA.glob("*.net"))


def load(name: str) -> Recording:
    """The recording of this name."""
    spikes: dict[int, np.ndarray] = {}
    states: dict[int, dict[str, np.ndarray]] = {}
    decays: dict[int, np.ndarray] = {}
    with np.load(DATA / f"{name}.npz") as file:
        x, y, kwargs = file["x"], file["y"], json.loads(str(file["kwargs"]))
        for key in file.files:
            numbered = re.fullmatch(r"([a-z]+)(\d+)", key)
            if numbered is None:
                continue
            kind, layer = numbered[1], int(numbered[2])
            if kind == "s":
                spikes[layer] = file[key]
            elif kind == "decays":
                decays[layer] = file[key][0]
            else:
                states.setdefault(layer, {})[kind] = file[key]
    if "input_shape" in kwargs:
        kwargs["input_shape"] = tuple(kwargs["input_shape"])
    return Recording(
        DATA / f"{name}.net",
        kwargs,
        x,
        y,
        [spikes[i] for i in range(len(spikes))],
        [states[i] for i in range(len(spikes))],
        decays,
    )
