"""What training code does with modules and their gradients: torch's tools see what they should."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

import lava_bridge
from lava_bridge import slayer
from lava_bridge.slayer.axon import Delay

from ..conftest import traced_since
from .cases import CASES, FAMILIES, FAMILY_CASES, Case, in_family
from .strategies import assert_close

# Torch has no rule for vmap over an operator: it takes one slice after the other, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")

ALL = {**CASES, **FAMILY_CASES}
# Those with a state that goes on: a second run of the same forward is another one.
ONCE = [name for name, case in ALL.items() if case.block not in ("KWTA", "Recurrent")]
DENSE = Case("Dense", (6,), {"in_neurons": 6, "out_neurons": 4, "weight_scale": 3})
NEURONS = {"cuba": DENSE, **{name: in_family(DENSE, name) for name in FAMILIES}}
LEARNED = {
    name: Case(case.block, case.shape, case.options, {**case.neuron, "requires_grad": True}, name)
    for name, case in NEURONS.items()
    if case.neuron is not None
}


def ready(case: Case) -> tuple[torch.nn.Module, Tensor, Tensor]:
    """A block whose channels are drawn, in evaluation; its input, and weights for a loss."""
    x = case.input(1, batch=3)
    block, y = case.built_and_run(slayer, 3, x)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    return block.eval(), x, weight


def gradients(block: torch.nn.Module, x: Tensor, weight: Tensor, run: Any = None) -> list[Any]:
    """Output, and gradients of input and parameters, of ``run`` or the block itself."""
    block.zero_grad()
    x = x.clone().requires_grad_()
    y = (run or block)(x)
    if y.requires_grad:
        (y * weight).sum().backward()
    return [y.detach(), x.grad, *(parameter.grad for parameter in block.parameters())]


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ONCE)
def test_gradient_checkpoints_give_the_gradients(name, reentrant):
    block, x, weight = ready(ALL[name])
    expected = copy.deepcopy(gradients(block, x, weight))

    def again(x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=reentrant)

    assert_same(gradients(block, x, weight, again), expected)


@pytest.mark.parametrize("cum_error", [False, True])
def test_a_checkpoint_over_a_delta_that_learns_its_threshold(cum_error):
    delta, x = slayer.axon.Delta(0.1, requires_grad=True, cum_error=cum_error), torch.randn(2, 3, 8)
    weight = torch.randn(2, 3, 8)
    expected = copy.deepcopy(gradients(delta, x, weight))
    again = gradients(delta, x, weight, lambda x: checkpoint(delta, x, use_reentrant=False))
    assert_same(again, expected)


@pytest.mark.parametrize("name", ONCE)
def test_torch_func_gives_autograds_gradients(name):
    block, x, weight = ready(ALL[name])
    expected = gradients(block, x, weight)[2:]
    parameters = {name: p.detach() for name, p in block.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, weight: Tensor) -> Tensor:
        return (functional_call(block, parameters, (x,)) * weight).sum()

    found = grad(loss)(parameters, x, weight)
    for name, theirs in zip(parameters, expected, strict=True):
        if theirs is not None:
            assert_close(found[name], theirs, floor=1e-5)


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("family", LEARNED)
def test_gradients_of_each_sample_are_those_of_a_batch_of_one(family, backend):
    block, x, weight = ready(LEARNED[family])
    parameters = {name: p.detach() for name, p in block.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, weight: Tensor) -> Tensor:
        return (functional_call(block, parameters, (x[None],))[0] * weight).sum()

    with lava_bridge.use_backend(backend):
        found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, weight)
        for n in range(len(x)):
            alone = gradients(block, x[n : n + 1], weight[n : n + 1])[2:]
            for name, theirs in zip(parameters, alone, strict=True):
                if theirs is not None:  # an adaptive threshold's decays have none
                    assert_close(found[name][n], theirs, floor=1e-5)


def test_a_forward_under_vmap_is_the_batchs():
    block, x, _ = ready(DENSE)
    assert torch.equal(vmap(lambda sample: block(sample[None])[0])(x), block(x))


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("family", [family for family in NEURONS if family != "sigma_delta"])
def test_a_gradient_of_a_gradient_is_refused(family, backend):
    # of the surrogate, which bends: it would be wrong without the derivative of its slope
    block, x, weight = ready(NEURONS[family])
    x.requires_grad_()
    with lava_bridge.use_backend(backend):
        (slope,) = torch.autograd.grad((block(x) * weight).sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="no gradient of a gradient"):
            slope.square().sum().backward()


def test_a_gradient_of_sigma_deltas_gradient_is_right():
    # which is linear between the kinks of its activation
    block, x, weight = ready(NEURONS["sigma_delta"])
    x.requires_grad_()
    (slope,) = torch.autograd.grad((block(x) * weight).sum(), x, create_graph=True)
    (found,) = torch.autograd.grad(slope.square().sum(), block.synapse.weight)
    by_dendrite = torch.autograd.grad(
        (block.neuron(z := block.synapse(x)) * weight).sum(), z, retain_graph=True
    )[0]
    matrix = block.synapse.hooked_weight()[:, :, 0, 0, 0].detach()
    slope_of_x = torch.einsum("oi,not->nit", matrix, by_dendrite)
    wanted = 2 * torch.einsum("not,nit->oi", by_dendrite, slope_of_x)
    assert torch.allclose(found[:, :, 0, 0, 0], wanted, rtol=1e-5, atol=1e-6)


@traced_since("2.8")
@pytest.mark.parametrize("family", LEARNED)
def test_jit_trace_follows_a_block_with_learned_decays(family):
    block, x, _ = ready(LEARNED[family])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(block, (x,), check_trace=False)
    other = NEURONS[family].input(2, batch=3)
    assert torch.equal(traced(other), block(other))


@pytest.mark.parametrize("name", ALL)
def test_a_block_may_be_made_and_run_in_inference_mode(name):
    case = ALL[name]
    with torch.inference_mode():
        _, found = case.built_and_run(slayer, 3, case.input(1))
    _, expected = case.built_and_run(slayer, 3, case.input(1))
    assert torch.equal(found, expected)


def test_the_steps_that_wait_in_a_delay_follow_it_to_another_dtype():
    delay = Delay(max_delay=3).double()
    delay.persistent_state = True
    x = torch.rand(2, 3, 8, dtype=torch.float64)
    delay(x)
    y = delay.float()(x.float())
    assert y.dtype == torch.float32


@pytest.mark.parametrize("block", ["KWTA", "Recurrent"])
def test_blocks_that_are_fed_back_say_what_lavas_say_of_themselves(lava, block):
    case = CASES[block]
    ours, theirs = case.build(slayer), case.build(lava)
    for name in ("persistent_state", "requires_grad", "num_neurons"):
        assert getattr(ours, name) == getattr(theirs, name)
