"""The sigma decoder's operator: native kernels against torch.cumsum."""

import pytest
import torch
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

from lava_bridge import kernels, slayer
from lava_bridge.kernels import native
from lava_bridge.ops import sigma

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

dtypes = st.sampled_from([torch.float32, torch.float64])


def forward_and_back(backend, x, state=None, weight=None):
    """The sums and the gradient of x."""
    with kernels.use_backend(backend):
        leaf = x.detach().requires_grad_()
        y = sigma.dynamics(leaf, state)
        y.backward(numbers(x.shape, 7, 1.0, x.dtype) if weight is None else weight)
    return y.detach(), leaf.grad


@given(shapes_and_orders, st.integers(0, 1000), st.sampled_from([0.3, 1e4, 1e30]), dtypes)
def test_sums_and_gradients_are_torchs_to_the_bit(layout, seed, size, dtype):
    x = laid_out(numbers(layout[0], seed, size, dtype), layout[1])
    expected = torch.cumsum(x, -1)
    for backend in ("torch", "native"):
        y, grad = forward_and_back(backend, x)
        assert same(y, expected)
        assert in_order_of(y, x)
        weight = numbers(x.shape, 7, 1.0, dtype)
        assert same(grad, weight.flip(-1).cumsum(-1).flip(-1))
        assert in_order_of(grad, x)


@given(shapes_and_orders, st.integers(0, 1000), st.sampled_from(["one", "channel", "all"]), dtypes)
def test_a_first_sum_is_added_after_rounding(layout, seed, kind, dtype):
    shape, order = layout
    x = laid_out(numbers(shape, seed, 1.0, dtype), order)
    states = {"one": (1,), "channel": (shape[1], *[1] * (len(shape) - 3)), "all": shape[:-1]}
    state = numbers(states[kind], seed + 1, 100.0, torch.float32)
    expected = torch.cumsum(x, -1) + state.to(dtype).unsqueeze(-1)
    for backend in ("torch", "native"):
        assert same(forward_and_back(backend, x, state)[0], expected)


@pytest.mark.parametrize(("shape", "order"), ALL_ORDERS)
@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_shape_order_and_instruction_set(shape, order, instructions, dtype, monkeypatch):
    if instructions > len(native._native.instruction_sets()):
        pytest.skip("this CPU has not these instructions")
    monkeypatch.setattr(native, "instructions", instructions)
    x = laid_out(numbers(shape, 1, 1.0, dtype), order)
    state = numbers(shape[:-1], 2, 1.0, dtype)
    for mine, theirs in zip(
        forward_and_back("native", x, state), forward_and_back("torch", x, state), strict=True
    ):
        assert same(mine, theirs)
        assert in_order_of(mine, x)


def test_any_number_of_threads_gives_the_same():
    x = numbers((8, 16, 14, 14, 33), 1, 1.0, torch.float32)
    expected, before = torch.cumsum(x, -1), torch.get_num_threads()
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            for order in ((0, 1, 2, 3, 4), (4, 0, 1, 2, 3)):
                assert torch.equal(sigma.dynamics(laid_out(x, order)), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_as_by_torch(dtype):
    x = numbers((3, 17, 50), 1, 1.0, torch.float32).to(dtype)
    state = numbers((3, 17), 2, 1.0, torch.float32)
    for backend in ("torch", "native"):
        assert torch.equal(forward_and_back(backend, x)[0], x.cumsum(-1))
        expected = x.cumsum(-1) + state.to(dtype).unsqueeze(-1)
        assert torch.equal(forward_and_back(backend, x, state)[0], expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_nan_and_infinity_stay_with_their_neuron(value):
    x = torch.ones(2, 40, 6)
    x[0, 3, 2] = x[1, 7, 1:3] = value
    x[1, 9, 2:4] = torch.tensor([value, -value])
    assert same(sigma.dynamics(x), torch.cumsum(x, -1))


def test_views_and_expanded_gradients():
    x = numbers((3, 4, 8), 1, 1.0, torch.float32)
    for view in (spread(x), x[::2], x[:, 1:], x[..., 2:7], x[..., :1].expand(3, 4, 8)):
        y, grad = forward_and_back("native", view, weight=torch.ones(()).expand(view.shape))
        assert torch.equal(y, torch.cumsum(view, -1))
        assert grad[0, 0].tolist() == list(range(view.shape[-1], 0, -1))
    turned = laid_out(x, (2, 0, 1))
    _, grad = forward_and_back("native", turned, weight=torch.ones(()).expand(x.shape))
    assert in_order_of(grad, turned)
    assert sigma.dynamics(torch.zeros(2, 3, 0)).shape == (2, 3, 0)


def test_the_gradient_is_that_of_finite_differences_also_of_itself():
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: sigma.dynamics(x, state), (x,))
    assert torch.autograd.gradgradcheck(lambda x: sigma.dynamics(x, state).square(), (x,))


def test_the_module_goes_on_where_it_stopped_and_starts_anew_with_another_batch():
    decoder = slayer.dendrite.Sigma(persistent_state=True)
    x = torch.round(64 * numbers((2, 3, 12), 1, 1.0, torch.float32)) / 64
    parts = [decoder(part) for part in x.split([5, 1, 6], dim=-1)]
    assert torch.equal(torch.cat(parts, -1), torch.cumsum(x, -1))
    assert torch.equal(decoder(x[:1]), torch.cumsum(x[:1], -1))


def test_the_operator_is_registered_as_torch_wants():
    x, state = numbers((2, 3, 7), 1, 1.0, torch.float32), torch.rand(2, 3)
    for backend in ("native", "torch"):
        for args in ((x.clone().requires_grad_(), None, False), (x, state, False), (x, None, True)):
            torch.library.opcheck(torch.ops.lava_bridge.sigma.default, (*args, backend))
