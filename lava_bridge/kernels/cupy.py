"""The GPU's kernels: ``cuda/gpu.cu``, compiled by CuPy when a kernel is first used.

It is compiled for what a call says once and for all (:class:`Told`): asked for in every step, that
would take longer than the step.

A kernel runs on torch's current stream of the tensor's device. Nothing waits for it: the stream
orders its results, as those of torch's own operators. Run what a CUDA graph is to capture once
before: a module can't be loaded during capture. (:func:`torch.cuda.make_graphed_callables` does so
by itself.)

What is compiled is kept by CuPy on disk (``CUPY_CACHE_DIR``), and for each device in the process.
"""

import ctypes
import functools
import hashlib
import importlib.util
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .call import Call, Form, form

__all__ = ["DTYPES", "described", "launch", "missing", "stored"]

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
GATHERS = True

_HALVES = (torch.float16, torch.bfloat16)
# Of a StorageType of cuda/call.h.
_BYTES = (4, 8, 2, 2)

_INSTALL = "pip install '.[cuda13]' (or '.[cuda12]', as your driver is)"

# Of cuda/gpu.cu: the threads of a warp, the bytes of time in a tile, and the elements that a thread
# of a gather moves.
_WARP = 32
_TILE_BYTES = 128
_MOVED = 8

# Numbers that are others in every call, and not worth compiling for: the steps of a reset.
_OTHERS = {"loihi_lif": (0, 1)}

# From so many neurons on, threads and blocks have more of them: fewer are spread better.
_MANY_NEURONS = 1 << 16


@functools.cache
def missing() -> str | None:
    """What keeps this backend from running, in one line; None: nothing."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed; {_INSTALL}"
    if torch.version.cuda is None:
        return "this torch is built without CUDA; install one with it, see pytorch.org"
    if not torch.cuda.is_available():
        return "torch finds no GPU with a driver that it can use"
    try:
        import cupy

        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # CuPy raises what its libraries do
        return f"CuPy does not work here ({' '.join(str(error).split())}); {_INSTALL}"
    return None


def described() -> str:
    """What it runs on."""
    import cupy

    return f"{torch.cuda.get_device_name()}, CuPy {cupy.__version__}"


def stored(dtype: torch.dtype, real: torch.dtype) -> torch.dtype:
    """How a sequence of ``dtype`` is held: half precision as it is, beside float32."""
    return dtype if real == torch.float32 and dtype in _HALVES else real


def sources() -> Path:
    """The folder of the kernels' sources: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "cuda"
    return installed if installed.is_dir() else package.parent / "cuda"


@functools.cache
def programs() -> dict[str, str]:
    """How each kernel is made of ``gpu.cu``, by the lists in ``cuda/kernels.h``."""
    header = (sources() / "kernels.h").read_text()
    found = re.findall(r"^    (KERNEL|GATHER)\((\w+), (\w+)\)", header, re.MULTILINE)
    kinds = {"KERNEL": "LB_PROGRAM", "GATHER": "LB_GATHER"}
    return {name: f"{kinds[kind]}={program}" for kind, name, program in found}


@functools.cache
def _digest() -> str:
    """Of all sources: CuPy does not see when a header that is included has changed."""
    files = sorted((*sources().glob("*.h"), *sources().glob("*.cu")))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


