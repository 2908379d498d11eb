"""The delta encoder's operators: native kernels against the torch reference."""

import math

import pytest
import torch
from compared import assert_close, both, uncancelled
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
from lava_bridge.ops import delta

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)


def thresholds_of(kind, shape, value):
    """One threshold for all, one for each channel or one for each neuron, about ``value``."""
    sizes = {"one": (1,), "channel": (shape[1], *[1] * (len(shape) - 3)), "neuron": shape[:-1]}
    return value * (0.5 + torch.rand(sizes[kind], generator=torch.Generator().manual_seed(3)))


encoders = st.fixed_dictionaries(
    {
        "layout": shapes_and_orders,
        "seed": st.integers(0, 1000),
        "size": st.sampled_from([0.05, 1.0, 300.0, 1e7]),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
        "threshold": st.sampled_from([1e-3, 0.3, 1.0, 20.0]),
        "kind": st.sampled_from(["one", "channel", "neuron"]),
        "cum_error": st.booleans(),
        "scale": st.sampled_from([None, 1, 3, 64, 100, 4096, 6400, 0.5]),
        "surrogate": st.sampled_from([(1.0, 1.0), (0.1, 3.0), (50.0, 0.2)]),
        "first": st.sampled_from([0.0, 0.4, -3.0]),
    }
)


def case(run):
    """x, threshold and states; the last as whole tensors and as one number for all."""
    (shape, order), dtype = run["layout"], run["dtype"]
    x = laid_out(numbers(shape, run["seed"], run["size"], dtype), order)
    threshold = thresholds_of(run["kind"], shape, run["threshold"])
    states = [
        run["first"] * numbers(size, run["seed"] + k, 1.0, torch.float32)
        for k, size in enumerate((shape[:-1], shape[:-1], (1,)))
    ]
    settings = run["cum_error"], *run["surrogate"], run["scale"]
    return x, threshold, states, settings


@given(encoders)
def test_messages_and_last_states_are_the_references_to_the_bit(run):
    x, threshold, states, settings = case(run)
    reference, mine = both(lambda: delta.dynamics(x, threshold, *states, *settings))
    for name, ours, theirs in zip(("y", "residual", "error"), mine, reference, strict=True):
        assert same(ours, theirs), name
    assert in_order_of(mine[0], x)
    assert mine[1].shape == mine[2].shape == x.shape[:-1]


@given(encoders)
def test_what_is_fused_is_slayers_rounding_down(run):
    x, threshold, states, settings = case(run)
    *settings, scale = settings
    for backend in ("torch", "native"):
        with kernels.use_backend(backend):
            whole = delta.dynamics(x, threshold, *states, *settings)
            rounded = delta.dynamics(x, threshold, *states, *settings, scale)
        if scale is not None:
            floor = slayer.utils.QUANTIZE_MODE.FLOOR
            assert same(rounded[0], slayer.utils.quantize(whole[0], 1 / scale, floor))
        assert same(rounded[1], whole[1])
        assert same(rounded[2], whole[2])


@given(encoders)
def test_gradients_are_the_references(run):
    x, threshold, states, settings = case(run)
    weight = numbers(x.shape, 5, 1.0, x.dtype)

    def gradients():
        leaves = [x.detach().requires_grad_(), threshold.detach().requires_grad_()]
        y, residual, error = delta.dynamics(*leaves, *states, *settings)
        assert not residual.requires_grad
        assert not error.requires_grad
        return torch.autograd.grad(y, leaves, weight)

    (grad_x, grad_threshold), (mine_x, mine_threshold) = both(gradients)
    assert same(mine_x, grad_x)
    later = torch.cat([weight[..., 1:], torch.zeros_like(weight[..., :1])], -1)
    assert same(mine_x, weight - later)
    assert in_order_of(mine_x, x)
    assert mine_threshold.shape == threshold.shape
    assert_close([mine_threshold], [grad_threshold], uncancelled(gradients)[1:])


