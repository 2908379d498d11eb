"""SpikingJelly nets against the slayer blocks that they become."""

import math
import warnings

import pytest
import torch
import torch.nn as nn
from hypothesis import given, strategies as st
from spikingjelly.activation_based import functional, layer, neuron

import lava_bridge
from lava_bridge import ConversionError, NXT_to_TNX, TNX_to_NXT, to_slayer
from lava_bridge.exchange import BlockContainer, CubaLIFNode, SumPool2d

from .nets import conv_nets, quantised_run, spikes, widen_weights


def outputs_of(blocks: nn.Sequential, x_seq: torch.Tensor) -> list[torch.Tensor]:
    """Spikes [T, N, *] of every block that has a neuron."""
    outputs, x = [], TNX_to_NXT(x_seq)
    with torch.no_grad():
        for block in blocks:
            x = block(x)
            if getattr(block, "neuron", None) is not None:
                outputs.append(NXT_to_TNX(x))
    return outputs


@given(net=conv_nets(), steps=st.integers(1, 12), batch=st.integers(1, 3))
def test_blocks_give_the_spikes_of_the_quantised_net_in_every_layer(net, steps, batch):
    layers, shape = net
    widen_weights(layers)
    x = spikes(steps, batch, *shape)
    expected = quantised_run(layers, x)
    found = outputs_of(to_slayer(layers, input_shape=shape), x)
    assert len(found) == len(expected)
    for ours, truth in zip(found, expected, strict=True):
        assert torch.equal(ours, truth)


@given(net=conv_nets())
def test_blocks_of_the_real_slayer_give_the_same_spikes_and_shapes(lava, net):
    layers, shape = net
    widen_weights(layers)
    x = spikes(7, 2, *shape)
    ours = to_slayer(layers, input_shape=shape)
    theirs = to_slayer(layers, input_shape=shape, slayer=lava)
    for our_block, their_block in zip(ours, theirs, strict=True):
        assert type(their_block).__module__.startswith("lava.lib.dl.slayer")
        assert list(our_block.shape) == list(their_block.shape)
    for our_spikes, their_spikes in zip(outputs_of(ours, x), outputs_of(theirs, x), strict=True):
        assert torch.equal(our_spikes, their_spikes)


@given(net=conv_nets())
def test_input_shape_lets_every_block_know_the_shape_that_a_forward_finds(net):
    layers, shape = net
    blocks = to_slayer(layers, input_shape=shape)
    x = torch.zeros(1, *shape, 2)
    for block in blocks:
        x = block(x)
        inferred = tuple(block.shape)
        assert inferred == (*x.shape[1:-1], 1, 1)[: len(inferred)]


@given(net=conv_nets())
def test_delay_shift_delays_each_layer_by_one_step(net):
    layers, shape = net
    widen_weights(layers)
    x = spikes(10, 2, *shape)
    plain = outputs_of(to_slayer(layers, input_shape=shape), x)
    delayed = outputs_of(to_slayer(layers, input_shape=shape, delay_shift=True), x)
    for depth, (now, later) in enumerate(zip(plain, delayed, strict=True), start=1):
        assert torch.equal(now[: max(10 - depth, 0)], later[depth:])
        assert not later[:depth].any()


def small_net() -> list[nn.Module]:
    layers = [
        nn.Conv2d(1, 2, 3, bias=False),
        neuron.IFNode(),
        nn.AvgPool2d(2),
        neuron.LIFNode(tau=2.0, decay_input=False),
        nn.Flatten(),
        nn.Linear(2 * 3 * 3, 4, bias=False),
        neuron.IFNode(v_threshold=0.7),
    ]
    functional.set_step_mode(nn.ModuleList(layers), "m")
    widen_weights(layers)
    return layers


def test_nesting_containers_lists_and_dropout_make_no_difference():
    flat = small_net()
    x = spikes(8, 2, 1, 8, 8)
    nested = nn.Sequential(
        layer.SeqToANNContainer(flat[0]),
        nn.Sequential(flat[1], nn.Identity()),
        layer.Dropout(0.5),
        nn.Dropout(0.5),
        layer.MultiStepContainer(flat[2]),
        flat[3],
        layer.SeqToANNContainer(nn.Dropout2d(0.5), flat[4], flat[5]),
        flat[6],
    )
    expected = outputs_of(to_slayer(flat, (1, 8, 8)), x)
    for net in (nested, tuple(flat), [flat[:3], tuple(flat[3:])], nn.Sequential(*flat)):
        for ours, truth in zip(outputs_of(to_slayer(net, (1, 8, 8)), x), expected, strict=True):
            assert torch.equal(ours, truth)


