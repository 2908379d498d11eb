"""Shifts in time: native kernels against the torch reference, which is checked by hand."""

import pytest
import torch
from compared import assert_close, both
from hypothesis import given, strategies as st
from kernel_cases import (
    ALL_ORDERS,
    INSTRUCTION_SETS,
    in_order_of,
    laid_out,
    numbers,
    shapes_and_orders,
    spread,
)

from lava_bridge import use_backend
from lava_bridge.kernels import native
from lava_bridge.ops import shift, shift_channels

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

MOVED = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
steps = st.one_of(st.integers(-9, 9), st.sampled_from([-1, 0, 1, 39, 40, 41, -40, -41, 10**12]))


def by_hand(x, steps):
    """Each element moved alone, ``steps`` one number for each neuron ``[N, *]``."""
    y = torch.zeros(x.shape, dtype=x.dtype)
    steps = torch.as_tensor(steps).expand(x.shape[:-1])
    for t in range(x.shape[-1]):
        for s in steps.unique().tolist():
            if 0 <= t - s < x.shape[-1]:
                y[..., t] = torch.where(steps == s, x[..., t - s], y[..., t])
    return y


def delays_of(kind, shape, seed, largest):
    """Delays for all, for each channel or for each neuron, whole and broken."""
    sizes = {"one": (1,), "channel": (shape[1], *[1] * (len(shape) - 3)), "neuron": shape[:-1]}
    drawn = torch.rand(sizes[kind], generator=torch.Generator().manual_seed(seed)) * largest
    return torch.where(drawn > largest / 2, drawn.floor(), drawn)


@given(shapes_and_orders, steps, st.sampled_from(MOVED))
def test_a_shift_moves_every_element_by_its_steps_and_back(layout, by, dtype):
    x = laid_out(numbers(layout[0], 1, 1.0, torch.float32).to(dtype), layout[1])
    weight = numbers(layout[0], 2, 1.0, torch.float32).to(dtype)

    def run():
        leaf = x.detach().requires_grad_()
        y = shift(leaf, by)
        return y.detach(), torch.autograd.grad(y, leaf, weight)[0]

    for y, grad in both(run):
        assert torch.equal(y, by_hand(x, by))
        assert torch.equal(grad, by_hand(weight, -by))
        assert y.dtype == grad.dtype == dtype
        assert in_order_of(y, x)
        assert in_order_of(grad, x)


@given(
    shapes_and_orders,
    st.sampled_from(["one", "channel", "neuron"]),
    st.sampled_from([1.0, 4.0, 60.0]),
    st.sampled_from([1, 0.5, 3]),
    st.booleans(),
    st.sampled_from(MOVED),
)
def test_delays_move_each_neuron_by_its_own(layout, kind, largest, sampling_time, early, dtype):
    x = laid_out(numbers(layout[0], 1, 1.0, torch.float32).to(dtype), layout[1])
    delay = delays_of(kind, layout[0], 3, largest) * (-1 if early else 1)
    expected = by_hand(x, (delay / sampling_time).long())
    for y in both(lambda: shift_channels(x, delay, sampling_time)):
        assert torch.equal(y, expected)
        assert y.dtype == dtype
        assert in_order_of(y, x)


@given(
    shapes_and_orders,
    st.sampled_from(["one", "channel", "neuron"]),
    st.sampled_from([1.0, 4.0, 60.0]),
    st.sampled_from([1, 0.25]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_the_delays_gradients(layout, kind, largest, grad_scale, dtype):
    shape, order = layout
    x = laid_out(numbers(shape, 1, 1.0, dtype), order)
    weight, delay = numbers(shape, 2, 1.0, dtype), delays_of(kind, shape, 3, largest).to(dtype)

    def run():
        leaves = [x.detach().requires_grad_(), delay.detach().requires_grad_()]
        y = shift_channels(*leaves, 1, grad_scale)
        return y.detach(), *torch.autograd.grad(y, leaves, weight)

    reference, mine = both(run)
    for y, grad_x, grad_delay in (reference, mine):
        assert torch.equal(grad_x, by_hand(weight, -delay.long()))
        assert in_order_of(grad_x, x)
        before = by_hand(y, 1)
        terms = weight * (before - y) * grad_scale
        sums, scale = (part.sum(-1).sum_to_size(delay.shape) for part in (terms, terms.abs()))
        assert_close([grad_delay], [sums], [scale])
    assert_close(mine[2:], reference[2:], [scale])


@pytest.mark.parametrize(("shape", "order"), ALL_ORDERS)
@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
def test_every_shape_order_and_instruction_set(shape, order, instructions, monkeypatch):
    if instructions > len(native._native.instruction_sets()):
        pytest.skip("this CPU has not these instructions")
    monkeypatch.setattr(native, "instructions", instructions)
    x = laid_out(numbers(shape, 1, 1.0, torch.float32), order)
    delay = delays_of("neuron", shape, 3, 4.0)
    leaf = delay.clone().requires_grad_()
    for y, own, grad in both(
        lambda: (
            shift(x, -2),
            shift_channels(x, delay),
            *torch.autograd.grad(shift_channels(x, leaf).square().sum(), leaf),
        )
    ):
        assert torch.equal(y, by_hand(x, -2))
        assert torch.equal(own, by_hand(x, delay.long()))
        assert_close([grad], [(2 * own * (by_hand(own, 1) - own)).sum(-1)])


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 0, 1, 2, 3), (0, 4, 1, 2, 3)])
def test_any_number_of_threads_gives_the_same(order):
    x = laid_out(numbers((8, 16, 14, 14, 33), 1, 1.0, torch.float32), order)
    delay, before = torch.arange(16.0).reshape(16, 1, 1) % 7, torch.get_num_threads()
    expected = by_hand(x, 5), by_hand(x, delay.long())
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            assert torch.equal(shift(x, 5), expected[0])
            assert torch.equal(shift_channels(x, delay), expected[1])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("delay", [float("nan"), float("inf"), -float("inf"), 1e30, 2.0**40])
