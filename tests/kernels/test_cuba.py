"""The fused CUBA neuron and the leaky integrator: native kernels against the torch reference."""

from itertools import product

import pytest
import torch
from compared import (
    assert_close,
    assert_delay_is_the_shift,
    both,
    gradients_of,
    uncancelled,
)
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
from spikingjelly.activation_based import surrogate

from lava_bridge import kernels
from lava_bridge.kernels import native
from lava_bridge.ops import cuba, cuba_reset, leaky_integrator

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

SURROGATES = [surrogate.Sigmoid(), surrogate.ATan(), surrogate.PiecewiseQuadratic()]


def decays_of(kind, shape, values, dtype=torch.float32):
    """One decay for all, one for each channel, or one for each neuron."""
    size = {"shared": (1,), "channel": (shape[1], *[1] * (len(shape) - 3)), "neuron": shape[:-1]}
    found = []
    for k, value in enumerate(values):
        drawn = torch.randint(0, 4097, size[kind], generator=torch.Generator().manual_seed(k))
        drawn = drawn.to(dtype)
        if drawn.numel():
            drawn.view(-1)[0] = value
        found.append(drawn)
    return tuple(found)


settings_of_a_run = st.fixed_dictionaries(
    {
        "layout": shapes_and_orders,
        "seed": st.integers(0, 1000),
        "size": st.sampled_from([0.3, 1.0, 30.0, 3000.0, 3e5]),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
        "decays": st.tuples(*[st.sampled_from([0, 1, 410, 2048, 4095, 4096])] * 2),
        "kind": st.sampled_from(["shared", "channel", "neuron"]),
        "scale": st.sampled_from([1, 64, 4096, 6400, 100]),
        "threshold": st.sampled_from([0.0, 0.5, 1.0, 17.0]),
        "graded": st.booleans(),
        "first": st.sampled_from([0.0, 0.7, -3.0]),
        "bias": st.sampled_from([None, 0.0, 0.25, -17.0, 1e5]),
    }
)


def case(run):
    shape, order = run["layout"]
    x = laid_out(numbers(shape, run["seed"], run["size"], run["dtype"]), order)
    decays = decays_of(run["kind"], shape, run["decays"])
    states = (
        torch.full((1,), run["first"], dtype=run["dtype"]),
        numbers(shape[:-1], run["seed"] + 1, 1.0, run["dtype"]) * run["first"],
    )
    return x, decays, states, run["threshold"] + 0.01 / run["scale"]


def bias_of(run):
    """None, or a bias: for each neuron, or one for each channel in float32."""
    shape, size = run["layout"][0], run["bias"]
    if size is None:
        return None
    if run["kind"] == "neuron":
        return numbers(shape[:-1], run["seed"] + 2, 1.0, run["dtype"]) * size
    channels = (shape[1], *[1] * (len(shape) - 3))
    return numbers(channels, run["seed"] + 2, 1.0, torch.float32) * size


@given(settings_of_a_run)
def test_the_fused_neuron_is_the_reference_to_the_bit(run):
    x, decays, states, threshold = case(run)
    reference, mine = both(
        lambda: cuba.fire(
            x,
            decays,
            states,
            run["scale"],
            threshold,
            (100.0, 0.1),
            run["graded"],
            bias_of(run),
        )
    )
    for name, ours, theirs in zip(cuba.Fired._fields, mine, reference, strict=True):
        assert same(ours, theirs), name
    assert in_order_of(mine.spike, x)


@given(settings_of_a_run, st.booleans(), st.booleans())
def test_the_fused_neuron_with_reset_is_the_reference_to_the_bit(run, detach, is_current):
    x, decays, states, threshold = case(run)
    reference, mine = both(
        lambda: cuba_reset.fire_and_reset(
            x,
            decays,
            states,
            run["scale"],
            threshold,
            SURROGATES[0],
            detach,
            is_current,
            not is_current,
            True,
            kernels.current_backend(),
            bias_of(run),
        )
    )
    for name, ours, theirs in zip(cuba.Fired._fields, mine, reference, strict=True):
        if not (is_current and name == "last_current"):
            assert same(ours, theirs), name
    assert in_order_of(mine.held, x)


@given(settings_of_a_run, st.booleans())
def test_the_leaky_integrator_is_the_reference_to_the_bit(run, resets):
    x, (decay, _), (_, state), threshold = case(run)
    reference, mine = both(
        lambda: leaky_integrator.dynamics(
            x, decay, state, run["scale"], threshold if resets else None
        )
    )
    assert same(mine, reference)
    assert in_order_of(mine, x)


# Sums over states beyond 2^24 can't be told from two voltages: gradients are compared below.
smooth_runs = settings_of_a_run.filter(
    lambda run: run["size"] <= 30 and run["scale"] != 100 and run["bias"] != 1e5
)


