"""What the tests of slayer draw: shapes, neurons and inputs; and pairs built under one seed."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from lava_bridge import slayer

# Gradients are compared in float64 with this relative bound; whatever is integer, by equality.
GRADIENT_RTOL = 1e-5

SCALES = (1, 16, 64, 256)
LARGEST_THRESHOLD = (1 << 17) - 1
# lava compares in float32 whatever the input: up to here that keeps a threshold's 0.01 of a state.
LARGEST_EXACT_THRESHOLD = (1 << 12) - 1
NORMS = ("MeanOnlyBatchNorm", "WgtScaleBatchNorm")

# For the claims that the exactness of everything else rests on.
thorough = settings(max_examples=100)

seeds = st.integers(0, 2**32 - 1)
batches = st.integers(1, 3)
times = st.one_of(st.integers(1, 24), st.sampled_from([1, 2, 64]))

# Decays: none, all of it, what 12 bits just hold, and what they don't.
decays = st.one_of(
    st.sampled_from([0.0, 1.0, 1 / 4096, 4095 / 4096, 0.25, 0.5]),
    st.floats(0, 1),
)


def shapes(max_neurons: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes ``[C]`` and ``[C, H, W]`` of a layer, of one neuron too."""
    size = st.integers(1, max_neurons)
    return st.one_of(st.tuples(size), st.tuples(size, size, size), st.just((1,)))


@st.composite
def neurons(draw: Any, largest: int = LARGEST_THRESHOLD) -> dict[str, Any]:
    """The arguments of a CUBA neuron: on the grid of its threshold, off it, and far above it."""
    scale = draw(st.sampled_from(SCALES))
    threshold = draw(
        st.one_of(
            st.integers(1, 300).map(lambda steps: steps / scale),
            st.floats(1 / scale, 10 / scale) if scale == 1 else st.floats(1.5 / scale, 3),
            st.integers(1 << 11, largest).map(lambda steps: (steps + 0.3) / scale),
        )
    )
    return {
        "threshold": threshold,
        "current_decay": draw(decays),
        "voltage_decay": draw(decays),
        "scale": scale,
    }


def blocks_neuron(
    which: Any, norm: str | None = None, dropout: float | None = None, **changes: Any
) -> dict[str, Any]:
    """The ``neuron_params`` of a block of the framework ``which``, that fires at small weights."""
    return {
        "threshold": 0.34,
        "current_decay": 0.3,
        "voltage_decay": 0.1,
        "norm": None if norm is None else getattr(which.neuron.norm, norm),
        "dropout": None if dropout is None else which.neuron.Dropout(dropout),
        **changes,
    }


def analog(shape: tuple[int, ...], seed: int, size: float, dtype: torch.dtype = torch.float32):
    """A normal input of standard deviation ``size``, ``shape`` is ``[N, C, *, T]``."""
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(shape, generator=generator, dtype=dtype)


def within_24_bits(x: Tensor, scale: int) -> Tensor:
    """``x`` clamped so that no sum of its sums needs more: as float32 holds the states exactly."""
    largest = 2**24 / (64 * scale * x.shape[-1] * (x.shape[-1] + 1) / 2)
    return x.clamp(-largest, largest)


def spikes(shape: tuple[int, ...], seed: int, rate: float = 0.5) -> Tensor:
    """Random spikes of 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < rate).float()


def in_other_memory(x: Tensor, order: str) -> Tensor:
    """``x`` with the same values, laid out in memory in another ``order``."""
    if order == "time first":
        return x.movedim(-1, 0).contiguous().movedim(0, -1)
    if order == "channels last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if order == "every second":
        return x.repeat_interleave(2, dim=-1)[..., ::2]
    return x


memory_orders = st.sampled_from(["contiguous", "time first", "channels last", "every second"])


def alike(lava: Any, build: Callable[[Any], Any], seed: int) -> tuple[Any, Any]:
    """``build(slayer)`` for ours and for lava's, each under the same seed."""
    torch.manual_seed(seed)
    ours = build(slayer)
    torch.manual_seed(seed)
    return ours, build(lava)


def run_alike(ours: Any, theirs: Any, x: Tensor, seed: int) -> tuple[Any, Any]:
    """Both forwards on ``x``, each under the same seed; so what they draw is alike."""
    torch.manual_seed(seed)
    mine = ours(x)
    torch.manual_seed(seed)
    return mine, theirs(x)


def gradients(module: Any, x: Tensor, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients for the input and the named parameters, for a random gradient of the output."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    y = module(x)
    y.backward(analog(tuple(y.shape), seed, 1, y.dtype))
    named = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return x.grad, {name: grad.clone() for name, grad in named.items()}


def assert_close(
    mine: Tensor, reference: Tensor, rtol: float = GRADIENT_RTOL, floor: float = 1e-9
) -> None:
    """Within ``rtol`` of each element of the reference, or within ``floor`` of its largest."""
    assert mine.shape == reference.shape
    assert torch.isfinite(reference).all()
    largest = reference.abs().max().item() if reference.numel() else 0
    torch.testing.assert_close(
        mine, reference.to(mine.dtype), rtol=rtol, atol=floor * largest + 1e-300
    )


def assert_same_gradients(ours: Any, theirs: Any, x: Tensor, seed: int) -> None:
    """The gradients of both modules, input and parameters, are within the bound."""
    (mine, my_parameters), (reference, parameters) = (
        gradients(module, x, seed) for module in (ours, theirs)
    )
    assert_close(mine, reference)
    assert my_parameters.keys() == parameters.keys()
    for name, grad in parameters.items():
        assert_close(my_parameters[name], grad)


def assert_same_state_dict(ours: Any, theirs: Any) -> None:
    """The same names in both, and the same values bit for bit."""
    mine, reference = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == reference.keys()
    for name, value in reference.items():
        assert torch.equal(mine[name], value), name
