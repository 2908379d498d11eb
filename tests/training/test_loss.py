"""The losses are lava's to the last bit, their gradients within the bound."""

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge.errors import BridgeError
from lava_bridge.slayer import loss

from ..slayer.strategies import assert_close, in_other_memory, memory_orders

seeds = st.integers(0, 1000)
batches = st.integers(1, 3)
classes = st.sampled_from([(1,), (4,), (2, 1, 1), (2, 2, 1)])
times = st.integers(1, 12)
reductions = st.sampled_from(["sum", "mean"])
windows = st.sampled_from([None, 1, 3, 20])


def spikes(batch, shape, time, seed, order="contiguous"):
    generator = torch.Generator().manual_seed(seed)
    return in_other_memory(
        (torch.rand(batch, *shape, time, generator=generator) < 0.5).float(), order
    )


def assert_same_loss(mine, reference, x, *targets):
    results = []
    for function in (mine, reference):
        leaf = x.detach().clone().requires_grad_()
        value = function(leaf, *targets)
        value.backward()
        results.append((value.detach(), leaf.grad))
    (value, grad), (expected, expected_grad) = results
    assert value.dtype == expected.dtype
    assert torch.equal(value, expected)
    finite = torch.isfinite(expected_grad)  # lava's own is nan where a label is silent
    assert torch.equal(torch.isfinite(grad), finite)
    assert_close(grad[finite], expected_grad[finite], floor=1e-6)


@given(
    batches, classes, times, st.sampled_from([1, 5]), st.sampled_from([1, 30]), st.integers(0, 3),
    reductions, seeds, memory_orders,
)  # fmt: skip
def test_spike_time_is_lavas(
    lava, n, shape, time, constant, length, order, reduction, seed, memory
):
    mine, theirs = (w.SpikeTime(constant, length, order, reduction) for w in (loss, lava.loss))
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    assert torch.equal(mine.filter.filter, theirs.filter.filter)
    x, desired = spikes(n, shape, time, seed, memory), spikes(n, shape, time, seed + 1)
    assert_same_loss(mine, theirs, x, desired)


@given(batches, classes, times, windows, reductions, seeds, memory_orders)
def test_spike_rate_and_spike_max_are_lavas(lava, n, shape, time, window, reduction, seed, order):
    x = spikes(n, shape, time, seed, order)
    kinds = shape[0] * (shape[1] if len(shape) > 1 else 1)
    steps = () if window is None else (time,)
    label = torch.randint(kinds, (n, *steps), generator=torch.Generator().manual_seed(seed))
    mine, theirs = (w.SpikeRate(0.8, 0.1, window, reduction) for w in (loss, lava.loss))
    assert_same_loss(mine, theirs, x, label)
    for mode in ("probability", "softmax"):
        mine, theirs = (w.SpikeMax(window, mode, reduction) for w in (loss, lava.loss))
        assert_same_loss(mine, theirs, x, label)
        if window is not None:
            assert_same_loss(mine, theirs, x, label[:, 0])


@given(
    batches, classes, times, windows, reductions, st.sampled_from([1, 0.1]),
    st.sampled_from([0, 0.5]), seeds,
)  # fmt: skip
def test_spike_moid_is_lavas(lava, n, shape, time, window, reduction, alpha, theta, seed):
    x = spikes(n, shape, time, seed)
    mine, theirs = (w.SpikeMoid(window, reduction, alpha, theta) for w in (loss, lava.loss))
    label = spikes(n, shape, 1, seed + 1)[..., 0].flatten(1)
    assert_same_loss(mine, theirs, x, label)
    if window is not None:
        assert_same_loss(mine, theirs, x, spikes(n, shape, time, seed + 1).flatten(1, -2))


@pytest.mark.parametrize("window", [None, 3])
def test_the_losses_take_float64(window):
    x = spikes(2, (3,), 7, 0).double().requires_grad_()
    label = torch.tensor([0, 2])
    targets = torch.eye(3)[label]
    values = [
        loss.SpikeTime()(x, x.detach().roll(1, -1)),
        loss.SpikeRate(0.5, 0.1, window)(x, label),
        loss.SpikeMax(window, "softmax")(x, label),
        loss.SpikeMoid(window)(x, targets),
    ]
    for value in values:
        assert value.dtype == torch.float64
        x.grad = None
        value.backward(retain_graph=True)
        assert x.grad.abs().sum() > 0


