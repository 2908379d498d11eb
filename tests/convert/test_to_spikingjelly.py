"""Back from slayer blocks to SpikingJelly: the quantised twin."""

import pytest
import torch
import torch.nn as nn
from hypothesis import given
from spikingjelly.activation_based import functional, layer, neuron

from lava_bridge import ConversionError, TNX_to_NXT, to_slayer, to_spikingjelly
from lava_bridge.exchange import BlockContainer
from lava_bridge.slayer.block import cuba
from lava_bridge.slayer.neuron import norm

from .nets import conv_nets, spikes, widen_weights

PARAMS = {"threshold": 0.7, "current_decay": 0.3, "voltage_decay": 0.1}
AT_ONCE = {"threshold": 0.7, "current_decay": 1.0, "voltage_decay": 1.0}


def with_bias(block: cuba.Dense) -> cuba.Dense:
    """A block with a bias of its own for each channel, odd and even, above and below 0."""
    channels = block.synapse.out_channels
    block.neuron.norm = norm.ChannelBias(channels)
    block.neuron.norm.value.data = torch.linspace(-0.7, 0.9, channels)
    return block


@given(net=conv_nets())
def test_the_twin_gives_the_spikes_of_the_blocks_and_converts_back_to_the_same_blocks(net):
    layers, shape = net
    widen_weights(layers)
    blocks = to_slayer(layers, input_shape=shape)
    twin = to_spikingjelly(blocks)
    x = spikes(8, 2, *shape)
    assert all(isinstance(module, BlockContainer) for module in twin)
    assert torch.equal(TNX_to_NXT(twin(x)), blocks(TNX_to_NXT(x)))
    functional.reset_net(twin)
    again = to_slayer(twin, input_shape=shape)
    for old, new in zip(blocks.state_dict().items(), again.state_dict().items(), strict=True):
        assert old[0] == new[0]
        assert torch.equal(old[1], new[1])


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (lambda: cuba.Dense(dict(PARAMS), 10, 4, delay_shift=False), (10,)),
        (lambda: cuba.Dense(dict(PARAMS), (5, 4, 2), 4, delay_shift=False), (2, 4, 5)),
        (lambda: cuba.Dense(dict(PARAMS), 10, 4, delay_shift=False, weight_norm=True), (10,)),
        (
            lambda: cuba.Dense(
                dict(PARAMS),
                10,
                4,
                delay_shift=False,
                mask=(torch.arange(40) % 3 > 0).reshape(4, 10),
            ),
            (10,),
        ),
        (
            lambda: cuba.Conv(
                {**PARAMS, "shared_param": False},
                2,
                4,
                (3, 2),
                (1, 2),
                (1, 0),
                1,
                2,
                delay_shift=False,
            ),
            (2, 7, 6),
        ),
        (
            lambda: cuba.Conv(
                {**PARAMS, "norm": norm.WgtScaleBatchNorm}, 2, 4, 3, delay_shift=False
            ),
            (2, 7, 6),
        ),
        (lambda: cuba.Pool(dict(PARAMS), 2, delay_shift=False), (2, 7, 6)),
        (lambda: cuba.Pool(dict(PARAMS), 3, stride=2, padding=1, delay_shift=False), (2, 7, 6)),
        (
            lambda: cuba.ConvT(dict(PARAMS), 2, 4, (3, 2), 2, (1, 0), 1, 2, delay_shift=False),
            (2, 4, 3),
        ),
        (lambda: cuba.Unpool(dict(AT_ONCE), (2, 3), delay_shift=False), (2, 4, 3)),
        (lambda: cuba.Affine(dict(AT_ONCE), 10, 4), (10,)),
        (lambda: with_bias(cuba.Affine(dict(AT_ONCE), 10, 4)), (10,)),
        (lambda: with_bias(cuba.Dense(dict(PARAMS), 10, 4, delay_shift=False)), (10,)),
        (lambda: with_bias(cuba.Conv(dict(PARAMS), 2, 4, 3, delay_shift=False)), (2, 7, 6)),
        (
            lambda: cuba.Dense(
                {**PARAMS, "norm": norm.MeanOnlyBatchNorm}, 10, 4, delay_shift=False
            ),
            (10,),
        ),
    ],
)
def test_every_kind_of_block_has_a_twin_of_the_same_spikes(block, shape):
    block = block()
    if block.synapse.weight.requires_grad:
        block.synapse.weight.detach().mul_(4)
    x = spikes(9, 3, *shape, rate=0.5)
    block.train()
    block(TNX_to_NXT(x))  # statistics for the norm, shape for the neuron
    block.eval()
    expected = block(TNX_to_NXT(x))
    twin = to_spikingjelly([block]).eval()
    assert expected.any()
    assert torch.equal(TNX_to_NXT(twin(x)), expected)


