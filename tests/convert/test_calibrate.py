"""What calibration chooses: within the chip's integers, without a change of what they allow."""

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings, strategies as st
from sklearn.datasets import load_digits
from spikingjelly.activation_based import functional, layer, neuron, surrogate

import lava_bridge
from lava_bridge.convert import FloatLayer, calibrate
from lava_bridge.convert.build import build_blocks
from lava_bridge.convert.layer_run import FloatRun, QuantisedRun
from lava_bridge.exchange import BatchNorm2d, CubaLIFNode, SumPool2d
from lava_bridge.exchange.to_lava import block_of
from lava_bridge.layout import NXT_to_TNX, TNX_to_NXT

from .nets import spikes

STATE_BOUND = (1 << 23) / 4096


def linear(weight, bias=None):
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made


def if_node(threshold=1.0):
    return neuron.IFNode(v_threshold=threshold, step_mode="m")


def lif_node(threshold=1.0, tau=2.0):
    return neuron.LIFNode(tau, decay_input=False, v_threshold=threshold, step_mode="m")


def single(synapse, node):
    return [FloatLayer("0 (Linear)", synapse, node)]


def quantised(layers, factors, x):
    with torch.no_grad():
        for part, factor in zip(layers, factors, strict=True):
            x = QuantisedRun(part, factor)(x)
    return x


def in_floats(layers, x):
    with torch.no_grad():
        for part in layers:
            x = FloatRun(part)(x)
    return x


NODES = st.one_of(
    st.builds(if_node, st.floats(0.05, 5.0)),
    st.builds(lif_node, st.floats(0.05, 5.0), st.floats(1.1, 20.0)),
)


# The claim that it rests on -----------------------------------------------------------------------


@given(node=NODES, factor=st.floats(1e-3, 1e3), seed=st.integers(0, 999), bias=st.booleans())
def test_weights_bias_and_threshold_times_any_factor_give_the_same_spikes(node, factor, seed, bias):
    torch.manual_seed(seed)
    weight = torch.randn(5, 7, dtype=torch.float64)
    shift = torch.randn(5, dtype=torch.float64) / 4 if bias else None
    x = spikes(12, 3, 7, seed=seed).double()
    before = node(linear(weight, shift)(x))
    functional.reset_net(node)
    node.v_threshold *= factor
    scaled = linear(weight * factor, None if shift is None else shift * factor)
    assert torch.equal(node(scaled(x)), before)


@given(
    finer=st.integers(0, 4),
    threshold=st.one_of(st.integers(1, 200).map(lambda n: n / 64), st.floats(0.05, 3.0)),
    biased=st.booleans(),
    with_data=st.booleans(),
    seed=st.integers(0, 999),
)
def test_if_nets_on_a_grid_of_8_bits_keep_every_spike_of_the_float_net(
    finer, threshold, biased, with_data, seed
):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for outputs, inputs in ((6, 8), (4, 6)):
        grid = 2.0**-finer / 64
        weight = 2 * grid * torch.randint(-60, 61, (outputs, inputs), generator=generator)
        bias = torch.randint(-40, 41, (outputs,), generator=generator) * grid if biased else None
        layers += single(linear(weight, bias), if_node(threshold))
    x = spikes(15, 3, 8, seed=seed)
    found = calibrate(layers, x if with_data else None)
    assert torch.equal(quantised(layers, found.factors, x), in_floats(layers, x))
    if with_data:
        assert [choice.error for choice in found.layers] == [0, 0]


@given(window=st.integers(1, 3), threshold=st.integers(1, 9).map(float), seed=st.integers(0, 99))
def test_a_pooling_before_an_if_node_keeps_every_spike_where_sums_meet_the_threshold(
    window, threshold, seed
):
    layers = [FloatLayer("0 (AvgPool2d)", SumPool2d(window), if_node(threshold))]
    x = spikes(9, 2, 2, 6, 6, seed=seed)
    found = calibrate(layers)
    assert torch.equal(quantised(layers, found.factors, x), in_floats(layers, x))
    assert found.layers[0].threshold == 64 * threshold - 1
    assert found.layers[0].limit == "weights of 1"


