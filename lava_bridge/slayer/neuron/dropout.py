"""Dropout of whole neurons."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Dropout"]


class Dropout(torch.nn.Dropout3d):
    """Drop neurons of ``[N, *, T]`` for the whole time, with probability ``p``; scale the others.

    Source: ``lava.lib.dl.slayer.neuron.Dropout``.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        # What is drawn has one number a neuron, so that the input stays as it lies in memory.
        neurons = input.new_ones(input.shape[:-1].numel(), 1, 1, 1, 1)
        kept = F.dropout3d(neurons, self.p).view(*input.shape[:-1], 1)
        return input.mul_(kept) if self.inplace else input * kept
