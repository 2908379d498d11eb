"""Operators run as functions where nothing watches, and are operators for whoever looks at them."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import lava_bridge
from lava_bridge.kernels import native
from lava_bridge.ops import shift
from lava_bridge.ops.operator import operator
from lava_bridge.ops.spike import spike as lava_spike

calls: list[str] = []


@operator("lava_bridge_tests::scaled")
def scaled(x: torch.Tensor, by: float) -> torch.Tensor:
    calls.append(type(x).__name__)
    return torch.empty_like(x).copy_(x * by)


@scaled.register_fake
def _(x, by):
    return torch.empty_like(x)


def _save(ctx, inputs, output):
    _, ctx.by = inputs


scaled.register_autograd(lambda ctx, grad: (grad * ctx.by, None), setup_context=_save)


@operator("lava_bridge_tests::plain")
def without_gradient(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x).copy_(x)


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.names.append(op.name())
        return op(*args, **(kwargs or {}))


class Own(torch.Tensor):
    pass


def test_values_and_gradients_are_the_operators():
    for leaf in (torch.randn(3, requires_grad=True), torch.nn.Parameter(torch.randn(3))):
        for form in (scaled, scaled.registered):
            y = form(leaf, 2.0)
            assert torch.equal(y, 2 * leaf)
            assert torch.equal(*torch.autograd.grad(y.sum(), leaf), torch.full((3,), 2.0))
        assert not scaled(leaf.detach(), 2.0).requires_grad
        with torch.no_grad():
            assert not scaled(leaf, 2.0).requires_grad


def test_what_watches_sees_the_operator():
    x = torch.randn(3)
    with Seen() as seen:
        scaled(x, 2.0)
    assert "lava_bridge_tests::scaled" in seen.names
    graph = make_fx(lambda x: scaled(x, 2.0))(x)
    assert "lava_bridge_tests.scaled" in graph.code
    program = torch.export.export(Layer(), (x,), strict=False)
    assert "lava_bridge_tests.scaled" in program.graph_module.code
    traced = torch.jit.trace(lambda x: scaled(x, 2.0), x, check_trace=False)
    assert "lava_bridge_tests::scaled" in str(traced.graph)


class Layer(torch.nn.Module):
    def forward(self, x):
        return scaled(x, 2.0)


def test_tensors_without_data_never_reach_the_function():
    calls.clear()
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.randn(3))
        assert scaled(fake, 2.0).shape == (3,)
    assert scaled(fake, 2.0).shape == (3,)
    assert scaled(torch.randn(3, device="meta"), 2.0).shape == (3,)
    assert not calls


def test_transforms_and_other_classes_of_tensors():
    x = torch.randn(3, 4)
    calls.clear()
    assert torch.equal(torch.vmap(lambda row: scaled(row, 2.0))(x), 2 * x)
    assert calls == ["Tensor"] * 3  # a row at a time, as the dispatcher falls back to
    assert torch.equal(scaled(x.as_subclass(Own), 2.0).as_subclass(torch.Tensor), 2 * x)


def test_without_a_gradient_it_is_refused():
    y = without_gradient(torch.randn(3, requires_grad=True))
    with pytest.raises(RuntimeError, match="no autograd formula"):
        y.sum().backward()


def test_a_running_profiler_shows_operators_by_name():
    x = torch.randn(3, requires_grad=True)
    with torch.profiler.profile() as seen:
        y = scaled(x, 2.0)
        scaled(x.detach(), 2.0)
        y.sum().backward()
    names = [event.name for event in seen.events()]
    assert names.count("lava_bridge_tests::scaled") == 2
    calls.clear()
    scaled(x, 2.0)
    assert calls == ["Parameter"] or calls == ["Tensor"]  # and runs as a function again


def test_transforms_of_torch_func_give_the_gradient():
    x = torch.randn(3, 4)
    slope = torch.func.grad(lambda x: (scaled(x, 2.0) ** 2).sum())
    assert torch.equal(slope(x), 8 * x)
    assert torch.equal(torch.vmap(slope)(x), 8 * x)
    each = torch.func.grad(lambda x: torch.vmap(lambda row: scaled(row, 2.0))(x).square().sum())
    assert torch.equal(each(x), 8 * x)
    leaf = x.clone().requires_grad_()  # and autograd sees through them
    slope(leaf).sum().backward()
    assert torch.equal(leaf.grad, torch.full_like(x, 8))


def test_the_gradient_of_a_gradient_is_refused_under_torch_func_too():
    def bent(x):
        return torch.func.grad(lambda x: lava_spike(x, 0.5, (1.0, 1.0, False)).sum())(x).sum()

    x = torch.randn(3, 4)
    assert torch.isfinite(bent(x))
    with pytest.raises(NotImplementedError, match="no gradient of a gradient"):
        torch.func.grad(bent)(x)


@pytest.mark.skipif(native.missing() is not None, reason=f"no native kernels: {native.missing()}")
def test_a_tensor_that_is_the_negative_of_its_memory_is_read_as_what_it_is():
    x = torch.randn(2, 3, 5)
    negative = torch._neg_view(-x)
    assert negative.is_neg()
    leaf = x.clone().requires_grad_()
    for name in ("torch", "native"):
        with lava_bridge.use_backend(name):
            assert torch.equal(shift(negative, 1), shift(x, 1))
            y = shift(leaf, 1)
            (grad,) = torch.autograd.grad(y, leaf, torch._neg_view(-x))
            assert torch.equal(grad[..., :-1], x[..., 1:])


def test_forward_mode_is_refused_in_one_line_and_loses_no_tangent():
    x, refused = (
        torch.randn(3),
        "^lava_bridge_tests::scaled: there is no forward-mode gradient; take",
    )
    with pytest.raises(NotImplementedError, match=refused):
        torch.func.jvp(lambda x: scaled(x, 2.0), (x,), (x,))
    with forward_ad.dual_level():
        assert torch.equal(scaled(x, 2.0), 2 * x)  # without a tangent there is nothing to lose
        for primal in (x, x.clone().requires_grad_()):
            with pytest.raises(NotImplementedError, match=refused):
                scaled(forward_ad.make_dual(primal, torch.ones_like(x)), 2.0)
