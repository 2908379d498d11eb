"""What the tests of slayer draw: shapes, neurons and inputs; and pairs built under one seed."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import settings, strategies as st
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
# For claims that are made for each of six families.
brief = settings(max_examples=15)

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


_CUBA = {"threshold": 0.34, "current_decay": 0.3, "voltage_decay": 0.1}
_RESONATOR = {"threshold": 0.34, "period": 7.3, "decay": 0.1}
_ADAPTATION = {"threshold_step": 0.2, "threshold_decay": 0.1, "refractory_decay": 0.6}
# Neurons that fire at small weights.
FIRING: dict[str, dict[str, Any]] = {
    "cuba": _CUBA,
    "rf": _RESONATOR,
    "rf_iz": _RESONATOR,
    "alif": {**_CUBA, **_ADAPTATION},
    "adrf": {**_RESONATOR, **_ADAPTATION},
    "adrf_iz": {**_RESONATOR, **_ADAPTATION},
    "sigma_delta": {"threshold": 0.1, "activation": torch.nn.functional.relu},
}


def blocks_neuron(
    which: Any,
    norm: str | None = None,
    dropout: float | None = None,
    family: str = "cuba",
    **changes: Any,
) -> dict[str, Any]:
    """The ``neuron_params`` of a block of the framework ``which``, that fires at small weights."""
    return {
        **FIRING[family],
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
    """Within ``rtol`` of each element of the reference, or within ``floor`` of its largest.

    What is 0 but for rounding (the gradient of a direction of one element) has no digit to compare.
    """
    assert mine.shape == reference.shape
    assert torch.isfinite(reference).all()
    largest = reference.abs().max().item() if reference.numel() else 0
    torch.testing.assert_close(
        mine, reference.to(mine.dtype), rtol=rtol, atol=floor * largest + 1e-13
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


# The other neuron families -----------------------------------------------------------------------

RESONATORS = ("rf", "rf_iz", "adrf", "adrf_iz")
ADAPTIVE = ("alif", "adrf", "adrf_iz")
SPIKING = ("rf", "rf_iz", "alif", "adrf", "adrf_iz")
# In float32 also scales that are no powers of two; lava's float64 states are rounded to float32.
EVERY_SCALE = (1, 3, 16, 64, 100)

_RESONATOR_STATES = ("real_state", "imag_state")
_ADAPTIVE_STATES = ("threshold_state", "refractory_state")
STATES = {
    "rf": _RESONATOR_STATES,
    "rf_iz": _RESONATOR_STATES,
    "alif": ("current_state", "voltage_state", *_ADAPTIVE_STATES),
    "adrf": _RESONATOR_STATES + _ADAPTIVE_STATES,
    "adrf_iz": _RESONATOR_STATES + _ADAPTIVE_STATES,
}

periods = st.one_of(st.sampled_from([4, 4.5, 8, 100, 1e7]), st.floats(4, 300))
# lava's sine and cosine of decay 1 are NaN
resonator_decays = decays.filter(lambda decay: decay < 1)
families = st.sampled_from(SPIKING)
resonators = st.sampled_from(RESONATORS)

# What a complex synapse has from its parts.
GEOMETRY = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
)  # fmt: skip

NeuronArguments = tuple[str, dict[str, Any]]


@st.composite
def family_neurons(
    draw: Any, names: tuple[str, ...] = SPIKING, scales: tuple[int, ...] = EVERY_SCALE
) -> NeuronArguments:
    """A family of spiking neurons, and the arguments of one: on the grid, off it, far above it."""
    name = draw(st.sampled_from(names))
    scale = draw(st.sampled_from(scales))
    thresholds = st.one_of(
        st.integers(1, 300).map(lambda steps: steps / scale),
        st.floats(1.5 / scale, 3 + 2 / scale),
        st.integers(1 << 9, 1 << 11).map(lambda steps: (steps + 0.3) / scale),
    )
    params: dict[str, Any] = {"threshold": draw(thresholds), "scale": scale}
    if name == "alif":
        params.update(current_decay=draw(decays), voltage_decay=draw(decays))
    else:
        params.update(period=draw(periods), decay=draw(resonator_decays))
    if name in ADAPTIVE:
        params["threshold_step"] = draw(st.sampled_from([0, 0.4, 1.3])) * params["threshold"]
        params.update(threshold_decay=draw(decays), refractory_decay=draw(decays))
    return name, params


def family_pair(
    lava: Any, arguments: NeuronArguments, seed: int = 0, **changes: Any
) -> tuple[Any, Any]:
    """Our neuron and lava's with the same arguments, made under one seed."""
    name, params = arguments

    def build(which: Any) -> Any:
        own = {key: value(which) if callable(value) else value for key, value in changes.items()}
        return getattr(which.neuron, name).Neuron(**{**params, **own})

    ours, theirs = alike(lava, build, seed)
    return ours, with_forward(theirs)


def with_forward(neuron: Any) -> Any:
    """The neuron; lava's adrf_iz with a forward: its own calls its spike without a threshold."""
    if type(neuron).__module__ == "lava.lib.dl.slayer.neuron.adrf_iz":
        neuron.forward = lambda x: neuron.spike(*neuron.dynamics(x))
    return neuron


def drive(
    name: str, shape: tuple[int, ...], seed: int, size: float, dtype: torch.dtype = torch.float32
) -> Any:
    """A normal input ``[N, C, *, T]`` for a neuron of this family; a resonator's is a pair."""
    if name not in RESONATORS:
        return analog(shape, seed, size, dtype)
    return analog(shape, seed, size, dtype), analog(shape, seed + 1, size, dtype)


def on_each_part(do: Callable[[Tensor], Tensor], x: Any) -> Any:
    """``do`` applied to an input, or to both parts of a pair."""
    return tuple(do(part) for part in x) if isinstance(x, tuple) else do(x)


def response(neuron: Any, x: Any) -> tuple[Tensor, ...]:
    """What the neuron's dynamics gives for ``x``, and the spikes of that; it has a gradient."""
    states = neuron.dynamics(x)
    return *states, neuron.spike(*(states if neuron.complex else states[1:]))


def assert_same_response(ours: Any, theirs: Any, x: Any) -> Tensor:
    """All of :func:`response` is equal and of the same dtype; gives our spikes."""
    mine, reference = response(ours, x), response(theirs, x)
    for one, other in zip(mine, reference, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    return mine[-1]


def assert_same_states(ours: Any, theirs: Any, name: str) -> None:
    """The states that go on are equal."""
    for state in STATES[name]:
        assert torch.equal(getattr(ours, state), getattr(theirs, state)), state


class BooleanSubtraction(torch.overrides.TorchFunctionMode):
    """``1 - x`` of a boolean x, which lava's cum_error needs and torch refuses."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__rsub__ and args[0].dtype == torch.bool:
            args = (args[0].int(), *args[1:])
        return func(*args, **(kwargs or {}))
