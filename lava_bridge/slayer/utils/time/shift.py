"""A shift in time, the same for all channels or one for each."""

from torch import Tensor

from ....errors import BridgeError
from ....ops import shift as shift_all, shift_channels

__all__ = ["shift"]


def shift(input: Tensor, shift_val: Tensor | float, sampling_time: float = 1) -> Tensor:
    r"""Shift ``[N, *, T]`` later in time (earlier if negative) by whole steps, filling with zeros.

    .. math:: y[t] = x[t - \mathrm{trunc}(s / \tau)]

    ``shift_val`` is s, one number or one for each place of ``*`` (else a BridgeError is raised);
    ``sampling_time`` is the time :math:`\tau` of one step. The input gets a gradient, s none.

    Source: ``lava.lib.dl.slayer.utils.time.shift``. (There a ``sampling_time`` other than 1
    divides a tensor of shifts twice; here once.)
    """
    if not isinstance(shift_val, Tensor) or shift_val.numel() == 1:
        value = shift_val.item() if isinstance(shift_val, Tensor) else shift_val
        return shift_all(input, int(value / sampling_time))
    places = input.shape[1:-1]
    if shift_val.numel() != places.numel():
        raise BridgeError(
            f"shift: expected one shift for all, or one for each place of {tuple(places)}, found "
            f"shifts of shape {tuple(shift_val.shape)}"
        )
    return shift_channels(input, shift_val.detach().reshape(places), sampling_time)