def leaves_of(run, x, decays, bias):
    """What slayer's gradients are for: the decays' only where the scale is a power of two."""
    learned = decays if run["scale"] & (run["scale"] - 1) == 0 else ()
    return [leaf.requires_grad_() for leaf in (x, *learned, bias) if leaf is not None]


@given(settings_of_a_run, st.sampled_from([None, torch.float16, torch.bfloat16]))
def test_spikes_that_are_delayed_by_a_step_are_the_shifts_to_the_bit(run, half):
    x, decays, states, threshold = case(run)
    x, bias = x if half is None else x.to(half), bias_of(run)
    firing = (2.0, 0.7), run["graded"], bias

    def fired(delay_shift):
        fire = cuba.fire(x, decays, states, run["scale"], threshold, *firing, delay_shift)
        return fire.spike, fire.last_current, fire.last_held

    assert_delay_is_the_shift(fired, leaves_of(run, x, decays, bias))


@given(smooth_runs)
def test_slayers_gradients(run):
    x, decays, states, threshold = case(run)
    bias = bias_of(run)
    leaves = leaves_of(run, x, decays, bias)
    surrogate_of_run = (2.0, 0.7), run["graded"]

    def run_it():
        fired = cuba.fire(x, decays, states, run["scale"], threshold, *surrogate_of_run, bias)
        return gradients_of([fired.spike], leaves)

    (_, reference), (_, mine) = both(run_it)
    assert_close(mine, reference, uncancelled(run_it)[1])


@given(smooth_runs, st.booleans(), st.booleans(), st.sampled_from(SURROGATES))
def test_spikingjellys_gradients(run, detach, is_current, smooth):
    x, decays, states, threshold = case(run)
    decays = tuple(decay.to(x.dtype) for decay in decays)
    leaves = [x.requires_grad_(), *(d.requires_grad_() for d in (*decays, *states))]
    if is_current or run["scale"] & (run["scale"] - 1):
        leaves = [x, states[1]]  # the decays of the current are another operator's
    bias = bias_of(run)
    leaves += [] if bias is None else [bias.requires_grad_()]

    def run_it():
        fired = cuba_reset.fire_and_reset(
            x,
            decays,
            states,
            run["scale"],
            threshold,
            smooth,
            detach,
            is_current,
            not is_current,
            True,
            kernels.current_backend(),
            bias,
        )
        outputs = [fired.spike, fired.held, fired.last_held]
        if not is_current:
            outputs += [fired.current, fired.last_current]
        return gradients_of(outputs, leaves)

    (_, reference), (_, mine) = both(run_it)
    assert_close(mine, reference, uncancelled(run_it)[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e3, 1e4, 1e6, 1e9])  # voltages of 2^22 to 2^42 / scale
def test_the_decays_gradients_where_voltages_leave_24_bits(size, dtype):
    # Spikes far over their threshold, and voltages as far below it.
    x = numbers((2, 40, 20), 1, size, dtype).requires_grad_()
    decays = tuple(d.to(dtype) for d in decays_of("neuron", x.shape, (300, 100), dtype))
    states, leaves = (torch.zeros(1, dtype=dtype),) * 2, [x, *(d.requires_grad_() for d in decays)]

    def slayers():
        fired = cuba.fire(x, decays, states, 4096, 1.0, (size, size), False)
        return gradients_of([fired.spike], leaves)

    def spikingjellys():
        firing = 4096, size, surrogate.ATan(1 / size), False, False, True, True
        fired = cuba_reset.fire_and_reset(
            x, decays, states, *firing, kernels.current_backend(), None
        )
        return gradients_of([fired.spike, fired.held], leaves)

    for run_it in (slayers, spikingjellys):
        (_, reference), (_, mine) = both(run_it)
        assert all(grad.abs().max() > 0 for grad in reference)
        assert_close(mine, reference, uncancelled(run_it)[1])


@given(smooth_runs, st.booleans())
def test_the_leaky_integrators_gradients(run, own):
    x, (decay, _), (_, state), _ = case(run)
    decay = decay.to(x.dtype)
    leaves = [x.requires_grad_(), decay.requires_grad_()]
    if own:
        leaves.append(state.requires_grad_())

    def run_it():
        y = (
            leaky_integrator.leak(x, decay, state, run["scale"], kernels.current_backend())
            if own
            else leaky_integrator.dynamics(x, decay, state, run["scale"])
        )
        return gradients_of([y], leaves)

    (_, reference), (_, mine) = both(run_it)
    assert_close(mine, reference, uncancelled(run_it)[1])


