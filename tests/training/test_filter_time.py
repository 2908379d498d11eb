"""Filters, shifts and the small utilities are lava's, forward and backward."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge.errors import BridgeError
from lava_bridge.ops import correlate
from lava_bridge.slayer import classifier, io, loss, utils
from lava_bridge.slayer.utils.time.replicate import replicate
from lava_bridge.slayer.utils.time.shift import shift

from ..conftest import traced_since
from ..slayer.strategies import assert_close, in_other_memory, memory_orders

seeds = st.integers(0, 1000)
shapes = st.lists(st.integers(1, 3), min_size=1, max_size=4)
times = st.integers(1, 12)


@pytest.fixture(autouse=True, scope="module")
def _own_gradient():
    """Small sequences too go back in our way; test_loss.py has them in torch's."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(correlate, "_WORTHWHILE", 0)
        yield


def both(mine, reference, x, seed):
    """Outputs are equal and gradients close, for a random gradient of the output."""
    results = []
    for function in (mine, reference):
        leaf = x.detach().clone().requires_grad_()
        y = function(leaf)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y))
        results.append((y.detach(), leaf.grad))
    (y, grad), (expected, expected_grad) = results
    assert torch.equal(y, expected)
    assert_close(grad, expected_grad, floor=1e-6)


@given(shapes, times, st.integers(1, 15), st.sampled_from([1, 0.5, 3]), seeds, memory_orders)
def test_conv_and_corr_are_lavas(lava, shape, time, length, sampling_time, seed, order):
    torch.manual_seed(seed)
    x, h = (
        in_other_memory(torch.rand(*shape, time), order if len(shape) > 1 else ""),
        torch.rand(length),
    )
    for name in ("conv", "corr"):
        mine, theirs = (getattr(which.filter, name) for which in (utils, lava.utils))
        both(
            lambda y, f=mine: f(y, h, sampling_time),
            lambda y, f=theirs: f(y, h, sampling_time),
            x,
            seed,
        )


@pytest.mark.parametrize("name", ["conv", "corr"])
def test_a_filter_gets_its_gradient(name):
    x = torch.rand(2, 3, 9, dtype=torch.float64, requires_grad=True)
    h = torch.rand(4, dtype=torch.float64, requires_grad=True)

    def filtered(x, h):
        return getattr(utils.filter, name)(x, h, 0.5)

    batched = {"check_batched_grad": True}
    assert torch.autograd.gradcheck(filtered, (x, h), check_forward_ad=True, **batched)
    assert torch.autograd.gradgradcheck(filtered, (x, h))
    assert torch.autograd.gradcheck(lambda x: filtered(x, h.detach()), (x[0, 0],), **batched)
    assert torch.autograd.gradcheck(lambda h: filtered(x.detach(), h), (h,))


@pytest.mark.parametrize("name", ["conv", "corr"])
@pytest.mark.parametrize("length", [1, 40, 512, 513])
@pytest.mark.parametrize("time", [1, 40, 600])
def test_filters_are_lavas_over_many_blocks_of_steps(lava, name, length, time):
    h, x = torch.randn(length), torch.randn(2, 3, time)
    mine, theirs = (getattr(which.filter, name) for which in (utils, lava.utils))
    both(lambda y: mine(y, h), lambda y: theirs(y, h), x, 0)
    both(lambda y: mine(y, h), lambda y: theirs(y, h), x[..., ::2], 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_filters_gradient_in_half_precision(dtype):
    h = torch.rand(5).to(dtype)
    grads = []
    for kind in (dtype, torch.float32):
        x = torch.ones(2, 90, dtype=kind, requires_grad=True)
        utils.filter.conv(x, h).sum().backward()
        assert x.grad.dtype == kind
        grads.append(x.grad.float())
    assert (grads[0] - grads[1]).abs().max() <= torch.finfo(dtype).eps * grads[1].max()


def test_a_filter_that_learns_nothing_keeps_no_input():
    x, h, kept = torch.rand(2, 9, requires_grad=True), torch.rand(4), []
    for leaf in (h, h.clone().requires_grad_()):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape), lambda t: t):
            utils.filter.conv(x, leaf)
        assert (x.shape in kept) == leaf.requires_grad


