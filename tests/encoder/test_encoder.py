"""Encoders of analog input: what they compute, and that nothing else has a part in it."""

import copy
import math
import warnings

import pytest
import torch
import torch.nn as nn
from hypothesis import given, strategies as st
from spikingjelly.activation_based import layer, neuron

from lava_bridge import BridgeError, Encoder, to_slayer
from lava_bridge.encoder import GradedInput, encoder_on, split_encoder
from lava_bridge.exchange.encoder import EncoderNode

from .nets import direct


def on_grid(*shape: int, step: float = 1 / 64) -> torch.Tensor:
    """Random multiples of ``step`` in -2 ... 2: their sums of products are exact in float32."""
    return torch.randint(-int(2 / step), int(2 / step) + 1, shape) * step


@st.composite
def synapses(draw):
    """A synapse for inputs of shape (2, 6, 7), with or without bias."""
    bias = draw(st.booleans())
    kind = draw(st.sampled_from(["linear", "conv", "convT"]))
    if kind == "linear":
        return layer.Linear(84, draw(st.integers(1, 5)), bias=bias, step_mode="m")
    window = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    made = layer.Conv2d if kind == "conv" else layer.ConvTranspose2d
    return made(
        2,
        2 * draw(st.integers(1, 3)),
        window,
        stride=draw(st.integers(1, 2)),
        padding=draw(st.integers(0, 1)),
        dilation=draw(st.integers(1, 2)),
        groups=draw(st.sampled_from([1, 2])),
        bias=bias,
        step_mode="m",
    )


@st.composite
def nodes(draw):
    threshold = draw(st.floats(0.05, 2))
    if draw(st.booleans()):
        return neuron.IFNode(v_threshold=threshold, step_mode="m")
    tau = draw(st.floats(1.001, 30))
    return neuron.LIFNode(tau, decay_input=False, v_threshold=threshold, step_mode="m")


def encoder_of(synapse, node) -> Encoder:
    return Encoder(synapse, node.v_threshold, getattr(node, "tau", math.inf))


@given(synapses(), nodes(), st.integers(1, 7), st.integers(1, 4), st.booleans())
def test_spikes_are_those_of_the_spikingjelly_net(synapse, node, steps, batch, double):
    dtype = torch.float64 if double else torch.float32
    with torch.no_grad():
        for parameter in synapse.parameters():
            parameter.copy_(on_grid(*parameter.shape))
    x = on_grid(steps, batch, 2, 6, 7)
    net = nn.Sequential(synapse, node).to(dtype).eval()
    with torch.no_grad():
        given_x = x.flatten(2) if isinstance(synapse, nn.Linear) else x
        want = net(given_x.to(dtype))
    got = encoder_of(synapse, node)(x.to(dtype).movedim(0, -1))
    assert torch.equal(got.movedim(-1, 0), want.float())
    assert got.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spikes_are_those_of_a_spikingjelly_net_of_any_weights(dtype):
    synapse = layer.Conv2d(3, 8, 3, padding=1, step_mode="m")
    node = neuron.LIFNode(tau=3.7, decay_input=False, v_threshold=0.3, step_mode="m")
    x = torch.randn(9, 5, 3, 12, 11, dtype=dtype)
    net = nn.Sequential(synapse, node).to(dtype).eval()
    with torch.no_grad():
        want = net(x)
    got = encoder_of(synapse, node)(x.movedim(0, -1)).movedim(-1, 0)
    assert torch.equal(got, want.float())
    assert 0.1 < got.mean() < 0.9


@given(synapses(), nodes(), st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31))
def test_layout_batch_and_steps_have_no_part_in_the_spikes(synapse, node, steps, batch, seed):
    encoder = encoder_of(synapse, node)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 2, 6, 7, steps, generator=generator)
    want = encoder(x)
    views = (
        x.movedim(-1, 0).contiguous().movedim(0, -1),
        x.transpose(2, 3).contiguous().transpose(2, 3),
        x.permute(4, 0, 2, 3, 1).contiguous().permute(1, 4, 2, 3, 0),
        torch.stack([x, x])[1],
    )
    for view in views:
        assert torch.equal(encoder(view), want)
    for i in range(batch):
        assert torch.equal(encoder(x[i : i + 1]), want[i : i + 1])
    first, v = encoder.steps(x.movedim(-1, 0)[:1])
    assert torch.equal(first.movedim(0, -1), want[..., :1])
    if steps > 1:
        rest, _ = encoder.steps(x.movedim(-1, 0)[1:], v)
        assert torch.equal(rest.movedim(0, -1), want[..., 1:])


