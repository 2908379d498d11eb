"""The sigma-delta neuron in one operator: the operators one by one, and the torch reference."""

import pytest
import torch
from compared import (
    EXTREMES,
    assert_close,
    assert_same,
    assert_same_everywhere,
    both,
    uncancelled,
)
from hypothesis import given, strategies as st
from kernel_cases import (
    ALL_ORDERS,
    in_order_of,
    laid_out,
    numbers,
    same,
    shapes_and_orders,
    spread,
)

from lava_bridge import kernels, slayer
from lava_bridge.kernels import native
from lava_bridge.ops import delta, sigma, sigma_delta

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

Neuron = slayer.neuron.sigma_delta.Neuron

neurons = st.fixed_dictionaries(
    {
        "layout": shapes_and_orders,
        "seed": st.integers(0, 1000),
        "size": st.sampled_from([0.05, 1.0, 300.0, 1e7]),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
        "threshold": st.sampled_from([1e-3, 0.3, 20.0]),
        "kind": st.sampled_from(["one", "channel", "neuron"]),
        "bias": st.sampled_from([0.0, 0.4, -2.0]),
        "rectifies": st.booleans(),
        "cum_error": st.booleans(),
        "scale": st.sampled_from([None, 1, 3, 64, 6400]),
        "surrogate": st.sampled_from([(1.0, 1.0), (0.1, 3.0)]),
        "first": st.sampled_from([0.0, 0.4, -3.0]),
    }
)


def made(run):
    """x, threshold, bias, states and the settings of a run."""
    (shape, order), dtype = run["layout"], run["dtype"]
    sizes = {"one": (1,), "channel": (shape[1], *[1] * (len(shape) - 3)), "neuron": shape[:-1]}
    x = laid_out(numbers(shape, run["seed"], run["size"], dtype), order)
    drawn = torch.rand(sizes[run["kind"]], generator=torch.Generator().manual_seed(3))
    threshold = run["threshold"] * (0.5 + drawn)
    bias = run["bias"] * numbers(shape[1:-1], 4, 1.0, torch.float32)
    states = [
        run["first"] * numbers(size, run["seed"] + k, 1.0, dtype)
        for k, size in enumerate((shape[:-1], shape[:-1], (1,), shape[:-1]))
    ]
    settings = run["rectifies"], run["cum_error"], run["surrogate"], run["scale"]
    return x, threshold, bias, sigma_delta.States(*states), settings


def one_by_one(x, threshold, bias, states, settings):
    """The same from the operators that it is of."""
    rectifies, cum_error, surrogate, scale = settings
    total = sigma.dynamics(x, states.total)
    level = total + bias.to(x.dtype).unsqueeze(-1)
    seen = torch.relu(level) if rectifies else level
    encoding = cum_error, *surrogate, scale
    message, residual, error = delta.dynamics(seen, threshold, *states[:3], *encoding)
    return message, (seen[..., -1].detach(), residual, error, total[..., -1].detach())


def whole(x, threshold, bias, states, settings):
    return sigma_delta.dynamics(x, threshold, bias, states, *settings, keep_states=True)


@given(neurons)
def test_messages_and_states_are_those_of_the_operators_one_by_one(run):
    case = made(run)
    with kernels.use_backend("torch"):
        expected, states = one_by_one(*case)
    for sent in both(lambda: whole(*case)):
        assert same(sent.message, expected)
        assert_same(sent.states, states)
        assert in_order_of(sent.message, case[0])


@given(neurons)
def test_gradients_are_those_of_the_operators_one_by_one(run):
    x, threshold, bias, states, settings = made(run)
    weight = numbers(x.shape, 5, 1.0, x.dtype)

    def gradients(form):
        leaves = [part.detach().requires_grad_() for part in (x, threshold, bias)]
        message, last = form(*leaves, states, settings)
        assert not any(state.requires_grad for state in last)
        return torch.autograd.grad(message, leaves, weight)

    with kernels.use_backend("torch"):
        expected = gradients(one_by_one)
    # Each term is a difference of weights, of size 1.
    scales = [1 + scale for scale in uncancelled(lambda: gradients(whole))[1:]]
    for grad_x, grad_threshold, grad_bias in both(lambda: gradients(whole)):
        assert same(grad_x, expected[0])
        assert in_order_of(grad_x, x)
        assert grad_threshold.shape == threshold.shape
        assert grad_bias.shape == bias.shape
        assert_close([grad_threshold, grad_bias], expected[1:], scales)


