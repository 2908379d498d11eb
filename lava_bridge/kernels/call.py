"""What a kernel is told: the structure of ``cuda/call.h``, filled from tensors."""

import ctypes
import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Call", "Form", "MemoryOrder", "filled", "form"]

SEQUENCES, PARAMETERS, RESULTS, NUMBERS = 6, 8, 5, 12

_STORED = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


class Call(ctypes.Structure):
    """``struct Call`` of ``cuda/call.h``."""

    _fields_ = (
        ("input", ctypes.c_void_p * SEQUENCES),
        ("output", ctypes.c_void_p * SEQUENCES),
        ("parameter", ctypes.c_void_p * PARAMETERS),
        ("result", ctypes.c_void_p * RESULTS),
        ("marks", ctypes.c_void_p),
        ("number", ctypes.c_double * NUMBERS),
        ("outer", ctypes.c_longlong),
        ("steps", ctypes.c_longlong),
        ("inner", ctypes.c_longlong),
        ("shared", ctypes.c_int * PARAMETERS),
        ("input_type", ctypes.c_int * SEQUENCES),
        ("output_type", ctypes.c_int * SEQUENCES),
        ("threads", ctypes.c_int),
        ("instructions", ctypes.c_int),
        ("past_caches", ctypes.c_int),
        ("own_cache", ctypes.c_int),
    )


class _Layout(NamedTuple):
    """What :class:`MemoryOrder` says of a dense sequence; ``result_strides`` is a result's."""

    neurons: tuple[int, ...]
    outer: int
    steps: int
    inner: int
    result_strides: tuple[int, ...]


@lru_cache(maxsize=1024)
def _layout(shape: tuple[int, ...], strides: tuple[int, ...]) -> _Layout | None:
    """None: the sequence leaves gaps or overlaps."""
    # A dimension of one element may have any stride: where it stands does not matter.
    order = sorted(range(len(shape)), key=lambda dim: (-strides[dim], -shape[dim], dim))
    expected = 1
    for dim in reversed(order):
        if shape[dim] != 1 and strides[dim] != expected and 0 not in shape:
            return None
        expected *= shape[dim]
    time = len(shape) - 1
    neurons = tuple(dim for dim in order if dim != time)
    slower = order[: order.index(time)] if shape[time] > 1 else []
    outer = math.prod(shape[dim] for dim in neurons if dim in slower)
    inner = math.prod(shape[dim] for dim in neurons if dim not in slower)
    result_strides, stride = [0] * time, 1
    for dim in reversed(neurons):
        result_strides[dim], stride = stride, stride * shape[dim]
    return _Layout(neurons, outer, shape[time], inner, tuple(result_strides))


class MemoryOrder:
    """How a sequence ``[N, *, T]`` lies in memory, as ``[outer, T, inner]``.

    Attributes:
        like: The sequence; a copy in its order if it was not dense.
        outer, steps, inner: The sizes, from the slowest to the fastest.
    """

    def __init__(self, x: Tensor) -> None:
        layout = _layout(x.shape, x.stride())
        if layout is None:
            x = torch.empty_like(x).copy_(x)
            layout = _layout(x.shape, x.stride())
            assert layout is not None
        self.like = x
        self._neurons, self.outer, self.steps, self.inner, self._result_strides = layout

    def brought(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """A sequence in this order of memory, and of this dtype."""
        alike = x.dtype == dtype and x.device == self.like.device
        if alike and _same_order(x.shape, x.stride(), self.like.stride()):
            return x
        return torch.empty_like(self.like, dtype=dtype).copy_(x)

    def flat(self, parameter: Tensor, dtype: torch.dtype) -> Tensor:
        """A parameter that broadcasts with ``[N, *]``, one number or one for each neuron."""
        if parameter.dtype != dtype or parameter.device != self.like.device:
            parameter = parameter.to(self.like.device, dtype)
        if parameter.numel() == 1:
            return parameter
        shape = self.like.shape[:-1]
        if parameter.shape == shape and _same_order(
            shape, parameter.stride(), self._result_strides
        ):
            return parameter
        return parameter.expand(shape).permute(self._neurons).contiguous()

    def result(self, dtype: torch.dtype) -> Tensor:
        """An empty tensor ``[N, *]`` in this order of memory."""
        like = self.like
        return like.new_empty_strided(like.shape[:-1], self._result_strides, dtype=dtype)


def _same_order(shape: tuple[int, ...], strides: tuple[int, ...], others: tuple[int, ...]) -> bool:
    """Whether tensors of one shape lie in memory alike."""
    if strides == others:
        return True
    lengths = zip(shape, strides, others, strict=True)
    return all(size == 1 or mine == other for size, mine, other in lengths)


# All fields of a Call in one go: setting them one by one takes longer than a small layer's step.
_FIELDS = struct.Struct(
    f"@{2 * SEQUENCES + PARAMETERS + RESULTS + 1}P{NUMBERS}d3q{PARAMETERS + 2 * SEQUENCES + 4}i0q"
)


def filled(
    order: MemoryOrder,
    inputs: Sequence[Tensor | None],
    outputs: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    results: Sequence[Tensor | None],
    numbers: Sequence[float],
    marks: Tensor | None = None,
) -> Call:
    """A call on tensors that the caller keeps alive until it has run."""
    values: list[float] = []
    for tensors, most in (
        (inputs, SEQUENCES),
        (outputs, SEQUENCES),
        (parameters, PARAMETERS),
        (results, RESULTS),
    ):
        values += [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        values += [0] * (most - len(tensors))
    values.append(0 if marks is None else marks.data_ptr())
    values += [*numbers, *[0] * (NUMBERS - len(numbers)), order.outer, order.steps, order.inner]
    values += [parameter.numel() == 1 for parameter in parameters]
    values += [0] * (PARAMETERS - len(parameters))
    for sequences in (inputs, outputs):
        values += [0 if tensor is None else _STORED[tensor.dtype] for tensor in sequences]
        values += [0] * (SEQUENCES - len(sequences))
    return Call.from_buffer(bytearray(_FIELDS.pack(*values, 1, 0, 0, 0)))


class Form(NamedTuple):
    """All of a call but where its tensors lie: what one training step and the next have in common.

    Attributes:
        inputs, outputs, rest: How many bytes each input, each output, and each result and the marks
            are beyond a multiple of 32; -1: there is none.
        types: How each input and each output is stored, a ``StorageType`` of ``cuda/call.h``.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    rest: tuple[int, ...]
    types: tuple[int, ...]
    numbers: tuple[float, ...]
    outer: int
    steps: int
    inner: int


# Where they begin among all fields of a Call.
_RESULTS = 2 * SEQUENCES + PARAMETERS
_NUMBERS = _RESULTS + RESULTS + 1
_SIZES = _NUMBERS + NUMBERS
_TYPES = _SIZES + 3 + PARAMETERS


def form(call: Call) -> Form:
    """That of a call. (All fields in one go, as above.)"""
    values = _FIELDS.unpack_from(call)
    places = [x % 32 if x else -1 for x in values[:_NUMBERS]]
    return Form(
        tuple(places[:SEQUENCES]),
        tuple(places[SEQUENCES : 2 * SEQUENCES]),
        tuple(places[_RESULTS:]),
        values[_TYPES : _TYPES + 2 * SEQUENCES],
        values[_NUMBERS:_SIZES],
        *values[_SIZES : _SIZES + 3],
    )
