"""Blocks for the tests of what a net needs."""

from typing import Any

from lava_bridge import slayer

CUBA = {"threshold": 1.0, "current_decay": 0.3, "voltage_decay": 0.1}
RF = {"threshold": 1.0, "period": 8, "decay": 0.1}


def input_of(shape: tuple[int, ...]) -> Any:
    """An input whose neurons encode values of this shape."""
    block = slayer.block.cuba.Input(CUBA)
    block.infer_shape(shape)
    return block


def dense(inputs: int = 3, outputs: int = 2, params: dict = CUBA, **kwargs: Any) -> Any:
    """A dense layer whose weights are all 1."""
    block = slayer.block.cuba.Dense(dict(params), inputs, outputs, **kwargs)
    block.synapse.weight.data.fill_(1)
    return block


def conv(height: int) -> Any:
    """1024 neurons for each row."""
    block = slayer.block.cuba.Conv(CUBA, 1, 8, 3, padding=1)
    block.infer_shape((1, height, 128))
    return block