@given(synapses(), nodes(), st.integers(1, 6), st.integers(1, 20))
def test_a_static_input_is_weighed_once_and_gives_the_same(synapse, node, steps, batch):
    encoder = encoder_of(synapse, node)
    encoder.infer_shape((2, 6, 7))
    image = torch.randn(batch, 2, 6, 7)
    static = image.unsqueeze(-1).expand(-1, -1, -1, -1, steps)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    with encoder.synapse.register_forward_hook(count):
        spikes = encoder(static)
    assert calls == math.ceil(batch / 16)
    assert torch.equal(spikes, encoder(static.contiguous()))


def test_an_encoder_is_a_copy_without_gradients():
    conv = nn.Conv2d(1, 2, 3)
    encoder = Encoder(conv)
    x = torch.rand(1, 1, 5, 5, 4, requires_grad=True)
    before = encoder(x)
    with torch.no_grad():
        conv.weight.zero_()
    assert torch.equal(encoder(x), before)
    assert not before.requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())
    other = Encoder(nn.Conv2d(1, 2, 3))
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(x), before)
    assert torch.equal(copy.deepcopy(encoder)(x), before)


def test_spikes_have_the_dtype_of_the_blocks_after_it():
    net = direct()
    x = torch.randn(2, 1, 8, 8, 3)
    net[0].synapse.double()
    assert net(x).dtype == torch.float32
    assert net.double()(x.double()).dtype == torch.float64


def test_an_encoder_tells_its_shapes():
    encoder = Encoder(nn.Conv2d(1, 2, 3, stride=2), input_shape=(1, 9, 8))
    assert encoder.shape == (2, 4, 3)
    assert encoder.input_shape == (1, 9, 8)
    assert "threshold=1, shape=(2, 4, 3)" in repr(encoder)
    assert "tau=2.5" in repr(Encoder(nn.Linear(2, 3), tau=2.5))
    assert Encoder(nn.Linear(72, 5)).infer_shape((1, 9, 8)) == (5,)
    assert GradedInput().infer_shape((1, 9, 8)) == (1, 9, 8)
    assert repr(GradedInput(7, 2)) == "GradedInput(levels=7, amplitude=2, shape=None)"
    late = Encoder(nn.ConvTranspose2d(1, 2, 3, output_padding=1, stride=2))
    late(torch.zeros(1, 1, 4, 4, 1))
    assert late.shape == (2, 10, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Encoder(nn.Conv3d(1, 1, 1)), "expected a Linear, Conv2d or ConvTranspose2d"),
        (lambda: Encoder(nn.Linear(1, 1).half()), "give float32 or float64"),
        (lambda: Encoder(nn.Linear(1, 1), math.nan), "threshold must be a finite number"),
        (lambda: Encoder(nn.Linear(1, 1), tau=0.5), "tau must be 1 or more, found 0.5"),
        (lambda: Encoder(nn.Linear(3, 1)).infer_shape((2,)), "a Linear of 3 inputs can't take"),
        (lambda: Encoder(nn.Conv2d(1, 1, 1)).infer_shape((2, 3, 3)), "an input of shape (1, H, W)"),
        (lambda: Encoder(nn.Conv2d(1, 1, 5)).infer_shape((1, 3, 3)), "a Conv2d can't take"),
        (lambda: direct()(torch.zeros(1, 1, 9, 9, 1)), "expected samples of shape (1, 8, 8)"),
        (lambda: direct()(torch.full((1, 1, 8, 8, 1), math.nan)), "NaN or infinite"),
        (lambda: direct()(torch.zeros(1, 1, 8, 8, 1) * 1j), "is complex"),
        (lambda: GradedInput(256), "levels must be an integer in 1 ... 255, found 256"),
        (lambda: GradedInput(amplitude=0), "amplitude must be above 0"),
    ],
)
def test_what_can_not_be_used_is_refused(make, message):
    with pytest.raises(BridgeError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_are_nan_are_refused():
    linear = nn.Linear(2, 2)
    nn.init.constant_(linear.weight, math.nan)
    with pytest.raises(BridgeError, match="NaN or infinite"):
        Encoder(linear)


@given(st.integers(1, 255), st.floats(0.1, 300), st.integers(0, 2**31))
def test_graded_input_gives_the_nearest_level(levels, amplitude, seed):
    x = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(seed)) * amplitude * 1.5
    given_levels = GradedInput(levels, amplitude)(x)
    assert torch.equal(given_levels, given_levels.round())
    assert given_levels.max() <= levels
    inside = x <= amplitude
    distance = (given_levels - x / amplitude * levels).abs()[inside]
    assert distance.max() <= 0.5 + 1e-4
    assert (given_levels[~inside] == levels).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_graded_input_loses_nothing_of_an_image_of_bytes(dtype):
    image = torch.arange(256, dtype=torch.uint8)
    x = (image.to(dtype) / 255).reshape(1, 256, 1)
    assert torch.equal(GradedInput()(x).flatten(), image.float())
    assert torch.equal(
        GradedInput(amplitude=255)(image.reshape(1, 256, 1)).flatten(), image.float()
    )


