"""Processes are wired and run as in Lava, and say what is wrong where they can't be."""

import itertools

import numpy as np
import pytest
import torch

from lava_bridge import BridgeError
from lava_bridge.proc import (
    AbstractProcess,
    InPort,
    LavaPyType,
    LogConfig,
    Loihi1SimCfg,
    Loihi2SimCfg,
    OutPort,
    PyInPort,
    PyLoihiProcessModel,
    PyOutPort,
    RunConfig,
    RunSteps,
    Var,
    conv,
    implements,
    io,
    tag,
)
from lava_bridge.proc.conv.models import PyConvModelFixed, PyConvModelFloat
from lava_bridge.proc.conv.process import Conv
from lava_bridge.proc.model import CPU, LoihiProtocol

from .adder import FIXED, Adder, PyAdder

FLOATING = Loihi1SimCfg(select_tag="floating_pt")
DATA = np.arange(24).reshape(2, 3, 4)


def wired(*shape, view=lambda port: port, buffer=4):
    """A source of DATA, an adder, a sink."""
    source, adder = io.source.RingBuffer(data=DATA), Adder(shape=shape)
    sink = io.sink.RingBuffer(shape=shape, buffer=buffer)
    view(source.s_out).connect(adder.a_in)
    adder.s_out.connect(sink.a_in)
    return source, adder, sink


@pytest.mark.parametrize("first", range(3))
def test_a_process_of_ones_own_runs_from_any_of_the_connected(first):
    processes = wired(2, 3)
    processes[first].run(condition=RunSteps(num_steps=3), run_cfg=FIXED)
    processes[first - 1].run(condition=RunSteps(num_steps=1))
    *_, adder, sink = processes
    np.testing.assert_array_equal(sink.data.get(), DATA.cumsum(-1))
    np.testing.assert_array_equal(sink.data.get(np.s_[0, :, 1]), DATA.cumsum(-1)[0, :, 1])
    assert adder.steps.get() == 4
    assert adder.steps.get().dtype == np.float64


@pytest.mark.parametrize(
    ("shape", "view", "expected"),
    [
        ((6,), lambda port: port.flatten(), lambda data: data.reshape(6, 4)),
        ((3, 2), lambda port: port.reshape((3, 2)), lambda data: data.reshape(3, 2, 4)),
        ((3, 2), lambda port: port.transpose(), lambda data: data.transpose(1, 0, 2)),
        ((2, 3), lambda port: port.transpose((0, -1)), lambda data: data),
        (
            (6,),
            lambda port: port.transpose([1, 0]).flatten(),
            lambda data: data.transpose(1, 0, 2).reshape(6, 4),
        ),
    ],
)
def test_messages_are_reshaped_on_the_way(shape, view, expected):
    source, _, sink = wired(*shape, view=view)
    sink.run(RunSteps(4), FIXED)
    np.testing.assert_array_equal(sink.data.get(), expected(DATA).cumsum(-1))
    assert source.s_out.shape == (2, 3)


def test_the_members_of_a_process_are_found_by_name_and_in_order():
    layer = Conv(weight=np.ones((3, 2, 2, 1)), input_shape=(4, 4, 1), log_config=LogConfig())
    assert layer.in_ports.s_in is layer.s_in
    assert layer.out_ports.member_names == ["a_out"]
    assert [var.name for var in layer.vars] == layer.vars.member_names
    assert layer.vars.members[0] is layer.weight
    assert layer.s_in.size == 16
    assert layer.a_out.process is layer
    assert layer.name.startswith("Conv_")
    assert Conv(weight=np.ones((1, 1, 1, 1)), name="mine").name == "mine"


