"""Lava's own netx ran these files and gave these spikes; our blocks give the same.

tests/data/netx has NAME.net, written by export_hdf5, and NAME.npz: the input ``x`` ``[N, *, T]``,
netx's output ``y`` ``[N, *, T + L]`` and netx's number L of layers, recorded by
tests/reference/netx_runs.py with lava-dl 0.6.0 and lava-nc 0.10.0. Lava is not needed here.

In its folder ``lowered`` NAME.net was written with ``target="lava"``, of the blocks that are in
NAME.blocks.net, which netx can't load or runs otherwise.
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
from lava_bridge.netx import Network

DATA = Path(__file__).parents[1] / "data" / "netx"
NAMES = ["biased", "conv", "cuba", "dense", "digits", "flatten_first", "recurrent", "rf", "rf_iz"]
LOWERED = ["bias", "delays", "plane", "pool", "resonators"]
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
    return read(DATA / f"{name}.npz", DATA / f"{name}.net")


def lowered(name: str) -> Run:
    """A run of a lowered file, and the blocks that were lowered."""
    folder = DATA / "lowered"
    return read(folder / f"{name}.npz", folder / f"{name}.blocks.net")


def read(recording: Path, blocks_file: Path) -> Run:
    with np.load(recording) as run:
        x, y, layers = run["x"], run["y"], run["layers"].item()
    blocks = lava_bridge.load_hdf5(blocks_file).eval()
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
    files = sorted(path.name for path in (DATA / "lowered").iterdir())
    assert files == sorted(f"{n}.{kind}" for n in LOWERED for kind in ("net", "npz", "blocks.net"))


@pytest.mark.parametrize(
    ("read_run", "name"),
    [(recorded, name) for name in NAMES] + [(lowered, name) for name in LOWERED],
)
def test_netx_was_neither_silent_nor_saturated(read_run: Any, name: str) -> None:
    y = read_run(name).y
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
    assert_same_but_for_the_step(recorded(name))


@pytest.mark.parametrize("name", LOWERED)
def test_netx_gives_with_a_lowered_file_the_spikes_of_the_blocks_themselves(name: str) -> None:
    run = lowered(name)
    assert run.layers == len(with_synapse(run.blocks))
    assert_same_but_for_the_step(run)


@pytest.mark.parametrize("name", LOWERED)
def test_a_lowered_file_that_netx_ran_is_what_the_lowering_writes(
    name: str, tmp_path: Path
) -> None:
    run = lowered(name)
    shape = tuple(run.x.shape[1:-1])
    lava_bridge.export_hdf5(run.blocks, tmp_path / "again.net", input_shape=shape, target="lava")
    assert_same(contents(tmp_path / "again.net"), contents(DATA / "lowered" / f"{name}.net"))


@pytest.mark.parametrize(
    "path", sorted(DATA.rglob("*.npz")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_integers_spike_as_netx_from_the_first_step(path: Path) -> None:
    with np.load(path) as run:
        x, y = torch.from_numpy(run["x"]), run["y"]
    net = Network(path.with_suffix(".net"))
    ours = net.run(F.pad(x, (0, y.shape[-1] - x.shape[-1])))
    assert np.array_equal(ours.numpy().reshape(y.shape), y)


def assert_same_but_for_the_step(run: Run) -> None:
    # A step between any two layers, one before the first, and the one after the last cut off.
    for block in with_synapse(run.blocks):
        block.delay_shift = True
    after = run.y.shape[-1] - run.x.shape[-1]
    ours = spikes(run.blocks, F.pad(run.x, (STEPS_PER_SYNAPSE, after)))[..., STEPS_PER_SYNAPSE:]
    # netx's dense layers have no height and width, of which ours keep 1 x 1.
    assert np.array_equal(run.y, ours.reshape(run.y.shape))


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
