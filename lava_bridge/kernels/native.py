"""The CPU's kernels: the extension module that is built with the package."""

import ctypes
import functools
from importlib import import_module
from typing import Any

import torch

from .call import Call

__all__ = ["DTYPES", "described", "launch", "missing", "stored"]

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

# Whether launch() takes the kernels of LB_GATHERS too. A backend that does not say so has none.
GATHERS = True

# An index into what instruction_sets() gives, plus one; 0: the best. The tests set it.
instructions = 0

# Whether outputs go past the caches, a ``PastCaches`` of ``cuda/call.h``; 0: if they are large.
# The tests set it.
past_caches = 0

# Bytes of the cache that a core has for itself, which say how many neurons are taken together;
# 0: what it has. The tests set it.
own_cache = 0

_native: Any
try:
    _native = import_module(f"{__package__}._native")  # built by setup.py
except ImportError as error:
    _native = None
    _reason = str(error)


def missing() -> str | None:
    """What keeps this backend from running, in one line; None: nothing."""
    if _native is None:
        return (
            "the CPU kernels are not built; install lava_bridge again where there is a C++ "
            f"compiler (g++ or clang++) and Python's headers ({_reason})"
        )
    if _call_size(_native) != ctypes.sizeof(Call):
        return "the CPU kernels are of another version; install lava_bridge again"
    return None


@functools.cache
def _call_size(module: Any) -> int:
    return module.call_size()


def described() -> str:
    """What it runs on."""
    whose = "of torch's" if _native.has_team() else "of its own"
    return f"{_native.instruction_sets()[-1]}, {torch.get_num_threads()} threads {whose}"


def stored(dtype: torch.dtype, real: torch.dtype) -> torch.dtype:
    """How a sequence of ``dtype`` is held where the kernels compute in ``real``: in that."""
    return real


def launch(kernel: str, call: Call, device: torch.device, real: torch.dtype) -> None:
    """Run a call; the GIL is released."""
    call.threads = torch.get_num_threads()
    call.instructions = instructions
    call.past_caches = past_caches
    call.own_cache = own_cache
    _native.run(kernel, ctypes.addressof(call), real == torch.float64)
