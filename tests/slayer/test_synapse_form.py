"""The synapses on single steps: Conv3d's results in any memory order, and no copies in a chain."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from lava_bridge import slayer
from lava_bridge.quantize import quantize_8bit
from lava_bridge.slayer.block.common import step_delay

from .strategies import analog, brief, seeds, spikes

quantizer = partial(quantize_8bit, scale=64)

# Axes of [N, C, H, W, T] from the outermost in memory inwards. In these, steps lie as wholes.
STEPPED = {
    "T N C H W": (4, 0, 1, 2, 3),
    "T N H W C": (4, 0, 2, 3, 1),
    "N T C H W": (0, 4, 1, 2, 3),
    "N T H W C": (0, 4, 2, 3, 1),
}
TIME_LAST = {"N C H W T": (0, 1, 2, 3, 4), "N H W C T": (0, 2, 3, 1, 4)}
DENSE = {**STEPPED, **TIME_LAST, "C T W N H": (1, 4, 3, 0, 2)}
ORDERS = [*DENSE, "every second", "a slice", "one sample", "one step"]


def laid_out(x, order):
    """``x`` (``[N, C, T]`` too) in another memory order.

    "One sample" and "one step" are the first of ``x``, expanded to its shape.
    """
    if x.dim() == 3:
        return laid_out(x[:, :, None, None], order)[:, :, 0, 0]
    if order == "every second":
        return x.repeat_interleave(2, dim=-1)[..., ::2]
    if order == "a slice":
        return F.pad(x, (1, 0, 0, 0, 0, 0, 2, 1))[:, 2:-1, :, :, 1:]
    if order == "one sample":
        return x[:1].expand_as(x)
    if order == "one step":
        return x[..., :1].expand_as(x)
    axes = DENSE[order]
    return x.permute(axes).contiguous().permute([axes.index(i) for i in range(5)])


def conv3d_form(synapse, x, mask=None):
    """What ``synapse`` computes, as torch's convolution in three dimensions."""
    planes = x if x.dim() == 5 else x[:, :, None, None]
    pooling = isinstance(synapse, slayer.synapse.Pool | slayer.synapse.Unpool)
    if pooling:
        rows, columns = synapse.fill(*x.shape[2:4])
        planes = F.pad(x, (0, 0, 0, columns, 0, rows)).flatten(0, 1).unsqueeze(1)
    weight, window = synapse.hooked_weight(mask), (synapse.stride, synapse.padding)
    if synapse.transposed:
        rest = synapse.output_padding, synapse.groups, synapse.dilation
        z = F.conv_transpose3d(planes, weight, None, *window, *rest)
    else:
        z = F.conv3d(planes, weight, None, *window, synapse.dilation, synapse.groups)
    if pooling:
        return z.squeeze(1).unflatten(0, x.shape[:2])
    return z if x.dim() == 5 else z.flatten(1, 3)


def drawn_anew(synapse):
    """``synapse`` with weights that are all different and learned, those of a pool too."""
    for parameter in synapse.parameters():
        parameter.data = torch.randn_like(parameter)
        parameter.requires_grad_()
    return synapse


small = st.sampled_from([2, 3, 1])
one_or_pair = st.one_of(small, st.tuples(small, small))
planes = st.tuples(st.integers(7, 9), st.integers(7, 9))


@st.composite
def cases(draw, name, hooks=(None, quantizer)):
    """A synapse of the class ``name``, and the shape ``[C, *]`` of an input."""
    options = {"weight_norm": draw(st.booleans()), "pre_hook_fx": draw(st.sampled_from(hooks))}
    groups = draw(st.sampled_from([1, 1, 2, 3])) if name.startswith("Conv") else 1
    channels, outputs = groups * draw(small), groups * draw(small)
    torch.manual_seed(draw(seeds))
    if name == "Dense":
        # As Conv3d it slides over an input that is larger than its weight.
        kind = draw(st.sampled_from(["plane", "row", "wider", "larger"]))
        height, width = (1, 1) if kind == "row" else draw(st.tuples(small, small))
        larger = draw(planes)
        wider = height, larger[1]
        image = {"plane": (height, width), "row": (), "wider": wider, "larger": larger}[kind]
        synapse = slayer.synapse.Dense((width, height, channels), outputs, **options)
        return drawn_anew(synapse), (channels, *image)
    window = {"kernel_size": draw(one_or_pair)}
    if name.startswith("Conv") or draw(st.booleans()):  # else a pool of tiles
        window["stride"], window["dilation"] = draw(one_or_pair), draw(one_or_pair)
        window["padding"] = draw(st.integers(0, 2))
    if name.startswith("Conv"):
        window.update(in_features=channels, out_features=outputs, groups=groups)
    return drawn_anew(getattr(slayer.synapse, name)(**window, **options)), (channels, *draw(planes))


