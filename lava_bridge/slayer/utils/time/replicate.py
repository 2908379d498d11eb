"""The same values at every time step."""

from torch import Tensor

__all__ = ["replicate"]


def replicate(input: Tensor, num_steps: int) -> Tensor:
    """Repeat ``[*]`` at each of ``num_steps`` time steps: ``[*, T]``, of any dtype and shape.

    Source: ``lava.lib.dl.slayer.utils.time.replicate`` (there of two to four float dimensions).
    """
    return input.unsqueeze(-1).repeat_interleave(num_steps, dim=-1)
