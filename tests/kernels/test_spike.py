"""The spikes and their surrogates: native kernels against the torch reference."""

import math

import pytest
import torch
from compared import EXTREMES, assert_close, assert_same, assert_same_everywhere, both, gradients_of
from hypothesis import given, strategies as st
from kernel_cases import (
    ALL_ORDERS,
    INSTRUCTION_SETS,
    in_order_of,
    laid_out,
    numbers,
    same,
    shapes_and_orders,
    spread,
)

from lava_bridge import slayer
from lava_bridge.kernels import native
from lava_bridge.ops import spike

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

OPERATORS = torch.ops.lava_bridge
SHAPED = ("number", "0-dim", "one", "channel", "neuron", "time", "sequence", "double", "whole")
settings_of_a_run = st.fixed_dictionaries(
    {
        "layout": shapes_and_orders,
        "seed": st.integers(0, 1000),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
        "threshold": st.sampled_from(SHAPED),
        "value": st.sampled_from([0.0, 0.34, 1.0, -0.5]),
        "last": st.sampled_from(["number", "neuron", "shared"]),
        "surrogate": st.tuples(
            st.sampled_from([0.05, 0.5, 40.0]), st.sampled_from([0.1, 10.0]), st.booleans()
        ),
        "scale": st.sampled_from([1, 2, 3.7]),
    }
)


def shaped(kind, value, shape, dtype, seed):
    """A threshold in one of the shapes that there are."""
    if kind == "number":
        return value
    if kind == "0-dim":
        return torch.tensor(value, dtype=torch.float64)
    sizes = {
        "one": (1,),
        "channel": (shape[1], *[1] * (len(shape) - 2)),
        "neuron": (*shape[:-1], 1),
        "time": shape[-1:],
    }
    if kind == "whole":
        return torch.full((1,) * len(shape), round(value), dtype=torch.int64)
    dtype = torch.float64 if kind == "double" else dtype
    return numbers(sizes.get(kind, shape), seed, 0.5, dtype) + value


def case(run):
    shape, order = run["layout"]
    parts = [laid_out(numbers(shape, run["seed"] + k, 1.0, run["dtype"]), order) for k in range(2)]
    threshold = shaped(run["threshold"], run["value"], shape, run["dtype"], run["seed"] + 2)
    last = -0.5
    if run["last"] != "number":
        size = (1,) if run["last"] == "shared" else shape[:-1]
        last = numbers(size, run["seed"] + 3, 1.0, run["dtype"])
    return parts, threshold, last


def spikes(run, parts, threshold, last):
    """Both kinds of spikes, by the classes that slayer's users call."""
    *surrogate, scale = *run["surrogate"], run["scale"]
    return [
        slayer.spike.Spike.apply(parts[0], threshold, *surrogate, 0, scale),
        slayer.spike.complex.Spike.apply(*parts, threshold, *surrogate, last, scale),
    ]


@given(settings_of_a_run)
def test_spikes_are_the_reference_and_their_gradients_close_to_it(run):
    parts, *others = case(run)
    leaves = [part.requires_grad_() for part in parts]

    def run_it():
        return gradients_of(spikes(run, leaves, *others), leaves)

    (reference, reference_grads), (mine, my_grads) = both(run_it)
    assert_same(mine, reference)
    assert_close(my_grads, reference_grads)
    for part in (*mine, *my_grads):
        assert in_order_of(part, parts[0])
        assert part.dtype == run["dtype"]


