"""The blocks give what lava's give: outputs bit for bit, gradients within the bound."""

import pytest
import torch
from hypothesis import assume, given, strategies as st

from lava_bridge import slayer

from .cases import CASES, Case, feed_forward
from .strategies import (
    analog,
    assert_close,
    assert_same_gradients,
    batches,
    gradients,
    run_alike,
    seeds,
    thorough,
)

times = st.integers(1, 12)


@thorough
@given(feed_forward(), batches, times, seeds)
def test_a_feed_forward_block_gives_lavas_spikes(lava, case, batch, time, seed):
    x = case.input(seed, batch, time)
    ours, mine = case.built_and_run(slayer, seed, x)
    theirs, reference = case.built_and_run(lava, seed, x)
    assert torch.equal(mine, reference)
    assert ours.shape == theirs.shape == mine.shape[1:-1]
    # another batch of training, then evaluation
    mine, reference = run_alike(ours, theirs, case.input(seed + 1, batch + 1, time), seed)
    assert torch.equal(mine, reference)
    ours.eval(), theirs.eval()
    assert torch.equal(ours(x), theirs(x))


@thorough
@given(feed_forward(dropout=False), batches, times, seeds, st.booleans())
def test_a_feed_forward_blocks_gradients_are_lavas(lava, case, batch, time, seed, training):
    ours, mine = case.built_and_run(slayer, seed, case.input(seed, batch, time))
    # lava's Delay has no backward for [C, 1, 1]
    assume(ours.delay is None or mine.dim() == 3 or mine[0, 0, ..., 0].numel() > 1)
    theirs, _ = case.built_and_run(lava, seed, case.input(seed, batch, time))
    for block in (ours, theirs):
        block.double().train(training)
        if block.delay is not None:
            block.delay.delay.data += 1.5
    x = analog((batch, *case.shape, time), seed, 1, torch.float64)
    assert_same_gradients(ours, theirs, x, seed + 1)


@thorough
@given(feed_forward(), batches, st.lists(st.integers(1, 6), min_size=2, max_size=4), seeds)
def test_a_block_with_persistent_state_goes_on_as_lavas(lava, case, batch, parts, seed):
    case = case.of_neuron(persistent_state=True)
    whole = case.input(seed, batch, sum(parts))
    first, *rest = whole.split(parts, dim=-1)
    with torch.no_grad():  # lava raises with a gradient: it writes into a view
        ours, mine = case.built_and_run(slayer, seed, first)
        theirs, reference = case.built_and_run(lava, seed, first)
        assert torch.equal(mine, reference)
        for part in [*rest, case.input(seed, batch + 1, 3), first]:
            mine, reference = run_alike(ours, theirs, part, seed)
            assert torch.equal(mine, reference)


@given(feed_forward(dropout=False), batches, st.lists(st.integers(1, 6), min_size=2), seeds)
def test_a_split_sequence_equals_one_long_run_also_with_a_gradient(case, batch, parts, seed):
    assume(not case.options["delay"])  # a learned delay keeps no steps between forwards
    case = case.of_neuron(norm=None)
    x = case.input(seed, batch, sum(parts))
    _, whole = case.built_and_run(slayer, seed, x)
    case = case.of_neuron(persistent_state=True)
    torch.manual_seed(seed)
    block = case.build(slayer)
    split = torch.cat([block(part) for part in x.split(parts, dim=-1)], dim=-1)
    assert torch.equal(split, whole)
    if case.block not in ("Pool", "Unpool"):
        split.sum().backward()
        assert all(torch.isfinite(weight.grad).all() for weight in block.synapse.parameters())


@given(
    st.sampled_from([None, 0, 1.3, 3.9]),
    st.sampled_from([None, -0.2, 0.52]),
    st.booleans(),
    st.sampled_from([(3,), (2, 3, 2)]),
    times,
    seeds,
)
def test_an_input_block_encodes_as_lavas(lava, weight, bias, shift, shape, time, seed):
    case = Case("Input", shape, {"weight": weight, "bias": bias, "delay_shift": shift})
    case = case.of_neuron(tau_grad=0.01)
    x = analog((2, *shape, time), seed, 1)
    ours, mine = case.built_and_run(slayer, seed, x)
    theirs, reference = case.built_and_run(lava, seed, x)
    assert torch.equal(mine, reference)
    assert ours.shape == theirs.shape == shape
    assert_same_gradients(ours.double(), theirs.double(), x.double(), seed + 1)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 2)])
