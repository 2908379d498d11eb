"""The arithmetic of the convolution, against Lava's own and against torch's."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st

from lava_bridge import BridgeError
from lava_bridge.proc.conv import utils
from lava_bridge.proc.conv.utils import TensorOrder


@dataclass(frozen=True)
class Layer:
    """The arguments of a convolution, and a seed for what it convolves."""

    input_shape: tuple[int, int, int]
    weight: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    seed: int

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.weight[1:3], self.stride, self.padding, self.dilation, self.groups

    def integers(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Input in ``[low, high)``, and a weight of 8 bits."""
        rng = np.random.default_rng(self.seed)
        return rng.integers(low, high, self.input_shape), rng.integers(-128, 128, self.weight)

    def floats(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return rng.standard_normal(self.input_shape), rng.standard_normal(self.weight)


@st.composite
def layers(draw: Callable[..., Any]) -> Layer:
    small = st.integers(1, 3)
    pair = st.tuples(small, small)
    groups, dilation, kernel = draw(small), draw(pair), draw(pair)
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    least = [
        max(1, d * (k - 1) + 1 - 2 * p) for d, k, p in zip(dilation, kernel, padding, strict=1)
    ]
    size = [n + draw(st.integers(0, 4)) for n in least]
    in_group, out_group = draw(small), draw(small)
    return Layer(
        (size[0], size[1], in_group * groups),
        (out_group * groups, *kernel, in_group),
        draw(pair),
        padding,
        dilation,
        groups,
        draw(st.integers(0, 2**32)),
    )


@given(layers(), st.sampled_from([1, 8, 20]), st.sampled_from([np.int32, np.int64, np.float32]))
def test_integers_are_lavas_to_the_last_bit(lava_conv, layer, bits, dtype):
    x, w = layer.integers(-(2**bits), 2**bits)
    w = w.astype(dtype)
    for image in (x, x.astype(bool), x.astype(np.int32), x.astype(float)):
        found = utils.conv(image, w, *layer.arguments)
        expected = lava_conv.conv(image, w, *layer.arguments)
        assert found.dtype == expected.dtype == dtype
        np.testing.assert_array_equal(found, expected)


@given(layers())
def test_floats_are_lavas_but_for_the_order_of_a_sum(lava_conv, layer):
    x, w = layer.floats()
    found = utils.conv(x, w, *layer.arguments)
    expected = lava_conv.conv(x, w, *layer.arguments)
    bound = utils.conv(np.abs(x), np.abs(w), *layer.arguments)
    assert (np.abs(found - expected) <= bound * w[0].size * 2**-52).all()


@given(layers())
def test_conv_scipy_is_lavas_to_the_last_bit(lava_conv, layer):
    for x, w in (layer.floats(), layer.integers(-9, 9)):
        found = utils.conv_scipy(x, w, *layer.arguments)
        expected = lava_conv.conv_scipy(x, w, *layer.arguments)
        assert found.dtype == expected.dtype == np.float64
        np.testing.assert_array_equal(found, expected)


@given(layers(), st.sampled_from([(16, 31, np.int32), (31, 31, np.int64), (62, 62, np.int64)]))
def test_integers_of_any_size_are_exact_modulo_the_weights_dtype(layer, sizes):
    """Against Python's own integers, in a sparse matrix."""
    x_bits, w_bits, dtype = sizes
    rng = np.random.default_rng(layer.seed)
    x = rng.integers(-(2**x_bits), 2**x_bits, layer.input_shape)
    w = rng.integers(-(2**w_bits), 2**w_bits, layer.weight).astype(dtype)
    found = utils.conv(x, w, *layer.arguments)
    _, *arguments, groups = layer.arguments
    rows, columns, values = utils.conv_to_sparse(x.shape, found.shape, w, *arguments, groups)
    exact = [0] * found.size
    flat = x.ravel().tolist()
    for row, column, value in zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True):
        exact[row] += value * flat[column]
    bits = 8 * np.dtype(dtype).itemsize
    wrapped = [utils.signed_clamp(value, bits) for value in exact]
    assert found.dtype == dtype
    assert found.ravel().tolist() == wrapped


