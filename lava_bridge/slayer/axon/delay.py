"""Axonal delays: a fixed shift in time, and one that is learned for each channel."""

import torch
from torch import Tensor

from ...checks import held, kept_copy, require, set_data
from ...ops import shift, shift_channels, shift_on
from ..lazy import LazyChannels

__all__ = ["Delay", "delay"]


def delay(input: Tensor, delay_val: float = 1, sampling_time: float = 1) -> Tensor:
    """Delay ``[*, T]`` by ``delay_val``, rounded down to whole steps of ``sampling_time``.

    Source: ``lava.lib.dl.slayer.axon.delay``.
    """
    return shift(input, int(delay_val / sampling_time))


class Delay(LazyChannels):
    r"""A learnable delay for each channel: ``y[c, t] = x[c, t - floor(d[c] / sampling_time)]``.

    The delays are drawn from [0, 1) at the first forward, when the number of channels is known,
    and kept in [0, ``max_delay``]. Their gradient is :func:`lava_bridge.ops.shift_channels`'s.

    The parameter ``delay`` holds them, ``[C]``, in the unit of ``sampling_time``, the time of one
    step. ``grad_scale`` is a factor on their gradient; ``init`` says whether they are drawn or
    loaded (before, ``delay`` is a zero). With ``persistent_state``, which slayer has for neurons
    only, the input's last steps wait in ``past`` for the next forward of the same batch size.

    Source: ``lava.lib.dl.slayer.axon.Delay``.
    """

    lazy_channels = ("delay",)
    persistent_state = False
    past: Tensor | None = None

    def __init__(
        self, sampling_time: float = 1, max_delay: float | None = None, grad_scale: float = 1
    ) -> None:
        super().__init__()
        self.sampling_time = sampling_time
        self.max_delay = max_delay
        self.grad_scale = grad_scale
        self.delay = torch.nn.Parameter(torch.zeros(1))

    def clamp(self) -> Tensor:
        """Bring the delays back into [0, ``max_delay``], and give them; each forward does it."""
        return held(self.delay, 0, self.max_delay)

    @property
    def shape(self) -> torch.Size | None:
        """``[C]``, or None before the delays are drawn."""
        return self.delay.shape if self.init else None

    def _draw(self, channels: int) -> None:
        set_data(self.delay, torch.rand(channels, dtype=self.delay.dtype, device=self.delay.device))

    def forward(self, input: Tensor) -> Tensor:
        """Delay ``[N, C, *, T]``, each channel by its own time.

        A BridgeError is raised if a dimension is missing, or the channels are not those of the
        first forward.
        """
        channels = self.delay.shape[0] if self.init else None
        require("Delay", input, "[N, C, *, T]", channels, self.delay.device)
        self.draw(input.shape[1])
        per_channel = self.clamp().reshape(-1, *[1] * (input.dim() - 3))
        shifting = per_channel, self.sampling_time, self.grad_scale
        if not self.persistent_state:
            return shift_channels(input, *shifting)
        shifted, past = shift_on(input, self.past, self.max_delay, *shifting)
        copied = kept_copy(past)
        if copied is not None:
            self.past = copied
        return shifted

    def forget(self) -> None:
        """Let go of the steps that wait for the next forward."""
        self.past = None

    def extra_repr(self) -> str:
        channels = self.delay.shape[0] if self.init else None
        return f"channels={channels}, max_delay={self.max_delay}"
