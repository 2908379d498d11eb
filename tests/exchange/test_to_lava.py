"""One by one: neurons and synapses from SpikingJelly to slayer, lava's and ours."""

import warnings

import pytest
import torch
import torch.nn as nn
from hypothesis import given, strategies as st
from spikingjelly.activation_based import functional, neuron

from lava_bridge import BridgeError, ConversionError, exchange, slayer
from lava_bridge.exchange import NXT_to_TNX, TNX_to_NXT

from .strategies import (
    CubaLIFNode,
    batches,
    bounded_sequence,
    decays,
    neurons,
    seeds,
    sequence,
    shapes,
    sizes,
    thresholds,
    times,
)

# Neurons ----------------------------------------------------------------------------------------

if_or_lif = st.builds(
    lambda tau, **options: (
        neuron.IFNode(**options)
        if tau is None
        else neuron.LIFNode(tau=tau, decay_input=False, **options)
    ),
    tau=st.one_of(st.none(), st.floats(1.01, 100)),
    v_threshold=st.floats(0.02, 100),
    step_mode=st.sampled_from(["s", "m"]),
)


@given(if_or_lif, st.sampled_from([64, 100, 128]))
def test_the_parameters_of_if_and_lif_are_spikingjellys(sj, node, scale):
    node.lava_s_cale = scale
    mine = exchange.to_lava_neuron_param_dict(node)
    assert mine == sj.to_lava_neuron_param_dict(node)


def test_the_parameters_of_an_if_node_are_the_documented_ones():
    assert exchange.to_lava_neuron_param_dict(neuron.IFNode(v_threshold=0.75)) == {
        "threshold": 0.75,
        "current_decay": 1.0,
        "voltage_decay": 0.0,
        "tau_grad": 1,
        "scale_grad": 1,
        "scale": 64,
        "norm": None,
        "dropout": None,
        "shared_param": True,
        "persistent_state": True,
        "requires_grad": False,
        "graded_spike": False,
    }


@given(neurons(), st.booleans())
def test_the_parameters_of_a_cuba_node_are_its_own(params, learned):
    node = CubaLIFNode(**params, requires_grad=learned)
    made = exchange.to_lava_neuron_param_dict(node)
    for name in ("current_decay", "voltage_decay"):
        assert made[name] == getattr(node, name).item() / 4096
    assert (made["threshold"], made["scale"]) == (params["v_threshold"], params["scale"])
    assert made["shared_param"] is True
    assert made["requires_grad"] is learned
    node.current_decay.data.fill_(1024)
    assert exchange.to_lava_neuron_param_dict(node)["current_decay"] == 0.25, "decays as now"


@given(
    params=neurons(),
    shape=shapes(),
    seed=seeds,
    size=sizes,
    calls=st.lists(st.tuples(batches, st.integers(1, 9)), max_size=4),
)
def test_a_neuron_spikes_as_the_node_and_goes_on_from_its_state(
    which, params, shape, seed, size, calls
):
    node = CubaLIFNode(**params, step_mode="m")
    made = exchange.to_lava_neuron(node, slayer=which)
    assert type(made) is which.neuron.cuba.Neuron
    for step, (batch, time) in enumerate(calls):
        x_seq = bounded_sequence(params, (time, batch, *shape), seed + step, size)
        reference = node(x_seq)
        assert torch.equal(NXT_to_TNX(made(TNX_to_NXT(x_seq))), reference)
        assert torch.equal(made.voltage_state, node.voltage_state)
        assert torch.equal(made.current_state, node.current_state)


@given(data=st.data(), seed=seeds)
def test_a_neuron_has_the_nodes_decays_per_channel(which, data, seed):
    values = data.draw(st.lists(decays, min_size=6, max_size=6))
    current, voltage = torch.tensor(values).reshape(2, 3)
    node = CubaLIFNode(current, voltage, data.draw(thresholds(64)), step_mode="m")
    made = exchange.to_lava_neuron(node, slayer=which)
    x_seq = sequence((9, 2, 3), seed, node.v_threshold)
    assert torch.equal(NXT_to_TNX(made(TNX_to_NXT(x_seq))), node(x_seq))
    assert torch.equal(made.current_decay, node.current_decay)
    assert torch.equal(made.voltage_decay, node.voltage_decay)
    node.current_decay.zero_()
    assert torch.equal(made.current_decay, 4096 * current), "a copy"


