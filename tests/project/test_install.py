"""Installing where there is no compiler."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ["setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "cuda", "lava_bridge"]

pytest.importorskip("setuptools", reason="setuptools is not installed: nothing to build with")


def run(where: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=where,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_without_a_compiler_the_build_succeeds_and_says_what_is_missing(tmp_path):
    for name in NEEDED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("*.so", "__pycache__")
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    none = {"CC": "/bin/false", "CXX": "/bin/false"}
    built = run(tmp_path, "setup.py", "-q", "build_ext", "--inplace", **none)
    assert built.returncode == 0, built.stderr
    assert "_native" in built.stderr  # setuptools' warning names what it could not build
    assert not list(tmp_path.rglob("*.so"))
    code = (
        "import torch, lava_bridge; print(lava_bridge.__file__, lava_bridge.backends()['native']);"
        "neuron = lava_bridge.slayer.neuron.cuba.Neuron(1.0, 0.25, 0.1);"
        "print(neuron(torch.ones(1, 2, 9)).sum())"
    )
    done = run(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout
    assert "missing: the CPU kernels are not built" in done.stdout
    assert "slower torch reference" in done.stderr
