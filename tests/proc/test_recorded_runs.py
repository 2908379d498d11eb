"""Nets run as they did on Lava's own runtime (tests/reference/conv_runs.py recorded it)."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lava_bridge.proc import Loihi2SimCfg, RunSteps, io
from lava_bridge.proc.conv.process import Conv

from .nets import BUFFER, NETS, arrays, run

RECORDED = Path(__file__).parents[1] / "data" / "proc"
OURS = SimpleNamespace(Conv=Conv, RunSteps=RunSteps, Loihi2SimCfg=Loihi2SimCfg, io=io)

# Floats that are not on a grid: a sum's last bits depend on its order.
INEXACT = {"float_any"}


def test_every_net_is_recorded():
    assert {path.stem for path in RECORDED.glob("*.npz")} == set(NETS)


@pytest.mark.parametrize("name", NETS)
def test_a_net_gives_what_it_gave_on_lavas_runtime(name):
    with np.load(RECORDED / f"{name}.npz") as recorded:
        expected = dict(recorded)
    found = run(OURS, NETS[name], expected["weight"], expected["x"])
    assert np.abs(expected["y"]).max() > 0
    assert expected["y"].shape[-1] == BUFFER
    for part in ("y", "a_buf", "w"):
        assert found[part].dtype == expected[part].dtype == np.float64
        if name in INEXACT:
            np.testing.assert_allclose(found[part], expected[part], rtol=0, atol=1e-11)
        else:
            np.testing.assert_array_equal(found[part], expected[part])


def test_a_recording_is_of_the_net_that_it_is_named_for():
    for seed, (name, net) in enumerate(NETS.items()):
        with np.load(RECORDED / f"{name}.npz") as recorded:
            weight, x = arrays(net, seed)
            assert recorded["weight"].shape == weight.shape == net.weight
            assert recorded["x"].shape == x.shape


def test_the_recorded_sums_did_wrap():
    """Else they would not tell a register of 24 bits from one of 32."""
    with np.load(RECORDED / "wraps.npz") as recorded:
        weight, x = recorded["weight"].astype(float), recorded["x"].astype(float)
        wrapped = recorded["y"]
    reach = np.abs(weight).sum(axis=(1, 2, 3)).max() * np.abs(x).max()
    assert 2**23 < reach < 2**31
    assert np.abs(wrapped).max() <= 2**23
    found = run(OURS, NETS["float_any"], weight, x)["y"]  # in floats, that do not wrap
    assert np.abs(found).max() > 2**23
    assert ((found - wrapped) % 2**24 == 0).all()
    assert (found != wrapped).mean() > 0.1
