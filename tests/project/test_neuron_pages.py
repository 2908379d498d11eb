"""Each neuron family has a page that names its parameters as they are, and a picture."""

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "neurons"
SCRIPT = ROOT / "examples" / "neuron_responses.py"

# What a neuron can be made with, of a page's required parameters.
REQUIRED = {
    "threshold": 1.25,
    "threshold_step": 0.5,
    "current_decay": 0.25,
    "voltage_decay": 0.125,
    "period": 10,
    "decay": 0.125,
    "threshold_decay": 0.125,
    "refractory_decay": 0.25,
    "activation": torch.relu,
}


def families() -> list[str]:
    """The modules of slayer.neuron that have a Neuron, but for the base class's."""
    folder = ROOT / "lava_bridge" / "slayer" / "neuron"
    names = [path.stem for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")]
    return [name for name in names if name != "base" and hasattr(module(name), "Neuron")]


def module(name):
    return import_module(f"lava_bridge.slayer.neuron.{name}")


def sections(name: str) -> dict[str, str]:
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))


def table(section: str) -> list[list[str]]:
    """The rows of a section's table, without its head."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def in_backticks(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def first_column(section: str) -> list[str]:
    return [name for row in table(section) for name in in_backticks(row[0])]


def made(name: str):
    """A family's neuron, of what its constructor requires."""
    neuron = module(name).Neuron
    empty = inspect.Parameter.empty
    parameters = inspect.signature(neuron).parameters.values()
    return neuron(**{p.name: REQUIRED[p.name] for p in parameters if p.default is empty})


def test_there_are_seven_families():
    expected = {"cuba", "rf", "rf_iz", "alif", "adrf", "adrf_iz", "sigma_delta"}
    assert set(families()) == expected


@pytest.mark.parametrize("name", families())
def test_a_page_has_an_equation_and_a_picture_that_exists(name):
    page = sections(name)
    assert re.search(r"```math\n.*?```", page["Equation"], re.DOTALL)
    (picture,) = re.findall(r"!\[.+?\]\((.+?)\)", page["Response"])
    assert Path(picture).name == f"neuron-{name}.png"
    assert 1000 < (PAGES / picture).stat().st_size < 60_000


@pytest.mark.parametrize("name", families())
def test_a_page_lists_the_parameters_of_the_constructor_with_their_defaults(name):
    section = sections(name)["Parameters"]
    parameters = inspect.signature(module(name).Neuron).parameters
    assert sorted(first_column(section)) == sorted(parameters)
    for row in table(section):
        for parameter in in_backticks(row[0]):
            default = parameters[parameter].default
            if default is inspect.Parameter.empty:
                assert row[-1] == "required"
            else:
                assert in_backticks(row[-1]) == [repr(default)], parameter


@pytest.mark.parametrize("name", families())
def test_a_page_lists_the_keys_of_device_params_and_where_they_are_from(name):
    section = sections(name)["Device parameters"]
    device_params = made(name).device_params
    assert sorted(first_column(section)) == sorted(device_params)
    parameters = inspect.signature(module(name).Neuron).parameters
    for row in table(section):
        assert set(in_backticks(row[-1])) <= set(parameters)
    kinds = [row[2] for row in table(section) if row[0] == "`type`"]
    assert kinds == [f'`"{device_params["type"]}"`']


def test_the_overview_has_every_family_with_its_page_blocks_and_device_type():
    rows = table((PAGES / "README.md").read_text(encoding="utf-8").split("The states:")[0])
    pages = [re.search(r"\]\((.+?)\.md\)", row[0]).group(1) for row in rows]
    assert sorted(pages) == sorted(families())
    for name, (*_, blocks, kind) in zip(pages, rows, strict=True):
        assert in_backticks(blocks) == [f"block.{name}"]
        assert in_backticks(kind) == [made(name).device_params["type"]]


def test_the_script_draws_a_picture_and_draws_it_the_same_twice(tmp_path):
    pytest.importorskip("matplotlib")
    pictures = []
    for folder in ("first", "second"):
        command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / folder), "rf_iz"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        (picture,) = (tmp_path / folder).iterdir()
        assert picture.name == "neuron-rf_iz.png"
        pictures.append(picture.read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")


def test_the_scripts_help_has_an_example():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Example:" in done.stdout
