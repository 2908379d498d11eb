"""The recordings show something: each file has its run, spikes, and no net stands still."""

import json

import numpy as np
import pytest

from lava_bridge.quantize import DECAY_SCALE

from .loihi_cases import DATA, load, names

LEAST_RATE, MOST_RATE = 0.01, 0.9
# Of all the values that spike by spike have a sign: they change at nearly every step.
GRADED = {"sdnn_exp0", "sdnn_exp3_skip", "sdnn_exp6", "sdnn_overflow", "sdnn_thresholds"}
# A layer without neurons never spikes, nor one with a threshold above all voltages.
SILENT_OUTPUT = {"no_neuron", "thresholds"}
# Its last layer's states are at their limits.
RARE_OUTPUT = {"rf_extremes"}
DEAF = "vanishing_weights"
REGISTER = 1 << 23


def test_each_net_has_a_run() -> None:
    assert names() == sorted(path.stem for path in DATA.glob("*.npz"))
    assert len(names()) >= 40


@pytest.mark.parametrize("name", names())
def test_all_that_is_recorded_fits_together(name: str) -> None:
    run = load(name)
    assert json.dumps(run.kwargs)
    assert run.x.shape[0] == run.y.shape[0] == 2
    assert run.x.shape[-1] == run.y.shape[-1]
    assert np.array_equal(run.y.ravel(), run.spikes[-1].ravel())
    for spikes, states in zip(run.spikes, run.states, strict=True):
        assert states
        assert {values.shape for values in states.values()} == {spikes.shape}
        assert {values.dtype for values in states.values()} == {np.dtype(np.int32)}


@pytest.mark.parametrize("name", names())
def test_no_net_is_silent_saturated_or_the_same_for_both_samples(name: str) -> None:
    run = load(name)
    if name not in SILENT_OUTPUT | RARE_OUTPUT:
        rate = (run.y != 0).mean()
        assert rate > LEAST_RATE
        assert name in GRADED or rate < MOST_RATE
    # Nothing of the input comes through weights that vanish.
    first = run.states[0].values()
    differs = any(not np.array_equal(values[0], values[1]) for values in first)
    assert differs != (name == DEAF)
    # Of each layer some state moves.
    for states in run.states:
        assert any(np.ptp(values, axis=-1).any() for values in states.values())


def test_currents_wrap_and_voltages_are_clipped() -> None:
    wrapped = load("wrapped_current").states[0]["current"]
    assert wrapped.max() > REGISTER  # once around is not enough for some
    assert REGISTER in wrapped
    assert -REGISTER not in wrapped
    voltage = load("clipped_voltage").states[0]["voltage"]
    assert (voltage.min(), voltage.max()) == (1 - REGISTER, REGISTER - 1)


def test_activations_leave_24_bits() -> None:
    sigma = load("sdnn_overflow").states[1]["sigma"].astype(np.int64)
    act = load("sdnn_overflow").states[1]["act"]
    assert np.abs(sigma).max() > REGISTER
    assert act.max() > REGISTER


def test_resonators_turn_by_what_the_file_says_within_one() -> None:
    for name in ("rf_phase", "rf_izhikevich", "rf_extremes"):
        for sine, cosine in load(name).decays.values():
            assert 0 < sine**2 + cosine**2 < DECAY_SCALE**2
