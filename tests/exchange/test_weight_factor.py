"""The factor of a container's calibration is saved with its weights, where there is one."""

import io

import pytest
import torch
import torch.nn as nn
from spikingjelly.activation_based import layer, neuron

from lava_bridge import check_equivalence, to_slayer, to_spikingjelly
from lava_bridge.exchange import BlockContainer


def container(bias=True):
    return BlockContainer(nn.Linear(4, 3, bias=bias), neuron.IFNode(), "m")


def test_a_state_dict_carries_the_factor_through_a_file():
    made, fresh = container(), container()
    made.weight_factor = 1.2345678901234567
    file = io.BytesIO()
    torch.save(nn.Sequential(made).state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    held = dict(state)
    nn.Sequential(fresh).load_state_dict(state, strict=True)
    assert fresh.weight_factor == made.weight_factor
    assert list(state) == list(held), "the user's dict is left as it is"
    assert fresh.to_lava_block().weight_factor == made.weight_factor
    assert "weight_factor=1.235" in repr(fresh)


def test_without_a_factor_the_names_are_spikingjellys(sj):
    theirs = sj.BlockContainer(nn.Linear(4, 3, bias=False), neuron.IFNode(), "m")
    mine = container(bias=False)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert "weight_factor" not in repr(mine)
    theirs.load_state_dict(mine.state_dict(), strict=True)
    mine.weight_factor = 2.0
    with pytest.warns(UserWarning, match="multiplied by 1 are loaded beside a threshold that was"):
        mine.load_state_dict(theirs.state_dict(), strict=True)
    assert mine.weight_factor == 1.0, "these weights were multiplied by nothing"


def test_a_dict_without_the_weights_says_nothing_of_their_factor():
    made = container()
    made.weight_factor = 2.0
    made.load_state_dict({"neuron.voltage_decay": torch.tensor(5.0)}, strict=False)
    assert made.weight_factor == 2.0


def test_a_calibrated_twin_is_saved_and_loaded_into_another():
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(1, 2, 3), neuron.IFNode(0.5), layer.Flatten(), layer.Linear(32, 3)
    )
    twins = [to_spikingjelly(to_slayer(net, (1, 6, 6), calibrate=c)) for c in ("weights", None)]
    x = (torch.rand(8, 3, 1, 6, 6) < 0.4).float()
    factors = [[getattr(part, "weight_factor", None) for part in twin] for twin in twins]
    assert factors[0] != factors[1]
    twins[1].load_state_dict(twins[0].state_dict())
    assert [getattr(part, "weight_factor", None) for part in twins[1]] == factors[0]
    assert check_equivalence(*twins, x, layout="TNX").ok  # the thresholds are loaded too
    fresh = to_spikingjelly(to_slayer(net, (1, 6, 6)))
    with pytest.warns(UserWarning, match=r"^0\.weight: those that were multiplied by 1 are loaded"):
        twins[0].load_state_dict(fresh.state_dict())


@pytest.mark.parametrize("name", ["weight_factors", "factor"])
def test_other_unexpected_names_are_still_refused(name):
    with pytest.raises(RuntimeError, match=f'Unexpected key.*"{name}"'):
        container().load_state_dict({**container().state_dict(), name: torch.ones(())})
