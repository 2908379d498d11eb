"""The two layouts are views of each other."""

import pytest
import torch
from hypothesis import given, strategies as st

import lava_bridge
from lava_bridge.exchange import NXT_to_TNX, TNX_to_NXT

shapes = st.lists(st.integers(0, 4), min_size=2, max_size=6).map(tuple)


def numbered(shape):
    return torch.arange(torch.Size(shape).numel()).reshape(shape)


@given(shapes)
def test_time_goes_from_the_front_to_the_back_and_the_rest_keeps_its_order(shape):
    x = numbered(shape)
    y = TNX_to_NXT(x)
    assert y.shape == (*shape[1:], shape[0])
    for t in range(shape[0]):
        assert torch.equal(y[..., t], x[t])


@given(shapes)
def test_time_goes_from_the_back_to_the_front_and_the_rest_keeps_its_order(shape):
    x = numbered(shape)
    y = NXT_to_TNX(x)
    assert y.shape == (shape[-1], *shape[:-1])
    for t in range(shape[-1]):
        assert torch.equal(y[t], x[..., t])


@given(shapes)
def test_each_is_the_inverse_of_the_other(shape):
    x = numbered(shape)
    for first, second in ((TNX_to_NXT, NXT_to_TNX), (NXT_to_TNX, TNX_to_NXT)):
        back = second(first(x))
        assert torch.equal(back, x)
        assert back.stride() == x.stride()


@pytest.mark.parametrize("convert", [TNX_to_NXT, NXT_to_TNX])
def test_both_are_views_of_the_same_memory_with_a_gradient(convert):
    x = torch.zeros(3, 2, 4, requires_grad=True)
    y = convert(x)
    assert y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    y[0].sum().backward()
    assert x.grad.sum() == y[0].numel()
    with torch.no_grad():
        y[1, 1, 1] = 7
    assert x.sum() == 7


@given(shapes)
def test_both_are_spikingjellys(sj, shape):
    x = numbered(shape)
    assert torch.equal(TNX_to_NXT(x), sj.TNX_to_NXT(x))
    assert torch.equal(NXT_to_TNX(x), sj.NXT_to_TNX(x))


@pytest.mark.parametrize("convert", [TNX_to_NXT, NXT_to_TNX])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_less_than_two_dimensions_are_refused_in_one_line(convert, shape):
    with pytest.raises(lava_bridge.BridgeError, match="unsqueeze") as error:
        convert(torch.zeros(shape))
    assert "\n" not in str(error.value)
    assert str(shape) in str(error.value)


def test_the_public_face_has_them():
    assert lava_bridge.TNX_to_NXT is TNX_to_NXT
    assert lava_bridge.NXT_to_TNX is NXT_to_TNX
