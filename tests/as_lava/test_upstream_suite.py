"""lava-dl's own tests of its slayer, as they lie in its wheel, run on this library's slayer.

They are run where there is no Lava at all: ``lava.lib.dl.slayer`` can be nothing but ours. Those
that run Lava itself are recorded (tests/reference/run_runtime_tests.py).
"""

import ast
import json
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ..conftest import missing_reference

FOLDER = "tests/lava/lib/dl/slayer/"
OBJECT_DETECTION = "object_detection/"  # no part of slayer here

# How many tests each file has; lava-dl 0.6.0 has 94 besides object detection.
TESTS = {
    "neuron/dynamics/test_adaptive_phase_th.py": 6,
    "neuron/dynamics/test_adaptive_resonator.py": 6,
    "neuron/dynamics/test_adaptive_threshold.py": 5,
    "neuron/dynamics/test_leaky_integrator.py": 5,
    "neuron/dynamics/test_resonator.py": 5,
    "neuron/test_adrf.py": 7,
    "neuron/test_adrf_iz.py": 7,
    "neuron/test_alif.py": 7,
    "neuron/test_cuba.py": 7,
    "neuron/test_rf.py": 7,
    "neuron/test_rf_iz.py": 7,
    "neuron/test_sigma_delta.py": 5,
    "test_io.py": 4,
    "test_loss.py": 3,
    "utils/filter/test_conv_filter.py": 2,
    "utils/test_recurrent.py": 1,
    "utils/time/test_replicate.py": 1,
    "utils/time/test_shift.py": 3,
}

RUNS_THE_NET = "runs the exported net in lava.magma"
LOADS_THE_FILE = "loads the exported file with lava.lib.dl.netx"
IMPORTS_NETX = "needs no Lava itself, but its file imports lava.lib.dl.netx"
RUNTIME_TESTS = {
    "block/test_cuba.py::TestCUBA::test_affine_block_hdf5_export_dynamics_false": LOADS_THE_FILE,
    "block/test_cuba.py::TestCUBA::test_affine_block_hdf5_export_dynamics_true": IMPORTS_NETX,
    "block/test_cuba.py::TestCUBA::test_dense_block": RUNS_THE_NET,
    "block/test_cuba.py::TestCUBA::test_conv_block": RUNS_THE_NET,
    "block/test_sigma_delta.py::TestSDN::test_dense_block": RUNS_THE_NET,
    "block/test_sigma_delta.py::TestSDN::test_conv_block": RUNS_THE_NET,
}
RECORD = Path(__file__).parents[1] / "data" / "runtime_tests.json"


@dataclass
class Suite:
    folder: Path
    passed: list[str]  # the file of each
    others: dict[str, str]  # a test, or a file that can't be imported: what happened


@pytest.fixture(scope="module")
def suite(run_in, tmp_path_factory) -> Suite:
    """A copy of the tests, because some write beside themselves, run once."""
    try:
        files = distribution("lava-dl").files or []
    except PackageNotFoundError as error:
        missing_reference(f"lava-dl 0.6.0 is not installed ({error}); `make test` installs it")
        raise
    folder = tmp_path_factory.mktemp("upstream")
    for file in files:
        name = str(file).removeprefix(FOLDER)
        if str(file).startswith(FOLDER) and file.suffix == ".py" and OBJECT_DETECTION not in name:
            target = folder / "slayer" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), target)
    # They draw their own seeds, and of some a decay of 0, by which a test of theirs divides.
    (folder / "conftest.py").write_text(
        "import numpy, torch\nnumpy.random.seed(1)\ntorch.manual_seed(1)\n"
    )
    # Python's own -m lava_bridge.as_lava -m pytest: nothing of pytest or of the tests is changed.
    pytest_options = ["-p", "no:cacheprovider", "--continue-on-collection-errors"]
    command = ["-m", "lava_bridge.as_lava", "-m", "pytest", *pytest_options]
    done = run_in(folder, *command, "--junitxml=results.xml", "slayer")
    assert (folder / "results.xml").is_file(), done.stdout + done.stderr
    passed, others = [], {}
    for case in ElementTree.parse(folder / "results.xml").iter("testcase"):
        place = f"{case.get('classname')}.{case.get('name')}".strip(".")
        module, _, test = place.removeprefix("slayer.").partition(".Test")
        file = module.replace(".", "/") + ".py"
        if len(case):
            others[f"{file}::Test{test}" if test else file] = f"{case[0].tag}: {case[0].text}"
        else:
            passed.append(file)
    return Suite(folder, passed, others)


def test_all_of_lava_dls_tests_pass_but_those_that_need_lavas_runtime(suite):
    files_left_out = {name.partition("::")[0] for name in RUNTIME_TESTS}
    unexpected = {name: why for name, why in suite.others.items() if name not in files_left_out}
    assert not unexpected, "\n\n".join(f"{name}: {why}" for name, why in unexpected.items())
    assert {file: suite.passed.count(file) for file in suite.passed} == TESTS
    assert len(suite.passed) == 88
    assert len(suite.passed) + len(RUNTIME_TESTS) == 94


def test_those_left_out_are_all_of_the_two_files_that_import_lavas_runtime(suite):
    assert {name.partition("::")[0] for name in RUNTIME_TESTS} == set(suite.others)
    for file, why in suite.others.items():
        assert "ModuleNotFoundError: lava.lib.dl.netx: not in lava_bridge" in why
        tree = ast.parse((suite.folder / "slayer" / file).read_text())
        tests = {
            f"{file}::{group.name}::{test.name}"
            for group in tree.body
            if isinstance(group, ast.ClassDef)
            for test in group.body
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test")
        }
        assert tests == {name for name in RUNTIME_TESTS if name.startswith(file)}


def test_those_left_out_passed_on_lavas_runtime_when_they_were_recorded():
    record = json.loads(RECORD.read_text())
    assert record["tests"] == dict.fromkeys(RUNTIME_TESTS, "passed")
    assert record["modules"]["slayer"] == "lava_bridge.slayer"
    assert record["modules"]["netx"] == "lava.lib.dl.netx"
    assert record["versions"]["lava-dl"] == "0.6.0"
