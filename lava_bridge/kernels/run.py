"""Running a kernel on tensors, on whichever backend."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .call import MemoryOrder, filled

__all__ = ["Results", "Tensors", "can_gather", "gather", "run"]

# Tensors to be unpacked into the tuple of fixed length that torch wants of an operator. How many
# there are a list's type can't say; of Any, it is not held to say it.
Tensors = list[Any]


class Results(NamedTuple):
    """What a kernel gives: sequences ``[N, *, T]`` and numbers ``[N, *]``; empty if not wanted."""

    sequences: Tensors
    neurons: Tensors


def run(
    backend: ModuleType,
    kernel: str,
    like: Tensor,
    inputs: Sequence[Tensor | None],
    parameters: Sequence[Tensor] = (),
    numbers: Sequence[float] = (),
    outputs: Sequence[torch.dtype | None] = (),
    results: Sequence[bool] = (),
    marks: Tensor | None = None,
) -> Results:
    """Run a kernel of ``cuda/`` over sequences ``[N, *, T]``.

    Args:
        backend: What :func:`.backend.chosen` gives.
        kernel: Its name in ``cuda/kernels.h``.
        like: The sequence that says the order in memory, and the dtype to compute in.
        inputs: Sequences; None is a sequence of zeros.
        parameters: Numbers that broadcast with ``[N, *]``.
        numbers: Numbers for all.
        outputs: The dtype of each output sequence; None: not wanted.
        results: Whether each number ``[N, *]`` after the last step is wanted.
        marks: Words that a kernel leaves its marks in, or takes them from (``cuda/call.h``).
    """
    order = MemoryOrder(like)
    real = torch.float64 if like.dtype == torch.float64 else torch.float32
    taken = [
        None
        if x is None
        else order.brought(order.like if x is like else x, backend.stored(x.dtype, real))
        for x in inputs
    ]
    flat = [order.flat(parameter, real) for parameter in parameters]
    given = [
        None if dtype is None else torch.empty_like(order.like, dtype=backend.stored(dtype, real))
        for dtype in outputs
    ]
    neurons = [order.result(real) if wanted else None for wanted in results]
    if order.outer * order.inner:  # even without a step: the states after the last are the first
        call = filled(order, taken, given, flat, neurons, numbers, marks)
        backend.launch(kernel, call, like.device, real)
    # Each its own: an operator's outputs share no memory.
    return Results(
        [
            like.new_empty(0, dtype=real) if y is None else y if y.dtype == dtype else y.to(dtype)
            for y, dtype in zip(given, outputs, strict=True)
        ],
        [like.new_empty(0, dtype=real) if y is None else y for y in neurons],
    )


def can_gather(backend: ModuleType | None) -> bool:
    """Whether what :func:`.backend.chosen` gives has the gathers of ``cuda/kernels.h``."""
    return getattr(backend, "GATHERS", False)


def gather(
    backend: ModuleType,
    kernel: str,
    x: Tensor,
    parameters: Sequence[Tensor] = (),
    numbers: Sequence[float] = (),
) -> Tensor:
    """Move the elements of a sequence ``[N, *, T]`` by a gather of ``cuda/kernels.h``.

    The arguments are those of :func:`run`. Gives a sequence in the dtype and memory order of ``x``.
    """
    order = MemoryOrder(x)
    # That of the parameters only. Beyond 2^24 float32 does not hold every number of steps.
    double = x.dtype == torch.float64 or order.steps > 1 << 24
    real = torch.float64 if double else torch.float32
    flat = [order.flat(parameter, real) for parameter in parameters]
    output = torch.empty_like(order.like)
    if x.numel():
        backend.launch(
            kernel, filled(order, [order.like], [output], flat, [], numbers), x.device, real
        )
    return output