def test_sums_beyond_32_bits_wrap_where_lavas_are_one_and_the_same_number(lava_conv):
    x, w = np.array([[[2**24, 2**24]]]), np.full((1, 1, 1, 2), 100, np.int32)
    arguments = (1, 1), (1, 1), (0, 0), (1, 1), 1
    assert utils.conv(x, w, *arguments).item() == utils.signed_clamp(200 * 2**24, 32)
    with pytest.warns(RuntimeWarning, match="invalid value"):
        lava_conv.conv(x, w, *arguments)


def test_float32_is_not_relied_on_where_torch_is_told_to_cut_it(monkeypatch):
    """24 bits in float32, with weights that need all of them."""
    x, w = np.full((1, 1, 1), 2**15 - 1), np.full((1, 1, 1, 1), 2**8 - 1)
    assert utils._exact_dtype(x, w) is np.float32
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert utils._exact_dtype(x, w) is np.float64


def test_float32_is_not_relied_on_where_torch_does_not_say_how_it_multiplies(monkeypatch):
    """As after ``torch.backends.fp32_precision = "tf32"``."""

    def refuse():
        raise RuntimeError("mix of the legacy and new APIs")

    x, w = np.full((1, 1, 1), 2), np.full((1, 1, 1, 1), 3)
    assert utils._exact_dtype(x, w) is np.float32
    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    assert utils._exact_dtype(x, w) is np.float64
    assert utils.conv(x, w, 1, 1, 0, 1, 1).item() == 6


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "conv"), reason="from torch 2.9 on")
def test_float32_is_not_relied_on_where_its_convolutions_alone_are_cut():
    x, w = np.full((1, 1, 1), 2), np.full((1, 1, 1, 1), 3)
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    try:
        assert utils._exact_dtype(x, w) is np.float64
    finally:
        torch.backends.mkldnn.conv.fp32_precision = "none"
    assert utils._exact_dtype(x, w) is np.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_integers_are_exact(dtype):
    rng = np.random.default_rng(0)
    x, w = rng.integers(-100, 101, (6, 5, 4)), rng.integers(-128, 128, (3, 3, 3, 4))
    expected = utils.conv(x, w, 3, 1, 1, 1, 1)
    with torch.autocast("cpu", dtype=dtype):
        np.testing.assert_array_equal(utils.conv(x, w, 3, 1, 1, 1, 1), expected)


@pytest.mark.parametrize("bits", [24, np.int8(24), np.int64(24), np.uint8(24), 24.0])
def test_a_number_of_bits_is_one_whatever_its_type(bits):
    """1 << np.int8(24) is 0."""
    wrapped = utils.signed_clamp(np.array([2**23 + 1, 5], np.int32), bits)
    assert wrapped.dtype == np.int32
    assert wrapped.tolist() == [1 - 2**23, 5]


@pytest.mark.parametrize("x", [3j, "3", torch.tensor([3])])
def test_what_is_no_real_number_of_numpy_is_not_wrapped(x):
    with pytest.raises(BridgeError, match=r"signed_clamp: found .*; give real numbers"):
        utils.signed_clamp(x, 8)


@pytest.mark.parametrize("dtype", [int, float])
def test_an_image_without_a_place_is_padding_alone(lava_conv, dtype):
    x, w = np.zeros((0, 4, 2), dtype), np.ones((3, 3, 3, 2), dtype)
    arguments = (3, 3), (1, 1), (2, 2), (1, 1), 1
    found, expected = utils.conv(x, w, *arguments), lava_conv.conv(x, w, *arguments)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_a_wrapped_float_is_a_float():
    assert type(utils.signed_clamp(300.5, 8)) is float
    assert type(utils.signed_clamp(np.float64(300.5), 8)) is np.float64
    assert utils.signed_clamp(300.5, 8) == 44.5


