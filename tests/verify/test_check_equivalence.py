"""The equivalence check: it finds what differs, where, and changes nothing."""

import copy
import re

import h5py
import numpy as np
import pytest
import torch
import torch.nn as nn
from hypothesis import given, strategies as st
from spikingjelly.activation_based import functional, layer, neuron

from lava_bridge import (
    BridgeError,
    TNX_to_NXT,
    check_equivalence,
    export_hdf5,
    load_hdf5,
    sides,
    slayer,
    to_slayer,
    to_spikingjelly,
)
from lava_bridge.exchange import AsSlayer, AsSpikingJelly
from lava_bridge.netx import Network
from lava_bridge.report import Divergence, LayerComparison
from lava_bridge.slayer.block import cuba

from ..convert.nets import conv_nets, spikes, widen_weights

SHAPE = (1, 8, 8)


def make_net(step_mode: str = "m") -> nn.Sequential:
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, bias=False),
        neuron.IFNode(),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Dropout(0.5),
        layer.Linear(4 * 9, 5, bias=False),
        neuron.LIFNode(tau=2.0, decay_input=False),
    )
    widen_weights(list(net), 6.0)
    functional.set_step_mode(net, step_mode)
    return net


@pytest.fixture
def net() -> nn.Sequential:
    return make_net()


@given(net=conv_nets(), delay_shift=st.booleans())
def test_twin_blocks_and_file_are_exact_for_random_nets(tmp_path_factory, net, delay_shift):
    layers, shape = net
    widen_weights(layers)
    blocks = to_slayer(layers, shape, delay_shift=delay_shift)
    twin = to_spikingjelly(to_slayer(layers, shape))
    path = tmp_path_factory.mktemp("net") / "net.net"
    export_hdf5(blocks, path)
    x = spikes(9, 3, *shape)
    for a, b in ((twin, blocks), (blocks, path), (path, twin), (twin, Network(path, aligned=True))):
        report = check_equivalence(a, b, x, batch_size=2)
        assert report.claim == "exact"
        assert report.ok, str(report)
        assert report.samples == 3
        assert len(report.layers) == sum(isinstance(m, neuron.BaseNode) for m in layers)


def test_one_changed_spike_is_found_and_placed(net):
    blocks = to_slayer(net, SHAPE)
    x = spikes(10, 5, *SHAPE)
    changed = copy.deepcopy(blocks)
    changed[-1].neuron.threshold = 5.0
    expected = TNX_to_NXT(x)
    before, after = blocks(expected), changed(expected)
    report = check_equivalence(blocks, changed, x, batch_size=2)
    conv, dense = report.layers
    differ = (before != after).permute(2, 0, 1).nonzero()[0].tolist()  # time, sample, neuron
    assert conv.mismatches == 0
    assert conv.first is None
    assert dense.mismatches == int((before != after).sum()) > 0
    assert (dense.first.time, dense.first.sample, *dense.first.neuron) == tuple(differ)
    assert dense.largest == 1
    assert dense.spikes == before.numel()
    assert dense.rate_a == int(before.sum()) / before.numel() > 0
    assert dense.drift == dense.mismatches / dense.spikes
    assert not report.ok
    assert report.verdict.startswith("NOT exact")
    assert f"t={differ[0]}" in str(report)


def test_a_float_net_is_drift_and_never_called_exact(net):
    report = check_equivalence(net, to_slayer(net, SHAPE), spikes(10, 5, *SHAPE))
    assert report.claim == "drift"
    assert report.verdict.startswith("drift")
    assert "exact" not in str(report)


def test_a_net_whose_weights_are_not_quantised_is_drift_even_with_cuba_neurons():
    twin = to_spikingjelly(to_slayer(make_net(), SHAPE))
    loose = nn.Sequential(layer.SeqToANNContainer(twin[0].synapse), twin[0].neuron)
    report = check_equivalence(loose, to_slayer(list(twin)[:1], SHAPE), spikes(4, 2, *SHAPE))
    assert report.claim == "drift"


