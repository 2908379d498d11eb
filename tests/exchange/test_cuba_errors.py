"""What a CubaLIFNode can't be is one BridgeError of one line that names what was found."""

import math

import numpy
import pytest
import torch
from spikingjelly.activation_based import neuron, surrogate

from lava_bridge import BridgeError
from lava_bridge.exchange import BatchNorm2d

from .strategies import CubaLIFNode

REFUSED = {
    "soft reset": ({"v_reset": None}, "v_reset", "None"),
    "reset elsewhere": ({"v_reset": 1.0}, "v_reset", "1.0"),
    "reset to NaN": ({"v_reset": math.nan}, "v_reset", "nan"),
    "current decay above 1": ({"current_decay": 1.5}, "current_decay", "1.5"),
    "current decay below 0": ({"current_decay": -0.25}, "current_decay", "-0.25"),
    "voltage decay above 1": ({"voltage_decay": 1.0625}, "voltage_decay", "1.0625"),
    "voltage decay NaN": ({"voltage_decay": math.nan}, "voltage_decay", "nan"),
    "one channel's decay above 1": (
        {"current_decay": torch.tensor([0.1, 2.0, 0.3]).reshape(3, 1, 1)},
        "current_decay",
        "2",
    ),
    "one channel's decay NaN": (
        {"voltage_decay": torch.tensor([[0.5], [math.nan]])},
        "voltage_decay",
        "nan",
    ),
    "threshold 0": ({"v_threshold": 0.0}, "v_threshold", "0.0"),
    "negative threshold": ({"v_threshold": -1.0}, "v_threshold", "-1.0"),
    "threshold NaN": ({"v_threshold": math.nan}, "v_threshold", "nan"),
    "infinite threshold": ({"v_threshold": math.inf}, "v_threshold", "inf"),
    "torch's norm": ({"norm": torch.nn.BatchNorm2d(3)}, "norm", "BatchNorm2d"),
    "unknown backend": ({"backend": "tpu"}, "backend", "'tpu'"),
    "scale 0": ({"scale": 0}, "scale", "0"),
    "negative scale": ({"scale": -64}, "scale", "-64"),
    "a scale between two": ({"scale": 64.5}, "scale", "64.5"),
    "a scale that is NaN": ({"scale": math.nan}, "scale", "nan"),
    "a scale in words": ({"scale": "64"}, "scale", "'64'"),
    "no threshold": ({"v_threshold": None}, "v_threshold", "None"),
    "a threshold in words": ({"v_threshold": "1"}, "v_threshold", "'1'"),
    "no decay": ({"current_decay": None}, "current_decay", "None"),
    "a decay in words": ({"voltage_decay": "0.5"}, "voltage_decay", "'0.5'"),
    "a complex decay": ({"voltage_decay": 0.5j}, "voltage_decay", "0.5j"),
}


