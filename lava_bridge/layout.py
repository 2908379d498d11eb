"""The two frameworks' tensor layouts, converted as views.

SpikingJelly's multi-step tensors are ``[T, N, *]`` (TNX), slayer's are ``[N, *, T]`` (NXT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import BridgeError

if TYPE_CHECKING:  # the package is imported without torch: by every pytest that has its plugin
    from torch import Tensor

__all__ = ["NXT_to_TNX", "TNX_to_NXT", "no_samples", "plain_channel"]


def TNX_to_NXT(x_seq: Tensor) -> Tensor:
    """View a SpikingJelly sequence ``[T, N, *]`` as slayer's ``[N, *, T]``. Nothing is copied.

    Raises:
        BridgeError: If there is no time or no batch dimension.
    """
    _require_sequence(x_seq, "[T, N, *]")
    return x_seq.movedim(0, -1)


def NXT_to_TNX(x_seq: Tensor) -> Tensor:
    """View a slayer sequence ``[N, *, T]`` as SpikingJelly's ``[T, N, *]``. Nothing is copied.

    Raises:
        BridgeError: If there is no time or no batch dimension.
    """
    _require_sequence(x_seq, "[N, *, T]")
    return x_seq.movedim(-1, 0)


def plain_channel(frames: Tensor) -> Tensor:
    """Frames ``[*, C, H, W]`` for a convolution; a view of them where there is one channel.

    A dimension of one element may have any stride, and with some of them (1, as channels that are
    last in memory have) torch 2.13's convolutions of single channels read beyond their input.
    """
    return frames.squeeze(-3).unsqueeze(-3) if frames.shape[-3] == 1 else frames


def no_samples(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Frames ``[0, *shape]`` of the dtype and on the device of ``like``, to ask a layer for shapes.

    Nothing is computed for them. (On torch's meta device neither, but that imports torch's compiler
    and sympy first, which takes longer than a small net's conversion.)
    """
    return like.new_empty((0, *shape))


def _require_sequence(x_seq: Tensor, layout: str) -> None:
    if x_seq.dim() < 2:
        raise BridgeError(
            f"layout: expected a sequence {layout} of 2 or more dimensions, found shape "
            f"{tuple(x_seq.shape)}; add the missing time or batch dimension with unsqueeze"
        )
