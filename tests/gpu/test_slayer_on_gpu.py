"""slayer's modules on a GPU: in CUDA graphs, in saved programs, and left behind on the CPU."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lava_bridge import BridgeError, slayer
from lava_bridge.exchange import CubaLIFNode
from tests.conftest import on_a_gpu, traced_since

pytestmark = on_a_gpu()

DEVICE = "cuda"

CUBA = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}
TURNING = {"threshold": 0.5, "period": 8, "decay": 0.1}
SIGMA_DELTA = {"threshold": 0.1, "activation": torch.relu}


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape) < 0.4).float()


def in_a_graph(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What ``run`` gives for ``x`` where it is captured with other numbers and replayed."""
    if DEVICE == "cpu":
        return run(x)
    static = torch.zeros_like(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run(static)  # what happens once: kernels are compiled, states take their shape
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run(static)
    static.copy_(x)
    graph.replay()
    return found.clone()


# --- CUDA graphs


@pytest.mark.parametrize("kind", ["KWTA", "Recurrent"])
def test_layers_with_feedback_run_in_a_cuda_graph(kind: str) -> None:
    made = {
        "KWTA": lambda: slayer.block.cuba.KWTA(CUBA, 8, 5, 2, weight_scale=4),
        "Recurrent": lambda: slayer.block.cuba.Recurrent(CUBA, 8, 5, weight_scale=4),
    }[kind]()
    net, x = copy.deepcopy(made).to(DEVICE), spikes(2, 8, 6)

    def run(x: Tensor) -> Tensor:
        net.neuron.forget()
        net.forget()
        return net(x)

    with torch.no_grad():
        expected = made(x)
        found = in_a_graph(run, x.to(DEVICE))
    assert expected.any()
    assert torch.equal(found.cpu(), expected)


def test_spikes_by_themselves_run_in_a_cuda_graph() -> None:
    voltage = torch.linspace(-2, 2, 30).reshape(1, 3, 10)

    def run(voltage: Tensor) -> Tensor:
        plain = slayer.spike.Spike.apply(voltage, 0.5, 1.0, 1.0, False, 0, 1)
        arguments = (0.5, 1.0, 1.0, False, 0.0, 1)
        return plain + slayer.spike.complex.Spike.apply(voltage, voltage, *arguments)

    expected = run(voltage)
    assert expected.any()
    assert torch.equal(in_a_graph(run, voltage.to(DEVICE)).cpu(), expected)


# --- Modules that stayed on the CPU


LEFT_BEHIND: dict[str, Callable[[], Any]] = {
    "cuba": lambda: slayer.neuron.cuba.Neuron(**CUBA, requires_grad=True),
    "rf": lambda: slayer.neuron.rf.Neuron(**TURNING),
    "sigma_delta": lambda: slayer.neuron.sigma_delta.Neuron(**SIGMA_DELTA),
    "delay": slayer.axon.Delay,
    "node": lambda: CubaLIFNode(0.3, 0.1, step_mode="m"),
}


@pytest.mark.skipif(DEVICE == "cpu", reason="the test of the CPU is in tests/slayer")
@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_a_module_that_stayed_on_the_cpu_says_where_to_move_it(name: str) -> None:
    module, x = LEFT_BEHIND[name](), spikes(2, 3, 8).to(DEVICE)
    given = (x, x) if name == "rf" else x
    with pytest.raises(BridgeError, match=r"on cpu, .* found cuda:0; move .*\.to\('cuda:0'\)"):
        module(given)
    assert module.to(x.device)(given).device == x.device
    with pytest.raises(BridgeError, match=r"on cuda:0, .* found cpu; move .*\.to\('cpu'\)"):
        module((x.cpu(), x.cpu()) if name == "rf" else x.cpu())


# --- Programs


def conv_net() -> torch.nn.Sequential:
    block = slayer.block.cuba
    net = torch.nn.Sequential(
        block.Conv(CUBA, 2, 4, 3, padding=1, weight_scale=3),
        block.Pool({**CUBA, "threshold": 0.5}, 2),
        block.Flatten(),
        block.Dense({**CUBA, "requires_grad": True}, 4 * 3 * 3, 5, weight_scale=3, delay=True),
    )
    net(spikes(1, 2, 6, 6, 3))
    return net.eval()


@traced_since("2.11")
@pytest.mark.parametrize("order", ["NXT", "TNX"])
def test_a_program_of_a_net_of_convolutions_is_saved_loaded_and_run(order: str) -> None:
    net = conv_net().to(DEVICE)
    x = spikes(2, 2, 6, 6, 12).to(DEVICE)
    if order == "TNX":
        x = x.movedim(-1, 0).contiguous().movedim(0, -1)
    program = torch.export.export(net, (x,))
    file = io.BytesIO()
    torch.export.save(program.run_decompositions(), file)
    file.seek(0)
    found, expected = torch.export.load(file).module()(x), net(x)
    assert expected.any()
    assert torch.equal(found, expected)


# Whoever sees this fail: such a convolution is why GenericLayer._convolve copies its result where
# it is exported on a GPU. If none fails on any torch that is supported, the copy can go.
@pytest.mark.parametrize("order", ["plain", "channels last"])
@pytest.mark.parametrize("kind", ["convolution", "pooling", "one channel", "transposed"])
def test_convolutions_are_traced_in_the_order_of_memory_that_runs(kind: str, order: str) -> None:
    shape, weight, options = {
        "convolution": ((24, 2, 6, 6), (4, 2, 3, 3), {"padding": 1}),
        "pooling": ((24, 4, 6, 6), (1, 1, 2, 2), {"stride": 2, "groups": 4}),
        "one channel": ((24, 1, 6, 6), (4, 1, 3, 3), {"padding": 1}),
        "transposed": ((24, 2, 6, 6), (2, 4, 2, 2), {"stride": 2}),
    }[kind]

    def run() -> Tensor:
        frames = torch.ones(shape, device=DEVICE)
        if order == "channels last":
            frames = frames.to(memory_format=torch.channels_last)
        kernel = torch.ones(weight, device=DEVICE)
        if kind == "pooling":
            kernel = kernel.expand(4, -1, -1, -1)
        convolve: Any = F.conv_transpose2d if kind == "transposed" else F.conv2d
        return convolve(frames, kernel, None, **options)

    with torch.no_grad():
        runs = run()
        with FakeTensorMode():
            traced = run()
    assert traced.shape == runs.shape
    assert traced.stride() == runs.stride(), f"torch {torch.__version__}: {kind}, {order}"