@pytest.mark.parametrize(("shape", "order"), ALL_ORDERS)
@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
def test_every_instruction_set_and_number_of_threads_gives_the_same(
    shape, order, instructions, monkeypatch
):
    if instructions > len(native._native.instruction_sets()):
        pytest.skip("this CPU has not these instructions")
    x = laid_out(numbers(shape, 1, 1.0, torch.float32), order)
    decays, states = decays_of("neuron", shape, (400, 100)), (torch.zeros(1), torch.ones(1))

    def run_it():
        leaf = x.detach().requires_grad_()
        fired = cuba.fire(leaf, decays, states, 4096, 1.0, (2.0, 0.7), False)
        (grad,) = torch.autograd.grad((fired.spike * x).sum(), leaf)
        return *(part.detach() for part in fired), grad

    reference, _ = both(run_it)
    monkeypatch.setattr(native, "instructions", instructions)
    runs = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            runs.append(both(run_it)[1])
    finally:
        torch.set_num_threads(before)
    for run in runs:
        assert all(same(a, b) for a, b in zip(run[:-1], reference[:-1], strict=True))
        assert_close(run[-1:], reference[-1:])
        assert torch.equal(run[-1], runs[0][-1])


def test_many_threads_on_much_work_give_the_same():
    x = numbers((8, 16, 14, 14, 33), 1, 1.0, torch.float32)
    decays, states = (torch.tensor([400.0]), torch.tensor([100.0])), (torch.zeros(1),) * 2
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            for order in ((0, 1, 2, 3, 4), (4, 0, 1, 2, 3)):
                run = cuba.fire(laid_out(x, order), decays, states, 4096, 1.0, (1.0, 1.0), False)
                runs.append(run.spike)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(run, runs[0]) for run in runs)
    assert 0.01 < runs[0].mean() < 0.9


EXTREMES = [0.0, -0.0, 1e-30, 4095.9, 4096.0, 4096.1, -4096.5, 2.0**19, -(2.0**19), 2.0**40]
EXTREMES += [1e18, -1e18, 3e38, float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [64, 4096, 6400])
@pytest.mark.parametrize("decay", [0, 1, 1000, 4096])
def test_extreme_inputs_and_states(dtype, scale, decay):
    values = torch.tensor(EXTREMES, dtype=dtype)
    x = values.reshape(1, -1, 1).repeat(1, 1, 6)
    x[..., 3:] = x[..., 3:].flip(1)
    # The other neurons of a chunk are ordinary.
    x = torch.cat([x, torch.rand(1, 50, 6, dtype=dtype)], dim=1)
    decays = (torch.tensor([float(decay)]),) * 2
    for first in (0.0, 5000.0, 2.0**22):
        states = (torch.full((1,), first, dtype=dtype),) * 2
        reference, mine = both(
            lambda: cuba.fire(x, decays, states, scale, 1.0, (1.0, 1.0), True)  # noqa: B023
        )
        for name, ours, theirs in zip(cuba.Fired._fields, mine, reference, strict=True):
            assert same(ours, theirs), (name, first)


