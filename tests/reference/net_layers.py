"""The layers of a .net file as dicts, and random numbers for them: what make_integer_nets.py needs.

Resonators: Lava takes a period from ``sinDecay`` and ``cosDecay`` and integers from that again,
which for a quarter of all pairs gives one less, and not the same pairs with each NumPy and
processor (``np.arctan2`` differs in its last bit). The pairs used here come out as they went in,
with a margin.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

SAMPLES, STEPS, INPUT_RATE = 2, 20, 0.35
# Steps at the end without spikes, so that those of the last input come out.
SILENT_STEPS = 4

Layer = dict[str, Any]


class Case(NamedTuple):
    """A net as layers of a file, the shape of its input, and what else there is to say.

    ``values`` are the least and most of the input's integers: by default spikes of 0 and 1.
    ``x`` is the input, where it is not drawn.
    """

    layers: list[Layer]
    shape: tuple[int, ...]
    kwargs: dict[str, Any] | None = None
    values: tuple[int, int] | None = None
    steps: int = STEPS
    rate: float = INPUT_RATE
    x: np.ndarray | None = None


def cuba(threshold: Any = 40, current: Any = 1024, voltage: Any = 400) -> Layer:
    return {"type": "CUBA", "iDecay": current, "vDecay": voltage, "vThMant": threshold}


def sdnn(threshold: int, **more: Any) -> Layer:
    return {"type": "SDNN", "vThMant": threshold, "activation": "relu", **more}


def input_layer(shape: tuple[int, ...], **more: Any) -> Layer:
    return {"type": "input", "shape": shape, **more}


def dense(weight: Any, neuron: Layer | None, **more: Any) -> Layer:
    """A dense layer of ``weight`` ``[out, in]``."""
    weight = np.asarray(weight)
    if neuron is not None:
        more["neuron"] = neuron
    return {"type": "dense", "shape": (len(weight),), "weight": weight, **more}


def conv(
    before: tuple[int, int, int],
    weight: np.ndarray,
    neuron: Layer,
    window: dict[str, tuple[int, int]] | None = None,
    groups: int = 1,
    **more: Any,
) -> Layer:
    """A convolution of ``weight`` ``[out, in / groups, height, width]`` on a ``[C, H, W]``."""
    sizes = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), **(window or {})}
    after = tuple(
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, pad, dilation in zip(
            before[1:], weight.shape[2:], *sizes.values(), strict=True
        )
    )
    shape = (len(weight), *after)
    fixed = {"type": "conv", "shape": shape, "groups": groups, "inChannels": before[0]}
    fixed |= {"outChannels": len(weight), "kernelSize": weight.shape[2:]}
    return {**fixed, **sizes, "weight": weight, "neuron": neuron, **more}


def flatten() -> Layer:
    return {"type": "flatten", "shape": (1,)}


class Draw:
    """Draws the numbers of one net."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def ints(self, shape: tuple[int, ...] | int, least: int, most: int) -> np.ndarray:
        return self.random.integers(least, most, shape, endpoint=True)

    def even(self, shape: tuple[int, ...], least: int, most: int) -> np.ndarray:
        return 2 * self.ints(shape, least // 2, most // 2)


def resonator(kind: str, threshold: int, period: float, decay: float) -> Layer:
    """A resonator whose decays Lava gets back as they are."""
    radius = 4096 * (1 - decay)
    sine = round(radius * math.sin(2 * math.pi / period))
    cosine = round(radius * math.cos(2 * math.pi / period))
    near = ((sine - i, cosine + j) for i in range(400) for j in range(-400, 400))
    sine, cosine = next(pair for pair in near if comes_back(*pair))
    return {"type": kind, "sinDecay": sine, "cosDecay": cosine, "vThMant": threshold}


def comes_back(sine: int, cosine: int) -> bool:
    """Whether Lava's way through a period gives these decays, whatever the angle's last bit."""
    s, c = sine / 4096, cosine / 4096
    exact = math.atan2(s, c)
    found = set()
    for angle in (exact, math.nextafter(exact, 0), math.nextafter(exact, 9)):
        period = 1 / (angle / 2 / math.pi)
        left = 1 - (1 - math.sqrt(s**2 + c**2))
        turn = math.pi * 2 * 1 / period
        found.add((int(left * math.sin(turn) * 4096), int(left * math.cos(turn) * 4096)))
    return found == {(sine, cosine)}


def drawn_input(case: Case, draw: Draw) -> np.ndarray:
    """Spikes, or integers, ``[N, *, T]``, the last steps silent."""
    if case.x is not None:
        return case.x
    shape = (SAMPLES, *case.shape, case.steps)
    x = (draw.random.random(shape) < case.rate).astype(np.int32)
    if case.values is not None:
        x *= draw.ints(shape, *case.values).astype(np.int32)
    x[..., -SILENT_STEPS:] = 0
    return x


def write_net(path: Path, layers: list[Layer]) -> None:
    """Write layers as groups of a file: numbers as datasets, dicts as groups."""

    def write(group: h5py.Group, content: dict[str, Any]) -> None:
        for key, value in content.items():
            if isinstance(value, dict):
                write(group.create_group(key), value)
            elif key == "type" and group.name.count("/") == 2:  # slayer writes these two ways
                group.create_dataset(key, (1,), "S10", [value.encode("ascii")])
            elif key in ("weight", "weight_rec", "real", "imag"):
                group[key] = np.asarray(value, dtype=np.float32)
            elif isinstance(value, str):
                group[key] = value
            else:
                group[key] = np.asarray(value)

    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        write(file, {"layer": {str(i): layer for i, layer in enumerate(layers)}})
