"""SpikingJelly's own models: twin, blocks, file and integers give the same spikes."""

import copy
import warnings

import pytest
import torch

import lava_bridge
from lava_bridge.convert import rewrite

from .models import NEURONS, PARAMETRIC, VGG, parametric, random_spikes, vgg


def assert_all_say_the_same(net, shape, tmp_path, steps, encoding=None):
    """Convert, export, and compare all forms of a net; also the float net, in 64 bits."""
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blocks = lava_bridge.to_slayer(net, shape, calibrate="weights", encoding=encoding)
    path = tmp_path / "net.net"
    lava_bridge.export_hdf5(blocks, path)
    twin = lava_bridge.to_spikingjelly(blocks)
    x = random_spikes(steps, 2, shape)
    for a, b, options in (
        (twin, blocks, {}),
        (twin, path, {}),
        (twin, path, {"integers": True}),
    ):
        report = lava_bridge.check_equivalence(a, b, x, **options)
        assert report.claim == "exact"
        assert report.ok, str(report)
        assert all(layer.fired_a for layer in report.layers), str(report)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
    return blocks, x


@pytest.mark.parametrize("neurons", NEURONS)
@pytest.mark.parametrize("name", PARAMETRIC)
def test_a_parametric_net_converts_exactly(name, neurons, tmp_path):
    steps = 3 if PARAMETRIC[name][1] > 100 else 5
    assert_all_say_the_same(parametric(name, neurons), PARAMETRIC[name], tmp_path, steps)


@pytest.mark.parametrize("name", VGG)
def test_a_vgg_with_batch_norm_converts_exactly(name, tmp_path):
    assert_all_say_the_same(vgg(name), (3, 32, 32), tmp_path, 4)


def test_a_rewritten_model_spikes_as_the_model_itself_in_every_layer():
    net = parametric("MNISTNet", "PLIF").double()
    made = rewrite(net, PARAMETRIC["MNISTNet"])
    report = lava_bridge.check_equivalence(
        copy.deepcopy(net), made, random_spikes(6, 2, (1, 28, 28)).double(), extra_layers=True
    )
    assert report.ok, str(report)
