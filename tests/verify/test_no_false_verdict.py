"""Nets that differ are never called the same, and a net is the same as itself."""

import copy

import pytest
import torch
from spikingjelly.activation_based import encoding, functional, layer, neuron
from torch import nn

from lava_bridge import check_equivalence, export_hdf5, to_slayer, to_spikingjelly
from lava_bridge.errors import BridgeError
from lava_bridge.exchange import BlockContainer, CubaLIFNode
from lava_bridge.netx import Network
from lava_bridge.report import EquivalenceReport
from lava_bridge.slayer import block
from lava_bridge.slayer.neuron.norm import ChannelBias

CUBA = {"threshold": 0.3, "current_decay": 0.3, "voltage_decay": 0.1}
SIGMA_DELTA = {"threshold": 0.1, "activation": torch.nn.functional.relu}


def spikes(steps=12, batch=4, *shape):
    return (torch.rand(steps, batch, *(shape or (20,))) < 0.5).float()


def net(*more):
    return nn.Sequential(
        nn.Linear(20, 16, bias=False),
        neuron.IFNode(step_mode="m", v_threshold=0.3),
        nn.Linear(16, 10, bias=False),
        neuron.IFNode(step_mode="m", v_threshold=0.2),
        *more,
    )


def dense(inputs, outputs):
    return block.cuba.Dense(CUBA, inputs, outputs, weight_scale=4)


class Cleared(nn.Module):
    """Computes in place, which its input does not survive."""

    def forward(self, x):
        return x.mul_(0)


class Held(nn.Module):
    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        return self.held(x)


@pytest.mark.parametrize("integers", [False, True])
def test_what_follows_the_last_neuron_is_of_one_size(integers, tmp_path):
    float_net = net(layer.VotingLayer(5, step_mode="m"))
    twin = to_spikingjelly(to_slayer(float_net, (20,)))
    for votes in (2, 5):
        other = nn.Sequential(*float_net[:4], layer.VotingLayer(votes, step_mode="m"))
        export_hdf5(to_slayer(other, (20,)), tmp_path / f"{votes}.net")
    with pytest.raises(BridgeError, match=r"gives \(4, 2, 12\), but .* gives \(4, 5, 12\)"):
        check_equivalence(twin, tmp_path / "2.net", spikes(), integers=integers)
    assert check_equivalence(twin, tmp_path / "5.net", spikes(), integers=integers).ok
    with pytest.raises(BridgeError, match="after their last neurons"):
        check_equivalence(nn.Sequential(*twin, nn.Linear(2, 3)), tmp_path / "5.net", spikes())


def test_what_a_net_does_in_place_reaches_neither_the_other_net_nor_the_input():
    blocks = to_slayer(net(), (20,))
    twin = to_spikingjelly(blocks)
    x = spikes()
    before = x.clone()
    assert not check_equivalence(nn.Sequential(Cleared(), *twin), blocks, x).ok
    assert check_equivalence(twin, blocks, x.numpy()).ok
    assert torch.equal(x, before)


def test_spikes_that_a_later_layer_overwrites_are_compared_as_they_were():
    first, other = dense(20, 10), dense(20, 10)
    nets = [[one, Cleared(), dense(10, 3)] for one in (first, other)]
    assert not check_equivalence(*nets, spikes()).ok
    plain = net()
    overwriting = nn.Sequential(*plain[:2], Cleared(), *plain[2:])
    report = check_equivalence(overwriting, to_slayer(plain, (20,), calibrate="weights"), spikes())
    assert report.layers[0].rate_a > 0.1
    assert report.layers[0].drift < 0.05


def test_blocks_are_found_in_a_sequential_and_refused_in_what_has_a_forward_of_its_own():
    first, one, other = dense(20, 16), dense(16, 10), dense(16, 10)
    nested = [nn.Sequential(first, nn.Sequential(last)) for last in (one, other)]
    assert not check_equivalence(*nested, spikes()).ok
    assert check_equivalence(nested[0], [first, [one]], spikes()).ok
    for held in ([first, Held(one)], nn.Sequential(first, Held(one))):
        with pytest.raises(BridgeError, match="has slayer blocks inside a Held"):
            check_equivalence(held, held, spikes())