@pytest.mark.parametrize(("shape", "order"), ALL_ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_shape_order_instruction_set_and_number_of_threads(shape, order, dtype, monkeypatch):
    x = laid_out(numbers(shape, 1, 1.0, dtype), order)
    states = sigma_delta.States(*(numbers(shape[:-1], k, 1.0, dtype) for k in range(4)))
    threshold = 0.5 + torch.rand(shape[:-1], generator=torch.Generator().manual_seed(3))

    def run():
        leaf = x.detach().requires_grad_()
        bias = numbers(shape[1:-1], 4, 1.0, dtype).requires_grad_()
        sent = whole(leaf, threshold, bias, states, (True, True, (1, 1), 100))
        grads = torch.autograd.grad((sent.message * x.flip(-1)).sum(), (leaf, bias))
        return [sent.message.detach(), *sent.states], grads

    assert_same_everywhere(run, monkeypatch)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 0, 1, 2)])
def test_many_threads_on_much_work_give_the_same(order):
    x = laid_out(numbers((32, 16, 14, 70), 1, 1.0, torch.float32), order).requires_grad_()
    none, threshold, before = torch.zeros(1), torch.tensor([0.3]), torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            message, _ = sigma_delta.dynamics(
                x, threshold, none, sigma_delta.States(*[none] * 4), True, scale=64
            )
            runs.append((message, *torch.autograd.grad((message * x.detach()).sum(), x)))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))
    assert 0.1 < (runs[0][0] != 0).float().mean() < 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rectifies", [False, True])
