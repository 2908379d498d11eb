"""SumPool2d: an average pooling times its window's size, on any device, in any dtype."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, strategies as st

from lava_bridge import BridgeError, slayer
from lava_bridge.exchange import NXT_to_TNX, SumPool2d, TNX_to_NXT

from .strategies import seeds, sequence, spikes

one_or_two = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))


def pair(value):
    return (value, value) if isinstance(value, int) else value


@st.composite
def geometries(draw):
    """Kernel, stride, padding, dilation and the size of an image that they fit."""
    kernel, dilation = draw(one_or_two), draw(one_or_two)
    padding = tuple(draw(st.integers(0, k // 2)) for k in pair(kernel))
    stride = draw(st.one_of(st.none(), one_or_two))
    image = draw(st.tuples(st.integers(2, 9), st.integers(2, 9)))
    for size, k, p, d in zip(image, pair(kernel), padding, pair(dilation), strict=True):
        assume(size + 2 * p > d * (k - 1))
    return (kernel, stride, padding, dilation), image


def integers(shape, seed):
    """Integers as floats: their sums are exact in any order."""
    return sequence(shape, seed, 20).round()


@given(geometries(), st.integers(0, 3), st.integers(1, 3), seeds)
def test_it_sums_over_each_window(geometry, batch, channels, seed):
    (kernel, stride, padding, dilation), image = geometry
    x = integers((batch, channels, *image), seed)
    y = SumPool2d(kernel, stride, padding, dilation)(x)
    ones = torch.ones(channels, 1, *pair(kernel))
    reference = F.conv2d(
        x, ones, None, pair(kernel) if stride is None else stride, padding, dilation, channels
    )
    assert torch.equal(y, reference)


@given(geometries(), st.integers(1, 3), seeds)
def test_it_is_an_average_pooling_times_the_windows_size(geometry, channels, seed):
    (kernel, stride, padding, _), image = geometry
    assume(all(s + 2 * p >= k for s, p, k in zip(image, padding, pair(kernel), strict=True)))
    x = integers((2, channels, *image), seed)
    y = SumPool2d(kernel, stride, padding)(x)
    rows, columns = pair(kernel)
    average = F.avg_pool2d(x.double(), kernel, stride, padding)
    assert torch.equal(y.double(), (average * rows * columns).round())


@given(geometries(), seeds)
def test_it_is_spikingjellys(sj, geometry, seed):
    arguments, image = geometry
    kernel, stride, padding, dilation = arguments
    # without a stride SpikingJelly's raises
    stride = pair(kernel) if stride is None else stride
    x = integers((2, 3, *image), seed)
    theirs = sj.SumPool2d(kernel, stride, padding, dilation)(x)
    assert torch.equal(SumPool2d(kernel, stride, padding, dilation)(x), theirs.round())


def test_spikingjellys_has_no_default_stride(sj):
    x = integers((2, 3, 4, 4), 1)
    with pytest.raises(TypeError, match="stride"):
        sj.SumPool2d(2)(x)
    assert torch.equal(SumPool2d(2)(x), SumPool2d(2, 2)(x))


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 3),
    seeds,
)
def test_it_is_lavas_pool_where_windows_tile_the_input(lava, kernel, windows, channels, seed):
    image = tuple(k * n for k, n in zip(kernel, windows, strict=True))
    x_seq = spikes((3, 2, channels, *image), seed)
    y_seq = torch.stack([SumPool2d(kernel)(x) for x in x_seq])
    for which in (lava, slayer):
        y = which.synapse.Pool(kernel)(TNX_to_NXT(x_seq))
        assert torch.equal(NXT_to_TNX(y), y_seq), which.__name__


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(1, 3), seeds)
def test_ceil_mode_counts_windows_that_are_cut_off_as_lavas_pool_does(lava, image, channels, seed):
    x_seq = spikes((3, 2, channels, *image), seed)
    y_seq = torch.stack([SumPool2d(2, ceil_mode=True)(x) for x in x_seq])
    assert y_seq.shape[-2:] == tuple((size + 1) // 2 for size in image)
    assert y_seq.sum() == x_seq.sum()
    for which in (lava, slayer):
        y = which.synapse.Pool(2)(TNX_to_NXT(x_seq))
        assert torch.equal(NXT_to_TNX(y), y_seq), which.__name__


@given(geometries(), seeds)
def test_it_is_this_slayers_pool_in_every_geometry(geometry, seed):
    (kernel, stride, padding, dilation), image = geometry
    pool = SumPool2d(kernel, stride, padding, dilation)
    if pool.tiles:
        pool.ceil_mode = True
    x_seq = spikes((3, 2, 2, *image), seed)
    y = slayer.synapse.Pool(kernel, stride, padding, dilation)(TNX_to_NXT(x_seq))
    assert torch.equal(NXT_to_TNX(y), torch.stack([pool(x) for x in x_seq]))


def test_lavas_pool_reaches_into_the_next_channel_where_windows_overlap(lava):
    x_seq = spikes((3, 2, 2, 4, 4), 1)
    y_seq = torch.stack([SumPool2d(2, 1)(x) for x in x_seq])
    with pytest.raises(RuntimeError, match="shape"):
        lava.synapse.Pool(2, 1)(TNX_to_NXT(x_seq))
    ours = slayer.synapse.Pool(2, 1)(TNX_to_NXT(x_seq))
    assert torch.equal(NXT_to_TNX(ours), y_seq)


def test_the_example_of_spikingjellys_documentation(lava):
    x = torch.rand([4, 2, 4, 16, 16])
    pool = SumPool2d(kernel_size=2, stride=2)
    y = torch.stack([pool(step) for step in x])
    for which in (lava, slayer):
        reference = NXT_to_TNX(which.synapse.Pool(kernel_size=2, stride=2)(TNX_to_NXT(x)))
        torch.testing.assert_close(y, reference)


@given(geometries(), seeds)
def test_its_gradient_reaches_each_input_once_for_each_window_over_it(geometry, seed):
    arguments, image = geometry
    pool = SumPool2d(*arguments)
    x = integers((1, 2, *image), seed).requires_grad_()
    y = pool(x)
    y.sum().backward()
    counted = sum(
        pool(one.reshape(1, 1, *image)).sum() * one.reshape(image)
        for one in torch.eye(image[0] * image[1])
    )
    assert torch.equal(x.grad[0, 0], counted)
    assert torch.equal(x.grad[0, 1], counted)


def test_it_has_no_state_to_save_and_its_ones_move_with_it(sj):
    mine, theirs = SumPool2d(2, 2, 0, 2), sj.SumPool2d(2, 2, 0, 2)
    assert mine.state_dict() == {}
    assert list(mine.parameters()) == []
    for pool in (mine, theirs):
        pool.to(torch.float64)
    assert mine.ones.dtype == torch.float64
    assert theirs.weight.dtype == torch.float32, "SpikingJelly's stays behind"
    x = integers((2, 3, 6, 6), 1).double()
    assert torch.equal(mine(x), SumPool2d(2, 2, 0, 2)(x.float()).double())
    with pytest.raises(RuntimeError, match="type"):
        theirs(x)


def test_it_moves_to_another_device(sj):
    mine, theirs = SumPool2d(2, 2, 0, 2).to("meta"), sj.SumPool2d(2, 2, 0, 2).to("meta")
    assert mine.ones.device.type == "meta"
    assert theirs.weight.device.type == "cpu", "SpikingJelly's stays behind"
    assert mine(torch.empty(2, 3, 6, 6, device="meta")).shape == (2, 3, 2, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_takes_the_dtype_of_its_input(dtype):
    x = spikes((2, 3, 6, 6), 1)
    y = SumPool2d(2)(x.to(dtype))
    assert y.dtype == dtype
    assert torch.equal(y.float(), SumPool2d(2)(x))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"kernel_size": 0}, "kernel_size must be a whole number or two, 1 or more, found 0"),
        ({"kernel_size": (2, 2, 2)}, "found (2, 2, 2)"),
        ({"kernel_size": 2.5}, "found 2.5"),
        ({"kernel_size": "22"}, "found '22'"),
        ({"kernel_size": 2, "stride": (1, 0)}, "stride must be"),
        ({"kernel_size": 2, "padding": -1}, "padding must be a whole number or two, 0 or more"),
        ({"kernel_size": 2, "dilation": 0}, "dilation must be"),
    ],
)
def test_a_geometry_that_is_none_is_refused_in_one_line(options, found):
    with pytest.raises(BridgeError) as error:
        SumPool2d(**options)
    assert found in str(error.value)
    assert str(error.value).startswith("SumPool2d: ")
    assert "\n" not in str(error.value)


def test_a_geometry_may_be_of_numpys_numbers_and_in_a_list():
    pool = SumPool2d([np.int64(2), 3], np.int32(1))
    assert (pool.kernel_size, pool.stride) == ((2, 3), (1, 1))


def test_an_image_without_a_batch_is_pooled_as_spikingjellys_does(sj):
    x = integers((3, 6, 6), 1)
    assert torch.equal(SumPool2d(2)(x), sj.SumPool2d(2, 2)(x))
    with pytest.raises(BridgeError, match=r"SumPool2d: expected a tensor \[N, C, H, W\], found a"):
        SumPool2d(2)(x[0])


@pytest.mark.parametrize("options", [{"stride": 1}, {"padding": 1}, {"dilation": 2}])
def test_ceil_mode_is_for_windows_that_tile_only(options):
    with pytest.raises(BridgeError, match="ceil_mode") as error:
        SumPool2d(2, ceil_mode=True, **options)
    assert "\n" not in str(error.value)
