"""The CPU's kernels as other machines get them: they give what the native ones give.

Calls of the native kernels are recorded, and run again by a program (replay.cpp) that has the same
sources: without what is x86's own; and with AVX-512, which avx512_shim.h emulates. It is built and
run here, on any CPU, or for another one:

    LAVA_BRIDGE_CROSS="aarch64-linux-gnu-g++ -O3 -static" LAVA_BRIDGE_EMULATOR=qemu-aarch64 \\
        python -m pytest tests/kernels/test_portable.py

clang's is not gcc's code there: LAVA_BRIDGE_CROSS="zig c++ -target aarch64-linux-musl -O3 -static".
"""

import ctypes
import math
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from compared import assert_close
from gpu_cases import OPERATORS, outcome
from kernel_cases import laid_out, numbers, orders, same
from torch import Tensor

from lava_bridge.kernels import cupy, native
from lava_bridge.kernels.call import Call

# Without optimisation, which takes most of the time, and no function's code in all that call it.
HOST = f"{os.environ.get('CXX', 'g++')} -O0 -DLB_INLINE=inline"
COMPILER = shlex.split(os.environ.get("LAVA_BRIDGE_CROSS", HOST))
EMULATOR = shlex.split(os.environ.get("LAVA_BRIDGE_EMULATOR", ""))

pytestmark = [
    pytest.mark.skipif(
        native.missing() is not None, reason=f"no native kernels: {native.missing()}"
    ),
    pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason=f"no compiler {COMPILER[0]}"),
]

# As setup.py has them.
FLAGS = ["-std=c++17", "-ffp-contract=off", "-fwrapv", "-fno-trapping-math", "-w"]
FLAGS += ["-fno-math-errno", "-DLB_SET=baseline"]
# On a CPU of x86 the form for AVX-512 too, in registers that are emulated.
SHIM = ["-DLB_X86", "-include", str(Path(__file__).parent / "avx512_shim.h")]
FORMS = {"portable": [], "avx512": SHIM}
STORED = {0: torch.float32, 1: torch.float64, 2: torch.float16, 3: torch.bfloat16}
NAME = 64  # bytes, as in replay.cpp
PAST_ALWAYS = 2  # of cuda/call.h


@pytest.fixture(scope="module", params=FORMS)
def program(request, tmp_path_factory) -> Path:
    built = tmp_path_factory.mktemp(request.param) / "replay"
    if FORMS[request.param] and (platform.machine() != "x86_64" or EMULATOR):
        pytest.skip("no machine of x86")
    sources = [f"-I{cupy.sources()}", str(Path(__file__).parent / "replay.cpp")]
    command = [*COMPILER, *FLAGS, *FORMS[request.param], *sources, "-o", str(built)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return built


class Recorded:
    """Calls of the native kernels, what they were given and what they gave.

    Attributes:
        calls: Each call's bytes for the program.
        given: The kernel, and the tensors that it left, of each.
        past: Kernels with outputs that have whole lines of 64 bytes, in rows or with time last.
    """

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.given: list[tuple[str, list[Tensor]]] = []
        self.past: set[str] = set()

    def launch(self, kernel: str, call: Call, device: torch.device, real: torch.dtype) -> None:
        neurons = call.outer * call.inner
        steps, words = neurons * call.steps, neurons * math.ceil(call.steps / 32)
        fields = [(p, steps, STORED[t]) for p, t in zip(call.input, call.input_type, strict=True)]
        parameters = zip(call.parameter, call.shared, strict=True)
        fields += [(p, 1 if shared else neurons, real) for p, shared in parameters]
        fields.append((call.marks, words, torch.int32))
        kind = int(real == torch.float64)
        told = Call.from_buffer_copy(call)
        told.instructions = kind
        told.past_caches = PAST_ALWAYS
        told.own_cache = 1 << 18
        whole = call.inner >= 128 and call.inner * real.itemsize % 64 == 0
        gathered = call.inner == 1 and neurons * call.steps * real.itemsize >= 128
        if (
            (whole or gathered) and call.outer and any(call.output) and kernel != "shift"
        ):  # that only moves
            self.past.add(kernel)
        read = b"".join(_bytes(*field) for field in fields)
        self.calls.append(kernel.encode().ljust(NAME, b"\0") + bytes(told) + read)
        _launch(kernel, call, device, real)
        left = [(p, steps, STORED[t]) for p, t in zip(call.output, call.output_type, strict=True)]
        left += [(p, neurons, real) for p in call.result]
        left.append((call.marks, words, torch.int32))
        self.given.append((kernel, [_tensor(_bytes(*field), field[2]) for field in left]))


_launch = native.launch


def _bytes(pointer: int | None, count: int, dtype: torch.dtype) -> bytes:
    return ctypes.string_at(pointer, count * dtype.itemsize) if pointer and count else b""


def _tensor(content: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0)


def ordinary(name: str, dtype: torch.dtype) -> None:
    shapes = [
        (1, 1, 1),
        (3, 5, 7, 2, 9),
        (2, 17, 33),
        (1, 5, 70),
        (0, 4, 6),
        (1, 528, 2),
        (1, 50, 32),
    ]
    for k, shape in enumerate(shapes):
        for order in orders(len(shape)):
            x = laid_out(numbers(shape, k, 3.0, dtype), order)
            outcome(name, "native", x, shared=k % 2 == 0)


def extreme(name: str, dtype: torch.dtype) -> None:
    # 2^32 and a little: what wraps around is small again.
    for k, size in enumerate([3e3, 3e5, 2.0**26, 1e9, 1e15, 1e30]):
        x = numbers((2, 35, 40), k, 3.0, dtype)
        x[:, ::3] *= size
        x[:, 1, 5], x[0, 2, 7], x[1, 4, 0] = float("inf"), float("nan"), -float("inf")
        for order in ((0, 1, 2), (2, 0, 1)):
            outcome(name, "native", laid_out(x, order), learned=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("some", [ordinary, extreme])
def test_in_another_form_the_kernels_give_the_same(program, some, dtype, monkeypatch, tmp_path):
    recorded = Recorded()
    monkeypatch.setattr(native, "launch", recorded.launch)
    for name in OPERATORS:
        some(name, dtype)
    assert len(recorded.calls) > len(OPERATORS)
    calls, found = tmp_path / "calls", tmp_path / "found"
    calls.write_bytes(b"".join(recorded.calls))
    command = [*EMULATOR, str(program), str(calls), str(found)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or done.returncode
    if program.parent.name.startswith("avx512"):
        assert set(done.stdout.split()) == recorded.past
        assert len(recorded.past) > 30 or some is extreme
    content, at = found.read_bytes(), 0
    for kernel, given in recorded.given:
        for k, expected in enumerate(given):
            size = expected.numel() * expected.element_size()
            mine = _tensor(content[at : at + size], expected.dtype)
            at += size
            # An exponential is the C library's where it is of doubles.
            if expected.dtype == torch.float64 and kernel.endswith(("_backward", "_threshold")):
                assert_close([mine], [expected])
            else:
                assert same(mine, expected), (kernel, k)
    assert at == len(content)