@given(
    params=neurons(),
    shape=st.one_of(shapes(), st.just(())),
    batch=batches,
    time=times,
    seed=seeds,
    size=sizes,
    start=st.one_of(st.none(), st.floats(-2, 0.99)),
)
def test_lava_neuron_forward_runs_from_the_given_voltage(
    which, params, shape, batch, time, seed, size, start
):
    x_seq = bounded_sequence(params, (time, batch, *shape), seed, size)
    node = CubaLIFNode(**params, step_mode="m")
    if start is None:
        v = bounded_sequence(params, (1, batch, *shape), seed + 1, 0.5)[0]
    else:
        v = round(start * params["v_threshold"] * 4096) / 4096
    node.voltage_state = v if start is None else torch.full((batch, *shape), v)
    spike_seq, after = exchange.lava_neuron_forward(
        exchange.to_lava_neuron(node, slayer=which), x_seq, v
    )
    assert spike_seq.shape == x_seq.shape
    assert torch.equal(spike_seq, node(x_seq))
    assert torch.equal(after, node.voltage_state)


def test_lava_neuron_forward_starts_anew_for_a_batch_of_another_size(which):
    node = CubaLIFNode(0.3, 0.1, 0.7, step_mode="m")
    made = exchange.to_lava_neuron(node, slayer=which)
    for batch in (2, 3, 1):
        x_seq = sequence((6, batch, 4), batch, 0.5)
        node.reset()
        node.voltage_state = torch.full((batch, 4), 0.5)
        spike_seq, _ = exchange.lava_neuron_forward(made, x_seq, 0.5)
        assert torch.equal(spike_seq, node(x_seq))


def test_spikingjellys_lava_neuron_forward_forgets_the_voltage_of_a_first_run(sj, lava):
    x_seq, v = torch.zeros(1, 2, 3), torch.full((2, 3), 0.5)
    for forward, left in ((exchange.lava_neuron_forward, 0.5), (sj.lava_neuron_forward, 0.0)):
        made = exchange.to_lava_neuron(neuron.IFNode(), slayer=lava)
        _, after = forward(made, x_seq, v)
        assert torch.equal(after.reshape(2, 3), torch.full((2, 3), left))


@given(node=if_or_lif, seed=seeds, time=times)
def test_after_a_first_run_lava_neuron_forward_is_spikingjellys(sj, which, node, seed, time):
    mine, theirs = (exchange.to_lava_neuron(node, slayer=which) for _ in range(2))
    for step in range(3):
        x_seq = sequence((time, 2, 3), seed + step, node.v_threshold)
        v = sequence((2, 3), seed + step, 0.5) if step else 0.0
        spike_seq, after = exchange.lava_neuron_forward(mine, x_seq, v)
        reference, expected = sj.lava_neuron_forward(theirs, x_seq, v)
        assert torch.equal(spike_seq, reference)
        assert torch.equal(after, expected)


