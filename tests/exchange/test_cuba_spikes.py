"""The CubaLIFNode's spikes are those of slayer's neuron, lava's and ours, one by one."""

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import slayer
from lava_bridge.exchange import BatchNorm2d
from lava_bridge.exchange.cuba_lif import THRESHOLD_MAX

from .strategies import (
    SCALES,
    CubaLIFNode,
    assert_close,
    batches,
    bounded_sequence,
    decays,
    in_other_memory,
    lava_neuron,
    memory_orders,
    neurons,
    run_steps,
    seeds,
    sequence,
    shapes,
    sizes,
    thresholds,
    times,
)


def assert_slayers_spikes(lava, node, params, x_seq):
    """The spikes of ``node`` equal those of both slayers' neurons; gives the spikes."""
    mine = node(x_seq)
    x = x_seq.movedim(0, -1)
    for which in (lava, slayer):
        reference = lava_neuron(which, params)(x)
        assert torch.equal(mine, reference.movedim(-1, 0)), which.__name__
    assert set(mine.unique().tolist()) <= {0.0, 1.0}
    return mine


@given(neurons(SCALES), shapes(), batches, times, seeds, sizes)
def test_a_multi_step_run_spikes_as_slayers_neuron(lava, params, shape, batch, time, seed, size):
    x_seq = sequence((time, batch, *shape), seed, size * params["v_threshold"])
    assert_slayers_spikes(lava, CubaLIFNode(**params, step_mode="m"), params, x_seq)


@given(neurons(), shapes(), batches, times, seeds, sizes)
def test_a_single_step_run_spikes_as_slayers_neuron(lava, params, shape, batch, time, seed, size):
    x_seq = bounded_sequence(params, (time, batch, *shape), seed, size)
    single = run_steps(CubaLIFNode(**params), x_seq)
    multi = assert_slayers_spikes(lava, CubaLIFNode(**params, step_mode="m"), params, x_seq)
    assert torch.equal(single, multi)


@pytest.mark.parametrize("voltage_decay", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("current_decay", [0.0, 0.3, 1.0])
def test_a_strong_input_makes_it_fire_and_rest(lava, current_decay, voltage_decay):
    # so that the equality of spikes above is no equality of zeros
    params = {"current_decay": current_decay, "voltage_decay": voltage_decay, "v_threshold": 0.7}
    x_seq = sequence((32, 2, 8), 1, 0.7)
    rate = assert_slayers_spikes(lava, CubaLIFNode(**params, step_mode="m"), params, x_seq).mean()
    assert 0.05 < rate < 0.95


@given(neurons(), batches, seeds, memory_orders)
def test_the_memory_order_of_the_input_does_not_matter(lava, params, batch, seed, order):
    x_seq = bounded_sequence(params, (9, batch, 3, 2, 2), seed, 1.0)
    x_seq = in_other_memory(x_seq, order)
    assert order == "batch first" or not x_seq.is_contiguous() or x_seq.numel() == 1
    node = CubaLIFNode(**params, step_mode="m")
    mine = assert_slayers_spikes(lava, node, params, x_seq.contiguous())
    node.reset()
    assert torch.equal(node(x_seq), mine)
    assert torch.equal(run_steps(CubaLIFNode(**params), x_seq), mine)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 2)])
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_an_empty_batch_gives_no_spikes_in_the_shape_of_its_input(step_mode, shape):
    node = CubaLIFNode(0.3, 0.1, step_mode=step_mode)
    x_seq = torch.zeros(5, 0, *shape)
    assert node(x_seq if step_mode == "m" else x_seq[0]).shape == (
        x_seq.shape if step_mode == "m" else x_seq.shape[1:]
    )
    # and the node still takes a batch that is not empty
    x_seq = sequence((5, 2, *shape), 0, 2)
    expected = CubaLIFNode(0.3, 0.1, step_mode="m")(x_seq)
    assert expected.any()
    assert torch.equal(node(x_seq) if step_mode == "m" else run_steps(node, x_seq), expected)


