"""lava-nc's own tests of its convolution, as they lie in its wheel, run on this library's.

They are run where there is no Lava at all. The wheel's test of source and sink is run with them.
"""

import shutil
from xml.etree import ElementTree

from ..conftest import LAVA_NC, missing_reference

TESTS = {
    "proc.conv.test_process.TestConvProcess": ["test_init"],
    "proc.conv.test_utils.TestConv": ["test_conv", "test_conv_saved_data", "test_conv_to_sparse"],
    "proc.io.test_source_sink.TestSendReceive": ["test_source_sink"],
}


def test_all_of_lavas_tests_of_its_convolution_pass(run_in, tmp_path):
    published = LAVA_NC / "tests" / "lava" / "proc"
    if not published.is_dir():
        missing_reference(f"lava-nc 0.10.0 is not in {LAVA_NC}; `make test` installs it")
    shutil.copytree(published / "conv", tmp_path / "proc" / "conv")
    (tmp_path / "proc" / "io").mkdir()
    for name in ("__init__.py", "io/__init__.py", "io/test_source_sink.py"):
        shutil.copy(published / name, tmp_path / "proc" / name)
    # Python's own -m lava_bridge.as_lava -m pytest: nothing of pytest or of the tests is changed.
    command = ["-m", "lava_bridge.as_lava", "-m", "pytest", "-p", "no:cacheprovider"]
    done = run_in(tmp_path, *command, "--junitxml=results.xml", "proc")
    assert (tmp_path / "results.xml").is_file(), done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(tmp_path / "results.xml").iter("testcase"):
        assert not len(case), f"{case.get('name')}: {case[0].tag}: {case[0].text}"
        found.setdefault(case.get("classname", ""), []).append(case.get("name", ""))
    assert {name: sorted(tests) for name, tests in found.items()} == TESTS
