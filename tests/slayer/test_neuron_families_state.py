"""Neurons of the other families learn, are saved and loaded, and are copied, as lava's."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import slayer

from .strategies import (
    FIRING,
    NORMS,
    RESONATORS,
    SPIKING,
    assert_same_state_dict,
    brief,
    drive,
    family_pair,
    run_alike,
    seeds,
)

every_family = pytest.mark.parametrize("name", SPIKING)
FAMILIES = (*SPIKING, "sigma_delta")
LEARNED = ("sin_decay", "cos_decay", "current_decay", "voltage_decay")


@every_family
@brief
@given(sine=st.integers(-9000, 9000), cosine=st.integers(-9000, 9000), seed=seeds)
def test_parameters_out_of_range_after_an_optimiser_step_come_back_as_in_lava(
    lava, name, sine, cosine, seed
):
    ours, theirs = family_pair(lava, (name, FIRING[name]), requires_grad=True)
    x = drive(name, (2, 3, 7), seed, 1)
    for neuron in (ours, theirs):
        for parameter, value in zip(neuron.parameters(), (sine, cosine), strict=False):
            parameter.data.fill_(value)
    if sine or cosine or name not in RESONATORS:  # else NaN in lava
        assert torch.equal(ours(x), theirs(x))
        for key in LEARNED:
            if hasattr(theirs, key):
                assert torch.equal(getattr(ours, key), getattr(theirs, key)), key
        assert ours.device_params == theirs.device_params
    if name in RESONATORS:
        ours(x)
        assert 1 <= ours.sin_decay <= 4096
        assert 0 <= ours.cos_decay <= 4096
        assert ours.decay >= 0


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("norm", [None, *NORMS])
def test_checkpoints_load_both_ways_before_and_after_the_first_forward(lava, name, shared, norm):
    def made(seed):
        return family_pair(
            lava,
            (name, FIRING[name]),
            seed,
            shared_param=shared,
            norm=lambda which: None if norm is None else getattr(which.neuron.norm, norm),
        )

    x, other = (drive(name, (2, 3, 6), seed, 1) for seed in (1, 5))
    ours, theirs = made(1)
    run_alike(ours, theirs, x, 1)
    assert_same_state_dict(ours, theirs)
    for key, parameter in ours.named_parameters():
        if key != "bias":  # of no effect where it was not set
            parameter.data.mul_(0.5).add_(0.25)
    for run_first in (False, True):
        mine, reference = made(2)
        if run_first:
            mine(x), reference(x)
            reference.load_state_dict(ours.state_dict(), strict=True)
            assert_same_state_dict(reference, ours)
            assert torch.equal(ours.eval()(other), reference.eval()(other))
        mine.load_state_dict(ours.state_dict(), strict=True)
        assert_same_state_dict(mine, ours)
        assert torch.equal(ours.eval()(other), mine.eval()(other))
        assert_same_state_dict(mine, ours)
        fresh, _ = made(3)
        if run_first:
            fresh(x)
        theirs.load_state_dict(ours.state_dict(), strict=True)
        fresh.load_state_dict(theirs.state_dict(), strict=True)
        assert torch.equal(fresh.eval()(other), theirs.eval()(other))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shared", [True, False])
def test_a_checkpoint_from_before_the_first_forward_leaves_the_draw_as_in_lava(lava, name, shared):
    ours, theirs = family_pair(lava, (name, FIRING[name]), 1, shared_param=shared)
    loaded, fresh = family_pair(lava, (name, FIRING[name]), 1, shared_param=shared)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, value in ours.state_dict().items():
        assert value.shape == theirs.state_dict()[key].shape
    theirs.load_state_dict(ours.state_dict(), strict=True)
    loaded.load_state_dict(fresh.state_dict(), strict=True)
    x = drive(name, (2, 3, 6), 1, 1)
    mine, reference = run_alike(ours, theirs, x, 1)
    assert torch.equal(mine, reference)
    mine, reference = run_alike(loaded, fresh, x, 1)
    assert torch.equal(mine, reference)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_a_copy_goes_on_as_the_neuron_and_apart_from_it(name, shared, copied):
    neuron = getattr(slayer.neuron, name).Neuron(
        **FIRING[name],
        shared_param=shared,
        persistent_state=True,
        norm=slayer.neuron.norm.WgtScaleBatchNorm,
    )
    x, later = (drive(name, (2, 3, 6), seed, 1) for seed in (1, 3))
    neuron(x)
    twin = copied(neuron)
    assert torch.equal(twin(later), neuron(later))
    before = {key: value.clone() for key, value in neuron.state_dict().items()}
    for parameter in twin.parameters():
        parameter.data.add_(7)
    twin(x)
    for key, value in neuron.state_dict().items():
        assert torch.equal(value, before[key]), key
    if name in RESONATORS:
        assert twin.real_norm.pre_hook_fx.__self__ is twin
