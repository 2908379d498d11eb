"""The spike function and the axonal delays are lava's, forward and backward."""

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import slayer

from .strategies import (
    alike,
    analog,
    assert_close,
    assert_same_gradients,
    assert_same_state_dict,
    batches,
    run_alike,
    seeds,
    shapes,
    thorough,
    times,
)

widths = st.sampled_from([0.01, 0.3, 1.0, 100.0])
delays = st.one_of(st.integers(0, 6), st.sampled_from([9, 62, 100]))
# Shapes whose backward lava's Delay can do: not [C, 1, 1].
delayed_shapes = shapes().filter(lambda shape: len(shape) == 1 or shape[1] * shape[2] > 1)


@given(shapes(), batches, times, seeds, st.floats(0, 3), widths, widths, st.booleans())
def test_spikes_and_their_surrogate_gradient_are_lavas(
    lava, shape, batch, time, seed, threshold, width, height, graded
):
    def run(which):
        voltage = analog((batch, *shape, time), seed, 2, torch.float64).requires_grad_()
        apply = which.spike.spike.Spike.apply
        spike = apply(voltage, threshold, width, height, graded, torch.zeros(1), 2)
        spike.backward(analog(tuple(spike.shape), seed + 1, 1, torch.float64))
        return spike.detach(), voltage.grad

    (mine, my_grad), (reference, grad) = run(slayer), run(lava)
    assert torch.equal(mine, reference)
    assert_close(my_grad, grad)


def test_a_spike_at_the_threshold_fires_and_carries_its_voltage_if_graded():
    voltage = torch.tensor([[[0.4, 0.5, 0.75]]])
    apply = slayer.spike.Spike.apply
    assert apply(voltage, 0.5, 1.0, 1.0, False, 0, 1).tolist() == [[[0, 1, 1]]]
    assert apply(voltage, 0.5, 1.0, 1.0, True, 0, 2).tolist() == [[[0, 0.25, 0.375]]]


def test_a_threshold_for_each_channel_broadcasts_as_in_lava(lava):
    voltage = analog((2, 3, 5), 0, 1)
    threshold = torch.tensor([0.1, 0.5, 1.0]).reshape(3, 1)
    arguments = (threshold, 1.0, 1.0, False, 0, 1)
    mine = slayer.spike.Spike.apply(voltage, *arguments)
    assert torch.equal(mine, lava.spike.spike.Spike.apply(voltage, *arguments))
    assert torch.equal(mine[:, 2], (voltage[:, 2] >= 1).float())


@given(shapes(), batches, times, seeds, delays, st.sampled_from([1, 2, 0.5]))
def test_a_fixed_delay_is_lavas_also_beyond_the_end(
    lava, shape, batch, time, seed, steps, sampling_time
):
    def run(which):
        x = analog((batch, *shape, time), seed, 1, torch.float64).requires_grad_()
        y = which.axon.delay(x, steps, sampling_time)
        y.backward(analog(tuple(y.shape), seed + 1, 1, torch.float64))
        return y.detach(), x.grad

    (mine, my_grad), (reference, grad) = run(slayer), run(lava)
    assert torch.equal(mine, reference)
    assert torch.equal(my_grad, grad)
    if steps >= time * sampling_time:
        assert mine.abs().sum() == 0


@thorough
@given(
    delayed_shapes,
    batches,
    times,
    seeds,
    st.sampled_from([None, 62, 3]),
    st.sampled_from([1, 0.25]),
    st.lists(st.floats(-2, 70), min_size=4, max_size=4),
)
def test_learnable_delays_are_lavas_in_values_gradients_and_clamp(
    lava, shape, batch, time, seed, max_delay, grad_scale, values
):
    ours, theirs = alike(
        lava, lambda which: which.axon.Delay(max_delay=max_delay, grad_scale=grad_scale), seed
    )
    assert ours.shape is theirs.shape is None
    x = analog((batch, *shape, time), seed, 1, torch.float64)
    mine, reference = run_alike(ours, theirs, x, seed)
    assert torch.equal(mine, reference)
    assert_same_state_dict(ours, theirs)
    assert ours.shape == theirs.shape == (shape[0],)
    assert 0 <= ours.delay.min() <= ours.delay.max() < 1
    for module in (ours, theirs):
        module.delay.data = torch.tensor(values[: shape[0]])
    assert torch.equal(ours(x), theirs(x))
    assert_same_state_dict(ours, theirs)
    assert ours.delay.min() >= 0
    if max_delay is not None:
        assert ours.delay.max() <= max_delay
    assert_same_gradients(ours, theirs, x, seed + 1)


@given(delayed_shapes, seeds, st.integers(2, 8))
def test_a_delay_shifts_each_channel_by_its_whole_steps(shape, seed, time):
    delay = slayer.axon.Delay()
    x = analog((2, *shape, time), seed, 1)
    delay(x)
    steps = torch.randint(0, time + 3, (shape[0],))
    delay.delay.data = steps + 0.9
    y = delay(x)
    for channel, step in enumerate(steps.tolist()):
        expected = torch.zeros_like(x[:, channel])
        if step < time:
            expected[..., step:] = x[:, channel, ..., : time - step]
        assert torch.equal(y[:, channel], expected)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 1, 1)])
def test_delays_of_single_pixels_have_the_gradient_of_a_row(shape):
    # lava's backward raises here: its gradient keeps height and width
    x = analog((2, *shape, 9), 0, 1, torch.float64)
    torch.manual_seed(1)
    pixels = slayer.axon.Delay()
    pixels(x)
    row = slayer.axon.Delay()
    row.load_state_dict(pixels.state_dict())
    for delay, input in ((pixels, x), (row, x[..., 0, 0, :])):
        delay.delay.data += 2
        delay(input).square().sum().backward()
    assert pixels.delay.grad.abs().min() > 0
    assert torch.equal(pixels.delay.grad, row.delay.grad)


@pytest.mark.parametrize("channels", [1, 4])
def test_delays_load_both_ways_also_before_a_first_forward(lava, channels):
    x = analog((2, channels, 12), 0, 1)
    theirs = lava.axon.Delay(max_delay=62)
    theirs(x)
    theirs.delay.data = 5 * torch.rand(channels)
    ours = slayer.axon.Delay(max_delay=62)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.delay, theirs.delay)
    ours.delay.data += 1
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(ours(x), theirs(x))


@given(shapes(), seeds, st.sampled_from([0.5, 2, 3]), st.integers(1, 20))
def test_a_sampling_time_divides_the_delays_once(shape, seed, sampling_time, time):
    x = analog((2, *shape, time), seed, 1)
    delay = slayer.axon.Delay(sampling_time=sampling_time)
    delay(x)
    delay.delay.data.fill_(3 * sampling_time + 0.1)
    assert torch.equal(delay(x), slayer.axon.delay(x, 3))


def test_a_delay_that_goes_on_holds_steps_of_its_own_and_of_inputs_of_one_shape():
    delay, x = slayer.axon.Delay(), torch.rand(2, 3, 4, 5)
    delay.delay.data, delay.init, delay.persistent_state = torch.full((3,), 2.0), True, True
    last = x[..., -2:].clone()
    delay(x)
    x.zero_()  # the caller's
    assert torch.equal(delay(x)[..., :2], last)
    delay(x + 1)
    assert not delay(torch.ones(2, 3, 6, 5))[..., :2].any(), "afresh"