def outcome(synapse, run, x, grad):
    """The output, and the gradients for the input and each parameter."""
    x = x.detach().requires_grad_()
    z = run(x)
    return [z, *torch.autograd.grad(z, [x, *synapse.parameters()], grad)]


every_name = pytest.mark.parametrize("name", ["Dense", "Conv", "ConvTranspose", "Pool", "Unpool"])
every_order = pytest.mark.parametrize("order", ORDERS)


@every_order
@every_name
@brief
@given(st.data(), small, small, st.sampled_from(ORDERS), seeds)
def test_output_and_gradients_are_conv3ds(name, order, data, batch, time, grad_order, seed):
    synapse, shape = data.draw(cases(name))
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        synapse.to(dtype)
        x = laid_out(analog((batch, *shape, time), seed, 1, dtype), order)
        z = conv3d_form(synapse, x)
        grad = laid_out(analog(tuple(z.shape), seed + 1, 1, dtype), grad_order)
        mine = outcome(synapse, synapse, x, grad)
        reference = outcome(synapse, partial(conv3d_form, synapse), x, grad)
        largest = max(1.0, *(part.abs().max().item() for part in reference))
        for ours, theirs in zip(mine, reference, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * largest)


@every_order
@every_name
@brief
@given(st.data(), small, small, seeds)
def test_sums_of_8_bit_weights_are_exactly_conv3ds(name, order, data, batch, time, seed):
    synapse, shape = data.draw(cases(name, hooks=(quantizer,)))
    x = laid_out(spikes((batch, *shape, time), seed), order)
    assert torch.equal(synapse(x), conv3d_form(synapse, x))


@pytest.mark.parametrize("order", ["N C H W T", "T N C H W"])
def test_wide_layers_sums_of_8_bit_weights_are_exactly_conv3ds(order):
    """Wide enough for the fast kernels, which small layers do not reach."""
    synapse = drawn_anew(slayer.synapse.Conv(64, 64, 3, padding=1, pre_hook_fx=quantizer))
    x = laid_out(spikes((2, 64, 16, 16, 4), 0), order)
    assert torch.equal(synapse(x), conv3d_form(synapse, x))
    dense = drawn_anew(slayer.synapse.Dense((8, 8, 64), 96, pre_hook_fx=quantizer))
    x = laid_out(spikes((2, 64, 8, 8, 4), 0), order)
    assert torch.equal(dense(x), conv3d_form(dense, x))


# Memory ------------------------------------------------------------------------------------------


