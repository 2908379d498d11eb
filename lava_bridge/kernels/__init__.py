"""The compiled kernels: which backends there are, which one a tensor takes, and running one.

A backend is ``"torch"`` (the reference: plain torch, everywhere), ``"native"`` (the CPU's kernels,
built with the package where there is a compiler), ``"cupy"`` (the GPU's, compiled by CuPy when
first used) or ``"auto"``: the fastest there is for the tensor's device. Their sources are in
``cuda/``.
"""

from .backend import BACKENDS, backends, chosen, current_backend, use_backend
from .run import Results, Tensors, can_gather, gather, run

__all__ = ["BACKENDS", "Results", "backends", "chosen", "current_backend", "gather", "run"]
__all__ += ["Tensors", "can_gather", "use_backend"]
