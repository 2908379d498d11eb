"""Where the command line is run: terminals of any width, interrupts, files that can't be."""

import os
import pty
import signal
import subprocess
import textwrap
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table

from lava_bridge import export_hdf5, netx
from lava_bridge.cli import main
from lava_bridge.console import fitted
from lava_bridge.slayer.block import cuba
from tests.forked import lava_bridge

from .test_cli import NET, PROGRAM

LEAK = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "terminal_net.py").write_text(textwrap.dedent(NET))
    np.save(tmp_path / "x.npy", (np.random.default_rng(0).random((9, 3, 6)) < 0.4).astype("f4"))
    torch.manual_seed(0)
    blocks = [cuba.Dense(LEAK, 6, 5, weight_scale=4), cuba.Dense(LEAK, 5, 3, weight_scale=4)]
    export_hdf5(blocks, tmp_path / "n.net")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(main, arguments)


# Tables ------------------------------------------------------------------------------------------


def table(columns: int) -> Table:
    made = Table(title="a title", show_footer=True)
    for column in range(columns):
        made.add_column(f"column {column}", f"foot {column}", justify="right")
    for row in range(3):
        made.add_row(*(f"cell {row}/{column}" for column in range(columns)))
    return made


def shown(part: Table, width: int) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(part)
    return capture.get()


@pytest.mark.parametrize("width", [24, 40, 80, 120])
def test_a_table_on_a_narrow_terminal_keeps_every_cell(width):
    text = "".join(shown(part, width) for part in fitted(table(12), width))
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "a title" in text
    lines = text.replace("┃", "│").splitlines()
    cells = {cell.strip() for line in lines for cell in line.split("│")}
    for column in range(12):
        assert {f"column {column}", f"foot {column}", f"cell 2/{column}"} <= cells


def test_a_table_that_fits_stays_whole_and_a_part_has_one_column_more_at_least():
    made = table(3)
    assert fitted(made, 80) == [made]
    assert [len(part.columns) for part in fitted(made, 12)] == [2, 2]


def test_inspect_on_a_narrow_terminal_can_be_read(folder):
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "inspect", "n.net"], stdout=end, env={**os.environ, "COLUMNS": "60"}
    )
    os.close(end)
    assert process.wait(timeout=300) == 0
    text = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert "…" not in text
    assert text.count("1 Dense") > 1
    assert "1024, 410" in text


# Interrupts --------------------------------------------------------------------------------------


def test_an_interrupt_is_no_mismatch(folder):
    """Its exit status is a shell's for SIGINT: 1 would say that the nets differ."""
    (folder / "slow.py").write_text(
        "import time\ndef build():\n    print('building', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [PROGRAM, "verify", "slow:build", "n.net", "--input", "x.npy"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's job in the background leaves interrupts out.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "Interrupted"
    assert "Traceback" not in said


# Files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("-", "-: results go to a file, not to the standard output; name one"),
        ("", ".: is a directory, not a file; name a file in it"),
        ("no/n.net", "no/n.net: can't be written (there is no folder no); make it first"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("convert", "terminal_net:fails", "--input-shape", "4", "-o"),
        ("verify", "terminal_net:fails", "n.net", "--input", "x.npy", "--report"),
        ("run", "none.net", "--input", "x.npy", "-o"),
    ],
)
def test_an_output_that_can_not_be_is_refused_before_any_work(folder, command, output, message):
    before = sorted(folder.iterdir())
    done = call(*command, output)
    assert done.exit_code == 2
    assert done.output == f"Error: {message}\n"
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("spelling", ["{}", "./{}", "linked", "copied"])
@pytest.mark.parametrize(
    ("what", "file", "command"),
    [
        ("net", "n.net", ("run", "n.net", "--input", "x.npy", "-o")),
        ("input", "x.npy", ("run", "n.net", "--input", "x.npy", "-o")),
        ("encoder", "n.encoder.h5", ("run", "n.net", "--input", "x.npy", "-o")),
        ("net", "n.net", ("verify", "no:no", "n.net", "--input", "x.npy", "--report")),
        ("input", "x.npy", ("verify", "no:no", "n.net", "--input", "x.npy", "--report")),
        ("weights", "w.pt", ("verify", "no:no", "n.net", "--input", "x.npy", "--report")),
        ("weights", "w.pt", ("convert", "no:no", "--input-shape", "4", "-o")),
        ("calibration", "x.npy", ("convert", "no:no", "--input-shape", "4", "-o")),
        ("code", "terminal_net.py", ("convert", "terminal_net.py:no", "--input-shape", "4", "-o")),
    ],
)
def test_an_output_is_no_file_that_the_command_reads(folder, what, file, command, spelling):
    for name in ("w.pt", "n.encoder.h5"):
        (folder / name).write_bytes(b"something")
    (folder / "linked").symlink_to(file)
    os.link(folder / file, folder / "copied")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    output = spelling.format(file)
    options = {"weights": ("--weights", "w.pt"), "calibration": ("--calibrate", "x.npy")}
    done = call(*command, output, *options.get(what, ()))
    assert done.exit_code == 2
    assert done.output.startswith(f"Error: {output}: is the {what}")
    assert done.output.endswith(
        "that this command reads, and would be replaced; name another file to write\n"
    )
    assert done.output.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_output_replaces_what_the_command_does_not_read(folder):
    for _ in range(2):
        assert call("run", "n.net", "--input", "x.npy", "-o", "y.npy").exit_code == 0