@st.composite
def channel_decays(draw, channels):
    return torch.tensor(draw(st.lists(decays, min_size=channels, max_size=channels)))


def set_channels(neuron, current_decay, voltage_decay, shape):
    """Give slayer's neuron of layer ``shape`` these decays, one for each channel."""
    neuron(torch.zeros(1, *shape, 1))
    for name, decay in (("current_decay", current_decay), ("voltage_decay", voltage_decay)):
        getattr(neuron, name).data = 4096 * decay.flatten()
    return neuron


@given(data=st.data(), seed=seeds, size=sizes, time=times, batch=batches)
def test_decays_per_channel_spike_as_slayers_for_rows(lava, data, seed, size, time, batch):
    channels = data.draw(st.integers(2, 4))
    current, voltage = (data.draw(channel_decays(channels)) for _ in range(2))
    params = {"current_decay": 0.5, "voltage_decay": 0.5, "shared_param": False}
    params["v_threshold"] = data.draw(thresholds(64))
    x_seq = sequence((time, batch, channels), seed, size * params["v_threshold"])
    node = CubaLIFNode(current, voltage, params["v_threshold"], step_mode="m")
    mine = node(x_seq)
    for which in (lava, slayer):
        theirs = set_channels(lava_neuron(which, params), current, voltage, (channels,))
        reference = theirs(x_seq.movedim(0, -1)).movedim(-1, 0)
        assert torch.equal(mine, reference), which.__name__


@given(data=st.data(), seed=seeds, size=sizes, batch=batches)
def test_decays_per_channel_spike_as_each_channel_alone_for_images(lava, data, seed, size, batch):
    current, voltage = (data.draw(channel_decays(3)).reshape(3, 1, 1) for _ in range(2))
    threshold = data.draw(thresholds(64))
    x_seq = sequence((12, batch, 3, 2, 3), seed, size * threshold)
    mine = CubaLIFNode(current, voltage, threshold, step_mode="m")(x_seq)
    # lava's reference broadcasts [C] with the last dimension: right for rows only
    for c in range(3):
        params = {"current_decay": current[c].item(), "voltage_decay": voltage[c].item()}
        reference = lava_neuron(lava, params, v_threshold=threshold)(x_seq[:, :, c].movedim(0, -1))
        assert torch.equal(mine[:, :, c], reference.movedim(-1, 0))
    whole = lava_neuron(
        slayer,
        {"current_decay": 0.5, "voltage_decay": 0.5, "shared_param": False},
        v_threshold=threshold,
    )
    set_channels(whole, current, voltage, (3, 2, 3))
    assert torch.equal(mine, whole(x_seq.movedim(0, -1)).movedim(-1, 0))


def test_one_decay_may_be_per_channel_and_the_other_shared():
    current = torch.tensor([0.0, 0.3, 1.0]).reshape(3, 1, 1)
    x_seq = sequence((12, 2, 3, 2, 2), 1, 1.0)
    mine = CubaLIFNode(current, 0.1, step_mode="m")(x_seq)
    both = CubaLIFNode(current, torch.full((3, 1, 1), 0.1), step_mode="m")(x_seq)
    assert torch.equal(mine, both)
    for c in range(3):
        alone = CubaLIFNode(current[c].item(), 0.1, step_mode="m")(x_seq[:, :, c])
        assert torch.equal(mine[:, :, c], alone)


