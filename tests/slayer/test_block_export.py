"""A block's file is lava's, dataset by dataset, and writing it leaves the block alone."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given

from lava_bridge import slayer

from .cases import CASES, Case, feed_forward, trained_pair
from .files import assert_same_file, exported
from .strategies import analog, seeds, thorough

# lava writes nothing for KWTA, raises for these two blocks, and writes a Dense only of a row.
LAVA_EXPORTS = [name for name in CASES if name not in ("Average", "TimeDecimation", "KWTA")]
every_case = pytest.mark.parametrize("name", CASES)


@pytest.mark.parametrize("name", LAVA_EXPORTS)
def test_a_blocks_file_is_lavas(lava, name):
    ours, theirs = trained_pair(CASES[name], lava, 3)
    if getattr(ours, "delay", None) is not None:
        delays = 40 * torch.rand(ours.delay.delay.shape)
        for block in (ours, theirs):
            block.delay.delay.data = delays.clone()
    assert_same_file(exported(ours), exported(theirs))


@thorough
@given(feed_forward(), seeds)
def test_a_feed_forward_blocks_file_is_lavas_with_any_options(lava, case, seed):
    if not isinstance(case.options.get("in_neurons", 1), int):
        case = Case("Conv", case.shape, CASES["Conv"].options, case.neuron).but(
            in_features=case.shape[0]
        )
    ours, theirs = trained_pair(case, lava, seed)
    if ours.delay is not None:
        delays = analog(tuple(ours.delay.delay.shape), seed, 60)
        for block in (ours, theirs):
            block.delay.delay.data = delays.clone()
    mine = exported(ours)
    assert_same_file(mine, exported(theirs))
    assert ("layer/0/delay" in mine) == case.options.get("delay", False)
    weight = mine["layer/0/weight"][2]
    assert np.array_equal(weight, weight.round())
    assert weight.min() >= -256
    assert weight.max() <= 254


@every_case
def test_writing_leaves_the_block_as_it_was(name):
    block, _ = CASES[name].built_and_run(slayer, 1, CASES[name].input(1))
    before = {key: value.clone() for key, value in block.state_dict().items()}
    first = exported(block)
    after = block.state_dict()
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert torch.equal(after[key], value), key
    synapses = [m for m in block.modules() if hasattr(m, "weight_norm_enabled")]
    for synapse in synapses:
        assert synapse.weight_norm_enabled == ("weight norm" in name)
    assert_same_file(exported(block), first)


@every_case
def test_a_file_can_be_written_in_training_with_gradients_on(name):
    case = CASES[name]
    block, y = case.built_and_run(slayer, 1, case.input(1))
    if y.requires_grad:
        y.sum().backward()
    grads = {key: p.grad for key, p in block.named_parameters()}
    assert exported(block)["layer/0/type"][2].dtype == np.dtype("S10")
    assert all(p.grad is grads[key] for key, p in block.named_parameters())


def test_what_reading_back_needs_is_kept_in_attributes():
    for shift in (True, False):
        block = CASES["Dense"].but(delay_shift=shift).build(slayer)
        with h5py.File("block.net", "w", driver="core", backing_store=False) as handle:
            block.export_hdf5(handle)
            assert bool(handle.attrs["delay_shift"]) is shift
            assert handle.attrs["scale"] == 64


def test_a_mask_is_in_the_file_and_not_in_the_weights(lava):
    mask = torch.tensor([[1, 0, 1, 1, 0, 1]] * 2 + [[0, 1, 0, 0, 1, 0]] * 2, dtype=torch.bool)
    case = CASES["Dense"].but(mask=mask)
    ours, theirs = trained_pair(case, lava, 3)
    mine = exported(ours)
    assert_same_file(mine, exported(theirs))
    assert (mine["layer/0/weight"][2][~mask.numpy()] == 0).all()
    assert (ours.synapse.weight[~mask] != 0).all()


@pytest.mark.parametrize("inputs", [(4, 3), (4, 3, 2)])
def test_a_dense_layer_on_height_and_width_keeps_its_kernel_in_the_file(inputs):
    # lava raises here: it writes [out, in] only
    width, height, channels = (*inputs, 1)[:3]
    case = Case("Dense", (channels, height, width), {"in_neurons": inputs, "out_neurons": 5})
    block, _ = case.built_and_run(slayer, 1, case.input(1))
    _, shape, value = exported(block)["layer/0/weight"]
    assert shape == (5, channels, height, width)
    assert np.array_equal(
        value, block.neuron.quantize_8bit(block.synapse.weight[..., 0], True).detach()
    )


def test_average_decimation_and_kwta_are_written_whole():
    def integers(name):
        case = CASES[name]
        block, _ = case.built_and_run(slayer, 1, case.input(1))
        return exported(block)

    average = integers("Average")
    assert average["layer/0/type"][2].tolist() == [b"average"]
    assert average["layer/0/shape"][2].tolist() == [4, 1, 1]
    decimation = integers("TimeDecimation")
    assert decimation["layer/0/type"][2].tolist() == [b"decimation"]
    assert decimation["layer/0/factor"][2] == 4
    kwta = integers("KWTA")
    assert kwta["layer/0/type"][2].tolist() == [b"kwta"]
    assert kwta["layer/0/numWinners"][2] == 2
    assert kwta["layer/0/selfExcitation"][2] == 0.5
    assert kwta["layer/0/weight"][1] == (4, 6)
    assert kwta["layer/0/neuron/vThMant"][2] == int(0.34 * 64)