def test_an_input_block_without_neuron_passes_its_input(lava, shape):
    x = analog((2, *shape, 5), 0, 1)
    plain = Case("Input", shape, {"delay_shift": False}, None)
    ours, mine = plain.built_and_run(slayer, 0, x)
    theirs, reference = plain.built_and_run(lava, 0, x)
    assert torch.equal(mine, reference)
    assert torch.equal(mine, x)
    assert ours.shape == theirs.shape == shape
    # lava raises with delay_shift: it asks no neuron for its persistent state
    shifted = slayer.block.cuba.Input()(x)
    assert torch.equal(shifted[..., 1:], x[..., :-1])
    assert shifted[..., 0].abs().sum() == 0


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), times, seeds)
def test_flatten_and_average_are_lavas(lava, channels, height, width, time, seed):
    x = analog((2, channels, height, width, time), seed, 1, torch.float64)
    for case in (
        Case("Flatten", x.shape[1:-1], {}, None),
        Case("Average", x.shape[1:-1], {"num_outputs": channels}, None),
        Case("Average", x.shape[1:-1], {"num_outputs": channels * height * width}, None),
    ):
        ours, mine = case.built_and_run(slayer, 0, x)
        theirs, reference = case.built_and_run(lava, 0, x)
        assert torch.equal(mine, reference)
        assert tuple(ours.shape) == tuple(theirs.shape)
        assert_same_gradients(ours, theirs, x, seed)


