"""The other side of the exchange: SpikingJelly's own ``lava_exchange``, whole."""

import importlib
from types import ModuleType

import pytest

from lava_bridge import slayer


@pytest.fixture(scope="session")
def sj(lava: ModuleType) -> ModuleType:
    """``spikingjelly.activation_based.lava_exchange``; half of it exists only beside lava."""
    from spikingjelly.activation_based import lava_exchange

    if getattr(lava_exchange, "slayer", None) is not lava:
        importlib.reload(lava_exchange)  # imported before lava, without its lower half
    return lava_exchange


@pytest.fixture(scope="session", params=["ours", "lavas"])
def which(request: pytest.FixtureRequest, lava: ModuleType) -> ModuleType:
    """The slayer that is converted to: this library's, and the original."""
    return slayer if request.param == "ours" else lava