@given(neurons(), shapes(), batches, seeds, sizes)
def test_float64_spikes_as_slayers_neuron(lava, params, shape, batch, seed, size):
    x_seq = bounded_sequence(params, (12, batch, *shape), seed, size).double()
    node = CubaLIFNode(**params, step_mode="m")
    assert assert_slayers_spikes(lava, node, params, x_seq).dtype == torch.float64
    node = node.to(torch.float64)
    node.reset()
    assert_slayers_spikes(lava, node, params, x_seq)


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@given(params=neurons(), shape=shapes(), batch=batches, seed=seeds, size=sizes)
def test_half_precision_spikes_are_those_of_the_same_values_in_float32(
    dtype, step_mode, params, shape, batch, seed, size
):
    # float16 ends at 65504
    x_seq = bounded_sequence(params, (8, batch, *shape), seed, size).clamp(-6e4, 6e4).to(dtype)
    node = CubaLIFNode(**params, step_mode=step_mode)
    mine = node(x_seq) if step_mode == "m" else run_steps(node, x_seq)
    assert mine.dtype == dtype
    assert node.voltage_state.dtype == node.current_state.dtype == torch.float32
    reference = CubaLIFNode(**params, step_mode="m")
    assert torch.equal(mine.float(), reference(x_seq.float()))
    assert torch.equal(node.voltage_state, reference.voltage_state)


@pytest.mark.parametrize("scale", SCALES)
def test_a_voltage_at_the_threshold_does_not_fire_and_the_next_higher_does(scale):
    at = torch.full((1, 1, 1), 3 / scale)
    above = at + 1.25 / (64 * scale)
    node = CubaLIFNode(1.0, 1.0, v_threshold=3 / scale, scale=scale, step_mode="m")
    assert node(at).item() == 0
    assert node(above).item() == 1


@given(st.sampled_from(SCALES), st.floats(1 / 256, 2000))
def test_the_threshold_is_rounded_down_to_the_grid_as_slayers_is(lava, scale, threshold):
    node = CubaLIFNode(0.1, 0.1, v_threshold=threshold, scale=scale)
    theirs = lava_neuron(
        lava, {"current_decay": 0.1, "voltage_decay": 0.1, "scale": scale}, v_threshold=threshold
    )
    assert node.quantized_threshold == theirs.threshold
    if threshold * scale < 1 << 12:  # beyond, float32 does not tell lava's from 0
        assert node.v_threshold_eps == theirs.threshold_eps
    assert (node.scale, node.s_scale, node.p_scale) == (
        theirs.w_scale,
        theirs.s_scale,
        theirs.p_scale,
    )
    assert node.v_threshold == threshold


@pytest.mark.parametrize("threshold", [0.7, 0.33])
def test_spikingjellys_spikes_differ_from_slayers_at_thresholds_off_the_grid(sj, lava, threshold):
    params = {"current_decay": 0.3, "voltage_decay": 0.1, "v_threshold": threshold}
    # weights of 8 bits on spikes: multiples of 2 / 64, that land on the grid
    x_seq = torch.round(sequence((64, 8, 64), 1, 0.3) * 32) / 32
    theirs = sj.CubaLIFNode(**params, step_mode="m")(x_seq)
    node = CubaLIFNode(**params, step_mode="m")
    mine = assert_slayers_spikes(lava, node, params, x_seq)
    assert not torch.equal(mine, theirs)


