"""The complex synapses: two real ones; parameters, outputs and gradients are lava's."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import slayer
from lava_bridge.quantize import quantize_8bit

from .strategies import (
    GEOMETRY,
    alike,
    analog,
    assert_close,
    assert_same_state_dict,
    batches,
    seeds,
    spikes,
    thorough,
)

quantizer = partial(quantize_8bit, scale=64)
LAYERS = ("Dense", "Conv", "ConvTranspose", "Pool", "Unpool")
every_layer = pytest.mark.parametrize("name", LAYERS)


@st.composite
def layers(draw, names=LAYERS, hooks=(quantizer, None)):
    """A complex synapse: its class, its arguments and the shape of an input."""
    name = draw(st.sampled_from(names))
    small = st.integers(1, 2)
    one_or_pair = st.one_of(small, st.tuples(small, small))
    channels = draw(st.integers(1, 3))
    shape = (channels, draw(st.integers(4, 6)), draw(st.integers(4, 6)))
    arguments = {
        "weight_scale": draw(st.sampled_from([1, 2, 4.5])),
        "weight_norm": draw(st.booleans()),
        "pre_hook_fx": draw(st.sampled_from(hooks)),
    }
    if name == "Dense":
        arguments["out_neurons"] = draw(st.integers(1, 4))
        if draw(st.booleans()):
            shape = (channels,)
            arguments["in_neurons"] = channels
        else:
            arguments["in_neurons"] = (*shape[:0:-1], channels)
        return name, arguments, shape
    arguments["kernel_size"] = draw(one_or_pair)
    if name in ("Conv", "ConvTranspose"):  # lava's pools are right only where windows are tiles
        arguments.update(stride=draw(one_or_pair), dilation=draw(one_or_pair))
        groups = draw(st.sampled_from([1, channels]))
        arguments.update(in_features=channels, out_features=groups * draw(small), groups=groups)
        arguments["padding"] = draw(st.sampled_from([0, 1, (0, 1)]))
    return name, arguments, shape


def pair(lava, case, seed, **changes):
    name, arguments, _ = case
    arguments = {**arguments, **changes}
    return alike(lava, lambda which: getattr(which.synapse.complex, name)(**arguments), seed)


def gradients_of(synapse, x, seed):
    """Gradients for the input and the weights, for random ones of both parts."""
    x = x.clone().requires_grad_()
    synapse.zero_grad()
    real, imag = synapse(x)
    first, second = (analog(tuple(real.shape), seed + i, 1, x.dtype) for i in range(2))
    (real * first + imag * second).sum().backward()
    named = {n: p.grad.clone() for n, p in synapse.named_parameters() if p.grad is not None}
    return x.grad, named


@thorough
@given(layers(), batches, st.integers(1, 6), seeds)
def test_a_complex_synapse_is_lavas(lava, case, batch, time, seed):
    _, arguments, shape = case
    ours, theirs = pair(lava, case, seed)
    assert_same_state_dict(ours, theirs)
    assert ours.complex is theirs.complex is True
    assert ours.shape == theirs.shape
    x = spikes((batch, *shape, time), seed)
    for mine, reference in zip(ours(x), theirs(x), strict=True):
        if arguments["pre_hook_fx"] is None:
            torch.testing.assert_close(mine, reference)
        else:
            assert torch.equal(mine, reference)
        assert mine.shape == (batch, *ours.output_shape(shape), time)
    assert ours.weight_norm_enabled == arguments["weight_norm"]


@thorough
@given(layers(), batches, st.integers(1, 4), seeds)
def test_gradients_and_their_norm_are_lavas(lava, case, batch, time, seed):
    ours, theirs = pair(lava, case, seed)
    assert ours.grad_norm == theirs.grad_norm == 0
    x = analog((batch, *case[2], time), seed, 1, torch.float64)
    mine_x, mine = gradients_of(ours.double(), x, seed + 1)
    reference_x, reference = gradients_of(theirs.double(), x, seed + 1)
    assert_close(mine_x, reference_x)
    if case[0] not in ("Pool", "Unpool"):  # theirs learn once they have weight norm
        assert mine.keys() == reference.keys()
    for key, grad in mine.items():
        assert_close(grad, reference[key])
    assert mine or case[0] in ("Pool", "Unpool")
    if mine:
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-5)
        assert ours.grad_norm > 0


@given(layers(), seeds)
def test_the_parts_are_drawn_one_after_the_other_and_weigh_alone(case, seed):
    name, arguments, shape = case
    torch.manual_seed(seed)
    synapse = getattr(slayer.synapse.complex, name)(**arguments)
    torch.manual_seed(seed)
    parts = [getattr(slayer.synapse, name)(**arguments) for _ in range(2)]
    x = spikes((2, *shape, 3), seed)
    for mine, part in zip(synapse(x), parts, strict=True):
        assert torch.equal(mine, part(x))
    for key in GEOMETRY:
        assert getattr(synapse, key) == getattr(parts[0], key), key


@given(layers(hooks=(None,)), seeds)
def test_a_hook_that_is_set_acts_on_both_weights_as_in_lava(lava, case, seed):
    ours, theirs = pair(lava, case, seed, weight_norm=False)
    assert ours.pre_hook_fx is None
    x = spikes((2, *case[2], 3), seed)
    for synapse in (ours, theirs):
        synapse.pre_hook_fx = quantizer
    for mine, reference in zip(ours(x), theirs(x), strict=True):
        assert torch.equal(mine, reference)
    assert ours.pre_hook_fx is quantizer  # lava's getter raises
    quantized, _ = pair(lava, case, seed, weight_norm=False, pre_hook_fx=quantizer)
    for mine, reference in zip(ours(x), quantized(x), strict=True):
        assert torch.equal(mine, reference)


@every_layer
@given(data=st.data(), seed=seeds)
def test_weight_norm_goes_on_and_off_as_in_lava(lava, name, data, seed):
    case = data.draw(layers((name,), hooks=(quantizer,)))
    ours, theirs = pair(lava, case, seed, weight_norm=False)
    x = spikes((2, *case[2], 3), seed)
    for synapse in (ours, theirs):
        synapse.enable_weight_norm()
    assert ours.weight_norm_enabled
    assert_same_state_dict(ours, theirs)
    for synapse in (ours, theirs):
        for part, factor in ((synapse.real, 0.7), (synapse.imag, 1.3)):
            part.weight_g.data.mul_(factor)
    for mine, reference in zip(ours(x), theirs(x), strict=True):
        assert torch.equal(mine, reference)
    for synapse in (ours, theirs):
        synapse.disable_weight_norm()
    assert not ours.weight_norm_enabled
    assert_same_state_dict(ours, theirs)
    for mine, reference in zip(ours(x), theirs(x), strict=True):
        assert torch.equal(mine, reference)


@every_layer
@given(data=st.data(), seed=seeds)
def test_checkpoints_load_both_ways(lava, name, data, seed):
    case = data.draw(layers((name,), hooks=(quantizer,)))
    ours, theirs = pair(lava, case, seed)
    x = spikes((2, *case[2], 3), seed)
    for parameter in theirs.parameters():
        parameter.data.mul_(0.5).add_(0.25)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_same_state_dict(ours, theirs)
    for mine, reference in zip(ours(x), theirs(x), strict=True):
        assert torch.equal(mine, reference)
    for parameter in ours.parameters():
        parameter.data.mul_(0.5).add_(-0.25)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for mine, reference in zip(ours(x), theirs(x), strict=True):
        assert torch.equal(mine, reference)


@given(seeds, st.booleans())
def test_a_mask_acts_on_both_parts(seed, weight_norm):
    torch.manual_seed(seed)
    synapse = slayer.synapse.complex.Dense(5, 3, 2, weight_norm)
    mask = (torch.rand(3, 5) < 0.5).reshape(3, 5, 1, 1, 1)
    x = analog((2, 5, 4), seed, 1)
    for mine, part in zip(synapse(x, mask), (synapse.real, synapse.imag), strict=True):
        weight = (part.weight * mask)[..., 0, 0, 0]
        torch.testing.assert_close(mine, torch.einsum("oi,nit->not", weight, x))


@every_layer
def test_a_copy_weighs_the_same_and_learns_apart(name):
    arguments = {
        "Dense": (6, 4),
        "Conv": (2, 3, 2),
        "ConvTranspose": (2, 3, 2),
        "Pool": (2,),
        "Unpool": (2,),
    }[name]
    synapse = getattr(slayer.synapse.complex, name)(*arguments, weight_norm=True)
    x = spikes((2, 6, 3) if name == "Dense" else (2, 2, 4, 4, 3), 0)
    before = [part.clone() for part in synapse(x)]
    twin = copy.deepcopy(synapse)
    for parameter in twin.parameters():
        parameter.data.add_(1)
    for mine, reference in zip(synapse(x), before, strict=True):
        assert torch.equal(mine, reference)
    assert not torch.equal(twin(x)[0], before[0])
