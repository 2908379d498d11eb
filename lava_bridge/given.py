"""What the command line is given: the net that a user's function builds, and arrays in files."""

import importlib
import importlib.util
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BridgeError

if TYPE_CHECKING:
    import numpy as np
    import torch.nn as nn

__all__ = ["build_net", "load_array"]


def build_net(factory: str, weights: str | None) -> "nn.Module":
    """The net of MODULE:FACTORY, with weights from a file."""
    import torch

    from .sides import as_module

    build = _factory(factory)
    try:
        net = as_module(build())
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise BridgeError(f"{factory}: can't build the net: {_one_line(error)}") from error
    if not isinstance(net, torch.nn.Module):
        raise BridgeError(
            f"{factory}: gave an object of type {type(net).__name__}, not a net; return an "
            "nn.Sequential"
        )
    if weights is not None:
        state = None
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            net.load_state_dict(state)
        except Exception as error:  # whatever a foreign file makes of torch's reader
            raise BridgeError(
                f"{weights}: can't be loaded into the net of {factory} "
                f"({_misfit(net, state) or _reason(error)}); save it with "
                "torch.save(net.state_dict(), ...)"
            ) from error
    return net.eval()


def _misfit(net: "nn.Module", state: Any) -> str | None:
    """Which of a net's names a checkpoint has not, and what it has instead; None: it has all."""
    if not isinstance(state, Mapping):
        return None
    names = net.state_dict()
    lacking = [name for name in names if name not in state]
    others = [name for name in state if name not in names]
    said = [f"it lacks {_few(lacking)}"] if lacking else []
    said += [f"it has {_few(others)}, which the net has not"] if others else []
    return "; ".join(said) or None


def _few(names: list[Any]) -> str:
    shown = ", ".join(map(str, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _reason(error: Exception) -> str:
    """Why a file can't be read, without what else its reader says."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # torch and NumPy take what they do not know for a pickle, and advise to allow that: never here.
    stumbled = isinstance(error, pickle.UnpicklingError | LookupError | EOFError)
    if stumbled or "pickle" in str(error):
        return "it is no file of numbers alone"
    return _one_line(error)


def _factory(name: str) -> Callable[[], Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise BridgeError(f"{name}: expected MODULE:FACTORY, such as mynet:build")
    try:
        module = _import(module_name)
        factory = getattr(module, attribute)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise BridgeError(
            f"{name}: can't be imported ({_one_line(error)}); give a module that Python finds from "
            "here, or a file, and a function in it"
        ) from error
    if not callable(factory):
        raise BridgeError(
            f"{name}: is of type {type(factory).__name__}, not a function that builds a net"
        )
    return factory


def _import(module_name: str) -> Any:
    if not module_name.endswith(".py"):
        _find_from("")
        return importlib.import_module(module_name)
    path = Path(module_name)
    if not path.is_file():
        raise ImportError(f"there is no file {module_name}")
    _find_from(str(path.resolve().parent))  # of a link too that of its file, as Python does
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _find_from(folder: str) -> None:
    """Let a folder's modules be imported, before others; for good: a factory may import later."""
    if folder not in sys.path:
        sys.path.insert(0, folder)


def load_array(path: str, mapped: bool = False) -> "np.ndarray":
    """The numbers of an .npy file; ``mapped``: left on the disk until they are used."""
    import numpy as np

    try:
        x = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except Exception as error:  # whatever a foreign file makes of NumPy's reader
        raise BridgeError(
            f"{path}: can't be read as a NumPy array ({_reason(error)}); save it with numpy.save"
        ) from error
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
        raise BridgeError(f"{path}: is no array of numbers; save one with numpy.save")
    return x


def _one_line(error: Exception | SystemExit) -> str:
    """What an error says, in one line of bounded length."""
    if isinstance(error, SystemExit):  # of a script: its status would pass for the command's
        return f"it ends the program, with status {error.code}"
    return " ".join(str(error).split())[:200] or type(error).__name__