def test_block_containers_convert_as_their_parts_do():
    conv, lif = nn.Conv2d(1, 2, 3, bias=False), CubaLIFNode(0.3, 0.1, 0.7)
    linear, cuba = nn.Linear(2 * 3 * 3, 4, bias=False), CubaLIFNode(1.0, 0.0)
    widen_weights([conv, linear])
    net = nn.Sequential(
        BlockContainer(conv, lif),
        BlockContainer(SumPool2d(2), neuron.IFNode()),
        BlockContainer(nn.Flatten(), None),
        BlockContainer(linear, cuba),
    )
    functional.set_step_mode(net, "m")
    x = spikes(8, 2, 1, 8, 8)
    expected = net(x)
    assert expected.any()
    assert torch.equal(outputs_of(to_slayer(net, (1, 8, 8)), x)[-1], expected)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(3, stride=2),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.AvgPool2d((2, 3)),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AvgPool2d(4),
        nn.AvgPool2d(3, stride=1),
    ],
    ids=str,
)
def test_a_pooling_with_its_own_neuron_is_exact_for_every_geometry(pool):
    layers = [nn.Conv2d(1, 3, 2, bias=False), neuron.IFNode(), pool, neuron.IFNode()]
    functional.set_step_mode(nn.ModuleList(layers), "m")
    widen_weights(layers)
    x = spikes(9, 2, 1, 12, 11, rate=0.6)  # 11 x 10 after the convolution: no pool by 2 or 4 fits
    expected = quantised_run(layers, x)
    found = outputs_of(to_slayer(layers, (1, 12, 11)), x)
    assert expected[-1].any()
    for ours, truth in zip(found, expected, strict=True):
        assert torch.equal(ours, truth)


@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    pool=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_a_pooling_without_a_neuron_merges_exactly_into_the_convolution(
    kernel, stride, padding, dilation, pool
):
    size = (6 * pool[0], 6 * pool[1])
    layers = [
        nn.AvgPool2d(pool),
        nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups=2, bias=False),
        neuron.LIFNode(tau=3.0, decay_input=False, step_mode="m"),
    ]
    widen_weights(layers)
    x = spikes(6, 2, 2, *size)
    (expected,) = quantised_run(layers, x)
    blocks = to_slayer(layers, (2, *size))
    assert torch.equal(outputs_of(blocks, x)[0], expected)
    assert len(blocks) == 2  # Input and one Conv


def test_a_converted_block_shares_nothing_with_the_net():
    layers = small_net()
    blocks = to_slayer(layers, (1, 8, 8))
    before = [p.clone() for p in nn.ModuleList(layers).parameters()]
    with torch.no_grad():
        for parameter in blocks.parameters():
            parameter.add_(1)
    for kept, parameter in zip(before, nn.ModuleList(layers).parameters(), strict=True):
        assert torch.equal(kept, parameter)


def test_a_rule_for_a_type_of_ones_own_takes_three_lines():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    net = nn.Sequential(Doubled(4, 3, bias=False), neuron.IFNode(step_mode="m"))
    with pytest.raises(lava_bridge.ConversionError, match="kind of Linear but may compute"):
        to_slayer(net)

    @lava_bridge.convert.rule(Doubled)
    def doubled(module, chain):
        linear = nn.Linear(module.in_features, module.out_features, bias=False)
        linear.weight = nn.Parameter(2 * module.weight.detach())
        chain.synapse(linear)

    try:
        (block,) = to_slayer(net)
    finally:
        del lava_bridge.convert.RULES[Doubled]
    assert torch.equal(block.synapse.weight.flatten(1), 2 * net[0].weight)


def test_weights_beyond_8_bits_are_clipped_with_a_warning_that_names_the_layer():
    net = nn.Sequential(nn.Linear(2, 1, bias=False), neuron.IFNode())
    net[0].weight = nn.Parameter(torch.tensor([[5.0, 1.0]]))
    with pytest.warns(UserWarning, match=r"0 \(Linear\): 1 of 2 weights lie outside"):
        to_slayer(net)


def test_to_lava_blocks_without_a_shape_gives_a_list_of_blocks():
    layers = small_net()
    blocks = lava_bridge.exchange.to_lava_blocks(layers)
    x = spikes(8, 2, 1, 8, 8)
    assert isinstance(blocks, list)
    assert torch.equal(
        outputs_of(nn.Sequential(*blocks), x)[-1], outputs_of(to_slayer(layers, (1, 8, 8)), x)[-1]
    )


