"""The integers that Lava makes of a dense layer's weights.

Lava's netx first spreads the weights over Loihi's eight bits (a shift to the left, undone by the
exponent of the synapse), and its synapse then cuts off the low bits that it has no room for. For
the even integers -256 ... 254 that slayer writes both together change nothing, but for matrices
without a positive weight. Source: ``lava.lib.dl.netx.utils.optimize_weight_bits`` (lava-dl 0.6.0)
and ``lava.utils.weightutils`` (lava-nc 0.10.0).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..quantize import WEIGHT_MAX, WEIGHT_MIN

__all__ = ["Spread", "cut", "slices", "spread"]

# Weights that are looked at together.
SLICE = 1 << 18

# Bits of a weight, and the largest magnitude that they hold.
WEIGHT_BITS = 8
MAGNITUDE = (1 << WEIGHT_BITS) - 1
# Halves of the range of signed weights, whose sign takes a bit.
MOST, LEAST = 127, -128


class Spread(NamedTuple):
    """Weights shifted left by ``shift`` bits, of which ``bits`` are kept."""

    weight: np.ndarray
    bits: int
    shift: int


def spread(weight: np.ndarray) -> Spread:
    """Shift integer weights left as far as eight bits allow.

    Weights beyond -256 ... 254 are clipped if they have both signs. What needs no shift is the
    array itself.

    Raises:
        ValueError: If the weights can't be held in eight bits; the message says which.
    """
    high, low = _range(weight)
    if not high and not low:
        return Spread(weight, WEIGHT_BITS, 0)  # Lava fails here: there is nothing to scale by
    if (high > WEIGHT_MAX and low < 0) or (low < WEIGHT_MIN and high > 0):
        weight = weight.clip(WEIGHT_MIN, WEIGHT_MAX)
        high, low = _range(weight)
    if high < 0:
        signed, room = 0, WEIGHT_MIN / low
    elif low >= 0:
        signed, room = 0, MAGNITUDE / high
    else:
        signed = 1
        room = min(MOST / high if high else math.inf, LEAST / low)
    shift = math.floor(math.log2(room)) + signed
    if shift < 0:
        raise ValueError(f"has weights from {low} to {high}, which eight bits can't hold")
    # The low bits that no weight uses.
    used = 0
    for rows in slices(weight):
        used |= int(np.bitwise_or.reduce(rows, axis=None))
    unused = min((used & -used).bit_length() - 1, WEIGHT_BITS)
    return Spread(
        weight << shift if shift else weight, WEIGHT_BITS - shift - (unused - signed), shift
    )


def cut(weight: np.ndarray, bits: int) -> np.ndarray:
    """What a synapse of so many bits keeps of shifted weights: clipped, the low bits cut off."""
    high, low = _range(weight)
    if low >= 0:
        sign, mixed = 1, 0
    elif high <= 0:
        sign, mixed = -1, 0
    else:
        sign, mixed = 1, 1
    cut_off = WEIGHT_BITS - bits + mixed
    if cut_off < 0:  # odd weights of which the largest is 0: Lava shifts all of them away
        return np.zeros_like(weight)
    kept = np.empty_like(weight)
    for rows, held in zip(slices(weight), slices(kept), strict=True):
        magnitude = (sign * rows).clip(-(MAGNITUDE + 1) * mixed, MAGNITUDE)
        held[:] = sign * ((magnitude >> cut_off) << cut_off)
    return kept


def slices(weight: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of a weight, some at a time, as views: so that no second copy of all is held."""
    rows = max(1, SLICE // max(1, math.prod(weight.shape[1:])))
    return (weight[start : start + rows] for start in range(0, len(weight), rows))


def _range(weight: np.ndarray) -> tuple[int, int]:
    """The highest and the lowest; without any the ends of 64 bits, the wrong way round."""
    if not weight.size:
        return np.iinfo(np.int64).min, np.iinfo(np.int64).max
    return int(weight.max()), int(weight.min())