def test_a_single_step_net_gives_the_report_of_the_multi_step_one():
    torch.manual_seed(1)
    multi = make_net("m")
    single = copy.deepcopy(multi)
    functional.set_step_mode(single, "s")
    x, blocks = spikes(10, 5, *SHAPE), to_slayer(multi, SHAPE)
    for a, b in zip(
        check_equivalence(multi, blocks, x).layers,
        check_equivalence(single, blocks, x).layers,
        strict=True,
    ):
        assert (a.mismatches, a.fired_a, a.first) == (b.mismatches, b.fired_a, b.first)


def test_the_layouts_give_the_same_report_and_arrays_and_integers_are_taken(net):
    x, blocks = spikes(10, 5, *SHAPE), to_slayer(net, SHAPE)
    expected = str(check_equivalence(net, blocks, x))
    assert str(check_equivalence(net, blocks, TNX_to_NXT(x), layout="NXT")) == expected
    assert str(check_equivalence(net, blocks, x.numpy())) == expected
    assert str(check_equivalence(net, blocks, x.numpy().astype(np.uint8))) == expected
    assert str(check_equivalence(net, blocks, x, batch_size=1)) == expected


def test_the_nets_are_left_as_they_were(net):
    x = spikes(6, 3, *SHAPE)
    blocks = to_slayer(net, SHAPE)
    blocks[1].neuron.persistent_state = True
    net(x)
    blocks(TNX_to_NXT(x))
    node = net[1]
    voltage, state = node.v, blocks[1].neuron.voltage_state
    copies = voltage.clone(), state.clone()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    hooks = [dict(m._forward_hooks) for m in net.modules()]
    report = check_equivalence(net, blocks, x)
    assert report.layers[0].fired_a > 0
    assert node.v is voltage
    assert blocks[1].neuron.voltage_state is state
    assert torch.equal(voltage, copies[0])
    assert torch.equal(state, copies[1])
    assert net.training
    assert blocks.training
    assert [dict(m._forward_hooks) for m in net.modules()] == hooks
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_run_that_fails_leaves_the_nets_as_they_were_too(net):
    net(spikes(6, 3, *SHAPE))
    voltage = net[1].v
    with pytest.raises(BridgeError, match="can't be run on an input of shape"):
        check_equivalence(net, to_slayer(net, SHAPE), spikes(6, 3, 1, 5, 5))
    assert net[1].v is voltage
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize(
    ("x", "layout", "what"),
    [
        (torch.zeros(4, 1), "TNX", "3 or more dimensions"),
        (torch.zeros(4, 0, *SHAPE), "TNX", "nothing to compare"),
        (torch.zeros(0, 4, *SHAPE), "TNX", "nothing to compare"),
        (np.array([[["spike"]]]), "TNX", "no array of numbers"),
        (torch.zeros(4, 1, *SHAPE), "NHWC", "'TNX' or 'NXT'"),
        (torch.full((4, 1, *SHAPE), torch.nan), "TNX", "NaN"),
    ],
)
def test_a_bad_input_is_named(net, x, layout, what):
    with pytest.raises(BridgeError, match=what):
        check_equivalence(net, to_slayer(net, SHAPE), x, layout=layout)


def test_nets_that_cannot_be_compared_are_named(net, tmp_path):
    x, blocks = spikes(4, 2, *SHAPE), to_slayer(net, SHAPE)
    with pytest.raises(BridgeError, match=r"^a: has no spiking neuron \(Linear\)"):
        check_equivalence(nn.Linear(2, 2), blocks, x)
    with pytest.raises(BridgeError, match=r"has 2 layers with neurons, b .* has 1"):
        check_equivalence(net, blocks[:2], x)
    other = [cuba.Conv({"threshold": 1, "current_decay": 1, "voltage_decay": 0}, 1, 3, 3)]
    with pytest.raises(BridgeError, match=r"\(2, 4, 6, 6, 4\), but .* \(2, 3, 6, 6, 4\)"):
        check_equivalence(blocks[:2], other, x)
    as_many = [cuba.Conv({"threshold": 1, "current_decay": 1, "voltage_decay": 0}, 1, 9, 5)]
    with pytest.raises(BridgeError, match=r"\(2, 4, 6, 6, 4\), but .* \(2, 9, 4, 4, 4\)"):
        check_equivalence(blocks[:2], as_many, x)
    with pytest.raises(BridgeError, match="there is no such file"):
        check_equivalence(net, tmp_path / "none.net", x)


