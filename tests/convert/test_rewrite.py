"""A net against what it is rewritten to, both in SpikingJelly's floats of 64 bits."""

import copy

import torch
import torch.nn as nn
from hypothesis import given, settings, strategies as st
from spikingjelly.activation_based import functional, layer, monitor, neuron

from lava_bridge.convert import rewrite

from .nets import spikes
from .random_nets import nets, run


def run_of(net, x):
    made = copy.deepcopy(net).double().eval()
    return run(made, x.double())


@settings(max_examples=150)
@given(drawn=nets(), steps=st.integers(1, 7), batch=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_spike_is_the_same_before_and_after_the_rewrites(drawn, steps, batch, seed):
    net, shape = drawn
    x = spikes(steps, batch, *shape, seed=seed)
    before, seen_before = run_of(net, x)
    after, seen_after = run_of(rewrite(net.double(), shape), x)
    assert len(seen_before) == len(seen_after)
    for ours, truth in zip(seen_after, seen_before, strict=True):
        assert torch.equal(ours.reshape(truth.shape), truth)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_a_rewritten_net_is_not_watched_by_the_monitors_of_the_net():
    net = nn.Sequential(nn.Linear(6, 5), neuron.IFNode(0.3, step_mode="m"))
    watching = monitor.OutputMonitor(net, neuron.IFNode)
    rewrite(net, (6,))(spikes(3, 2, 6))
    assert not watching.records


def test_a_linear_encoder_takes_planes_also_once_rewritten():
    net = nn.Sequential(nn.Flatten(), nn.Linear(18, 5), neuron.IFNode(0.3), nn.Linear(5, 2))
    net = net.double()
    x = spikes(5, 2, 2, 3, 3).double() * 0.7
    expected, _ = run(net, x)
    found, _ = run(rewrite(net, (2, 3, 3), "direct"), x)
    torch.testing.assert_close(found, expected)
    assert expected.std() > 0


def test_a_net_of_which_only_buffers_say_the_dtype_keeps_it():
    net = nn.Sequential(layer.BatchNorm2d(3, affine=False), neuron.IFNode(0.3)).double().eval()
    functional.set_step_mode(net, "m")
    x = (torch.rand(6, 2, 3, 4, 4) < 0.5).double()
    expected = net(x)
    assert expected.any()
    assert torch.equal(rewrite(net, (3, 4, 4))(x), expected)