@pytest.mark.parametrize("kind", ["number", "channel", "sequence"])
@pytest.mark.parametrize(("shape", "order"), ALL_ORDERS)
def test_every_instruction_set_and_number_of_threads_gives_the_same(
    shape, order, kind, monkeypatch
):
    parts = [laid_out(numbers(shape, k, 1.0, torch.float32), order) for k in (1, 2)]
    threshold = shaped(kind, 0.3, shape, torch.float32, 3)
    run = {"surrogate": (0.5, 1.0, True), "scale": 3}

    def run_it():
        leaves = [part.detach().requires_grad_() for part in parts]
        return gradients_of(spikes(run, leaves, threshold, -1.0), leaves)

    assert_same_everywhere(run_it, monkeypatch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("graded", [False, True])
def test_numbers_at_the_ends_and_what_is_none(dtype, graded):
    values = torch.tensor(EXTREMES, dtype=dtype)
    pairs = torch.cartesian_prod(values, values)
    real, imag = (pairs[:, k].reshape(1, len(values), -1) for k in range(2))
    run = {"surrogate": (0.5, 1.0, graded), "scale": 2}
    for threshold in (1.0, math.inf, -math.inf, math.nan, real.flip(1)):
        for last in (-math.inf, math.nan, -0.0):
            for one, other in zip(
                *both(lambda: spikes(run, (real, imag), threshold, last)),  # noqa: B023
                strict=True,
            ):
                assert same(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("graded", [False, True])
def test_gradients_at_the_threshold_at_phase_zero_and_far_away(dtype, graded):
    values = torch.tensor([0, -0.0, 1, 1 + 1e-6, -1, 30, -30, 200, -1e5, 1e5], dtype=dtype)
    pairs = torch.cartesian_prod(values, values)
    leaves = [pairs[:, k].reshape(1, len(values), -1).clone().requires_grad_() for k in range(2)]
    for width in (0.3, 1.0, 100.0):
        run = {"surrogate": (width, 2.0, graded), "scale": 1}
        (_, reference), (_, mine) = both(
            lambda: gradients_of(spikes(run, leaves, 1.0, -1.0), leaves)  # noqa: B023
        )
        assert_close(mine, reference)


@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
def test_the_exponential_is_right_to_three_units_in_the_last_place(instructions, monkeypatch):
    if instructions > len(native._native.instruction_sets()):
        pytest.skip("this CPU has not these instructions")
    monkeypatch.setattr(native, "instructions", instructions)
    x = torch.linspace(-87, 0, 100_000).reshape(1, -1, 1).requires_grad_()
    y = spike.spike(x, 0.0, (1.0, 1.0, True))
    (slope,) = torch.autograd.grad(y.sum(), x)
    exact = x.detach().double().exp()
    assert ((slope - exact).abs() <= 3 * 2**-23 * exact).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("threshold", [0.3, torch.tensor([0.3]), torch.full((2, 5, 9), 0.3)])
def test_half_precision_compares_as_torch_does(dtype, threshold):
    # 0.3 is not 0.3 in half precision: a voltage of that much fires
    parts = [numbers((2, 5, 9), k, 1.0, torch.float32).to(dtype) for k in (1, 2)]
    parts[0][..., ::3] = 0.3
    leaves = [part.requires_grad_() for part in parts]
    run = {"surrogate": (0.5, 1.0, True), "scale": 3.7}
    (reference, reference_grads), (mine, my_grads) = both(
        lambda: gradients_of(spikes(run, leaves, threshold, -1.0), leaves)
    )
    assert_same(mine, reference)
    for one, other in zip(my_grads, reference_grads, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


def test_views_with_gaps_and_parts_in_other_orders_are_read_as_they_are():
    parts = [numbers((3, 4, 8), k, 1.0, torch.float32) for k in (1, 2)]
    views = [spread(parts[0]), laid_out(parts[1], (2, 0, 1))]
    threshold = numbers((3, 4, 8), 3, 0.5, torch.float32)
    run = {"surrogate": (0.5, 1.0, True), "scale": 2}
    whole = spikes(run, parts, threshold, -1.0)
    for backend in both(lambda: spikes(run, views, laid_out(threshold, (1, 2, 0)), -1.0)):
        for one, other in zip(backend, whole, strict=True):
            assert torch.equal(one, other)


def test_neither_the_threshold_nor_the_last_state_gets_a_gradient():
    parts = [numbers((2, 3, 5), k, 1.0, torch.float32).requires_grad_() for k in (1, 2)]
    others = [torch.full((3, 1), 0.5).requires_grad_(), torch.full((2, 3), -1.0).requires_grad_()]
    run = {"surrogate": (0.5, 1.0, False), "scale": 1}
    total = sum(part.sum() for part in spikes(run, parts, *others))
    found = torch.autograd.grad(total, [*parts, *others], allow_unused=True)
    assert [part is None for part in found] == [False, False, True, True]


def test_the_operators_are_registered_as_torch_wants():
    x = [numbers((2, 3, 7), k, 1.0, torch.float32) for k in (1, 2)]
    last, surrogate = torch.tensor(-1.0), (0.5, 1.0, True)
    for backend in ("native", "torch"):
        leaves = [part.clone().requires_grad_() for part in x]
        for threshold in (torch.tensor(0.5), torch.full((3, 1), 0.5), x[0]):
            for op, args in (
                (OPERATORS.spike, (leaves[0], threshold, *surrogate, 2.0)),
                (OPERATORS.spike_backward, (x[1], x[0], threshold, *surrogate)),
                (OPERATORS.phase_spike, (*leaves, threshold, last, *surrogate, 2.0)),
                (OPERATORS.phase_spike_backward, (x[1], *x, threshold, *surrogate)),
            ):
                torch.library.opcheck(op.default, (*args, backend))


def test_a_graded_spike_is_computed_in_the_voltages_dtype():
    voltage = torch.tensor([[[0.4, 0.5, 0.75]]], dtype=torch.float64)
    assert spike.spike(voltage, 0.5, (1.0, 1.0, True), 2).tolist() == [[[0, 0.25, 0.375]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("threshold", [1e39, -1e39, math.inf, 65510.0])
def test_a_threshold_may_be_larger_than_any_number_of_the_dtype(dtype, threshold):
    voltage = torch.tensor([[[-math.inf, -1.0, 0.0, 6e4, math.inf]]], dtype=dtype)
    found = spike.spike(voltage, threshold, (1.0, 1.0, False))
    assert torch.equal(found, (voltage >= torch.tensor(threshold, dtype=dtype)).to(dtype))