class Counting(nn.Module):
    """A state that only ``reset`` forgets, in a buffer, a list and a number."""

    def __init__(self):
        super().__init__()
        self.register_buffer("sum", torch.zeros(1))
        self.seen: list[int] = []
        self.steps = 0

    def reset(self):
        self.sum.zero_()
        self.seen.clear()
        self.steps = 0

    def forward(self, x):
        self.steps += 1
        self.seen.append(self.steps)
        self.sum += 0.01
        return x + self.sum * len(self.seen)


@pytest.mark.parametrize("made", [lambda: layer.Delay(2), Counting])
def test_a_net_is_the_same_as_itself_and_as_before(made):
    remembers = nn.Sequential(made(), nn.Linear(20, 10, bias=False), neuron.IFNode(0.3))
    x = spikes()

    def run():
        functional.reset_net(remembers)
        return torch.stack([remembers(step) for step in x]).detach()

    before = run()
    remembers(x[0])  # in the middle of something
    state = copy.deepcopy({k: v for k, v in vars(remembers[0]).items() if k != "_modules"})
    assert check_equivalence(remembers, remembers, x).drift == 0
    assert check_equivalence(remembers, remembers, x, batch_size=2).drift == 0
    for name in ("steps", "seen", "_memories"):
        assert str(state.get(name)) == str(vars(remembers[0]).get(name))
    assert torch.equal(run(), before)


def test_random_encoders_draw_the_same_on_both_sides_and_nothing_from_the_user():
    random = nn.Sequential(encoding.PoissonEncoder(step_mode="m"), *net())
    x = spikes() * 0.5
    state = torch.get_rng_state()
    assert check_equivalence(random, random, x).drift == 0
    assert torch.equal(torch.get_rng_state(), state)


