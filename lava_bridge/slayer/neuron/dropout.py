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
        neurons = input.reshape(input.shape[0], -1, 1, 1, input.shape[-1])
        return F.dropout3d(neurons, self.p, self.training, self.inplace).reshape(input.shape)
