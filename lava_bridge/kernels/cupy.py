"""The GPU's kernels, compiled by CuPy."""

import torch

from .call import Call

__all__ = ["DTYPES", "described", "launch", "missing", "stored"]

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def missing() -> str | None:
    """What keeps this backend from running, in one line; None: nothing."""
    return "not written yet"


def described() -> str:
    """What it runs on."""
    return ""


def stored(dtype: torch.dtype, real: torch.dtype) -> torch.dtype:
    """How a sequence of ``dtype`` is held: half precision as it is, beside float32."""
    return dtype if real == torch.float32 and dtype != torch.float64 else real


def launch(kernel: str, call: Call, device: torch.device, real: torch.dtype) -> None:
    """Run a call on torch's current stream."""
    raise NotImplementedError
