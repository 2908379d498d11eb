"""The kernels on a GPU, against the torch reference on the CPU."""

import platform

import pytest
import torch
from gpu_cases import OPERATORS, SCALE, assert_same, outcome
from hypothesis import given, strategies as st
from kernel_cases import ALL_ORDERS, laid_out, numbers, orders, shapes_and_orders, spread

from lava_bridge import kernels
from lava_bridge.kernels import cupy
from lava_bridge.ops import cuba
from tests.conftest import on_a_gpu

pytestmark = on_a_gpu()


# The gradients' digits: a GPU has other exponentials than a CPU.
SLACK = 10


def check(name, x, device="cuda", **settings):
    if name == "sigma" and x.dtype.itemsize == 2:
        return  # torch's own sums, which the GPU takes in another order
    mine = outcome(name, "cupy", x, device=device, **settings)
    assert_same(mine, outcome(name, "torch", x, **settings), SLACK)


def fired(x, parameters):
    decays, states = parameters[:2], parameters[2:]
    return cuba.fire(x, decays, states, SCALE, 1.0, (0.7, 1.3), False).spike


def parameters_on(device):
    return [torch.full((1,), value, device=device) for value in (410.0, 137.0, 0.0, 0.0)]


@pytest.mark.parametrize("name", OPERATORS)
def test_all_shapes_and_orders_in_memory(name):
    for k, (shape, order) in enumerate(ALL_ORDERS):
        check(name, laid_out(numbers(shape, k, 3.0, torch.float32), order), shared=k % 2 == 0)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", cupy.DTYPES)
def test_all_dtypes(name, dtype):
    for k, steps in enumerate((1, 2, 31, 32, 33, 64, 68, 70)):
        for order in orders(3):
            check(name, laid_out(numbers((3, 13, steps), k, 3.0, dtype), order))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("time_last", [False, True])
def test_states_too_large_for_32_bits(name, dtype, time_last):
    x = numbers((2, 35, 40), 0, 3.0, dtype)
    x[:, ::3] *= 3e5
    check(name, laid_out(x, (0, 1, 2) if time_last else (2, 0, 1)), learned=False)


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86's integers")
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("time_last", [False, True])
def test_numbers_that_no_integer_stands_for(name, time_last):
    x = numbers((3, 12, 40), 0, 3.0, torch.float32)
    for k, odd in enumerate((float("nan"), float("inf"), -float("inf"), 1e9, -1e9, 1e19, -1e30)):
        x[1, k, 3 * k] = odd
    x = laid_out(x, (0, 1, 2) if time_last else (2, 0, 1))
    check(name, x, learned=False, shared=True)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", cupy.DTYPES)
def test_sequences_that_begin_anywhere(name, dtype):
    shape, size = (2, 20, 36), 2 * 20 * 36
    for start in (1, 2, 4):
        whole = numbers((size + start,), start, 3.0, dtype)
        # On the GPU already: what is copied there would begin anew.
        check(name, whole.cuda()[start:].view(shape), learned=False)
    check(name, spread(numbers(shape, 0, 3.0, dtype)))


@given(
    name=st.sampled_from(list(OPERATORS)),
    layout=shapes_and_orders,
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(cupy.DTYPES),
    shared=st.booleans(),
)
def test_any_sequence(name, layout, seed, dtype, shared):
    shape, order = layout
    check(name, laid_out(numbers(shape, seed, 3.0, dtype), order), shared=shared)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", cupy.DTYPES)
def test_threads_with_packs_of_neurons(name, dtype):
    x = numbers((40, 1700, 6), 0, 3.0, dtype)
    assert x[..., 0].numel() > cupy._MANY_NEURONS
    if dtype in (torch.float32, torch.float64):
        x[:, ::3] *= 3e5  # of some in a pack the states leave 32 bits
    for k, order in enumerate(orders(3)):
        # Neurons that no packs hold, too.
        check(name, laid_out(x[:, k % 2 :], order), learned=False)


def test_kernels_run_on_the_current_stream():
    x = numbers((64, 512, 100), 0, 1.0, torch.float32)
    expected = fired(x, parameters_on("cpu"))
    on_gpu, given = torch.empty_like(x, device="cuda"), parameters_on("cuda")
    fired(on_gpu, given)  # compiles
    host, side = x.pin_memory(), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        # On any other stream the kernel would overtake this.
        torch.cuda._sleep(20_000_000)
        on_gpu.copy_(host, non_blocking=True)
        spikes = fired(on_gpu, given)
    assert not side.query()
    side.synchronize()
    assert torch.equal(spikes.cpu(), expected)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_cuda_graph_holds_them(order):
    inputs = [laid_out(numbers((8, 100, 40), seed, 1.0, torch.float32), order) for seed in (0, 1)]
    # The second one's states go beyond 32 bits: that is decided when the graph runs.
    inputs[1][:, :7] *= 1e6
    still, given = inputs[0].cuda().requires_grad_(), parameters_on("cuda")

    def run():
        spikes = fired(still, given)
        return spikes, torch.autograd.grad(spikes.sum(), still)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()  # loads the modules
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    for x in inputs:
        with torch.no_grad():
            still.copy_(x)
        graph.replay()
        x = x.requires_grad_()
        spikes = fired(x, parameters_on("cpu"))
        assert torch.equal(found[0].cpu(), spikes.detach())
        (grad,) = torch.autograd.grad(spikes.sum(), x)
        torch.testing.assert_close(found[1].cpu(), grad, rtol=1e-5, atol=1e-5)


def test_auto_takes_them_for_tensors_on_a_gpu():
    x = torch.ones(1, 1, 1, device="cuda")
    assert kernels.chosen("auto", x) is cupy
    assert kernels.chosen("cupy", x) is cupy
    assert kernels.chosen("auto", x.to(torch.complex64)) is None
    assert kernels.backends()["cupy"].startswith("ready: ")


def test_kernels_run_on_the_tensors_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU only")
    # The current device stays the first.
    check("fire", numbers((3, 50, 40), 0, 1.0, torch.float32), device="cuda:1")
    check("shift", numbers((3, 50, 40), 0, 1.0, torch.float32), device="cuda:1")
    assert torch.cuda.current_device() == 0


def test_each_kernel_is_compiled_once():
    x = numbers((2, 3, 4), 0, 1.0, torch.float32)
    check("fire", x)
    before = cupy._function.cache_info().misses
    check("fire", x)
    assert cupy._function.cache_info().misses == before
