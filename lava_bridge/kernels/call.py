"""What a kernel is told: the structure of ``cuda/call.h``, filled from tensors."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Call", "MemoryOrder", "filled"]

SEQUENCES, PARAMETERS, RESULTS, NUMBERS = 6, 8, 4, 12

_STORED = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


class Call(ctypes.Structure):
    """``struct Call`` of ``cuda/call.h``."""

    _fields_ = (
        ("input", ctypes.c_void_p * SEQUENCES),
        ("output", ctypes.c_void_p * SEQUENCES),
        ("parameter", ctypes.c_void_p * PARAMETERS),
        ("result", ctypes.c_void_p * RESULTS),
        ("number", ctypes.c_double * NUMBERS),
        ("outer", ctypes.c_longlong),
        ("steps", ctypes.c_longlong),
        ("inner", ctypes.c_longlong),
        ("shared", ctypes.c_int * PARAMETERS),
        ("input_type", ctypes.c_int * SEQUENCES),
        ("output_type", ctypes.c_int * SEQUENCES),
        ("threads", ctypes.c_int),
        ("instructions", ctypes.c_int),
    )


class MemoryOrder:
    """How a sequence ``[N, *, T]`` lies in memory, as ``[outer, T, inner]``.

    Attributes:
        like: The sequence; a copy in its order if it was not dense.
        outer, steps, inner: The sizes, from the slowest to the fastest.
    """

    def __init__(self, x: Tensor) -> None:
        order = self._dense_order(x)
        if order is None:
            x = torch.empty_like(x).copy_(x)
            order = self._dense_order(x)
            assert order is not None
        self.like = x
        time = x.dim() - 1
        self._neurons = [dim for dim in order if dim != time]
        self.outer, self.steps, self.inner = 1, x.shape[time], 1
        slower = order[: order.index(time)] if self.steps > 1 else []
        for dim in self._neurons:
            if dim in slower:
                self.outer *= x.shape[dim]
            else:
                self.inner *= x.shape[dim]

    @staticmethod
    def _dense_order(x: Tensor) -> list[int] | None:
        """Dimensions from the slowest to the fastest; None if they leave gaps or overlap."""
        strides = x.stride()
        # A dimension of one element may have any stride: where it stands does not matter.
        order = sorted(range(x.dim()), key=lambda dim: (-strides[dim], -x.shape[dim], dim))
        expected = 1
        for dim in reversed(order):
            if x.shape[dim] != 1 and strides[dim] != expected and x.numel():
                return None
            expected *= x.shape[dim]
        return order

    def brought(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """A sequence in this order of memory, and of this dtype."""
        same = zip(x.shape, x.stride(), self.like.stride(), strict=True)
        if x.dtype == dtype and all(size == 1 or mine == own for size, mine, own in same):
            return x
        return torch.empty_like(self.like, dtype=dtype).copy_(x)

    def flat(self, parameter: Tensor, dtype: torch.dtype) -> Tensor:
        """A parameter that broadcasts with ``[N, *]``, one number or one for each neuron."""
        if parameter.numel() == 1:
            return parameter.to(dtype)
        whole = parameter.to(dtype).expand(self.like.shape[:-1])
        return whole.permute(self._neurons).contiguous()

    def result(self, dtype: torch.dtype) -> Tensor:
        """An empty tensor ``[N, *]`` in this order of memory."""
        strides, stride = [0] * len(self._neurons), 1
        for dim in reversed(self._neurons):
            strides[dim], stride = stride, stride * self.like.shape[dim]
        return self.like.new_empty_strided(self.like.shape[:-1], strides, dtype=dtype)


def filled(
    order: MemoryOrder,
    inputs: Sequence[Tensor | None],
    outputs: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    results: Sequence[Tensor | None],
    numbers: Sequence[float],
) -> Call:
    """A call on tensors that the caller keeps alive until it has run."""
    call = Call(outer=order.outer, steps=order.steps, inner=order.inner, threads=1)
    for pointers, types, tensors in (
        (call.input, call.input_type, inputs),
        (call.output, call.output_type, outputs),
    ):
        for k, tensor in enumerate(tensors):
            if tensor is not None:
                pointers[k], types[k] = tensor.data_ptr(), _STORED[tensor.dtype]
    for k, parameter in enumerate(parameters):
        call.parameter[k], call.shared[k] = parameter.data_ptr(), parameter.numel() == 1
    for k, result in enumerate(results):
        if result is not None:
            call.result[k] = result.data_ptr()
    for k, number in enumerate(numbers):
        call.number[k] = number
    return call
