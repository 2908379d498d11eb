"""Nets on a GPU, as their users have them there, against plain torch on the CPU."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

import lava_bridge
from lava_bridge import slayer
from lava_bridge.exchange import AsSpikingJelly, CubaLIFNode
from tests.conftest import on_a_gpu, traced_since

pytestmark = on_a_gpu()

DEVICE = "cuda"

CUBA = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}
_ADAPTIVE = {"threshold_step": 0.1, "threshold_decay": 0.1, "refractory_decay": 0.2}
_TURNING = {"threshold": 0.5, "period": 8, "decay": 0.1}
FAMILIES: dict[str, dict[str, Any]] = {
    "cuba": CUBA,
    "alif": {**CUBA, **_ADAPTIVE},
    "rf": _TURNING,
    "rf_iz": _TURNING,
    "adrf": {**_TURNING, **_ADAPTIVE},
    "adrf_iz": {**_TURNING, **_ADAPTIVE},
    "sigma_delta": {"threshold": 0.1, "activation": torch.relu},
}


@pytest.fixture(autouse=True)
def _exact_convolutions():
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def spikes(*shape: int, seed: int = 0) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def in_time(x: Tensor) -> Tensor:
    return x.movedim(-1, 0).contiguous().movedim(0, -1)


def dense_net(family: str, **more: Any) -> nn.Module:
    block, params = getattr(slayer.block, family), {**FAMILIES[family], **more}
    net = nn.Sequential(
        block.Dense(params, 12, 16, weight_scale=4),
        block.Dense(params, 16, 5, weight_scale=4, delay=True, delay_shift=True),
    )
    with torch.no_grad():
        net(spikes(1, 12, 3))
        net[1].delay.delay.mul_(3)
    return net


def conv_net() -> nn.Module:
    block = slayer.block.cuba
    net = nn.Sequential(
        block.Conv(CUBA, 2, 4, 3, padding=1, weight_scale=3),
        block.Pool({**CUBA, "threshold": 0.5}, 2),
        block.Flatten(),
        block.Dense(CUBA, 36, 5, weight_scale=3),
    )
    with torch.no_grad():
        net(spikes(1, 2, 6, 6, 3))
    return net


def moved(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).to(DEVICE)


def run(net: Callable[[Tensor], Tensor], x: Tensor, of: nn.Module) -> dict[str, Tensor]:
    """The outputs, and the gradients of the input and of what is learned."""
    x = x.detach().requires_grad_()
    of.zero_grad(set_to_none=True)
    y = net(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    (y * weights).sum().backward()
    grads = {name: p.grad for name, p in of.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {"output": y.detach(), "input": x.grad, **grads}


def assert_same(mine: dict[str, Tensor], reference: dict[str, Tensor]) -> None:
    """Outputs to the bit, gradients to some digits beside the largest."""
    assert mine.keys() == reference.keys()
    assert reference["output"].any()
    assert torch.equal(mine.pop("output").cpu(), reference.pop("output").cpu())
    for name, expected in reference.items():
        largest = float(expected.abs().max())
        torch.testing.assert_close(
            mine[name].cpu(), expected.cpu(), rtol=1e-4, atol=1e-4 * largest, msg=name
        )


def check(net: nn.Module, on_gpu: nn.Module, x: Tensor) -> None:
    with lava_bridge.use_backend("torch"):
        reference = run(net, x, net)
    assert_same(run(on_gpu, x.to(DEVICE), on_gpu), reference)
    assert_same(
        run(on_gpu, in_time(x.to(DEVICE)), on_gpu), {**reference, "output": net(x).detach()}
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_nets_of_blocks(family):
    net = dense_net(family)
    for steps in (17, 32):
        check(net, moved(net), spikes(3, 12, steps, seed=steps))


def test_convolutions_and_pools():
    net = conv_net()
    check(net, moved(net), spikes(3, 2, 6, 6, 17))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_persistent_state_moves_with_the_net(family):
    net, x = dense_net(family, persistent_state=True), spikes(2, 12, 30)
    for part in net.modules():
        getattr(part, "forget", lambda: None)()
    on_gpu, found = moved(net), []
    with torch.no_grad(), lava_bridge.use_backend("torch"):
        expected = [net(part) for part in x.split(10, dim=-1)]
    with torch.no_grad():
        for place, part in zip((DEVICE, "cpu", DEVICE), x.split(10, dim=-1), strict=True):
            found.append(on_gpu.to(place)(part.to(place)).cpu())
    assert torch.equal(torch.cat(found, -1), torch.cat(expected, -1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(dtype):
    for net, x in ((dense_net("rf"), spikes(3, 12, 9)), (conv_net(), spikes(3, 2, 6, 6, 9))):
        on_gpu = moved(net)
        with torch.autocast(DEVICE, dtype=dtype):
            y = on_gpu(x.to(DEVICE))
        assert y.dtype == dtype
        assert torch.equal(y.unique().cpu(), torch.tensor([0, 1], dtype=dtype))
        y.sum().backward()
        assert all(p.grad.dtype == torch.float32 for p in on_gpu.parameters() if p.requires_grad)


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("decay", [0.3, torch.linspace(0.1, 0.9, 8)])
def test_exchange_nodes(step_mode, decay):
    x = torch.rand(17, 3, 8)
    node = CubaLIFNode(decay, 0.1, v_threshold=0.8, requires_grad=True, step_mode=step_mode)
    on_gpu = moved(node)

    def over_time(node: nn.Module) -> Callable[[Tensor], Tensor]:
        functional.reset_net(node)
        return node if step_mode == "m" else lambda x: torch.stack([node(step) for step in x])

    with lava_bridge.use_backend("torch"):
        reference = run(over_time(node), x, node)
    assert_same(run(over_time(on_gpu), x.to(DEVICE), on_gpu), reference)


def mixed_net() -> nn.Module:
    net = nn.Sequential(
        layer.Linear(12, 16),
        CubaLIFNode(0.3, 0.1, v_threshold=0.25),
        AsSpikingJelly([slayer.block.cuba.Dense(CUBA, 16, 5, weight_scale=4)]),
    )
    functional.set_step_mode(net, "m")
    return net


def test_a_mixed_net_learns_as_on_the_cpu():
    made = mixed_net()
    with torch.no_grad():
        made(spikes(3, 1, 12))
    functional.reset_net(made)
    losses: list[list[float]] = []
    for net, device in ((moved(made), DEVICE), (made, "cpu")):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
        losses.append([])
        for seed in range(4):
            functional.reset_net(net)
            loss = (net(spikes(15, 8, 12, seed=seed).to(device)).mean(0) - 0.4).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    # A sum in another order may move a voltage over its threshold.
    torch.testing.assert_close(*losses, rtol=0.02, atol=0)


# As torch runs nets -----------------------------------------------------------------------------


@traced_since("2.6")
def test_torch_compile():
    torch._dynamo.reset()
    net, x = moved(conv_net()), spikes(2, 2, 6, 6, 12).to(DEVICE)
    assert_same(run(torch.compile(net, fullgraph=True), x, net), run(net, x, net))


@traced_since("2.6")
def test_torch_export():
    net, x = moved(conv_net()).eval(), spikes(2, 2, 6, 6, 12).to(DEVICE)
    program = torch.export.export(net, (x,))
    assert "lava_bridge.cuba.default" in {str(node.target) for node in program.graph.nodes}
    assert torch.equal(program.module()(x), net(x))


def test_graphed_callables():
    net = moved(conv_net())
    eager = copy.deepcopy(net)
    sample = torch.rand(2, 2, 6, 6, 16, device=DEVICE, requires_grad=True)
    graphed = torch.cuda.make_graphed_callables(net, (sample,))
    for seed in range(3):
        x = spikes(2, 2, 6, 6, 16, seed=seed).to(DEVICE)
        assert_same(run(graphed, x, net), run(eager, x, eager))


def test_a_training_step_in_a_cuda_graph():
    net, label = moved(conv_net()), torch.tensor([0, 1, 2, 3], device=DEVICE)
    twin, error = copy.deepcopy(net), slayer.loss.SpikeRate(0.4, 0.05).to(DEVICE)
    inputs = [spikes(4, 2, 6, 6, 16, seed=seed).to(DEVICE) for seed in range(3)]
    start = {name: value.clone() for name, value in net.state_dict().items()}

    def step_of(net: nn.Module) -> Callable[[Tensor], Tensor]:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.02)

        def step(x: Tensor) -> Tensor:
            optimizer.zero_grad(set_to_none=False)
            loss = error(net(x), label)
            loss.backward()
            optimizer.step()
            return loss

        return step

    step, still, side = step_of(net), inputs[0].clone(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(still)  # loads the modules
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(still)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            value.copy_(start[name])
    eager = step_of(twin)
    for x in inputs:
        still.copy_(x)
        graph.replay()
        torch.testing.assert_close(loss, eager(x), rtol=1e-3, atol=0)


def test_streams_and_threads():
    net = dense_net("cuba")
    inputs = [spikes(64, 12, 64, seed=seed) for seed in range(2)]
    with torch.no_grad():
        expected = [net(x) for x in inputs]
    on_gpu, given = moved(net), [x.to(DEVICE) for x in inputs]
    found: dict[tuple[int, int], Tensor] = {}
    torch.cuda.synchronize()

    def work(k: int) -> None:
        # A thread that has not used the GPU before.
        with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
            for turn in range(10):
                found[k, turn] = on_gpu(given[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.cuda.synchronize()
    assert len(found) == 20
    assert all(torch.equal(y.cpu(), expected[k]) for (k, _), y in found.items())


@pytest.mark.parametrize("time_first", [False, True])
def test_more_than_2_31_numbers(time_first):
    steps, neurons = 1024, 2_200_000
    free, _ = torch.cuda.mem_get_info()
    if free < 14e9:
        pytest.skip(f"of the GPU's memory only {free / 1e9:.0f} GB are free")
    edge = (1 << 31) // steps
    places = [range(100), range(edge - 50, edge + 50), range(neurons - 100, neurons)]
    chosen = torch.tensor([place for some in places for place in some], device=DEVICE)
    shape = (steps, neurons) if time_first else (neurons, steps)
    x = torch.empty(shape, dtype=torch.float16, device=DEVICE)
    for part in x.flatten().split(1 << 28):  # torch draws no more at once
        part.uniform_(0, 1)
    x = (x.T if time_first else x)[None]
    neuron = slayer.neuron.cuba.Neuron(**CUBA)
    with torch.no_grad():
        y = moved(neuron)(x)[:, chosen].cpu()
        assert torch.equal(y, neuron(x[:, chosen].cpu()))
        delayed = slayer.axon.delay(x, 3)[0, chosen]
    assert torch.equal(delayed[:, 3:], x[0, chosen, :-3])
    assert not delayed[:, :3].any()
    assert y.any()