@given(node=NODES, size=st.floats(-6, 2), seed=st.integers(0, 999))
def test_a_run_of_a_calibrated_layer_is_its_slayer_block(node, size, seed):
    torch.manual_seed(seed)
    layers = single(linear(torch.randn(5, 8) * 10**size), node)
    x = spikes(10, 2, 8, seed=seed)
    (factor,) = calibrate(layers).factors
    scaled = linear(layers[0].synapse.weight.detach() * factor)
    block = block_of(scaled, node, threshold_factor=factor)
    assert torch.equal(NXT_to_TNX(block(TNX_to_NXT(x))).detach(), quantised(layers, [factor], x))
    assert block.neuron.device_params["vThMant"] == calibrate(layers).layers[0].threshold


@settings(max_examples=15)
@given(seed=st.integers(0, 999), size=st.floats(-3, 1), with_data=st.booleans())
def test_the_blocks_of_a_whole_net_run_as_the_calibration_saw_them(seed, size, with_data):
    torch.manual_seed(seed)
    layers = [
        FloatLayer("conv", nn.Conv2d(2, 4, 3, padding=1), if_node(10**size)),
        FloatLayer("pool", SumPool2d(2), if_node(4.0)),
        FloatLayer("up", nn.Upsample(scale_factor=(2.0, 2.0)), if_node()),
        FloatLayer("spread", nn.ConvTranspose2d(4, 3, 2, stride=2), lif_node(10**size, 3.0)),
        FloatLayer("flat", nn.Flatten(), None),
        FloatLayer("dense", nn.Linear(3 * 12 * 12, 9), lif_node(10**size)),
        FloatLayer("logits", nn.Linear(9, 4), None),
    ]
    with torch.no_grad():
        for part in layers:
            for parameter in part.synapse.parameters():
                parameter.mul_(3 * 10**size)
    x = spikes(6, 2, 2, 6, 6, seed=seed)
    factors = calibrate(layers, x if with_data else None).factors
    blocks = nn.Sequential(*build_blocks(layers, (2, 6, 6), factors=factors))
    with torch.no_grad():
        found = NXT_to_TNX(blocks(TNX_to_NXT(x)))
    assert torch.equal(found, quantised(layers, factors, x))
    assert found.any()


# Bounds -------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    size=st.floats(-9, 4),
    bias_size=st.none() | st.floats(-9, 4),
    threshold=st.floats(-6, 5).map(lambda e: 10**e),
    leaky=st.booleans(),
    with_data=st.booleans(),
    clip=st.sampled_from(["mse", "none"]),
    seed=st.integers(0, 999),
)
def test_what_is_chosen_lies_within_the_chips_integers(
    size, bias_size, threshold, leaky, with_data, clip, seed
):
    torch.manual_seed(seed)
    weight = torch.randn(3, 6) * 10**size
    bias = None if bias_size is None else torch.randn(3) * 10**bias_size
    node = lif_node(threshold) if leaky else if_node(threshold)
    layers = single(linear(weight, bias), node)
    x = spikes(5, 2, 6, seed=seed)
    try:
        found = calibrate(layers, x if with_data else None, clip)
    except lava_bridge.ConversionError as error:
        # Only where the bias is larger than the threshold by more than the chip's range.
        message = str(error)
        assert "no factor brings" in message
        assert "\n" not in message
        assert bias is not None
        assert bias.abs().max() > 4000 * threshold
        return
    (choice,) = found.layers
    factor = choice.factor
    assert 0 < factor < math.inf
    assert 1 <= int(64 * threshold * factor) == choice.threshold <= 131071
    if bias is not None:
        assert (64 * factor * bias).min().round() >= -4096
        assert (64 * factor * bias).max().round() <= 4095
    assert 1 <= choice.levels <= 256
    if clip == "none" and not with_data and choice.limit == "8-bit weights":
        assert (choice.clip, choice.clipped) == (1, 0)
    if with_data:
        held = lava_bridge.exchange.quantize_8bit(weight * factor, 64)
        drive = linear(held, None if bias is None else bias * factor)(x)
        assert drive.abs().max() < STATE_BOUND
        assert factor * threshold < STATE_BOUND


