"""Run lava-dl's own tests of its blocks on Lava's runtime, with this library's slayer.

``block/test_cuba.py`` and ``block/test_sigma_delta.py`` of lava-dl 0.6.0 export a block, load the
file with ``lava.lib.dl.netx`` and compare the spikes of a run in ``lava.magma`` with slayer's. Here
``slayer`` is this library's and all else is the real Lava, which needs Python 3.10:

    python3.10 -m venv lava310 && lava310/bin/pip install lava-dl==0.6.0 pytest
    export PYTHONPATH=.
    lava310/bin/python tests/reference/run_runtime_tests.py tests/data/runtime_tests.json

The tests are used as they lie in the installed wheel. The record has the versions and the outcome
of each test; ``tests/as_lava/test_upstream_suite.py`` reads it.
"""

import json
import os
import platform
import shutil
import sys
import tempfile
from importlib.metadata import files, version
from pathlib import Path
from typing import Any

import lava_bridge.as_lava

FOLDER = "tests/lava/lib/dl/slayer/"
MODULES = ("block/test_cuba.py", "block/test_sigma_delta.py")


class Outcomes:
    """A plugin of pytest: keeps what became of each test, and what its module runs on."""

    def __init__(self) -> None:
        self.tests: dict[str, str] = {}
        self.packages: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.tests[report.nodeid] = report.outcome

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        for item in items:
            for name in ("slayer", "netx", "utils", "io"):
                self.packages[name] = getattr(item.module, name).__name__


def main(record: Path) -> int:
    """Run the tests and write the record; the exit status is that of the tests."""
    os.environ.setdefault("MPLBACKEND", "agg")
    import pytest

    # Where lava-nc is installed that is slayer alone.
    lava_bridge.as_lava(replace=True)
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory() as folder:
        # A copy, because the tests write beside themselves.
        for file in files("lava-dl") or ():
            if str(file) in {FOLDER + name for name in MODULES}:
                target = Path(folder) / str(file).removeprefix(FOLDER)
                target.parent.mkdir(exist_ok=True)
                shutil.copy(file.locate(), target)
        os.chdir(folder)
        status = pytest.main(["-p", "no:cacheprovider", *MODULES], plugins=[outcomes])
    record.write_text(
        json.dumps(
            {
                "python": platform.python_version(),
                "versions": {name: version(name) for name in ("lava-dl", "lava-nc", "torch")},
                "lava_bridge": lava_bridge.__version__,
                "modules": outcomes.packages,
                "tests": dict(sorted(outcomes.tests.items())),
            },
            indent=1,
        )
        + "\n"
    )
    return int(status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
