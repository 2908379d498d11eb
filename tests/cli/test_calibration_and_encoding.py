"""Calibrated and encoded nets on the command line, as their users type it."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import lava_bridge
from lava_bridge.cli import main

NET = """
    import torch
    from torch import nn
    from spikingjelly.activation_based import functional, layer, neuron

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(
                layer.Conv2d(1, 4, 3, padding=1, bias=False), layer.BatchNorm2d(4),
                neuron.LIFNode(v_threshold=0.3), layer.MaxPool2d(2),
            )
            self.hidden, self.fire = layer.Linear(16, 12), neuron.LIFNode(v_threshold=0.1)
            self.digits = layer.Linear(12, 5)

        def forward(self, x):
            return self.digits(self.fire(self.hidden(self.features(x).flatten(2))))

    def sums():
        torch.manual_seed(0)
        net = Net()
        functional.set_step_mode(net, "m")
        return net

    def small():
        net = sums()
        net.digits.weight.data /= 9
        return net

    def signals():
        torch.manual_seed(0)
        net = nn.Sequential(
            layer.Conv1d(2, 4, 3), neuron.LIFNode(v_threshold=0.3), layer.Flatten(),
            layer.Linear(24, 3), neuron.LIFNode(v_threshold=0.1),
        )
        functional.set_step_mode(net, "m")
        return net

    class Repeats(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x.unsqueeze(0).repeat(8, 1, 1, 1)).mean(0)

    def repeats():
        return Repeats(signals())

    def larger():
        net = repeats()
        net.net[0].weight.data *= 2
        return net
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A user's folder, where the command line is called: a module, images and signals."""
    (tmp_path / "calibrated_nets.py").write_text(textwrap.dedent(NET))
    random = np.random.default_rng(0)
    images = random.normal(0.5, 1, (1, 6, 1, 4, 4)).astype("f4")
    np.save(tmp_path / "images.npy", np.repeat(images, 9, axis=0))
    np.save(tmp_path / "signals.npy", random.normal(0.5, 1, (9, 6, 2, 8)).astype("f4"))
    np.save(tmp_path / "spikes.npy", (random.random((9, 6, 2, 8)) < 0.5).astype("f4"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def converted(net: str, shape: str, *arguments: str) -> str:
    done = called(
        "convert", f"calibrated_nets.py:{net}", "--input-shape", shape, "-o", "n.net", *arguments
    )
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("calibrate", ["weights", "images.npy"])
def test_verify_finds_the_factors_of_a_calibrated_file_and_its_page_says_them(folder, calibrate):
    said = converted("sums", "1,4,4", "--encoding", "direct", "--calibrate", calibrate)
    assert "n.encoder.h5: Encoder(threshold=" in said
    done = called(
        "verify",
        "calibrated_nets.py:sums",
        "n.net",
        "--input",
        "images.npy",
        "--report",
        "page.html",
    )
    assert done.exit_code == 0, done.output
    assert done.output.count("exact: all") == 2
    page = (folder / "page.html").read_text()
    assert "each layer by the factor that its block has" in page
    assert "hidden (Linear)" in page
    assert "by spikes on data" not in page
    # The levels that the weights take are said again, not left out.
    chosen = lava_bridge.load_hdf5("n.net")
    levels = (torch.round(chosen[4].synapse.weight * 32)).unique().numel()
    assert f">{levels}<" in page


@pytest.mark.parametrize("encoding", [None, "direct"])
def test_signals_of_one_dimension_are_calibrated_proved_and_run(folder, encoding):
    x = "spikes.npy" if encoding is None else "signals.npy"
    options = [] if encoding is None else ["--encoding", encoding]
    converted("signals", "2,8", "--calibrate", x, *options)
    done = called("verify", "calibrated_nets.py:signals", "n.net", "--input", x)
    assert done.exit_code == 0, done.output
    done = called("run", "n.net", "--input", x, "-o", "y.npy")
    assert done.exit_code == 0, done.output
    planes = np.load(folder / x)[:, :, :, np.newaxis]
    net = lava_bridge.netx.Network("n.net")
    expected = net.run(net.encoded(planes, "TNX"), "TNX")
    assert np.load("y.npy").any()
    assert np.array_equal(np.load("y.npy"), expected.numpy())
    np.save("nxt.npy", np.moveaxis(np.load(folder / x), 0, -1))
    done = called("run", "n.net", "--input", "nxt.npy", "--layout", "NXT", "-o", "z.npy")
    assert done.exit_code == 0, done.output
    assert np.array_equal(np.moveaxis(np.load("z.npy"), -1, 0), expected.numpy())


@pytest.mark.parametrize(("net", "status"), [("repeats", 0), ("larger", 1)])
@pytest.mark.filterwarnings("ignore:.*repeats its input over time")
def test_a_net_that_repeats_its_input_itself_is_proved_without_a_drift(folder, net, status):
    converted("repeats", "2,8")
    done = called(
        "verify", f"calibrated_nets.py:{net}", "n.net", "--input", "spikes.npy",
        "--report", "page.html",
    )  # fmt: skip
    assert done.exit_code == status, done.output
    lines = done.stdout.splitlines()
    exact = ["NOT exact: ", "exact: all"][status == 0]
    assert any(line.startswith(exact) for line in lines)
    assert any(line.startswith(f"integers of n.net: {exact}") for line in lines)
    said = [line for line in lines if line.startswith("float net against")]
    assert len(said) == 1
    assert said[0].startswith(
        "float net against n.net: drift not measured: can't be run on an input of shape "
        "(6, 2, 8, 9) (NXT): Number of dimensions"
    )
    assert (folder / "page.html").read_text().count("<article") == 2


def test_run_says_where_sums_are_and_writes_them(folder):
    converted("sums", "1,4,4", "--encoding", "direct", "--calibrate", "weights")
    done = called("run", "n.net", "--input", "images.npy", "-o", "y.npy")
    assert "never spikes; --voltages writes them" in done.output
    assert not np.load("y.npy").any()
    done = called("run", "n.net", "--input", "images.npy", "-o", "v.npy", "--voltages")
    assert done.exit_code == 0, done.output
    voltages = np.load("v.npy")
    # Once the spikes of the first steps have come through, as the blocks have it.
    blocks, net = lava_bridge.load_hdf5("n.net"), lava_bridge.netx.Network("n.net")
    aligned = lava_bridge.netx.Network("n.net", aligned=True)
    run = aligned.run(aligned.encoded(np.load("images.npy"), "TNX"), "TNX", traces=True)
    late = net.latency
    sums = blocks(torch.from_numpy(np.moveaxis(np.load("images.npy"), 0, -1))).movedim(-1, 0)
    expected = run.layers[-1].traces["voltage"]
    scale = blocks[-1].neuron.s_scale
    assert np.array_equal(expected[late:], (sums[:-late] * scale).detach().numpy())
    assert voltages.shape == expected.shape
    assert voltages.any()


def test_run_refuses_voltages_where_the_last_layer_has_none(folder):
    blocks = lava_bridge.slayer.block.cuba
    neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.0}
    net = [blocks.Dense(neuron, 4, 6), blocks.Average(3)]
    lava_bridge.export_hdf5(net, "n.net", input_shape=(4,))
    np.save("x.npy", np.ones((3, 1, 4), "f4"))
    done = called("run", "n.net", "--input", "x.npy", "-o", "y.npy", "--voltages")
    assert done.exit_code == 2
    assert "its last layer has no voltages" in done.output
    assert not Path("y.npy").exists()


def test_what_calibrate_does_not_know_is_neither_a_word_nor_a_file(folder):
    done = called(
        "convert", "calibrated_nets.py:sums", "--input-shape", "1,4,4", "-o", "n.net",
        "--encoding", "direct", "--calibrate", "weigths",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "expected 'weights' or a file of input, found 'weigths'" in done.output
    assert not Path("n.net").exists()


def test_a_warning_is_one_line_without_the_programs_code(folder):
    said = converted("small", "1,4,4", "--encoding", "direct")
    warned = [line for line in said.splitlines() if "256 levels" in line]
    assert warned
    assert all(line.startswith("Warning: ") for line in warned)
    assert "blocks = to_slayer" not in said
