"""``python -m lava_bridge verify`` in two processes that ``torchrun`` might have started."""

import re
import textwrap
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import layer, neuron

from lava_bridge import export_hdf5, to_slayer

from . import ranks

NET = """
    import os
    import torch
    import torch.nn as nn
    from spikingjelly.activation_based import functional, layer, neuron

    def build():
        net = nn.Sequential(layer.Linear(6, 4, bias=False), neuron.IFNode())
        functional.set_step_mode(net, "m")
        return net

    def fails_in_one():
        if os.environ.get("RANK") == "1":
            raise RuntimeError("no luck")
        return build()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    (folder / "mynet.py").write_text(textwrap.dedent(NET))
    net = torch.nn.Sequential(layer.Linear(6, 4, bias=False), neuron.IFNode())
    net[0].weight.data = 0.3 * torch.rand(4, 6)
    torch.save(net.state_dict(), folder / "w.pt")
    export_hdf5(to_slayer(net, (6,)), folder / "n.net")
    net[0].weight.data[:, 0] += 1
    torch.save(net.state_dict(), folder / "other.pt")
    np.save(folder / "x.npy", ranks.samples((4,), 5))
    return folder


def verify(folder: Path, weights: str, factory: str = "mynet:build") -> list[CompletedProcess]:
    options = "--weights", weights, "--input", "x.npy"
    return ranks.run_ranks("-m", "lava_bridge", "verify", factory, "n.net", *options, cwd=folder)


def test_the_first_rank_prints_and_a_mismatch_in_the_lasts_share_is_everyones_exit_status(folder):
    first, second = verify(folder, "other.pt")
    assert (first.returncode, second.returncode) == (1, 1), first.stderr + second.stderr
    assert re.search(r"5 samples[^$]*NOT exact: \d+ of 240 .* at sample 4, t=", first.stdout)
    assert re.search(r"integers of n.net: NOT exact: \d+ of 240 .* at sample 4, t=", first.stdout)
    assert second.stdout == ""


def test_an_error_on_one_rank_is_told_once_and_is_everyones_exit_status(folder):
    first, second = verify(folder, "w.pt", factory="mynet:fails_in_one")
    assert (first.returncode, second.returncode) == (2, 2), first.stderr + second.stderr
    assert first.stderr.count("Error: ") == 1
    assert "Error: rank 1: mynet:fails_in_one: can't build the net: no luck" in first.stderr
    assert "Error: " not in second.stderr
