"""Pythons to run: one that has no Lava, and a stand-in for an installed Lava."""

import os
import re
import site
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What an installed Lava consists of, and what changes the path; all else of site-packages stays.
LEFT_OUT = re.compile(r"lava|lava_(dl|nc)-.*|tests|.*\.pth")

Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def run_in(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run ``python ARGS`` in a folder, where there is no Lava.

    ``-S`` leaves site-packages out; links to all but Lava are on the path instead, after what is
    ``first``. A warning that the wrong module is run is an error.
    """
    links = tmp_path_factory.mktemp("no-lava")
    for packages in site.getsitepackages():
        for entry in Path(packages).iterdir():
            if not LEFT_OUT.fullmatch(entry.name):
                (links / entry.name).symlink_to(entry)
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)  # a second SpikingJelly, say

    def run(cwd: Path, *args: str | Path, first: Path | None = None) -> subprocess.CompletedProcess:
        path = [*filter(None, [first, *inherited]), links, ROOT]
        return subprocess.run(
            [sys.executable, "-S", "-W", "error::RuntimeWarning:runpy", *map(str, args)],
            cwd=cwd,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(map(str, path)),
                "OMP_NUM_THREADS": "1",
                "MPLBACKEND": "agg",
            },
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def run(run_in: Run, tmp_path: Path) -> Run:
    """``run_in`` the test's own folder."""
    return partial(run_in, tmp_path)


@pytest.fixture
def other_lava(tmp_path: Path) -> Path:
    """A folder with a Lava that is not ours, whose parts import each other."""
    folder = tmp_path / "installed"
    for name, code in {
        "lib/dl/slayer": "here = 'other'",
        "lib/dl/slayer/block": "",
        "lib/dl/netx": "from lava.lib.dl import slayer",
        "magma": "",
        "proc/conv": "",
        "proc/conv/process": "from lava import magma",
    }.items():
        package = folder / "lava" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(code)
    return folder
