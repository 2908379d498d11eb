"""Outputs that go past the CPU's caches, where they are too large for them, are the same there."""

import ctypes
from pathlib import Path

import pytest
import torch
from compared import both
from gpu_cases import OPERATORS, outcome
from kernel_cases import INSTRUCTION_SETS, laid_out, numbers

from lava_bridge.kernels import native
from lava_bridge.kernels.call import Call
from lava_bridge.slayer import neuron

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

NEVER, ALWAYS = 1, 2
LAST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")

# [N, *, T]: rows of whole registers of each size, of chunks and a bit, of no whole registers.
SHAPES = [(1, 128, 1), (2, 64, 33), (2, 68, 70), (2, 536, 5), (1, 1040, 3), (3, 5, 9), (1, 523, 4)]

# With time last: rows of whole lines of memory, with a bit, of less than one, of many blocks.
TIME_LAST = [
    (2, 37, 32),
    (1, 100, 16),
    (2, 41, 96),
    (2, 67, 33),
    (3, 29, 100),
    (1, 150, 7),
    (2, 70, 1),
    (1, 1, 40),
]


@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPERATORS)
def test_results_are_the_same_past_the_caches(name, dtype, instructions, monkeypatch):
    if instructions > len(native._native.instruction_sets()):
        pytest.skip("this CPU has not these instructions")
    monkeypatch.setattr(native, "instructions", instructions)
    # Time first, or between the samples and their neurons.
    rows = [(shape, order) for shape in SHAPES for order in ((2, 0, 1), (0, 2, 1))]
    for seed, (shape, order) in enumerate([*rows, *((shape, (0, 1, 2)) for shape in TIME_LAST)]):
        x = laid_out(numbers(shape, seed, 3.0, dtype), order)
        for learns in (False, True):
            found = []
            # Neurons are 64 at a time, fewer, as few as can be; then too many steps to be gathered.
            for past, own_cache in (
                (NEVER, 0),
                (ALWAYS, 1 << 20),
                (ALWAYS, 1 << 16),
                (ALWAYS, 1 << 10),
            ):
                monkeypatch.setattr(native, "past_caches", past)
                monkeypatch.setattr(native, "own_cache", own_cache)
                found.append(outcome(name, "native", x, learns_parameters=learns))
                if order != (0, 1, 2) and past == ALWAYS:
                    break
            one, *others = found
            for other in others:
                for here, there in ((one.outputs, other.outputs), (one.gradients, other.gradients)):
                    assert [bits(y) for y in here] == [bits(y) for y in there]


def bits(y: torch.Tensor) -> bytes:
    return y.contiguous().numpy().tobytes()


@pytest.mark.parametrize("moved", [{0}, {1, 2, 3}])
@pytest.mark.parametrize(("shape", "order"), [((2, 536, 5), (2, 0, 1)), ((2, 75, 48), (0, 1, 2))])
@pytest.mark.parametrize("name", OPERATORS)
def test_outputs_may_lie_anywhere(name, shape, order, moved, monkeypatch):
    launch = native.launch

    def shifted(kernel: str, call: Call, device: torch.device, real: torch.dtype) -> None:
        bytes_of_one = call.outer * call.steps * call.inner * real.itemsize
        told = Call.from_buffer_copy(call)
        places = {}
        for k, output in enumerate(call.output):
            if output and k in moved:
                places[k] = torch.zeros(bytes_of_one + real.itemsize, dtype=torch.uint8)
                told.output[k] = places[k].data_ptr() + real.itemsize
        launch(kernel, told, device, real)
        for k in places:
            ctypes.memmove(call.output[k], told.output[k], bytes_of_one)

    x = laid_out(numbers(shape, 1, 3.0, torch.float32), order)
    monkeypatch.setattr(native, "past_caches", NEVER)
    expected = outcome(name, "native", x)
    monkeypatch.setattr(native, "past_caches", ALWAYS)
    monkeypatch.setattr(native, "launch", shifted)
    found = outcome(name, "native", x)
    assert [bits(y) for y in found.outputs] == [bits(y) for y in expected.outputs]
    assert [bits(y) for y in found.gradients] == [bits(y) for y in expected.gradients]


@pytest.mark.parametrize(("steps", "order"), [(12, (2, 0, 1)), (12, (0, 1, 2)), (16, (0, 1, 2))])
def test_a_large_call_is_the_references(steps, order):
    if not large(1, 1, 800_000 * steps // 32):
        pytest.skip("the caches of this CPU hold it")
    x = laid_out(numbers((8, 100_000, steps), 1, 1.0, torch.float32), order).requires_grad_()
    net = neuron.cuba.Neuron(threshold=1.0, current_decay=0.1, voltage_decay=0.07)

    def run() -> list[torch.Tensor]:
        spikes = net(x)
        return [spikes, *torch.autograd.grad(spikes.sum(), x)]

    reference, mine = both(run)
    assert torch.equal(mine[0], reference[0])
    torch.testing.assert_close(mine[1], reference[1], rtol=1e-5, atol=1e-6)


def large(inputs: int, outputs: int, neurons: int, double: bool = False) -> bool:
    call = Call(outer=1, steps=32, inner=neurons)
    for k in range(inputs):
        call.input[k] = 64
    for k in range(outputs):
        call.output[k] = 64
    return native._native.is_large("cuba", ctypes.addressof(call), double)


def test_what_is_large_is_half_of_the_last_cache():
    if not LAST_CACHE.exists() or not large(1, 1, 2**50):
        pytest.skip("nothing says how large the last cache is")
    cache = int(LAST_CACHE.read_text().removesuffix("K\n")) * 1024
    most = min(cache, 128 * 2**20) // 2
    for inputs, outputs in ((1, 1), (1, 3), (2, 1)):
        for double, size in ((False, 4), (True, 8)):
            neurons = most // (32 * size * (inputs + outputs))
            assert not large(inputs, outputs, neurons, double)
            assert large(inputs, outputs, neurons + 1, double)
    assert not large(1, 1, 0)