@given(layers(), st.sampled_from([np.int64, np.int8, np.float32]))
def test_the_sparse_matrix_is_lavas_entry_for_entry(lava_conv, layer, dtype):
    _, w = layer.integers(0, 1)
    _, *arguments, groups = layer.arguments
    output = utils.output_shape(layer.input_shape, w.shape[0], w.shape[1:3], *arguments)
    given_ = (layer.input_shape, output, w.astype(dtype), *arguments, groups)
    try:
        expected = lava_conv.conv_to_sparse(*given_)
    except ValueError:  # there is no entry
        expected = (np.zeros(0, int), np.zeros(0, int), np.zeros(0, dtype))
    for ours, theirs in zip(utils.conv_to_sparse(*given_), expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def in_order(layer: Layer, order: TensorOrder) -> tuple[Any, ...]:
    """A layer's input, output, and arguments of conv_to_sparse in an order, from torch's conv2d.

    All orders have the same torch kernel, so that their entries have the same weights.
    """
    x, w = layer.integers(-100, 100)  # as torch's: [W, H, C], [N, W, H, C]
    image = torch.from_numpy(x).double().permute(2, 1, 0)
    kernel = torch.from_numpy(w).double().permute(0, 3, 2, 1)
    pairs = [pair[::-1] for pair in (layer.stride, layer.padding, layer.dilation)]
    output = F.conv2d(image[None], kernel, None, *pairs, layer.groups)[0]
    turned = kernel.flip(2, 3) if order == TensorOrder.NWHC else kernel
    laid_out = turned.permute([("NCHW").index(axis) for axis in order.name]).numpy()
    axes = [("CHW").index(axis) for axis in utils.IMAGE_AXES[order]]
    if order == TensorOrder.NWHC:
        pairs = [pair[::-1] for pair in pairs]
    images = [tensor.permute(axes).contiguous() for tensor in (image, output)]
    shapes = [tuple(tensor.shape) for tensor in images]
    return *(tensor.numpy().ravel() for tensor in images), (*shapes, laid_out, *pairs, layer.groups)


def dense(entries: tuple[np.ndarray, ...], inputs: np.ndarray, outputs: int) -> np.ndarray:
    """The matrix times the flat input."""
    rows, columns, values = entries
    found = np.zeros(outputs)
    np.add.at(found, rows, values * inputs[columns])
    return found


@pytest.mark.parametrize("order", TensorOrder)
@given(layer=layers())
def test_the_sparse_matrix_computes_what_torch_does_in_every_order(order, layer):
    x, y, arguments = in_order(layer, order)
    entries = utils.conv_to_sparse(*arguments, order)
    np.testing.assert_array_equal(dense(entries, x, y.size), y)
    # The entries are in the same sequence in every order.
    *_, lavas = in_order(layer, TensorOrder.NWHC)
    np.testing.assert_array_equal(entries[2], utils.conv_to_sparse(*lavas)[2])


def test_lavas_matrices_of_the_other_orders_are_wrong_and_ours_are_not(lava_conv):
    """NCHW, HWCN: on this layer Lava's do not compute torch's; CHWN: nor anything else's."""
    layer = Layer((5, 4, 3), (3, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, 0)
    for order in TensorOrder:
        x, y, arguments = in_order(layer, order)
        theirs = lava_conv.conv_to_sparse(*arguments, lava_conv.TensorOrder(int(order)))
        rows = theirs[0]
        right = rows.max() < y.size and (dense(theirs, x, y.size) == y).all()
        assert right == (order == TensorOrder.NWHC)
        ours = utils.conv_to_sparse(*arguments, order)
        np.testing.assert_array_equal(dense(ours, x, y.size), y)
        # Where Lava has a place right, the sequence is Lava's.
        np.testing.assert_array_equal(ours[1], theirs[1])
        if order != TensorOrder.HWCN:
            np.testing.assert_array_equal(ours[0], theirs[0])


@given(layers())
def test_the_output_shape_is_lavas(lava_conv, layer):
    kernel_size, *arguments, _ = layer.arguments
    given_ = (layer.input_shape, 7, kernel_size, *arguments)
    assert utils.output_shape(*given_) == lava_conv.output_shape(*given_)


@given(st.integers(1, 63), st.data())
def test_signed_clamp_is_the_wrap_of_a_register(lava_conv, bits, data):
    small = st.integers(-(2**62), 2**62)
    for value in data.draw(st.lists(small, min_size=1, max_size=5)):
        expected = (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        assert utils.signed_clamp(value, bits) == expected == lava_conv.signed_clamp(value, bits)
        found = utils.signed_clamp(np.array([value]), bits)
        assert (found.dtype, found.item()) == (np.int64, expected)
        if abs(value) < 2**52 and bits < 52:
            assert utils.signed_clamp(float(value), bits) == expected


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.float16, np.float32])
def test_signed_clamp_keeps_the_type(dtype):
    x = np.array([-128, -1, 0, 127], dtype)
    for bits in (4, 8, 24, 40):
        found = utils.signed_clamp(x, bits)
        assert found.dtype == dtype
        assert found.tolist() == [utils.signed_clamp(int(value), bits) for value in x]
    halves = np.array([-(2**15), 40_000, 65_504], np.float16)
    assert utils.signed_clamp(halves, 16).tolist() == [-(2**15), 40_000 - 2**16, 65_504 - 2**16]
    assert utils.signed_clamp(halves, 200) is halves
    ends = np.array([np.iinfo(np.int32).min, np.iinfo(np.int32).max], np.int32)
    assert utils.signed_clamp(ends, 24).tolist() == [0, -1]
    assert isinstance(utils.signed_clamp(2**40 + 5, 24), int)


def test_make_tuple_takes_one_number_or_two(lava_conv):
    for value in (3, (3,), [3], (1, 2), np.array([1, 2]), np.int64(4)):
        assert utils.make_tuple(value) == lava_conv.make_tuple(value)
    with pytest.raises(BridgeError, match=r"make_tuple: .* has 3 numbers; give one or two"):
        utils.make_tuple((1, 2, 3))
    for value in (1.5, (2, 0.5), None, "same", {1, 2}, np.ones((2, 2)) / 3, float("nan")):
        with pytest.raises(BridgeError, match=r"make_tuple: .*; give one") as caught:
            utils.make_tuple(value)
        assert "\n" not in str(caught.value)


X, W = np.ones((5, 5, 4)), np.ones((6, 3, 3, 2))
WINDOW = {
    "kernel_size": (3, 3),
    "stride": (1, 1),
    "padding": (0, 0),
    "dilation": (1, 1),
    "groups": 2,
}
BAD = [
    ({"input": X[0]}, "input has the shape"),
    ({"weight": W[0]}, "weight has the shape"),
    ({"input": X * 1j}, "input has the dtype complex128; give"),
    ({"weight": W.astype(str)}, "weight has the dtype <U32; give"),
    ({"weight": torch.ones(6, 3, 3, 2, requires_grad=True)}, "is no array .*detach"),
    ({"groups": 1.5}, "1.5 is no integer; give"),
    ({"groups": 4}, "4 groups do not divide 4 input and 6 output channels"),
    ({"groups": 0}, "0 groups do not divide"),
    ({"groups": 1}, "takes 2 channels, the input has 4"),
    ({"kernel_size": (3, 2)}, r"kernel_size is \(3, 2\), but the weight's \(3, 3\)"),
    ({"dilation": (1, 3)}, "the output has -1 places in y"),
    ({"stride": (0, 1)}, "stride 0, padding 0, dilation 1 in x"),
    ({"padding": (0, -1)}, "padding -1, dilation 1 in y"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
@pytest.mark.parametrize("function", [utils.conv, utils.conv_scipy])
def test_what_does_not_fit_is_one_line(function, change, words):
    with pytest.raises(BridgeError, match=words) as caught:
        function(**{"input": X, "weight": W, **WINDOW, **change})
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


SPARSE = {
    "input_shape": (5, 5, 4),
    "output_shape": (3, 3, 6),
    "kernel": W,
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "group": 2,
}


@pytest.mark.parametrize(
    ("change", "words", "kind"),
    [
        ({"order": 5}, "5 is no order of a kernel", ValueError),
        ({"group": 4}, "4 groups do not divide", AssertionError),
        ({"output_shape": (3, 3, 5), "group": 4}, "4 groups do not divide", AssertionError),
        ({"output_shape": (3, 3, 8)}, "6 output channels, the images have", ValueError),
        ({"output_shape": (4, 3, 6)}, r"the output has \(3, 3\) places", ValueError),
        ({"input_shape": (5, 5)}, "an image has the shape", ValueError),
        ({"kernel": W[0]}, "kernel has the shape", ValueError),
    ],
)
def test_a_sparse_matrix_that_can_not_be_is_one_line(change, words, kind):
    """The kinds of the errors are those that Lava documents."""
    assert len(utils.conv_to_sparse(**SPARSE)[0]) == 9 * 9 * 6 * 2
    with pytest.raises(BridgeError, match=words) as caught:
        utils.conv_to_sparse(**{**SPARSE, **change})
    assert isinstance(caught.value, kind)
    assert "\n" not in str(caught.value)


def test_without_scipy_conv_runs_and_conv_scipy_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    assert utils.conv(X, W, **WINDOW).shape == (3, 3, 6)
    with pytest.raises(BridgeError, match=r"SciPy can't be imported .*; install it, or use conv"):
        utils.conv_scipy(X, W, **WINDOW)
