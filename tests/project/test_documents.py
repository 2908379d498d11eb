"""The documents are true: their code runs, what they name exists."""

import re
import textwrap
from pathlib import Path

import pytest

from tests.forked import python

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "cuda/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
CODE = [
    pytest.param(textwrap.dedent(code), id=f"{path.name}-{i}")
    for path in DOCUMENTS[1:]
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("code", CODE)
def test_the_code_in_the_documents_runs(code, tmp_path):
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_readmes_example_has_fifteen_lines_and_proves_the_file_exact(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 16
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "exact: all" in done.stdout
    assert "drift:" in done.stdout
    assert (tmp_path / "net.net").is_file()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_the_commands_of_the_readme_are_targets_of_the_makefile():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named == {"demo", "test", "lint", "bench", "nets", "sanitize", "oldest"}
    assert named <= targets
    assert "make test" in (ROOT / ".ci" / "run").read_text()