@traced_since("2.8")
def test_filters_are_compiled_whole_exported_and_transformed():
    x, h = torch.rand(2, 3, 9, requires_grad=True), torch.rand(4)
    expected = utils.filter.conv(x, h)
    slope = torch.autograd.grad(expected.square().sum(), x)[0]

    fir = utils.filter.FIR(h)
    y = torch.compile(fir, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(y, expected)
    assert_close(torch.autograd.grad(y.square().sum(), x)[0], slope)
    assert torch.equal(torch.export.export(fir, (x.detach(),)).module()(x.detach()), expected)
    assert_close(torch.func.grad(lambda x: fir(x).square().sum())(x.detach()), slope)
    assert torch.equal(torch.vmap(fir)(x.detach()), expected)


def test_a_filtered_signal_keeps_its_shape_and_its_dtype():
    h = torch.tensor([1.0, 0.5])
    assert utils.filter.conv(torch.eye(3)[0], h).tolist() == [1, 0.5, 0]
    assert utils.filter.corr(torch.eye(3)[2], h).tolist() == [0, 0.5, 1]
    assert utils.filter.FIR(h)(torch.ones(2, 3, dtype=torch.float64)).dtype == torch.float64
    assert utils.filter.conv(torch.tensor([[0, 1, 1]]), h).tolist() == [[0, 1, 1.5]]


@given(times, st.sampled_from([0.5, 1, 7]), st.integers(1, 9), st.sampled_from([1, 0.1]), seeds)
def test_fir_is_lavas(lava, time, time_constant, length, sampling_time, seed):
    arguments = {"time_constant": time_constant, "length": length, "sampling_time": sampling_time}
    mine, theirs = (which.filter.FIR(**arguments) for which in (utils, lava.utils))
    assert torch.equal(mine.state_dict()["filter"], theirs.state_dict()["filter"])
    both(mine, theirs, torch.rand(2, 3, time), seed)
    response = np.arange(length) / 3
    both(utils.filter.FIR(response), lava.utils.filter.FIR(response), torch.rand(2, 3, time), seed)


def test_fir_does_not_share_its_response_with_the_caller():
    response = torch.ones(3)
    fir = utils.filter.FIR(response)
    response += 1
    assert fir.filter.tolist() == [1, 1, 1]


@given(st.integers(1, 3), st.integers(1, 5), st.sampled_from([1, 2.5]), times, seeds)
def test_fir_bank_is_lavas(lava, filters, length, scale, time, seed):
    banks = []
    for which in (utils, lava.utils):
        torch.manual_seed(seed)
        banks.append(which.filter.FIRBank(filters, length, scale=scale))
    mine, theirs = banks
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    assert np.array_equal(mine.impulse_response, theirs.impulse_response)
    assert (mine.num_filter, mine.filter_length) == (filters, length)
    for shape in ((2, 3, time), (1, 2, 2, 1, time)):
        both(mine, theirs, torch.rand(shape), seed)


def test_fir_bank_with_a_sampling_time_keeps_times_and_channels_apart():
    bank = utils.filter.FIRBank(3, 10, sampling_time=2)
    x = torch.rand(2, 4, 20)
    y = bank(x)
    assert y.shape == (2, 12, 20)
    for f, h in enumerate(bank.impulse_response):
        expected = utils.filter.conv(x, torch.tensor(h.copy()), 2)
        torch.testing.assert_close(y[:, 4 * f : 4 * f + 4], expected)


@given(shapes, times, st.floats(-15, 15), st.sampled_from([1, 0.5, 3]), seeds)
def test_one_shift_for_all_is_lavas(lava, shape, time, value, sampling_time, seed):
    x = torch.rand(*shape, time)
    for v in (value, torch.tensor(value), int(value)):
        both(
            lambda y, v=v: utils.time.shift(y, v, sampling_time),
            lambda y, v=v: lava.utils.time.shift(y, v, sampling_time),
            x,
            seed,
        )


@given(times, seeds, memory_orders)
def test_a_shift_for_each_channel_is_lavas(lava, time, seed, order):
    torch.manual_seed(seed)
    x = in_other_memory(torch.rand(2, 3, 1, 2, time), order)
    values = (torch.rand(3, 1, 2) - 0.5) * 20
    both(lambda y: shift(y, values), lambda y: lava.utils.time.shift(y, values), x, seed)
    both(
        lambda y: shift(y, values.int().flatten()),
        lambda y: lava.utils.time.shift(y, values.int()),
        x,
        seed,
    )


def test_a_tensor_of_shifts_is_divided_by_the_sampling_time_once():
    x = torch.arange(8.0).expand(1, 2, 8)
    mine = shift(x, torch.tensor([4, 2]), sampling_time=2)
    assert torch.equal(mine[:, 0], shift(x[:, 0], 4, sampling_time=2))
    assert mine[0].tolist() == [[0, 0, 0, 1, 2, 3, 4, 5], [0, *range(7)]]


def test_a_shift_of_zero_is_not_the_input_itself():
    x = torch.ones(1, 4)
    shift(x, 0).zero_()
    assert x.tolist() == [[1, 1, 1, 1]]


@given(st.lists(st.integers(1, 3), min_size=2, max_size=4), st.integers(1, 6), seeds)
def test_replicate_is_lavas(lava, shape, steps, seed):
    both(
        lambda x: replicate(x, steps),
        lambda x: lava.utils.time.replicate(x, steps),
        torch.rand(shape),
        seed,
    )


@pytest.mark.parametrize("shape", [(), (2,), (1, 2, 1, 1, 2, 3)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float64])
def test_replicate_takes_any_shape_and_dtype(shape, dtype):
    x = torch.ones(shape, dtype=dtype)
    y = replicate(x, 3)
    assert y.shape == (*shape, 3)
    assert y.dtype == dtype
    assert y.is_contiguous()


@given(st.integers(1, 6), st.integers(1, 11))
def test_diagonal_mask_is_lavas_and_holds_for_any_number(lava, dim, number):
    mine = utils.diagonal_mask(dim, number)
    assert mine.sum() == sum(abs(i - j) <= number // 2 for i in range(dim) for j in range(dim))
    if number // 2 <= dim:
        assert torch.equal(mine, lava.utils.diagonal_mask(dim, number))


@given(shapes, times, seeds)
def test_event_rate_is_lavas(lava, shape, time, seed):
    torch.manual_seed(seed)
    x = torch.randn(*shape, time) * (torch.rand(*shape, time) < 0.4)
    assert utils.event_rate(x) == lava.utils.event_rate(x)
    assert utils.event_rate(x != 0) == pytest.approx(utils.event_rate(x))
    assert utils.event_rate((x != 0).int()) == pytest.approx(utils.event_rate(x))


def test_dotdict_and_staticproperty():
    options = utils.dotdict(a=1)
    options.b = 2
    del options.a
    assert options == {"b": 2}
    assert options.a is None
    assert pickle.loads(pickle.dumps(options)).b == copy.deepcopy(options).b == 2

    class Holder:
        @utils.staticproperty
        def answer():
            return 42

    assert Holder.answer == Holder().answer == 42


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: shift(torch.zeros(1, 3, 5), torch.zeros(2)), r"\(3,\).*\(2,\)"),
        (lambda: utils.filter.FIRBank(1, 1, 2), "less than one step"),
        (lambda: utils.filter.FIRBank(1, 3)(torch.zeros(2, 9)), r"\[N, C, \*, T\].*\(2, 9\)"),
        (lambda: utils.diagonal_mask(3, 0), "found 0"),
        (lambda: utils.diagonal_mask(3, -1), "found -1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(wrong, says):
    with pytest.raises(BridgeError, match=says) as error:
        wrong()
    assert "\n" not in str(error.value)


PUBLIC = [
    *(("io", name) for name in io.__all__ if "3d" not in name),
    *(("loss", name) for name in loss.__all__),
    *(("classifier", name) for name in classifier.__all__),
    *(("utils", name) for name in utils.__all__ if name not in ("filter", "int_utils", "time")),
    *(("utils.filter", name) for name in utils.filter.__all__),
    *(("utils.time", name) for name in utils.time.__all__),
]


def parameters(function):
    """Names in order, with their defaults."""
    signature = inspect.signature(function)
    return [(name, p.default) for name, p in signature.parameters.items()]


@pytest.mark.parametrize(("room", "name"), PUBLIC)
def test_names_and_signatures_are_lavas(lava, room, name):
    mine, theirs = {"io": io, "loss": loss, "classifier": classifier}.get(room, utils), lava
    for part in room.split("."):
        theirs = getattr(theirs, part)
    mine = getattr(mine, room.split(".")[1]) if "." in room else mine
    mine, theirs = getattr(mine, name), getattr(theirs, name)
    if name == "QUANTIZE_MODE":
        assert {m.name: m.value for m in mine} == {m.name: m.value for m in theirs}
        return
    if inspect.isclass(mine) and name not in ("dotdict", "staticproperty"):
        for member in vars(theirs):
            if not member.startswith("_") and member != "sampling_time":
                assert hasattr(mine, member), member
                if callable(getattr(theirs, member)):
                    assert parameters(getattr(mine, member)) == parameters(getattr(theirs, member))
        assert ("__init__" in vars(mine)) or name == "Rate"  # which has no arguments
        mine, theirs = (
            (mine.__init__, theirs.__init__) if name != "Rate" else (mine.rate, theirs.rate)
        )
    if name not in ("dotdict", "staticproperty", "quantize", "quantize_hook_fx"):
        assert parameters(mine) == parameters(theirs)
