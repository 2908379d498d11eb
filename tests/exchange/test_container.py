"""A BlockContainer is spike for spike the slayer block that it gives, lava's and ours."""

import copy

import pytest
import torch
import torch.nn as nn
from hypothesis import assume, given, strategies as st
from spikingjelly.activation_based import functional, neuron, surrogate

from lava_bridge import ConversionError, slayer
from lava_bridge.exchange import (
    BatchNorm2d,
    BlockContainer,
    NXT_to_TNX,
    SumPool2d,
    TNX_to_NXT,
    quantize_8bit,
)

from .strategies import CubaLIFNode, run_steps, seeds, sequence, spikes

BOTH_MODES = pytest.mark.parametrize("step_mode", ["s", "m"])

thresholds = st.sampled_from([0.25, 0.33, 0.7, 1.0, 2.9])


@st.composite
def any_neuron(draw):
    """A CubaLIFNode, IFNode or LIFNode that a block can have."""
    kind = draw(st.sampled_from(["cuba", "if", "lif"]))
    options = {"v_threshold": draw(thresholds), "surrogate_function": surrogate.ATan()}
    if kind == "cuba":
        decays = st.sampled_from([0.0, 0.1, 0.3, 1.0])
        return CubaLIFNode(
            draw(decays), draw(decays), scale=draw(st.sampled_from([16, 64, 256])), **options
        )
    if kind == "if":
        return neuron.IFNode(**options)
    return neuron.LIFNode(tau=draw(st.sampled_from([1.01, 1.7, 4.0])), decay_input=False, **options)


def with_weight(layer, seed):
    """Weights of any size: on and off the grid of 8 bits, and beyond it."""
    layer.weight = nn.Parameter(sequence(tuple(layer.weight.shape), seed, 1.2))
    return layer


@st.composite
def convolutions(draw):
    """A convolution and the shape of its input."""
    groups = draw(st.integers(1, 2))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.sampled_from([1, 2, (2, 1)]))
    same = draw(st.booleans())
    if same:
        assume(kernel[0] % 2 and kernel[1] % 2)
        stride, padding = 1, "same"
    else:
        stride = draw(st.sampled_from([1, 2, (1, 2)]))
        padding = draw(st.sampled_from([0, 1, (0, 2), "valid"]))
    channels = groups * draw(st.integers(1, 2))
    conv = nn.Conv2d(
        channels,
        groups * draw(st.integers(1, 2)),
        kernel,
        stride,
        padding,
        dilation,
        groups,
        bias=False,
    )
    image = draw(st.tuples(st.integers(5, 7), st.integers(5, 7)))
    return with_weight(conv, draw(seeds)), (channels, *image)


@st.composite
def linears(draw):
    inputs = draw(st.integers(1, 8))
    return with_weight(nn.Linear(inputs, draw(st.integers(1, 5)), bias=False), draw(seeds)), (
        inputs,
    )


@st.composite
def pools(draw):
    """A pooling whose windows tile its input: what lava's Pool is right for."""
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return SumPool2d(kernel), (draw(st.integers(1, 3)), 2 * kernel[0], kernel[1])


def run(net, x_seq, step_mode):
    return net(x_seq) if step_mode == "m" else torch.stack([net(x) for x in x_seq])


def assert_blocks_spike_as(lava, container, x_seq, step_mode):
    """Both slayers' blocks give the container's spikes; gives them."""
    functional.reset_net(container)
    mine = run(container, x_seq, step_mode)
    for which in (lava, slayer):
        block = container.to_lava_block(slayer=which)
        assert type(block).__module__.startswith(which.__name__)
        assert torch.equal(NXT_to_TNX(block(TNX_to_NXT(x_seq))), mine), which.__name__
    assert set(mine.unique().tolist()) <= {0.0, 1.0}
    return mine


@BOTH_MODES
@given(st.one_of(linears(), convolutions(), pools()), any_neuron(), st.integers(1, 3), seeds)
def test_spikes_are_those_of_the_block(lava, step_mode, drawn, neu, batch, seed):
    synapse, shape = drawn
    container = BlockContainer(synapse, neu, step_mode)
    assert_blocks_spike_as(lava, container, spikes((8, batch, *shape), seed), step_mode)