def raised(call):
    with pytest.raises(BridgeError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("CubaLIFNode: ")
    return message


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_the_chip_has_not_are_refused(name):
    changes, argument, found = REFUSED[name]
    arguments = {"current_decay": 0.3, "voltage_decay": 0.1, **changes}
    message = raised(lambda: CubaLIFNode(**arguments))
    assert argument in message
    assert message.partition("found ")[2].partition(";")[0] == found or (
        argument == "norm" and message.endswith("found BatchNorm2d")
    )


def test_spikingjellys_own_norm_is_refused(sj):
    message = raised(lambda: CubaLIFNode(0.3, 0.1, norm=sj.BatchNorm2d(3)))
    assert "lava_bridge.exchange.BatchNorm2d" in message
    CubaLIFNode(0.3, 0.1, norm=BatchNorm2d(3))


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_an_input_that_is_not_floating_is_refused(dtype, step_mode):
    node = CubaLIFNode(0.3, 0.1, step_mode=step_mode)
    message = raised(lambda: node(torch.ones(2, 1, 3).to(dtype)))
    assert str(dtype).removeprefix("torch.") in message
    assert "float()" in message
    assert node.voltage_state == 0.0


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_a_surrogate_that_does_not_spike_is_refused(step_mode):
    node = CubaLIFNode(0.3, 0.1, surrogate_function=surrogate.ATan(), step_mode=step_mode)
    node(torch.ones(2, 1, 3))
    node.surrogate_function.set_spiking_mode(False)
    message = raised(lambda: node(torch.ones(2, 1, 3)))
    assert "set_spiking_mode(True)" in message
    node.surrogate_function.set_spiking_mode(True)
    node(torch.ones(2, 1, 3))


class LearnedWidth(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.width = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        smooth = torch.sigmoid(self.width * x)
        return (x >= 0).to(x) + smooth - smooth.detach()


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_a_surrogate_that_learns_is_refused_and_taken_when_it_is_frozen(sj, step_mode):
    x = torch.full((2, 1, 3), 0.9, requires_grad=True)
    theirs = sj.CubaLIFNode(0.3, 0.1, surrogate_function=LearnedWidth(), step_mode=step_mode)
    theirs(x).sum().backward()
    assert theirs.surrogate_function.width.grad != 0, "SpikingJelly's learns"
    node = CubaLIFNode(0.3, 0.1, surrogate_function=LearnedWidth(), step_mode=step_mode)
    assert "requires_grad_(False)" in raised(lambda: node(x))
    node.surrogate_function.requires_grad_(False)
    expected, x.grad = x.grad, None
    node(x).sum().backward()
    torch.testing.assert_close(x.grad, expected)


def test_a_sequence_without_steps_is_refused():
    node = CubaLIFNode(0.3, 0.1, step_mode="m")
    assert "(0, 2, 3)" in raised(lambda: node(torch.ones(0, 2, 3)))


def test_a_sequence_without_a_batch_is_refused():
    node = CubaLIFNode(0.3, 0.1, step_mode="m")
    with pytest.raises(BridgeError, match="unsqueeze") as error:
        node(torch.ones(4))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("x", [[torch.ones(2, 3)], None, "spikes", 1.0])
def test_what_is_no_tensor_is_refused(x, step_mode):
    node = CubaLIFNode(0.3, 0.1, step_mode=step_mode)
    assert "expected a tensor" in raised(lambda: node(x))


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("shape", [(2,), (4, 1, 1), (3, 1), (2, 3, 3)])
def test_decays_that_do_not_broadcast_are_refused(shape, step_mode):
    node = CubaLIFNode(torch.full(shape, 0.5), 0.1, step_mode=step_mode)
    x = torch.ones(5, 2, 3) if step_mode == "m" else torch.ones(2, 3)
    message = raised(lambda: node(x))
    assert f"current_decay of shape {shape}" in message
    assert "(2, 3)" in message
    assert node.voltage_state == 0.0
    for fits in ((3,), (1,), (2, 1), (2, 3)):
        CubaLIFNode(0.5, torch.full(fits, 0.5), step_mode=step_mode)(x)


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("v_reset", 0.5), ("v_reset", None), ("v_threshold", None), ("v_threshold", -1.0)],
)
def test_a_reset_or_threshold_that_is_set_later_is_checked_too(name, value, step_mode):
    node = CubaLIFNode(0.3, 0.1, step_mode=step_mode)
    setattr(node, name, value)
    assert f"{name} must be" in raised(lambda: node(torch.ones(2, 1, 3)))
    assert node.voltage_state == 0.0


def test_whole_scales_and_numbers_of_any_library_are_taken():
    node = CubaLIFNode(numpy.float64(0.25), [0.5], torch.tensor(0.5), scale=numpy.int64(64))
    assert (node.scale, node.s_scale, node.v_threshold) == (64, 4096, 0.5)
    assert CubaLIFNode(0.25, 0.5, scale=64.0).s_scale == 4096


def test_the_backend_can_be_set_to_no_other():
    node = CubaLIFNode(0.3, 0.1)
    assert "'triton'" in raised(lambda: setattr(node, "backend", "triton"))
    assert node.backend == "torch"


def test_defaults_are_spikingjellys(sj):
    mine, theirs = CubaLIFNode(0.25, 0.5), sj.CubaLIFNode(0.25, 0.5)
    same = (
        "v_threshold",
        "v_reset",
        "detach_reset",
        "step_mode",
        "scale",
        "s_scale",
        "p_scale",
        "requires_grad",
        "norm",
        "v_threshold_eps",
        "store_v_seq",
        "store_i_seq",
        "lava_cuba_neuron_params",
    )
    for name in same:
        assert getattr(mine, name) == getattr(theirs, name), name
    assert type(mine.surrogate_function) is type(theirs.surrogate_function)
    assert mine.surrogate_function.alpha == theirs.surrogate_function.alpha
    assert torch.equal(mine.current_decay, theirs.current_decay)
    assert torch.equal(mine.voltage_decay, theirs.voltage_decay)
    assert mine.lava_s_cale == mine.scale == neuron.IFNode().lava_s_cale
    assert CubaLIFNode(0.1, 0.1, scale=16).lava_s_cale == 16


def test_the_default_surrogate_is_each_nodes_own():
    first, second = CubaLIFNode(0.3, 0.1), CubaLIFNode(0.3, 0.1)
    first.surrogate_function.alpha = 9.0
    assert second.surrogate_function.alpha == 4.0


def test_its_repr_says_what_it_is():
    text = repr(CubaLIFNode(0.25, torch.full((3, 1, 1), 0.5), 0.7, step_mode="m"))
    for part in ("v_threshold=0.7", "current_decay=0.25", "voltage_decay=[3, 1, 1]", "scale=64"):
        assert part in text
