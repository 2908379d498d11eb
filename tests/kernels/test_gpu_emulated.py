"""The GPU's driver, ``cuda/gpu.cu``, on a GPU that gpu_shim.h emulates: here it runs everywhere.

The launches are those of :mod:`lava_bridge.kernels.cupy`; CuPy and the GPU's compiler are left out.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import types
from itertools import cycle
from pathlib import Path

import pytest
import torch
from gpu_cases import OPERATORS, SCALE, assert_same, outcome
from hypothesis import given, strategies as st
from kernel_cases import ALL_ORDERS, laid_out, numbers, orders, shapes_and_orders, spread
from test_long_sums import KERNELS, sums

from lava_bridge.kernels import backend, cupy
from lava_bridge.kernels.call import form

COMPILER = os.environ.get("CXX", "g++")

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"no compiler {COMPILER}")

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-fwrapv", "-ffp-contract=off")
# A GPU stops at a read or write that is not aligned; so does this.
FLAGS += ("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error", "-Wall", "-Werror")
FLAGS += ("-Wno-unknown-pragmas", "-Wno-maybe-uninitialized")


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory):
    """Where libraries are built: one folder for all workers of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    FOLDER.append(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


FOLDER: list[Path] = []


@functools.cache
def library(kernel: str, real: torch.dtype, told: cupy.Told | None) -> ctypes.CDLL:
    """gpu.cu compiled for one program; for one call only as lava_bridge.kernels.cupy has it."""
    included = (HERE / "gpu_shim.h", cupy.sources() / "gpu.cu", HERE / "gpu_shim_end.h")
    source = "".join(f'#include "{file}"\n' for file in included)
    options = cupy.options(kernel, real) + (told.options() if told else ())
    defines = [option for option in options if option.startswith("-D")]
    more = os.environ.get("LAVA_BRIDGE_CFLAGS", "").split()
    command = [COMPILER, *FLAGS, *defines, *more, "-xc++", "-", "-o"]
    digest = hashlib.sha256(" ".join(command).encode()).hexdigest()[:16]
    built = FOLDER[-1] / f"emulated-{kernel}-{digest}.so"
    if not built.exists():  # (Another worker may be at it: then it's built twice.)
        new = built.with_suffix(f".{os.getpid()}")
        done = subprocess.run([*command, str(new)], input=source, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        new.replace(built)
    return ctypes.CDLL(str(built))


class Emulated(types.ModuleType):
    """Takes the place of a backend's module.

    Attributes:
        entries: Those of gpu.cu that ran.
        backwards: Whether the last thread of a block goes first.
        only: The entry to take for all calls, in blocks of so many threads; None: as planned.
        told: Whether kernels are compiled for each call. (It takes long.)
    """

    def __init__(self) -> None:
        super().__init__("emulated")
        self.DTYPES, self.GATHERS, self.stored = cupy.DTYPES, cupy.GATHERS, cupy.stored
        self.entries: set[str] = set()
        self.backwards = False
        self.only: int | None = None
        self.told = False

    def missing(self) -> None:
        return None

    def launch(self, kernel, call, device, real) -> None:
        of_call = form(call)
        plan = cupy.planned(kernel, of_call, real)
        if self.only and plan.entry != "gather":
            blocks = -(-call.outer * call.inner // self.only)
            plan = cupy.Launch("rows", False, blocks, self.only, 0)
        self.entries.add(plan.entry)
        told = cupy.told(kernel, plan, of_call) if self.told else None
        assert told or plan.entry != "rows" or not plan.packs, "untold, a thread has one neuron"
        failed = library(kernel, real, told).emulated_launch(
            ctypes.byref(call),
            plan.entry == "staged",
            plan.blocks,
            plan.threads,
            plan.shared,
            self.backwards,
        )
        assert not failed, "threads did not meet, or left their shared memory"


@pytest.fixture(scope="module")
def gpu():
    """Stands for the native kernels, as those run on the CPU's tensors."""
    emulated = Emulated()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backend._COMPILED, "native", emulated)
        yield emulated


@pytest.fixture(autouse=True)
def _planned(gpu):
    yield
    gpu.backwards, gpu.only, gpu.told = False, None, False
    gpu.entries.clear()


def entries(name, *expected, dtype=torch.float32):
    """The entries that an operator takes if its others are these."""
    if name == "sigma" and dtype.itemsize == 2:
        return set()  # sums of half precision are torch's own
    gathers = {"gather"} if name.startswith("shift") else set()
    return gathers if name == "shift" else {*expected} | gathers


def check(name, x, **settings):
    assert_same(outcome(name, "native", x, **settings), outcome(name, "torch", x, **settings))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("backwards", [False, True])
def test_all_shapes_and_orders_in_memory(gpu, name, backwards):
    gpu.backwards = backwards
    for k, (shape, order) in enumerate(ALL_ORDERS):
        check(name, laid_out(numbers(shape, k, 3.0, torch.float32), order), shared=k % 2 == 0)
    assert gpu.entries == entries(name, "rows", "staged")


@pytest.mark.parametrize(("name", "order"), list(zip(OPERATORS, cycle([(0, 1, 2), (2, 0, 1)]))))
def test_kernels_that_are_compiled_for_the_call(gpu, monkeypatch, name, order):
    monkeypatch.setattr(cupy, "_MANY_NEURONS", 1)  # threads of rows have packs of neurons
    gpu.told = True
    check(name, laid_out(numbers((3, 12, 36), 0, 3.0, torch.float32), order))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("steps", [36, 37])
@pytest.mark.parametrize("neurons", [12, 13])  # with time first: in packs, and not
def test_stored_numbers_that_are_compiled_for_the_call(gpu, monkeypatch, dtype, steps, neurons):
    monkeypatch.setattr(cupy, "_MANY_NEURONS", 1)
    gpu.told = True
    order = (0, 1, 2) if neurons % 2 else (0, 2, 1)
    x = numbers((3, neurons, steps), 0, 3.0, dtype)
    x[:, ::3] *= 3e3  # of some neurons in a pack the states leave 32 bits
    for name in ("fire", "delayed adrf", "sigma-delta"):
        check(name, laid_out(x, order), learned=False)
    assert gpu.entries == {"staged" if neurons % 2 else "rows"}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_all_dtypes(gpu, name, dtype):
    others = cycle(orders(3)[1:])
    for k, steps in enumerate((1, 2, 31, 32, 33, 64, 68, 70)):
        # Time last in memory, and another order in turn.
        for order in ((0, 1, 2), next(others)):
            check(name, laid_out(numbers((3, 13, steps), k, 3.0, dtype), order))
    assert gpu.entries == entries(name, "rows", "staged", dtype=dtype)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("time_last", [False, True])
def test_states_too_large_for_32_bits(gpu, name, dtype, time_last):
    # Some neurons only: the others of a warp must not notice.
    x = numbers((2, 35, 40), 0, 3.0, dtype)
    x[:, ::3] *= 3e5
    x = laid_out(x, (0, 1, 2) if time_last else (2, 0, 1))
    reference = outcome(name, "torch", x, learned=False)
    assert_same(outcome(name, "native", x, learned=False), reference)
    if name in ("leaky integrator", "leak", "resonator", "rf", "delayed rf_iz", "alif"):
        assert max(float(y.abs().max()) for y in reference.outputs) * SCALE > 1 << 24
    # The delay's gradient is not asked for.
    alone = name.startswith("shift")
    assert gpu.entries == ({"gather"} if alone else {"staged" if time_last else "rows"})


@pytest.mark.parametrize("name", ["fire and reset", "fire and reset with a bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("time_last", [False, True])
def test_gradients_of_decays_where_states_are_too_large_for_32_bits(gpu, name, dtype, time_last):
    x = numbers((2, 35, 40), 0, 3.0, dtype)
    x[:, ::3] *= -3e9
    gpu.backwards = True
    check(name, laid_out(x, (0, 1, 2) if time_last else (2, 0, 1)))
    assert gpu.entries == {"staged" if time_last else "rows"}


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86's integers")
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("time_last", [False, True])
def test_numbers_that_no_integer_stands_for(gpu, name, dtype, time_last):
    x = numbers((3, 12, 40), 0, 3.0, dtype)
    for k, odd in enumerate((float("nan"), float("inf"), -float("inf"), 1e9, -1e9, 1e19, -1e30)):
        x[1, k, 3 * k] = odd
    x = laid_out(x, (0, 1, 2) if time_last else (2, 0, 1))
    settings = {"learned": False, "shared": True}
    assert_same(outcome(name, "native", x, **settings), outcome(name, "torch", x, **settings))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", cupy.DTYPES)
def test_sequences_that_begin_anywhere(gpu, name, dtype):
    shape, size = (2, 20, 36), 2 * 20 * 36
    for start in (1, 2, 4):
        x = numbers((size + start,), start, 3.0, dtype)[start:].view(shape)
        check(name, x)
    check(name, spread(numbers(shape, 0, 3.0, dtype)))
    assert gpu.entries >= entries(name, "staged", dtype=dtype)


@pytest.mark.parametrize("threads", [1, 32, 96, 128])
def test_rows_in_blocks_of_any_size(gpu, threads):
    gpu.only = threads
    for name in OPERATORS:
        check(name, numbers((2, 67, 21), 0, 3.0, torch.float32))
    assert gpu.entries == {"rows", "gather"}


def test_gradients_that_are_not_wanted(gpu):
    for name in OPERATORS:
        check(name, numbers((2, 20, 36), 0, 3.0, torch.float32), learned=False)


@given(
    name=st.sampled_from(list(OPERATORS)),
    layout=shapes_and_orders,
    seed=st.integers(0, 1000),
    size=st.sampled_from([0.3, 3.0, 3e5]),
    dtype=st.sampled_from(cupy.DTYPES),
    shared=st.booleans(),
    backwards=st.booleans(),
)
def test_any_sequence(gpu, name, layout, seed, size, dtype, shared, backwards):
    shape, order = layout
    gpu.backwards = backwards
    x = laid_out(
        numbers(shape, seed, min(size, 3e4) if dtype == torch.float16 else size, dtype), order
    )
    # Gradients of states that float32 does not hold are not the same to so many digits.
    check(name, x, shared=shared, learned=size < 1e3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("order", "entry"), [((0, 1, 2), "staged"), ((2, 0, 1), "rows")])
def test_sums_of_one_sign_stay_right_over_30000_steps(gpu, kernel, order, entry):
    found = sums(kernel, 30_000, torch.float32, order, gpu)
    assert gpu.entries == {entry}
    for mine, exact in zip(found, sums(kernel, 30_000, torch.float64, order), strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-6, atol=0)


def test_the_structure_is_that_of_the_header(tmp_path):
    source = '#include "call.h"\nextern "C" int size() { return sizeof(Call); }\n'
    path = tmp_path / "size.cpp"
    path.write_text(source)
    command = [COMPILER, "-shared", "-fPIC", f"-I{cupy.sources()}", str(path), "-o", f"{path}.so"]
    subprocess.run(command, check=True)
    assert ctypes.CDLL(f"{path}.so").size() == ctypes.sizeof(cupy.Call)