@pytest.mark.parametrize(("shape", "order"), ALL_ORDERS)
@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_shape_order_and_instruction_set(shape, order, instructions, dtype, monkeypatch):
    if instructions > len(native._native.instruction_sets()):
        pytest.skip("this CPU has not these instructions")
    monkeypatch.setattr(native, "instructions", instructions)
    x = laid_out(numbers(shape, 1, 1.0, dtype), order)
    states = [numbers(shape[:-1], k, 1.0, dtype) for k in range(3)]

    def run():
        leaves = [x.detach().requires_grad_(), thresholds_of("neuron", shape, 0.5)]
        leaves[1].requires_grad_()
        y, *last = delta.dynamics(*leaves, *states, True, 1, 1, 100)
        return y.detach(), *last, *torch.autograd.grad((y * x.flip(-1)).sum(), leaves)

    reference, mine = both(run)
    for ours, theirs in zip(mine[:4], reference[:4], strict=True):
        assert same(ours, theirs)
    assert in_order_of(mine[0], x)
    assert in_order_of(mine[3], x)
    assert_close(mine[4:], reference[4:])


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 0, 1, 2, 3)])
def test_any_number_of_threads_gives_the_same(order):
    x = laid_out(numbers((8, 16, 14, 14, 33), 1, 1.0, torch.float32), order).requires_grad_()
    threshold = torch.full((16, 1, 1), 0.5, requires_grad=True)
    states, before, runs = [torch.zeros(1)] * 3, torch.get_num_threads(), []
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            y, *last = delta.dynamics(x, threshold, *states, True, 1, 1, 64)
            grads = torch.autograd.grad((y * x.detach()).sum(), (x, threshold))
            runs.append((y.detach(), *last, *grads))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))
    assert 0.1 < (runs[0][0] != 0).float().mean() < 0.99


EXTREMES = [0.0, -0.0, 1e-45, -1e-30, 0.5, -0.5, 2.0**22 + 0.5, 2.0**23 + 1, -(2.0**22) - 0.5]
EXTREMES += [2.0**31, -1e18, 3e38, -3e38, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [None, 1, 3, 64])
@pytest.mark.parametrize("cum_error", [False, True])
def test_extreme_inputs_states_and_thresholds(dtype, scale, cum_error):
    values = torch.tensor(EXTREMES, dtype=dtype)
    # Every value before and after every other, among neurons that are ordinary.
    x = torch.stack(torch.meshgrid(values, values, indexing="ij"), -1).reshape(1, -1, 2)
    x = torch.cat([x, x.flip(-1)], -1)
    x = torch.cat([x, torch.rand(1, 50, 4, dtype=dtype)], dim=1)
    for threshold in (0.0, 0.5, math.inf, math.nan):
        for first in (0.0, 1e30, math.inf, math.nan):
            states = [torch.zeros(1), torch.zeros(1), torch.full((1,), first)]
            reference, mine = both(
                lambda: delta.dynamics(
                    x,
                    torch.tensor([threshold]),  # noqa: B023
                    *states,  # noqa: B023
                    cum_error,
                    scale=scale,
                )
            )
            for ours, theirs in zip(mine, reference, strict=True):
                assert same(ours, theirs), (threshold, first)