class Copies(TorchDispatchMode):
    """Counts the copies of 7 samples of 5 steps; no weight here is a multiple of 35."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        copying = ("aten::clone", "aten::copy_", "aten::_to_copy", "aten::contiguous")
        if func.name().partition(".")[0] in copying:
            self.count += result.numel() % (7 * 5) == 0
        return result


def lies_as(x, order):
    """Whether ``x`` is dense in memory, with its axes in this order."""
    return x.permute(DENSE[order]).is_contiguous()


CHAIN = (
    lambda: slayer.synapse.Conv(2, 4, 3, padding=1),
    lambda: slayer.synapse.Pool(2),
    lambda: slayer.synapse.ConvTranspose(4, 6, 3, padding=1),
    lambda: slayer.synapse.Unpool(2),
    lambda: slayer.synapse.Dense((8, 8, 6), 10),
    lambda: slayer.synapse.Dense(10, 3),
)


@pytest.mark.parametrize("order", STEPPED)
def test_a_chain_on_whole_steps_copies_nothing_and_keeps_their_order(order):
    x = laid_out(spikes((7, 2, 8, 8, 5), 0), order).requires_grad_()
    with Copies() as copies:
        z = x
        for make in CHAIN:
            z = make()(z)
            assert lies_as(z, order)
        z.backward(torch.ones_like(z))
    assert copies.count == 0
    assert lies_as(x.grad, order)


@pytest.mark.parametrize("order", TIME_LAST)
def test_a_chain_on_time_last_copies_once(order):
    x = laid_out(spikes((7, 2, 8, 8, 5), 0), order)
    with Copies() as copies:
        for make in CHAIN:
            x = make()(x)
            assert lies_as(x, "N T H W C")
    assert copies.count == 1


@pytest.mark.parametrize("order", STEPPED)
def test_a_dense_layer_on_a_row_keeps_the_order(order):
    x = laid_out(spikes((7, 6, 5), 0), order)
    with Copies() as copies:
        z = slayer.synapse.Dense(6, 3)(x)
    assert copies.count == 0
    assert z.shape == (7, 3, 5)
    assert lies_as(z[:, :, None, None], order)


@pytest.mark.parametrize("order", STEPPED)
def test_a_pool_that_fills_its_edge_keeps_the_order(order):
    x = laid_out(spikes((2, 3, 7, 7, 4), 0), order)
    z = slayer.synapse.Pool(2)(x)
    assert z.shape == (2, 3, 4, 4, 4)
    assert lies_as(z, order)


# Corners -----------------------------------------------------------------------------------------

MAKERS = {
    "Dense": lambda: slayer.synapse.Dense((4, 4, 2), 3, pre_hook_fx=quantizer),
    "Conv": lambda: slayer.synapse.Conv(2, 3, 2, weight_norm=True, pre_hook_fx=quantizer),
    "ConvTranspose": lambda: slayer.synapse.ConvTranspose(2, 3, 2, pre_hook_fx=quantizer),
    "Pool": lambda: slayer.synapse.Pool(3, weight_scale=2),
    "Unpool": lambda: slayer.synapse.Unpool(2, weight_scale=2),
    "complex": lambda: slayer.synapse.complex.Conv(2, 3, 2, pre_hook_fx=quantizer),
}
every_synapse = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def as_conv3d(synapse, x):
    """The outputs as Conv3d's, one for each part of ``synapse``."""
    return tuple(conv3d_form(part, x) for _, part in synapse.parts(""))


def as_pair(z):
    return z if isinstance(z, tuple) else (z,)


@every_synapse
@pytest.mark.parametrize("shape", [(0, 2, 4, 4, 3), (1, 2, 4, 4, 1), (2, 2, 4, 4, 0)])
def test_no_sample_one_step_and_no_step(make, shape):
    synapse = make()
    x = spikes(shape, 0).requires_grad_()
    for mine, (_, part) in zip(as_pair(synapse(x)), synapse.parts(""), strict=True):
        assert mine.shape == (shape[0], *part.output_shape(shape[1:4]), shape[4])
        if x.numel():
            assert torch.equal(mine, conv3d_form(part, x))
        mine.sum().backward()
    assert x.grad.shape == shape


@given(small, small, st.sampled_from(ORDERS), seeds)
def test_a_mask_multiplies_the_weight(batch, time, order, seed):
    torch.manual_seed(seed)
    synapse = slayer.synapse.Dense(5, 3, weight_norm=True, pre_hook_fx=quantizer)
    mask = (torch.rand(3, 5) < 0.5).reshape(3, 5, 1, 1, 1)
    x = laid_out(spikes((batch, 5, time), seed), order)
    assert torch.equal(synapse(x, mask), conv3d_form(synapse, x, mask))


@every_synapse
@pytest.mark.parametrize("order", ["N C H W T", "T N C H W", "N T H W C"])
def test_autocast_acts_as_on_conv3d(make, order):
    synapse, x = make(), laid_out(spikes((2, 2, 4, 4, 3), 0), order)
    with torch.autocast("cpu", torch.bfloat16):
        mine, reference = as_pair(synapse(x)), as_conv3d(synapse, x)
    for ours, theirs in zip(mine, reference, strict=True):
        assert ours.dtype == theirs.dtype == torch.bfloat16
        assert torch.equal(ours, theirs)


