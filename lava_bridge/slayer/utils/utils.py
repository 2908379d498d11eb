"""Small things that slayer's users find in ``slayer.utils``."""

from typing import Any

import torch
from torch import Tensor

from ...errors import BridgeError

__all__ = ["diagonal_mask", "dotdict", "event_rate", "staticproperty"]


class dotdict(dict):
    """A dictionary whose items are attributes too; a missing one is None."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python's own questions, to copy and to pickle
            raise AttributeError(name)
        return self.get(name)

    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__


class staticproperty(property):
    """A property of the class itself, of a function without arguments."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self.fget()  # type: ignore[misc,call-arg] # without self: the class's own


def diagonal_mask(dim: int, num_diagonals: int) -> Tensor:
    """Ones on the ``num_diagonals`` (made odd, at least 1) middle diagonals of ``[dim, dim]``."""
    if num_diagonals < 1:
        raise BridgeError(f"diagonal_mask: expected 1 or more diagonals, found {num_diagonals}")
    place = torch.arange(dim)
    return ((place - place[:, None]).abs() <= num_diagonals // 2).to(torch.get_default_dtype())


def event_rate(x: Tensor) -> float:
    """The share of values in ``[*, T]`` that are not zero, the first step left out if T > 1."""
    events = (x if x.shape[-1] == 1 else x[..., 1:]) != 0
    return events.to(x.dtype if x.is_floating_point() else torch.float32).mean().item()


def pyplot() -> Any:
    """matplotlib.pyplot; a BridgeError where matplotlib, an optional dependency, is missing."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise BridgeError(f"drawing: no matplotlib ({error}); pip install matplotlib") from error
    return plt