def test_extreme_inputs_and_their_gradients(dtype, rectifies):
    values = torch.tensor(EXTREMES, dtype=dtype)
    x = torch.stack(torch.meshgrid(values, values, indexing="ij"), -1).reshape(1, -1, 2)
    x = torch.cat([x, x.flip(-1)], -1)
    x = torch.cat([x, torch.rand(1, 50, 4, dtype=dtype)], dim=1)
    for threshold in (0.0, 0.5, float("inf")):
        case = torch.tensor([threshold]), torch.zeros(1), sigma_delta.States(*[torch.zeros(1)] * 4)
        settings = rectifies, True, (1, 1), 64

        def gradient(form, case=case, settings=settings):
            leaf = x.clone().requires_grad_()
            message, _ = form(leaf, *case, settings)
            return message.detach(), torch.autograd.grad(message.sum(), leaf)[0]

        with kernels.use_backend("torch"):
            expected = gradient(one_by_one)
        for found in both(lambda: gradient(whole)):
            assert_same(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    x = numbers((2, 5, 40), 1, 1.0, torch.float32).to(dtype)
    weight = numbers((2, 5, 40), 2, 1.0, torch.float32).to(dtype)
    states = sigma_delta.States(*[torch.full((1,), 0.3)] * 4)

    def run(x):
        leaf, bias = x.detach().requires_grad_(), torch.zeros(5).requires_grad_()
        threshold = torch.tensor([0.3], requires_grad=True)
        sent = whole(leaf, threshold, bias, states, (True, False, (1, 1), 64))
        loss = (sent.message.float() * weight.float()).sum()
        return sent, torch.autograd.grad(loss, (leaf, threshold, bias))

    single, of_single = run(x.float())
    for sent, gradients in both(lambda: run(x)):
        assert torch.equal(sent.message, single.message.to(dtype))
        assert_same(sent.states, single.states)
        assert torch.equal(gradients[0], of_single[0].to(dtype))
        assert_close(gradients[1:], of_single[1:])


def test_views_and_expanded_gradients():
    x = numbers((3, 4, 40), 1, 1.0, torch.float32)
    none = torch.zeros(1)
    case = torch.tensor([0.5]), none, sigma_delta.States(*[none] * 4), (True, False, (1, 1), 64)
    for view in (spread(x), x[::2], x[:, 1:], x[..., 2:7], x[..., :1].expand(3, 4, 8)):

        def run(view=view):
            leaf = view.detach().requires_grad_()
            message = whole(leaf, *case).message
            return [message.detach()], torch.autograd.grad(message.sum(), leaf)

        reference, mine = both(run)
        assert_same(mine[0], reference[0])
        assert_same(mine[1], reference[1])


def test_without_a_step_the_states_stay():
    states = sigma_delta.States(*(torch.rand(2, 3) for _ in range(4)))
    case = torch.ones(1), torch.zeros(3), states, (True, False, (1, 1), 64)
    for sent in both(lambda: whole(torch.zeros(2, 3, 0), *case)):
        assert sent.message.shape == (2, 3, 0)
        assert_same(sent.states, states)
    leaf, bias = torch.zeros(2, 3, 0, requires_grad=True), torch.zeros(3, requires_grad=True)
    message = whole(leaf, torch.ones(1), bias, states, (True, False, (1, 1), 64)).message
    grads = torch.autograd.grad(message.sum(), (leaf, bias))
    assert grads[0].shape == (2, 3, 0)
    assert torch.equal(grads[1], torch.zeros(3))


# The neuron ---------------------------------------------------------------------------------------


def count_whole(monkeypatch):
    """A list that grows with each call of the operator."""
    calls, run = [], sigma_delta.dynamics
    monkeypatch.setattr(sigma_delta, "dynamics", lambda *args: calls.append(1) or run(*args))
    return calls


@pytest.mark.parametrize(
    ("activation", "one"),
    [
        (torch.relu, True),
        (torch.nn.functional.relu, True),
        (torch.nn.ReLU(), True),
        (torch.nn.Identity(), True),
        (torch.tanh, False),
        (torch.nn.ReLU6(), False),
    ],
)
def test_relu_and_the_identity_run_in_one_operator(activation, one, monkeypatch):
    calls = count_whole(monkeypatch)
    Neuron(0.1, activation)(torch.randn(2, 3, 8))
    assert len(calls) == one


def test_whatever_stands_or_listens_between_the_parts_has_them_run_one_by_one(monkeypatch):
    calls, x = count_whole(monkeypatch), torch.randn(2, 3, 8)
    Neuron(0.1, torch.relu, norm=slayer.neuron.norm.MeanOnlyBatchNorm)(x)
    heard = []
    for part in ("sigma", "delta", "activation"):
        neuron = Neuron(0.1, torch.nn.ReLU())
        getattr(neuron, part).register_forward_hook(lambda *args: heard.append(args[2]))
        expected = Neuron(0.1, torch.relu)(x)
        calls.clear()
        assert torch.equal(neuron(x), expected)
        assert not calls
    assert len(heard) == 3

    class Silent(slayer.axon.Delta):
        def forward(self, input):
            return torch.zeros_like(input)

    neuron.delta = Silent(0.1)
    assert not neuron(x).any()
    neuron = Neuron(0.1, torch.relu)
    neuron.set_bias(torch.zeros(3, dtype=torch.float64))  # the sums become double by it
    neuron(x)
    assert not calls


@pytest.mark.parametrize("parts", [("sigma",), ("delta",), ("sigma", "delta")])
def test_the_state_of_either_part_goes_on_by_itself(parts):
    x = numbers((2, 3, 30), 1, 1.0, torch.float32)
    runs = []
    for activation in (torch.relu, lambda level: torch.relu(level)):
        neuron = Neuron(0.3, activation, cum_error=True)
        for part in parts:
            getattr(neuron, part).persistent_state = True
        messages = [neuron(part) for part in x.split([7, 23], dim=-1)]
        states = [neuron.sigma.pre_state, *(getattr(neuron.delta, n) for n in neuron.delta._starts)]
        runs.append([*messages, *states])
    assert_same(*runs)


@pytest.mark.parametrize("learned", [False, True])
def test_backward_keeps_a_bit_for_each_step_and_x_where_the_threshold_is_learned(learned):
    x, kept = numbers((2, 3, 64), 1, 1.0, torch.float32).requires_grad_(), []
    neuron = Neuron(0.1, torch.relu, requires_grad=learned)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        neuron(x)
    words = [t for t in kept if t.dtype == torch.int32]
    assert [t.shape for t in words] == [(2, 3, 2 + 1)]  # of 32 bits, and one more
    assert any(t is x for t in kept) == learned
    assert learned or len(kept) == 1


def test_a_gradient_of_the_gradient_is_refused():
    x = torch.randn(2, 3, 5, requires_grad=True)
    y = Neuron(0.1, torch.relu)(x)
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y).requires_grad_(), create_graph=True)
    with pytest.raises(NotImplementedError, match="sigma_delta_backward"):
        grad.sum().backward()


OPERATORS = torch.ops.lava_bridge


def test_the_operators_are_registered_as_torch_wants():
    x, threshold = numbers((2, 3, 40), 1, 1.0, torch.float32), torch.full((3,), 0.3)
    bias, states = torch.rand(3), (torch.rand(2, 3), *[torch.zeros(1)] * 3)
    words = torch.zeros(2, 3, 2 + 1, dtype=torch.int32)
    for backend in ("native", "torch"):
        leaves = [part.clone().requires_grad_() for part in (x, threshold, bias)]
        encoding = True, 1.0, 1.0, 64.0
        for op, args in (
            (OPERATORS.sigma_delta, (*leaves, *states, True, *encoding, True, True)),
            (OPERATORS.sigma_delta, (*leaves, *states, False, *encoding, True, False)),
            (OPERATORS.sigma_delta, (x, threshold, bias, *states, True, *encoding, False, False)),
            (OPERATORS.sigma_delta_backward, (x, words, True, True)),
            (OPERATORS.sigma_delta_backward, (x, words[:0], False, False)),
            (
                OPERATORS.sigma_delta_threshold,
                (x, x, threshold, bias, *states, True, True, 1.0, 1.0),
            ),
        ):
            torch.library.opcheck(op.default, (*args, backend))
