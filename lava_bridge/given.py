"""What the command line is given: the net that a user's function builds, and arrays in files."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
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
    except Exception as error:  # whatever the user's code raises
        raise BridgeError(f"{factory}: can't build the net: {_one_line(error)}") from error
    if not isinstance(net, torch.nn.Module):
        raise BridgeError(
            f"{factory}: gave an object of type {type(net).__name__}, not a net; return an "
            "nn.Sequential"
        )
    if weights is not None:
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            net.load_state_dict(state)
        except Exception as error:  # whatever a foreign file makes of torch's reader
            raise BridgeError(
                f"{weights}: can't be loaded into the net of {factory} ({_one_line(error)}); save "
                "it with torch.save(net.state_dict(), ...)"
            ) from error
    return net.eval()


def _factory(name: str) -> Callable[[], Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise BridgeError(f"{name}: expected MODULE:FACTORY, such as mynet:build")
    try:
        module = _import(module_name)
        factory = getattr(module, attribute)
    except Exception as error:  # whatever the user's module raises
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
        if "" not in sys.path:
            sys.path.insert(0, "")
        return importlib.import_module(module_name)
    path = Path(module_name)
    if not path.is_file():
        raise ImportError(f"there is no file {module_name}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def load_array(path: str, mapped: bool = False) -> "np.ndarray":
    """The numbers of an .npy file; ``mapped``: left on the disk until they are used."""
    import numpy as np

    try:
        x = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except Exception as error:  # whatever a foreign file makes of NumPy's reader
        # What NumPy does not know it takes for a pickle, and advises to allow that: never here.
        reason = "it is no .npy file of numbers" if "pickle" in str(error) else _one_line(error)
        raise BridgeError(
            f"{path}: can't be read as a NumPy array ({reason}); save it with numpy.save"
        ) from error
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
        raise BridgeError(f"{path}: is no array of numbers; save one with numpy.save")
    return x


def _one_line(error: Exception) -> str:
    """What an error says, in one line of bounded length."""
    return " ".join(str(error).split())[:200] or type(error).__name__