@pytest.mark.parametrize("value", [-5000.0, -1.0, 4097.0, 1e6])
def test_decays_that_are_no_fractions_are_computed_as_the_reference_does(value):
    x = numbers((2, 5, 9), 1, 1.0, torch.float32)
    decays, states = (torch.tensor([value]), torch.tensor([10.0])), (torch.zeros(1),) * 2
    reference, mine = both(lambda: cuba.fire(x, decays, states, 4096, 1.0, (1.0, 1.0), False))
    for ours, theirs in zip(mine, reference, strict=True):
        assert same(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    x = numbers((2, 5, 9), 1, 1.0, torch.float32).to(dtype)
    decays, states = (torch.tensor([900.0]), torch.tensor([10.0])), (torch.zeros(1),) * 2
    reference, mine = both(lambda: cuba.fire(x, decays, states, 4096, 1.0, (1.0, 1.0), True))
    whole = cuba.fire(x.float(), decays, states, 4096, 1.0, (1.0, 1.0), True)
    assert mine.spike.dtype == dtype
    assert torch.equal(mine.spike, reference.spike)
    assert torch.equal(mine.spike, whole.spike.to(dtype))
    assert torch.equal(mine.last_held, whole.last_held)


def test_views_with_gaps_and_repeats_are_read_as_they_are():
    x = numbers((3, 4, 8), 1, 1.0, torch.float32)
    decays, states = (torch.tensor([900.0]), torch.tensor([10.0])), (torch.zeros(1),) * 2
    whole = cuba.fire(x, decays, states, 4096, 1.0, (1.0, 1.0), False).spike
    for view in (spread(x), x.flip(0).flip(0), x[:, :, :], x.unsqueeze(2).expand(3, 4, 2, 8)):
        spike = cuba.fire(view, decays, states, 4096, 1.0, (1.0, 1.0), False).spike
        expected = whole if view.dim() == 3 else whole.unsqueeze(2).expand_as(view)
        assert torch.equal(spike, expected)
    leaf = x.clone().requires_grad_()
    cuba.fire(leaf, decays, states, 4096, 1.0, (1.0, 1.0), False).spike.sum().backward()
    expanded = leaf.grad.clone()
    leaf.grad = None
    spike = cuba.fire(leaf, decays, states, 4096, 1.0, (1.0, 1.0), False).spike
    spike.backward(torch.ones_like(spike))
    assert torch.equal(expanded, leaf.grad)


def test_nothing_is_stored_where_no_gradient_is_wanted():
    x = numbers((3, 4, 8), 1, 1.0, torch.float32)
    decays, states = (torch.tensor([900.0]), torch.tensor([10.0])), (torch.zeros(1),) * 2
    run = cuba.fire(x, decays, states, 4096, 1.0, (1.0, 1.0), False)
    assert [run.voltage.numel(), run.current.numel(), run.held.numel()] == [0, 0, 0]
    with torch.no_grad():
        run = cuba.fire(x.requires_grad_(), decays, states, 4096, 1.0, (1.0, 1.0), False)
    assert run.voltage.numel() == 0


def test_the_leak_is_differentiable_as_its_finite_differences_say():
    # The recurrence is a staircase; its gradient is that of the line through it. Over this scale
    # the steps of the states are too fine to be seen; those of the decay are ones.
    x = torch.randn(2, 3, 5, dtype=torch.float64).requires_grad_()
    decay = torch.tensor([1024.0], dtype=torch.float64).requires_grad_()
    state = torch.randn(2, 3, dtype=torch.float64).requires_grad_()

    def leak(x, decay, state):
        return leaky_integrator.leak(x, decay, state, 2**36, "native")

    of_states = {"eps": 1e-3, "rtol": 1e-3, "atol": 1e-3}
    assert torch.autograd.gradcheck(
        lambda x, h: leak(x, decay.detach(), h), (x, state), **of_states
    )
    of_decay = {"eps": 1.0, "rtol": 1e-3, "atol": 1e-6}
    assert torch.autograd.gradcheck(lambda d: leak(x.detach(), d, state), (decay,), **of_decay)


OPERATORS = torch.ops.lava_bridge


def test_the_operators_are_registered_as_torch_wants():
    x = numbers((2, 3, 7), 1, 1.0, torch.float32)
    decays = torch.tensor([900.0]), torch.tensor([10.0])
    states = torch.zeros(1), torch.zeros(1)
    bias = torch.rand(3)
    grads = [torch.rand_like(x) for _ in range(4)]
    last = [torch.rand(2, 3) for _ in range(2)]
    for backend, fixed in product(("native", "torch"), (None, bias)):
        leaf, parameters = x.clone().requires_grad_(), [d.clone().requires_grad_() for d in decays]
        learned = None if fixed is None else fixed.clone().requires_grad_()
        firing, held = (learned, 4096.0, 1.0), (fixed, 4096.0, 1.0)
        for op, args in (
            (OPERATORS.leaky_integrator, (leaf, parameters[0], states[0], 4096.0, None, False)),
            (OPERATORS.leaky_integrator, (leaf, parameters[0], states[0], 4096.0, 1.0, True)),
            (OPERATORS.leaky_integrator_backward, (x, x, decays[0], True)),
            (OPERATORS.leaky_integrator_backward, (x, x, decays[0], False)),
            (OPERATORS.cuba, (leaf, *parameters, *states, *firing, 2.0, 0.5, False, True, True)),
            (OPERATORS.cuba, (x, *decays, *states, *held, 2.0, 0.5, True, False, False)),
            (
                OPERATORS.cuba_backward,
                (x, x, *decays, states[0], *held, 2.0, 0.5, False, True, True, fixed is not None),
            ),
            (
                OPERATORS.cuba_reset,
                (leaf, *parameters, *states, *firing, False, False, True, True, True, 0, 0.0),
            ),
            (
                OPERATORS.cuba_reset,
                (leaf, *parameters, *states, *firing, False, False, True, True, True, 1, 4.0),
            ),
            (
                OPERATORS.cuba_reset_backward,
                (*grads, *last, x, *decays, *states, *held, False, False, True, True, 0, 0.0),
            ),
            (
                OPERATORS.cuba_reset_backward,
                (*grads, *last, x, *decays, *states, *held, False, False, True, True, 1, 4.0),
            ),
        ):
            torch.library.opcheck(op.default, (*args, backend))
