"""Processes that feed back, directly or through others."""

import itertools
import threading

import numpy as np
import pytest

from lava_bridge import BridgeError
from lava_bridge.proc import Loihi2SimCfg, RunSteps, io
from lava_bridge.proc.conv.process import Conv

from .adder import FIXED, Adder, PyAdder


@pytest.mark.parametrize("first", ["adder", "conv"])
@pytest.mark.parametrize("begin", ["adder", "conv"])
def test_a_loop_runs_whichever_was_made_first_and_wherever_it_begins(first, begin):
    """One receives before it sends, the other sends before it receives."""
    make = {
        "adder": lambda: Adder(shape=(1, 1, 1), start=1),
        "conv": lambda: Conv(weight=np.ones((1, 1, 1, 1)), num_message_bits=8),
    }
    made = {name: make[name]() for name in sorted(make, reverse=first == "conv")}
    adder, layer = made["adder"], made["conv"]
    adder.s_out.connect(layer.s_in)
    layer.a_out.connect(adder.a_in)
    made[begin].run(RunSteps(4), FIXED)
    assert adder.total.get() == 8  # 1, then twice as much in each step


def test_loops_that_meet_in_a_process_run():
    """No order of whole models would do: the adder waits for both, and both for the adder."""
    adder = Adder(shape=(1, 1, 1), start=1)
    layers = [Conv(weight=np.full((1, 1, 1, 1), w), num_message_bits=8) for w in (1, 2)]
    for layer in layers:
        adder.s_out.connect(layer.s_in)
        layer.a_out.connect(adder.a_in)
    adder.run(RunSteps(3), FIXED)
    assert adder.total.get() == 1 * 4 * 4
    assert layers[1].a_buf.get() == 2 * 1 * 4 * 4


def test_a_long_chain_into_a_loop_runs():
    adders = [Adder(shape=(1, 1, 1)) for _ in range(300)]
    layer = Conv(weight=np.ones((1, 1, 1, 1)))
    for after, before in itertools.pairwise(adders):
        before.s_out.connect(after.a_in)
    adders[0].s_out.connect(layer.s_in)
    layer.a_out.connect(layer.s_in)
    source = io.source.RingBuffer(data=np.ones((1, 1, 1, 1)))
    source.s_out.connect(adders[-1].a_in)
    layer.run(RunSteps(2), FIXED)
    assert adders[0].total.get() == 301
    assert threading.active_count() < 100


def test_what_a_model_in_a_loop_raises_is_raised():
    class Failing(PyAdder):
        def run_spk(self):
            raise KeyError("mine")

    adder, layer = Adder(shape=(1, 1, 1)), Conv(weight=np.ones((1, 1, 1, 1)))
    adder.s_out.connect(layer.s_in)
    layer.a_out.connect(adder.a_in)
    with pytest.raises(KeyError, match="mine"):
        layer.run(RunSteps(1), Loihi2SimCfg(exception_proc_model_map={Adder: Failing}))
    with pytest.raises(BridgeError, match="was stopped"):
        adder.total.get()


def test_models_that_wait_for_each_other_are_an_error():
    """Both receive before they send."""
    one, other = Adder(shape=(1,), name="one"), Adder(shape=(1,), name="other")
    one.s_out.connect(other.a_in)
    other.s_out.connect(one.a_in)
    with pytest.raises(BridgeError, match=r"(one|other).a_in: receives, but nothing was sent"):
        one.run(RunSteps(1), FIXED)
    with pytest.raises(BridgeError, match="stopped"):
        one.run(RunSteps(1))
