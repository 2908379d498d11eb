"""Whole layers and nets from SpikingJelly to slayer's blocks; the net itself stays as it was."""

import copy

import pytest
import torch
import torch.nn as nn
from hypothesis import given, strategies as st
from spikingjelly.activation_based import functional, layer, neuron

from lava_bridge import ConversionError, exchange, slayer, to_slayer
from lava_bridge.exchange import BlockContainer, CubaLIFNode, NXT_to_TNX, TNX_to_NXT

from .strategies import seeds, sequence, spikes


def on_the_grid(module, seed, size=0.4):
    """Weights that 8 bits hold: quantising them changes nothing."""
    for i, parameter in enumerate(module.parameters()):
        weight = sequence(tuple(parameter.shape), seed + i, size)
        parameter.data = exchange.quantize_8bit(weight, 64)
    return module


def run_blocks(blocks, x_seq):
    x = TNX_to_NXT(x_seq)
    for block in blocks:
        x = block(x)
    return NXT_to_TNX(x)


def twin_of(net):
    """The net in SpikingJelly, multi-step, on a copy."""
    net = copy.deepcopy(nn.Sequential(*net))
    functional.set_step_mode(net, "m")

    def run(x_seq):
        for module in net:
            stateless = not isinstance(module, neuron.BaseNode | layer.Linear | layer.Conv2d)
            x_seq = functional.seq_to_ann_forward(x_seq, module) if stateless else module(x_seq)
        return x_seq

    return run


# Thresholds on the grid: SpikingJelly's float neurons then spike as quantised ones do, since an IF
# node adds up multiples of 1/32. (A threshold is passed, not met: hence the odd ones.)
ODD = (0.515625, 1.015625)


def nodes(draw, decay=True):
    threshold = draw(st.sampled_from(ODD))
    if decay and draw(st.booleans()):
        return CubaLIFNode(draw(st.sampled_from([0.3, 1.0])), 0.1, threshold)
    return neuron.IFNode(v_threshold=threshold)


@given(data=st.data(), seed=seeds)
def test_a_dense_block_spikes_as_the_layer(which, data, seed):
    linear = on_the_grid(nn.Linear(6, 4, bias=False), seed)
    node = nodes(data.draw)
    block = exchange.to_lava_block_dense(linear, node, slayer=which)
    assert type(block) is which.block.cuba.Dense
    x_seq = spikes((9, 2, 6), seed)
    assert torch.equal(run_blocks([block], x_seq), twin_of([linear, node])(x_seq))


@given(data=st.data(), seed=seeds)
def test_a_conv_block_spikes_as_the_layer(which, data, seed):
    geometry = data.draw(st.sampled_from([{}, {"stride": 2, "padding": 1}, {"groups": 2}]))
    conv = on_the_grid(nn.Conv2d(2, 4, 3, bias=False, **geometry), seed)
    node = nodes(data.draw)
    block = exchange.to_lava_block_conv(conv, node, slayer=which)
    assert type(block) is which.block.cuba.Conv
    x_seq = spikes((9, 2, 2, 6, 5), seed)
    assert torch.equal(run_blocks([block], x_seq), twin_of([conv, node])(x_seq))


@given(data=st.data(), seed=seeds)
def test_a_pool_block_spikes_as_the_average_pooling(which, data, seed):
    # averages of 2 and 4 are exact; the block's threshold is as many times larger
    pool = nn.AvgPool2d(data.draw(st.sampled_from([2, (1, 2), (4, 2)])))
    threshold = data.draw(st.sampled_from([0.25, 0.515625, 1.0]))
    node = neuron.IFNode(v_threshold=threshold)
    block = exchange.to_lava_block_pool(pool, node, slayer=which)
    assert type(block) is which.block.cuba.Pool
    kernel = exchange.SumPool2d(pool.kernel_size).kernel_size
    assert block.neuron.threshold == threshold * kernel[0] * kernel[1]
    x_seq = spikes((9, 2, 3, 8, 4), seed, 0.7)
    mine = run_blocks([block], x_seq)
    # SpikingJelly fires at its threshold, the chip above it
    twin = neuron.IFNode(v_threshold=threshold + 1 / 4096)
    assert torch.equal(mine, twin_of([pool, twin])(x_seq))
    assert node.v_threshold == threshold


def test_a_pool_block_takes_the_divisor_of_its_pooling():
    pool = nn.AvgPool2d(2, divisor_override=3)
    block = exchange.to_lava_block_pool(pool, neuron.IFNode(v_threshold=0.5))
    assert block.neuron.threshold == 1.5


def test_a_flatten_block_flattens(which):
    block = exchange.to_lava_block_flatten(nn.Flatten(), slayer=which)
    assert type(block) is which.block.cuba.Flatten
    x_seq = spikes((5, 2, 3, 2, 4), 1)
    assert torch.equal(run_blocks([block], x_seq), x_seq.flatten(2))


