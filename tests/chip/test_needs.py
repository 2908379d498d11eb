"""What a net needs on a chip is counted exactly."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from lava_bridge import BridgeError, slayer
from lava_bridge.chip import LOIHI1, ChipReport, needs
from lava_bridge.quantize import quantize_8bit

from .nets import CUBA, RF, dense, input_of

sizes = st.integers(1, 6)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.tuples(st.integers(0, 2), st.integers(0, 2))


def sparse(synapse: Any, seed: int) -> None:
    """Draw integers as weights, of both signs, a third of them 0."""
    generator = torch.Generator().manual_seed(seed)
    for _, part in synapse.parts(""):
        drawn = torch.randint(-128, 128, part.weight.shape, generator=generator) * 2 / 64
        kept = torch.rand(part.weight.shape, generator=generator) < 0.67
        part.weight.data = drawn * kept


@st.composite
def layers(draw: Any) -> tuple[Any, tuple[int, ...]]:
    """A block with sparse weights, and the shape of its input."""
    kind = draw(st.sampled_from(["Dense", "Plane", "Conv", "ConvT", "Pool", "Unpool", "Recurrent"]))
    family, params = draw(st.sampled_from([(slayer.block.cuba, CUBA), (slayer.block.rf, RF)]))
    channels, height, width = draw(st.integers(1, 3)), draw(sizes), draw(sizes)
    shape: tuple[int, ...] = (channels, height, width)
    if kind in ("Dense", "Recurrent"):
        shape = (channels * height,)
        block = getattr(family, kind)(params, shape[0], draw(sizes))
    elif kind == "Plane":
        block = family.Dense(params, (width, height, channels), draw(sizes))
    else:
        window = draw(pairs), draw(st.none() | pairs), draw(paddings), draw(pairs)
        if kind in ("Pool", "Unpool"):
            block = getattr(family, kind)(params, *window)
        else:
            groups = draw(st.integers(1, 2))
            shape = (channels * groups, height, width)
            outputs = groups * draw(st.integers(1, 2))
            kernel, stride, *rest = window
            arguments = shape[0], outputs, kernel, stride or 1, *rest, groups
            block = getattr(family, kind)(params, *arguments)
    seed = draw(st.integers(0, 2**32 - 1))
    sparse(block.synapse, seed)
    if kind == "Recurrent":
        sparse(block.recurrent_synapse, seed + 1)
    try:
        block.infer_shape(shape)
    except BridgeError:
        assume(False)
    return block, shape


def matrix(synapse: Any, shape: tuple[int, ...]) -> torch.Tensor:
    """The chip's integers of every connection, ``[neurons, inputs]``: an impulse to each input."""
    inputs = math.prod(shape)
    impulses = torch.eye(inputs).reshape(inputs, *shape, 1)
    with torch.no_grad():
        return (synapse(impulses) * 64).reshape(inputs, -1).T


def matrices(block: Any, shape: tuple[int, ...]) -> list[list[torch.Tensor]]:
    """Of each bundle of synapses (from the inputs; back from the neurons) each part's matrix."""
    bundles = [[matrix(part, shape) for _, part in block.synapse.parts("")]]
    if hasattr(block, "recurrent_synapse"):
        parts = block.recurrent_synapse.parts("")
        bundles.append([matrix(part, (block.num_neurons,)) for _, part in parts])
    return bundles


@settings(max_examples=150)
@given(layers())
def test_synapses_fan_in_and_fan_out_are_those_of_the_connection_matrix(drawn):
    block, shape = drawn
    bundles = matrices(block, shape)
    parts = [part for bundle in bundles for part in bundle]
    found = needs([input_of(shape), block])[1]
    assert found.neurons == math.prod(block.shape) == len(parts[0])
    assert found.synapses == sum(int((part != 0).sum()) for part in parts)
    assert found.fan_in == sum((part != 0).sum(1) for part in parts).max()
    assert found.fan_out == max(sum((p != 0).sum(0) for p in bundle).max() for bundle in bundles)
    pairs = [sum((part != 0) for part in bundle) > 0 for bundle in bundles]
    assert found.inputs == sum(pair.sum(1) for pair in pairs).max()
    assert found.sources == pairs[0].any(0).sum()
    assert found.targets == pairs[0].sum()


@settings(max_examples=100)
@given(layers())
def test_a_kernels_axons_are_the_places_that_a_neuron_sees_and_a_dense_layers_its_inputs(drawn):
    block, shape = drawn
    axons: Any = 0
    for bundle in matrices(block, shape):
        seen = sum((part != 0) for part in bundle) > 0
        if len(shape) == 3 and not isinstance(block, slayer.block.base.AbstractDense):
            # Of a convolution in groups, neurons of one place see the channels of theirs only.
            seen = seen.unflatten(1, shape).any(1).flatten(1)
        axons = axons + seen.sum(1)
    assert needs([input_of(shape), block])[1].axons == axons.max()


@given(layers())
def test_a_kernel_is_stored_once_and_unshared_weights_are_one_for_each_synapse(drawn):
    block, shape = drawn
    found = needs([input_of(shape), block])[1]
    synapses = [block.synapse]
    if hasattr(block, "recurrent_synapse"):
        synapses.append(block.recurrent_synapse)
    real = [part for synapse in synapses for _, part in synapse.parts("")]
    integers = [quantize_8bit(part.weight.detach(), 64, descale=True) for part in real]
    assert found.weights == sum(int((weight != 0).sum()) for weight in integers)
    assert found.memory <= found.weights * 8
    assert found.unshared <= found.synapses * 8
    assert found.weight_bits <= 8


