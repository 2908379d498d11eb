"""What all tests share: the real frameworks as references, and reproducible randomness."""

import importlib.util
import os
import sys
import types
import warnings
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, settings

# Set by `make test`: a missing reference is then a failure, not a skip.
REFERENCES_REQUIRED = os.environ.get("LAVA_BRIDGE_REFERENCES") == "required"

# Where `make` installs lava-nc, out of Python's sight; another folder may be named.
LAVA_NC = Path(os.environ.get("LAVA_BRIDGE_LAVA_NC", Path(sys.prefix) / "lava-nc-0.10.0"))

# lava.lib.dl.slayer imports an object detection package that wants these; slayer itself does not.
_STAND_INS = (
    "torchvision",
    "torchvision.ops",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "cv2",
)

# The tests' tensors are small: more threads would only wait for each other.
torch.set_num_threads(1)

# Other numbers than the usual ones, to look for a test that passes by luck.
SEED = int(os.environ.get("LAVA_BRIDGE_SEED", "0"))

settings.register_profile(
    "bridge",
    deadline=None,
    derandomize=SEED == 0,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("bridge")


def pytest_report_header() -> list[str]:
    return [f"torch {torch.__version__}, SpikingJelly {version('spikingjelly')}"]


def pytest_sessionstart() -> None:
    """`make test` runs once for each SpikingJelly line: make sure that it is the one meant."""
    meant = os.environ.get("LAVA_BRIDGE_SPIKINGJELLY")
    if meant and version("spikingjelly") != meant:
        pytest.exit(f"SpikingJelly {version('spikingjelly')} is in use, not {meant}", returncode=1)


def pytest_collectstart() -> None:
    """What a test module makes while it is imported, as parameters, is the same in every run."""
    torch.manual_seed(SEED)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(SEED)


def traced_since(torch_version: str) -> pytest.MarkDecorator:
    """For tests of torch.compile, torch.export or torch.fx that an older torch can't follow."""
    older = torch.__version__ < torch_version  # by versions, not by letters
    reason = f"torch {torch_version} and newer trace this, found {torch.__version__}"
    return pytest.mark.skipif(older, reason=reason)


def on_a_gpu() -> list[pytest.MarkDecorator]:
    """The marks of tests that need a GPU; where there is none they are skipped with a reason."""
    from lava_bridge.kernels import cupy

    missing = cupy.missing()
    skipped = pytest.mark.skipif(missing is not None, reason=f"no GPU's kernels: {missing}")
    return [pytest.mark.gpu, skipped]


def missing_reference(reason: str) -> None:
    """Fail where references are required, skip elsewhere."""
    if REFERENCES_REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


def import_lava_slayer() -> ModuleType:
    """The real ``lava.lib.dl.slayer``, imported past what it does not need."""
    before = {name: sys.modules.get(name) for name in _STAND_INS}
    for name in _STAND_INS:
        sys.modules[name] = types.ModuleType(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import lava.lib.dl.slayer as slayer
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
    return slayer


@pytest.fixture(scope="session")
def lava() -> ModuleType:
    """The real ``lava.lib.dl.slayer`` of lava-dl 0.6.0."""
    try:
        return import_lava_slayer()
    except ImportError as error:
        missing_reference(f"lava-dl 0.6.0 is not installed ({error}); `make test` installs it")
        raise


@pytest.fixture(scope="session")
def lava_block(lava: ModuleType) -> ModuleType:
    """The real ``lava.lib.dl.slayer.block.cuba``."""
    return lava.block.cuba


def import_lava_conv() -> ModuleType:
    """The real ``lava.proc.conv.utils``, the only part of lava-nc that newer Pythons can import."""
    path = LAVA_NC / "lava" / "proc" / "conv" / "utils.py"
    if not path.is_file():
        raise ImportError(f"there is no {path}")
    spec = importlib.util.spec_from_file_location("lava_nc_conv_utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def lava_conv() -> ModuleType:
    """The real ``lava.proc.conv.utils`` of lava-nc 0.10.0."""
    try:
        return import_lava_conv()
    except ImportError as error:
        missing_reference(f"lava-nc 0.10.0 is not installed ({error}); `make test` installs it")
        raise
