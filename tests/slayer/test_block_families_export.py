"""Files and checkpoints of the other families are lava's, where lava writes any."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import assume, given, strategies as st

from lava_bridge import slayer
from lava_bridge.errors import BridgeError

from .cases import FAMILIES, FAMILY_CASES, Case, in_family, running, trained_pair
from .files import assert_same_file, exported
from .strategies import FIRING, RESONATORS, assert_same_state_dict, blocks_neuron, brief, seeds
from .test_block_families import _transposed_convolution_of_adrf_iz, blocks  # noqa: F401

KNOWN_FROM_THE_START = ("Dense", "Affine", "KWTA", "Recurrent", "Output")
FED_BACK = ("KWTA", "Recurrent")


def runs_in_lava(case):
    """Whether lava's block takes an input, once what :func:`.cases.running` knows is repaired."""
    return case.family not in RESONATORS or case.block not in ("Input", "Affine", *FED_BACK)


every_case = pytest.mark.parametrize("name", FAMILY_CASES)
in_lava = pytest.mark.parametrize("name", [n for n, c in FAMILY_CASES.items() if runs_in_lava(c)])
of_resonators = pytest.mark.parametrize("family", RESONATORS)


def without_norms(file):
    """The file without the norms of a complex neuron, which lava leaves out."""
    parts = ("bias_real", "bias_imag", "neuron/weight_exp_real", "neuron/weight_exp_imag")
    return {path: value for path, value in file.items() if not path.endswith(parts)}


def assert_file_is_lavas(ours, theirs, case):
    mine, reference = exported(ours), exported(theirs)
    if case.family in RESONATORS:
        norms = mine.keys() - without_norms(mine).keys()
        assert bool(norms) == (ours.neuron.real_norm is not None)
        for path in norms:
            assert_norm_is_written(theirs.neuron, path, mine[path])
        mine = without_norms(mine)
    assert_same_file(mine, reference)


def assert_norm_is_written(neuron, path, dataset):
    """A part's bias or exponent is what lava's norm of that part has."""
    norm = neuron.real_norm if path.endswith("real") else neuron.imag_norm
    expected = norm.weight_exp if "weight_exp" in path else norm.bias.flatten()
    assert np.array_equal(dataset[2], expected.cpu().numpy())


def written_by_lava(case):
    """Whether lava writes a file: none for KWTA, none with a sigma-delta threshold per channel."""
    per_channel = not case.neuron.get("shared_param", True)
    return runs_in_lava(case) and case.block != "KWTA" and not (per_channel and is_delta(case))


def is_delta(case):
    return case.family == "sigma_delta"


@pytest.mark.parametrize("name", [n for n, c in FAMILY_CASES.items() if written_by_lava(c)])
def test_a_blocks_file_is_lavas(lava, name):
    case = FAMILY_CASES[name]
    ours, theirs = trained_pair(case, lava, 3)
    if case.options.get("delay"):
        delays = 40 * torch.rand(ours.delay.delay.shape)
        for block in (ours, theirs):
            block.delay.delay.data = delays.clone()
    assert_file_is_lavas(ours, theirs, case)
    assert ("layer/0/delay" in exported(ours)) == case.options.get("delay", False)


@pytest.mark.parametrize("family", FAMILIES)
@brief
@given(data=st.data(), seed=seeds)
def test_a_feed_forward_blocks_file_is_lavas_with_any_options(lava, family, data, seed):
    case = data.draw(blocks(family))
    if not isinstance(case.options.get("in_neurons", 1), int):  # lava writes only a row
        options = {"in_features": case.shape[0], "out_features": 2, "kernel_size": 2}
        case = Case("Conv", case.shape, options, case.neuron, family)
    assume(written_by_lava(case))
    ours, theirs = trained_pair(case, lava, seed)
    assert_file_is_lavas(ours, theirs, case)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=5))
def test_a_sigma_delta_threshold_of_each_channel_is_written(mantissas):
    case = Case(
        "Dense", (3,), {"in_neurons": 3, "out_neurons": len(mantissas)}, {"shared_param": False}
    )
    block, _ = in_family(case, "sigma_delta").built_and_run(slayer, 1, case.input(1))
    block.neuron.delta.threshold.data = torch.tensor(mantissas) / 64 + 0.005
    assert np.array_equal(exported(block)["layer/0/neuron/vThMant"][2], np.squeeze(mantissas))


