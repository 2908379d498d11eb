"""Loihi's arithmetic once more, step by step in NumPy's 32-bit integers; numbers to run it on."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from kernel_cases import laid_out, shapes_and_orders
from torch import Tensor

from lava_bridge.ops import loihi

Array = np.ndarray
HALF, WHOLE = 2**23, 2**24


def shrunk(x: Array, factor: Array) -> Array:
    product = x.astype(np.int64) * factor
    return np.sign(product) * (np.abs(product) >> 12)


def lif(a, e, current_decay, voltage_decay, bias, threshold, u, v, interval=0, phase=0) -> Iterator:
    for t in range(a.shape[-1]):
        if interval and (t - phase) % interval == 0:
            u, v = 0 * u, 0 * v
        u = shrunk(u, 4096 - current_decay).astype(np.int32) + np.left_shift(a[..., t], 6)
        if_over, if_under = u - WHOLE, u + WHOLE
        u = np.where(u > HALF, if_over, np.where(u <= -HALF, if_under, u))
        v = shrunk(v, 4096 - voltage_decay).astype(np.int32) + u + bias
        v = np.clip(v + e[..., t], 1 - HALF, HALF - 1)
        s = v > threshold
        v = np.where(s, 0, v).astype(np.int32)
        yield s, u, v


def resonator(izhikevich: bool) -> Callable[..., Iterator]:
    def run(a, b, sine, cosine, threshold, x, y) -> Iterator:
        for t in range(a.shape[-1]):
            into_x, into_y = np.left_shift(a[..., t], 6), np.left_shift(b[..., t], 6)
            new_x = np.clip(shrunk(x, cosine) - shrunk(y, sine) + into_x, 1 - HALF, HALF - 1)
            new_y = np.clip(shrunk(x, sine) + shrunk(y, cosine) + into_y, 1 - HALF, HALF - 1)
            if izhikevich:
                s = new_y >= threshold
                new_x, new_y = new_x * ~s, np.where(s, threshold - 1, new_y)
            else:
                s = (new_x >= threshold) & (new_y >= 0) & (y < 0)
            x, y = new_x.astype(np.int32), new_y.astype(np.int32)
            yield s, x, y

    return run


def sigma(a, total) -> Iterator:
    for t in range(a.shape[-1]):
        total = total + a[..., t]
        yield total, total


def delta(x, threshold, act, residue, spike_exp=0, state_exp=0) -> Iterator:
    for t in range(x.shape[-1]):
        now = np.left_shift(x[..., t], np.int32(spike_exp + state_exp))
        change = now - act + residue
        sent = np.where(np.abs(change) >= threshold, change, 0)
        act, residue = now, change - sent
        yield np.right_shift(sent, np.int32(state_exp)), act, residue


def sigma_delta(a, bias, threshold, total, act, residue, state_exp=0) -> Iterator:
    for t in range(a.shape[-1]):
        total = total + a[..., t]
        now = np.maximum(total + bias, 0)
        change = now - act + residue
        sent = np.where(np.abs(change) >= threshold, change, 0)
        act, residue = now, change - sent
        yield np.right_shift(sent, np.int32(state_exp)), total, act, residue


class Case(NamedTuple):
    """A neuron: its operator, the same literally, and the kinds of its parameters.

    Attributes:
        kinds: Each a ``"decay"``, ``"turn"``, ``"threshold"`` or ``"state"`` (a bias too).
        states: How many of the parameters, the last ones, are states.
        inputs: One sequence or two.
    """

    operator: Callable
    literal: Callable[..., Iterator]
    kinds: tuple[str, ...]
    states: int
    inputs: int


def _driven_lif(x, e, *parameters, **settings):
    return loihi.lif(x, *parameters, drive=e, **settings)


def _literal_lif(a, e, *parameters, reset_interval=0, reset_phase=0):
    return lif(a, e, *parameters, reset_interval, reset_phase)


_TURN = ("turn", "turn", "threshold", "state", "state")

CASES = {
    "lif": Case(
        _driven_lif,
        _literal_lif,
        ("decay", "decay", "state", "threshold", "state", "state"),
        2,
        2,
    ),
    "rf": Case(loihi.rf, resonator(False), _TURN, 2, 2),
    "rf_iz": Case(loihi.rf_iz, resonator(True), _TURN, 2, 2),
    "sigma": Case(loihi.sigma, sigma, ("state",), 1, 1),
    "delta": Case(loihi.delta, delta, ("threshold", "state", "state"), 2, 1),
    "sigma_delta": Case(
        loihi.sigma_delta,
        sigma_delta,
        ("state", "threshold", "state", "state", "state"),
        3,
        1,
    ),
}

# The largest magnitudes of inputs and of states: everyday ones, the chip's, those of 32 bits.
SIZES = {"everyday": (300, 2**15), "chip": (2**17 - 1, 2**23), "register": (2**31 - 1, 2**31 - 1)}

_ENDS = {
    "decay": [0, 1, 4095, 4096],
    "turn": [0, 1, 4095, 4096, -1, -4096],
    "threshold": [0, 1, 64, HALF - 1, HALF, 2**31 - 64, -64, -(2**31)],
    "state": [0, 1, -1, HALF - 1, HALF, -HALF, 1 - HALF, 2**31 - 1, -(2**31)],
    "input": [0, 1, -1, 2**17 - 1, 1 - 2**17, 2**17, -(2**17), 2**25, 2**31 - 1, 1 - 2**31],
}


def whole(shape, seed: int, size: int, kind: str, dtype: torch.dtype) -> Tensor:
    """Whole numbers up to a size, a fifth of them at the ends of what there is below it."""
    maker = torch.Generator().manual_seed(seed)
    limits = {"decay": (0, 4097), "turn": (-4096, 4097), "threshold": (0, size // 4 + 1)}
    low, high = limits.get(kind, (-size, size + 1))
    drawn = torch.randint(low, high, shape, generator=maker)
    ends = torch.tensor([end for end in _ENDS[kind] if -size - 1 <= end <= max(size, 4096)])
    picked = ends[torch.randint(len(ends), shape, generator=maker)]
    at_the_ends = torch.rand(shape, generator=maker) < 0.2
    return torch.where(at_the_ends, picked, drawn).to(dtype)


runs = st.fixed_dictionaries(
    {
        "layout": shapes_and_orders,
        "seed": st.integers(0, 10000),
        "size": st.sampled_from(list(SIZES)),
        "kind": st.sampled_from(["shared", "channel", "neuron"]),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
        "reset": st.tuples(st.integers(0, 9), st.integers(-20, 20)),
        "exponents": st.tuples(st.integers(0, 7), st.integers(0, 7)),
    }
)


def inputs_of(name: str, run: dict) -> list[Tensor]:
    """The sequences of a run, in its order of memory."""
    shape, order = run["layout"]
    size, of_state = SIZES[run["size"]]
    sequences = [laid_out(whole(shape, run["seed"], size, "input", run["dtype"]), order)]
    if CASES[name].inputs == 2:
        size, kind = (of_state, "state") if name == "lif" else (size, "input")
        sequences.append(laid_out(whole(shape, run["seed"] + 1, size, kind, run["dtype"]), order))
    return sequences


def parameters_of(name: str, run: dict) -> list[Tensor]:
    """One number for all neurons, one for each channel, or one for each neuron."""
    shape = run["layout"][0]
    shapes = {"shared": (1,), "channel": (shape[1], *[1] * (len(shape) - 3)), "neuron": shape[:-1]}
    size = SIZES[run["size"]][1]
    return [
        whole(shapes[run["kind"]], run["seed"] + 2 + k, size, kind, run["dtype"])
        for k, kind in enumerate(CASES[name].kinds)
    ]


def settings_of(name: str, run: dict) -> dict[str, int]:
    """What else the operator and the literal one are told."""
    of_reset = dict(zip(("reset_interval", "reset_phase"), run["reset"], strict=True))
    of_shift = dict(zip(("state_exp", "spike_exp"), run["exponents"], strict=True))
    if name == "lif":
        return of_reset
    return {key: of_shift[key] for key in of_shift if key in _SHIFTS.get(name, ())}


_SHIFTS = {"delta": ("spike_exp", "state_exp"), "sigma_delta": ("state_exp",)}


def literally(name: str, run: dict) -> list[Tensor]:
    """Sequences of output and states, and the last states."""
    case, shape = CASES[name], run["layout"][0]
    numbers = [*inputs_of(name, run), *parameters_of(name, run)]
    arrays = [number.to(torch.int64).numpy().astype(np.int32) for number in numbers]
    first = case.inputs
    arrays[first:] = [np.broadcast_to(array, shape[:-1]) for array in arrays[first:]]
    steps = list(case.literal(*arrays, **settings_of(name, run)))
    dtype = run["dtype"]
    found = []
    for sequence in zip(*steps, strict=True):
        assert all(step.dtype in (np.int32, np.bool_) for step in sequence)
        found.append(torch.from_numpy(np.stack(sequence, -1)).to(dtype))
    # The sums that a sigma sends are its state.
    shown = found[:1] if name == "sigma" else found
    return [*shown, *(sequence[..., -1] for sequence in found[1:])]
