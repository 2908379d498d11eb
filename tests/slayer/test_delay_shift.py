"""The step between layers: the neuron's own operator delays, where nobody is to see before."""

import copy
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from lava_bridge import kernels, slayer
from lava_bridge.ops import shift

from .cases import CASES, FAMILY_CASES, FEED_FORWARD, feed_forward
from .strategies import (
    FIRING,
    NORMS,
    RESONATORS,
    SPIKING,
    analog,
    blocks_neuron,
    brief,
    drive,
    in_other_memory,
    memory_orders,
    on_each_part,
    seeds,
)

DELAYING = ("cuba", *SPIKING)
every_family = pytest.mark.parametrize("name", DELAYING)
BLOCKS = {
    name: case
    for name, case in {**CASES, **FAMILY_CASES}.items()
    if case.block in ("Input", *FEED_FORWARD) and case.neuron is not None
}


class Operators(TorchDispatchMode):
    """Notes the names of this library's operators that run."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "lava_bridge":
            self.seen.add(func._schema.name.removeprefix("lava_bridge::"))
        return func(*args, **(kwargs or {}))


def neuron_of(name, dropout=None, **changes):
    """A neuron that fires; its dropout is of single spikes, which has to come before a delay."""
    params = blocks_neuron(slayer, family=name, **changes)
    params["dropout"] = None if dropout is None else torch.nn.Dropout(dropout)
    return getattr(slayer.neuron, name).Neuron(**params)


def outcome(run, neuron, x, seed):
    """What ``run`` gives for ``x``, its gradients for ``x`` and the neuron, and what goes on."""
    torch.manual_seed(seed)
    x = on_each_part(lambda part: part.detach().requires_grad_(), x)
    y = run(x)
    leaves = [*(x if isinstance(x, tuple) else (x,)), *neuron.parameters()]
    leaves = [leaf for leaf in leaves if leaf.requires_grad]
    weight = analog(tuple(y.shape), seed, 1).to(y.dtype)
    grads = torch.autograd.grad(y, leaves, weight, allow_unused=True)
    return [y.detach(), *grads, *neuron.buffers()]


def assert_same(mine, expected):
    for one, other in zip(mine, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


settings_of_a_neuron = st.fixed_dictionaries(
    {
        "graded_spike": st.booleans(),
        "requires_grad": st.booleans(),
        "persistent_state": st.booleans(),
        "norm": st.sampled_from([None, None, *NORMS]),
        "dropout": st.sampled_from([None, None, 0.3]),
        "scale": st.sampled_from([64, 64, 100]),
    }
)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@every_family
@given(
    settings=settings_of_a_neuron,
    dtype=st.sampled_from(DTYPES),
    shape=st.sampled_from([(0, 3, 5), (1, 1, 1), (2, 3, 1), (2, 3, 9), (2, 3, 2, 4, 33)]),
    order=memory_orders,
    backend=st.sampled_from(["native", "torch"]),
    seed=seeds,
)
def test_a_neurons_delayed_spikes_are_its_shifted_ones_to_the_bit(
    name, settings, dtype, shape, order, backend, seed
):
    if dtype.itemsize == 2 or shape[0] == 0:  # which norm and dropout don't take
        settings = {**settings, "norm": None, "dropout": None}
    neuron = neuron_of(name, **settings)
    twin = copy.deepcopy(neuron)
    with kernels.use_backend(backend):
        for k in range(2):
            x = on_each_part(
                lambda part: in_other_memory(part.to(dtype), order),
                drive(name, shape, seed + 2 * k, 1.0),
            )
            mine = outcome(neuron.delayed, neuron, x, seed)
            assert_same(mine, outcome(lambda x: shift(twin(x), 1), twin, x, seed))


@every_family
@brief
@given(low=st.floats(0.05, 0.2), high=st.floats(0.3, 0.9), seed=seeds)
def test_a_decay_for_each_channel_is_learned_from_delayed_spikes(name, low, high, seed):
    ranges = {"shared_param": False, "requires_grad": True}
    if name in RESONATORS:
        ranges |= {"period": (5, 20), "decay": (low, high)}
    else:
        ranges |= {"current_decay": (low, high), "voltage_decay": (low, high)}
    torch.manual_seed(seed)
    neuron = neuron_of(name, **ranges)
    x = drive(name, (2, 3, 9), seed, 1.0)
    neuron(x)
    twin = copy.deepcopy(neuron)
    mine = outcome(neuron.delayed, neuron, x, seed)
    assert_same(mine, outcome(lambda x: shift(twin(x), 1), twin, x, seed))
    learned = neuron.sin_decay if name in RESONATORS else neuron.current_decay
    assert learned.numel() == 3


def bias_of(neuron):
    neuron.norm = slayer.neuron.norm.ChannelBias(scale=neuron.w_scale)
    neuron.norm.value.data.fill_(0.2)
    return neuron


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_bias_is_learned_from_delayed_spikes(backend):
    neuron = bias_of(neuron_of("cuba", requires_grad=True))
    twin = copy.deepcopy(neuron)
    x = analog((2, 3, 9), 0, 1.0)
    with kernels.use_backend(backend), Operators() as operators:
        mine = outcome(neuron.delayed, neuron, x, 0)
    with kernels.use_backend(backend):
        assert_same(mine, outcome(lambda x: shift(twin(x), 1), twin, x, 0))
    assert "shift" not in operators.seen


def test_a_sigma_delta_neurons_delayed_messages_are_its_shifted_ones():
    neuron = neuron_of("sigma_delta")
    x = analog((2, 3, 9), 0, 1.0)
    assert torch.equal(neuron.delayed(x), shift(neuron(x), 1))


# Who is to see the spikes before they are delayed -----------------------------------------------


@contextmanager
def hook(neuron, seen):
    with neuron.register_forward_hook(lambda m, i, output: seen.append(output)):
        yield


@contextmanager
def hook_on_every_module(neuron, seen):
    def note(module, inputs, output):
        if module is neuron:
            seen.append(output)

    with register_module_forward_hook(note):
        yield


@contextmanager
def own_forward(neuron, seen):
    forward = neuron.forward

    def noting(input):
        seen.append(forward(input))
        return seen[-1]

    neuron.forward = noting
    yield
    del neuron.forward


WATCHERS = (hook, hook_on_every_module, own_forward)


def dense(name, **changes):
    params = blocks_neuron(slayer, family=name, **changes)
    return getattr(slayer.block, name).Dense(params, 6, 4, weight_scale=3)


@every_family
def test_a_block_shifts_nothing_where_nobody_is_to_see_the_spikes_before(name):
    block = dense(name, requires_grad=True)
    with Operators() as operators:
        block(CASES["Dense"].input(0)).sum().backward()
    assert operators.seen
    assert "shift" not in operators.seen


@every_family
@pytest.mark.parametrize("watcher", WATCHERS)
def test_who_watches_a_blocks_neuron_sees_its_spikes_before_they_are_delayed(name, watcher):
    block, x, seen = dense(name), CASES["Dense"].input(0), []
    expected = block(x)
    with watcher(block.neuron, seen):
        watched = block(x)
    spikes = block.neuron(block.synapse(x))
    assert torch.equal(watched, expected)
    assert [torch.equal(each, spikes) for each in seen] == [True]
    assert expected.any()
    assert torch.equal(expected, shift(spikes, 1))


@every_family
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # it looks into no pair
def test_a_gradients_hook_on_a_blocks_neuron_sees_that_of_the_spikes_before_they_are_delayed(name):
    block, x, seen = dense(name), CASES["Dense"].input(0).requires_grad_(), []
    y = block(x)
    weight = analog(tuple(y.shape), 0, 1)
    with block.neuron.register_full_backward_hook(lambda m, into, out: seen.append(out[0])):
        block(x).backward(weight)
    assert torch.equal(seen[0], shift(weight, -1))


def test_a_neurons_own_forward_is_what_a_block_delays():
    class Negative(slayer.neuron.cuba.Neuron):
        def forward(self, input):
            return -super().forward(input)

    block = dense("cuba")
    x = CASES["Dense"].input(0)
    expected = -block(x)
    block.neuron = Negative(**FIRING["cuba"])
    assert torch.equal(block(x), expected)
    block.neuron = torch.nn.ReLU()
    assert torch.equal(block(x), shift(block.synapse(x).relu(), 1))


# Blocks -----------------------------------------------------------------------------------------


def assert_alike_while_watched(case, x, seed, shift_of_the_block=True):
    """A block's forwards and gradients are those of one whose neuron somebody watches."""
    torch.manual_seed(seed)
    block = case.build(slayer)
    block.delay_shift = shift_of_the_block
    twin, seen = copy.deepcopy(block), []
    twin.neuron.register_forward_hook(lambda m, i, output: seen.append(output))
    found = []
    for each in (block, twin):
        found.append([])
        for part in x:
            found[-1] += outcome(lambda x, each=each: each(x), each, part, seed)
            found[-1].append(each.delay_buffer)
    assert_same(*found)
    return seen


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_gives_the_same_whether_or_not_its_neuron_is_watched(name):
    case = BLOCKS[name]
    assert len(assert_alike_while_watched(case, [case.input(0)], 0)) == (
        0 if name == "sigma_delta Input" else 1
    )


@given(feed_forward(), st.lists(st.integers(1, 6), min_size=1, max_size=3), st.booleans(), seeds)
def test_a_feed_forward_block_gives_the_same_whether_or_not_its_neuron_is_watched(
    case, parts, persistent, seed
):
    case = case.of_neuron(persistent_state=persistent)
    x = case.input(seed, 2, sum(parts)).split(parts, dim=-1)
    assert_alike_while_watched(case, x, seed, case.options["delay_shift"])


def test_a_blocks_event_rate_is_that_of_the_delayed_spikes():
    block = dense("cuba")
    block.count_log = True
    spikes, rate = block(CASES["Dense"].input(0))
    assert rate == (spikes != 0).float().mean() > 0


def test_a_spike_waits_while_the_state_is_persistent_and_no_longer():
    block, x = dense("cuba"), CASES["Dense"].input(0)
    for persistent in (False, True, True, False):
        block.neuron.persistent_state = persistent
        waiting = block.delay_buffer
        y = block(x)
        assert (block.delay_buffer is not None) is persistent
        first = torch.zeros_like(y[..., 0]) if waiting is None or not persistent else waiting
        assert torch.equal(y[..., 0], first)
