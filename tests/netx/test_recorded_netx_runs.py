"""Lava's own netx ran these files and gave these spikes; our blocks give the same.

tests/data/netx has NAME.net, written by export_hdf5, and NAME.npz: the input ``x`` ``[N, *, T]``,
netx's output ``y`` ``[N, *, T + L]`` and netx's number L of layers, recorded by
tests/reference/netx_runs.py with lava-dl 0.6.0 and lava-nc 0.10.0. Lava is not needed here.
"""

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lava_bridge

DATA = Path(__file__).parents[1] / "data" / "netx"
NAMES = ["biased", "conv", "cuba", "dense", "digits", "flatten_first", "recurrent", "rf", "rf_iz"]
# A bias drives a neuron in the steps before the first spike reaches it, and in netx there are more
# of them the deeper the layer: such a net's output is not just later.
BIASED = {"biased"}

# In netx a synapse gives at step t + 1 what it received at step t (lava.proc's Dense and Conv keep
# it in a buffer, so that loops can't lock up). Input, flatten and neurons take no time.
STEPS_PER_SYNAPSE = 1


class Run(NamedTuple):
    """A recorded run of netx, and the blocks of its file."""

    blocks: torch.nn.Sequential
    x: Tensor
    y: np.ndarray
    layers: int


def recorded(name: str) -> Run:
    with np.load(DATA / f"{name}.npz") as run:
        x, y, layers = run["x"], run["y"], run["layers"].item()
    blocks = lava_bridge.load_hdf5(DATA / f"{name}.net").eval()
    return Run(blocks, torch.from_numpy(x).float(), y, layers)


def with_synapse(blocks: torch.nn.Sequential) -> list[Any]:
    return [block for block in blocks if hasattr(block, "synapse")]


def netx_lag(blocks: torch.nn.Sequential) -> int:
    """Steps that netx's output is later than the blocks'.

    One for each layer with a synapse; a block with ``delay_shift`` has taken that step itself.
    """
    synapses = with_synapse(blocks)
    return STEPS_PER_SYNAPSE * len(synapses) - sum(block.delay_shift for block in synapses)


def spikes(blocks: torch.nn.Sequential, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return blocks(x).numpy()


def test_every_file_is_tested() -> None:
    assert sorted(path.stem for path in DATA.glob("*.net")) == NAMES
    assert sorted(path.stem for path in DATA.glob("*.npz")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_netx_was_neither_silent_nor_saturated(name: str) -> None:
    y = recorded(name).y
    assert set(np.unique(y)) == {0, 1}
    # Each sample spikes, and no two samples alike.
    assert (y.reshape(len(y), -1).mean(axis=1) > 0.02).all()
    assert y.mean() < 0.4
    assert len(np.unique(y, axis=0)) == len(y)


@pytest.mark.parametrize("name", NAMES)
def test_netx_has_a_layer_for_each_synapse(name: str) -> None:
    run = recorded(name)
    assert run.layers == len(with_synapse(run.blocks))


@pytest.mark.parametrize("name", sorted(set(NAMES) - BIASED))
def test_netx_spikes_as_the_blocks_do_later_by_the_layers(name: str) -> None:
    run = recorded(name)
    lag = netx_lag(run.blocks)
    steps = run.y.shape[-1] - lag
    ours = spikes(run.blocks, F.pad(run.x, (0, steps - run.x.shape[-1])))
    assert np.array_equal(run.y[..., lag:], ours)
    assert not run.y[..., :lag].any()


@pytest.mark.parametrize("name", NAMES)
def test_netx_spikes_as_blocks_whose_step_comes_before_the_synapse(name: str) -> None:
    run = recorded(name)
    # A step between any two layers, one before the first, and the one after the last cut off.
    for block in with_synapse(run.blocks):
        block.delay_shift = True
    after = run.y.shape[-1] - run.x.shape[-1]
    ours = spikes(run.blocks, F.pad(run.x, (STEPS_PER_SYNAPSE, after)))
    assert np.array_equal(run.y, ours[..., STEPS_PER_SYNAPSE:])


@pytest.mark.parametrize(("name", "lag"), [("digits", 3), ("conv", 3), ("cuba", 2), ("dense", 2)])
def test_the_lag_is_the_number_of_layers(name: str, lag: int) -> None:
    assert netx_lag(recorded(name).blocks) == lag


def test_blocks_that_delay_their_spikes_have_no_lag() -> None:
    assert netx_lag(recorded("recurrent").blocks) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_netx_ran_is_what_the_export_writes(name: str, tmp_path: Path) -> None:
    lava_bridge.export_hdf5(lava_bridge.load_hdf5(DATA / f"{name}.net"), tmp_path / "again.net")
    assert_same(contents(tmp_path / "again.net"), contents(DATA / f"{name}.net"))


def contents(path: Path) -> dict[str, tuple[Any, ...]]:
    """All that a file holds: its datasets and attributes, with their dtypes and shapes."""
    found: dict[str, tuple[Any, ...]] = {}

    def collect(place: str, item: h5py.Dataset | h5py.Group) -> None:
        for key, value in item.attrs.items():
            found[f"{place}@{key}"] = (np.asarray(value).dtype, np.shape(value), value)
        if isinstance(item, h5py.Dataset):
            found[place] = (item.dtype, item.shape, item[()])

    with h5py.File(path) as file:
        file.visititems(collect)
    return found


def assert_same(mine: dict[str, tuple[Any, ...]], theirs: dict[str, tuple[Any, ...]]) -> None:
    assert mine.keys() == theirs.keys()
    for place, (dtype, shape, value) in theirs.items():
        my_dtype, my_shape, my_value = mine[place]
        assert (my_dtype, my_shape) == (dtype, shape), place
        assert np.array_equal(my_value, value), place