class Told(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        entry: That of the launch; the others are left out.
        types: How each input and each output is stored, a ``StorageType`` of ``cuda/call.h``; -1:
            there is none.
        wanted: A bit for each result that is wanted, the highest one for the marks.
        numbers: Those that select something, or that spare a multiplication: 0 and the powers of
            two; None: any. So a threshold that is changed again and again is not compiled again.
        packs: Whether all sequences are aligned to be moved in packs.
    """

    entry: str
    types: tuple[int, ...]
    wanted: int
    numbers: tuple[float | None, ...]
    packs: bool

    def options(self) -> tuple[str, ...]:
        """Those of NVRTC."""
        numbers = [
            f"given.number[{k}]" if x is None else str(x) for k, x in enumerate(self.numbers)
        ]
        return (
            f"-DLB_ONLY_{self.entry.upper()}",
            f"-DLB_TYPES={','.join(map(str, self.types))}",
            f"-DLB_WANTED={self.wanted}",
            f"-DLB_KNOWN_NUMBERS={','.join(numbers)}",
            f"-DLB_PACKS={int(self.packs)}",
        )


def options(kernel: str, real: torch.dtype) -> tuple[str, ...]:
    """What NVRTC is told to compile ``gpu.cu`` to a kernel that computes in ``real``."""
    return (
        "-std=c++17",
        "--fmad=false",  # bit for bit the reference
        f"-I{sources()}",
        f"-D{programs()[kernel]}",
        f"-DLB_REAL={'double' if real == torch.float64 else 'float'}",
        f"-DLB_SOURCES=0x{_digest()}",
    )


class Launch(NamedTuple):
    """Which kernel of ``gpu.cu`` runs a call, and in how many threads.

    Attributes:
        entry: ``"rows"``, ``"staged"`` or ``"gather"``.
        packs: Whether numbers are moved in packs of 16 bytes (of half precision, of 8). In ``rows``
            a thread has a pack of neurons then.
        blocks, threads: Of each block so many threads.
        shared: Bytes of shared memory for each block.
    """

    entry: str
    packs: bool
    blocks: int
    threads: int
    shared: int


def planned(kernel: str, form: Form, real: torch.dtype) -> Launch:
    """How a call is run."""
    neurons, pack = form.outer * form.inner, 16 // real.itemsize
    if programs()[kernel].startswith("LB_GATHER"):
        return Launch("gather", False, -(-neurons * form.steps // (256 * _MOVED)), 256, 0)
    places = zip((*form.inputs, *form.outputs), form.types, strict=True)
    aligned = all(place % (pack * _BYTES[type]) == 0 for place, type in places if place >= 0)
    if form.inner == 1:
        word = real.itemsize
        tile = _WARP * (_TILE_BYTES // word + 1) * word
        tiles = max(sum(place >= 0 for place in some) for some in (form.inputs, form.outputs))
        packs = aligned and form.steps % pack == 0
        return Launch("staged", packs, -(-neurons // _WARP), _WARP, tiles * tile)
    many = neurons >= _MANY_NEURONS
    packs = aligned and many and form.inner % pack == 0
    threads = 128 if many else _WARP
    return Launch("rows", packs, -(-neurons // (threads * (pack if packs else 1))), threads, 0)


def told(kernel: str, plan: Launch, form: Form) -> Told | None:
    """What the kernel of a call is compiled for; None: any call, as what moves elements only."""
    if plan.entry == "gather":
        return None
    places = *form.inputs, *form.outputs
    types = (type if place >= 0 else -1 for place, type in zip(places, form.types, strict=True))
    wanted = sum(1 << k for k, place in enumerate(form.rest) if place >= 0)
    numbers = (
        x if (x == 0 or math.frexp(x)[0] == 0.5) and k not in _OTHERS.get(kernel, ()) else None
        for k, x in enumerate(form.numbers)
    )
    return Told(plan.entry, tuple(types), wanted, tuple(numbers), plan.packs)


@functools.cache
def _function(kernel: str, real: torch.dtype, entry: str, what: Told | None, device: int) -> Any:
    """CuPy's function, loaded to a device."""
    import cupy

    code = (sources() / "gpu.cu").read_text()
    more = what.options() if what else ()
    module = cupy.RawModule(code=code, options=(*options(kernel, real), *more))
    with cupy.cuda.Device(device):
        return module.get_function(entry).kernel


@functools.lru_cache(maxsize=4096)
def _ready(kernel: str, form: Form, real: torch.dtype, device: int) -> tuple[Any, Launch]:
    """The function and the launch of all calls of a form."""
    plan = planned(kernel, form, real)
    return _function(kernel, real, plan.entry, told(kernel, plan, form), device), plan


def launch(kernel: str, call: Call, device: torch.device, real: torch.dtype) -> None:
    """Run a call on torch's current stream of the device."""
    import cupy

    index = torch.cuda.current_device() if device.index is None else device.index
    function, plan = _ready(kernel, form(call), real, index)
    # By the driver's own call: CuPy's, with its arrays and streams, takes several times as long.
    # The device is set even if it is the current one: a new thread has no context before.
    arguments = (ctypes.c_void_p * 1)(ctypes.addressof(call))
    with cupy.cuda.Device(index):
        cupy.cuda.driver.launchKernel(
            function.ptr,
            *(plan.blocks, 1, 1),
            *(plan.threads, 1, 1),
            plan.shared,
            torch.cuda.current_stream(index).cuda_stream,
            ctypes.addressof(arguments),
            0,
        )
