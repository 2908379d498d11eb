"""The pytest plugin: exact claims must hold, drift stays within the tolerance, reports are kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lava_bridge.pytest_plugin import NAME_LENGTH, report_name

from .nets import NETS

pytest_plugins = "pytester"
ROOT = Path(__file__).resolve().parents[2]

EXACT = "def test_exact(assert_equivalent):\n    assert assert_equivalent(TWIN, BLOCKS, X).ok\n"
BROKEN = (
    "def test_broken(assert_equivalent):\n    assert_equivalent(TWIN, OTHER, X, max_drift=1.0)\n"
)
DRIFT = "def test_drift(assert_equivalent):\n    assert_equivalent(FLOAT, BLOCKS, X{})\n"


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs tests with the plugin and no other; in this process, which has torch already."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(tests: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_net=f"{NETS}\n{tests}")
        plugins = ("-p", "lava_bridge.pytest_plugin", "-p", "no:cacheprovider")
        return pytester.runpytest_inprocess(*plugins, *options)

    return run


def test_an_equivalence_that_holds_passes_and_gives_the_report(run, pytester):
    result = run(EXACT, "--lava-report", "reports")
    result.assert_outcomes(passed=1)
    assert not (pytester.path / "reports").exists()


def test_the_keywords_of_check_equivalence_are_passed_on(run):
    run(
        "def test_file(assert_equivalent, tmp_path):\n"
        "    lava_bridge.export_hdf5(BLOCKS, tmp_path / 'n.net')\n"
        "    x = lava_bridge.TNX_to_NXT(X)\n"
        "    report = assert_equivalent(\n"
        "        TWIN, tmp_path / 'n.net', x, layout='NXT', integers=True, batch_size=3)\n"
        "    assert 'integers' in report.b\n"
    ).assert_outcomes(passed=1)


def test_quantised_nets_that_differ_fail_whatever_the_tolerance(run):
    result = run(BROKEN, "--lava-max-drift", "1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*AssertionError: the nets are not equivalent*", "*first divergence*", "*NOT exact: *"]
    )
    assert "pytest_plugin.py" not in result.stdout.str()  # the fault is shown in the user's test


def test_drift_without_a_tolerance_fails_and_says_how_to_give_one(run):
    result = run(DRIFT.format(""))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no drift is allowed yet*give max_drift=, --lava-max-drift*"])


@pytest.mark.parametrize(
    ("call", "option", "ini", "passes"),
    [
        ("", None, "1.0", True),
        ("", None, "0.0001", False),
        ("", "1.0", "0.0001", True),
        ("", "0", "1.0", False),
        (", max_drift=1.0", "0", None, True),
        (", max_drift=0", "1.0", "1.0", False),
    ],
)
def test_the_call_goes_before_the_option_and_that_before_the_ini(
    run, pytester, call, option, ini, passes
):
    if ini is not None:
        pytester.makeini(f"[pytest]\nlava_max_drift = {ini}\n")
    options = () if option is None else ("--lava-max-drift", option)
    result = run(DRIFT.format(call), *options)
    result.assert_outcomes(passed=int(passes), failed=int(not passes))
    if not passes:
        result.stdout.fnmatch_lines(["*the drift of * is larger than the * allowed*"])


@pytest.mark.parametrize("text", ["much", "nan", "-0.1", "1.5", "5%"])
def test_a_tolerance_that_is_no_share_is_one_line(run, text):
    result = run(EXACT, f"--lava-max-drift={text}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *expected a share from 0 to 1*'{text}'*"])


@pytest.mark.parametrize("where", ["option", "ini"])
def test_a_failure_leaves_a_page_named_after_the_test_and_a_later_pass_removes_it(
    run, pytester, where
):
    if where == "ini":
        pytester.makeini("[pytest]\nlava_report = kept/reports\n")
    options = ("--lava-report", "kept/reports") if where == "option" else ()
    twice = (
        "@pytest.mark.parametrize('name', ['a/b'])\n"
        "def test_twice(assert_equivalent, name):\n"
        "    for other in (OTHER, OTHER):\n"
        "        with pytest.raises(AssertionError, match='report: '):\n"
        "            assert_equivalent(TWIN, other, X)\n"
    )
    result = run(BROKEN + twice, *options)
    result.assert_outcomes(passed=1, failed=1)
    names = {"test_net.py::test_broken": 1, "test_net.py::test_twice[a/b]": 2}
    expected = {report_name(i, call + 1) for i, calls in names.items() for call in range(calls)}
    folder = pytester.path / "kept" / "reports"
    assert set(os.listdir(folder)) == expected
    page = folder / report_name("test_net.py::test_broken")
    result.stdout.fnmatch_lines([f"*report: {page}"])
    assert "Not exact" in page.read_text()
    run(BROKEN.replace("OTHER", "BLOCKS"), *options).assert_outcomes(passed=1)
    assert not page.exists()


def test_a_page_that_cannot_be_written_hides_no_failure(run, pytester):
    (pytester.path / "reports").write_text("a file")
    result = run(BROKEN, "--lava-report", "reports")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*NOT exact: *", "*report: *can't be written*"])


def test_fixtures_of_any_scope_and_hypothesis_may_use_it(run, pytester):
    run(
        "import pytest\n"
        "from hypothesis import given, strategies as st\n"
        "@pytest.fixture(scope='module')\n"
        "def proved(assert_equivalent):\n"
        "    return assert_equivalent(TWIN, BLOCKS, X)\n"
        "def test_module(proved):\n"
        "    assert proved.ok\n"
        "@given(st.integers(0, 3))\n"
        "def test_drawn(assert_equivalent, seed):\n"
        "    assert assert_equivalent(TWIN, BLOCKS, X).ok\n"
    ).assert_outcomes(passed=2)
    both = "    for net in (TWIN, BLOCKS):\n        try:\n"
    both += "            assert_equivalent(net, OTHER, X)\n"
    both += "        except AssertionError:\n            pass\n"
    tests = "".join(f"def test_{k}(assert_equivalent):\n{both}" for k in "ab")
    run(tests, "--lava-report", "reports").assert_outcomes(passed=2)
    names = [f"test_net.py::test_{k}" for k in "ab"]
    pages = {report_name(name, call) for name in names for call in (1, 2)}
    assert {page.name for page in (pytester.path / "reports").iterdir()} == pages


@pytest.mark.parametrize("given", [50, -0.1, "lots", float("nan"), [0.1]])
def test_a_call_s_tolerance_that_is_no_share_is_one_line(run, given):
    result = run(DRIFT.format(f", max_drift={given!r}".replace("nan", "float('nan')")))
    result.stdout.fnmatch_lines(["*ValueError: assert_equivalent: max_drift: expected a share*"])


def test_names_of_pages_are_plain_bounded_and_differ():
    ids = ["a.py::test[x/y]", "a.py::test[x-y]", "a.py::Test", "a.py::test", "a.py::" + "t" * 999]
    ids += ["../../etc::x", "ä\ud800\0", "a.py::test[C:\\con]"]
    names = [report_name(nodeid, call) for nodeid in ids for call in (1, 2)]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert len(name) < NAME_LENGTH + 30
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert not name.startswith((".", "-"))


def test_an_installed_package_brings_the_fixture_and_imports_torch_only_for_it(tmp_path):
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("lava_bridge", "cuda"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)

    def python(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    python("setup.py", "-q", "egg_info")
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_light.py").write_text(
        "import sys\n\ndef test_light(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.has_plugin('lava_bridge')\n"
        "    heavy = {'torch', 'numpy', 'spikingjelly', 'h5py', 'rich', 'click'}\n"
        "    assert heavy.isdisjoint(sys.modules)\n"
    )
    assert "1 passed" in python("-m", "pytest", "-p", "no:hypothesispytest", "tests")
    assert "assert_equivalent" in python("-m", "pytest", "--fixtures", "tests")