def test_an_average_is_a_voting_layer():
    blocks = nn.Sequential(cuba.Affine(dict(AT_ONCE), 10, 12), cuba.Average(3))
    x = spikes(9, 3, 10, rate=0.5)
    expected = blocks(TNX_to_NXT(x))
    twin = to_spikingjelly(blocks)
    assert isinstance(twin[1], layer.VotingLayer)
    assert torch.equal(TNX_to_NXT(twin(x)), expected)
    with pytest.raises(ConversionError, match=r"0 \(Average\): .*infer_shape"):
        to_spikingjelly([cuba.Average(3)])


def test_the_twins_bias_is_a_parameter_of_its_own():
    block = with_bias(cuba.Dense(dict(PARAMS), 10, 4, delay_shift=False))
    before = block.neuron.norm.value.detach().clone()
    for made in (block, cuba.Affine(dict(AT_ONCE), 10, 4)):
        twin = to_spikingjelly([with_bias(made)])
        for parameter in twin.parameters():
            parameter.data.zero_()
        assert torch.equal(made.neuron.norm.value, before)


def test_the_twin_trains_on_with_its_weights_quantised():
    blocks = to_slayer(
        [nn.Linear(6, 3, bias=False), neuron.IFNode()],
        input_shape=(6,),
    )
    twin = to_spikingjelly(blocks)
    x = spikes(10, 4, 6)
    optimizer = torch.optim.SGD(twin.parameters(), lr=1.0)
    before = twin[0].synapse.weight.clone()
    twin(x).mean().backward()
    optimizer.step()
    functional.reset_net(twin)
    assert not torch.equal(twin[0].synapse.weight, before)
    assert torch.equal(TNX_to_NXT(twin(x)), to_slayer(twin, input_shape=(6,))(TNX_to_NXT(x)))


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (lambda: cuba.Dense(dict(PARAMS), 4, 3), "delay_shift=False"),
        (
            lambda: cuba.Dense(dict(PARAMS), 4, 3, delay=True, delay_shift=False),
            "delays its spikes",
        ),
        (lambda: cuba.Input(dict(PARAMS), delay_shift=False), "has a neuron"),
        (lambda: cuba.Input(), "delays its spikes"),
        (
            lambda: cuba.Dense({**PARAMS, "graded_spike": True}, 4, 3, delay_shift=False),
            "graded",
        ),
        (
            lambda: cuba.Dense(dict(PARAMS), 4, 3, pre_hook_fx=None, delay_shift=False),
            "pre_hook_fx",
        ),
        (lambda: cuba.Pool(dict(PARAMS), 2, weight_scale=2, delay_shift=False), "weight_scale=1"),
        (lambda: cuba.Recurrent(dict(PARAMS), 4, 3), "no SpikingJelly module equals"),
        (lambda: cuba.Affine(dict(PARAMS), 4, 3), "decays of 1"),
        (lambda: cuba.Affine(dict(AT_ONCE), 4, 3, dynamics=False), "dynamics=True"),
        (lambda: cuba.Unpool(dict(PARAMS), 3, 2, delay_shift=False), "stride=kernel_size"),
        (lambda: cuba.Unpool(dict(PARAMS), 2, weight_scale=2, delay_shift=False), "weight_scale=1"),
    ],
)
def test_a_block_without_a_twin_is_named_with_the_reason(block, reason):
    with pytest.raises(ConversionError, match=reason) as caught:
        to_spikingjelly([cuba.Flatten(), block()])
    assert str(caught.value).startswith("1 (")
    assert "\n" not in str(caught.value)