@given(st.sampled_from([1, 2, 4, 16]), times, seeds, st.sampled_from([(3,), (2, 3, 2)]))
def test_time_decimation_is_lavas(lava, factor, time, seed, shape):
    x = analog((2, *shape, time), seed, 1, torch.float64)
    case = Case("TimeDecimation", shape, {"factor": factor}, None)
    ours, mine = case.built_and_run(slayer, 0, x)
    theirs, reference = case.built_and_run(lava, 0, x)
    assert torch.equal(mine, reference)
    assert mine.shape[-1] == -(-time // factor)
    assert_same_gradients(ours, theirs, x, seed)


@given(st.booleans(), st.booleans(), st.booleans(), batches, times, seeds)
def test_affine_is_lavas(lava, dynamics, norm, weight_norm, batch, time, seed):
    case = CASES["Affine"].but(dynamics=dynamics, weight_norm=weight_norm)
    neuron = {"requires_grad": True, "norm": "MeanOnlyBatchNorm" if norm else None}
    case = Case(case.block, case.shape, case.options, neuron)
    x = case.input(seed, batch, time)
    ours, mine = case.built_and_run(slayer, seed, x)
    theirs, reference = case.built_and_run(lava, seed, x)
    assert torch.equal(mine, reference)
    assert ours.shape == theirs.shape == (3,)
    x = analog(tuple(x.shape), seed, 1, torch.float64)
    assert_same_gradients(ours.double(), theirs.double(), x, seed + 1)


def test_an_affine_neuron_never_resets():
    case = CASES["Affine"]
    torch.manual_seed(0)
    voltages = slayer.block.cuba.Affine(
        {"threshold": 0.02, "current_decay": 1, "voltage_decay": 0}, **case.options
    )
    x = case.input(0)
    synapse = voltages.synapse
    # without leak the voltage is the sum of the input so far
    assert torch.equal(voltages(x), synapse(x).cumsum(-1))


@thorough
@given(
    st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans(), batches, times, seeds
)
def test_recurrents_first_forward_and_gradients_are_lavas(
    lava, norm, per_channel, delay, shift, weight_norm, batch, time, seed
):
    case = CASES["Recurrent"].but(delay=delay, delay_shift=shift, weight_norm=weight_norm)
    neuron = {
        **(CASES["Recurrent per channel"].neuron if per_channel else {}),
        "norm": "MeanOnlyBatchNorm" if norm else None,
        "tau_grad": 0.01,
    }
    case = Case(case.block, case.shape, case.options, neuron)
    x = case.input(seed, batch, time)

    def run(which):
        torch.manual_seed(seed)
        block = case.build(which)
        return gradients(block, x, seed + 1)

    my_grad, my_grads = run(slayer)
    grad, grads = run(lava)
    _, mine = case.built_and_run(slayer, seed, x)
    assert torch.equal(mine, case.built_and_run(lava, seed, x)[1])
    # in float32: lava's recurrence takes no float64
    assert_close(my_grad, grad, rtol=1e-4, floor=1e-6)
    assert my_grads.keys() == grads.keys()
    for name, value in grads.items():
        assert_close(my_grads[name], value, rtol=1e-4, floor=1e-6)


@pytest.mark.parametrize("name", ["Recurrent", "Recurrent per channel", "KWTA"])
@given(parts=st.lists(st.integers(1, 5), min_size=2, max_size=4), batch=batches, seed=seeds)
def test_feedback_goes_on_over_a_split_sequence_as_in_one_long_run(name, parts, batch, seed):
    case = CASES[name]
    x = case.input(seed, batch, sum(parts))
    _, whole = case.built_and_run(slayer, seed, x)
    torch.manual_seed(seed)
    block = case.build(slayer)
    split = torch.cat([block(part) for part in x.split(parts, dim=-1)], dim=-1)
    assert torch.equal(split, whole)
    # a batch of another size starts from rest
    other = case.input(seed + 1, batch + 1, 6)
    torch.manual_seed(seed)
    assert torch.equal(block(other), case.build(slayer)(other))


@thorough
@given(
    st.sampled_from([(64, 0.34), (64, 90), (4, 7), (1, 9)]),
    st.integers(1, 4),
    st.sampled_from([0, 0.5, 0.8, 1.7, -3]),
    st.booleans(),
    st.booleans(),
    batches,
    times,
    seeds,
)
def test_kwtas_first_forward_is_lavas(
    lava, scale_and_threshold, winners, excitation, shift, weight_norm, batch, time, seed
):
    scale, threshold = scale_and_threshold
    case = CASES["KWTA"].but(
        weight_scale=300 / scale,
        num_winners=winners,
        self_excitation=excitation,
        delay_shift=shift,
        weight_norm=weight_norm,
    )
    neuron = {"scale": scale, "threshold": threshold}
    case = Case(case.block, case.shape, case.options, neuron)
    x = case.input(seed, batch, time)
    with torch.no_grad():  # lava raises with a gradient
        ours, mine = case.built_and_run(slayer, seed, x)
        theirs, reference = case.built_and_run(lava, seed, x)
    assert torch.equal(mine, reference)
    assert torch.equal(ours.self_excitation, theirs.self_excitation)
    assert 0 <= ours.self_excitation.item() <= 1


@given(seeds, times, st.booleans())
def test_kwtas_gradients_are_those_of_lavas_loop_written_without_views(lava, seed, time, shift):
    case = CASES["KWTA"].but(delay_shift=shift)
    case = Case(case.block, case.shape, case.options, {"tau_grad": 0.01})
    x = case.input(seed, 2, time)
    torch.manual_seed(seed)
    mine_x, mine = gradients(case.build(slayer), x, seed + 1)

    torch.manual_seed(seed)
    block = case.build(lava)
    x = x.clone().requires_grad_()
    z = block.synapse(x)
    quantize, neurons, winners = block.neuron.quantize_8bit, 4, 2
    feedback = quantize((1 + block.self_excitation) * torch.eye(neurons) - 1)
    bias = block.neuron.threshold * (neurons - 2 * winners) / neurons / 64
    spike, steps = torch.zeros(2, neurons), []
    for t in range(time):
        dendrite = z[..., t] + spike @ feedback.T + quantize(torch.tensor([bias]))
        spike = block.neuron(dendrite.unsqueeze(-1))[..., 0]
        steps.append(spike)
    y = torch.stack(steps, -1)
    y = lava.axon.delay(y, 1) if shift else y
    y.backward(analog(tuple(y.shape), seed + 1, 1))
    assert_close(mine_x, x.grad, rtol=1e-4, floor=1e-6)
    assert_close(mine["synapse.weight"], block.synapse.weight.grad, rtol=1e-4, floor=1e-6)
    assert_close(mine["self_excitation"], block.self_excitation.grad, rtol=1e-4, floor=1e-6)


@given(feed_forward(), seeds, batches)
def test_infer_shape_tells_the_shape_of_the_real_forward(case, seed, batch):
    block, told = case.build(slayer), case.build(slayer)
    y = block(case.input(seed, batch, 2))
    assert told.infer_shape(case.shape) == tuple(y.shape[1:-1])
    assert told.shape == block.shape
    assert told(case.input(seed, batch, 2)).shape == y.shape


@pytest.mark.parametrize("name", CASES)
def test_infer_shape_and_shape_are_the_outputs(name):
    case = CASES[name]
    block, told = case.build(slayer), case.build(slayer)
    y = block(case.input(0))
    assert told.infer_shape(case.shape) == tuple(y.shape[1:-1])
    assert tuple(told.shape) == tuple(block.shape)


@given(st.integers(1, 5), st.integers(1, 5), seeds, st.booleans(), st.booleans())
def test_dense_takes_a_row_as_single_pixels_too(lava, inputs, outputs, seed, delay, per_channel):
    options = {"in_neurons": inputs, "out_neurons": outputs, "weight_scale": 2, "delay": delay}
    neuron = CASES["Recurrent per channel"].neuron if per_channel else {}
    case = Case("Dense", (inputs, 1, 1), options, neuron)
    x = case.input(seed)
    ours, mine = case.built_and_run(slayer, seed, x)
    row, spikes = case.built_and_run(slayer, seed, x[..., 0, 0, :])
    assert torch.equal(mine[..., 0, 0, :], spikes)
    assert row.shape == (outputs,)
    if not per_channel or outputs == 1:
        theirs, reference = case.built_and_run(lava, seed, x)
        assert torch.equal(mine, reference)
        assert ours.shape == theirs.shape == (outputs, 1, 1)
