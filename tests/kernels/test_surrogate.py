"""SpikingJelly's surrogates in the kernel: their derivatives are those that torch gives."""

import math

import pytest
import torch
from compared import both, uncancelled
from hypothesis import given, strategies as st
from kernel_cases import INSTRUCTION_SETS, laid_out, numbers, shapes_and_orders
from spikingjelly.activation_based import surrogate

from lava_bridge import use_backend
from lava_bridge.exchange import CubaLIFNode
from lava_bridge.exchange.smooth import smooth
from lava_bridge.kernels import current_backend, native
from lava_bridge.ops import cuba_reset, delta, spike
from lava_bridge.ops.surrogate import Smooth, derivative, of_any

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

KINDS = (surrogate.Sigmoid, surrogate.ATan, surrogate.SoftSign, surrogate.PiecewiseQuadratic)
kinds = st.sampled_from(KINDS)
alphas = st.one_of(st.sampled_from([1, 4.0, 1e-3, 100.0]), st.floats(0.05, 20))


def bound(dtype):
    return 1e-10 if dtype == torch.float64 else 1e-5


def assert_close(mine, reference, scale=None):
    """Within 1e-5, in double precision 1e-10, of the largest, or of that of ``scale``."""
    largest = (reference if scale is None else scale).abs().max().item() if mine.numel() else 0.0
    rtol = bound(reference.dtype)
    torch.testing.assert_close(mine, reference, rtol=rtol, atol=rtol * max(largest, 1e-30))


@given(kinds, alphas, st.sampled_from([torch.float32, torch.float64]), st.integers(0, 1000))
def test_the_formulas_are_spikingjellys(kind, alpha, dtype, seed):
    voltage = numbers((300,), seed, 2.0, dtype)
    mine = derivative(*smooth(kind(alpha=alpha)), voltage - 0.5)
    assert_close(mine, of_any(kind(alpha=alpha), voltage, 0.5))


@pytest.mark.parametrize("kind", [surrogate.Sigmoid, surrogate.ATan])
@pytest.mark.parametrize("alpha", [-3.0, 0.0, -0.01])
def test_an_alpha_of_any_sign_has_spikingjellys_derivative(kind, alpha):
    voltage = numbers((300,), 1, 2.0, torch.float64)
    made = smooth(kind(alpha=alpha))
    assert isinstance(made, Smooth)
    assert_close(derivative(*made, voltage - 0.5), of_any(kind(alpha=alpha), voltage, 0.5))


def gradients(x, decays, states, function, detach, is_current):
    """From spikes and states to everything that is learned."""
    leaves = [part.detach().requires_grad_() for part in (x, *decays, *states)]
    run = cuba_reset.fire_and_reset(
        leaves[0],
        tuple(leaves[1:3]),
        tuple(leaves[3:]),
        64,
        0.5,
        function,
        detach,
        is_current,
        keep_held=True,
        backend=current_backend(),
    )
    loss = sum((y * numbers(y.shape, 3, 1.0, y.dtype)).sum() for y in (run.spike, run.held))
    wanted = [leaves[0], leaves[2], leaves[4]] if is_current else leaves
    return torch.autograd.grad(loss, wanted)


