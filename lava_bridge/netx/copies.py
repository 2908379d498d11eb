"""A file's numbers on the devices that its net is run on."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["Copies"]


class Copies:
    """Copies of a layer's tensors: each is made once for a device and a dtype.

    A tensor is changed by putting another in its place: a copy does not follow what is done to it.

    What a net is written to, or copied into, has none of them: it may be read where there is no
    such device.
    """

    def __init__(self) -> None:
        # The tensor that was copied is kept too: otherwise another could get its id.
        self._made: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    def on(self, device: torch.device, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor, or a copy of it, on a device and in a dtype (None: its own)."""
        dtype = tensor.dtype if dtype is None else dtype
        if (tensor.device, tensor.dtype) == (device, dtype):
            return tensor
        key = id(tensor), device, dtype
        if key not in self._made:
            self._made[key] = tensor, tensor.to(device, dtype)
        return self._made[key][1]

    def __reduce__(self) -> tuple[Any, ...]:
        return Copies, ()
