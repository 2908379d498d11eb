"""What a kernel is told: every field of a call, and how sequences lie in memory."""

import ctypes

import pytest
import torch
from kernel_cases import ALL_ORDERS, in_order_of, laid_out, numbers, spread

from lava_bridge.kernels import native
from lava_bridge.kernels.call import _FIELDS, Call, MemoryOrder, filled


def test_a_call_holds_what_it_was_filled_with():
    x, y = torch.rand(2, 3, 5), torch.rand(2, 3, 5, dtype=torch.float64)
    half, one, each, result = x.half(), torch.rand(1), torch.rand(6), torch.rand(6)
    order = MemoryOrder(x.movedim(0, -1))
    call = filled(order, [x, None, y], [half], [one, each], [None, result], [1.5, True])
    assert [call.input[k] for k in range(4)] == [x.data_ptr(), None, y.data_ptr(), None]
    assert [call.output[k] for k in range(2)] == [half.data_ptr(), None]
    assert [call.parameter[k] for k in range(3)] == [one.data_ptr(), each.data_ptr(), None]
    assert [call.result[k] for k in range(3)] == [None, result.data_ptr(), None]
    assert list(call.number)[:3] == [1.5, 1, 0]
    assert (call.outer, call.steps, call.inner) == (1, 2, 15)
    assert list(call.shared)[:3] == [1, 0, 0]
    assert list(call.input_type)[:3] == [0, 0, 1]
    assert call.output_type[0] == 2
    assert (call.threads, call.instructions, call.past_caches, call.own_cache) == (1, 0, 0, 0)


def test_a_call_has_the_size_that_the_kernels_expect():
    assert _FIELDS.size == ctypes.sizeof(Call)
    if native.missing() is None:
        assert native._native.call_size() == ctypes.sizeof(Call)


@pytest.mark.parametrize(("shape", "order"), ALL_ORDERS)
def test_a_sequence_is_outer_steps_inner_in_memory(shape, order):
    x = laid_out(numbers(shape, 1, 1.0, torch.float32), order)
    found = MemoryOrder(x)
    assert found.like is x
    assert found.outer * found.steps * found.inner == x.numel()
    flat = x.as_strided((x.numel(),), (1,)).reshape(found.outer, found.steps, found.inner)
    # One number for each neuron lies as the neurons of a step do.
    result = found.result(torch.float32)
    for t in range(found.steps):
        result.copy_(x[..., t])
        in_memory = result.as_strided((result.numel(),), (1,))
        assert torch.equal(in_memory, flat[:, t].flatten())
        flat_step = found.flat(x[..., t], torch.float32)
        assert torch.equal(flat_step.as_strided((result.numel(),), (1,)), in_memory)
    assert found.flat(result, torch.float32) is result
    assert found.brought(x, torch.float32) is x
    assert in_order_of(found.brought(x.contiguous(), torch.float64), x)


def test_a_sequence_elsewhere_is_brought_to_the_others():
    x = torch.ones(2, 3, 4)
    elsewhere = MemoryOrder(x.to("meta"))
    assert elsewhere.brought(x, torch.float32).is_meta
    assert MemoryOrder(x).brought(x, torch.float32) is x


def test_what_leaves_gaps_or_overlaps_is_copied():
    x = numbers((2, 3, 5), 1, 1.0, torch.float32)
    for view in (spread(x), x[..., 1:4], x[:, :, :1].expand(2, 3, 5), x[:, ::2]):
        found = MemoryOrder(view)
        assert found.like is not view
        assert torch.equal(found.like, view)
    assert MemoryOrder(x[:1, :, :]).like.data_ptr() == x.data_ptr()
