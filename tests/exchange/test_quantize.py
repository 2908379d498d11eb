"""The quantisers, the shift toward zero and the single integrator step."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import BridgeError, exchange
from lava_bridge.quantize import threshold_eps

from .strategies import EXACT_SCALES, SCALES, assert_close, decays, seeds, sequence

steps = st.sampled_from([1.0, 0.5, 2.0, 2 / 64, 0.3, 1 / 4096])
exact_scales = st.sampled_from(EXACT_SCALES)


@given(seeds, steps)
def test_step_quantize_is_spikingjellys_and_lavas(sj, lava, seed, step):
    x = torch.cat([sequence((50,), seed, 3), torch.arange(-4, 4.5, 0.5) * step])
    mine = exchange.step_quantize(x, step)
    assert torch.equal(mine, sj.step_quantize(x, step))
    assert torch.equal(mine, lava.utils.quantize(x, step))
    assert torch.equal(mine, exchange.step_quantize_atgf.apply(x, step))
    assert torch.equal(x[50:], torch.arange(-4, 4.5, 0.5) * step), "the input was changed"


@given(seeds)
def test_step_quantize_takes_the_nearest_step_and_halves_to_even(seed):
    x = sequence((50,), seed, 3)
    y = exchange.step_quantize(x, 0.25)
    assert torch.equal(y * 4, (y * 4).round())
    assert ((x - y).abs() <= 0.125).all()
    halves = exchange.step_quantize(torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5]))
    assert halves.tolist() == [-2, 0, 0, 2, 2]


def test_a_step_gets_no_gradient():
    step = torch.tensor(0.5, requires_grad=True)
    for x in (torch.rand(3), torch.rand(3, requires_grad=True)):
        exchange.step_quantize(x, step).sum().backward()
        assert step.grad is None


@given(seeds, steps)
def test_the_gradient_of_step_quantize_passes_straight_through(seed, step):
    x = sequence((50,), seed, 3).requires_grad_()
    grad = sequence((50,), seed + 1, 1)
    exchange.step_quantize(x, step).backward(grad)
    assert torch.equal(x.grad, grad)


@given(exact_scales)
def test_eight_bit_weights_are_all_the_even_integers_from_minus_256_to_254(scale):
    x = torch.linspace(-600, 600, 12001) / scale
    integers = exchange.quantize_8bit(x, scale, descale=True)
    assert integers.unique().tolist() == list(range(-256, 255, 2))
    assert torch.equal(exchange.quantize_8bit(x, scale) * scale, integers)


@given(seeds, st.sampled_from(SCALES), st.booleans())
def test_eight_bit_weights_are_lavas_neurons(lava, seed, scale, descale):
    x = sequence((200,), seed, 150 / scale)
    neuron = lava.neuron.cuba.Neuron(threshold=1, current_decay=0, voltage_decay=0, scale=scale)
    reference = neuron.quantize_8bit(x, descale=descale)
    assert torch.equal(exchange.quantize_8bit(x, scale, descale), reference)
    node = exchange.CubaLIFNode(0.1, 0.1, scale=scale)
    assert torch.equal(node.quantize_8bit(x, descale=descale), reference)


@given(seeds, st.sampled_from(SCALES), st.booleans())
def test_spikingjellys_eight_bit_weights_differ_only_where_they_clamp_at_255(
    sj, seed, scale, descale
):
    x = torch.cat([sequence((200,), seed, 150 / scale), torch.tensor([254.0, 255, 300]) / scale])
    mine = exchange.quantize_8b(x, scale, descale)
    theirs = sj.quantize_8b(x, scale, descale)
    clamped = x * scale >= 255
    assert torch.equal(mine[~clamped], theirs[~clamped])
    unit = 1 if descale else scale
    assert torch.allclose(theirs[clamped] * unit, torch.tensor(255.0))
    assert torch.allclose(mine[clamped] * unit, torch.tensor(254.0))


def test_quantize_8b_is_quantize_8bit():
    assert exchange.quantize_8b is exchange.quantize_8bit


@given(seeds, exact_scales)
def test_the_gradient_of_eight_bit_weights_is_one_inside_and_zero_beyond_the_clamp(seed, scale):
    x = sequence((200,), seed, 200 / scale).requires_grad_()
    exchange.quantize_8bit(x, scale).sum().backward()
    steps = torch.round(x.detach() * scale / 2)
    assert torch.equal(x.grad, ((steps >= -128) & (steps <= 127)).float())


def toward_zero(value: int, bits: int) -> int:
    return (value > 0) * (abs(value) >> bits) - (value < 0) * (abs(value) >> bits)


@pytest.mark.parametrize(("dtype", "width"), [(torch.int32, 32), (torch.int64, 64)])
@given(data=st.data())
def test_a_right_shift_to_zero_is_its_definition_in_pythons_integers(dtype, width, data):
    lowest, highest = -(1 << (width - 1)), (1 << (width - 1)) - 1
    values = data.draw(st.lists(st.integers(lowest, highest), max_size=20))
    values += [lowest, highest, -4097, -4096, -4095, -1, 0, 1, 4095, 4096]
    bits = data.draw(st.integers(0, width - 2))
    shifted = exchange.right_shift_to_zero(torch.tensor(values, dtype=dtype), bits)
    assert shifted.dtype == dtype
    assert shifted.tolist() == [toward_zero(value, bits) for value in values]


@given(st.lists(st.integers(-(2**31) + 1, 2**31 - 1)), st.integers(0, 30))
def test_a_right_shift_to_zero_is_spikingjellys(sj, values, bits):
    x = torch.tensor(values, dtype=torch.int32)
    assert torch.equal(exchange.right_shift_to_zero(x, bits), sj.right_shift_to_zero(x, bits))


def test_spikingjellys_right_shift_turns_the_sign_of_the_lowest_integer(sj):
    lowest = torch.tensor([-(2**31)], dtype=torch.int32)
    assert sj.right_shift_to_zero(lowest, 12).item() == 2**19
    assert exchange.right_shift_to_zero(lowest, 12).item() == -(2**19)


@pytest.mark.parametrize(("dtype", "most"), [(torch.int32, 30), (torch.int64, 62)])
def test_a_right_shift_by_more_or_less_than_the_dtype_has_is_refused_in_one_line(dtype, most):
    lowest = torch.iinfo(dtype).min
    x = torch.tensor([lowest, -1, 1, -lowest - 1], dtype=dtype)
    assert exchange.right_shift_to_zero(x, most).tolist() == [-2, 0, 0, 1]
    for bits in (-1, most + 1, most + 10):
        with pytest.raises(BridgeError, match=f"0 ... {most} bits") as error:
            exchange.right_shift_to_zero(x, bits)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int8, torch.bool])
def test_a_right_shift_of_another_dtype_is_refused_in_one_line(dtype):
    with pytest.raises(BridgeError, match=str(dtype)) as error:
        exchange.right_shift_to_zero(torch.ones(2).to(dtype), 1)
    assert "\n" not in str(error.value)


# One step of the leaky integrator ---------------------------------------------------------------

scales = st.sampled_from([64 * scale for scale in SCALES])


def step_inputs(seed, decay, shape=(3, 4), size=2.0):
    x, state = sequence(shape, seed, size), sequence(shape, seed + 1, size)
    return x.requires_grad_(), decay.clone().requires_grad_(), state.requires_grad_()


@given(seeds, decays, scales)
def test_an_integrator_step_is_spikingjellys_with_its_gradients(sj, seed, decay, scale):
    results = []
    for which in (exchange, sj):
        inputs = step_inputs(seed, torch.tensor(4096 * decay))
        y = which.LeakyIntegratorStep.apply(*inputs, scale)
        y.backward(sequence(tuple(y.shape), seed + 2, 1))
        results.append((y, *[tensor.grad for tensor in inputs]))
    (y, *mine), (reference, *theirs) = results
    assert torch.equal(y, reference)
    for grad, expected in zip(mine, theirs, strict=True):
        assert_close(grad, expected)


@given(seeds, decays, exact_scales)
def test_an_integrator_step_is_its_definition_in_pythons_integers(seed, decay, scale):
    scale = 64 * scale
    x, decay, state = (
        t.detach().double() for t in step_inputs(seed, torch.tensor(round(4096 * decay)).float())
    )
    y = exchange.LeakyIntegratorStep.apply(x, decay, state, scale)
    for mine, drive, held in zip(
        y.flatten().tolist(), x.flatten().tolist(), state.flatten().tolist(), strict=True
    ):
        kept = toward_zero(int(held * scale) * (4096 - int(decay)), 12)
        assert mine == (kept + int(scale * drive)) / scale


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@given(seed=seeds, decay=decays)
def test_an_integrator_step_in_half_precision_is_that_of_the_same_values(dtype, seed, decay):
    # times 4096 these overflow a float16
    x, decay, state = step_inputs(seed, torch.tensor(4096 * decay), size=40.0)
    x, state = x.detach().to(dtype), state.detach().to(dtype)
    y = exchange.LeakyIntegratorStep.apply(x, decay, state, 4096)
    reference = exchange.LeakyIntegratorStep.apply(x.float(), decay, state.float(), 4096)
    assert torch.equal(y, reference.to(dtype))
    assert torch.isfinite(y).all()


@given(seeds, st.lists(decays, min_size=3, max_size=3))
def test_a_decay_per_channel_has_a_gradient_of_its_own_shape(sj, seed, values):
    shape = (2, 3, 2, 2)
    per_channel = 4096 * torch.tensor(values).reshape(3, 1, 1)
    x, decay, state = step_inputs(seed, per_channel, shape)
    y = exchange.LeakyIntegratorStep.apply(x, decay, state, 4096)
    grad = sequence(shape, seed + 2, 1)
    y.backward(grad)
    assert decay.grad.shape == decay.shape
    # SpikingJelly's number for each channel on its own is right
    for c in range(3):
        inputs = [t.detach()[:, c : c + 1].clone().requires_grad_() for t in (x, state)]
        own = per_channel[c, 0, 0].clone().requires_grad_()
        theirs = sj.LeakyIntegratorStep.apply(inputs[0], own, inputs[1], 4096)
        theirs.backward(grad[:, c : c + 1])
        assert torch.equal(y[:, c : c + 1], theirs)
        assert_close(decay.grad[c, 0, 0], own.grad)
        assert_close(state.grad[:, c : c + 1], inputs[1].grad)


def test_spikingjellys_gradient_of_a_decay_per_channel_is_one_number_which_autograd_refuses(sj):
    inputs = step_inputs(1, torch.full((3, 1, 1), 1000.0), (2, 3, 2, 2))
    with pytest.raises(RuntimeError, match="invalid gradient"):
        sj.LeakyIntegratorStep.apply(*inputs, 4096).sum().backward()


def test_spikingjellys_integrator_step_forgets_to_save_where_only_the_decay_is_learned(sj):
    for which in (exchange, sj):
        x, decay, state = step_inputs(1, torch.tensor(1000.0))
        y = which.LeakyIntegratorStep.apply(x.detach(), decay, state.detach(), 4096).sum()
        if which is sj:
            with pytest.raises(ValueError, match="unpack"):
                y.backward()
        else:
            y.backward()
            assert_close(decay.grad, state.detach().sum() / -4096)


@given(st.integers(0, 1 << 25), st.sampled_from([1, 8, 48, 64, 100, 512, 4096]))
def test_a_threshold_is_raised_by_what_float32_can_hold(steps, scale):
    threshold, s_scale = steps / scale, 64 * scale
    lost = np.float32(threshold + 0.01 / s_scale) == np.float32(threshold)
    assert threshold_eps(threshold, s_scale) == (0.5 if lost else 0.01) / s_scale