@BOTH_MODES
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=seeds)
def test_a_flatten_is_slayers(lava, step_mode, shape, seed):
    container = BlockContainer(nn.Flatten(), None, step_mode)
    x_seq = spikes((5, 2, *shape), seed)
    if len(shape) == 3:  # lava's Flatten takes NCHWT only
        mine = assert_blocks_spike_as(lava, container, x_seq, step_mode)
    else:
        mine = run(container, x_seq, step_mode)
        assert torch.equal(NXT_to_TNX(container.to_lava_block()(TNX_to_NXT(x_seq))), mine)
    assert torch.equal(mine, x_seq.flatten(2))


@BOTH_MODES
def test_a_whole_net_of_containers_spikes_as_its_blocks(lava, step_mode):
    net = nn.Sequential(
        BlockContainer(nn.Conv2d(1, 4, 3, padding=1, bias=False), CubaLIFNode(0.3, 0.1, 0.7)),
        BlockContainer(SumPool2d(2), neuron.IFNode(v_threshold=1.5)),
        BlockContainer(nn.Flatten(), None),
        BlockContainer(nn.Linear(64, 10, bias=False), neuron.LIFNode(2.0, False, 0.4)),
    )
    functional.set_step_mode(net, step_mode)
    x_seq = spikes((16, 3, 1, 8, 8), 1)
    mine = run(net, x_seq, step_mode)
    assert 0 < mine.mean() < 1
    for which in (lava, slayer):
        x = TNX_to_NXT(x_seq)
        for container in net:
            x = container.to_lava_block(slayer=which)(x)
        assert torch.equal(NXT_to_TNX(x), mine)


@given(seed=seeds, spatial=st.booleans())
def test_decays_per_channel_reach_the_block(lava, seed, spatial):
    decays = torch.rand(2, 3, generator=torch.Generator().manual_seed(seed))
    shape = (3, 1, 1) if spatial else (3,)
    neu = CubaLIFNode(*decays.reshape(2, *shape), 0.7, requires_grad=True)
    layer = nn.Conv2d(2, 3, 3, bias=False) if spatial else nn.Linear(6, 3, bias=False)
    container = BlockContainer(with_weight(layer, seed), neu, "m")
    x_seq = spikes((8, 2, 2, 5, 5) if spatial else (8, 2, 6), seed)
    mine = container(x_seq)
    # lava's reference broadcasts [C] with the last dimension: right for rows only
    for which in (slayer,) if spatial else (slayer, lava):
        block = container.to_lava_block(slayer=which)
        assert torch.equal(NXT_to_TNX(block(TNX_to_NXT(x_seq))), mine), which.__name__
        assert torch.equal(block.neuron.current_decay, 4096 * decays[0])
        assert torch.equal(block.neuron.voltage_decay, 4096 * decays[1])
        assert block.neuron.requires_grad


@given(seed=seeds)
def test_a_norm_reaches_the_block_as_a_copy(lava, seed):
    neu = CubaLIFNode(0.3, 0.1, 0.7, norm=BatchNorm2d(3))
    neu.norm.running_mean = sequence((3,), seed, 0.5)
    neu.norm.running_var = torch.tensor([0.3])
    container = BlockContainer(with_weight(nn.Conv2d(2, 3, 3, bias=False), seed), neu, "m").eval()
    x_seq = spikes((8, 2, 2, 5, 5), seed)
    assert_blocks_spike_as(lava, container, x_seq, "m")
    for which in (lava, slayer):
        block = container.to_lava_block(slayer=which)
        assert type(block.neuron.norm) is which.neuron.norm.WgtScaleBatchNorm
        block.neuron.norm.running_mean.zero_()
        assert neu.norm.running_mean.any()
        x = sequence((4,), 1, 1.0)
        assert torch.equal(block.neuron.norm.pre_hook_fx(x), quantize_8bit(x, 64))
        assert block.neuron.norm.pre_hook_fx.__self__ is block.neuron, "nothing of the node's"


