"""Each fault of lava-dl's blocks that is known: here the right thing happens."""

import copy

import pytest
import torch
from hypothesis import given

from lava_bridge import slayer
from lava_bridge.errors import BridgeError

from .cases import CASES, Case
from .files import assert_same_file, exported
from .strategies import assert_close, blocks_neuron, gradients, seeds

block_names = [name for name in dir(slayer.block.cuba) if name[0].isupper()]
KNOWN_FROM_THE_START = ["Dense", "Affine", "KWTA", "Recurrent", "Average"]


def test_every_block_is_among_the_cases():
    assert {case.block for case in CASES.values()} == set(block_names) - {"AbstractCuba"}


@pytest.mark.parametrize("name", CASES)
def test_a_block_that_has_not_run_exports_what_it_exports_after_a_forward(name):
    case = CASES[name]
    torch.manual_seed(1)
    fresh = case.build(slayer)
    if case.block not in KNOWN_FROM_THE_START:
        with pytest.raises(BridgeError, match="infer_shape"):
            exported(fresh)
        fresh.infer_shape(case.shape)
    before = exported(fresh)
    if "norm" in (case.neuron or {}):
        assert before["layer/0/bias"][1] == (fresh.shape[0],)
    if case.options.get("delay"):
        assert before["layer/0/delay"][1] == (fresh.shape[0],)
    torch.manual_seed(1)
    ran = case.build(slayer).eval()  # a norm's statistics stay
    ran(case.input(1))
    assert_same_file(before, exported(ran))


@pytest.mark.parametrize("name", CASES)
def test_a_block_exports_after_load_state_dict_what_the_trained_one_does(name):
    case = CASES[name]
    trained, _ = case.built_and_run(slayer, 1, case.input(1))
    torch.manual_seed(2)
    fresh = case.build(slayer)
    fresh.load_state_dict(trained.state_dict(), strict=True)
    if case.block not in KNOWN_FROM_THE_START:
        fresh.infer_shape(case.shape)
    assert_same_file(exported(fresh), exported(trained))


@pytest.mark.parametrize("name", CASES)
def test_count_log_gives_the_mean_rate_of_events_or_none_without_a_neuron(name):
    case = CASES[name]
    _, plain = case.built_and_run(slayer, 1, case.input(1))
    _, (y, rate) = case.but(count_log=True).built_and_run(slayer, 1, case.input(1))
    assert torch.equal(y, plain)
    if case.block in ("Affine", "Flatten", "Average", "TimeDecimation"):
        assert rate is None
        return
    assert rate.dtype == torch.float32
    assert rate.item() == pytest.approx((y > 0).sum().item() / y.numel())
    assert 0 < rate < 1


@given(seed=seeds)
def test_kwta_trains(seed):
    case = Case("KWTA", (6,), CASES["KWTA"].options, {"tau_grad": 0.01})
    torch.manual_seed(seed)
    grad_x, grads = gradients(case.build(slayer), case.input(seed), seed + 1)
    assert grad_x.abs().max() > 0
    assert grads["synapse.weight"].abs().max() > 0
    assert torch.isfinite(grads["self_excitation"]).all()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.neuron is not None])
def test_the_callers_neuron_params_stay_as_they_were(name):
    case = CASES[name]
    params = blocks_neuron(slayer, norm="MeanOnlyBatchNorm", persistent_state=False)
    before = copy.copy(params)
    block = getattr(slayer.block.cuba, case.block)(neuron_params=params, **case.options)
    block(case.input(1))
    assert params == before
    assert params.keys() == before.keys()


def test_one_dict_of_neuron_params_makes_all_blocks_of_a_net():
    params = blocks_neuron(slayer, norm="MeanOnlyBatchNorm")
    slayer.block.cuba.Pool(params, 2)
    slayer.block.cuba.Recurrent(params, 3, 3)
    dense = slayer.block.cuba.Dense(params, 3, 3)
    assert isinstance(dense.neuron.norm, slayer.neuron.norm.MeanOnlyBatchNorm)
    assert dense.neuron.persistent_state is False


