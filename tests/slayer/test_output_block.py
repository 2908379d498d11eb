"""The sigma-delta output block holds a norm that it doesn't apply, as lava-dl's does."""

import pytest
import torch

from lava_bridge import slayer

from .files import assert_same_file, exported


def output(frameworks, shared):
    params = {
        "threshold": 0.1,
        "activation": torch.relu,
        "norm": frameworks.neuron.norm.MeanOnlyBatchNorm,
        "shared_param": shared,
    }
    return frameworks.block.sigma_delta.Output(params, 10, 3)


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


def test_its_file_is_lavas(lava):
    theirs, ours = output(lava, True), output(slayer, True)
    ours.load_state_dict(theirs.state_dict())
    theirs(torch.ones(1, 10, 2)), ours(torch.ones(1, 10, 2))
    assert_same_file(exported(ours), exported(theirs))