def test_weights_within_a_twentieth_go_from_3_levels_to_more_than_200():
    torch.manual_seed(0)
    layers = single(linear((torch.rand(100, 200) - 0.5) / 10), lif_node())
    for data in (None, spikes(8, 4, 200)):
        (choice,) = calibrate(layers, data).layers
        assert choice.levels_before <= 5
        assert choice.levels > 200
        assert choice.threshold > 64


def test_the_chips_range_is_used_to_its_last_level_on_either_side():
    for weight, level in ((0.3, 254), (-0.3, -256)):
        layers = single(linear(torch.tensor([[weight, -weight / 2]])), None)
        (choice,) = calibrate(layers, clip="none").layers
        assert weight * choice.factor * 64 == pytest.approx(level)
        assert (choice.clip, choice.clipped, choice.levels) == (1, 0, 2)


def test_a_layer_with_a_few_large_weights_is_clipped_where_the_error_is_least():
    torch.manual_seed(0)
    weight = torch.randn(100, 400) / 100
    weight[0, 0] = 0.08
    layers = single(linear(weight), if_node())
    (choice,) = calibrate(layers).layers
    (whole,) = calibrate(layers, clip="none").layers
    assert choice.factor > whole.factor
    assert 0 < choice.clipped < 0.01
    assert choice.clip < 1 == whole.clip

    def error(factor):
        rounded = lava_bridge.exchange.quantize_8bit(weight * factor, 64) / factor
        return (rounded - weight).square().mean()

    assert error(choice.factor) < error(whole.factor)


@pytest.mark.parametrize(
    ("weight", "bias", "threshold", "limit"),
    [
        (1e-3, None, 1.0, "17-bit threshold"),
        (1e-3, 100.0, 1.0, "13-bit bias"),
        (0.5, 0.1, 1.0, "8-bit weights"),
        (100.0, None, 0.05, "threshold of 1"),
        (0.0, None, 1.0, "weights of 0"),
        (0.0, 0.3, 1.0, "13-bit bias"),
    ],
)
def test_the_table_says_what_kept_the_factor_from_being_larger(weight, bias, threshold, limit):
    torch.manual_seed(0)
    values = weight * (torch.rand(4, 5) - 0.3)
    made = linear(values, None if bias is None else bias * torch.rand(4))
    (choice,) = calibrate(single(made, if_node(threshold))).layers
    assert choice.limit == limit


def test_states_that_data_drive_far_below_zero_keep_within_24_bits():
    weight = torch.tensor([[-0.04] * 50])
    layers = single(linear(weight, torch.tensor([0.001])), if_node(0.05))
    x = torch.ones(200, 1, 50)
    (alone,), (measured,) = calibrate(layers).layers, calibrate(layers, x).layers
    assert (alone.limit, measured.limit) == ("8-bit weights", "24-bit state")
    lowest = ((layers[0].synapse(x)).sum() * measured.factor).item()
    # An eighth is left for other data.
    assert lowest == pytest.approx(-STATE_BOUND * 7 / 8, rel=0.01)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_are_calibrated_as_all_others(groups):
    torch.manual_seed(0)
    conv = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=groups)
    layers = [FloatLayer("0 (ConvTranspose2d)", conv, lif_node())]
    x = spikes(6, 2, 4, 5, 5)
    for data in (None, x):
        (choice,) = calibrate(layers, data).layers
        assert (choice.limit, choice.levels > 80) == ("8-bit weights", True)
    assert choice.error < 0.02


# With data ----------------------------------------------------------------------------------------


@given(node=NODES, seed=st.integers(0, 999))
def test_no_clip_point_has_fewer_spikes_wrong_than_the_chosen_one(node, seed):
    torch.manual_seed(seed)
    layers = single(linear(torch.randn(10, 20).pow(3) / 20), node)
    x = spikes(12, 3, 20, seed=seed)
    truth = in_floats(layers, x)
    (choice,) = calibrate(layers, x, batch_size=2).layers
    wrong = (quantised(layers, [choice.factor], x) != truth).float().mean().item()
    assert choice.error == pytest.approx(wrong)
    for clip in ("none", "mse"):
        factors = calibrate(layers, clip=clip).factors
        assert wrong <= (quantised(layers, factors, x) != truth).float().mean().item()


