"""lava_bridge: from SpikingJelly's trained nets to Lava's slayer blocks and Loihi's .net files.

>>> import lava_bridge
>>> blocks = lava_bridge.to_slayer(net, input_shape=(1, 8, 8))
>>> lava_bridge.export_hdf5(blocks, "digits.net")

The parts: ``slayer`` (as ``lava.lib.dl.slayer``), ``exchange`` (as SpikingJelly's
``lava_exchange``), ``convert``, ``hdf5``, ``netx`` (runs files with integers), ``proc`` (as
``lava.proc``), ``chip``, ``verify``;
``as_lava`` lets programs written for Lava's slayer import this one. ``backends`` says which kernels
there are, ``use_backend`` picks one; ``memory.keep_memory`` spares a CPU page faults.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import BridgeError, ConversionError, NetFileError
from .layout import NXT_to_TNX, TNX_to_NXT

if TYPE_CHECKING:
    from . import (
        convert as convert,
        exchange as exchange,
        netx as netx,
        proc as proc,
        slayer as slayer,
    )
    from .as_lava import as_lava as as_lava
    from .convert import to_slayer as to_slayer, to_spikingjelly as to_spikingjelly
    from .encoder import Encoder
    from .hdf5 import export_hdf5, load_hdf5
    from .kernels import backends, use_backend
    from .verify import EquivalenceReport, check_equivalence

__version__ = "0.1.0"

__all__ = [
    "BridgeError",
    "ConversionError",
    "Encoder",
    "EquivalenceReport",
    "NXT_to_TNX",
    "NetFileError",
    "TNX_to_NXT",
    "as_lava",
    "backends",
    "check_equivalence",
    "convert",
    "exchange",
    "export_hdf5",
    "load_hdf5",
    "netx",
    "proc",
    "slayer",
    "to_slayer",
    "to_spikingjelly",
    "use_backend",
]

# Loaded when first used, so that slayer and the files work where SpikingJelly is not installed.
_LAZY = {
    "as_lava": "as_lava",
    "backends": "kernels",
    "use_backend": "kernels",
    "Encoder": "encoder",
    "convert": "convert",
    "exchange": "exchange",
    "netx": "netx",
    "proc": "proc",
    "slayer": "slayer",
    "to_slayer": "convert",
    "to_spikingjelly": "convert",
    "export_hdf5": "hdf5",
    "load_hdf5": "hdf5",
    "check_equivalence": "verify",
    "EquivalenceReport": "verify",
    **{name: name for name in ("chip", "encoder", "hdf5", "html_report", "memory", "verify")},
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_LAZY[name]}")
    value = module if name == _LAZY[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