@of_resonators
def test_a_complex_input_blocks_file_is_lavas_without_a_forward(lava, family):
    # lava's takes no pair; its file needs no more than its neuron's shape
    case = Case("Input", (2, 3, 4), {"weight": 1.3, "bias": -0.2}, {}, family)
    ours, theirs = case.build(slayer), case.build(lava)
    ours.infer_shape(case.shape)
    theirs.neuron.shape = torch.Size(case.shape)
    assert_same_file(exported(ours), exported(theirs))


@pytest.mark.parametrize("family", ["rf", "rf_iz"])
@pytest.mark.parametrize("dynamics", [True, False])
def test_a_complex_affine_blocks_file_is_a_dense_layers_that_never_fires(lava, family, dynamics):
    case = FAMILY_CASES[f"{family} Affine"].but(dynamics=dynamics)
    mine = exported(case.built_and_run(slayer, 3, case.input(3))[0])
    options = {key: value for key, value in case.options.items() if key != "dynamics"}
    dense = Case("Dense", case.shape, options, case.neuron, family)
    reference = exported(dense.built_and_run(lava, 3, case.input(3))[0])
    dtype, shape, _ = reference["layer/0/neuron/vThMant"]
    reference["layer/0/neuron/vThMant"] = (dtype, shape, (1 << 18) - 1)
    if not dynamics:
        reference = {path: value for path, value in reference.items() if "neuron" not in path}
    assert_same_file(mine, reference)


@of_resonators
@pytest.mark.parametrize("name", ["Recurrent", "Recurrent per channel", "KWTA"])
def test_a_complex_block_with_feedback_writes_both_parts_of_both_weights(family, name):
    # lava raises, and for KWTA writes nothing
    case = FAMILY_CASES[f"{family} {name}"]
    block, _ = case.built_and_run(slayer, 3, case.input(3))
    mine = exported(block)
    assert mine["layer/0/type"][2] == [b"kwta" if name == "KWTA" else b"dense_rec"]
    synapses = {"weight": block.synapse}
    if name != "KWTA":
        synapses["weight_rec"] = block.recurrent_synapse
    for key, synapse in synapses.items():
        for part in ("real", "imag"):
            weight = getattr(synapse, part).weight.detach()[..., 0, 0, 0]
            integers = (2 * torch.round(32 * weight)).clamp(-256, 254)
            assert np.array_equal(mine[f"layer/0/{key}/{part}"][2], integers)
    for key, value in block.neuron.device_params.items():
        written = mine[f"layer/0/neuron/{key}"][2]
        assert np.array_equal(written.decode() if isinstance(written, bytes) else written, value)


@every_case
def test_a_block_that_has_not_run_exports_what_it_exports_after_a_forward(name):
    case = FAMILY_CASES[name]
    torch.manual_seed(1)
    fresh = case.build(slayer)
    if case.block not in KNOWN_FROM_THE_START:
        with pytest.raises(BridgeError, match="infer_shape"):
            exported(fresh)
        fresh.infer_shape(case.shape)
    before = exported(fresh)
    torch.manual_seed(1)
    ran = case.build(slayer).eval()  # a norm's statistics stay
    ran(case.input(1))
    assert_same_file(before, exported(ran))


@every_case
def test_a_block_exports_after_load_state_dict_what_the_trained_one_does(name):
    case = FAMILY_CASES[name]
    trained, _ = case.built_and_run(slayer, 1, case.input(1))
    torch.manual_seed(2)
    fresh = case.build(slayer)
    fresh.load_state_dict(trained.state_dict(), strict=True)
    if case.block not in KNOWN_FROM_THE_START:
        fresh.infer_shape(case.shape)
    assert_same_file(exported(fresh), exported(trained))


@every_case
def test_writing_leaves_the_block_as_it_was(name):
    case = FAMILY_CASES[name]
    block, _ = case.built_and_run(slayer, 1, case.input(1))
    before = {key: value.clone() for key, value in block.state_dict().items()}
    first = exported(block)
    assert block.state_dict().keys() == before.keys()
    for key, value in block.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert_same_file(exported(block), first)