def test_the_blocks_weights_are_copies(lava):
    container = BlockContainer(nn.Linear(4, 3, bias=False), neuron.IFNode())
    before = container.synapse.weight.detach().clone()
    for which in (lava, slayer):
        block = container.to_lava_block(slayer=which)
        assert torch.equal(block.synapse.weight.flatten(), before.flatten())
        block.synapse.weight.data.zero_()
        assert torch.equal(container.synapse.weight, before)


def test_a_pools_weight_of_one_is_quantised_as_the_blocks(lava):
    # at a scale of 256 the largest weight is 254: four spikes are 4 * 254, one is 254 / 256
    neu = CubaLIFNode(1.0, 1.0, v_threshold=3.98, scale=256)
    container = BlockContainer(SumPool2d(2), neu, "m")
    x_seq = torch.ones(1, 1, 1, 2, 2)
    assert not assert_blocks_spike_as(lava, container, x_seq, "m").any()
    assert CubaLIFNode(1.0, 1.0, v_threshold=3.98, scale=256)(torch.full((1, 1), 4.0)).all()


def test_an_empty_batch_passes():
    for synapse, shape in (
        (nn.Linear(6, 3, bias=False), (6,)),
        (nn.Conv2d(2, 3, 3, bias=False), (2, 5, 5)),
        (SumPool2d(2), (2, 4, 4)),
    ):
        container = BlockContainer(synapse, neuron.IFNode(), "m")
        expected = container(torch.zeros(4, 2, *shape)).shape
        assert container(torch.zeros(4, 0, *shape)).shape == (4, 0, *expected[2:])


def test_step_mode_reaches_the_parts_and_is_one_of_two():
    container = BlockContainer(nn.Linear(4, 3, bias=False), neuron.IFNode(), "m")
    assert container.step_mode == container.neuron.step_mode == "m"
    container.step_mode = "s"
    assert container.neuron.step_mode == "s"
    functional.set_step_mode(nn.Sequential(container), "m")
    assert container.step_mode == container.neuron.step_mode == "m"
    for refused in (lambda: setattr(container, "step_mode", "x"), lambda: refuse_mode("x")):
        with pytest.raises(ValueError, match="step_mode"):
            refused()
    assert container.step_mode == "m"


def refuse_mode(step_mode):
    BlockContainer(nn.Linear(4, 3, bias=False), neuron.IFNode(), step_mode)


@BOTH_MODES
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_it_trains_through_the_quantiser(step_mode, kind):
    layer = nn.Linear(6, 3, bias=False) if kind == "linear" else nn.Conv2d(2, 3, 3, bias=False)
    x_seq = spikes((8, 2, 6) if kind == "linear" else (8, 2, 2, 5, 5), 1).requires_grad_()
    container = BlockContainer(with_weight(layer, 1), CubaLIFNode(0.3, 0.1, 0.7), step_mode)
    y = run(container, x_seq, step_mode)
    y.sum().backward()
    # straight through: the gradient of the quantised weights, none where they are clamped
    plain = copy.deepcopy(layer)
    with torch.no_grad():
        plain.weight.copy_(quantize_8bit(plain.weight, 64))
    node = CubaLIFNode(0.3, 0.1, 0.7, step_mode="m")
    reference = node(torch.stack([plain(x) for x in x_seq.detach()]))
    assert torch.equal(y, reference)
    reference.sum().backward()
    steps = torch.round(layer.weight.detach() * 32)
    inside = (steps >= -128) & (steps <= 127)
    assert layer.weight.grad.any()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad * inside)
    assert x_seq.grad.any()


def test_one_step_of_training_changes_the_spikes():
    container = BlockContainer(nn.Linear(6, 3, bias=False), CubaLIFNode(0.3, 0.1, 0.7), "m")
    optimiser = torch.optim.SGD(container.parameters(), lr=1.0)
    x_seq = spikes((8, 4, 6), 1)
    rates = []
    for _ in range(10):
        functional.reset_net(container)
        rate = container(x_seq).mean()
        rates.append(rate.item())
        optimiser.zero_grad()
        (-rate).backward()
        optimiser.step()
    assert rates[-1] > rates[0]


