"""Random nets: the blocks, the file and the integer run give the same spikes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import lava_bridge
from lava_bridge.netx import Network

from .random_nets import Net, random_net, random_sigma_delta_net

# `make nets` asks for more.
NETS = int(os.environ.get("LAVA_BRIDGE_RANDOM_NETS", "200"))
EACH = 20


def lag(net: Network, blocks: list[torch.nn.Module]) -> int:
    """Steps that the integers are later than the blocks, which take some of them themselves."""
    return net.latency - sum(bool(getattr(block, "delay_shift", False)) for block in blocks)


def compare(made: Net, path: Path) -> tuple[np.ndarray, np.ndarray, Network]:
    """The blocks' spikes, and those of the integers at the same times."""
    lava_bridge.export_hdf5(made.blocks, path)
    net = Network(path, aligned=True)
    later = lag(net, made.blocks)
    spikes = made.x
    with torch.no_grad():
        for block in made.blocks:
            spikes = block(spikes)
    integers = net.run(F.pad(made.x, (0, later)))
    assert not integers[..., :later].any()
    return spikes.numpy(), integers[..., later:].numpy(), net


@pytest.mark.parametrize("first", range(0, NETS, EACH))
def test_blocks_and_integers_give_the_same_spikes(first: int, tmp_path: Path) -> None:
    fired = 0
    for seed in range(first, min(first + EACH, NETS)):
        made = random_net(seed)
        blocks, integers, net = compare(made, tmp_path / "net.net")
        assert np.array_equal(blocks, integers), (seed, net)
        fired += bool(blocks.any() and not blocks.all())
    assert fired > EACH // 10  # silence would agree as well


@pytest.mark.parametrize("first", range(0, NETS // 4, EACH))
def test_sigma_delta_blocks_and_integers_give_the_same_messages(first: int, tmp_path: Path) -> None:
    sent = 0
    for seed in range(first, min(first + EACH, NETS // 4)):
        made = random_sigma_delta_net(seed)
        lava_bridge.export_hdf5(made.blocks, tmp_path / "net.net")
        report = lava_bridge.check_equivalence(
            made.blocks, tmp_path / "net.net", made.x, layout="NXT", integers=True
        )
        assert report.ok, (seed, str(report))
        sent += bool(report.layers[0].fired_a and report.layers[-1].fired_a)
    assert sent > EACH // 10
