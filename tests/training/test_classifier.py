"""The classifiers are lava's, and return what they promise."""

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge.errors import BridgeError
from lava_bridge.slayer import classifier

from ..slayer.strategies import in_other_memory, memory_orders

seeds = st.integers(0, 1000)
shapes = st.sampled_from([(1,), (4,), (2, 1, 1), (2, 3, 2)])
modes = st.sampled_from(["probability", "softmax", "logsoftmax"])


def spikes(shape, seed):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


@given(st.integers(1, 3), shapes, st.integers(1, 9), modes, seeds, memory_orders)
def test_rate_is_lavas(lava, batch, shape, time, mode, seed, order):
    x = in_other_memory(spikes((batch, *shape, time), seed), order)
    mine, theirs = classifier.Rate, lava.classifier.Rate
    assert torch.equal(mine.rate(x), theirs.rate(x))
    assert torch.equal(mine.confidence(x, mode, 1e-3), theirs.confidence(x, mode, 1e-3))
    assert torch.equal(mine.predict(x), theirs.predict(x))
    assert torch.equal(mine()(x), theirs()(x))


@given(
    st.integers(1, 3), shapes, st.integers(1, 9), st.integers(1, 12), modes, seeds, memory_orders
)
def test_moving_window_is_lavas(lava, batch, shape, time, window, mode, seed, order):
    x = in_other_memory(spikes((batch, *shape, time), seed), order)
    mine, theirs = (w.MovingWindow(window, mode, 1e-3) for w in (classifier, lava.classifier))
    assert torch.equal(mine.rate(x), theirs.rate(x))
    assert torch.equal(mine.confidence(x), theirs.confidence(x))
    assert torch.equal(mine.confidence(x, "softmax"), theirs.confidence(x, "softmax"))
    if len(shape) == 1:
        assert torch.equal(mine.predict(x), theirs.predict(x))
    assert mine.state_dict().keys() == theirs.state_dict().keys()


@given(shapes, st.integers(1, 9), st.integers(1, 12), seeds)
def test_a_moving_window_predicts_a_class_at_each_step(shape, time, window, seed):
    """lava's forward returns None, and its predict takes only the channels as classes."""
    x = spikes((2, *shape, time), seed)
    moving = classifier.MovingWindow(window)
    predicted = moving(x)
    assert predicted.shape == (2, time)
    assert torch.equal(predicted, moving.predict(x.flatten(1, -2)))
    assert torch.equal(predicted, moving.confidence(x).argmax(1))


def test_a_moving_window_takes_float64():
    x = spikes((2, 3, 5), 0).double()
    assert classifier.MovingWindow(2).rate(x).dtype == torch.float64


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: classifier.Rate.confidence(x, "likely"),
        lambda x: classifier.MovingWindow(2).confidence(x, "likely"),
        lambda x: classifier.MovingWindow(2, mode="likely").confidence(x),
    ],
)
def test_an_unknown_mode_is_named(wrong):
    with pytest.raises(BridgeError, match="'likely'; expected 'probability'"):
        wrong(torch.ones(1, 2, 3))


def test_a_window_without_steps_is_refused():
    with pytest.raises(BridgeError, match="time_window is 0"):
        classifier.MovingWindow(0)