def test_what_lava_documents_of_the_models_is_there():
    for model, name in ((PyConvModelFixed, "fixed_pt"), (PyConvModelFloat, "floating_pt")):
        assert model.implements_process is Conv
        assert model.implements_protocol is LoihiProtocol
        assert model.required_resources == [CPU]
        assert model.tags == [name]
        assert model.weight.cls is np.ndarray
        assert model.s_in.cls is PyInPort.VEC_DENSE
        assert model.a_out.cls is PyOutPort.VEC_DENSE
    assert PyConvModelFixed.weight == LavaPyType(np.ndarray, np.int32, precision=8)
    assert conv.models.AbstractPyConvModel().clamp_precision(2**30) == 2**30
    assert PyConvModelFixed().clamp_precision(np.array([2**23])).tolist() == [-(2**23)]


def run_conv(weight, data, steps, config=FIXED, **sizes):
    """Source, convolution and sink: the sink's data and the convolution."""
    source = io.source.RingBuffer(data=data)
    layer = Conv(weight=weight, input_shape=data.shape[:-1], **sizes)
    sink = io.sink.RingBuffer(shape=layer.output_shape, buffer=steps)
    source.s_out.connect(layer.s_in)
    layer.a_out.connect(sink.a_in)
    with layer:
        layer.run(RunSteps(steps), config)
        return sink.data.get(), layer


def test_more_than_127_groups_convolve():
    """In Lava the number of groups is an int8."""
    weight = np.arange(200).reshape(200, 1, 1, 1) % 100
    found, _ = run_conv(weight, np.ones((1, 1, 200, 1)), 2, groups=200)
    np.testing.assert_array_equal(found[0, 0, :, 1], weight.ravel())


def test_graded_sums_beyond_32_bits_wrap():
    """In Lava they are 0, whatever they are."""
    weight, data = np.full((1, 1, 1, 3), 127), np.full((1, 1, 3, 1), 2**23 - 5)
    found, _ = run_conv(weight, data, 2, num_message_bits=24)
    exact = 3 * 127 * (2**23 - 5)
    assert exact > 2**31
    assert found[0, 0, 0].tolist() == [0, conv.utils.signed_clamp(exact, 24)]
    assert found[0, 0, 0, 1] != 0