@given(seed=seeds)
def test_without_the_quantiser_a_block_keeps_its_weights(which, seed):
    linear, conv = nn.Linear(6, 4, bias=False), nn.Conv2d(2, 3, 3, bias=False)
    for module in (linear, conv):
        module.weight.data = sequence(tuple(module.weight.shape), seed, 6.0)
    made = [
        exchange.to_lava_block_dense(linear, neuron.IFNode(), False, slayer=which),
        exchange.to_lava_block_conv(conv, neuron.IFNode(), False, slayer=which),
        exchange.to_lava_block_pool(nn.AvgPool2d(2), neuron.IFNode(), False, slayer=which),
    ]
    x_seqs = [spikes((5, 2, 6), seed), *[spikes((5, 2, 2, 6, 6), seed)] * 2]
    layers = [linear, conv, exchange.SumPool2d(2)]
    for block, x_seq, module in zip(made, x_seqs, layers, strict=True):
        z = NXT_to_TNX(block.synapse(TNX_to_NXT(x_seq)))
        torch.testing.assert_close(z, functional.seq_to_ann_forward(x_seq, module))
    quantised = exchange.to_lava_block_dense(linear, neuron.IFNode(), slayer=which)
    z = NXT_to_TNX(quantised.synapse(TNX_to_NXT(x_seqs[0])))
    assert torch.equal(
        z, nn.functional.linear(x_seqs[0], exchange.quantize_8bit(linear.weight, 64))
    )


def test_a_block_starts_each_run_from_rest_and_does_not_shift(which):
    linear = on_the_grid(nn.Linear(6, 4, bias=False), 1)
    block = exchange.to_lava_block_dense(linear, neuron.IFNode(v_threshold=0.5), slayer=which)
    assert block.delay_shift is False
    x_seq = spikes((9, 2, 6), 1)
    first = run_blocks([block], x_seq)
    assert first.any()
    assert torch.equal(run_blocks([block], x_seq), first)


# Nets -------------------------------------------------------------------------------------------


def example(seed):
    """Convolution, pooling with a neuron, flatten and two linear layers."""
    return [
        on_the_grid(nn.Conv2d(1, 4, 3, padding=1, bias=False), seed),
        neuron.IFNode(v_threshold=0.515625),
        nn.AvgPool2d(2),
        # 1/2 is met, not passed, by two of four spikes: the chip waits for the third
        neuron.IFNode(v_threshold=0.5 + 1 / 64),
        nn.Flatten(),
        on_the_grid(nn.Linear(64, 12, bias=False), seed + 1, 0.2),
        CubaLIFNode(0.3, 0.1, 0.515625),
        on_the_grid(nn.Linear(12, 5, bias=False), seed + 2),
        neuron.IFNode(v_threshold=1.015625),
    ]


KINDS = {
    "list": list,
    "tuple": tuple,
    "Sequential": lambda net: nn.Sequential(*net),
}


@given(kind=st.sampled_from(sorted(KINDS)), seed=seeds)
def test_the_blocks_of_a_net_spike_as_the_net(which, kind, seed):
    net = KINDS[kind](example(seed))
    blocks = to_lava_blocks(net, which)
    assert [type(block).__name__ for block in blocks] == [
        "Conv",
        "Pool",
        "Flatten",
        "Dense",
        "Dense",
    ]
    x_seq = spikes((12, 2, 1, 8, 8), seed)
    assert torch.equal(run_blocks(blocks, x_seq), twin_of(net)(x_seq))


def test_every_layer_of_the_example_fires():
    # so that the equalities below are no equalities of zeros
    x = TNX_to_NXT(spikes((12, 2, 1, 8, 8), 1))
    for block in exchange.to_lava_blocks(example(1)):
        x = block(x)
        assert 0.02 < x.mean() < 0.9


def to_lava_blocks(net, which):
    """The blocks of either slayer; ``to_lava_blocks`` itself gives this library's."""
    if which is not slayer:
        return list(to_slayer(net, slayer=which))
    blocks = exchange.to_lava_blocks(net)
    assert type(blocks) is list
    return blocks


@pytest.mark.parametrize("kind", KINDS)
def test_the_users_modules_stay_as_they_were_bit_for_bit(which, kind):
    net = KINDS[kind](example(1))
    modules = nn.ModuleList(net)
    before = copy.deepcopy(modules)
    blocks = to_lava_blocks(net, which)
    with torch.no_grad():
        for block in blocks:
            for parameter in block.parameters():
                parameter.fill_(7)
    after, expected = modules.state_dict(), before.state_dict()
    assert after.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(after[name], value), name
    for module, twin in zip(modules.modules(), before.modules(), strict=True):
        if isinstance(module, neuron.BaseNode):
            assert module.v_threshold == twin.v_threshold
            assert module.step_mode == twin.step_mode
            assert list(module.memories()) == list(twin.memories())