@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize("name", ["Dense", "Affine"])
@given(seed=seeds)
def test_a_mask_acts_in_the_forward_and_never_changes_the_weights(lava, name, weight_norm, seed):
    case = CASES[name]
    outputs = case.options["out_neurons"]
    mask = torch.rand(outputs, 6, generator=torch.Generator().manual_seed(seed)) < 0.5
    case = case.but(mask=mask, weight_norm=weight_norm)
    x = case.input(seed)
    torch.manual_seed(seed)
    ours = case.build(slayer)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    y = ours(x)
    y.sum().backward()
    for key, value in ours.state_dict().items():
        assert torch.equal(value, before[key]), key
    # lava's block with weights that are masked already; with weight norm its own mask is undone
    torch.manual_seed(seed)
    theirs = case.but(weight_norm=False, mask=None).build(lava)
    theirs.synapse.weight.data = (ours.synapse.weight * ours.mask).detach()
    assert torch.equal(y, theirs(x))


def test_the_gradient_of_masked_weights_is_zero(lava):
    mask = torch.eye(4, 6, dtype=torch.bool)
    case = Case("Dense", (6,), {**CASES["Dense"].options, "mask": mask}, {"tau_grad": 0.01})
    block, _ = case.built_and_run(slayer, 1, case.input(1))
    _, grads = gradients(block, case.input(2), 3)
    masked = grads["synapse.weight"][..., 0, 0, 0]
    assert (masked[~mask] == 0).all()
    assert (masked[mask] != 0).any()


def test_a_block_with_persistent_state_trains():
    # lava writes into a view here, which raises
    case = Case("Dense", (6,), CASES["Dense"].options, {"persistent_state": True})
    stateless = Case("Dense", (6,), CASES["Dense"].options)
    x = case.input(1)
    torch.manual_seed(1)
    grad_x, grads = gradients(case.build(slayer), x, 2)
    torch.manual_seed(1)
    reference_x, reference = gradients(stateless.build(slayer), x, 2)
    assert_close(grad_x, reference_x)
    assert_close(grads["synapse.weight"], reference["synapse.weight"])


def test_a_recurrent_blocks_weight_norm_follows_its_parameters():
    # lava computes the feedback's weights once, when it is built
    case = CASES["Recurrent"].but(weight_norm=True)
    x = case.input(1)
    torch.manual_seed(1)
    normed, plain = case.build(slayer), case.build(slayer)
    for synapse in (normed.input_synapse, normed.recurrent_synapse):
        synapse.weight_g.data *= 1.7
    plain.load_state_dict(normed.state_dict())
    for synapse in (plain.input_synapse, plain.recurrent_synapse):
        synapse.disable_weight_norm()
    y = normed(x)
    assert torch.equal(y, plain(x))
    normed.recurrent_synapse.weight_g.data *= -1
    assert not torch.equal(normed(case.input(1, batch=3)), plain(case.input(1, batch=3)))
    _, grads = gradients(normed, case.input(2), 3)
    assert grads["recurrent_synapse.weight_g"].abs().max() > 0
    normed(x).sum().backward()


def test_flatten_takes_a_row():
    x = CASES["Dense"].input(1)
    flatten = slayer.block.cuba.Flatten()
    assert torch.equal(flatten(x), x)
    assert flatten.shape == [6, 1, 1]


@pytest.mark.parametrize("dynamics", [True, False])
def test_affine_takes_height_and_width(dynamics):
    torch.manual_seed(1)
    affine = slayer.block.cuba.Affine(blocks_neuron(slayer), (4, 3, 2), 5, dynamics=dynamics)
    x = Case("Affine", (2, 3, 4)).input(1)
    y = affine(x)
    assert y.shape == (2, 5, 1, 1, 8)
    weight = affine.neuron.quantize_8bit(affine.synapse.weight)[..., 0]
    z = torch.einsum("nchwt,ochw->not", x, weight)
    reference = affine.neuron.dynamics(z[:, :, None, None])[1][:, :, 0, 0] if dynamics else z
    assert torch.equal(y[:, :, 0, 0], reference)


def test_an_affine_neuron_draws_its_decays_per_channel():
    case = Case("Affine", (6,), CASES["Affine"].options, CASES["Recurrent per channel"].neuron)
    block, _ = case.built_and_run(slayer, 1, case.input(1))
    assert block.neuron.current_decay.unique().numel() == 3