def test_the_report_draws_every_layer_with_what_differs_in_red(net):
    pytest.importorskip("matplotlib")
    report = check_equivalence(net, to_slayer(net, SHAPE), spikes(10, 3, *SHAPE))
    figure = report.plot()
    assert len(figure.axes) == len(report.layers)
    for axis, compared in zip(figure.axes, report.layers, strict=True):
        shown_a, shown_b = compared.raster_a[:100], compared.raster_b[:100]
        same, differ = (len(points.get_offsets()) for points in axis.collections)
        assert same == int(((shown_a == shown_b) & (shown_a != 0)).sum())
        assert differ == int((shown_a != shown_b).sum())
    figure.canvas.draw()


def test_a_file_is_read_back_as_blocks_that_compare_with_those_it_came_from(net, tmp_path):
    blocks = to_slayer(net, SHAPE)
    export_hdf5(blocks, tmp_path / "net.net")
    assert check_equivalence(blocks, load_hdf5(tmp_path / "net.net"), spikes(9, 2, *SHAPE)).ok


def test_a_proof_of_nothing_is_refused(net):
    x, blocks = spikes(2, 2, *SHAPE), to_slayer(net, SHAPE)
    late = to_slayer(net, SHAPE, delay_shift=True)
    with pytest.raises(BridgeError, match="batch_size must be 1 or more"):
        check_equivalence(net, blocks, x, batch_size=0)
    with pytest.raises(BridgeError, match="come 2 steps late, and the input has 2"):
        check_equivalence(blocks, late, x)
    shared = neuron.IFNode(step_mode="m")
    twice = nn.Sequential(nn.Linear(4, 4, bias=False), shared, nn.Linear(4, 4, bias=False), shared)
    with pytest.raises(BridgeError, match="neuron 1 runs 2 times where 1 is expected"):
        check_equivalence(twice, twice, spikes(3, 2, 4))


@pytest.mark.parametrize("integers", [False, True])
def test_nets_without_a_neuron_prove_nothing_and_are_refused(integers, tmp_path):
    x, block = spikes(3, 2, 1, 4, 4), slayer.block.cuba
    blocks = [block.Input(delay_shift=False), block.Flatten()]
    export_hdf5(blocks, tmp_path / "n.net", input_shape=(1, 4, 4))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    for a, b, message in (
        (blocks, blocks, r"have no layer with neurons, so that there is nothing to compare; give"),
        (blocks, tmp_path / "n.net", "no layer is left to run|no layer with neurons"),
        (plain, blocks, r"a: has no spiking neuron \(Sequential\), .*; give a whole Spiking"),
        (blocks, 3, r"b: expected a SpikingJelly net, slayer blocks or the path .* found int"),
    ):
        with pytest.raises(BridgeError, match=message) as caught:
            check_equivalence(a, b, x, integers=integers and b == tmp_path / "n.net")
        assert "\n" not in str(caught.value)


def test_a_layer_that_never_fires_is_said_to_prove_little(net):
    blocks = to_slayer(net, SHAPE)
    report = check_equivalence(blocks, blocks, torch.zeros(4, 2, *SHAPE))
    assert report.ok
    assert report.verdict.endswith("(but no neuron fires in 1 Conv, 3 Dense)")
    for block in (blocks[1], blocks[-1]):
        block.synapse.weight.data.fill_(1.0)
    assert "no neuron" not in check_equivalence(blocks, blocks, torch.ones(4, 2, *SHAPE)).verdict


def test_checking_blocks_that_have_not_run_draws_nothing_for_them():
    params = {"threshold": 0.5, "current_decay": 0.5, "voltage_decay": 0.1, "shared_param": False}
    blocks = [cuba.Dense(params, 6, 4, delay=True)]
    before = {key: value.clone() for key, value in blocks[0].state_dict().items()}
    random = torch.get_rng_state()
    check_equivalence(blocks, blocks, spikes(5, 2, 6))
    assert torch.equal(torch.get_rng_state(), random)
    for key, value in blocks[0].state_dict().items():
        assert torch.equal(value, before[key])


