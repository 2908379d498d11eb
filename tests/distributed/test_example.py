"""The example that torchrun starts: two processes come to the weights of one."""

import importlib.util
import re
import subprocess
import sys

import torch
from click.testing import CliRunner

from . import ranks

EXAMPLE = ranks.ROOT / "examples" / "ddp_digits.py"
# Few steps: sums in another order may flip a spike, and from there on the weights part.
OPTIONS = ("--steps", "3", "--batch", "32")


def test_two_ranks_end_with_the_weights_of_one_process_on_the_whole_batches(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    two = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", EXAMPLE, *OPTIONS, "--out", "out/two.pt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert two.returncode == 0, two.stderr
    assert re.search(r"^2 ranks with equal weights, [\d.]+% of 450", two.stdout, re.MULTILINE)
    assert two.stdout.count("450") == 1  # rank 0 alone reports
    spec = importlib.util.spec_from_file_location("ddp_digits", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    one = CliRunner().invoke(example.main, [*OPTIONS, "--out", str(tmp_path / "one.pt")])
    assert one.exit_code == 0, one.output
    assert one.output.startswith("1 ranks with equal weights")

    first = {name: value.clone() for name, value in _start(example).items()}
    mine, reference = (
        torch.load(tmp_path / file, weights_only=True) for file in ("out/two.pt", "one.pt")
    )
    assert mine.keys() == reference.keys() == first.keys()
    for name, value in reference.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-5, atol=1e-5)
        assert torch.equal(value, first[name]) == ("decay" in name)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["two.pt"]


def _start(example) -> dict[str, torch.Tensor]:
    """The weights before the first step."""
    torch.manual_seed(0)
    return example.build().state_dict()