@given(
    layout=shapes_and_orders,
    seed=st.integers(0, 1000),
    kind=kinds,
    alpha=alphas,
    detach=st.booleans(),
    is_current=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_gradients_are_those_of_the_derivative_by_torch(
    layout, seed, kind, alpha, detach, is_current, dtype
):
    shape, order = layout
    # Small steps of the current: the sums over many, through each reset, differ by their rounding.
    x = laid_out(numbers(shape, seed, 1.0, dtype), order)
    decays = torch.tensor([1000.0], dtype=dtype), torch.tensor([500.0], dtype=dtype)
    states = numbers(shape[:-1], seed + 1, 1.0, dtype), numbers(shape[:-1], seed + 2, 1.0, dtype)
    function = kind(alpha=min(alpha, 5.0))
    with use_backend("native"):
        expected = gradients(x, decays, states, function, detach, is_current)
    magnitudes = uncancelled(lambda: gradients(x, decays, states, function, detach, is_current))
    for found in both(lambda: gradients(x, decays, states, smooth(function), detach, is_current)):
        for mine, reference, scale in zip(found, expected, magnitudes, strict=True):
            assert_close(mine, reference, scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set_computes_them_over_all_voltages(kind, dtype, monkeypatch):
    # One step of a current: its gradient is the derivative alone.
    x = torch.linspace(-3000, 3000, 4000, dtype=dtype).sinh().clamp(-2e4, 2e4).reshape(1, -1, 1)
    x = torch.cat([x, torch.linspace(-40, 40, 4000, dtype=dtype).reshape(1, -1, 1)], 1)
    zero = torch.zeros(1, dtype=dtype)
    for instructions in INSTRUCTION_SETS[: len(native._native.instruction_sets())]:
        monkeypatch.setattr(native, "instructions", instructions)
        for alpha in (0.3, 4.0):
            found = []
            for function in (kind(alpha=alpha), smooth(kind(alpha=alpha))):
                leaf = x.clone().requires_grad_()
                run = cuba_reset.fire_and_reset(
                    leaf, (zero, zero), (zero, zero), 64, 0.5, function, True, True
                )
                found.append(torch.autograd.grad(run.spike.sum(), leaf)[0])
            assert_close(found[1], found[0])
            # Far down it has its digits too; torch's 1 - sigmoid has none left there in float32.
            if dtype == torch.float64 or kind is not surrogate.Sigmoid:
                near = found[0] > 1e-5 * alpha
                rtol = bound(dtype)
                torch.testing.assert_close(found[1][near], found[0][near], rtol=rtol, atol=0)


class Halved(surrogate.Sigmoid):
    def forward(self, x):
        return super().forward(x / 2)


def hooked():
    function = surrogate.Sigmoid()
    function.register_forward_hook(lambda *args: args[2])
    return function


def negative(function):
    function.alpha = -1.0
    return function


@pytest.mark.parametrize(
    "function",
    [
        surrogate.Erf(),
        Halved(),
        hooked(),
        negative(surrogate.SoftSign()),
        negative(surrogate.PiecewiseQuadratic()),
        surrogate.ATan(alpha=torch.tensor(2.0)),
        surrogate.Sigmoid(alpha=math.inf),
        torch.sigmoid,
    ],
    ids=lambda function: getattr(function, "__name__", str(function)),  # no address of an object
)
def test_whatever_else_computes_its_own_derivative(function):
    assert smooth(function) is function


@pytest.mark.parametrize("kind", KINDS)
def test_the_node_never_calls_a_surrogate_that_the_kernel_knows(kind, monkeypatch):
    function = kind()
    node = CubaLIFNode(0.3, 0.1, surrogate_function=function, step_mode="m")
    monkeypatch.setattr(kind, "forward", None)
    x = numbers((9, 2, 30), 1, 1.0, torch.float32).requires_grad_()
    node(x).sum().backward()
    assert x.grad.any()


def test_a_compiled_loss_on_states_alone_goes_through_the_reset():
    decays = torch.tensor([1000.0]), torch.tensor([500.0])
    states = torch.zeros(1), torch.zeros(1)

    def held(x):
        run = cuba_reset.fire_and_reset(
            x, decays, states, 64, 0.5, Smooth(1, 4.0), False, keep_held=True
        )
        return run.held.sum()

    torch._dynamo.reset()
    x = numbers((2, 3, 9), 1, 1.0, torch.float32).requires_grad_()
    (expected,) = torch.autograd.grad(held(x), x)
    compiled = torch.compile(held, fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(x), x)
    assert torch.equal(found, expected)


def test_a_compiled_loss_on_states_alone_is_refused_with_a_surrogate_of_the_users_own():
    decays = torch.tensor([1000.0]), torch.tensor([500.0])
    states = torch.zeros(1), torch.zeros(1)

    def held(x):
        run = cuba_reset.fire_and_reset(
            x, decays, states, 64, 0.5, torch.sigmoid, False, keep_held=True
        )
        return run.held.sum()

    torch._dynamo.reset()
    x = numbers((2, 3, 9), 1, 1.0, torch.float32).requires_grad_()
    # (Dynamo puts its own words around it.)
    with pytest.raises(RuntimeError, match="on states only; add the spikes, or detach the reset"):
        torch.compile(held, fullgraph=True, backend="aot_eager")(x).backward()
    held(x).backward()
    assert x.grad.any()


@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_from_the_threshold_the_slope_is_0_and_not_a_small_number(
    instructions, dtype, monkeypatch
):
    # A leak or a reset that amplifies makes something of 1e-38, and a change of 1e38 does.
    if instructions > len(native._native.instruction_sets()):
        pytest.skip("this CPU has not these instructions")
    monkeypatch.setattr(native, "instructions", instructions)
    away = torch.cat([torch.linspace(-110, -80, 400), -torch.tensor([1e3, 1e9, 1e38, math.inf])])
    voltage = away.to(dtype).reshape(1, 1, -1).requires_grad_()
    with use_backend("native"):
        fired = spike.spike(voltage, 0.0, (1.0, 1.0, True))
    slope = torch.autograd.grad(fired.sum(), voltage)[0].flatten()
    exact = torch.exp(away.double())
    assert ((slope - exact).abs() <= 1e-5 * exact + 1e-38).all()
    if dtype == torch.float32:
        assert not slope[away < -88].any()
    assert not slope[-4:].any()


def test_a_large_change_makes_nothing_of_a_slope_that_is_none():
    x = torch.tensor([1.0, 3e38, 1e37, 2.0]).expand(2, 3, 4)

    def gradient():
        threshold = torch.ones(1, requires_grad=True)
        message, *_ = delta.dynamics(x, threshold, *[torch.zeros(1)] * 3)
        return torch.autograd.grad((message * torch.arange(4.0)).sum(), threshold)[0]

    reference, mine = both(gradient)
    torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("detach_reset", [False, True])
def test_a_surrogate_of_the_users_own_has_gradients_under_torch_func(detach_reset):
    decays = torch.tensor([1000.0]), torch.tensor([500.0])
    states = torch.zeros(1), torch.zeros(1)

    def own(above):
        return torch.sigmoid(3 * above)

    def loss(x):
        run = cuba_reset.fire_and_reset(x, decays, states, 64, 0.5, own, detach_reset)
        return (run.spike * torch.arange(9)).sum()

    x = numbers((3, 4, 9), 1, 1.0, torch.float32)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    assert expected.any()
    torch.testing.assert_close(torch.func.grad(loss)(x), expected)
    each = torch.vmap(torch.func.grad(lambda x: loss(x.unsqueeze(0))))(x)
    torch.testing.assert_close(each, expected)