def test_a_neuron_of_spikingjelly_becomes_a_quantised_one_with_its_options():
    given_neuron = neuron.LIFNode(
        4.0,
        False,
        0.7,
        surrogate_function=surrogate.Erf(),
        detach_reset=True,
        store_v_seq=True,
    )
    given_neuron.lava_s_cale = 16
    made = BlockContainer(nn.Linear(4, 3, bias=False), given_neuron).neuron
    assert isinstance(made, CubaLIFNode)
    assert (made.current_decay.item(), made.voltage_decay.item()) == (4096, 1024)
    assert (made.v_threshold, made.scale) == (0.7, 16)
    assert made.surrogate_function is given_neuron.surrogate_function
    assert made.detach_reset
    assert made.store_v_seq
    kept = CubaLIFNode(0.3, 0.1)
    assert BlockContainer(nn.Linear(4, 3, bias=False), kept).neuron is kept


def test_single_steps_are_a_multi_step_run():
    container = BlockContainer(nn.Linear(6, 3, bias=False), CubaLIFNode(0.3, 0.1, 0.7), "m")
    x_seq = spikes((8, 2, 6), 1)
    y = container(x_seq)
    functional.reset_net(container)
    container.step_mode = "s"
    assert torch.equal(run_steps(container, x_seq), y)


def linear(**options):
    return nn.Linear(4, 3, **{"bias": False, **options})


def nan_weight():
    layer = linear()
    layer.weight.data[1, 2] = float("nan")
    return layer


REFUSED = {
    "an average pooling": (lambda: nn.AvgPool2d(2), neuron.IFNode, "AvgPool2d"),
    "a soft reset": (linear, lambda: neuron.IFNode(v_reset=None), "v_reset=None"),
    "a reset elsewhere": (linear, lambda: neuron.IFNode(v_reset=0.5), "v_reset=0.5"),
    "an input that decays": (linear, neuron.LIFNode, "decay_input=True"),
    "a flatten of the batch": (lambda: nn.Flatten(0), lambda: None, "start_dim"),
    "a flatten of channels": (lambda: nn.Flatten(1, 2), lambda: None, "end_dim"),
    "a flatten with a neuron": (nn.Flatten, neuron.IFNode, "no neuron"),
    "a pooling without a neuron": (lambda: SumPool2d(2), lambda: None, "None"),
    "padding by reflection": (
        lambda: nn.Conv2d(1, 1, 3, padding=1, bias=False, padding_mode="reflect"),
        neuron.IFNode,
        "reflect",
    ),
    "a weight that is NaN": (nan_weight, neuron.IFNode, "1 weights that are NaN"),
    "another neuron": (linear, lambda: neuron.ParametricLIFNode(2.0), "ParametricLIFNode"),
    "a threshold below the grid": (
        linear,
        lambda: neuron.IFNode(v_threshold=0.01),
        "v_threshold=0.01",
    ),
    "a threshold beyond 17 bits": (
        linear,
        lambda: neuron.IFNode(v_threshold=3000.0),
        "v_threshold=3000.0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_slayer_has_not_is_refused_in_one_line(name):
    make_synapse, make_neuron, part = REFUSED[name]
    with pytest.raises(ConversionError) as error:
        BlockContainer(make_synapse(), make_neuron())
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_block_is_refused_for_same_padding_of_an_even_kernel():
    conv = nn.Conv2d(1, 1, 2, padding="same", bias=False)
    container = BlockContainer(conv, neuron.IFNode(), "m")
    with pytest.raises(ConversionError, match="odd kernel"):
        container.to_lava_block()


def test_spikingjellys_default_decay_input_is_what_is_refused():
    with pytest.raises(ConversionError, match="decay_input=False"):
        BlockContainer(linear(), neuron.LIFNode(2.0))
    BlockContainer(linear(), neuron.LIFNode(2.0, decay_input=False))
