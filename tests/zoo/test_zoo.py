"""SpikingJelly's own models: twin, blocks, file and integers give the same spikes."""

import warnings

import pytest
import torch

import lava_bridge
from lava_bridge.convert import rewrite

from ..convert.random_nets import run
from .models import NEURONS, PARAMETRIC, VGG, parametric, random_spikes, vgg


def assert_all_say_the_same(net, shape, tmp_path):
    """Convert, export, and compare all forms of a net, which is not changed."""
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blocks = lava_bridge.to_slayer(net, shape, calibrate="weights")
    path = tmp_path / "net.net"
    lava_bridge.export_hdf5(blocks, path)
    twin = lava_bridge.to_spikingjelly(blocks)
    layers = sum(hasattr(block, "synapse") for block in blocks)
    # In the integer run spikes come a step later with each layer.
    x = random_spikes(layers + 3, 1, shape)
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


@pytest.mark.parametrize("neurons", NEURONS)
@pytest.mark.parametrize("name", PARAMETRIC)
def test_a_parametric_net_converts_exactly(name, neurons, tmp_path):
    assert_all_say_the_same(parametric(name, neurons), PARAMETRIC[name], tmp_path)


@pytest.mark.parametrize("name", VGG)
def test_a_vgg_with_batch_norm_converts_exactly(name, tmp_path):
    assert_all_say_the_same(vgg(name), (3, 32, 32), tmp_path)


def test_a_rewritten_model_spikes_as_the_model_itself_in_every_layer():
    net = parametric("MNISTNet", "PLIF").double()
    x = random_spikes(6, 2, PARAMETRIC["MNISTNet"]).double()
    _, expected = run(net, x)
    _, found = run(rewrite(net, PARAMETRIC["MNISTNet"]), x)
    assert len(expected) == len(found) == 4
    for ours, truth in zip(found, expected, strict=True):
        assert torch.equal(ours, truth)
        assert truth.any()
