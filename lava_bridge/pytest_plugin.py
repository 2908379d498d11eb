"""A pytest plugin: the fixture ``assert_equivalent``, and its options.

pytest finds it where lava_bridge is installed. Only a test that uses the fixture imports torch.
"""

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .report import EquivalenceReport

__all__ = ["assert_equivalent", "report_name"]

# A file's name of more characters is cut: file systems hold 255 bytes, and a suffix follows.
NAME_LENGTH = 120


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share from 0 to 1, such as 0.01, found {text!r}")
    return share


def _given(max_drift: Any) -> float:
    try:
        return _share(str(float(max_drift)))
    except (TypeError, ValueError):
        raise ValueError(
            f"assert_equivalent: max_drift: expected a share from 0 to 1, such as 0.01, found "
            f"{max_drift!r}"
        ) from None


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lava_bridge", "equivalence of spiking nets (lava_bridge)")
    group.addoption(
        "--lava-max-drift",
        metavar="SHARE",
        help="largest share of spike places in which a float net may differ from a quantised one, "
        "0 to 1; max_drift= of a call goes first (ini: lava_max_drift)",
    )
    group.addoption(
        "--lava-report",
        metavar="DIR",
        help="folder for an HTML page of each equivalence that fails (ini: lava_report)",
    )
    parser.addini("lava_max_drift", "as --lava-max-drift, which goes first", default="")
    parser.addini("lava_report", "as --lava-report, which goes first", default="")


def pytest_configure(config: pytest.Config) -> None:
    try:
        _tolerance(config)
    except ValueError as error:
        raise pytest.UsageError(f"--lava-max-drift, lava_max_drift: {error}") from None


def _tolerance(config: pytest.Config) -> float | None:
    given = config.getoption("lava_max_drift")
    text = config.getini("lava_max_drift") if given is None else given
    return _share(text) if text else None


def _folder(config: pytest.Config) -> Path | None:
    """Where reports go: the option from where pytest was called, the ini from its file."""
    if given := config.getoption("lava_report"):
        return Path(config.invocation_params.dir, given)
    if given := config.getini("lava_report"):
        return Path(config.rootpath if config.inipath is None else config.inipath.parent, given)
    return None


def report_name(nodeid: str, call: int = 1) -> str:
    """The name of a report's file, of a test and its ``call``-th comparison.

    Letters, digits, dots and hyphens, of bounded length; other tests' names differ, also where case
    does not count and where several workers (pytest-xdist) write into one folder.
    """
    readable = re.sub(r"[^A-Za-z0-9_.]+", "-", nodeid).strip("-.")[-NAME_LENGTH:].lstrip("-.")
    digest = hashlib.sha256(nodeid.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{readable or 'test'}-{digest}{'' if call == 1 else f'-{call}'}.html"


@pytest.fixture(scope="session")
def assert_equivalent(request: pytest.FixtureRequest) -> Callable[..., "EquivalenceReport"]:
    """Assert that two nets give the same spikes: ``assert_equivalent(a, b, x, max_drift=None)``.

    Runs :func:`lava_bridge.check_equivalence` with what it takes (``layout``, ``batch_size``,
    ``integers``) and returns its report. Two quantised nets must agree in every spike, whatever
    the tolerance. A float net may differ in a share of at most ``max_drift`` of the spike places of
    all layers; by default that of the option ``--lava-max-drift`` or the ini ``lava_max_drift``.

    Raises:
        AssertionError: If they differ by more; it holds the report, and the path of its HTML page
            where ``--lava-report`` or the ini ``lava_report`` names a folder.
        BridgeError: If the nets can't be compared.
    """
    config, calls = request.config, Counter[str]()

    def assert_equivalent(
        a: Any, b: Any, x: Any, *, max_drift: float | None = None, **options: Any
    ) -> "EquivalenceReport":
        __tracebackhide__ = True
        from .verify import check_equivalence

        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
        calls[test] += 1
        tolerance = _tolerance(config) if max_drift is None else _given(max_drift)
        folder = _folder(config)
        page = folder and folder / report_name(test, calls[test])
        if page is not None and page.is_file():
            page.unlink()  # of an earlier run
        report = check_equivalence(a, b, x, **options)
        if fault := _fault(report, tolerance):
            written = "" if page is None else f"\n{_write(report, page, test)}"
            raise AssertionError(f"{fault}\n{report}{written}")
        return report

    return assert_equivalent


def _fault(report: "EquivalenceReport", tolerance: float | None) -> str | None:
    """Why a report fails the test, in one line; None where it does not."""
    if report.claim == "exact":
        return None if report.ok else "the nets are not equivalent: every spike has to be the same"
    if tolerance is None:
        return (
            f"{report.a} against {report.b} is no exact claim, and no drift is allowed yet: "
            f"{report.drift:.4%} was measured; give max_drift=, --lava-max-drift or the ini "
            "lava_max_drift"
        )
    if report.drift <= tolerance:
        return None
    return f"the drift of {report.drift:.4%} is larger than the {tolerance:.4%} allowed"


def _write(report: "EquivalenceReport", page: Path, title: str) -> str:
    """Write a report's page; what is said of it. A failed test stays one if that fails."""
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        report.save_html(page, title=title)
    except (OSError, ValueError) as error:
        return f"report: {page} can't be written ({error})"
    return f"report: {page}"
