"""The synapses: parameters, weighted spikes and gradients are lava's; sizes are what they say."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, strategies as st

from lava_bridge import slayer
from lava_bridge.quantize import quantize_8bit

from .strategies import (
    alike,
    analog,
    assert_same_gradients,
    assert_same_state_dict,
    batches,
    seeds,
    spikes,
    thorough,
)

ONE_OR_PAIR = 3
quantizer = partial(quantize_8bit, scale=64)

small = st.integers(1, ONE_OR_PAIR)
one_or_pair = st.one_of(small, st.tuples(small, small))
none_or_pair = st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2)))
scales = st.sampled_from([1, 2, 4.5])
times = st.integers(1, 6)
images = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def convolutions(draw, transposed=False):
    """The arguments of Conv or ConvTranspose, and the shape ``[C, H, W]`` of an input."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = groups * draw(st.integers(1, 2))
    arguments = {
        "in_features": channels,
        "out_features": groups * draw(st.integers(1, 3)),
        "kernel_size": draw(one_or_pair),
        "stride": draw(one_or_pair),
        "padding": draw(none_or_pair),
        "dilation": draw(one_or_pair),
        "groups": groups,
        "weight_scale": draw(scales),
        "pre_hook_fx": draw(st.sampled_from([quantizer, None])),
    }
    height, width = draw(images)
    kernel, stride, padding, dilation = (
        (value, value) if isinstance(value, int) else value
        for value in (arguments[name] for name in ("kernel_size", "stride", "padding", "dilation"))
    )
    for axis, size in enumerate((height, width)):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        if transposed:
            assume((size - 1) * stride[axis] - 2 * padding[axis] + reach >= 1)
        else:
            assume(size + 2 * padding[axis] >= reach)
    return arguments, (channels, height, width)


def assert_alike(lava, build, shape, seed, batch, time):
    """Same parameters, same exact output on spikes, same gradients, the promised shape."""
    ours, theirs = alike(lava, build, seed)
    assert_same_state_dict(ours, theirs)
    assert ours.shape == theirs.shape
    x = spikes((batch, *shape, time), seed)
    mine, reference = ours(x), theirs(x)
    if ours.pre_hook_fx is None:
        torch.testing.assert_close(mine, reference)
    else:
        assert torch.equal(mine, reference)
    assert mine.shape == reference.shape == (batch, *ours.output_shape(shape), time)
    x = analog(tuple(x.shape), seed, 1, torch.float64)
    assert_same_gradients(ours.double(), theirs.double(), x, seed + 1)


@thorough
@given(convolutions(), batches, times, seeds, st.booleans())
def test_conv_is_lavas(lava, case, batch, time, seed, norm):
    arguments, shape = case
    assert_alike(
        lava,
        lambda which: which.synapse.Conv(**arguments, weight_norm=norm),
        shape,
        seed,
        batch,
        time,
    )


@thorough
@given(convolutions(transposed=True), batches, times, seeds, st.booleans())
def test_conv_transpose_is_lavas(lava, case, batch, time, seed, norm):
    arguments, shape = case
    assert_alike(
        lava,
        lambda which: which.synapse.ConvTranspose(**arguments, weight_norm=norm),
        shape,
        seed,
        batch,
        time,
    )


@given(
    st.integers(1, 20),
    st.integers(1, 6),
    st.booleans(),
    batches,
    times,
    seeds,
    scales,
    st.booleans(),
    st.sampled_from([quantizer, None]),
)
def test_dense_on_a_row_of_neurons_is_lavas(
    lava, inputs, outputs, flat, batch, time, seed, scale, norm, hook
):
    assert_alike(
        lava,
        lambda which: which.synapse.Dense(inputs, outputs, scale, norm, hook),
        (inputs,) if flat else (inputs, 1, 1),
        seed,
        batch,
        time,
    )


@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=3),
    st.integers(1, 4),
    batches,
    times,
    seeds,
    st.booleans(),
)
def test_dense_on_width_height_and_channels_is_lavas(
    lava, inputs, outputs, batch, time, seed, norm
):
    width, height, channels = (*inputs, 1)[:3]
    assert_alike(
        lava,
        lambda which: which.synapse.Dense(tuple(inputs), outputs, 3, norm, quantizer),
        (channels, height, width),
        seed,
        batch,
        time,
    )