@in_lava
def test_a_trained_blocks_state_is_lavas_bit_for_bit(lava, name):
    assert_same_state_dict(*trained_pair(FAMILY_CASES[name], lava, 3))


@in_lava
def test_checkpoints_load_strictly_both_ways(lava, name):
    case = FAMILY_CASES[name]
    ours, theirs = trained_pair(case, lava, 3)
    unlike(theirs)
    torch.manual_seed(77)
    fresh = case.build(slayer)
    for block in (ours, fresh):
        block.load_state_dict(theirs.state_dict(), strict=True)
        assert_same_state_dict(block, theirs)
    theirs.load_state_dict(unlike(ours).state_dict(), strict=True)
    fresh.load_state_dict(ours.state_dict(), strict=True)
    x = case.input(9, batch=5)
    with torch.no_grad():
        reference = theirs.eval()(x)
        for block in (ours, fresh):
            assert torch.equal(block.eval()(x), reference)


def unlike(block):
    """Change all that a checkpoint holds, so that loading it has something to do."""
    for key, parameter in block.named_parameters():
        if key != "neuron.bias":  # of no effect where it was not set
            parameter.data.mul_(0.5).add_(0.25)
    for key, buffer in block.named_buffers():
        if "running" in key:
            buffer.add_(1)
    return block


@every_case
def test_a_fresh_blocks_state_is_lavas_and_loads_both_ways(lava, name):
    case = FAMILY_CASES[name]
    torch.manual_seed(3)
    ours = case.build(slayer)
    torch.manual_seed(3)
    if case.block == "Affine":  # lava's raises in its constructor; Dense has the same parts
        case = Case("Dense", case.shape, case.options, case.neuron, case.family)
    theirs = case.build(lava)
    mine, reference = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == reference.keys()
    for key, value in reference.items():
        assert mine[key].shape == value.shape, key
        if "synapse" in key:
            assert torch.equal(mine[key], value), key
    theirs.load_state_dict(mine, strict=True)
    ours.load_state_dict(reference, strict=True)


@every_case
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])
def test_a_copy_gives_and_writes_what_the_block_does(name, copied):
    case = FAMILY_CASES[name]
    block, _ = case.built_and_run(slayer, 1, case.input(1))
    twin = copied(block)
    assert_same_file(exported(twin), exported(block))
    torch.manual_seed(3)
    mine = twin.eval()(case.input(2))
    torch.manual_seed(3)
    assert torch.equal(mine, block.eval()(case.input(2)))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_callers_neuron_params_stay_as_they_were(family):
    params = blocks_neuron(slayer, norm="MeanOnlyBatchNorm", family=family, persistent_state=False)
    before = dict(params)
    module = getattr(slayer.block, family)
    module.Pool(params, 2)
    module.Unpool(params, 2)
    if family != "sigma_delta":
        module.Recurrent(params, 3, 3)
        module.KWTA(params, 3, 3, 1)
    dense = module.Dense(params, 3, 3)
    assert params == before
    assert dense.neuron.persistent_state is False
    norm = dense.neuron.real_norm if family in RESONATORS else dense.neuron.norm
    assert isinstance(norm, slayer.neuron.norm.MeanOnlyBatchNorm)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hook", ["named", "none"])
def test_a_named_hook_quantises_in_place_of_the_neurons(lava, family, hook):
    def half(weight, descale=False):
        return torch.round(2 * weight) / (1 if descale else 2)

    fx = half if hook == "named" else None
    case = FAMILY_CASES[f"{family} Dense"].but(pre_hook_fx=fx, weight_scale=5)
    x = case.input(1)
    _, mine = case.built_and_run(slayer, 3, x)
    torch.testing.assert_close(mine, case.built_and_run(lava, 3, x)[1])


def test_the_cases_cover_every_family():
    assert {case.family for case in FAMILY_CASES.values()} == set(FAMILIES)
    assert set(FIRING) == {"cuba", *FAMILIES}
    assert running(slayer.block.rf.Input()).neuron is None
