"""Sequences of all kinds for the kernels' tests: shapes, orders in memory, extremes."""

import torch
from hypothesis import strategies as st
from torch import Tensor

# Shapes [N, *, T]: one of everything, odd sizes, neurons for two chunks, steps for two blocks.
SHAPES = [
    (1, 1, 1),
    (2, 3, 1),
    (1, 1, 70),
    (3, 5, 7, 2, 9),
    (2, 17, 33),
    (2, 300, 5),
    (1, 16, 3, 3, 40),
    (0, 4, 6),
]

INSTRUCTION_SETS = (1, 2, 3)


def orders(dims: int) -> list[tuple[int, ...]]:
    """Some orders of the dimensions in memory, slowest first; the last dimension is time."""
    time = dims - 1
    neurons = tuple(range(time))
    found = [(*neurons, time), (time, *neurons), (0, time, *neurons[1:]), (*neurons[::-1], time)]
    return list(dict.fromkeys(found))


def laid_out(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """The same numbers, dense in memory in this order."""
    back = [order.index(dim) for dim in range(len(order))]
    return x.permute(order).contiguous().permute(back)


def spread(x: Tensor) -> Tensor:
    """The same numbers with gaps in memory between them."""
    wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), float("nan"), dtype=x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


ALL_ORDERS = [(shape, order) for shape in SHAPES for order in orders(len(shape))]

shapes_and_orders = st.builds(
    lambda n, shape, steps, pick: (
        (n, *shape, steps),
        orders(len(shape) + 2)[pick % len(orders(len(shape) + 2))],
    ),
    st.integers(0, 3),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(1, 40),
    st.integers(0, 3),
)


def numbers(shape: tuple[int, ...], seed: int, size: float, dtype: torch.dtype) -> Tensor:
    """Normal numbers, some of them exactly on the grid of the states, some 0."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size
    drawn = torch.where(drawn.abs() < 0.2 * size, 0.0, drawn)
    return torch.where(drawn > size, torch.round(drawn * 64) / 64, drawn).to(dtype)


def same(first: Tensor, second: Tensor) -> bool:
    """Equal to the bit, NaN included."""
    return first.dtype == second.dtype and bool(
        torch.equal(first.isnan(), second.isnan())
        and torch.equal(first.nan_to_num(), second.nan_to_num())
    )


def in_order_of(sequence: Tensor, like: Tensor) -> bool:
    """Whether a sequence lies in memory as another does."""
    strides = zip(like.shape, sequence.stride(), like.stride(), strict=True)
    return like.numel() == 0 or all(size == 1 or a == b for size, a, b in strides)
