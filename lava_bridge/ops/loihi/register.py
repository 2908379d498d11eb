"""What the operators in Loihi's arithmetic share: 32 bits that wrap, a run over the steps."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ... import kernels
from ...errors import BridgeError
from ...quantize import exact_dtype, integers
from ..autograd import per_neuron

__all__ = ["ACTIVATION_BITS", "STATE_MAX", "in_32_bits", "launched", "raised"]
__all__ += ["require_same_shape", "stepped", "unfilled"]

# Loihi aligns activations with its states of 24 bits by this shift.
ACTIVATION_BITS = 6

# States are held within -STATE_MAX ... STATE_MAX.
STATE_MAX = (1 << 23) - 1


def in_32_bits(x: Tensor) -> Tensor:
    """Integers of 64 bits as a register of 32 holds them: they wrap."""
    return x.to(torch.int32).to(torch.int64)


def raised(x: Tensor, bits: int = ACTIVATION_BITS) -> Tensor:
    """Whole numbers of a sequence shifted left, in a register of 32 bits."""
    return in_32_bits(integers(x) << bits)


def require_same_shape(place: str, name: str, x: Tensor, other: Tensor | None) -> None:
    """Raise a BridgeError if a second sequence is there and has another shape."""
    if other is not None and other.shape != x.shape:
        found = f"found {list(other.shape)}; expand it"
        raise BridgeError(f"{place}: expected {name} of shape {list(x.shape)}, {found}")


def unfilled(x: Tensor, keep: bool, states: int) -> tuple[Any, ...]:
    """What an operator gives: y as x, and for each state a sequence and the last one ``[N, *]``."""
    real = exact_dtype(x)
    sequences = [
        torch.empty_like(x, dtype=real) if keep else x.new_empty(0, dtype=real)
        for _ in range(states)
    ]
    return torch.empty_like(x), *sequences, *(per_neuron(x) for _ in range(states))


def launched(
    backend: ModuleType,
    kernel: str,
    inputs: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    numbers: Sequence[float],
    keep: bool,
    states: int,
) -> tuple[Any, ...]:
    """The operator on a kernel; the first of the inputs says dtype and order."""
    x = inputs[0]
    assert x is not None
    outputs = [x.dtype, *[exact_dtype(x) if keep else None] * states]
    results = (True,) * states
    done = kernels.run(backend, kernel, x, inputs, parameters, numbers, outputs, results)
    return *done.sequences, *done.neurons


Step = Callable[[int, list[Tensor]], tuple[Tensor, list[Tensor]]]


def stepped(x: Tensor, states: Sequence[Tensor], keep: bool, step: Step) -> tuple[Any, ...]:
    """The operator in plain torch: y and states of step t, from t and the states before it."""
    outputs = unfilled(x, keep, len(states))
    now = [integers(state).expand(x.shape[:-1]) for state in states]
    for t in range(x.shape[-1]):
        outputs[0][..., t], now = step(t, now)
        if keep:
            for k, state in enumerate(now):
                outputs[1 + k][..., t] = state
    for last, state in zip(outputs[1 + len(states) :], now, strict=True):
        last.copy_(state)
    return outputs