def test_a_net_that_has_just_been_trained_on_converts_without_a_reset():
    layers = small_net()
    net = nn.Sequential(*layers)
    layer_wise = nn.Sequential(
        layer.SeqToANNContainer(net[0]),
        net[1],
        layer.SeqToANNContainer(net[2]),
        net[3],
        layer.SeqToANNContainer(net[4], net[5]),
        net[6],
    )
    layer_wise(spikes(4, 2, 1, 8, 8)).sum().backward()  # states now hang on a graph
    state = layers[1].v
    to_slayer(layers, (1, 8, 8))
    assert layers[1].v is state


def test_weights_that_8_bits_hold_as_they_are_give_no_warning(recwarn):
    net = [nn.Linear(20, 3, bias=False), neuron.IFNode()]
    net[0].weight.data.fill_(0.5)
    to_slayer(net)
    assert not [w for w in recwarn if "256 levels" in str(w.message)]
    net[0].weight.data.fill_(0.51)
    with pytest.warns(UserWarning, match="1 of the 256 levels"):
        to_slayer(net)


def test_a_bias_behind_a_delay_acts_early_and_a_warning_says_so():
    net = [nn.Linear(4, 6), neuron.IFNode(), nn.Linear(6, 3), neuron.IFNode()]
    net[0].bias.data.fill_(0.0)
    net[2].bias.data.fill_(1.5)
    with pytest.warns(UserWarning, match=r"2 \(Linear\): has a bias, which acts from the first"):
        late = to_slayer(net, (4,), delay_shift=True)
    net[2].bias = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The first layer's comes with the input; nothing delays in a Flatten.
        to_slayer(net, (4,), delay_shift=True)
        to_slayer([nn.Flatten(), *net], (1, 2, 2), delay_shift=True)
    # After its own delay only: the net's first step is two steps late.
    assert late(torch.zeros(1, 4, 9))[..., 1].all()


def test_what_is_no_data_to_calibrate_with_is_a_conversion_error():
    with pytest.raises(ConversionError, match="calibrate: the data are no array of numbers"):
        to_slayer([nn.Linear(4, 3), neuron.IFNode()], (4,), calibrate={"x": 1})


def test_all_kinds_of_layers_of_the_real_slayer_give_the_same(lava):
    torch.manual_seed(6)
    lif = neuron.LIFNode
    net = nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), lif(v_threshold=0.2), nn.MaxPool2d(2)),
        *(nn.ConvTranspose2d(4, 3, 2, 2), neuron.IFNode(0.3), nn.Upsample(scale_factor=2)),
        *(nn.Conv2d(3, 2, 3), neuron.IFNode(0.3), nn.AvgPool2d(2), neuron.IFNode(0.4)),
        *(nn.Flatten(), nn.Linear(50, 6), lif(v_threshold=0.1)),
    ).eval()
    x = TNX_to_NXT(spikes(12, 2, 2, 8, 8))
    for end in (nn.Linear(6, 3), layer.VotingLayer(2)):
        whole = nn.Sequential(*net, end)
        ours = to_slayer(whole, (2, 8, 8), calibrate="weights")
        theirs = to_slayer(whole, (2, 8, 8), calibrate="weights", slayer=lava)
        a = b = x
        for our, their in zip(ours, theirs, strict=True):
            a, b = our(a), their(b)
            assert torch.equal(a, b)
            assert a.any()


@pytest.mark.parametrize("size", [(5, 7), (6, 8), (7, 5)])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_windows_that_are_cut_off_are_the_same_with_the_real_slayer(lava, size, kernel):
    # Its Pool fills a side of s with s % k zeros, where -s % k are wanted.
    net = nn.Sequential(
        *(nn.MaxPool2d(kernel, ceil_mode=True), nn.Flatten()),
        *(nn.Linear(2 * math.prod(-(-s // kernel) for s in size), 3), neuron.IFNode(0.2)),
    )
    x = TNX_to_NXT(spikes(8, 2, 2, *size))
    ours = to_slayer(net, (2, *size), calibrate="weights")
    theirs = to_slayer(net, (2, *size), calibrate="weights", slayer=lava)
    a = b = x
    for our, their in zip(ours, theirs, strict=True):
        a, b = our(a), their(b)
        assert torch.equal(a, b)
        assert a.any()


def test_a_bias_that_fits_by_its_factor_only_fits_the_real_slayer_too(lava):
    torch.manual_seed(0)
    large = nn.Linear(4, 3)
    large.weight.data.mul_(400)
    large.bias.data.fill_(80.0)
    net = [large, neuron.IFNode(120.0)]
    x = TNX_to_NXT(spikes(8, 2, 4))
    ours = to_slayer(net, (4,), calibrate="weights")
    theirs = to_slayer(net, (4,), calibrate="weights", slayer=lava)
    a = b = x
    for our, their in zip(ours, theirs, strict=True):
        a, b = our(a), their(b)
    assert torch.equal(a, b)
    assert a.any()
