"""A container's synapse keeps its hooks: pruning and weight norm are some, and make its weight."""

import copy
import os
import pickle
import threading

import pytest
import torch
import torch.nn as nn
from spikingjelly.activation_based import functional, monitor, neuron
from torch.nn.utils import parametrizations, prune, spectral_norm

from lava_bridge import ConversionError
from lava_bridge.exchange import BlockContainer, SumPool2d
from tests.conftest import traced_since

from .strategies import CubaLIFNode, spikes

X_SEQ = spikes((6, 3, 8), 1)


def container(bias=False):
    return BlockContainer(nn.Linear(8, 4, bias=bias), CubaLIFNode(1.0, 0.1, 0.3), "m")


def unhooked(pruned):
    """The container with the weight that the pruned one should have now."""
    synapse = pruned.synapse
    plain = nn.Linear(8, 4, bias=False)
    plain.weight.data = (synapse.weight_orig * synapse.weight_mask).detach().clone()
    return BlockContainer(plain, copy.deepcopy(pruned.neuron), "m")


@pytest.mark.parametrize("bias", [False, True])
def test_a_pruned_synapse_computes_with_the_weight_as_it_is_now(bias):
    pruned = container(bias)
    prune.l1_unstructured(pruned.synapse, "weight", 0.5)
    before = pruned(X_SEQ)
    functional.reset_net(pruned)
    with torch.no_grad():
        pruned.synapse.weight_orig.mul_(3)
    y = pruned(X_SEQ)
    assert not torch.equal(y, before)
    functional.reset_net(pruned)
    assert torch.equal(unhooked(pruned)(X_SEQ), y)


def test_a_state_dict_reaches_a_pruned_synapse():
    saved, loaded = container(), container()
    for made in (saved, loaded):
        prune.l1_unstructured(made.synapse, "weight", 0.5)
    saved.synapse.weight_orig.data.normal_()
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded(X_SEQ), saved(X_SEQ))


@pytest.mark.parametrize(
    "hooked",
    [
        lambda synapse: prune.l1_unstructured(synapse, "weight", 0.5),
        spectral_norm,
        parametrizations.weight_norm,
    ],
    ids=["pruned", "spectral norm", "weight norm"],
)
def test_a_hooked_synapse_is_trained_for_several_steps(hooked):
    made = container()
    hooked(made.synapse)
    before = [p.detach().clone() for p in made.synapse.parameters()]
    optimiser = torch.optim.SGD(made.parameters(), 0.1)
    for _ in range(3):
        functional.reset_net(made)
        optimiser.zero_grad()
        (made(X_SEQ) - 1).pow(2).sum().backward()
        optimiser.step()
    assert any(
        not torch.equal(p, b) for p, b in zip(made.synapse.parameters(), before, strict=True)
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda bias: nn.Linear(4, 3, bias=bias), (4,)),
        (lambda bias: nn.Conv2d(4, 3, 1, bias=bias), (4, 2, 2)),
        (lambda bias: nn.Upsample(scale_factor=2), (4, 2, 2)),
        (lambda bias: SumPool2d(2), (4, 2, 2)),
    ],
    ids=["linear", "conv", "upsample", "pool"],
)
def test_hooks_and_monitors_see_what_the_synapse_gives_and_change_nothing(make, shape, bias):
    layer = make(bias)
    made = BlockContainer(layer, neuron.IFNode(), "m")
    x_seq = spikes((5, 2, *shape), 2)
    expected = made(x_seq)
    functional.reset_net(made)
    seen = monitor.OutputMonitor(made, type(layer))
    assert torch.equal(made(x_seq), expected)
    (given,) = seen.records
    functional.reset_net(made)
    z = given.unflatten(0, (5, 2))
    assert torch.equal(made.neuron(z), expected)
    assert "forward" not in vars(made.synapse)


def test_a_hook_may_change_what_the_neuron_gets():
    made = container()
    made.synapse.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    assert not made(X_SEQ).any()


def test_a_hook_that_raises_leaves_the_synapse_as_it_was():
    made = container()

    def stop(*args):
        raise KeyError("stopped")

    handle = made.synapse.register_forward_pre_hook(stop)
    with pytest.raises(KeyError, match="stopped"):
        made(X_SEQ)
    handle.remove()
    assert "forward" not in vars(made.synapse)
    assert made(X_SEQ).any()


@pytest.mark.parametrize(
    "computed",
    [lambda s: prune.l1_unstructured(s, "weight", 0.5), parametrizations.weight_norm],
    ids=["pruned", "parametrized"],
)
def test_its_block_is_made_when_the_weight_is_permanent(computed):
    made = container()
    computed(made.synapse)
    for convert in (made.to_lava_block, lambda: BlockContainer(made.synapse, made.neuron)):
        with pytest.raises(ConversionError, match=r"parametrize\.remove") as error:
            convert()
        assert "computes its weight in a hook" in str(error.value)
        assert "\n" not in str(error.value)


@traced_since("2.13")  # a forward that is set and taken back
def test_a_pruned_container_compiles():
    made = container()
    prune.l1_unstructured(made.synapse, "weight", 0.5)
    expected = made(X_SEQ)
    functional.reset_net(made)
    assert torch.equal(torch.compile(made, backend="aot_eager", fullgraph=True)(X_SEQ), expected)


def test_a_pruned_container_runs_in_several_threads_at_once():
    pruned, failed = container(), []
    prune.l1_unstructured(pruned.synapse, "weight", 0.5)
    expected = pruned._called(X_SEQ[0])

    def calls():
        try:
            for _ in range(400):
                if not torch.equal(pruned._called(X_SEQ[0]), expected):
                    failed.append("computed what its synapse does")
        except Exception as error:
            failed.append(repr(error))

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_that_is_forked_while_a_thread_calls_a_container_can_call_it():
    pruned, entered, leave = container(), threading.Event(), threading.Event()

    def hook(*_):
        entered.set()
        leave.wait(60)

    handle = pruned.synapse.register_forward_pre_hook(hook)
    thread = threading.Thread(target=pruned._called, args=(X_SEQ[0],))
    thread.start()
    assert entered.wait(60)
    handle.remove()
    child = os.fork()
    if not child:
        threading.Timer(30, os._exit, (3,)).start()  # it waits for a lock that nobody holds
        pruned.synapse.register_forward_pre_hook(lambda *_: None)
        pruned._called(X_SEQ[0])
        os._exit(0)
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_a_hook_may_wait_for_another_container_in_another_thread():
    first, second = container(), container()
    second.synapse.register_forward_pre_hook(lambda *_: None)

    def hook(*_):
        other = threading.Thread(target=second._called, args=(X_SEQ[0],))
        other.start()
        other.join(30)
        assert not other.is_alive()

    first.synapse.register_forward_pre_hook(hook)
    first._called(X_SEQ[0])
    assert pickle.loads(pickle.dumps(copy.deepcopy(container())))