BAD_RUNS = {
    "a block": (lambda: slayer.block.cuba.Flatten(), (3, 2, 4), 0.0, "found a Flatten"),
    "a node": (neuron.IFNode, (3, 2, 4), 0.0, "found a IFNode"),
    "no batch": (lambda: exchange.to_lava_neuron(neuron.IFNode()), (3,), 0.0, "[T, N, *]"),
    "a voltage of another shape": (
        lambda: exchange.to_lava_neuron(neuron.IFNode()),
        (3, 2, 4),
        torch.zeros(4, 2),
        "voltage of shape (2, 4)",
    ),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_what_lava_neuron_forward_can_not_run_is_refused_in_one_line(name):
    make, shape, v, part = BAD_RUNS[name]
    with pytest.raises(BridgeError) as error:
        exchange.lava_neuron_forward(make(), torch.ones(shape), v)
    assert part in str(error.value)
    assert str(error.value).startswith("lava_neuron_forward: ")
    assert "\n" not in str(error.value)


NO_NEURON = {
    "a soft reset": (lambda: neuron.IFNode(v_reset=None), "v_reset=None"),
    "a reset elsewhere": (lambda: neuron.LIFNode(2.0, False, v_reset=-1.0), "v_reset=-1.0"),
    "an input that decays": (lambda: neuron.LIFNode(3.0), "tau=3.0"),
    "another neuron": (lambda: neuron.ParametricLIFNode(2.0), "ParametricLIFNode"),
    "no neuron": (lambda: nn.ReLU(), "ReLU"),
    "a threshold below the grid": (lambda: neuron.IFNode(0.015), "0.015"),
    "a threshold beyond 17 bits": (lambda: neuron.IFNode(2048.0), "2048"),
    "a threshold that is NaN": (lambda: neuron.IFNode(float("nan")), "nan"),
}


@pytest.mark.parametrize("name", NO_NEURON)
def test_what_the_chip_has_not_is_refused_in_one_line(name):
    make, part = NO_NEURON[name]
    for convert in (exchange.to_lava_neuron, exchange.to_lava_neuron_param_dict):
        with pytest.raises(ConversionError) as error:
            convert(make())
        assert part in str(error.value)
        assert "\n" not in str(error.value)


def test_decays_that_differ_otherwise_than_by_channel_are_refused():
    images = torch.full((1, 2, 2), 0.25)
    with pytest.raises(ConversionError, match=r"\(1, 2, 2\)"):
        exchange.to_lava_neuron(CubaLIFNode(images, 0.1))
    # [C] is a row's channels, but an image's columns
    row, image = CubaLIFNode(torch.rand(3), 0.1), CubaLIFNode(torch.rand(3, 1, 1), 0.1)
    linear, conv = nn.Linear(2, 3, bias=False), nn.Conv2d(1, 3, 1, bias=False)
    exchange.to_lava_block_dense(linear, row)
    exchange.to_lava_block_conv(conv, image)
    with pytest.raises(ConversionError, match=r"\(3,\)"):
        exchange.to_lava_block_conv(conv, row)
    with pytest.raises(ConversionError, match=r"\(3, 1, 1\)"):
        exchange.to_lava_block_dense(linear, image)


# Synapses ---------------------------------------------------------------------------------------


def test_the_documented_example_of_a_linear_layer(which):
    layer = nn.Linear(8, 4, bias=False)
    synapse = exchange.linear_to_lava_synapse_dense(layer, slayer=which)
    assert type(synapse) is which.synapse.Dense
    x_seq = torch.rand([4, 2, 8])
    y = functional.seq_to_ann_forward(x_seq, layer)
    torch.testing.assert_close(NXT_to_TNX(synapse(TNX_to_NXT(x_seq))), y)
    synapse.weight.data.zero_()
    assert layer.weight.all()


def test_the_documented_example_of_a_convolution(which):
    layer = nn.Conv2d(3, 8, kernel_size=3, stride=1, padding=1, bias=False)
    synapse = exchange.conv2d_to_lava_synapse_conv(layer, slayer=which)
    assert type(synapse) is which.synapse.Conv
    x_seq = torch.rand([4, 2, 3, 28, 28])
    y = functional.seq_to_ann_forward(x_seq, layer)
    torch.testing.assert_close(NXT_to_TNX(synapse(TNX_to_NXT(x_seq))), y, rtol=1e-4, atol=1e-5)
    synapse.weight.data.zero_()
    assert layer.weight.all()


def test_the_documented_example_of_an_average_pooling_with_its_warning(which):
    layer = nn.AvgPool2d(kernel_size=2, stride=2)
    with pytest.warns(UserWarning, match="sums where AvgPool2d averages"):
        synapse = exchange.avgpool2d_to_lava_synapse_pool(layer, slayer=which)
    assert type(synapse) is which.synapse.Pool
    x_seq = torch.rand([4, 2, 3, 28, 28])
    y = functional.seq_to_ann_forward(x_seq, layer)
    torch.testing.assert_close(NXT_to_TNX(synapse(TNX_to_NXT(x_seq))) / 4.0, y)


def test_the_warning_of_an_average_pooling_says_what_to_divide_by():
    layer, x = nn.AvgPool2d(2, divisor_override=3), torch.rand(2, 3, 8, 8)
    with pytest.warns(UserWarning, match="sums where AvgPool2d averages: divide its output by 3"):
        synapse = exchange.avgpool2d_to_lava_synapse_pool(layer)
    torch.testing.assert_close(synapse(x.unsqueeze(-1)).squeeze(-1) / 3, layer(x))


@given(
    kernel=st.sampled_from([1, 2, (3, 2)]),
    stride=st.sampled_from([1, 2, (1, 2)]),
    padding=st.sampled_from([0, 1, (0, 1), "same", "valid"]),
    dilation=st.sampled_from([1, 2, (2, 1)]),
    groups=st.integers(1, 2),
    seed=seeds,
)
def test_a_convolution_of_any_geometry_gives_the_same_sums(
    which, kernel, stride, padding, dilation, groups, seed
):
    if padding == "same":
        kernel, stride = (3, 1), 1
    layer = nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups, bias=False)
    layer.weight.data = sequence(tuple(layer.weight.shape), seed, 20.0).round()
    synapse = exchange.conv2d_to_lava_synapse_conv(layer, slayer=which)
    x_seq = sequence((3, 2, 2, 6, 7), seed + 1, 5.0).round()
    y = functional.seq_to_ann_forward(x_seq, layer)
    assert torch.equal(NXT_to_TNX(synapse(TNX_to_NXT(x_seq))), y)