@every_synapse
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_synapse_compiles_as_one_graph_in_every_order(make, dynamic):
    synapse = make()
    torch._dynamo.reset()
    compiled = torch.compile(synapse, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    # (With sizes left open each order takes seconds.)
    for order in ("N C H W T", "T N C H W") if dynamic else ("N C H W T", *STEPPED):
        x = laid_out(spikes((2, 2, 4, 4, 3), 0), order)
        for mine, eager in zip(as_pair(compiled(x)), as_pair(synapse(x)), strict=True):
            assert torch.equal(mine, eager)
            for size, *strides in zip(mine.shape, mine.stride(), eager.stride(), strict=True):
                assert size == 1 or strides[0] == strides[1]


@every_synapse
@pytest.mark.parametrize("order", ["N C H W T", "T N C H W"])
def test_a_synapse_exports_with_any_batch_and_time(make, order):
    synapse = make()
    sizes = {0: torch.export.Dim("batch"), 4: torch.export.Dim("time")}
    x = laid_out(spikes((2, 2, 4, 4, 3), 0), order)
    exported = torch.export.export(synapse, (x,), dynamic_shapes=(sizes,)).module()
    for shape in ((2, 2, 4, 4, 3), (5, 2, 4, 4, 7)):
        x = laid_out(spikes(shape, 1), order)
        for mine, eager in zip(as_pair(exported(x)), as_pair(synapse(x)), strict=True):
            assert torch.equal(mine, eager)


# The step between layers -------------------------------------------------------------------------


class Waits(torch.nn.Module):
    """What :func:`step_delay` needs of a block."""

    def __init__(self, persistent):
        super().__init__()
        self.neuron = torch.nn.Module()
        self.neuron.persistent_state = persistent


@given(st.booleans(), small, small, st.sampled_from(ORDERS), seeds)
def test_the_step_between_layers_in_every_memory_order(persistent, batch, time, order, seed):
    block, waiting = Waits(persistent), torch.zeros(batch, 2, 3, 3)
    for i in range(3):
        x = laid_out(analog((batch, 2, 3, 3, time), seed + i, 1), order).detach().requires_grad_()
        y = step_delay(block, x)
        assert torch.equal(y, torch.cat([waiting.unsqueeze(-1), x[..., :-1]], dim=-1))
        grad = analog(tuple(y.shape), seed, 1)
        assert torch.equal(torch.autograd.grad(y, x, grad)[0], F.pad(grad[..., 1:], (0, 1)))
        if persistent:
            waiting = x[..., -1].detach()


# Single channels ----------------------------------------------------------------------------------


@every_order
@pytest.mark.parametrize("name", ["Conv", "ConvTranspose", "Pool", "Unpool"])
def test_single_channels_are_exact_in_every_geometry(name, order):
    """Torch 2.13 reads beyond its input where a single channel has a stride of 1, as it may."""
    random = np.random.default_rng(0)

    def pair(least, most):
        return tuple(int(size) for size in random.integers(least, most + 1, 2))

    for seed in range(150):
        window = {"kernel_size": pair(1, 3), "stride": (1, 2)}
        window |= {"padding": (pair(0, 1)[0], 0), "dilation": (pair(1, 2)[0], 1)}
        channels = (1, int(random.integers(1, 3))) if name.startswith("Conv") else ()
        synapse = drawn_anew(
            getattr(slayer.synapse, name)(*channels, **window, pre_hook_fx=quantizer)
        )
        shape = (1, pair(5, 9)[0], pair(3, 4)[0])  # one column is left
        x = laid_out(spikes((2, *shape, 12), seed), order)
        mine = synapse(x)
        grad = torch.randint(-2, 3, mine.shape).float()
        mine = outcome(synapse, synapse, x, grad)
        wide = synapse.double()
        reference = outcome(wide, partial(conv3d_form, wide), x.double(), grad.double())
        assert torch.equal(mine[0].double(), reference[0]), window
        for ours, theirs in zip(mine, reference, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-3)
