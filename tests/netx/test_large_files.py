"""Large files are read with few copies of their weights, and some rows at a time as all at once."""

import tracemalloc

import h5py
import numpy as np
import pytest
from hypothesis import given, strategies as st

from lava_bridge import NetFileError, net_reader, slayer
from lava_bridge.hdf5 import export_hdf5
from lava_bridge.net_reader import open_layers
from lava_bridge.netx import Network, weights

NEURON = {"threshold": 1.0, "current_decay": 0.5, "voltage_decay": 0.25}


@given(
    whole=st.lists(st.integers(-300, 300) | st.integers(-64, 0), min_size=1, max_size=24),
    rows=st.integers(1, 4),
)
def test_weights_spread_and_cut_in_parts_are_those_of_the_whole(whole, rows):
    matrix = np.resize(np.array(whole, np.int32), (rows, len(whole)))
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for size in (1, 7, 1 << 18):
            patch.setattr(weights, "SLICE", size)
            try:
                shifted = weights.spread(matrix)
            except ValueError as error:
                found.append(str(error))
                continue
            kept = weights.cut(shifted.weight, shifted.bits)
            found.append((kept.tolist(), shifted.bits, shifted.shift))
    assert found[0] == found[1] == found[2]


def test_a_large_layer_is_read_with_few_copies(tmp_path):
    block = slayer.block.cuba.Dense(NEURON, 1000, 1000)
    block.infer_shape((1000,))
    export_hdf5([block], tmp_path / "n.net")
    size = 4 * block.synapse.weight.numel()
    tracemalloc.start()
    try:
        net = Network(tmp_path / "n.net")
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert net.layers
    assert held < 1.5 * size
    assert most < 4.5 * size  # with what is looked at together, which is an eighth


@pytest.mark.parametrize("value", [0.5, 2.0**31, float("nan")])
def test_a_wrong_value_is_found_wherever_it_is(value, tmp_path, monkeypatch):
    monkeypatch.setattr(net_reader, "SLICE", 4)
    for place in range(9):
        path = tmp_path / f"{place}.net"
        with h5py.File(path, "w") as file:
            numbers = np.zeros((3, 3), np.float64)
            numbers.flat[place] = value
            file["layer/0/weight"] = numbers
        with open_layers(path) as layers, pytest.raises(NetFileError, match="layer/0/weight has"):
            next(layers).weights("weight")
