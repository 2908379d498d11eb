"""Nets of slayer blocks for the tests of files: this library's and the original's, alike."""

from typing import Any

import torch
import torch.nn as nn

PARAMS = {"threshold": 0.7, "current_decay": 0.3, "voltage_decay": 0.1}


def conv_blocks(slayer: Any) -> list[nn.Module]:
    """Input (1, 9, 8) to ten neurons, through convolution, pooling and dense layers."""
    block = slayer.block.cuba
    return [
        block.Input(dict(PARAMS), weight=1.5, bias=0.25),
        block.Conv(dict(PARAMS), 1, 4, (3, 2), padding=(1, 0), delay=True),
        block.Conv({**PARAMS, "norm": slayer.neuron.norm.WgtScaleBatchNorm}, 4, 6, 2, groups=2),
        block.Pool({**PARAMS, "threshold": 1.3}, 2),
        block.ConvT(dict(PARAMS), 6, 2, 2, stride=2),
        block.Unpool(dict(PARAMS), 2),
        block.Flatten(),
        block.Dense({**PARAMS, "norm": slayer.neuron.norm.MeanOnlyBatchNorm}, 2 * 16 * 12, 10),
    ]


def dense_blocks(slayer: Any) -> list[nn.Module]:
    """Twelve inputs to three outputs, through all that has no height and width."""
    block = slayer.block.cuba
    return [
        block.Dense(dict(PARAMS), 12, 10, weight_norm=True, delay=True),
        block.Recurrent(dict(PARAMS), 10, 8),
        block.Affine(dict(PARAMS), 8, 6),
    ]


def run(blocks: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of all blocks, without gradients."""
    outputs = []
    with torch.no_grad():
        for block in blocks:
            x = block(x)
            outputs.append(x)
    return outputs


def strong(blocks: Any, factor: float = 3.0) -> Any:
    """Make the drawn weights large enough for spikes."""
    with torch.no_grad():
        for block in blocks:
            for parameter in block.parameters():
                if parameter.dim() == 5 and parameter.requires_grad:
                    parameter.mul_(factor)
    return blocks