def test_an_image_is_the_same_integers_in_64_bits_as_in_32():
    above_halves = ((torch.arange(255).double() + 0.5) / 255 * (1 + 1e-9)).reshape(1, 255, 1)
    assert torch.equal(GradedInput()(above_halves), GradedInput()(above_halves.float()))


def test_the_synapses_numbers_are_copied():
    synapse = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    encoder, x = Encoder(synapse, 0.3), torch.rand(2, 2, 5, 5, 4)
    before = encoder(x)
    for parameter in synapse.parameters():
        parameter.data.zero_()
    assert before.any()
    assert torch.equal(encoder(x), before)
    assert encoder.synapse.weight.is_contiguous()


def test_negative_input_is_refused_by_naming_the_other_way():
    with pytest.raises(BridgeError, match=r'down to -2, .* use encoding="direct"'):
        GradedInput()(torch.full((1, 2, 1), -2.0))


def test_the_node_goes_on_where_it_stopped_until_it_is_reset():
    from spikingjelly.activation_based import functional

    encoder = Encoder(nn.Linear(4, 6), 0.7, 3.0)
    x_seq = torch.randn(8, 2, 4)
    want, _ = encoder.steps(x_seq)
    node = EncoderNode(encoder)
    assert torch.equal(torch.cat([node(x_seq[:3]), node(x_seq[3:])]), want)
    functional.reset_net(node)
    node.step_mode = "s"
    assert torch.equal(torch.stack([node(x) for x in x_seq]), want)
    assert torch.equal(node(x_seq[0, :1]), want[0, :1]), "afresh, with a batch of another size"
    graded = EncoderNode(GradedInput(), step_mode="s")
    assert torch.equal(graded(x_seq[0].abs()), GradedInput().steps(x_seq.abs())[0])


def test_the_encoder_is_found_in_front_of_blocks_only():
    net = direct()
    encoder, blocks = split_encoder(net)
    assert encoder is net[0]
    assert blocks == list(net[1:])
    assert split_encoder(net[2]) == (None, [net[2]])
    assert split_encoder(net[0]) == (net[0], [])
    assert split_encoder(iter(net[1:])) == (None, list(net[1:]))


def test_graded_input_says_what_it_clamps():
    image = torch.arange(256.0).reshape(1, 256, 1)
    with pytest.warns(UserWarning, match=r"values up to 255; what is above the amplitude, 1, is"):
        GradedInput()(image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradedInput()(image / 255)
        GradedInput(amplitude=255)(image)
        GradedInput()(image / 255 * 1.001)  # rounded to 255, as 1 is


@pytest.mark.parametrize("encoding", [None, "direct", "graded"])
@pytest.mark.parametrize("analog", [False, True])
def test_calibration_says_that_data_are_no_spikes(encoding, analog):
    net = nn.Sequential(nn.Linear(4, 3), neuron.IFNode(), nn.Linear(3, 2), neuron.IFNode())
    x = torch.rand(6, 5, 4)
    x = x if analog else (x < 0.5).float()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        to_slayer(net, (4,), encoding=encoding, calibrate=x)
    said = [w for w in caught if "values other than 0 and 1" in str(w.message)]
    assert len(said) == (analog and encoding is None)
    assert all(w.filename == __file__ for w in said)


@pytest.mark.parametrize("synapse", [lambda: nn.Linear(64, 7), lambda: nn.Conv2d(1, 4, 3)])
def test_autocast_changes_no_spike(synapse):
    encoder, x = Encoder(synapse(), 0.1), torch.rand(5, 1, 8, 8, 6)
    expected = encoder(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder(x), expected)
    assert expected.any()
    assert not expected.all()


def test_an_encoder_for_another_device_is_a_copy():
    encoder = direct()[0]
    assert encoder_on(encoder, torch.device("cpu")) is encoder
    other = encoder_on(encoder, torch.device("meta"))
    assert other.synapse.weight.device.type == "meta"
    assert encoder.synapse.weight.device.type == "cpu"
    assert other.shape == encoder.shape
