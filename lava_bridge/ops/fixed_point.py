"""The chip's arithmetic, which all dynamics share: integers over a scale, decays of 12 bits."""

import torch
from torch import Tensor

from ..quantize import right_shift_to_zero

__all__ = ["DECAY_BITS", "DECAY_SCALE", "decayed", "exact_dtype", "integers", "kept"]

# Loihi's compartment decays are 12-bit fractions: 4096 forgets everything in one step.
DECAY_BITS = 12
DECAY_SCALE = 1 << DECAY_BITS


def exact_dtype(x: Tensor) -> torch.dtype:
    """The dtype to scale ``x`` in: half precision overflows at 16 when it is scaled by 4096."""
    return x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32


def integers(x: Tensor, scale: float = 1) -> Tensor:
    """``trunc(scale * x)`` as integers of 64 bits; no gradient."""
    x = x.detach()
    return (scale * x.to(exact_dtype(x))).to(torch.int64)


def kept(decay: Tensor) -> Tensor:
    """What a decay ``d`` in 0 ... 4096 leaves of a state, ``4096 - d``."""
    return DECAY_SCALE - decay.detach().to(torch.int64)


def decayed(state: Tensor, factor: Tensor) -> Tensor:
    """``sign(state * factor) * (|state * factor| >> 12)``: a state times a 12-bit fraction."""
    return right_shift_to_zero(state * factor, DECAY_BITS)
