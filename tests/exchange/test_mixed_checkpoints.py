"""A checkpoint of lava-dl's and one of SpikingJelly's load into one net, in one process."""

import pytest
import torch
import torch.nn as nn
from spikingjelly.activation_based import functional, layer, neuron

from lava_bridge import NXT_to_TNX, TNX_to_NXT, slayer
from lava_bridge.exchange import AsSlayer, AsSpikingJelly

LEAK = {"threshold": 0.5, "current_decay": 0.25, "voltage_decay": 0.1}


def lava_part(block) -> nn.Sequential:
    """The back of the net, with the blocks of either slayer."""
    per_channel = {**LEAK, "shared_param": False, "requires_grad": True}
    return nn.Sequential(
        block.Flatten(),
        block.Dense(per_channel, 32, 12, weight_scale=4, weight_norm=True, delay=True),
        block.Dense(LEAK, 12, 5, weight_scale=6),
    )


def spikingjelly_part() -> nn.Sequential:
    """The front of the net."""
    return nn.Sequential(
        layer.Conv2d(1, 2, 3, padding=1),
        layer.BatchNorm2d(2),
        neuron.ParametricLIFNode(v_threshold=0.1),
    )


@pytest.mark.parametrize("hub", ["SpikingJelly", "slayer"])
def test_both_load_and_the_mixed_net_gives_the_spikes_of_one_original_after_the_other(
    hub, lava_block, tmp_path
):
    front, back, x = spikingjelly_part(), lava_part(lava_block), torch.rand(15, 3, 1, 4, 4)
    for weight in (front[0].weight, back[1].synapse.weight_v):
        weight.data.abs_()  # so that all of it fires
    functional.set_step_mode(front, "m")
    front(x)  # statistics of its norm
    functional.reset_net(front)
    for part in (front, back):
        part.eval()
    back(torch.rand(3, 2, 4, 4, 15))  # draws delays and decays
    back[1].delay.delay.data *= 4
    torch.save(front.state_dict(), tmp_path / "spikingjelly.pt")
    torch.save(back.state_dict(), tmp_path / "lava.pt")
    with torch.no_grad():
        expected = back(TNX_to_NXT(front(x)).contiguous())

    new_front, new_back = spikingjelly_part(), lava_part(slayer.block.cuba)
    if hub == "SpikingJelly":
        net = nn.Sequential(new_front, AsSpikingJelly(new_back))
        functional.set_step_mode(net, "m")
    else:
        net = nn.Sequential(AsSlayer(new_front), new_back)
    for part, file in ((new_front, "spikingjelly.pt"), (new_back, "lava.pt")):
        part.load_state_dict(torch.load(tmp_path / file, weights_only=True))
    net.eval()
    with torch.no_grad():
        y = NXT_to_TNX(expected) if hub == "SpikingJelly" else expected
        assert torch.equal(net(x if hub == "SpikingJelly" else TNX_to_NXT(x)), y)
    assert 0.05 < y.mean() < 0.95
