"""The GPU's kernels without a GPU: they compile, launches are planned, what is missing is said."""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from kernel_cases import numbers

from lava_bridge import kernels
from lava_bridge.errors import BridgeError
from lava_bridge.kernels import cupy
from lava_bridge.kernels.call import Call, MemoryOrder, filled, form
from tests.conftest import missing_reference

# Turing, Ampere, Hopper and Blackwell.
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")
ENTRIES = ("rows", "staged", "gather")
# What CuPy adds to a RawModule's own options.
OF_CUPY = ("-ftz=true", "--device-as-default-execution-space")


@pytest.fixture(scope="module")
def nvrtc():
    try:
        from cupy.cuda import nvrtc
    except ImportError as error:
        missing_reference(f"CuPy is not installed ({error}); pip install -e .[test]")
        raise
    return nvrtc


# With every sequence, result and number that a kernel may have.
ALL_OF_IT = {"wanted": 0b111111, "numbers": (None,) * 12, "packs": True}


def compiled(nvrtc, kernel: str, entry: str, real: torch.dtype, architecture: str) -> bytes:
    """The kernel for an architecture that need not be there, as NVRTC gives it."""
    code = (cupy.sources() / "gpu.cu").read_text()
    program = nvrtc.createProgram(code, "gpu.cu", (), ())
    types = (1 if real == torch.float64 else 0,) * 12
    told = () if entry == "gather" else cupy.Told(entry, types, **ALL_OF_IT).options()
    options = (*cupy.options(kernel, real), *told, *OF_CUPY, f"-arch={architecture}")
    if (architecture, real) != ("sm_90", torch.float32):
        options += ("--Ofast-compile=max",)  # in half the time, and once as CuPy has it
    try:
        nvrtc.compileProgram(program, options)
        return nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    finally:
        assert not nvrtc.getProgramLog(program).strip("\0 \n"), "NVRTC warns"
        nvrtc.destroyProgram(program)


@pytest.mark.parametrize("kernel", cupy.programs())
def test_every_kernel_compiles(nvrtc, kernel):
    def entries(wanted):
        code = compiled(nvrtc, kernel, *wanted)
        return {name for name in ENTRIES if f".text.{name}\0".encode() in code}

    entries_there = ("gather",) if kernel == "shift" else ("rows", "staged")
    wanted = [
        (entry, real, architecture)
        for entry in entries_there
        for real, architecture in (
            *((torch.float32, architecture) for architecture in ARCHITECTURES),
            (torch.float64, "sm_90"),
        )
    ]
    # NVRTC runs without Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found, (entry, *_) in zip(pool.map(entries, wanted), wanted, strict=True):
            assert found == {entry}


def test_the_list_of_kernels_is_the_headers():
    header = (cupy.sources() / "kernels.h").read_text()
    lines = header.count("    KERNEL(") + header.count("    GATHER(")
    assert len(cupy.programs()) == lines > 0
    assert cupy.programs()["cuba"] == "LB_PROGRAM=Cuba"
    assert cupy.programs()["shift"] == "LB_GATHER=Shift"


def test_a_header_that_changes_is_compiled_again(monkeypatch, tmp_path):
    shutil.copytree(cupy.sources(), tmp_path / "cuda")
    monkeypatch.setattr(cupy, "sources", lambda: tmp_path / "cuda")
    found = []
    for text in ("", "// changed\n", ""):
        (tmp_path / "cuda" / "more.h").write_text(text)
        cupy._digest.cache_clear()
        found.append(cupy.options("cuba", torch.float32))
    cupy._digest.cache_clear()
    assert found[0] == found[2] != found[1]


# Launches ---------------------------------------------------------------------------------------


def call_of(x: torch.Tensor, inputs: int = 1, outputs: int = 1) -> Call:
    order = MemoryOrder(x)
    call = Call(outer=order.outer, steps=order.steps, inner=order.inner)
    call.input[:inputs] = [x.data_ptr()] * inputs
    call.output[:outputs] = [x.data_ptr()] * outputs
    return call


def plan_of(call: Call) -> cupy.Launch:
    return cupy.planned("cuba", form(call), torch.float32)