def test_two_runs_of_the_same_net_are_the_same_to_the_last_bit():
    rng = np.random.default_rng(0)
    weight, data = rng.standard_normal((4, 3, 3, 2)), rng.standard_normal((7, 6, 2, 5))
    first, second = (run_conv(weight, data, 5, FLOATING)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    # A spike is whatever is not zero; by default messages are spikes.
    spikes, _ = run_conv(weight, (data != 0).astype(float), 5, FLOATING)
    np.testing.assert_array_equal(first, spikes)


def test_an_input_that_nothing_is_connected_to_receives_zeros():
    adder = Adder(shape=(2,), start=[3, 4])
    adder.run(RunSteps(2), FIXED)
    assert adder.total.get().tolist() == [3, 4]


def test_a_long_chain_runs_whichever_end_was_made_first():
    data = np.ones((1, 3))
    for reverse in (False, True):
        adders = [Adder(shape=(1,)) for _ in range(1500)]
        chain = adders[::-1] if reverse else adders
        io.source.RingBuffer(data=data).s_out.connect(chain[0].a_in)
        for before, after in itertools.pairwise(chain):
            before.s_out.connect(after.a_in)
        adders[0].run(RunSteps(2), FIXED)
        assert chain[-1].total.get() == 1501


def test_variables_are_set_between_runs_and_cast():
    _, adder, sink = wired(2, 3)
    assert adder.total.get() == 0
    with pytest.raises(BridgeError, match=r"total\.set: the process has not run yet"):
        adder.total.set(1)
    sink.run(RunSteps(1), FIXED)
    adder.total.set(np.full((2, 3), -2.9))
    adder.total.set(7, (0, 1))
    adder.steps.set(np.array([9.0]))
    assert adder.total.get().tolist() == [[-2, 7, -2], [-2, -2, -2]]
    got = adder.total.get()
    got[:] = 0  # a copy
    assert adder.total.get((0, 1)) == 7
    assert adder.steps.get() == 9
    with pytest.raises(BridgeError, match=r"has the shape \(2, 3\), found a value of \(3, 2\)"):
        adder.total.set(np.zeros((3, 2)))
    for value in (None, "a", 1j, [[1], [2, 3]], torch.ones(2, 3, requires_grad=True)):
        with pytest.raises(BridgeError, match=r"total\.set: .*; give") as caught:
            adder.total.set(value)
        assert "\n" not in str(caught.value)
    with pytest.raises(BridgeError, match=r"steps\.set: 'a' is no int .*; give one"):
        adder.steps.set("a")
    assert adder.steps.get() == 9
    assert adder.total.get((0, 1)) == 7


def test_a_model_hears_of_what_is_set():
    class Doubled(PyAdder):
        def on_var_update(self):
            self.total *= 2

    adder = Adder(shape=(2,))
    adder.run(RunSteps(1), Loihi2SimCfg(exception_proc_model_map={Adder: Doubled}))
    adder.total.set(np.array([1, 2]))
    assert adder.total.get().tolist() == [2, 4]
    adder.steps.set(5)
    assert adder.total.get().tolist() == [4, 8]


def test_a_variable_may_be_a_string():
    class Named(AbstractProcess):
        def __init__(self):
            super().__init__()
            self.title = Var(shape=(5,), init="first")

    @implements(proc=Named)
    class PyNamed(PyLoihiProcessModel):
        title: str = LavaPyType(str, str)

    named = Named()
    named.run(RunSteps(1), FIXED, compile_config={})  # as in Lava, without effect
    assert named.title.get() == "first"
    named.title.set("other")
    assert named.title.get() == "other"


def test_a_run_that_is_refused_leaves_the_first_to_come():
    """Else its configuration would stay, and nothing could be connected any more."""
    source, adder, sink = wired(2, 3)
    with pytest.raises(BridgeError, match="expected RunSteps"):
        sink.run(4, FIXED)
    adder.s_out.connect(io.sink.RingBuffer(shape=(2, 3), buffer=1).a_in)
    sink.run(RunSteps(1), Loihi2SimCfg(exception_proc_model_map={io.source.RingBuffer: Sends7}))
    assert (sink.data.get()[..., 0] == 7).all()
    assert source.data.get().shape == DATA.shape


def test_after_stop_nothing_is_read_or_run():
    _, adder, sink = wired(2, 3)
    adder.stop()  # before the first run: nothing
    sink.run(RunSteps(1), FIXED)
    adder.pause()
    adder.wait()
    adder.stop()
    adder.stop()
    for attempt in (sink.data.get, lambda: adder.total.set(1), lambda: sink.run(RunSteps(1))):
        with pytest.raises(BridgeError, match="was stopped; read variables before stop"):
            attempt()


class First(RunConfig):
    """As a user writes one."""

    def select(self, process, proc_models):
        return proc_models[0]


def test_a_configuration_picks_the_model():
    def sum_of(config):
        """Of a weight that is 0 in integers."""
        found, _ = run_conv(np.full((1, 1, 1, 1), 0.5), np.ones((1, 1, 1, 1)), 2, config)
        return found[0, 0, 0, 1]

    assert sum_of(FIXED) == 0
    assert sum_of(FLOATING) == sum_of(First()) == sum_of(Loihi2SimCfg()) == 0.5
    exception = {Conv: PyConvModelFixed}
    assert sum_of(Loihi2SimCfg(None, "floating_pt", exception_proc_model_map=exception)) == 0


def test_a_model_that_is_declared_again_takes_the_place_of_the_first():
    class Late(AbstractProcess):
        pass

    for value in (1, 2):

        @implements(proc=Late)
        @tag("fixed_pt", "late")
        class Model(PyLoihiProcessModel):
            number = value

    (model,) = Late.process_models
    assert model.number == 2
    assert model.tags == ["fixed_pt", "late"]
    assert PyLoihiProcessModel.tags == []

    class Later(Late):
        pass

    with pytest.raises(
        BridgeError, match=r"Later_\d+: has no model with the tag 'fixed_pt'; .*none"
    ):
        Later().run(RunSteps(1), FIXED)
    with pytest.raises(BridgeError, match=r"Model: implements .* already"):
        implements(proc=Later)(model)


class Untyped(AbstractProcess):
    def __init__(self, var=True):
        super().__init__()
        if var:
            self.extra = Var(shape=(1,))


@implements(proc=Untyped)
class PyUntyped(PyLoihiProcessModel):
    other: np.ndarray = LavaPyType(np.ndarray, float)


class Learning(AbstractProcess):
    pass


@implements(proc=Learning)
class PyLearning(PyLoihiProcessModel):
    def run_lrn(self):
        pass


class Sends7(io.source.PySendModelFixed):
    """Not what is stored."""

    def run_spk(self):
        self.s_out.send(np.full((2, 3), 7))


def refused(init):
    """A run with a variable that can't be made."""
    Adder((2,), start=init).run(RunSteps(1), FIXED)


SHAPE = np.ones((2, 2, 2, 1))
WRONG = {
    "shapes": (
        lambda: Adder((2,)).s_out.connect(Adder((3,)).a_in),
        r"sends \(2,\), but .* takes \(3,\)",
    ),
    "no port": (lambda: Adder((2,)).s_out.connect(Adder((2,))), "expected an InPort, found a Ad"),
    "reshape": (lambda: Adder((2,)).s_out.reshape((3,)), "has 2 elements"),
    "transpose": (lambda: Adder((2, 3)).s_out.transpose((0, 0)), "is no permutation of 2 axes"),
    "transpose beyond": (lambda: Adder((2, 3)).s_out.transpose((0, 3)), "is no permutation"),
    "transpose one": (lambda: Adder((2, 3)).s_out.transpose(0), "is no permutation of 2 axes"),
    "from": (lambda: Adder((2,)).a_in.connect_from(Adder((2,))), "expected an OutPort, found a Ad"),
    "size": (lambda: Adder((2.5,)), "2.5 is no integer"),
    "sizes": (lambda: Adder(5), "the shape is 5; give a tuple of sizes"),
    "negative": (lambda: Adder((-1,)), r"the shape is \(-1,\); give a tuple of sizes"),
    "broadcast": (lambda: refused([1, 2, 3]), r"total: init has the shape \(3,\), which does not"),
    "complex": (lambda: refused(1j), "total: init: has the dtype complex128"),
    "words": (lambda: refused("ab"), "total: init: has the dtype <U2"),
    "config": (lambda: Adder((2,)).run(RunSteps(1), "fixed_pt"), "run_cfg, found 'fixed_pt'; pass"),
    "a class": (
        lambda: Adder((2,)).run(RunSteps(1), Loihi2SimCfg),
        "needs a run_cfg, found <class",
    ),
    "half a step": (lambda: RunSteps(1.5), "1.5 is no integer; give one integer"),
    "no config": (lambda: Adder((2,)).run(RunSteps(1)), "the first run needs a run_cfg"),
    "no select": (lambda: Adder((2,)).run(RunSteps(1), RunConfig()), "has no select"),
    "no model": (
        lambda: Adder((2,)).run(
            RunSteps(1), type("C", (RunConfig,), {"select": lambda self, process, models: None})()
        ),
        "select gave None",
    ),
    "no steps": (lambda: RunSteps(0), "0 steps can't be run"),
    "no condition": (lambda: Adder((2,)).run(3, FIXED), r"expected RunSteps\(...\), found 3"),
    "domains": (lambda: RunConfig(custom_sync_domains=[1]), "custom_sync_domains"),
    "untyped": (lambda: Untyped().run(RunSteps(1), FIXED), "extra: is in the process alone"),
    "unvaried": (lambda: Untyped(False).run(RunSteps(1), FIXED), "other: is in the model alone"),
    "learning": (lambda: Learning().run(RunSteps(1), FIXED), "run_lrn: is not run here"),
    "no data": (lambda: io.source.RingBuffer(data=np.zeros((2, 0))), "has no step"),
    "list": (lambda: io.source.RingBuffer(data=[1, 2]), "data is a list; give an array"),
    "buffer": (lambda: io.sink.RingBuffer(shape=(2,), buffer="2"), "buffer: '2' is no integer"),
    "stride": (lambda: Conv(weight=SHAPE, input_shape=(4, 4, 1), stride=1.5), "1.5 is no integer"),
    "padding": (lambda: Conv(weight=SHAPE, padding="same"), "'same' is no integer"),
    "weights": (lambda: Conv(weight=SHAPE.tolist()), "weight is a list; give an array"),
    "no channels": (lambda: Conv(weight=SHAPE[:0]), r"weight has the shape \(0, 2, 2, 1\)"),
    "no sizes": (lambda: Conv(weight=SHAPE, input_shape=4), "is 4; give three sizes"),
    "no buffer": (lambda: io.sink.RingBuffer(shape=(2,), buffer=0), "keeps nothing"),
    "input": (lambda: Conv(weight=SHAPE, input_shape=(4, 4)), r"is \(4, 4\); give three sizes"),
    "groups": (lambda: Conv(weight=SHAPE, input_shape=(4, 4, 1), groups=[1]), "give one integer"),
    "divide": (
        lambda: Conv(weight=SHAPE, input_shape=(4, 4, 3), groups=3),
        "3 groups do not divide 3 input and 2 output channels",
    ),
    "channels": (lambda: Conv(weight=SHAPE, input_shape=(4, 4, 2)), "takes 1 channels"),
    "weight": (lambda: Conv(weight=SHAPE[0], input_shape=(4, 4, 2)), "weight has the shape"),
    "small": (lambda: Conv(weight=SHAPE, input_shape=(1, 4, 1)), "the output has 0 places in x"),
}


@pytest.mark.parametrize(("attempt", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_line(attempt, words):
    with pytest.raises(BridgeError, match=words) as caught:
        attempt()
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def test_ports_are_connected_once_and_before_the_first_run():
    _, adder, sink = wired(2, 3)
    with pytest.raises(BridgeError, match=r"is connected to .*a_in already; once"):
        sink.a_in.connect_from(adder.s_out)
    sink.run(RunSteps(1), FIXED)
    with pytest.raises(BridgeError, match="its process has run already; connect all, then run"):
        adder.s_out.connect(Adder(shape=(2, 3)).a_in)


def test_a_process_that_is_set_up_in_the_wrong_order_says_so():
    class Wrong(AbstractProcess):
        def __init__(self):
            self.a_in = InPort(shape=(1,))

    with pytest.raises(BridgeError, match=r"call super\(\).__init__\(\) first"):
        Wrong()
    loose = OutPort(shape=(2,))
    adder = Adder(shape=(2,))
    loose.connect(adder.a_in)
    with pytest.raises(BridgeError, match="is connected to a port of no process"):
        adder.run(RunSteps(1), FIXED)


def test_a_model_that_sends_another_shape_says_so():
    class Sender(AbstractProcess):
        def __init__(self):
            super().__init__()
            self.s_out = OutPort(shape=(2,))

    @implements(proc=Sender)
    class PySender(PyLoihiProcessModel):
        s_out = LavaPyType(PyOutPort.VEC_DENSE, float)

        def run_spk(self):
            self.s_out.send(np.zeros(3))

    with pytest.raises(BridgeError, match=r"s_out: sends \(3,\), but the port has \(2,\)"):
        Sender().run(RunSteps(1), FIXED)