def test_slayer_is_this_librarys_by_default():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pool = exchange.avgpool2d_to_lava_synapse_pool(nn.AvgPool2d(2))
    linear, conv = nn.Linear(2, 2, bias=False), nn.Conv2d(1, 1, 1, bias=False)
    made = [
        (pool, slayer.synapse.Pool),
        (exchange.linear_to_lava_synapse_dense(linear), slayer.synapse.Dense),
        (exchange.conv2d_to_lava_synapse_conv(conv), slayer.synapse.Conv),
        (exchange.to_lava_neuron(neuron.IFNode()), slayer.neuron.cuba.Neuron),
        (exchange.to_lava_block_dense(linear, neuron.IFNode()), slayer.block.cuba.Dense),
        (exchange.to_lava_block_conv(conv, neuron.IFNode()), slayer.block.cuba.Conv),
        (exchange.to_lava_block_pool(nn.AvgPool2d(2), neuron.IFNode()), slayer.block.cuba.Pool),
        (exchange.to_lava_block_flatten(nn.Flatten()), slayer.block.cuba.Flatten),
    ]
    for module, expected in made:
        assert type(module) is expected


SYNAPSES = {
    "a linear's bias": (
        exchange.linear_to_lava_synapse_dense,
        lambda: nn.Linear(2, 2),
        "has a bias",
    ),
    "a convolution's bias": (
        exchange.conv2d_to_lava_synapse_conv,
        lambda: nn.Conv2d(1, 1, 1),
        "has a bias",
    ),
    "circular padding": (
        exchange.conv2d_to_lava_synapse_conv,
        lambda: nn.Conv2d(1, 1, 3, bias=False, padding=1, padding_mode="circular"),
        "circular",
    ),
    "same padding of an even kernel": (
        exchange.conv2d_to_lava_synapse_conv,
        lambda: nn.Conv2d(1, 1, 2, bias=False, padding="same"),
        "odd kernel",
    ),
    "a convolution for a linear": (
        exchange.linear_to_lava_synapse_dense,
        lambda: nn.Conv2d(1, 1, 1, bias=False),
        "expected a Linear, found a Conv2d",
    ),
    "a linear for a convolution": (
        exchange.conv2d_to_lava_synapse_conv,
        lambda: nn.Linear(1, 1, bias=False),
        "expected a Conv2d, found a Linear",
    ),
    "a maximum for an average": (
        exchange.avgpool2d_to_lava_synapse_pool,
        lambda: nn.MaxPool2d(2),
        "expected a AvgPool2d, found a MaxPool2d",
    ),
    "windows of their own at the edges": (
        exchange.avgpool2d_to_lava_synapse_pool,
        lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        "use count_include_pad=True",
    ),
    "cut off windows": (
        exchange.avgpool2d_to_lava_synapse_pool,
        lambda: nn.AvgPool2d(2, ceil_mode=True),
        "has ceil_mode=True: a window that is cut off is divided by its own size",
    ),
}


@pytest.mark.parametrize("name", SYNAPSES)
def test_a_synapse_that_slayer_has_not_is_refused_in_one_line(name):
    convert, make, part = SYNAPSES[name]
    with pytest.raises(ConversionError) as error:
        convert(make())
    assert part in str(error.value)
    assert "\n" not in str(error.value)
