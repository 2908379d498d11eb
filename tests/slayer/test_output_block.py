"""The sigma-delta output block holds a norm that it doesn't apply, as lava-dl's does."""

import h5py
import numpy as np
import pytest
import torch

from lava_bridge import slayer


def output(frameworks, shared):
    params = {
        "threshold": 0.1,
        "activation": torch.relu,
        "norm": frameworks.neuron.norm.MeanOnlyBatchNorm,
        "shared_param": shared,
    }
    return frameworks.block.sigma_delta.Output(params, 10, 3)


def datasets(block, path):
    with h5py.File(path, "w") as file:
        block.export_hdf5(file)
        found = {}
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("shared", [True, False])
def test_states_load_both_ways_and_the_norm_changes_nothing(lava, shared, ran):
    torch.manual_seed(1)
    theirs, ours = output(lava, shared), output(slayer, shared)
    x = torch.randint(-2, 3, (2, 10, 8)) / 4
    if ran:
        theirs(x), ours(x)
    ours.load_state_dict(theirs.state_dict())
    assert ours(x).any()
    assert torch.equal(ours(x), theirs(x))
    theirs.load_state_dict(ours.state_dict())
    assert ours.shape == theirs.shape == (3,)


def test_its_file_is_lavas(lava, tmp_path):
    theirs, ours = output(lava, True), output(slayer, True)
    ours.load_state_dict(theirs.state_dict())
    theirs(torch.ones(1, 10, 2)), ours(torch.ones(1, 10, 2))
    expected = datasets(theirs, tmp_path / "theirs.net")
    found = datasets(ours, tmp_path / "ours.net")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