@given(st.integers(1, 3), times, st.integers(1, 5), seeds)
def test_a_window_takes_one_label_for_each_sample(n, time, window, seed):
    """lava's SpikeRate can't replicate integers."""
    x = spikes(n, (4,), time, seed)
    label = torch.randint(4, (n,), generator=torch.Generator().manual_seed(seed))
    for function in (loss.SpikeRate(0.7, 0.2, window), loss.SpikeMax(window, "softmax")):
        assert torch.equal(function(x, label), function(x, label[:, None].expand(n, time)))


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_spike_moid_takes_integer_labels_and_those_of_places(window, dtype):
    x = spikes(2, (3, 1, 2), 7, 0)
    label = spikes(2, (3, 1, 2), 1, 1)[..., 0]
    function = loss.SpikeMoid(window)
    expected = function(x.flatten(1, -2), label.flatten(1))
    assert torch.equal(function(x, label.to(dtype)), expected)


@given(st.floats(0, 1), st.sampled_from([0.5, 1.0, 3.0]), seeds)
def test_sparsity_enforcer_is_lavas(lava, max_rate, lam, seed):
    leaf = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(seed))
    results = []
    for which in (loss, lava.loss):
        enforcer, x = which.SparsityEnforcer(max_rate, lam), leaf.clone().requires_grad_()
        enforcer.append(x)
        enforcer.append(2 * x)
        enforcer.loss.backward()
        results.append((enforcer.loss.detach(), x.grad))
    (mine, grad), (reference, expected) = results
    assert torch.equal(mine, reference)
    assert_close(grad, expected)


def test_a_sparsity_enforcer_without_events_is_a_zero_tensor():
    enforcer = loss.SparsityEnforcer()
    enforcer.append(torch.ones(3))
    enforcer.clear()
    assert torch.equal(enforcer.loss, torch.zeros(()))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: loss.SpikeRate(1.5, 0), "1.5 and 0"),
        (lambda: loss.SpikeRate(0.5, -0.1), "-0.1"),
        (lambda: loss.SpikeMax(mode="likely"), "'likely'.*'softmax'"),
        (lambda: loss.SpikeMoid(moving_window=0), "time_window is 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(wrong, says):
    with pytest.raises(BridgeError, match=says) as error:
        wrong()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2,), (2, 3, 4), (1, 3, 7), (2, 3, 1), ()])
def test_spike_time_takes_spikes_and_no_labels(shape):
    """torch would warn, and compare what it broadcasts."""
    with pytest.raises(BridgeError, match=r"SpikeTime: .* \(2, 3, 7\), found .*; labels are for"):
        loss.SpikeTime()(torch.zeros(2, 3, 7), torch.zeros(shape))
    assert loss.SpikeTime()(torch.zeros(2, 3, 7), torch.zeros(2, 3, 1, 1, 7)) == 0


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("make", [lambda w: loss.SpikeRate(0.5, 0.1, w), loss.SpikeMax])
def test_labels_are_integers_one_for_each_sample(make, window):
    x = spikes(3, (4,), 6, 0)
    function = make(window)
    label = torch.tensor([0, 3, 1])
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(function(x, label.to(dtype)), function(x, label))
    for wrong in (label.float(), label[:2], torch.eye(4)[:3]):
        with pytest.raises(BridgeError, match=r"loss\.Spike\w+: expected an integer .* 3 samples,"):
            function(x, wrong)


@pytest.mark.parametrize("name", ["SpikeRate", "SpikeMax"])
def test_one_sample_may_have_a_label_without_dimensions(lava, name):
    arguments = {"SpikeRate": (0.5, 0.1)}.get(name, ())
    x, label = spikes(1, (4,), 10, 3), torch.tensor(2)
    found = getattr(loss, name)(*arguments)(x, label)
    assert torch.equal(found, getattr(loss, name)(*arguments)(x, label.reshape(1)))
    if name == "SpikeRate":  # lava's others take none
        assert torch.equal(found, lava.loss.SpikeRate(*arguments)(x, label))
    with pytest.raises(BridgeError, match="expected an integer label for each of 2 samples"):
        getattr(loss, name)(*arguments)(spikes(2, (4,), 10, 3), label)