@given(layers())
def test_the_input_of_a_first_layer_is_the_smallest_that_gives_its_output(drawn):
    block, shape = drawn
    alone = needs([block])[0]
    known = needs([input_of(shape), block])[1]
    assert alone.neurons == known.neurons
    assert alone.weights == known.weights
    assert alone.synapses <= known.synapses
    assert alone.fan_in <= known.fan_in


def test_the_smallest_input_of_a_pool_cuts_its_last_window_off():
    block = slayer.block.cuba.Pool(CUBA, 2)
    block.infer_shape((3, 7, 8))
    assert needs([block])[0].synapses == 3 * 7 * 7


def test_a_neuron_with_complex_weights_and_feedback_needs_the_memory_of_all_of_them():
    block = slayer.block.rf.Recurrent(RF, 3, 2)
    for synapse in (block.input_synapse, block.recurrent_synapse):
        for _, part in synapse.parts(""):
            part.weight.data.fill_(1)
    found = needs([block])[0]
    assert (found.neuron_memory, found.memory, found.fan_in, found.inputs) == (10, 20, 10, 5)


@pytest.mark.parametrize(
    ("integers", "bits"),
    [
        ([0, 0], 0),
        ([64, 64], 1),
        ([-256, 254], 8),
        ([2, 254], 7),
        ([-256], 1),
        ([-2, 2], 2),
        ([-4, 2], 2),
        ([-128, 64], 2),
        ([6, -6], 3),
        ([10], 3),
    ],
)
def test_weight_bits_leave_out_common_factors_of_2_and_the_sign_where_there_is_one(integers, bits):
    block = slayer.block.cuba.Dense(CUBA, len(integers), 1)
    block.synapse.weight.data = torch.tensor(integers).float().reshape(1, -1, 1, 1, 1) / 64
    assert needs([block])[0].weight_bits == bits


def test_what_each_layer_of_a_net_needs():
    block = slayer.block.cuba
    net = [
        block.Input(CUBA),
        block.Conv(CUBA, 2, 4, 3, padding=1),
        block.Pool(CUBA, 2),
        block.Flatten(),
        block.Dense(CUBA, 64, 10, delay=True),
        block.KWTA(CUBA, 10, 6, 2),
        slayer.block.cuba.Average(3),
    ]
    shape: tuple[int, ...] = (2, 8, 8)
    for layer in net:
        shape = layer.infer_shape(shape)
    for layer in (net[1], net[4], net[5]):
        layer.synapse.weight.data.fill_(1)
    net[4].delay.delay.data[3] = 70  # the axon holds 62
    found = needs(net)
    assert [layer.name for layer in found] == [
        *("0 Input", "1 Conv", "2 Pool", "3 Flatten", "4 Dense", "5 KWTA", "6 Average")
    ]
    assert [layer.neurons for layer in found] == [128, 256, 64, 0, 10, 6, 0]
    # A 3 x 3 kernel on 8 x 8 with a border of 1: 22 rows of 24 are inside, as are columns.
    assert [layer.synapses for layer in found] == [0, 8 * 22 * 22, 256, 0, 640, 60 + 36, 0]
    assert [layer.weights for layer in found] == [0, 72, 4, 0, 640, 96, 0]
    assert [layer.fan_in for layer in found] == [0, 18, 4, 0, 64, 16, 0]
    assert [layer.fan_out for layer in found] == [0, 36, 1, 0, 10, 6, 0]
    assert [layer.axons for layer in found] == [0, 9, 4, 0, 64, 16, 0]
    assert [layer.threshold for layer in found] == [64, 64, 64, None, 64, 64, None]
    assert (found[4].delay, found[4].delay_bits) == (62, 6)
    assert found[1].memory == 72  # all weights are 64: one bit each
    report = ChipReport("net", LOIHI1, found)
    assert report.ok
    assert report.cores == 1
    assert not report.notes


def test_a_mask_leaves_synapses_out():
    mask = torch.tensor([[1, 0, 1], [0, 0, 1]])
    block = slayer.block.cuba.Dense(CUBA, 3, 2, mask=mask)
    block.synapse.weight.data.fill_(0.5)
    found = needs([input_of((3,)), block])[1]
    assert (found.synapses, found.fan_in, found.fan_out, found.sources) == (3, 2, 2, 2)


def test_only_neurons_on_the_chip_need_output_axons():
    block = slayer.block.cuba
    host, flat = block.Input(), block.Flatten()
    for layer in (host, flat):
        layer.infer_shape((6,))
    assert needs([host, flat, dense(6)])[2].sources == 0
    assert needs([input_of((6,)), flat, dense(6)])[2].sources == 6
    assert needs([dense(3, 6), block.Average(3), dense(3)])[2].sources == 0


def test_neither_the_blocks_nor_their_weights_are_changed():
    block = slayer.block.cuba.Recurrent(CUBA, 5, 4, delay=True, weight_norm=True)
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    needs([block])
    after = block.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
