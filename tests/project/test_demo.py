"""The demo does what the README says that it does."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lava_bridge

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, str]:
    """The example, run in an empty folder: the folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "digits.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def test_the_demo_learns_the_digits_and_keeps_what_it_learned(demo):
    _, printed = demo
    found = re.search(r"450 test digits: ([\d.]+)% right float, ([\d.]+)% from the file", printed)
    before, after = map(float, found.groups())
    assert before > 93
    assert after > before - 3


def test_the_demo_proves_every_layer_on_the_whole_test_set(demo):
    out, printed = demo
    rows = re.findall(
        r"│ (\d \w+) +│ ([\dx]+) +│ [\d.]+% +│ (\d+) of ([\d,]+) +│ (\d+) +│ (\d+) ", printed
    )
    assert [row[0] for row in rows] == ["1 Conv", "2 Conv", "4 Dense"]
    for _, shape, mismatches, places, file_mismatches, integer_mismatches in rows:
        neurons = int(np.prod([int(n) for n in shape.split("x")]))
        assert int(places.replace(",", "")) == neurons * 450 * 16
        assert mismatches == file_mismatches == integer_mismatches == "0"
    blocks = lava_bridge.load_hdf5(out / "digits.net")
    x = torch.from_numpy(np.load(out / "digits.npy"))
    assert x.shape == (16, 450, 1, 8, 8)
    assert lava_bridge.TNX_to_NXT(x).shape[1:-1] == blocks[0].shape


def test_the_demo_draws_its_picture(demo):
    out, _ = demo
    picture = (out / "digits.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 50_000
