"""The integer run equals real Lava's, bit for bit: outputs, spikes and the states of all layers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from lava_bridge.netx import Network

from .loihi_cases import Recording, load, names
from .wheel_cases import CASES, WheelCase

# Here Lava's way from decays through a period back to decays loses one.
LOSES_ONE = "blocks_rf"


def as_lava_turned(recording: Recording, folder: Path) -> Path:
    """The file with the decays that Lava's resonators ran with."""
    if not recording.decays:
        return recording.path
    copy = Path(shutil.copy(recording.path, folder))
    with h5py.File(copy, "r+") as file:
        for layer, (sine, cosine) in recording.decays.items():
            file[f"layer/{layer}/neuron/sinDecay"][()] = sine
            file[f"layer/{layer}/neuron/cosDecay"][()] = cosine
    return copy


@pytest.mark.filterwarnings("ignore:.*clamped from")
@pytest.mark.parametrize("name", names())
def test_output_spikes_and_states_are_lavas(name: str, tmp_path: Path) -> None:
    recording = load(name)
    net = Network(as_lava_turned(recording, tmp_path), **recording.kwargs)
    run = net.run(recording.x, traces=True)
    assert np.array_equal(run.output, recording.y)
    assert len(run.layers) == len(recording.spikes)
    for i, layer in enumerate(run.layers):
        assert np.array_equal(layer.spike, recording.spikes[i]), i
        assert recording.states[i].keys() == layer.traces.keys() - {"beyond"}, i
        for state, values in recording.states[i].items():
            assert np.array_equal(layer.traces[state], values), (i, state)


def test_lava_loses_one_of_a_decay_that_the_file_has() -> None:
    recording = load(LOSES_ONE)
    with h5py.File(recording.path) as file:
        assert file["layer/1/neuron/cosDecay"][()] == recording.decays[1][1] + 1


def test_a_reset_as_the_input_comes_gives_the_spikes_of_aligned_layers_in_lava(tmp_path) -> None:
    recording = load("reset_when_input_comes")
    path = shutil.copy(recording.path, tmp_path)
    with h5py.File(path, "r+") as file:
        for layer in file[
            "layer"
        ].values():  # of blocks that delay nothing, as to_slayer makes them
            layer.attrs["delay_shift"] = False
    net = Network(path, aligned=True)
    assert net.latency == 3
    expected = net.run(recording.x)[..., 3:]
    assert np.array_equal(expected, recording.y[..., 3:])
    assert recording.states[2]["voltage"][..., :3].any(), "the bias has begun before"
    assert 0 < expected.float().mean() < 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_runs_of_the_wheel(case: Callable[[Path], WheelCase], tmp_path: Path) -> None:
    path, kwargs, x, expected = case(tmp_path)
    run = Network(path, **kwargs).run(x, traces=True)
    for layer, trace, start, values in expected:
        ran = run.layers[layer]
        ours = ran.spike if trace == "spike" else ran.traces[trace]
        compared = ours[..., start : start + values.shape[-1]].numpy().reshape(values.shape)
        assert np.array_equal(compared, values), (ran.name, trace)