def test_delays_beyond_all_bounds_leave_nothing(delay):
    x = torch.ones(2, 3, 5)
    for y in both(lambda: shift_channels(x, torch.tensor([0.0, delay, 1.0]))):
        assert y[:, 1].abs().sum() == 0
        assert y[:, 0].sum() == 10
        assert y[:, 2].sum() == 8


def test_whatever_is_moved_stays_as_it_is():
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16).reshape(4, 8, -1)
    for dtype in (torch.float16, torch.bfloat16):
        moved = shift(bits.view(dtype), 3).view(torch.int16)
        assert torch.equal(moved, by_hand(bits, 3))
    signs = torch.tensor([[-0.0, float("nan"), float("inf"), 1e-45]])
    moved = shift(signs, 0)
    assert torch.equal(moved.view(torch.int32), signs.view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.complex64])
def test_other_dtypes_are_shifted_by_the_reference(dtype):
    x = torch.tensor([[1, 0, 1, 1]]).to(dtype)
    assert torch.equal(shift(x, 1), torch.tensor([[0, 1, 0, 1]]).to(dtype))
    assert torch.equal(shift_channels(x[None], torch.ones(1)), shift(x, 1)[None])


def test_views_expanded_gradients_and_single_sequences():
    x = numbers((3, 4, 8), 1, 1.0, torch.float32)
    for view in (spread(x), x[::2], x[:, 1:], x[..., 2:7], x[..., :1].expand(3, 4, 8), x[0, 0]):
        for y in both(lambda: shift(view, 2)):  # noqa: B023
            assert torch.equal(y, by_hand(view, 2))
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        leaf = laid_out(x, order).requires_grad_()
        shift(leaf, 2).sum().backward()
        assert in_order_of(leaf.grad, leaf)
        assert leaf.grad[0, 0].tolist() == [1] * 6 + [0] * 2
    for y in both(lambda: shift(torch.zeros(2, 3, 0), 1)):
        assert y.shape == (2, 3, 0)


def test_gradients_are_those_of_finite_differences_also_of_themselves():
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    delay = torch.tensor([0.0, 2.5, 9.0], dtype=torch.float64)
    for move in (lambda x: shift(x, -2), lambda x: shift_channels(x, delay)):
        assert torch.autograd.gradcheck(move, (x,))
        assert torch.autograd.gradgradcheck(lambda x: move(x).square(), (x,))  # noqa: B023


def test_a_backend_without_gathers_takes_the_reference(monkeypatch):
    ran, launch = [], native.launch
    monkeypatch.setattr(
        native, "launch", lambda kernel, *a: ran.append(kernel) or launch(kernel, *a)
    )
    x = torch.ones(2, 3, 5)
    expected = shift(x, 1), shift_channels(x, torch.arange(3.0))
    assert ran == ["shift", "shift"]
    monkeypatch.delattr(native, "GATHERS")
    assert torch.equal(shift(x, 1), expected[0])
    assert torch.equal(shift_channels(x, torch.arange(3.0)), expected[1])
    assert len(ran) == 2


OPERATORS = torch.ops.lava_bridge


def test_the_operators_are_registered_as_torch_wants():
    x, delay = numbers((2, 3, 7), 1, 1.0, torch.float32), torch.tensor([0.0, 1.5, 3.0])
    for backend in ("native", "torch"):
        leaf, learned = x.clone().requires_grad_(), delay.clone().requires_grad_()
        for op, args in (
            (OPERATORS.shift, (leaf, 2)),
            (OPERATORS.shift_channels, (leaf, learned, 1.0, 0.5, False)),
            (OPERATORS.shift_channels, (x, delay, 1.0, 0.5, True)),
            (OPERATORS.delay_gradient, (x, x)),
        ):
            torch.library.opcheck(op.default, (*args, backend))


def test_steps_that_float32_does_not_hold():
    steps = (1 << 24) + 1
    x = torch.arange(1.0, 5.0).repeat(1, 1, steps // 4 + 2)
    rest = x[..., : x.shape[-1] - steps]
    delay = torch.full((1,), steps, dtype=torch.float64)
    with use_backend("native"):
        for y in (shift(x, steps), shift_channels(x, delay)):
            assert torch.equal(y[..., steps:], rest)
            assert not y[..., :steps].any()