def test_nested_lists_and_single_blocks_are_nets_too(net, tmp_path):
    blocks = to_slayer(net, SHAPE)
    x = spikes(6, 2, *SHAPE)
    nested = [list(net)[:2], tuple(list(net)[2:])]
    for a, b in zip(
        check_equivalence(nested, blocks, x).layers,
        check_equivalence(net, blocks, x).layers,
        strict=True,
    ):
        assert (a.mismatches, a.fired_a, a.first) == (b.mismatches, b.fired_a, b.first)
    export_hdf5(blocks[1], tmp_path / "one.net")
    assert check_equivalence(blocks[1], tmp_path / "one.net", x).ok


def test_the_originals_blocks_are_a_side_as_well(lava, net):
    x = spikes(6, 2, *SHAPE)
    report = check_equivalence(to_slayer(net, SHAPE, slayer=lava), to_slayer(net, SHAPE), x)
    assert report.claim == "exact"
    assert report.ok


def test_blocks_of_other_families_and_their_file_are_exact(tmp_path):
    turn = {"threshold": 0.4, "period": 8, "decay": 0.1}
    leak = {"threshold": 0.4, "current_decay": 0.2, "voltage_decay": 0.1}
    adaptation = {"threshold_step": 0.2, "threshold_decay": 0.1, "refractory_decay": 0.3}
    blocks = nn.Sequential(
        slayer.block.rf.Dense(turn, 6, 8, weight_scale=4),
        slayer.block.alif.Dense({**leak, **adaptation}, 8, 8, weight_scale=4),
        slayer.block.rf_iz.Recurrent(turn, 8, 5, weight_scale=4),
    )
    x = (torch.rand(3, 6, 40) < 0.5).float()
    export_hdf5(blocks, tmp_path / "net.net", input_shape=(6,))
    report = check_equivalence(blocks, tmp_path / "net.net", x, layout="NXT")
    assert report.ok
    assert all(row.rate_a > 0 for row in report.layers)


# Integers ---------------------------------------------------------------------------------------


def test_a_file_is_run_with_integers_if_asked(net, tmp_path):
    export_hdf5(to_slayer(net, SHAPE), tmp_path / "net.net")
    x = spikes(12, 3, *SHAPE)
    report = check_equivalence(
        to_spikingjelly(to_slayer(net, SHAPE)), tmp_path / "net.net", x, integers=True
    )
    assert report.claim == "exact"
    assert report.ok
    assert report.b.endswith("net.net (integers)")
    assert all(layer.fired_a for layer in report.layers)
    assert [layer.name_b for layer in report.layers] == ["layer/1 Conv", "layer/3 Dense"]


def test_a_wrong_integer_is_found(net, tmp_path):
    blocks = to_slayer(net, SHAPE)
    export_hdf5(blocks, tmp_path / "net.net")
    with h5py.File(tmp_path / "net.net", "a") as file:
        file["layer/1/neuron/vThMant"][...] //= 2
    report = check_equivalence(blocks, tmp_path / "net.net", spikes(12, 3, *SHAPE), integers=True)
    assert not report.ok
    assert report.layers[0].mismatches
    assert "24 bits" not in report.verdict


def test_the_state_of_a_network_is_left_as_it_was(net, tmp_path):
    blocks = to_slayer(net, SHAPE)
    export_hdf5(blocks, tmp_path / "net.net")
    network = Network(tmp_path / "net.net")
    x = TNX_to_NXT(spikes(12, 3, *SHAPE))
    whole = network.run(x)
    network.run(x[..., :5])
    check_equivalence(blocks, network, spikes(12, 2, *SHAPE))
    assert torch.equal(network.run(x[..., 5:], resume=True), whole[..., 5:])


def test_a_net_that_leaves_the_24_bits_of_the_chip_is_said_to(tmp_path):
    block = cuba.Dense(
        {"threshold": 2000, "current_decay": 0.0, "voltage_decay": 1.0}, 2, 1, delay_shift=False
    )
    block.synapse.weight.data = torch.full((1, 2, 1, 1, 1), 2.0)
    export_hdf5([block], tmp_path / "net.net", input_shape=(2,))
    report = check_equivalence(block, tmp_path / "net.net", torch.ones(600, 2, 2), integers=True)
    assert not report.ok
    assert re.search(
        r"24 bits do not hold this net: they end in layer/0 Dense at sample 0, t=512, neuron \(0\)",
        report.verdict,
    )