def test_sequences_are_staged_where_time_is_last_and_read_as_rows_elsewhere():
    x = numbers((2, 50, 7), 0, 1.0, torch.float32)
    assert plan_of(call_of(x)) == cupy.Launch("staged", False, 4, 32, 32 * 33 * 4)
    across = x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert plan_of(call_of(across)) == cupy.Launch("rows", False, 4, 32, 0)
    many = Call(outer=1, steps=40, inner=2 << 20)
    assert plan_of(many) == cupy.Launch("rows", True, (2 << 20) // 512, 128, 0)


@pytest.mark.parametrize("real", [torch.float32, torch.float64])
def test_tiles_fit_into_the_shared_memory_that_every_block_may_have(real):
    call = call_of(torch.empty(2, 50, 7), inputs=6, outputs=6)
    assert cupy.planned("cuba", form(call), real).shared <= 48 << 10
    # One that is written replaces one that was read.
    less = call_of(torch.empty(2, 50, 7), inputs=2, outputs=1)
    assert (
        cupy.planned("cuba", form(less), real).shared
        == cupy.planned("cuba", form(call), real).shared // 3
    )


def told_of(call: Call) -> cupy.Told:
    found = cupy.told("cuba", plan_of(call), form(call))
    assert found is not None
    return found


def test_a_kernel_is_compiled_for_what_calls_have_in_common():
    x, parameters = numbers((2, 5, 8), 0, 1.0, torch.float32), [torch.ones(1)] * 2
    half = x.half()
    sides = [x, None, half], [None, x]
    results, settings = [None, torch.ones(2, 5)], [64, 0.3, 0, 1, -1, 0.5]
    call = filled(MemoryOrder(x), *sides, parameters, results, settings)
    told = told_of(call)
    assert told.types == (0, -1, 2, *[-1] * 4, 0, *[-1] * 4)
    assert told.wanted == 0b10
    assert told.numbers == (64, None, 0, 1, None, 0.5, *[0] * 6)
    # Another threshold, other parameters and other tensors change nothing, another flag does.
    others = [y if y is None else y.clone() for y in sides[0]], [None, x.clone()]
    again = [torch.zeros(2, 5)] * 2
    another = filled(MemoryOrder(x), *others, again, results, [64, 0.7, 0, 1, -3, 0.5])
    assert told_of(another) == told
    delayed = filled(MemoryOrder(x), *sides, parameters, results, [64, 0.3, 1, 1, -1, 0.5])
    assert told_of(delayed) != told
    marks = torch.zeros(10, dtype=torch.int32)
    assert (
        told_of(filled(MemoryOrder(x), *sides, parameters, results, [], marks)).wanted == 0b100010
    )
    assert cupy.told("shift", cupy.Launch("gather", False, 1, 256, 0), form(call)) is None
    # The steps of a reset are others in every call.
    chip = cupy.told("loihi_lif", plan_of(call), form(call))
    assert chip is not None
    assert chip.numbers == (None, None, 0, 1, None, 0.5, *[0] * 6)
    assert "-DLB_ONLY_STAGED" in told.options()


@pytest.mark.parametrize("time_first", [False, True])
def test_sequences_are_moved_in_packs_where_all_are_aligned(monkeypatch, time_first):
    monkeypatch.setattr(cupy, "_MANY_NEURONS", 4)

    def packs(fastest: int, first: int, dtype: torch.dtype) -> bool:
        shape = (3, 5, fastest)
        x = torch.empty(shape)
        y = torch.empty(x.numel() + 16, dtype=dtype)
        y = y[-(y.data_ptr() // y.itemsize) % 16 + first :][: x.numel()].view(shape)
        if time_first:
            x, y = x.transpose(1, 2), y.transpose(1, 2)
        call = filled(MemoryOrder(x), [y], [x], [], [], [])
        plan = plan_of(call)
        assert plan.entry == ("rows" if time_first else "staged")
        neurons, each = 3 * (fastest if time_first else 5), 4 if plan.packs and time_first else 1
        assert plan.blocks == -(-neurons // (plan.threads * each))
        assert told_of(call).packs == plan.packs
        return plan.packs

    assert packs(8, 0, torch.float32)
    assert packs(8, 4, torch.float32)
    assert packs(8, 4, torch.float16)
    assert not packs(8, 2, torch.float32)
    assert not packs(8, 2, torch.float16)
    assert not packs(7, 0, torch.float32)
    monkeypatch.setattr(cupy, "_MANY_NEURONS", 1 << 16)
    assert packs(8, 0, torch.float32) == (not time_first)


def test_sequences_are_held_as_what_the_kernels_read():
    half, bfloat = torch.float16, torch.bfloat16
    for dtype in (half, bfloat, torch.float32):
        assert cupy.stored(dtype, torch.float32) == dtype
    for dtype in (half, torch.int64, torch.bool, torch.float32):
        assert cupy.stored(dtype, torch.float64) == torch.float64
    # Beside a sequence of float32 there may come one of integers.
    for dtype in (torch.float64, torch.int32, torch.bool):
        assert cupy.stored(dtype, torch.float32) == torch.float32


def test_a_call_is_launched_as_one_argument_by_value(monkeypatch):
    said: list = []

    def launch_kernel(*arguments):
        # CUDA copies the structure from where the one pointer says.
        (place,) = (ctypes.c_void_p * 1).from_address(arguments[9])
        said.append((*arguments[:9], Call.from_address(place).steps, arguments[10]))

    def function(*what):
        said.append(what)
        return types.SimpleNamespace(ptr=123)

    driver = types.SimpleNamespace(launchKernel=launch_kernel)
    cuda = types.SimpleNamespace(Device=contextlib.nullcontext, driver=driver)
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=cuda))
    stream = types.SimpleNamespace(cuda_stream=456)
    monkeypatch.setattr(torch.cuda, "current_stream", {1: stream}.__getitem__)
    monkeypatch.setattr(cupy, "_function", function)
    monkeypatch.setattr(cupy, "_ready", cupy._ready.__wrapped__)  # nothing of this may stay
    call = call_of(numbers((2, 50, 7), 0, 1.0, torch.float32))
    cupy.launch("cuba", call, torch.device("cuda", 1), torch.float32)
    told = told_of(call)
    assert said[0] == ("cuba", torch.float32, "staged", told, 1)
    assert said[1:] == [(123, 4, 1, 1, 32, 1, 1, 32 * 33 * 4, 456, 7, 0)]


# What is missing --------------------------------------------------------------------------------


@pytest.fixture
def fresh():
    cupy.missing.cache_clear()
    yield
    cupy.missing.cache_clear()


def without_cupy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def with_cupy(monkeypatch, module):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "cupy", module)


def without_cuda(monkeypatch):
    with_cupy(monkeypatch, None)
    monkeypatch.setattr(torch.version, "cuda", None)


def without_gpu(monkeypatch):
    with_cupy(monkeypatch, None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def without_nvrtc(monkeypatch):
    def refuse():
        raise RuntimeError("no\n libnvrtc.so")

    without_gpu(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cuda = types.SimpleNamespace(nvrtc=types.SimpleNamespace(getVersion=refuse))
    with_cupy(monkeypatch, types.SimpleNamespace(cuda=cuda))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (without_cupy, r"CuPy is not installed; pip install '.\[cuda13\]'"),
        (without_cuda, "this torch is built without CUDA"),
        (without_gpu, "torch finds no GPU"),
        (without_nvrtc, r"CuPy does not work here \(no libnvrtc.so\); pip install"),
    ],
)
def test_what_is_missing_is_said_in_one_line(fresh, monkeypatch, state, said):
    state(monkeypatch)
    with pytest.raises(BridgeError, match=f"^backend 'cupy' is missing: {said}") as error:
        kernels.use_backend("cupy")
    assert "\n" not in str(error.value)
    assert kernels.current_backend() == "auto"
    assert kernels.backends()["cupy"].startswith("missing: ")
    # Nobody asked for it: the reference runs, and nothing is said.
    on_gpu = types.SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.chosen("auto", on_gpu) is None


def test_the_gpus_kernels_are_there_with_all_of_it(fresh, monkeypatch):
    without_nvrtc(monkeypatch)
    cuda = types.SimpleNamespace(nvrtc=types.SimpleNamespace(getVersion=lambda: (13, 0)))
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=cuda, __version__="14"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some GPU")
    assert kernels.backends()["cupy"] == "ready: some GPU, CuPy 14"
    for dtype in (*cupy.DTYPES, torch.complex64):
        on_gpu = types.SimpleNamespace(device=torch.device("cuda"), dtype=dtype)
        assert kernels.chosen("auto", on_gpu) is (cupy if dtype in cupy.DTYPES else None)


def test_on_the_cpu_nobody_loads_cupy():
    code = """
import sys, torch, lava_bridge
neuron = lava_bridge.slayer.neuron.cuba.Neuron(1.0, 0.25, 0.1)
neuron(torch.rand(2, 3, 8, requires_grad=True)).sum().backward()
assert "cupy" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
