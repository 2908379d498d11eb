"""Calls that would compare something else than what was meant: each is one line that says so."""

from functools import partial

import pytest
import torch
import torch.nn as nn
from spikingjelly.activation_based import neuron

from lava_bridge import (
    BridgeError,
    check_equivalence,
    export_hdf5,
    load_hdf5,
    to_slayer,
    to_spikingjelly,
)
from lava_bridge.chip import CHIPS, check_chip
from lava_bridge.exchange import AsSlayer, AsSpikingJelly
from lava_bridge.netx import Network
from lava_bridge.slayer.block import cuba

from ..convert.nets import spikes

LEAK = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}


class Plain(nn.Module):
    """A net as lava-dl's tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [cuba.Dense(LEAK, 6, 5, weight_scale=4), cuba.Dense(LEAK, 5, 3, weight_scale=4)]
        )

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Tutorial(Plain):
    def export_hdf5(self, filename):
        raise AssertionError("not asked for")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "n.net"


@pytest.mark.parametrize("value", [2, 255, -1, 0.5])
def test_an_input_that_is_no_spikes_is_no_mismatch_of_the_nets(path, value):
    net = Plain()
    export_hdf5(net.blocks, path)
    x = spikes(8, 2, 6)
    assert check_equivalence(net.blocks, path, x, integers=True).ok
    x[3, 1, 2] = value
    with pytest.raises(BridgeError, match=r"n\.net \(integers\): .* other than 0 and 1, .*; give"):
        check_equivalence(net.blocks, path, x, integers=True)
    assert check_equivalence(net.blocks, path, x).ok  # both as blocks: the same numbers


def test_integers_are_asked_of_a_file(path):
    net, x = Plain(), spikes(8, 2, 6)
    export_hdf5(net.blocks, path)
    with pytest.raises(BridgeError, match=r"integers=True runs a .net file .*; give the path"):
        check_equivalence(net.blocks, list(net.blocks), x, integers=True)
    assert check_equivalence(str(path), net.blocks, x, integers=True).ok


@pytest.mark.parametrize("make", [Plain, Tutorial])
def test_a_net_that_holds_blocks_is_told_from_a_block(make, path):
    net, x = make(), spikes(8, 2, 6)
    for call in (
        lambda: export_hdf5(net, path),
        lambda: to_spikingjelly(net),
        lambda: check_chip(net, CHIPS["loihi2"]),
        lambda: check_equivalence(net, net, x),
    ):
        with pytest.raises(BridgeError, match=rf"{make.__name__}.*; give the blocks .*net\.blocks"):
            call()
    assert not path.exists()


def test_a_module_list_of_blocks_is_a_list_of_them(path):
    net, x = Plain(), spikes(8, 2, 6)
    export_hdf5(net.blocks, path)
    assert check_equivalence(net.blocks, load_hdf5(path), x).ok
    expected = net(x.movedim(0, -1)).movedim(-1, 0)
    held = AsSpikingJelly(net.blocks, step_mode="m")
    assert torch.equal(held(x), expected)
    assert list(held.state_dict()) == [f"module.{key}" for key in net.blocks.state_dict()]


def test_an_adapter_among_exported_blocks_is_to_be_converted_first(path):
    with pytest.raises(
        BridgeError, match=r"^1 \(AsSlayer\): .*, of a mixed net its SpikingJelly parts"
    ):
        export_hdf5([cuba.Dense(LEAK, 6, 5), AsSlayer(nn.Linear(5, 3))], path)


def test_what_is_blocks_already_is_not_converted_and_says_so():
    block = cuba.Dense(LEAK, 6, 5)
    with pytest.raises(BridgeError, match=r"^0 \(Dense\): is a slayer block already; "):
        to_slayer([block], (6,))
    with pytest.raises(BridgeError, match=r"^0 \(AsSpikingJelly\): holds slayer blocks already; "):
        to_slayer([AsSpikingJelly(block)], (6,))


@pytest.mark.parametrize("integers", [True, False])
def test_samples_of_another_shape_are_told_in_the_order_of_the_input(path, integers):
    blocks = to_slayer([nn.Conv2d(1, 2, 3), neuron.IFNode()], (1, 6, 4))
    export_hdf5(blocks, path)
    x = spikes(8, 2, 1, 6, 4)
    assert check_equivalence(blocks, path, x, integers=integers).ok
    if integers:
        message = (
            r"n\.net: expected samples of shape \(1, 6, 4\), found \(1, 6, 3\); give the input"
        )
        with pytest.raises(BridgeError, match=message):
            check_equivalence(blocks, path, x[..., :3], integers=True)


@pytest.mark.parametrize("size", [None, "a", 1.5, [2]])
def test_a_batch_size_is_an_integer(size):
    net, x = Plain(), spikes(8, 3, 6)
    with pytest.raises(
        BridgeError, match=r"^check_equivalence: batch_size: .* is no integer; give"
    ):
        check_equivalence(net.blocks, net.blocks, x, batch_size=size)
    assert check_equivalence(net.blocks, net.blocks, x, batch_size=2.0).ok


def test_tensors_without_numbers_to_compute_with_are_refused_in_one_line(path):
    net, x = Plain(), spikes(8, 2, 6)
    export_hdf5(net.blocks, path)
    run = Network(path).run
    for given, message in (
        (torch.nested.nested_tensor([x[0], x[1]]), "a nested tensor of 2, .*to_padded_tensor"),
        (
            torch.quantize_per_tensor(x, 1.0, 0, torch.quint8),
            r"a quint8 tensor .*x\.dequantize\(\)",
        ),
        (x.to("meta"), r"a float32 tensor of shape \(8, 2, 6\), no array .*'meta'"),
    ):
        for place, call in (
            ("check_equivalence: the input is", partial(check_equivalence, net.blocks, path)),
            ("run: the input is", run),
        ):
            with pytest.raises(BridgeError, match=f"^{place} {message}") as caught:
                call(given)
            assert "\n" not in str(caught.value)


def test_sparse_inputs_are_taken_as_dense(path):
    net, x = Plain(), spikes(8, 3, 6)
    export_hdf5(net.blocks, path)
    given = x.to_sparse()
    assert check_equivalence(net.blocks, path, given).samples == 3
    assert torch.equal(Network(path).run(given, layout="TNX"), Network(path).run(x, layout="TNX"))


def test_an_input_in_the_other_layout_is_said_with_its_shape():
    params = {"threshold": 0.5, "current_decay": 0.3, "voltage_decay": 0.1}
    blocks = [cuba.Dense(params, 20, 16), cuba.Dense(params, 16, 4)]
    x = torch.rand(4, 20, 30)
    with pytest.raises(
        BridgeError, match=r"\(layout='TNX' takes x \(4, 20, 30\) for \[T, N, \*\]\)"
    ):
        check_equivalence(blocks, blocks, x)
    assert check_equivalence(blocks, blocks, x, layout="NXT").samples == 4
