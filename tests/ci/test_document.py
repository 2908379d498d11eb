"""docs/ci.md is true: its net, its tests and its workflow's commands run as they stand there."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lava_bridge
from lava_bridge.cli import main

pytest_plugins = "pytester"
ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return code


@pytest.fixture
def folder(pytester, monkeypatch) -> Path:
    """The repository that the document describes."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # installed or not: it is named
    pytester.makefile(".ini", pytest=block("ini"))
    pytester.makepyfile(mynet=block("python"), **{"tests/test_net": block("py")})
    made: dict[str, Any] = {}
    exec(block("python"), made)
    net = made["build"]()
    for parameter in net.parameters():
        parameter.data *= 6
    torch.save(net.state_dict(), "weights.pt")
    lava_bridge.export_hdf5(lava_bridge.to_slayer(net, (1, 8, 8)), "net.net")
    spikes = np.random.default_rng(0).random((12, 4, 1, 8, 8)) < 0.4
    np.save("spikes.npy", spikes.astype("f4"))
    return pytester.path


def commands(program: str) -> list[list[str]]:
    """The workflow's command lines of a program."""
    lines = re.findall(rf"^ *(?:run: )?({program} .*)$", block("yaml"), re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_the_workflows_commands_prove_the_net_of_the_document(folder, pytester, monkeypatch):
    monkeypatch.delitem(sys.modules, "mynet", raising=False)  # of another document or test
    ((*_, pytest_, tests, maximum, share, report, reports),) = commands("python")
    assert pytest_ == "pytest"
    test = (tests, maximum, share, report, reports, "-p", "lava_bridge.pytest_plugin")
    ((_, *verify),) = commands("lava-bridge")
    pytester.syspathinsert(folder)  # as `python -m pytest` does
    pytester.runpytest_inprocess(*test).assert_outcomes(passed=2)
    assert not (folder / reports).exists()
    (folder / reports).mkdir()
    assert status(verify) == 0
    assert "Exact" in (folder / reports / "net.html").read_text()

    weights = torch.load("weights.pt", weights_only=True)
    torch.save({name: weight * 2 for name, weight in weights.items()}, "weights.pt")
    pytester.runpytest_inprocess(*test).assert_outcomes(failed=2)
    assert len(list((folder / reports).glob("tests-test_net.py-test_the_*.html"))) == 2
    assert status(verify) == 1


def status(arguments: list[str]) -> int:
    """The exit status of the command line."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


def test_the_shells_command_is_the_workflows():
    ((_, *verify),) = commands("lava-bridge")
    assert shlex.join(verify) in block("sh")