def test_digits_are_classified_as_before_once_calibrated_where_plain_8_bits_fail():
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    brightness, labels = torch.from_numpy(images / 16).float(), torch.from_numpy(labels)
    x = (torch.rand(8, *brightness.shape) < brightness).float()
    options = {"surrogate_function": surrogate.ATan(), "step_mode": "m"}
    net = nn.Sequential(
        nn.Linear(64, 32, bias=False),
        neuron.LIFNode(decay_input=False, **options),
        nn.Linear(32, 10, bias=False),
        neuron.LIFNode(decay_input=False, **options),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for batch in torch.randperm(1200).repeat(6).split(100):
        loss = nn.functional.cross_entropy(8 * net(x[:, batch]).mean(0), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        functional.reset_net(net)
    # The same net in floats, on a scale that 8 bits don't suit.
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.Linear):
                module.weight.mul_(0.03)
            else:
                module.v_threshold *= 0.03
    layers = [FloatLayer(str(i), net[i], net[i + 1]) for i in (0, 2)]
    test = x[:, 1200:]

    def right(spikes):
        return (spikes.mean(0).argmax(1) == labels[1200:]).float().mean().item()

    before = right(in_floats(layers, test))
    plain = right(quantised(layers, [1.0, 1.0], test))
    by_weights = right(quantised(layers, calibrate(layers).factors, test))
    by_data = right(quantised(layers, calibrate(layers, x[:, :300]).factors, test))
    assert plain < before - 0.1
    assert by_weights > before - 0.01
    assert by_data > before - 0.01


def test_layers_without_freedom_keep_their_weights_and_the_table_says_why():
    torch.manual_seed(0)
    forgetful = CubaLIFNode(1.0, 1.0, v_threshold=0.5, step_mode="m")
    norm = CubaLIFNode(0.5, 0.1, norm=BatchNorm2d(6), step_mode="m")
    layers = [
        FloatLayer("pool", SumPool2d(2), forgetful),
        FloatLayer("up", nn.Upsample(scale_factor=(2.0, 2.0)), forgetful),
        FloatLayer("conv", nn.Conv2d(2, 6, 3, bias=False), norm),
        FloatLayer("flat", nn.Flatten(), None),
        FloatLayer("dense", nn.Linear(6 * 4 * 4, 20), lif_node()),
        FloatLayer("vote", layer.VotingLayer(10, step_mode="m"), None, outputs=2),
    ]
    expected = [
        *("quantised neuron", "quantised neuron", "quantised neuron", "no weights"),
        *("8-bit weights", "no weights"),
    ]
    for data in (None, spikes(5, 2, 2, 6, 6)):
        found = calibrate(layers, data)
        assert [choice.limit for choice in found.layers] == expected
        assert [found.factors[i] for i in (0, 1, 2, 3, 5)] == [1] * 5
        assert [row[0] for row in found.rows] == [part.place for part in layers]
        assert all(len(row) == len(found.columns) for row in found.rows)
        assert "8-bit weights" in str(found)
        assert max(len(line) for line in str(found).splitlines()) <= 140


def test_logits_are_multiplied_by_the_factor_of_the_last_layer():
    torch.manual_seed(0)
    layers = single(nn.Linear(20, 4), None)
    x = spikes(6, 3, 20)
    (choice,) = calibrate(layers, x).layers
    assert choice.threshold is None
    assert choice.factor > 5
    logits = quantised(layers, [choice.factor], x) / choice.factor
    torch.testing.assert_close(logits, layers[0].synapse(x).detach(), rtol=0, atol=0.02)
    assert choice.error < 0.01


def test_the_users_net_and_its_states_stay_as_they_were():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), lif_node(), nn.Linear(5, 4, bias=False), norm_node())
    x = spikes(4, 2, 6)
    net(x).sum().backward()  # states hang on a graph
    calls = []
    for node in net:
        node.register_forward_hook(lambda *_: calls.append(1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    states = net[1].v, net[3].v, net[3].current_state
    random = torch.get_rng_state()
    layers = [FloatLayer("0", net[0], net[1]), FloatLayer("2", net[2], net[3])]
    calibrate(layers, x)
    assert not calls
    assert all(net.state_dict()[name].equal(value) for name, value in before.items())
    assert all(
        now is then
        for now, then in zip((net[1].v, net[3].v, net[3].current_state), states, strict=True)
    )
    assert net.training
    assert torch.equal(torch.get_rng_state(), random)


def norm_node():
    return CubaLIFNode(0.5, 0.1, norm=BatchNorm2d(4), step_mode="m")


# Extremes and refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize("node", [if_node(), lif_node(), None], ids=["IF", "LIF", "none"])
@pytest.mark.parametrize("weight", [0.0, 1.0, 1e-40, 3e38, -1e-6])
def test_a_layer_of_one_weight_and_one_step_is_calibrated(weight, node):
    layers = single(linear(torch.full((1, 1), weight)), node)
    for data in (None, torch.ones(1, 1, 1), torch.zeros(1, 1, 1)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (choice,) = calibrate(layers, data).layers
        assert 0 < choice.factor < math.inf


def test_a_silent_layer_keeps_the_whole_range():
    torch.manual_seed(0)
    layers = single(linear(torch.randn(4, 5) / 50), if_node(100.0))
    (choice,) = calibrate(layers, np.zeros((3, 2, 5), np.float32)).layers
    assert (choice.clip, choice.error) == (pytest.approx(1, abs=0.01), 0)


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_place(name, value):
    made = nn.Linear(3, 2)
    getattr(made, name).data.view(-1)[0] = value
    with pytest.raises(lava_bridge.ConversionError, match=rf"^0 \(Linear\): has a {name} that"):
        calibrate(single(made, if_node()))


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan])
def test_a_threshold_that_the_chip_has_not_is_refused(threshold):
    with pytest.raises(lava_bridge.ConversionError, match="has v_threshold="):
        calibrate(single(nn.Linear(3, 2), if_node(threshold)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(4, 2, 7), r"^0 \(Linear\): data of shape \(4, 2, 7\) .* do not fit"),
        (torch.zeros(4, 2), r"expected real data \[T, N, \*\]"),
        (torch.zeros(0, 2, 3), r"expected real data \[T, N, \*\]"),
        (torch.zeros(4, 2, 3, dtype=torch.complex64), "expected real data"),
        (torch.full((4, 2, 3), math.nan), "NaN or infinite"),
        ("spikes", "no array of numbers"),
    ],
)
def test_data_that_do_not_fit_are_refused_in_one_line(data, message):
    with pytest.raises(lava_bridge.ConversionError, match=message) as caught:
        calibrate(single(nn.Linear(3, 2), if_node()), data)
    assert "\n" not in str(caught.value)


def test_unknown_options_are_refused():
    layers = single(nn.Linear(3, 2), if_node())
    with pytest.raises(lava_bridge.ConversionError, match="clip must be"):
        calibrate(layers, clip="some")
    with pytest.raises(lava_bridge.ConversionError, match="batch_size must be"):
        calibrate(layers, batch_size=0)


@pytest.mark.parametrize("encoding", [None, "direct", "graded"])
def test_blocks_of_a_net_calibrate_it_as_they_are_with_their_encoder_or_without(encoding):
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), neuron.LIFNode(v_threshold=0.4), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(12, 4), neuron.LIFNode(v_threshold=0.2),
    )  # fmt: skip
    blocks = lava_bridge.to_slayer(net, (1, 6, 6), calibrate="weights", encoding=encoding)
    again = lava_bridge.to_slayer(net, (1, 6, 6), calibrate=blocks, encoding=encoding)
    assert again.report.calibration.factors == blocks.report.calibration.factors
    assert again.report.calibration.rows[-1][5:7] == blocks.report.calibration.rows[-1][5:7]
    assert "by the factor that its block has" in again.report.calibration.title
    for one, other in zip(blocks.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
