"""torch.compile, torch.export and autocast on SpikingJelly's nets with this library's neuron."""

import copy

import pytest
import torch
from spikingjelly.activation_based import functional, layer, surrogate

from lava_bridge.exchange import AsSlayer, BatchNorm2d, CubaLIFNode
from tests.compiled import gradients, saved_and_loaded
from tests.conftest import traced_since

pytestmark = traced_since("2.8")


@pytest.fixture(autouse=True)
def _compile_anew():
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"surrogate_function": surrogate.ATan(), "detach_reset": True},
        {"requires_grad": True},
        {"norm": True},
        {"store_v_seq": True, "store_i_seq": True},
    ],
    ids=str,
)
def test_a_net_of_spikingjellys_compiles_whole(node):
    node = {**node, "norm": BatchNorm2d(5)} if "norm" in node else node
    net = torch.nn.Sequential(
        layer.Conv2d(3, 5, 3, padding=1, step_mode="m"),
        CubaLIFNode(0.3, 0.1, v_threshold=0.25, step_mode="m", **node),
    )
    net.eval()  # a norm's statistics do not move between the runs

    def fresh(run):
        def from_rest(x):
            functional.reset_net(net)
            return run(x)

        return from_rest

    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    x = torch.rand(6, 2, 3, 4, 4)
    parameters = [p for p in net.parameters() if p.requires_grad]
    assert 0.01 < fresh(net)(x).mean() < 0.99
    assert torch.equal(fresh(compiled)(x), fresh(net)(x))
    for mine, reference in zip(
        gradients(fresh(compiled), x, parameters),
        gradients(fresh(net), x, parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)


@traced_since("2.13")
def test_a_program_of_a_node_that_learns_is_saved_loaded_and_run():
    node = CubaLIFNode(0.3, 0.1, v_threshold=0.25, requires_grad=True, step_mode="m")
    x = torch.rand(6, 2, 4)
    node.voltage_decay.data.fill_(-100)
    program = torch.export.export(copy.deepcopy(node), (x,)).run_decompositions()
    found, expected = saved_and_loaded(program)(x), node(x)
    assert expected.any()
    assert node.voltage_decay == 0
    assert torch.equal(found, expected)


def test_a_net_of_spikingjellys_is_exported():
    net = torch.nn.Sequential(
        layer.Linear(4, 5, step_mode="m"), CubaLIFNode(0.3, 0.1, v_threshold=0.25, step_mode="m")
    ).eval()
    program = torch.export.export(net, (torch.rand(6, 2, 4),))
    functional.reset_net(net)
    x = torch.rand(6, 2, 4)
    found, expected = program.module()(x), net(x)
    assert expected.any()
    assert torch.equal(found, expected)


def test_under_autocast_spikingjellys_node_gives_spikes_of_its_input():
    node = CubaLIFNode(0.3, 0.1, step_mode="m", requires_grad=True)
    x = torch.rand(6, 2, 3).to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spikes = node(x)
    assert spikes.dtype == torch.bfloat16
    assert node.v.dtype == torch.float32
    spikes.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert node.current_decay.grad.dtype == torch.float32


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("smooth", [surrogate.Sigmoid, surrogate.Erf])
def test_a_compiled_node_goes_on_from_its_state(smooth, dynamic):
    one = CubaLIFNode(0.3, 0.1, 0.8, requires_grad=True, surrogate_function=smooth(), step_mode="m")
    other = copy.deepcopy(one)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for steps in (6, 6, 7):  # without a reset between them
        x = torch.rand(steps, 2, 3)
        found, expected = compiled(x), one(x)
        assert expected.any()
        assert torch.equal(found, expected)
        assert torch.equal(other.v, one.v)
        found.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(other.current_decay.grad, one.current_decay.grad)
        functional.detach_net(other)
        functional.detach_net(one)


def test_a_spikingjelly_net_in_slayers_goes_on_from_its_state_when_compiled():
    node = CubaLIFNode(0.3, 0.1, v_threshold=0.2, step_mode="m")
    one = AsSlayer([layer.Linear(3, 4, step_mode="m"), node], persistent_state=True)
    one.module[0].weight.data.abs_()  # so that it spikes
    other = copy.deepcopy(one)
    compiled = torch.compile(other, backend="aot_eager")
    for _ in range(2):
        x = torch.rand(2, 3, 6)
        found, expected = compiled(x), one(x)
        assert expected.any()
        assert torch.equal(found, expected)
        found.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(other.module[0].weight.grad, one.module[0].weight.grad)