def test_states_that_leave_24_bits_before_the_input_comes_are_placed_at_its_first_step():
    compared, beyond = LayerComparison("a", "b", (2,)), torch.zeros(1, 2, 6)
    beyond[0, 0, 4] = beyond[0, 1, 1] = 1
    compared.add_beyond(sides.begun(beyond, 2), 3)
    assert compared.beyond == Divergence(3, 0, (1,))


# What is left from before, and what can't be compared --------------------------------------------


@pytest.mark.parametrize("family", ["alif", "rf", "adrf_iz", "sigma_delta"])
def test_blocks_of_every_family_with_persistent_state_run_from_a_fresh_one(family, tmp_path):
    params = {
        "alif": {"threshold": 0.4, "current_decay": 0.2, "voltage_decay": 0.1},
        "rf": {"threshold": 0.4, "period": 8, "decay": 0.1},
        "adrf_iz": {"threshold": 0.4, "period": 8, "decay": 0.1},
        "sigma_delta": {"threshold": 0.1, "activation": torch.relu},
    }[family]
    if family in ("alif", "adrf_iz"):
        params |= {"threshold_step": 0.2, "threshold_decay": 0.1, "refractory_decay": 0.3}
    made = getattr(slayer.block, family).Dense
    block = made({**params, "persistent_state": True}, 6, 8, weight_scale=4, delay_shift=True)
    x = (torch.rand(3, 6, 20) < 0.5).float()
    export_hdf5([block], tmp_path / "net.net", input_shape=(6,))
    first = block(x)
    report = check_equivalence(block, tmp_path / "net.net", x, layout="NXT")
    assert report.ok, report.verdict
    second = block(x)
    fresh = made({**params, "persistent_state": True}, 6, 8, weight_scale=4, delay_shift=True)
    fresh.load_state_dict(block.state_dict())
    assert torch.equal(fresh(x), first)
    assert torch.equal(fresh(x), second)  # the check has left the state as it was


def test_a_net_of_both_frameworks_is_not_half_compared():
    dense = slayer.block.cuba.Dense(
        {"threshold": 1, "current_decay": 0.5, "voltage_decay": 0.5}, 4, 4
    )
    for mixed in (
        nn.Sequential(AsSpikingJelly(dense), neuron.IFNode()),
        nn.Sequential(dense, AsSlayer(neuron.IFNode())),
        [dense, AsSlayer(neuron.IFNode())],
    ):
        with pytest.raises(BridgeError, match=r"a: a net of both frameworks .*; check its parts"):
            check_equivalence(mixed, mixed, spikes(6, 2, 4))
    assert check_equivalence(dense, dense, spikes(6, 2, 4)).ok


def trained(dtype=torch.float32):
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Linear(300, 40), neuron.IFNode(0.2), layer.Linear(40, 30), neuron.IFNode(0.1)
    )
    functional.set_step_mode(net, "m")
    return net.to(dtype)


def factors(blocks):
    return [getattr(block, "weight_factor", None) for block in blocks]


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_exact_claims_and_calibration_hold_under_autocast(half, tmp_path):
    net, x = trained(), (torch.rand(12, 8, 300) < 0.3).float()
    expected = factors(to_slayer(net, (300,), calibrate=x))
    with torch.autocast("cpu", dtype=half):
        blocks = to_slayer(net, (300,), calibrate=x)
        assert factors(blocks) == expected
        export_hdf5(blocks, tmp_path / "n.net")
        for a, b in ((to_spikingjelly(blocks), blocks), (blocks, tmp_path / "n.net")):
            assert check_equivalence(a, b, x).ok
        assert check_equivalence(blocks, tmp_path / "n.net", x, integers=True).ok


@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_nets_of_another_default_dtype_are_checked(given, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        blocks = to_slayer(trained(torch.float64), (300,), calibrate="weights")
        export_hdf5(blocks, tmp_path / "n.net")
        x = (torch.rand(12, 4, 300) < 0.3).to(given)
        assert check_equivalence(to_spikingjelly(blocks), blocks, x).ok
        for integers in (False, True):
            assert check_equivalence(blocks, tmp_path / "n.net", x, integers=integers).ok
    finally:
        torch.set_default_dtype(torch.float32)