@given(neurons(on_grid=True), shapes(), batches, times, seeds, sizes)
def test_at_thresholds_on_the_grid_spikes_and_states_are_spikingjellys(
    sj, params, shape, batch, time, seed, size
):
    x_seq = bounded_sequence(params, (time, batch, *shape), seed, size)
    mine, theirs = CubaLIFNode(**params, step_mode="m"), sj.CubaLIFNode(**params, step_mode="m")
    for node in (mine, theirs):
        node.store_v_seq = node.store_i_seq = True
    assert torch.equal(mine(x_seq), theirs(x_seq))
    for name in ("voltage_state", "current_state", "v_seq", "i_seq"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_spikes_are_of_the_inputs_dtype_with_a_norm_too(dtype):
    node = CubaLIFNode(0.3, 0.1, norm=BatchNorm2d(3), step_mode="m")
    assert node(sequence((4, 2, 3, 2, 2), 1, 3.0).to(dtype)).dtype == dtype


@pytest.mark.parametrize(("value", "held"), [(5000, 4096), (-7, 0)])
def test_each_learned_decay_that_left_its_range_is_brought_back(value, held):
    for name in ("current_decay", "voltage_decay"):
        node = CubaLIFNode(0.3, 0.1, requires_grad=True, step_mode="m")
        getattr(node, name).data.fill_(value)
        assert node.lava_cuba_neuron_params[name] == held / 4096
        node(torch.ones(2, 1, 1))
        assert getattr(node, name).item() == held


@pytest.mark.parametrize("requires_grad", [False, True])
def test_learned_decays_that_left_their_range_are_brought_back(requires_grad):
    node = CubaLIFNode(0.3, 0.1, requires_grad=requires_grad, step_mode="m")
    node.current_decay.data.fill_(5000)
    node.voltage_decay.data.fill_(-7)
    node.clamp_decay_parameters()
    assert (node.current_decay.item(), node.voltage_decay.item()) == (4096, 0)
    node.current_decay.data.fill_(5000)
    if requires_grad:
        node(torch.ones(2, 1, 1))
        assert node.current_decay.item() == 4096


def test_decays_are_rounded_to_twelve_bits_in_the_run_only():
    node = CubaLIFNode(1000.4 / 4096, 1999.6 / 4096, v_threshold=0.5, step_mode="m")
    x_seq = sequence((20, 2, 6), 1, 0.5)
    rounded = CubaLIFNode(1000 / 4096, 2000 / 4096, v_threshold=0.5, step_mode="m")
    assert torch.equal(node(x_seq), rounded(x_seq))
    assert torch.equal(node.voltage_state, rounded.voltage_state)
    assert_close(node.current_decay, torch.tensor(1000.4), rtol=1e-6)
    assert_close(node.voltage_decay, torch.tensor(1999.6), rtol=1e-6)


def test_a_float64_run_neither_fires_nor_resets_at_a_large_threshold(lava):
    # lava compares for the reset in float32, in which 4096 and 4096 + eps are one number
    x_seq = torch.tensor([4096.0, 1 / 4096], dtype=torch.float64).reshape(2, 1, 1)
    params = {"current_decay": 1.0, "voltage_decay": 0.0, "v_threshold": 4096.0}
    node = CubaLIFNode(**params, step_mode="m", store_v_seq=True)
    assert node(x_seq).flatten().tolist() == [0, 1]
    assert node.v_seq.flatten().tolist() == [4096, 0]
    theirs = lava_neuron(lava, params)(x_seq.movedim(0, -1))
    assert theirs.flatten().tolist() == [0, 0], "lava resets without a spike"


@given(st.integers(1, THRESHOLD_MAX), st.sampled_from([torch.float32, torch.float64]))
def test_only_a_voltage_beyond_the_threshold_spikes_however_large_it_is(mantissa, dtype):
    # lava-dl's hundredth of a step is less than half of what float32 tells apart from 64 on.
    threshold = mantissa / 64
    steps = torch.tensor([[[threshold], [threshold + 1 / 4096]]], dtype=dtype)  # [1, C, T]
    want = torch.tensor([[[0.0], [1.0]]], dtype=dtype)
    assert torch.equal(slayer.neuron.cuba.Neuron(threshold, 1, 0)(steps), want)
    node = CubaLIFNode(1.0, 0.0, threshold, step_mode="m")
    assert torch.equal(node(steps.movedim(-1, 0)), want.movedim(-1, 0))


@pytest.mark.parametrize(("threshold", "fires"), [(63.5, 0), (64.0, 1), (127.5, 1)])
def test_lavas_neuron_spikes_at_a_threshold_of_64_or_more_itself(lava, threshold, fires):
    neuron = lava.neuron.cuba.Neuron(threshold, 1, 0)
    assert neuron(torch.full((1, 1, 1), threshold)).sum() == fires