def test_spikingjellys_layers_are_taken_as_torchs():
    net = [layer.Linear(6, 4, bias=False), neuron.IFNode()]
    plain = nn.Linear(6, 4, bias=False)
    plain.load_state_dict(net[0].state_dict())
    x_seq = spikes((9, 2, 6), 1)
    mine = run_blocks(exchange.to_lava_blocks(net), x_seq)
    assert torch.equal(mine, run_blocks(exchange.to_lava_blocks([plain, net[1]]), x_seq))


def test_containers_are_taken_as_the_layers_that_they_hold():
    net = nn.Sequential(
        BlockContainer(nn.Conv2d(1, 4, 3, bias=False), neuron.IFNode(), "m"),
        BlockContainer(nn.Flatten(), None, "m"),
        BlockContainer(nn.Linear(64, 5, bias=False), CubaLIFNode(0.3, 0.1, 0.7), "m"),
    )
    x_seq = spikes((9, 2, 1, 6, 6), 1)
    assert torch.equal(run_blocks(exchange.to_lava_blocks(net), x_seq), net(x_seq))


def test_spikingjelly_divides_the_weight_of_the_users_next_linear_layer_in_place(sj):
    # its pooling reads the kernel of the module after it: a Flatten that has one, say
    def net():
        flatten = nn.Flatten()
        flatten.kernel_size = 2
        return [
            nn.AvgPool2d(2),
            neuron.IFNode(v_threshold=0.515625),
            flatten,
            on_the_grid(nn.Linear(16, 3, bias=False), 1),
            neuron.IFNode(v_threshold=0.515625),
        ]

    theirs, mine = net(), net()
    before = theirs[3].weight.detach().clone()
    sj.to_lava_blocks(theirs)
    assert torch.equal(theirs[3].weight, before / 4)
    blocks = exchange.to_lava_blocks(mine)
    assert torch.equal(mine[3].weight, before)
    x_seq = spikes((9, 2, 1, 8, 8), 1)
    assert torch.equal(run_blocks(blocks, x_seq), twin_of(mine)(x_seq))


@pytest.mark.parametrize("last", [False, True])
def test_spikingjelly_cant_convert_an_average_pooling(sj, last):
    net = [nn.AvgPool2d(2), neuron.IFNode(v_threshold=0.515625)]
    if not last:
        net += [nn.Flatten(), nn.Linear(16, 3, bias=False), neuron.IFNode()]
    with pytest.raises((AttributeError, IndexError)):
        sj.to_lava_blocks(net)
    assert len(exchange.to_lava_blocks(net)) == (1 if last else 3)


REFUSED = {
    "a bias with a current that goes on": (
        [nn.Linear(2, 2), CubaLIFNode(0.5, 0.5)],
        "1 (CubaLIFNode)",
        "bias",
    ),
    "a layer without a neuron": (
        [nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1), neuron.IFNode()],
        "1 (Conv2d)",
        "without a neuron",
    ),
    "a neuron without a layer": ([neuron.IFNode()], "0 (IFNode)", "no synapse"),
    "a type that nothing converts": ([nn.Threshold(1, 0)], "0 (Threshold)", "no rule"),
    "a flatten of the batch": ([nn.Flatten(0)], "0 (Flatten)", "start_dim"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cant_be_converted_is_named_with_its_place_in_one_line(name):
    net, place, part = REFUSED[name]
    with pytest.raises(ConversionError) as error:
        exchange.to_lava_blocks(net)
    message = str(error.value)
    assert message.startswith(place)
    assert part in message
    assert "\n" not in message


BLOCKS = {
    "a bias with a current that goes on": (
        lambda: exchange.to_lava_block_dense(nn.Linear(2, 2), CubaLIFNode(0.5, 0.5)),
        "bias",
    ),
    "a convolution for a linear": (
        lambda: exchange.to_lava_block_dense(nn.Conv2d(1, 1, 1, bias=False), neuron.IFNode()),
        "expected a Linear",
    ),
    "a maximum for an average": (
        lambda: exchange.to_lava_block_pool(nn.MaxPool2d(2), neuron.IFNode()),
        "expected a AvgPool2d",
    ),
    "padding that is not counted": (
        lambda: exchange.to_lava_block_pool(
            nn.AvgPool2d(2, padding=1, count_include_pad=False), neuron.IFNode()
        ),
        "count_include_pad",
    ),
    "a threshold that the pooling makes too large": (
        lambda: exchange.to_lava_block_pool(nn.AvgPool2d(16), neuron.IFNode(v_threshold=10.0)),
        "17 bits",
    ),
    "a flatten of channels": (
        lambda: exchange.to_lava_block_flatten(nn.Flatten(1, 2)),
        "end_dim",
    ),
    "a neuron that is none": (
        lambda: exchange.to_lava_block_dense(nn.Linear(2, 2, bias=False), nn.ReLU()),
        "ReLU",
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_that_slayer_has_not_is_refused_in_one_line(name):
    call, part = BLOCKS[name]
    with pytest.raises(ConversionError) as error:
        call()
    assert part in str(error.value)
    assert "\n" not in str(error.value)