@pytest.mark.parametrize("folders", ["", "nets"])
def test_a_file_imports_what_lies_beside_it(folder, folders):
    """As for ``python FILE.py``, when it is read and when its function is called."""
    where = folder / folders
    where.mkdir(exist_ok=True)
    for name in ("read", "called"):
        (where / f"beside_{name}.py").write_text("made = ['no net']")
    lines = ("import beside_read", "def build():", "    import beside_called", "    return 7")
    (where / "imports.py").write_text("\n".join(lines))
    file = str(where.relative_to(folder) / "imports.py")
    done = lava_bridge("convert", f"{file}:build", "--input-shape", "4", "-o", "o.net", cwd=folder)
    assert done.returncode == 2
    assert done.stderr == (
        f"Error: {file}:build: gave an object of type int, not a net; return an nn.Sequential\n"
    )


def state():
    return {"0.weight": torch.zeros(2, 1, 3, 3), "3.weight": torch.zeros(3, 72)}


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            {"net": state(), "epoch": 3},
            "(it lacks 0.weight, 3.weight; it has net, epoch, which the net has not); save it with "
            "torch.save(net.state_dict(), ...)",
        ),
        (
            {f"module.{name}": value for name, value in state().items()},
            "it has module.0.weight, module.3.weight, which the net has not",
        ),
        (
            {**state(), **{str(i): torch.zeros(1) for i in range(5)}},
            "(it has 0, 1, 2 and 2 more, w",
        ),
        ({**state(), "3.weight": torch.zeros(3, 2)}, "size mismatch for 3.weight"),
        (torch.nn.Linear(2, 2), "(it is no file of numbers alone); save"),
        ([1, 2], "list"),
        ("a text", "(it is no file of numbers alone); save"),
        (None, "w.pt: can't be loaded into the net of terminal_net:build (No such file or"),
    ],
)
def test_weights_of_another_form_are_named(folder, saved, message):
    if saved is not None:
        if isinstance(saved, str):
            (folder / "w.pt").write_text(saved)
        else:
            torch.save(saved, folder / "w.pt")
    done = call(
        "convert",
        "terminal_net:build",
        "--weights",
        "w.pt",
        "--input-shape",
        "1,8,8",
        "-o",
        "o.net",
    )
    assert done.exit_code == 2
    assert message in done.output
    assert done.output.count("\n") == 1
    assert "weights_only" not in done.output


def test_verify_names_the_input_whose_samples_do_not_fit(folder):
    np.save(folder / "planes.npy", np.zeros((9, 3, 1, 8, 8), "f4"))
    arguments = ("terminal_net:build", "--input-shape", "1,8,8", "-o", "c.net")
    assert call("convert", *arguments).exit_code == 0
    done = call("verify", "terminal_net:build", "c.net", "--input", "x.npy")
    assert done.exit_code == 2
    assert "(in layout TNX a sample of x.npy has shape (6,))" in done.output


# run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["TNX", "NXT"])
def test_run_gives_what_is_on_its_way_in_extra_steps(folder, layout):
    x = np.load("x.npy")
    np.save("given.npy", x if layout == "TNX" else np.moveaxis(x, 0, -1))
    arguments = ("n.net", "--input", "given.npy", "--layout", layout, "-o", "y.npy")
    assert "steps after the input" in call("run", *arguments).stdout
    assert len(np.moveaxis(np.load("y.npy"), {"TNX": 0, "NXT": -1}[layout], 0)) == 9
    assert call("run", *arguments, "--extra-steps", "2").exit_code == 0
    y = np.load("y.npy") if layout == "TNX" else np.moveaxis(np.load("y.npy"), -1, 0)
    longer = np.concatenate([x, np.zeros((2, 3, 6), "f4")])
    expected = netx.Network("n.net").run(longer, layout="TNX")
    assert np.array_equal(y, expected.numpy())
    assert y[9:].any()


def test_run_says_where_values_are_taken_for_spikes(folder):
    np.save("bytes.npy", np.load("x.npy") * 200)
    done = call("run", "n.net", "--input", "bytes.npy", "-o", "y.npy")
    assert done.exit_code == 0
    assert "Warning: bytes.npy: has values other than 0 and 1; each is taken for a" in done.output
    done = call("run", "n.net", "--input", "bytes.npy", "-o", "y.npy", "--graded", "8")
    assert "Warning" not in done.output


def test_an_array_that_is_only_read_is_run_without_a_warning(folder):
    x = np.load("x.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        netx.Network("n.net").run(x, layout="TNX")


@pytest.mark.parametrize("status", [0, 1])
@pytest.mark.parametrize("where", ["module", "factory"])
def test_a_script_that_ends_the_program_proves_nothing(folder, where, status):
    """Its exit status would pass for the command's: 0 for equal, 1 for different."""
    indent = "" if where == "module" else "    "
    lines = ("import sys", "def build():", "    pass", f"{indent}sys.exit({status})")
    (folder / "script.py").write_text("\n".join(lines))
    done = call("verify", "script.py:build", "n.net", "--input", "x.npy")
    assert done.exit_code == 2
    assert f"it ends the program, with status {status}" in done.output


def test_a_mismatch_without_weights_says_whose_were_compared(folder):
    torch.save({name: value + 0.5 for name, value in state().items()}, "w.pt")
    np.save("planes.npy", np.ones((9, 3, 1, 8, 8), "f4"))
    net, note = "terminal_net:build", "(Without --weights, those that terminal_net:build gives were"
    assert call("convert", net, "--input-shape", "1,8,8", "-o", "c.net").exit_code == 0
    for weights, status, said in ((("--weights", "w.pt"), 1, False), ((), 0, False)):
        done = call("verify", net, "c.net", "--input", "planes.npy", *weights)
        assert (done.exit_code, note in done.output) == (status, said)
    arguments = ("--weights", "w.pt", "--input-shape", "1,8,8", "-o", "c.net")
    assert call("convert", net, *arguments).exit_code == 0
    done = call("verify", net, "c.net", "--input", "planes.npy")
    assert (done.exit_code, note in done.output) == (1, True)
