"""Files, integer runs, checks and conversions where nets and inputs are on a GPU."""

import copy
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import lava_bridge
from lava_bridge import cli, slayer
from lava_bridge.encoder import GradedInput
from lava_bridge.netx import Network
from lava_bridge.proc import Loihi2SimCfg, RunSteps, io
from lava_bridge.proc.conv import utils
from lava_bridge.proc.conv.process import Conv
from lava_bridge.slayer.io import Event, tensor_to_event
from tests.conftest import on_a_gpu
from tests.encoder.nets import direct
from tests.netx.random_nets import random_net, random_sigma_delta_net

pytestmark = on_a_gpu()

DEVICE = "cuda"

CUBA = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}


@pytest.fixture(autouse=True)
def rounding() -> Iterator[None]:
    """Of float32 torch keeps TF32's 11 bits wherever it may."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.backends.cuda.matmul.allow_tf32 = products


def there(net: Any) -> Any:
    """A copy of a net on the GPU."""
    return copy.deepcopy(net).to(DEVICE)


def spikes(*shape: int, seed: int = 0) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def messages(bits: int, *shape: int) -> Tensor:
    drawn = torch.randint(0, 1 << bits, shape, generator=torch.Generator().manual_seed(1))
    return drawn.float()


def written(blocks: Any, path: Path) -> Path:
    lava_bridge.export_hdf5(blocks, path)
    return path


def assert_same_run(found: Any, expected: Any) -> None:
    assert found.output.device.type == DEVICE
    assert torch.equal(found.output.cpu(), expected.output)
    for mine, other in zip(found.layers, expected.layers, strict=True):
        assert torch.equal(mine.spike.cpu(), other.spike), mine.name
        for name, trace in other.traces.items():
            assert torch.equal(mine.traces[name].cpu(), trace), (mine.name, name)


# Integer runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark", [False, True])
def test_integers_of_many_bits_are_exact_in_convolutions(tmp_path: Path, benchmark: bool) -> None:
    torch.manual_seed(0)
    block = slayer.block.cuba
    net = [
        block.Conv({**CUBA, "threshold": 500.0}, 2, 16, 3, padding=1, weight_scale=2),
        block.Pool({**CUBA, "threshold": 1.0}, 2),
        block.Conv({**CUBA, "threshold": 2.0}, 16, 16, (1, 5), padding=(0, 2), weight_scale=2),
        block.ConvT({**CUBA, "threshold": 2.0}, 16, 4, 3, weight_scale=2),
    ]
    shape: Any = (2, 8, 8)
    for part in net:
        shape = part.infer_shape(shape)
    options = {"input_message_bits": 12, "input_shape": (8, 8, 2)}
    path, x = written(net, tmp_path / "net.net"), messages(12, 2, 2, 8, 8, 10)
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = benchmark
    try:
        found = Network(path, **options).run(x.to(DEVICE), traces=True)
    finally:
        torch.backends.cudnn.benchmark = before
    assert_same_run(found, Network(path, **options).run(x, traces=True))


def test_integers_of_many_bits_are_exact_in_products(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = slayer.block.cuba.Dense({**CUBA, "threshold": 500.0}, 64, 64, weight_scale=2)
    net.infer_shape((64,))
    path, x = written([net], tmp_path / "net.net"), messages(12, 4, 64, 10)
    expected = Network(path, input_message_bits=12).run(x, traces=True)
    assert_same_run(Network(path, input_message_bits=12).run(x.to(DEVICE), traces=True), expected)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        found = Network(path, input_message_bits=12).run(x.to(DEVICE), traces=True)
    assert_same_run(found, expected)


MADE = [*(lambda seed=seed: random_net(seed) for seed in (1, 3, 4, 12))]
MADE += [*(lambda seed=seed: random_sigma_delta_net(seed) for seed in (0, 5))]


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_a_run_goes_on_on_another_device(
    make: Callable[[], Any], backend: str, tmp_path: Path
) -> None:
    made = make()
    path = written(made.blocks, tmp_path / "net.net")
    net, other = Network(path), Network(path)
    x = net.encoded(made.x)
    expected = net.run(x, traces=True)
    with lava_bridge.use_backend(backend):
        assert_same_run(other.run(x.to(DEVICE), traces=True), expected)
        parts = [
            other.run(part.to(device), resume=k > 0)
            for k, (part, device) in enumerate(
                zip(x.split(3, dim=-1), (DEVICE, "cpu", DEVICE, DEVICE), strict=True)
            )
        ]
    assert [part.device.type for part in parts] == [DEVICE, "cpu", DEVICE, DEVICE]
    assert torch.equal(torch.cat([part.cpu() for part in parts], -1), expected.output)


def test_a_recurrent_run_goes_on_on_another_device(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = slayer.block.cuba.Recurrent(CUBA, 8, 5, weight_scale=3)
    net.infer_shape((8,))
    path, x = written([net], tmp_path / "net.net"), spikes(3, 8, 12)
    expected, other = Network(path).run(x), Network(path)
    first, second = other.run(x[..., :5].to(DEVICE)), other.run(x[..., 5:], resume=True)
    assert torch.equal(torch.cat([first.cpu(), second], -1), expected)
    assert expected.any()


def test_weights_are_copied_to_the_gpu_once(tmp_path: Path) -> None:
    made = random_net(3)
    net = Network(written(made.blocks, tmp_path / "net.net"))
    net.run(made.x.to(DEVICE))
    layers: list[Any] = [part for part in net.layers if hasattr(part, "_synapses")]
    before = [dict(part._synapses[0]._copies._made) for part in layers]
    net.run(made.x.to(DEVICE), resume=True)
    for part, copies in zip(layers, before, strict=True):
        after = part._synapses[0]._copies._made
        assert all(after[key][1] is held[1] for key, held in copies.items())
        assert len(after) == len(copies)


# Encoders -----------------------------------------------------------------------------------------


def on_grid(net: Any) -> Any:
    """Weights of an encoder whose sums are the same in any order."""
    for parameter in net[0].synapse.parameters():
        parameter.data = torch.round(parameter * 64) / 64
    return net


def test_a_networks_encoder_takes_what_is_on_a_gpu(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Network(written(on_grid(direct()), tmp_path / "net.net"))
    x = torch.randint(-4096, 4096, (3, 1, 8, 8, 6)) / 4096
    found, expected = net.encoded(x.to(DEVICE)), net.encoded(x)
    encoder: Any = net.encoder
    assert found.device.type == DEVICE
    assert encoder.synapse.weight.device.type == "cpu"
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(net.run(found).cpu(), net.run(expected))


def test_graded_input_is_divided_as_on_a_cpu() -> None:
    x = torch.rand(4, 1000, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    graded = GradedInput(amplitude=0.3)
    assert torch.equal(there(graded)(x.to(DEVICE)).cpu(), graded(x))


# Checks -------------------------------------------------------------------------------------------


def trained() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3),
        layer.BatchNorm2d(4),
        neuron.LIFNode(v_threshold=0.3),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(36, 10, bias=False),
        neuron.IFNode(0.1),
    )
    functional.set_step_mode(net, "m")
    return net.eval()


def test_the_sides_of_a_check_may_be_on_different_devices(tmp_path: Path) -> None:
    blocks = lava_bridge.to_slayer(trained(), (1, 8, 8), calibrate="weights")
    path, x = written(blocks, tmp_path / "net.net"), spikes(12, 6, 1, 8, 8)
    twin = lava_bridge.to_spikingjelly(blocks)
    network = Network(path, aligned=True)
    nets = [blocks, twin, there(blocks), there(twin), path, network]
    for a, b in itertools.combinations(nets, 2):
        for given in (x, x.to(DEVICE)):
            report = lava_bridge.check_equivalence(a, b, given, batch_size=4)
            assert report.ok, str(report)
            assert all(found.fired_a for found in report.layers)
    assert lava_bridge.check_equivalence(there(twin), path, x.numpy(), integers=True).ok
    assert {p.device.type for p in [*blocks.parameters(), *twin.parameters()]} == {"cpu"}


def test_a_difference_between_devices_is_found_and_drawn(tmp_path: Path) -> None:
    blocks = lava_bridge.to_slayer(trained(), (1, 8, 8), calibrate="weights")
    other = there(blocks)
    other[-1].synapse.weight.data[0] = 0
    report = lava_bridge.check_equivalence(blocks, other, spikes(12, 3, 1, 8, 8))
    assert not report.ok
    assert report.layers[-1].first is not None
    report = lava_bridge.check_equivalence(other, other, spikes(12, 3, 1, 8, 8).to(DEVICE))
    assert report.plot() is not None
    report.save_html(tmp_path / "report.html")


def test_encoders_on_two_devices_are_compared(tmp_path: Path) -> None:
    torch.manual_seed(0)
    blocks = on_grid(direct())
    path = written(blocks, tmp_path / "net.net")
    x = torch.randint(-4096, 4096, (6, 3, 1, 8, 8)) / 4096
    for integers in (False, True):
        for given in (x, x.to(DEVICE)):
            report = lava_bridge.check_equivalence(there(blocks), path, given, integers=integers)
            assert report.ok, str(report)
            assert report.layers[0].fired_a


def test_a_check_draws_nothing_of_the_gpus_random_numbers() -> None:
    net = slayer.block.cuba.Dense({**CUBA, "shared_param": False}, 12, 5, delay=True).to(DEVICE)
    before, other = torch.cuda.get_rng_state(), torch.get_rng_state()
    lava_bridge.check_equivalence([net], [net], spikes(9, 2, 12).to(DEVICE))
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), other)


def test_the_command_line_takes_a_net_that_is_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module: Any = ModuleType("gpunet")
    module.build = lambda: there(trained())
    monkeypatch.setitem(sys.modules, "gpunet", module)
    torch.save(trained().state_dict(), "w.pt")
    np.save("x.npy", spikes(10, 4, 1, 8, 8).numpy())
    net = ["gpunet:build", "--weights", "w.pt"]
    for command in (
        ["convert", *net, "--input-shape", "1,8,8", "--calibrate", "x.npy", "-o", "net.net"],
        ["verify", *net, "net.net", "--input", "x.npy"],
    ):
        done = CliRunner().invoke(cli.main, command)
        # A float net drifts, as on the CPU: that is status 1, an error 2.
        assert done.exit_code in (0, 1), done.output
        assert "Error" not in done.output


# Conversion ---------------------------------------------------------------------------------------


def convertible() -> dict[str, tuple[list[nn.Module], tuple[int, ...]]]:
    return {
        "last convolution": ([nn.Conv2d(2, 3, 3, bias=True)], (2, 4, 4)),
        "vote of sums": ([nn.Flatten(), nn.Linear(32, 12), layer.VotingLayer(3)], (2, 4, 4)),
        "padded pooling": (
            [nn.AvgPool2d(2, padding=1), nn.Conv2d(2, 3, 2), neuron.IFNode(0.3)],
            (2, 4, 4),
        ),
        "affine pooling": (
            [nn.AvgPool2d(2), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 2), neuron.IFNode(0.3)],
            (2, 4, 4),
        ),
        "transposed": (
            [nn.ConvTranspose2d(2, 3, 3), nn.AvgPool2d(2), neuron.IFNode(0.2)],
            (2, 4, 4),
        ),
        "encoded by a pooling": (
            [nn.AvgPool2d(2), neuron.IFNode(0.3), nn.Flatten(), nn.Linear(8, 3), neuron.IFNode()],
            (2, 4, 4),
        ),
    }


@pytest.mark.parametrize("name", convertible())
@pytest.mark.parametrize("calibrate", [None, "weights", "data"])
def test_a_net_on_a_gpu_is_converted_as_on_a_cpu(
    name: str, calibrate: str | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layers, shape = convertible()[name]
    if not isinstance(layers[-1], neuron.BaseNode):
        layers = [nn.Conv2d(2, 2, 1), neuron.IFNode(0.3), *layers]
    net = nn.Sequential(*layers).eval()
    x = spikes(8, 4, *shape)
    encoding = "direct" if name.startswith("encoded") else None
    made = []
    for place in ("cpu", DEVICE):
        given = x if calibrate == "data" else calibrate
        blocks = lava_bridge.to_slayer(
            copy.deepcopy(net).to(place), shape, calibrate=given, encoding=encoding
        )
        tensors = [*blocks.parameters(), *blocks.buffers()]
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
        made.append(written(blocks, tmp_path / f"{place}.net"))
    # A factor may differ in its last digits; what data measure, with TF32, in more of them.
    report = lava_bridge.check_equivalence(*made, x)
    if calibrate == "data":
        assert report.layers
    else:
        assert report.drift < 0.02


# Arrays -------------------------------------------------------------------------------------------


def test_processes_and_events_take_tensors_of_a_gpu() -> None:
    x, weight = messages(3, 6, 6, 2), messages(3, 4, 3, 3, 2)
    window: Any = ((3, 3), 1, 1, 1, 1)
    expected = utils.conv(x.numpy(), weight.numpy(), *window)
    given: Any = (x.to(DEVICE), weight.to(DEVICE))
    found = utils.conv(*given, *window)
    assert np.array_equal(found, expected)
    recorded = []
    for place in ("cpu", DEVICE):
        source = io.source.RingBuffer(data=messages(2, 6, 6, 2, 4).to(place))
        conv = Conv(weight=weight.to(place), input_shape=(6, 6, 2))
        sink = io.sink.RingBuffer(shape=conv.output_shape, buffer=4)
        source.s_out.connect(conv.s_in)
        conv.a_out.connect(sink.a_in)
        sink.run(condition=RunSteps(num_steps=4), run_cfg=Loihi2SimCfg())
        recorded.append(sink.data.get())
        sink.stop()
    assert np.array_equal(*recorded)
    event = tensor_to_event(spikes(2, 3, 4, 5).to(DEVICE))
    same = Event(*(torch.as_tensor(a).to(DEVICE) for a in (event.x, event.y, event.c, event.t)))
    assert np.array_equal(same.x, event.x)
