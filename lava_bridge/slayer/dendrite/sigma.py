"""The sigma decoder: sums up the changes that a delta encoder sent."""

from typing import Any

from torch import Tensor

from ...ops import sigma
from ..stateful import Stateful

__all__ = ["Sigma"]


class Sigma(Stateful):
    r"""Sum over time: :math:`y[t] = y[t-1] + x[t]`.

    With ``persistent_state`` it goes on from the sum at the end of the last forward, which is in
    ``pre_state`` ``[N, *]``.

    Source: ``lava.lib.dl.slayer.dendrite.Sigma``.
    """

    def __init__(self, persistent_state: bool = False) -> None:
        super().__init__(persistent_state)
        self.add_state("pre_state")

    def forward(self, input: Tensor) -> Tensor:
        """Sum ``[N, C, *, T]`` over time."""
        self.prepare(input)
        output = sigma.dynamics(input, self.pre_state if self.persistent_state else None)
        self.keep(pre_state=output)
        return output

    @property
    def device_params(self) -> dict[str, Any]:
        """How a file names a layer that ends in a sum."""
        return {"type": "SDNN", "sigma_output": True}
