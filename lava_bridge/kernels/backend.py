"""Which backends there are, and which one runs."""

import os
import warnings
from types import ModuleType, TracebackType

import torch
from torch import Tensor

from ..errors import BridgeError
from . import cupy, native

__all__ = ["BACKENDS", "backends", "chosen", "current_backend", "use_backend"]

BACKENDS = ("auto", "torch", "native", "cupy")

# The backend of everything that is not told its own.
VARIABLE = "LAVA_BRIDGE_BACKEND"

_COMPILED: dict[str, ModuleType] = {"native": native, "cupy": cupy}
_FOR_DEVICE = {"cpu": "native", "cuda": "cupy"}


def require_backend(place: str, name: str) -> str:
    """``name``, if it is a backend's."""
    if name not in BACKENDS:
        raise BridgeError(f"{place}: expected one of {', '.join(BACKENDS)}, found {name!r}")
    return name


_current = require_backend(VARIABLE, os.environ.get(VARIABLE) or "auto")
# The setting of use_backend that is in force, and what there was before any.
_setting: "use_backend | None" = None
_first = _current
_said = False


def backends() -> dict[str, str]:
    """Each backend and its state: what it runs on, or what is missing and how to get it.

    >>> import lava_bridge
    >>> lava_bridge.backends()["torch"]
    'ready'
    """
    found = {"torch": "ready"}
    for name, module in _COMPILED.items():
        missing = module.missing()
        found[name] = f"missing: {missing}" if missing else f"ready: {module.described()}"
    return found


def current_backend() -> str:
    """The backend in use: ``"auto"``, unless :class:`use_backend` or the environment says other."""
    return _current


class use_backend:
    """Set the backend of all operators, from now on or for a ``with`` block.

    It is one for the whole process. Where the blocks of several threads overlap, that which began
    last holds; when all have ended, it is again what it was before them.

    Args:
        name: ``"auto"``, ``"torch"``, ``"native"`` or ``"cupy"``. The environment variable
            ``LAVA_BRIDGE_BACKEND`` sets the one to begin with.

    Raises:
        BridgeError: If there is no such backend, or something is missing for it.

    >>> import lava_bridge
    >>> with lava_bridge.use_backend("torch"):
    ...     pass
    """

    def __init__(self, name: str) -> None:
        require_backend("use_backend", name)
        if name in _COMPILED:
            _require_there(name)
        self._name, self._ended = name, False
        self._before = _setting
        _put_in_force(self)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # (No lock: torch.compile follows this, but takes none.)
        self._ended = True
        last = _setting
        while last is not None and last._ended:
            last = last._before
        _put_in_force(last)


def _put_in_force(setting: use_backend | None) -> None:
    global _current, _setting
    _setting, _current = setting, _first if setting is None else setting._name


def chosen(backend: str, x: Tensor) -> ModuleType | None:
    """The compiled backend that runs an operator on ``x``; None: the torch reference.

    A BridgeError is raised if a backend is asked for that is not there, or not for this device.
    """
    if backend == "torch":
        return None
    fitting = _FOR_DEVICE.get(x.device.type)
    if backend == "auto":
        if fitting is None or x.dtype not in _COMPILED[fitting].DTYPES:
            return None
        if _COMPILED[fitting].missing():
            _say_once(fitting)
            return None
        return _COMPILED[fitting]
    require_backend("backend", backend)
    if backend != fitting:
        device = next(kind for kind, name in _FOR_DEVICE.items() if name == backend)
        found = f"found a tensor on {x.device}; move it, or take 'auto'"
        raise BridgeError(f"backend {backend!r}: expected a tensor on {device}, {found}")
    _require_there(backend)
    if x.dtype not in _COMPILED[backend].DTYPES:
        raise BridgeError(f"backend {backend!r}: found a tensor of {x.dtype}; take 'auto'")
    return _COMPILED[backend]


def _require_there(name: str) -> None:
    missing = _COMPILED[name].missing()
    if missing:
        raise BridgeError(f"backend {name!r} is missing: {missing}")


def _say_once(name: str) -> None:
    global _said
    if name == "native" and not _said and not torch.compiler.is_compiling():
        _said = True
        warnings.warn(
            f"lava_bridge runs on its slower torch reference: {native.missing()}", stacklevel=2
        )