@pytest.mark.parametrize(("dtype", "half"), [(torch.float32, 2.0**22), (torch.float64, 2.0**51)])
def test_messages_are_rounded_down_as_far_as_they_have_fractions(dtype, half):
    x = torch.tensor([[[half + 0.5], [half + 1.5], [-half - 0.5], [2 * half - 0.5]]], dtype=dtype)
    assert x[0, 0, 0] != half
    zero = torch.zeros(1)
    for backend in ("torch", "native"):
        with kernels.use_backend(backend):
            y = delta.dynamics(x, zero, zero, zero, zero, scale=1)[0]
        assert torch.equal(y, x.floor())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    x = numbers((2, 5, 9), 1, 1.0, torch.float32).to(dtype)
    states = [torch.zeros(1)] * 3

    def run(x):
        leaf, threshold = x.detach().requires_grad_(), torch.tensor([0.3], requires_grad=True)
        y, *last = delta.dynamics(leaf, threshold, *states, True, scale=64)
        return y.detach(), *last, *torch.autograd.grad(y.square().sum(), (leaf, threshold))

    reference, mine = both(lambda: run(x))
    whole = run(x.float())
    assert mine[0].dtype == mine[3].dtype == dtype
    for ours, theirs, single in zip(mine[:3], reference[:3], whole[:3], strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(ours, single.to(ours.dtype))
    torch.testing.assert_close(mine[3], reference[3], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(mine[4], reference[4], rtol=2e-2, atol=2e-2)


def test_views_and_expanded_gradients():
    x = numbers((3, 4, 8), 1, 1.0, torch.float32)
    threshold, states = torch.tensor([0.5]), [torch.zeros(1)] * 3
    for view in (spread(x), x[::2], x[:, 1:], x[..., 2:7], x[..., :1].expand(3, 4, 8)):
        expected, mine = both(lambda: delta.dynamics(view, threshold, *states))  # noqa: B023
        assert torch.equal(mine[0], expected[0])
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        leaf = laid_out(x, order).requires_grad_()
        delta.dynamics(leaf, threshold, *states)[0].sum().backward()
        assert in_order_of(leaf.grad, leaf)
        assert torch.equal(leaf.grad[..., :-1], torch.zeros(3, 4, 7))
        assert torch.equal(leaf.grad[..., -1], torch.ones(3, 4))


def test_the_thresholds_gradient_where_a_change_is_the_threshold():
    # It is sent, and its slope is the one below the threshold.
    def run():
        threshold = torch.tensor([0.5], requires_grad=True)
        y = delta.dynamics(
            torch.tensor([[[0.5, 0.0]]]), threshold, *[torch.zeros(1)] * 3, scale_grad=3
        )[0]
        return y, torch.autograd.grad(y, threshold, torch.tensor([[[1.0, 0.25]]]))[0]

    for y, grad in both(run):
        assert y.tolist() == [[[0.5, -0.5]]]
        assert grad.item() == -1 + 0.25


def test_without_a_step_the_states_stay():
    states = [torch.zeros(1), torch.rand(2, 3), torch.rand(2, 3)]
    for y, residual, error in both(
        lambda: delta.dynamics(torch.zeros(2, 3, 0), torch.ones(1), *states)
    ):
        assert y.shape == (2, 3, 0)
        assert torch.equal(residual, states[1])
        assert torch.equal(error, states[2])


def test_where_all_is_sent_the_gradient_is_that_of_finite_differences():
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: delta.dynamics(x, zero, zero, zero, zero)[0], (x,))


def test_a_gradient_of_the_gradient_is_refused():
    x = torch.randn(2, 3, 5, requires_grad=True)
    y = delta.dynamics(x, torch.ones(1), *[torch.zeros(1)] * 3)[0]
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y).requires_grad_(), create_graph=True)
    with pytest.raises(NotImplementedError, match="delta_backward"):
        grad.sum().backward()


@pytest.mark.parametrize("cum_error", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_the_module_goes_on_where_it_stopped_and_starts_anew_with_another_batch(cum_error, shared):
    params = {"cum_error": cum_error, "shared_param": shared, "persistent_state": True}
    x = numbers((2, 3, 2, 2, 12), 1, 1.0, torch.float32)

    def run():
        encoder = slayer.axon.Delta(0.5, **params)
        parts = [encoder(part) for part in x.split([5, 1, 6], dim=-1)]
        return torch.cat(parts, -1), encoder(x[:1]), encoder.residual_state, encoder.error_state

    reference, mine = both(run)
    assert all(same(a, b) for a, b in zip(mine, reference, strict=True))
    encoder = slayer.axon.Delta(0.5, **params)
    assert torch.equal(encoder(x), mine[0])
    assert torch.equal(slayer.axon.Delta(0.5, **params)(x[:1]), mine[1])


def test_a_neuron_that_learns_no_threshold_keeps_nothing_for_it():
    kept = []
    x = numbers((2, 3, 8), 1, 1.0, torch.float32).requires_grad_()
    states = [torch.zeros(1)] * 3
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        delta.dynamics(x, torch.ones(1), *states)
        assert kept == []
        delta.dynamics(x, torch.ones(1, requires_grad=True), *states)
    assert kept


OPERATORS = torch.ops.lava_bridge


def test_the_operators_are_registered_as_torch_wants():
    x = numbers((2, 3, 7), 1, 1.0, torch.float32)
    states = torch.rand(2, 3), torch.zeros(1), torch.zeros(1)
    threshold = torch.tensor([[0.3], [0.4], [0.5]]).reshape(3)
    for backend in ("native", "torch"):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, threshold)]
        for op, args in (
            (OPERATORS.delta, (*leaves, *states, True, 1.0, 1.0, 64.0)),
            (OPERATORS.delta, (leaves[0], threshold, *states, False, 1.0, 1.0, 0.0)),
            (OPERATORS.delta_backward, (x,)),
            (OPERATORS.delta_threshold, (x, x, threshold, *states, True, 1.0, 1.0)),
        ):
            torch.library.opcheck(op.default, (*args, backend))