class OpensSteps(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = nn.Sequential(nn.Linear(20, 10, bias=False), neuron.IFNode(0.3))

    def forward(self, x):
        return functional.multi_step_forward(x, self.steps)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_forward_that_opens_the_steps_itself_is_run_as_it_wants(batch):
    opens = OpensSteps()
    report = check_equivalence(
        opens, to_slayer(opens, (20,), calibrate="weights"), spikes(12, batch)
    )
    assert report.layers[0].shape == (10,)
    assert report.layers[0].rate_a > 0.05
    assert report.drift < 0.05
    recurrent = layer.LinearRecurrentContainer(neuron.IFNode(0.3), 10, 10)
    functional.set_step_mode(recurrent, "m")
    whole = nn.Sequential(nn.Linear(20, 10), recurrent)
    report = check_equivalence(whole, whole, spikes(12, batch))
    assert (report.drift, report.layers[0].shape) == (0, (10,))


def test_whatever_a_net_raises_is_one_line():
    class Fussy(nn.Module):
        def __init__(self):
            super().__init__()
            self.node = neuron.IFNode()

        def forward(self, x):
            assert x.dim() == 5, "frames, please"
            return self.node(x)

    with pytest.raises(BridgeError, match=r"can't be run on .*: frames, please"):
        check_equivalence(Fussy(), Fussy(), spikes())


def test_a_network_is_run_as_a_file_is(tmp_path):
    biased = nn.Sequential(
        nn.Linear(20, 16),
        neuron.LIFNode(step_mode="m", v_threshold=0.3),
        nn.Linear(16, 10),
        neuron.LIFNode(step_mode="m", v_threshold=0.05),
    )
    nn.init.constant_(biased[2].bias, 0.06)
    blocks = to_slayer(biased, (20,), calibrate="weights")
    export_hdf5(blocks, tmp_path / "net.net")
    network = Network(tmp_path / "net.net")
    x = spikes()
    before = network.run(x, layout="TNX")
    network.reset()
    report = check_equivalence(blocks, network, x)
    assert report.ok
    assert report.layers[1].rate_a > 0
    assert torch.equal(network.run(x, layout="TNX"), before)


@pytest.mark.parametrize("whole", [True, False])
def test_integers_of_sigma_delta_layers_without_an_input_block(whole, tmp_path):
    blocks = nn.Sequential(
        block.sigma_delta.Dense(SIGMA_DELTA, 20, 16, weight_scale=4),
        block.sigma_delta.Output(SIGMA_DELTA, 16, 5, weight_scale=4),
    )
    export_hdf5(blocks, tmp_path / "net.net", input_shape=(20,))
    x = torch.randint(-9000, 9000, (12, 4, 20)) / (4096 if whole else 4100)
    for file in (tmp_path / "net.net", Network(tmp_path / "net.net", input_message_bits=16)):
        if whole:
            report = check_equivalence(blocks, file, x, integers=True)
            assert report.ok
            assert report.layers[0].rate_a > 0.1
        else:
            with pytest.raises(BridgeError, match="no whole parts of 1/4096"):
                check_equivalence(blocks, file, x, integers=True)


def test_silence_is_said_of_a_drift_too():
    alive = net()
    dead = copy.deepcopy(alive)
    for weight in dead.parameters():
        nn.init.zeros_(weight)
    blocks = to_slayer(alive, (20,), calibrate="weights")
    assert "no neuron fires" not in check_equivalence(alive, blocks, spikes()).verdict
    assert (
        "but no neuron fires in 1, 3 of a (float"
        in check_equivalence(dead, blocks, spikes()).verdict
    )
    assert "but no neuron fires in 1, 3)" in check_equivalence(alive, blocks, spikes() * 0).verdict
    assert (
        "(but no neuron fires in 1 Dense" in check_equivalence(blocks, blocks, spikes() * 0).verdict
    )


def test_reports_can_be_compared_and_merged():
    blocks, x = to_slayer(net(), (20,)), spikes(12, 3)
    whole = check_equivalence(blocks, blocks, x)
    assert whole == check_equivalence(blocks, blocks, x)
    assert whole != check_equivalence(blocks, blocks, x[:, :2])
    parts = [check_equivalence(blocks, blocks, x[:, rows]) for rows in (slice(2), slice(2, 3))]
    assert EquivalenceReport.merged(parts) == whole
    assert EquivalenceReport.merged(parts).input_shape == (3, 20, 12)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_integers_are_compared_in_every_step_also_of_deep_nets(steps, biased, tmp_path):
    layers = [
        part
        for _ in range(5)
        for part in (nn.Linear(20, 20, bias=biased), neuron.IFNode(0.2, step_mode="m"))
    ]
    file, x = tmp_path / "n.net", spikes(steps, 3)
    blocks = to_slayer(nn.Sequential(*layers), (20,), calibrate="weights")
    export_hdf5(blocks, file)
    report = check_equivalence(blocks, file, x, integers=True)
    assert report.ok
    assert [part.spikes for part in report.layers] == [steps * 3 * 20] * 5
    # Blocks that delay: so does their file, and all of their steps are there.
    late = to_slayer(nn.Sequential(*layers), (20,), calibrate="weights", delay_shift=True)
    for integers in (False, True):
        export_hdf5(late, file)
        report = check_equivalence(late, file, x, integers=integers)
        assert report.ok
        assert [part.spikes for part in report.layers] == [steps * 3 * 20] * 5
    # Later than the net's own spikes, of which the last ones then are not compared.
    if steps < 6:
        with pytest.raises(BridgeError, match=f"come {steps} steps late, and the input has"):
            check_equivalence(blocks, late, x)
    elif not biased:
        report = check_equivalence(blocks, late, x)
        assert report.ok
        assert [part.spikes for part in report.layers] == [(steps - k) * 60 for k in range(1, 6)]


def test_a_difference_in_the_last_step_of_the_last_layer_is_found(tmp_path):
    blocks = [dense(20, 16), dense(16, 10), dense(10, 6)]
    for part in blocks:
        part.delay_shift = False
    file, x = tmp_path / "n.net", spikes(3)
    export_hdf5(blocks, file, input_shape=(20,))
    assert check_equivalence(blocks, file, x, integers=True).ok
    other = copy.deepcopy(blocks)
    fired = []

    def hook(_, __, y):
        y = y.clone()
        y[0, 0, -1] = 1 - y[0, 0, -1]
        fired.append(y)
        return y

    other[-1].register_forward_hook(hook)
    report = check_equivalence(other, file, x, integers=True)
    assert fired
    assert [part.mismatches for part in report.layers] == [0, 0, 1]
    assert report.layers[-1].first.time == 2


def test_a_net_of_containers_that_pools_by_a_maximum_is_its_own_conversion(tmp_path):
    def quantised(synapse):
        node = CubaLIFNode(1.0, 0.5, v_threshold=0.3)
        return BlockContainer(synapse, node, step_mode="m")

    made = nn.Sequential(
        quantised(nn.Conv2d(2, 4, 3, bias=False)),
        layer.MaxPool2d(2, step_mode="m"),
        quantised(nn.Conv2d(4, 4, 2, bias=False)),
    )
    x, file = spikes(12, 3, 2, 8, 8), tmp_path / "n.net"
    blocks = to_slayer(made, (2, 8, 8))
    export_hdf5(blocks, file)
    for other, integers in ((blocks, False), (file, False), (file, True)):
        report = check_equivalence(made, other, x, integers=integers)
        assert report.ok
        assert len(report.layers) == 2
        assert check_equivalence(blocks, other, x, integers=integers).layers[1].spikes
    made[2].synapse.weight.data[0] += 1
    assert not check_equivalence(made, blocks, x).ok
    with pytest.raises(BridgeError, match=r"has 1 layers with neurons, b .* has 3; compare nets"):
        check_equivalence(made[:2], blocks, x)


@pytest.mark.parametrize("integers", [False, True])
def test_a_difference_before_the_input_has_come_to_a_delayed_layer_is_one(integers, tmp_path):
    """As of a bias that only one of two nets has: it fires at once, and then inhibition ends it."""

    def made(bias):
        neuron = {**CUBA, "norm": ChannelBias}
        parts = [block.cuba.Dense(dict(CUBA), 2, 3), block.cuba.Dense(neuron, 3, 1)]
        for part, weight in zip(parts, (2.0, -3.0), strict=True):
            part.infer_shape((part.synapse.in_channels,))
            part.synapse.weight.data.fill_(weight)
        parts[1].neuron.norm.value.data = torch.full((1,), bias)
        return parts

    a, b, x = made(1.5), made(0.0), torch.ones(6, 1, 2)
    export_hdf5(b, tmp_path / "b.net")
    other = tmp_path / "b.net" if integers else b
    assert check_equivalence(b, other, x, integers=integers).ok
    report = check_equivalence(a, other, x, integers=integers)
    assert [part.mismatches > 0 for part in report.layers] == [False, True]
    assert report.layers[1].first.time <= 1


def test_a_last_layer_that_the_other_net_has_not_is_no_exact_match(tmp_path):
    at_once = {**CUBA, "current_decay": 1, "voltage_decay": 1}
    first, last = dense(20, 16), block.cuba.Dense(at_once, 16, 16)
    export_hdf5([first, last], tmp_path / "n.net", input_shape=(20,))
    for other, integers in (([first, last], False), (tmp_path / "n.net", True)):
        with pytest.raises(BridgeError, match=r"has 1 layers with neurons, .* has 2; compare nets"):
            check_equivalence([first], other, spikes(), integers=integers)
    # A float net has no neurons where a pooling by the maximum ends it.
    float_net = nn.Sequential(
        layer.Conv2d(1, 2, 3, step_mode="m"),
        neuron.IFNode(0.2, step_mode="m"),
        layer.MaxPool2d(2, step_mode="m"),
    )
    report = check_equivalence(float_net, to_slayer(float_net, (1, 6, 6)), spikes(5, 2, 1, 6, 6))
    assert report.claim == "drift"


def test_a_container_that_forgets_is_compared_beside_a_pooling_that_the_net_has_not():
    def container(synapse, voltage_decay):
        node = CubaLIFNode(1.0, voltage_decay, v_threshold=0.3)
        return BlockContainer(synapse, node, step_mode="m")

    twin = nn.Sequential(
        container(nn.Conv2d(1, 3, 3, bias=False), 1.0),
        layer.MaxPool2d(2, step_mode="m"),
        container(nn.Conv2d(3, 2, 2, bias=False), 0.5),
    )
    report = check_equivalence(twin, to_slayer(twin, (1, 8, 8)), spikes(5, 2, 1, 8, 8))
    assert report.ok
    assert [part.shape for part in report.layers] == [(3, 6, 6), (2, 2, 2)]