@thorough
@given(one_or_pair, st.integers(1, 3), images, batches, times, seeds, scales, st.booleans())
def test_pool_of_tiles_is_lavas(lava, kernel, channels, image, batch, time, seed, scale, named):
    tile = (kernel, kernel) if isinstance(kernel, int) else kernel
    # lava-dl fills by H % k rows, the right number only where that is k - H % k
    assume(all(s % k == 0 or k == 2 for s, k in zip(image, tile, strict=True)))
    stride = kernel if named else None
    ours, theirs = alike(
        lava, lambda which: which.synapse.Pool(kernel, stride, 0, 1, scale, False, quantizer), seed
    )
    x = spikes((batch, channels, *image, time), seed)
    assert_same_state_dict(ours, theirs)
    mine = ours(x)
    assert torch.equal(mine, theirs(x))
    assert mine.shape == (batch, *ours.output_shape((channels, *image)), time)
    x = analog(tuple(x.shape), seed, 1, torch.float64)
    assert_same_gradients(ours.double(), theirs.double(), x, seed + 1)


@thorough
@given(
    one_or_pair,
    st.one_of(st.none(), one_or_pair),
    st.tuples(st.integers(0, 1), st.integers(0, 1)),
    st.integers(1, 3),
    images,
    times,
    seeds,
    scales,
)
def test_pool_sums_each_channels_windows_as_torch_averages_them(
    kernel, stride, padding, channels, image, time, seed, scale
):
    tall, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    steps = (stride, stride) if isinstance(stride, int) else stride or (tall, wide)
    padding = (min(padding[0], tall // 2), min(padding[1], wide // 2))
    assume(image[0] + 2 * padding[0] >= tall)
    assume(image[1] + 2 * padding[1] >= wide)
    pool = slayer.synapse.Pool(kernel, stride, padding, weight_scale=scale)
    x = spikes((2, channels, *image, time), seed)
    frames = x.movedim(-1, 1).flatten(0, 1)
    if steps == (tall, wide) and padding == (0, 0):
        frames = F.pad(frames, (0, -image[1] % wide, 0, -image[0] % tall))
    windows = F.avg_pool2d(frames.double(), (tall, wide), steps, padding, divisor_override=1)
    expected = (scale * windows).float().unflatten(0, (2, time)).movedim(1, -1)
    assert torch.equal(pool(x), expected)
    assert pool(x).shape == (2, *pool.output_shape((channels, *image)), time)


@pytest.mark.parametrize(("size", "pooled"), [(6, 2), (7, 3), (8, 3), (9, 3)])
def test_a_window_cut_off_at_the_edge_counts(size, pooled):
    x = torch.ones(1, 2, size, 3, 1)
    rows = slayer.synapse.Pool(3)(x)[0, :, :, 0, 0]
    assert rows.shape == (2, pooled)
    assert rows[1].tolist() == [9.0, 9.0, 3.0 * (size - 6)][:pooled]


@given(one_or_pair, st.integers(1, 3), images, st.tuples(small, small), seeds)
def test_a_dilated_pool_sums_the_dilated_window_of_each_channel(
    kernel, channels, image, dilation, seed
):
    tall, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    assume(dilation != (1, 1))
    assume(image[0] > dilation[0] * (tall - 1))
    assume(image[1] > dilation[1] * (wide - 1))
    pool = slayer.synapse.Pool(kernel, 1, 0, dilation)
    x = spikes((2, channels, *image, 3), seed)
    rows = image[0] - dilation[0] * (tall - 1)
    columns = image[1] - dilation[1] * (wide - 1)
    expected = sum(
        x[:, :, i * dilation[0] :, j * dilation[1] :][:, :, :rows, :columns]
        for i in range(tall)
        for j in range(wide)
    )
    assert torch.equal(pool(x), expected)
    assert pool(x).shape == (2, *pool.output_shape((channels, *image)), 3)


@given(one_or_pair, st.integers(1, 3), images, batches, times, seeds, scales)
def test_unpool_copies_as_lavas(lava, kernel, channels, image, batch, time, seed, scale):
    ours, theirs = alike(
        lava, lambda which: which.synapse.Unpool(kernel, None, 0, 1, scale, False, quantizer), seed
    )
    x = spikes((batch, channels, *image, time), seed)
    assert_same_state_dict(ours, theirs)
    mine = ours(x)
    assert torch.equal(mine, theirs(x))
    assert mine.shape == (batch, *ours.output_shape((channels, *image)), time)
    tall, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    copies = x.repeat_interleave(tall, 2).repeat_interleave(wide, 3)
    assert torch.equal(mine, copies * quantizer(torch.tensor(float(scale))))
    x = analog(tuple(x.shape), seed, 1, torch.float64)
    assert_same_gradients(ours.double(), theirs.double(), x, seed + 1)


@given(one_or_pair, one_or_pair, none_or_pair, one_or_pair, images, seeds)
def test_unpool_with_overlap_padding_or_dilation_never_reaches_another_channel(
    kernel, stride, padding, dilation, image, seed
):
    unpool = slayer.synapse.Unpool(kernel, stride, padding, dilation)
    sizes = [
        (s - 1) * step - 2 * pad + reach * (k - 1) + 1
        for s, k, step, pad, reach in zip(
            image, unpool.kernel_size, unpool.stride, unpool.padding, unpool.dilation, strict=False
        )
    ]
    assume(min(sizes) >= 1)
    x = spikes((1, 3, *image, 2), seed)
    each = torch.cat([unpool(x[:, channel : channel + 1]) for channel in range(3)], dim=1)
    assert torch.equal(unpool(x), each)
    assert unpool(x).shape == (1, *unpool.output_shape((3, *image)), 2)


MAKERS = {
    "Dense": lambda which, **options: which.synapse.Dense(4, 3, **options),
    "Conv": lambda which, **options: which.synapse.Conv(4, 3, 2, **options),
    "ConvTranspose": lambda which, **options: which.synapse.ConvTranspose(4, 3, 2, **options),
}
every_synapse = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@every_synapse
@given(seed=seeds)
def test_weight_norm_goes_on_and_off_as_in_lava(lava, make, seed):
    ours, theirs = alike(lava, partial(make, pre_hook_fx=quantizer), seed)
    x = spikes((2, 4, 3, 3, 2), seed)
    if make is MAKERS["Dense"]:
        x = x.flatten(2, 3)[:, :, 0]
    drawn = ours.weight.clone()
    for module in (ours, theirs):
        module.enable_weight_norm()
        assert module.weight_norm_enabled
    assert set(ours.state_dict()) == {"weight_g", "weight_v"}
    assert_same_state_dict(ours, theirs)
    torch.testing.assert_close(ours.weight, drawn)
    assert torch.equal(ours(x), theirs(x))
    assert_same_gradients(ours.double(), theirs.double(), x.double(), seed)
    ours.float(), theirs.float()
    for module in (ours, theirs):
        module.weight_g.data *= 1.5
        module.disable_weight_norm()
        assert not module.weight_norm_enabled
    assert set(ours.state_dict()) == {"weight"}
    assert_same_state_dict(ours, theirs)
    assert torch.equal(ours(x), theirs(x))
    torch.testing.assert_close(ours.weight, 1.5 * drawn)


@every_synapse
@pytest.mark.parametrize("norm", [False, True])
def test_state_dicts_load_both_ways_with_and_without_weight_norm(lava, make, norm):
    ours, theirs = make(slayer, weight_norm=norm), make(lava, weight_norm=norm)
    other_seed, _ = alike(lava, partial(make, weight_norm=norm), 5)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_same_state_dict(ours, theirs)
    theirs.load_state_dict(other_seed.state_dict(), strict=True)
    assert_same_state_dict(other_seed, theirs)


@every_synapse
@pytest.mark.parametrize("norm", [False, True])
def test_grad_norm_is_lavas_and_0_before_a_backward(lava, make, norm):
    ours, theirs = alike(lava, partial(make, weight_norm=norm), 3)
    assert ours.grad_norm == theirs.grad_norm == 0
    for module in (ours, theirs):
        module.double()(analog((2, 4, 3, 3, 2), 1, 1, torch.float64)).square().sum().backward()
    assert ours.grad_norm > 0
    assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-9)


@every_synapse
def test_a_copy_with_weight_norm_is_a_synapse_of_its_own(make):
    first = make(slayer, weight_norm=True)
    x = spikes((2, 4, 3, 3, 2), 0)
    before = first(x)
    second = copy.deepcopy(first)
    assert torch.equal(second(x), before)
    second.weight_g.data.zero_()
    assert torch.equal(second(x), torch.zeros_like(before))
    assert torch.equal(first(x), before)


@every_synapse
def test_the_hook_is_applied_to_the_weight_and_can_be_set_later(lava, make):
    ours, theirs = alike(lava, make, 1)
    x = spikes((2, 4, 3, 3, 2), 0)
    assert ours.pre_hook_fx is None
    plain = ours(x)
    for module in (ours, theirs):
        module.pre_hook_fx = torch.sign
    assert ours.pre_hook_fx is torch.sign
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours(x), ours(x).round())
    assert not torch.equal(ours(x), plain)


@every_synapse
def test_weight_scale_multiplies_the_drawn_weight(make):
    torch.manual_seed(4)
    plain = make(slayer)
    torch.manual_seed(4)
    assert torch.equal(make(slayer, weight_scale=2.5).weight, 2.5 * plain.weight)


@pytest.mark.parametrize("name", ["Pool", "Unpool"])
def test_the_weight_of_a_pool_is_not_learned(lava, name):
    for which in (slayer, lava):
        pool = getattr(which.synapse, name)(2, weight_scale=3)
        assert not pool.weight.requires_grad
        assert torch.equal(pool.weight, torch.full((1, 1, 2, 2, 1), 3.0))
