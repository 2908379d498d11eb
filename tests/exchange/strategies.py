"""What the tests of the exchange draw, and what they compare with."""

from typing import Any

import torch
from hypothesis import strategies as st
from spikingjelly.activation_based import surrogate
from torch import Tensor

from lava_bridge import exchange

CubaLIFNode = exchange.CubaLIFNode

# Gradients are compared with this bound, relative to the largest; integers and spikes by equality.
GRADIENT_RTOL = 1e-5

# Scales whose floats are exact, and those for which a state is rounded when it is stored.
EXACT_SCALES = (1, 16, 64, 256)
SCALES = (*EXACT_SCALES, 100)

seeds = st.integers(0, 2**32 - 1)
batches = st.integers(1, 3)
times = st.one_of(st.integers(1, 24), st.sampled_from([1, 2, 64]))
# In thresholds: below, around and above it.
sizes = st.sampled_from([0.02, 0.3, 1.0, 4.0])

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
def thresholds(draw: Any, scale: int, on_grid: bool = False) -> float:
    """Thresholds on the grid of ``1 / scale``, off it and large."""
    on = st.integers(1, 300).map(lambda steps: steps / scale)
    if on_grid:
        return draw(on)
    return draw(
        st.one_of(
            on,
            st.floats(1.5 / scale, 300 / scale),
            st.integers(1 << 12, (1 << 17) - 1).map(lambda steps: (steps + 0.3) / scale),
        )
    )


@st.composite
def neurons(
    draw: Any, scales: tuple[int, ...] = EXACT_SCALES, on_grid: bool = False
) -> dict[str, Any]:
    """The arguments of a CubaLIFNode with shared decays."""
    scale = draw(st.sampled_from(scales))
    return {
        "current_decay": draw(decays),
        "voltage_decay": draw(decays),
        "v_threshold": draw(thresholds(scale, on_grid)),
        "scale": scale,
    }


def lava_neuron(which: Any, params: dict[str, Any], **changes: Any) -> Any:
    """The neuron of the slayer ``which`` for the arguments of a CubaLIFNode."""
    params = {**params, **changes}
    return which.neuron.cuba.Neuron(threshold=params.pop("v_threshold"), **params)


def sequence(
    shape: tuple[int, ...], seed: int, size: float, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A normal input of standard deviation ``size``; ``shape`` is ``[T, N, *]``."""
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(shape, generator=generator, dtype=dtype)


def bounded_sequence(
    params: dict[str, Any], shape: tuple[int, ...], seed: int, size: float
) -> Tensor:
    """As :func:`sequence`, in thresholds, for states of 23 bits: a float32 holds them exactly."""
    # No multiple of 64 steps: lava fires where a voltage is a large threshold (docs/numerics.md).
    largest = (2**23 / shape[0] ** 2 - 1) / (params["scale"] * 64)
    return sequence(shape, seed, size * params["v_threshold"]).clamp(-largest, largest)


def spikes(shape: tuple[int, ...], seed: int, rate: float = 0.5) -> Tensor:
    """Random spikes of 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < rate).float()


def run_steps(module: Any, x_seq: Tensor) -> Tensor:
    """Run a single-step module step by step."""
    assert module.step_mode == "s"
    return torch.stack([module(x) for x in x_seq])


def in_other_memory(x: Tensor, order: str) -> Tensor:
    """``x`` with the same values, laid out in memory in another ``order``."""
    if order == "time last":
        return x.movedim(0, -1).contiguous().movedim(-1, 0)
    if order == "batch first":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if order == "every second":
        return x.repeat_interleave(2, dim=0)[::2]
    assert order == "expanded"
    return x[:, :, :1].expand(x.shape)


memory_orders = st.sampled_from(["time last", "batch first", "every second", "expanded"])

# Each surrogate of both lines of SpikingJelly, with arguments that are not the default. (But for
# NonzeroSignLogAbs, whose backward raises in 0.0.0.0.14, whatever the neuron.)
SURROGATES = {
    "Sigmoid": lambda: surrogate.Sigmoid(alpha=3.0),
    "ATan": lambda: surrogate.ATan(alpha=1.5),
    "PiecewiseQuadratic": lambda: surrogate.PiecewiseQuadratic(alpha=0.7),
    "PiecewiseExp": lambda: surrogate.PiecewiseExp(alpha=1.3),
    "SoftSign": lambda: surrogate.SoftSign(alpha=2.5),
    "Erf": lambda: surrogate.Erf(alpha=1.2),
    "LeakyKReLU": lambda: surrogate.LeakyKReLU(leak=0.2, k=0.9),
    "PiecewiseLeakyReLU": lambda: surrogate.PiecewiseLeakyReLU(w=0.8, c=0.05),
    "S2NN": lambda: surrogate.S2NN(alpha=3.0, beta=0.8),
    "QPseudoSpike": lambda: surrogate.QPseudoSpike(alpha=1.7),
    "FakeNumericalGradient": lambda: surrogate.FakeNumericalGradient(alpha=0.4),
    "LogTailedReLU": lambda: surrogate.LogTailedReLU(alpha=0.1),
}


def assert_close(mine: Tensor, reference: Tensor, rtol: float = GRADIENT_RTOL) -> None:
    """Within ``rtol`` of the largest element of a finite reference of the same shape.

    Below 1e-17 all is nothing: where a surrogate is flat, ``1 - sigmoid`` has no digits left.
    """
    assert mine.shape == reference.shape
    assert torch.isfinite(reference).all()
    largest = reference.abs().max().item() if reference.numel() else 0.0
    torch.testing.assert_close(
        mine.double(), reference.double(), rtol=rtol, atol=rtol * largest + 1e-17
    )
