"""The equivalence check where a net ends in sums: an Affine block, or a layer without a neuron."""

import pytest
import torch.nn as nn
from spikingjelly.activation_based import functional, layer, neuron

from lava_bridge import check_equivalence, export_hdf5, slayer, to_spikingjelly
from lava_bridge.exchange import BlockContainer

from ..convert.nets import spikes


@pytest.fixture
def parts() -> list[nn.Module]:
    """A convolution and a linear layer, both with a bias, and a linear layer without a neuron."""
    return [
        layer.Conv2d(1, 3, 3),
        neuron.IFNode(0.4),
        layer.Flatten(),
        layer.Linear(3 * 16, 12),
        neuron.LIFNode(2.0, False, 0.2),
        layer.Linear(12, 4),
    ]


@pytest.fixture
def twin(parts) -> nn.Sequential:
    containers = [
        BlockContainer(parts[0], parts[1]),
        BlockContainer(parts[2], None),
        BlockContainer(parts[3], parts[4]),
        BlockContainer(parts[5], None),
    ]
    net = nn.Sequential(*containers, layer.VotingLayer(2))
    functional.set_step_mode(net, "m")
    return net


@pytest.fixture
def blocks(twin) -> nn.Sequential:
    average = slayer.block.cuba.Average(2)
    return nn.Sequential(*(c.to_lava_block() for c in list(twin)[:-1]), average)


@pytest.fixture
def file(blocks, tmp_path):
    export_hdf5(blocks, tmp_path / "net.net", input_shape=(1, 6, 6))
    return tmp_path / "net.net"


X = spikes(9, 5, 1, 6, 6)


@pytest.mark.parametrize("integers", [False, True])
def test_voltages_are_compared_as_a_layer_of_their_own(twin, blocks, file, integers):
    for a, b in ((twin, blocks), (blocks, file), (to_spikingjelly(blocks), file), (file, twin)):
        report = check_equivalence(a, b, X, integers=integers and file in (a, b), batch_size=2)
        assert report.claim == "exact"
        assert report.ok
        assert len(report.layers) == 3
        assert report.layers[-1].shape == (4,)
        assert report.layers[-1].fired_a > 0


def test_a_voltage_that_is_one_step_off_is_found(blocks, twin, file):
    affine = blocks[3]
    affine.neuron.norm.value.data = affine.neuron.norm.bias / 64
    affine.neuron.norm.value.data[2] += 1 / 64
    for other, options in ((twin, {}), (file, {}), (file, {"integers": True})):
        report = check_equivalence(blocks, other, X, **options)
        assert [bool(found.mismatches) for found in report.layers] == [False, False, True]
        assert report.layers[-1].first.neuron == (2,)
        assert report.layers[-1].largest == 64  # of the 4096 that a voltage of 1 is


def test_a_float_net_has_no_sums_to_compare_and_is_measured_in_the_rest(parts, blocks, file):
    net = nn.Sequential(*parts)
    functional.set_step_mode(net, "m")
    for other, options in ((blocks, {}), (file, {"integers": True})):
        report = check_equivalence(net, other, X, **options)
        assert report.claim == "drift"
        assert len(report.layers) == 2


def test_single_steps_are_compared_too(twin, blocks):
    functional.set_step_mode(twin, "s")
    assert check_equivalence(twin, blocks, X).ok


def test_a_net_of_sums_alone_is_a_net():
    container = BlockContainer(nn.Linear(5, 3), None, "m")
    assert check_equivalence([container], [container.to_lava_block()], spikes(6, 2, 5)).ok
