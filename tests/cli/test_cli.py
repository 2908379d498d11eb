"""The command line, run as its users run it."""

import os
import pty
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from spikingjelly.activation_based import neuron

from lava_bridge import NXT_to_TNX, TNX_to_NXT, export_hdf5, netx, slayer, to_slayer
from lava_bridge.cli import main
from tests.forked import lava_bridge

NET = """
    import torch
    import torch.nn as nn
    from spikingjelly.activation_based import functional, layer, neuron

    def build():
        torch.manual_seed(0)
        net = nn.Sequential(
            layer.Conv2d(1, 2, 3, bias=False), neuron.IFNode(),
            layer.Flatten(), layer.Linear(72, 3, bias=False), neuron.IFNode(),
        )
        for parameter in net.parameters():
            parameter.data *= 3
        functional.set_step_mode(net, "m")
        return net

    def soft():
        return [nn.Linear(4, 3), neuron.IFNode(v_reset=None)]

    def nothing():
        return 7

    def fails():
        raise RuntimeError("no\\nluck")

    def needs(argument):
        return argument

    not_a_function = 7
"""

PROGRAM = Path(sys.executable).parent / "lava-bridge"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder: a module with a net, weights, input, and the converted file."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "mynet.py").write_text(textwrap.dedent(NET))
    weights = {"0.weight": torch.full((2, 1, 3, 3), 0.5), "3.weight": torch.full((3, 72), 0.25)}
    torch.save(weights, folder / "w.pt")
    np.savez(folder / "x.npz", x=np.zeros(3))
    np.save(folder / "s.npy", np.array([[["spike"]]]))
    np.save(folder / "x.npy", (np.random.default_rng(0).random((9, 3, 1, 8, 8)) < 0.4).astype("f4"))
    done = lava_bridge(
        "convert", "mynet:build", "--input-shape", "1,8,8", "-o", "n.net", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert "n.net: 4 layers" in done.stdout
    return folder


def test_convert_writes_the_file_with_the_weights_of_the_checkpoint(folder):
    done = lava_bridge(
        "convert", "mynet.py:build", "--weights", "w.pt", "--input-shape", "1,8,8", "-o", "w.net",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with h5py.File(folder / "w.net") as file:
        assert (file["layer/1/weight"][()] == 32).all()
        assert (file["layer/3/weight"][()] == 16).all()


def test_convert_with_delay_shift_writes_blocks_that_delay(folder):
    done = lava_bridge(
        "convert", "mynet:build", "--input-shape", "1,8,8", "--delay-shift", "-o", "d.net",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = lava_bridge("verify", "mynet:build", "d.net", "--input", "x.npy", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_verify_proves_a_file_exact_and_shows_the_drift_of_the_float_net(folder):
    done = lava_bridge("verify", "mynet:build", "n.net", "--input", "x.npy", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exact: all" in done.stdout
    assert "drift:" in done.stdout
    assert "1 Conv" in done.stdout
    nxt = np.moveaxis(np.load(folder / "x.npy"), 0, -1)
    np.save(folder / "nxt.npy", nxt)
    done = lava_bridge(
        "verify", "mynet:build", "n.net", "--input", "nxt.npy", "--layout", "NXT", cwd=folder
    )
    assert "exact: all" in done.stdout


def test_verify_exits_with_1_on_a_mismatch(folder):
    done = lava_bridge(
        "verify", "mynet:build", "n.net", "--weights", "w.pt", "--input", "x.npy", cwd=folder
    )
    assert done.returncode == 1
    assert "NOT exact" in done.stdout


@pytest.mark.parametrize("weights", [None, "w.pt"])
def test_verify_writes_its_report_as_a_page_whether_the_nets_agree_or_not(folder, weights):
    options = ["--report", "out.html", *(("--weights", weights) if weights else ())]
    done = lava_bridge("verify", "mynet:build", "n.net", "--input", "x.npy", *options, cwd=folder)
    assert done.returncode == (0 if weights is None else 1), done.stderr
    assert "report: out.html" in done.stdout
    page = (folder / "out.html").read_text()
    assert "n.net and mynet:build" in page
    assert page.count("<article") == 3
    assert ("Not exact" in page) == (weights is not None)


def test_inspect_shows_every_layer(folder):
    done = lava_bridge("inspect", "n.net", cwd=folder)
    assert done.returncode == 0, done.stderr
    for part in ("0 Input", "1 Conv", "2x6x6", "2 Flatten", "3 Dense", "216", "4096, 0"):
        assert part in done.stdout


def test_inspect_shows_the_layers_of_every_neuron_family(tmp_path):
    block = slayer.block
    leak = {"threshold": 0.5, "current_decay": 0.25, "voltage_decay": 0.5}
    turn = {"threshold": 0.5, "period": 8, "decay": (0.1, 0.2), "shared_param": False}
    adaptation = {"threshold_step": 0.25, "threshold_decay": 0.125, "refractory_decay": 1}
    blocks = [
        block.rf.Conv(turn, 2, 3, 3),
        block.alif.Pool({**leak, **adaptation}, 2),
        block.cuba.Flatten(),
        block.adrf_iz.Dense({**turn, **adaptation}, 12, 6, delay=True),
        block.rf_iz.Recurrent({**turn, "decay": 0.1}, 6, 6),
        block.cuba.Affine(leak, 6, 4),
        block.sigma_delta.Dense({"threshold": 0.5, "activation": torch.relu}, 4, 4),
        block.sigma_delta.Output({"threshold": 0.25, "activation": torch.relu}, 4, 2),
    ]
    export_hdf5(blocks, tmp_path / "all.net", input_shape=(2, 6, 6))
    done = lava_bridge("inspect", "all.net", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for part in (
        "RF_PHASE",
        "ALIF",
        "1024, 2048, 512, 4096",
        "ADRF_IZHIKEVICH",
        "7 Output",
        "SDNN",
    ):
        assert part in done.stdout


def test_inspect_shows_biases_factors_and_the_exponents_of_norms(tmp_path):
    block, norm = slayer.block.cuba, slayer.neuron.norm
    leak = {"threshold": 0.5, "current_decay": 0.25, "voltage_decay": 0.5}
    blocks = [
        block.Input(leak, bias=0.25),
        block.Dense({**leak, "norm": norm.ChannelBias}, 6, 4),
        block.Dense({**leak, "norm": norm.WgtScaleBatchNorm}, 4, 3),
        block.Dense(leak, 3, 2),
        slayer.block.sigma_delta.Dense({"threshold": 0.5, "activation": torch.relu}, 2, 2),
    ]
    blocks[1].neuron.norm.value.data = torch.tensor([-0.5, 0.0, 0.25, 2.0])
    blocks[2].neuron.norm.running_mean = torch.full((3,), 0.5)
    blocks[2].neuron.norm.running_var = torch.tensor([0.06])
    blocks[1].weight_factor, blocks[3].weight_factor = 12.0625, 1.0
    blocks[4].neuron.set_bias(torch.tensor([1.0, 2.0]))
    export_hdf5(blocks, tmp_path / "n.net", input_shape=(6,))
    done = CliRunner().invoke(main, ["inspect", str(tmp_path / "n.net")])
    assert done.exit_code == 0, done.output
    table = [[cell.strip() for cell in line.split("│")] for line in done.output.splitlines()]
    cells = {row[1]: row[8:11] for row in table if len(row) > 11}
    assert cells == {
        "0 Input": ["", "", "16"],
        "1 Dense": ["12.06", "", "-32 ... 128"],
        "2 Dense": ["", "-2", "-32"],
        "3 Dense": ["", "", ""],
        "4 Dense": ["", "", "4096 ... 8192"],
    }


def test_a_net_of_sums_alone_is_verified_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sums.py").write_text("import torch.nn as nn\ndef build(): return nn.Linear(4, 3)\n")
    np.save("x.npy", np.random.default_rng(0).integers(0, 2, (6, 2, 4)).astype(np.float32))
    weights = str(tmp_path / "w.pt")
    torch.save(torch.nn.Linear(4, 3).state_dict(), weights)
    common = ["sums.py:build", "--weights", weights]
    for command in (
        ["convert", *common, "--input-shape", "4", "--calibrate", "weights", "-o", "n.net"],
        ["verify", *common, "n.net", "--input", "x.npy", "--report", "r.html"],
    ):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
    assert "integers of n.net: exact: all 36 spike places agree" in done.output
    assert "drift" not in done.output
    assert Path("r.html").is_file()


@pytest.mark.parametrize("command", [[], ["convert"], ["verify"], ["inspect"]])
def test_help_has_examples(folder, command):
    done = lava_bridge(*command, "--help", cwd=folder)
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert "lava-bridge " in done.stdout


BAD_CALLS = {
    "soft reset": (
        ["convert", "mynet:soft", "--input-shape", "4", "-o", "o.net"],
        "1 (IFNode): has a soft reset",
    ),
    "module": (
        ["convert", "none:build", "--input-shape", "4", "-o", "o.net"],
        "none:build: can't be",
    ),
    "file": (["convert", "none.py:build", "--input-shape", "4", "-o", "o.net"], "no file none.py"),
    "factory": (
        ["convert", "mynet:none", "--input-shape", "4", "-o", "o.net"],
        "mynet:none: can't",
    ),
    "no colon": (["convert", "mynet", "--input-shape", "4", "-o", "o.net"], "MODULE:FACTORY"),
    "no function": (
        ["convert", "mynet:not_a_function", "--input-shape", "4", "-o", "o.net"],
        "is of type int, not a function",
    ),
    "failing": (
        ["convert", "mynet:fails", "--input-shape", "4", "-o", "o.net"],
        "mynet:fails: can't build the net: no luck",
    ),
    "argument": (
        ["convert", "mynet:needs", "--input-shape", "4", "-o", "o.net"],
        "mynet:needs: can't build the net",
    ),
    "archive": (["verify", "mynet:build", "n.net", "--input", "x.npz"], "x.npz: is no array"),
    "strings": (["verify", "mynet:build", "n.net", "--input", "s.npy"], "s.npy: is no array"),
    "no net": (
        ["convert", "mynet:nothing", "--input-shape", "4", "-o", "o.net"],
        "gave an object of type int",
    ),
    "shape": (["convert", "mynet:build", "--input-shape", "1x8", "-o", "o.net"], "1,8,8"),
    "negative shape": (["convert", "mynet:build", "--input-shape", "-1", "-o", "o.net"], "(-1,)"),
    "weights": (
        ["convert", "mynet:build", "--weights", "x.npy", "--input-shape", "1,8,8", "-o", "o.net"],
        "x.npy: can't be loaded",
    ),
    "no weights": (
        ["convert", "mynet:build", "--weights", "no.pt", "--input-shape", "1,8,8", "-o", "o.net"],
        "no.pt: can't be loaded",
    ),
    "folder": (
        ["convert", "mynet:build", "--input-shape", "1,8,8", "-o", "no/o.net"],
        "no/o.net: can't be written",
    ),
    "no file": (
        ["verify", "mynet:build", "no.net", "--input", "x.npy"],
        "no.net: there is no such",
    ),
    "no folder": (
        ["verify", "mynet:build", "n.net", "--input", "x.npy", "--report", "no/out.html"],
        "out.html: can't be written",
    ),
    "no input": (["verify", "mynet:build", "n.net", "--input", "no.npy"], "no.npy: can't be read"),
    "text input": (["verify", "mynet:build", "n.net", "--input", "mynet.py"], "mynet.py: can't be"),
    "foreign": (["inspect", "mynet.py"], "mynet.py: is no HDF5 file"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_gives_one_line_exit_status_2_and_no_file(folder, name):
    arguments, expected = BAD_CALLS[name]
    before = sorted(os.listdir(folder))
    done = lava_bridge(*arguments, cwd=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert "Traceback" not in done.stderr
    assert sorted(p for p in os.listdir(folder) if p != "__pycache__") == [
        p for p in before if p != "__pycache__"
    ]


def test_weights_are_never_unpickled(folder):
    """A checkpoint that would run code is refused, and the code does not run."""

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(folder / "exploded"),))

    torch.save({"0.weight": Bomb()}, folder / "bomb.pt")
    done = lava_bridge(
        "convert", "mynet:build", "--weights", "bomb.pt", "--input-shape", "1,8,8", "-o", "b.net",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 2
    assert not (folder / "exploded").exists()
    np.save(folder / "bomb.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    done = lava_bridge("verify", "mynet:build", "n.net", "--input", "bomb.npy", cwd=folder)
    assert done.returncode == 2
    assert not (folder / "exploded").exists()


def test_long_work_shows_a_progress_bar_on_a_terminal_and_none_in_a_log(folder):
    np.save(folder / "many.npy", np.zeros((4, 200, 1, 8, 8), dtype="f4"))
    arguments = ["verify", "mynet:build", "n.net", "--input", "many.npy"]
    assert "comparing" not in lava_bridge(*arguments, cwd=folder).stderr
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=end
    )
    os.close(end)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    assert process.wait(timeout=300) == 0
    assert b"comparing" in shown


# run ---------------------------------------------------------------------------------------------


def test_run_writes_the_spikes_of_the_integers(folder):
    weights = ("--weights", "w.pt", "--input-shape", "1,8,8", "-o", "r.net")
    assert lava_bridge("convert", "mynet:build", *weights, cwd=folder).returncode == 0
    done = lava_bridge("run", "r.net", "--input", "x.npy", "-o", "y.npy", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "|Conv      |    6|    6|    2| 3, 3| 1, 1| 0, 0| 1, 1|    1|False|" in done.stdout
    assert re.search(r"y.npy: \(9, 3, 3\) \(TNX\), [\d.]+% spikes", done.stdout)
    y = np.load(folder / "y.npy")
    x = torch.from_numpy(np.load(folder / "x.npy"))
    expected = netx.Network(folder / "r.net").run(x, layout="TNX")
    assert y.dtype == np.int32
    assert np.array_equal(y, expected.numpy())
    assert y.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.net", "--input", "x.npy"), "missing.net: there is no such file"),
        (("n.net", "--input", "s.npy"), "s.npy: is no array of numbers"),
        (("n.net", "--input", "mynet.py"), "(it is no file of numbers alone); save it with"),
        (("n.net", "--input", "x.npy", "--layout", "NXT"), "expected samples of shape"),
        (("n.net", "--input", "x.npy", "--reset-interval", "0"), "reset_interval must be 1"),
    ],
)
def test_run_refuses_what_it_can_not_run_in_one_line_and_writes_nothing(folder, arguments, message):
    done = lava_bridge("run", *arguments, "-o", "none.npy", cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "none.npy").exists()


def test_run_keeps_a_former_file_when_it_fails(folder):
    (folder / "kept.npy").write_bytes(b"mine")
    done = lava_bridge("run", "n.net", "--input", "s.npy", "-o", "kept.npy", cwd=folder)
    assert done.returncode == 2
    assert (folder / "kept.npy").read_bytes() == b"mine"


def test_run_says_in_one_line_where_biases_begin_early_and_aligned_gives_the_blocks_spikes(folder):
    torch.manual_seed(0)
    net = torch.nn.Sequential()
    for _ in range(3):
        net.append(torch.nn.Linear(6, 6)).append(neuron.IFNode(step_mode="m"))
        net[-2].weight.data.uniform_(-0.2, 0.5)
        net[-2].bias.data.uniform_(0.1, 0.3)
    blocks = to_slayer(net, (6,), calibrate="weights")
    export_hdf5(blocks, folder / "b.net")
    x = (torch.rand(8, 2, 6) < 0.4).float()
    np.save(folder / "b.npy", x.numpy())
    expected = NXT_to_TNX(blocks(TNX_to_NXT(x))).detach().numpy()
    arguments = ("b.net", "--input", "b.npy", "-o", "y.npy", "--extra-steps", "3")
    done = lava_bridge("run", *arguments, cwd=folder)
    assert done.returncode == 0
    assert done.stderr.startswith("Warning: b.net: the bias of layer/1 (and of 2 more) works")
    assert done.stderr.count("\n") == 1
    assert not np.array_equal(np.load(folder / "y.npy")[3:], expected)
    with warnings.catch_warnings():  # as with PYTHONWARNINGS=error
        warnings.simplefilter("error")
        places = [str(folder / name) for name in ("b.net", "b.npy", "none.npy")]
        refused = CliRunner().invoke(
            main, ["run", places[0], "--input", places[1], "-o", places[2]]
        )
    assert refused.exit_code == 2
    assert refused.output.startswith(f"Error: {places[0]}: the bias of layer/1")
    assert refused.output.count("\n") == 1
    assert not Path(places[2]).exists()
    done = lava_bridge("run", *arguments, "--aligned", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert np.array_equal(np.load(folder / "y.npy")[3:], expected)
    assert 0 < expected.mean() < 1


def test_verify_takes_slayer_blocks_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("blocks.py").write_text(
        "import torch\n"
        "from lava_bridge import slayer\n"
        "def build():\n"
        "    params = {'threshold': 0.3, 'current_decay': 0.3, 'voltage_decay': 0.1}\n"
        "    dense = slayer.block.cuba.Dense\n"
        "    return [dense(params, 6, 5, weight_scale=3), dense(params, 5, 4, weight_scale=3)]\n"
    )
    torch.manual_seed(0)
    params = {"threshold": 0.3, "current_decay": 0.3, "voltage_decay": 0.1}
    made = [slayer.block.cuba.Dense(params, *size, weight_scale=3) for size in ((6, 5), (5, 4))]
    export_hdf5(made, "b.net")
    torch.save(torch.nn.Sequential(*made).state_dict(), "w.pt")
    np.save("x.npy", np.random.default_rng(0).integers(0, 2, (8, 3, 6)).astype(np.float32))
    arguments = ["verify", "blocks.py:build", "b.net", "--input", "x.npy"]
    done = CliRunner().invoke(main, [*arguments, "--weights", "w.pt"])
    assert done.exit_code == 0, done.output
    assert "integers of b.net: exact: all 216 spike places agree" in done.output
    assert "drift" not in done.output
    assert CliRunner().invoke(main, arguments).exit_code == 1
