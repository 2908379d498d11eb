"""Nets behind an encoder under the equivalence check, and on the command line."""

import numpy as np
import pytest
import torch
import torch.nn as nn
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st
from spikingjelly.activation_based import functional, layer, neuron

from lava_bridge import (
    BridgeError,
    ConversionError,
    Encoder,
    check_equivalence,
    cli,
    export_hdf5,
    load_hdf5,
    netx,
    to_slayer,
    to_spikingjelly,
)
from lava_bridge.chip import LOIHI1, LOIHI2, check_chip
from lava_bridge.encoder import GradedInput

from .nets import INPUT, blocks, direct, graded

NETS = {"direct": direct, "graded": graded}


def analog(net: nn.Sequential, steps: int = 9, batch: int = 5) -> torch.Tensor:
    """``[T, N, *]``, with values of both signs where the encoder takes them."""
    x = torch.randn(steps, batch, *INPUT)
    return x if isinstance(net[0], Encoder) else x.abs() / 2


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("static", [False, True])
def test_twin_blocks_file_and_integers_agree_on_analog_input(kind, static, tmp_path):
    net = NETS[kind]()
    path = tmp_path / "n.net"
    export_hdf5(net, path)
    x = analog(net)
    if static:
        x = x[:1].expand(9, *x.shape[1:])
    twin = to_spikingjelly(net)
    exact = [
        check_equivalence(twin, net, x),
        check_equivalence(twin, path, x),
        check_equivalence(twin, path, x, integers=True),
        check_equivalence(net, path, x.movedim(0, -1), layout="NXT", integers=True, batch_size=2),
        check_equivalence(load_hdf5(path), netx.Network(path, aligned=True), x),
    ]
    names = ["encoder", "1 Conv", "3 Dense"] if kind == "direct" else ["1 Conv", "3 Dense"]
    for report in exact:
        assert report.ok
        assert report.claim == "exact"
        assert len(report.layers) == len(names)
    assert [found.name_a for found in exact[3].layers] == names
    assert all(0 < found.rate_a < 1 for found in exact[0].layers)


@settings(max_examples=8)
@given(st.sampled_from(list(NETS)), st.integers(1, 8), st.integers(0, 2**31))
def test_blocks_and_integers_agree_on_any_analog_input(tmp_path_factory, kind, batch, seed):
    torch.manual_seed(seed)
    path = tmp_path_factory.mktemp("nets") / "n.net"
    net = NETS[kind]()
    export_hdf5(net, path)
    x = analog(net, batch=batch)
    assert check_equivalence(net, path, x, integers=True).ok
    run = netx.Network(path)
    late = run.run(run.encoded(x, layout="TNX"), layout="TNX")
    want = net(x.movedim(0, -1)).movedim(-1, 0)
    assert torch.equal(late[run.latency :], want[: -run.latency])


def test_the_float_net_is_compared_on_the_same_input_layer_for_layer():
    net = direct()
    encoder, conv, dense = net[0], net[2], net[4]
    float_net = nn.Sequential(
        layer.Conv2d(1, 3, 3),
        neuron.LIFNode(encoder.tau, False, encoder.threshold),
        layer.Conv2d(3, 4, 3, bias=False),
        neuron.LIFNode(4.0, False, 0.5),
        layer.Flatten(),
        layer.Linear(64, 5, bias=False),
        neuron.LIFNode(4.0, False, 0.5),
    )
    functional.set_step_mode(float_net, "m")
    with torch.no_grad():
        float_net[0].load_state_dict(encoder.synapse.state_dict())
        float_net[2].weight.copy_(conv.synapse.weight[..., 0])
        float_net[5].weight.copy_(dense.synapse.weight[..., 0, 0, 0])
    report = check_equivalence(float_net, net, analog(net))
    assert report.claim == "drift"
    assert [found.name_b for found in report.layers] == ["encoder", "1 Conv", "3 Dense"]
    assert report.layers[0].mismatches == 0
    assert all(found.rate_a > 0 for found in report.layers)


def test_a_check_leaves_the_encoder_as_it_was():
    net = blocks(Encoder(nn.Conv2d(1, 3, 3), 0.4, input_shape=INPUT))
    net[0].input_shape = None
    twin = to_spikingjelly(net)
    x = analog(net)
    twin(x)
    v = twin[0].v.clone()
    check_equivalence(twin, net, x)
    assert net[0].input_shape is None
    assert torch.equal(twin[0].v, v)


def test_a_twin_is_trained_on_behind_its_encoder():
    net = direct()
    twin = to_spikingjelly(net)
    twin(analog(net)).mean().backward()
    assert all(p.grad is not None for p in twin[1:].parameters())
    assert all(p.grad is None for p in twin[0].parameters())
    functional.reset_net(twin)
    assert twin[0].v == 0.0


def test_double_input_and_a_double_encoder_agree_too(tmp_path):
    front = Encoder(nn.Conv2d(1, 3, 3).double(), 0.4, 2.5, INPUT)
    for net in (blocks(front), graded()):
        export_hdf5(net, tmp_path / "n.net")
        x = analog(net).double()
        assert check_equivalence(to_spikingjelly(net), tmp_path / "n.net", x, integers=True).ok


def test_a_net_says_what_its_encoder_does_not_take(tmp_path):
    export_hdf5(graded(), tmp_path / "n.net")
    x = torch.full((3, 1, *INPUT), -1.0)
    with pytest.raises(BridgeError, match='use encoding="direct"'):
        check_equivalence(graded(), tmp_path / "n.net", x, integers=True)
    with pytest.raises(BridgeError, match="expected samples of shape"):
        check_equivalence(direct(), direct(), torch.zeros(3, 1, 3, 6, 6))


def test_skipped_layers_have_no_encoder(tmp_path):
    export_hdf5(direct(), tmp_path / "n.net")
    assert netx.Network(tmp_path / "n.net", skip_layers=2).encoder is None
    assert netx.Network(tmp_path / "n.net", encoder=False).encoder is None


# The command line -------------------------------------------------------------------------------

MODULE = """
import torch
import torch.nn as nn
from spikingjelly.activation_based import functional, layer, neuron

def build(*first, channels, linear):
    torch.manual_seed(0)
    return functional.set_step_mode(net := nn.Sequential(
        *first, layer.Conv2d(channels, 4, 3), neuron.IFNode(),
        layer.Flatten(), layer.Linear(linear, 5), neuron.IFNode()), "m") or net

def direct():
    torch.manual_seed(1)
    return build(layer.Conv2d(1, 3, 3), neuron.IFNode(), channels=3, linear=64)

def graded():
    return build(channels=1, linear=144)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a net, and its input as ``x.npy``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet.py").write_text(MODULE)
    return tmp_path


def call(*arguments: str) -> str:
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("kind", NETS)
def test_run_encodes_the_input_and_says_so(folder, kind):
    net = NETS[kind]()
    export_hdf5(net, "n.net")
    x = analog(net)
    np.save("x.npy", x.numpy())
    np.save("s.npy", net[0](x.movedim(0, -1)).movedim(-1, 0).numpy())
    name = type(net[0]).__name__
    assert f"input encoded by {name}(" in call("run", "n.net", "--input", "x.npy", "-o", "y.npy")
    bits = ["--graded", "8"] if isinstance(net[0], GradedInput) else []
    output = call("run", "n.net", "--no-encode", "--input", "s.npy", "-o", "z.npy", *bits)
    assert "encoded" not in output
    assert np.array_equal(np.load("y.npy"), np.load("z.npy"))
    assert np.load("y.npy").any()


def test_inspect_shows_the_encoder(folder):
    export_hdf5(direct(padding="same"), "n.net", INPUT)
    lines = call("inspect", "n.net").splitlines()
    (row,) = [line for line in lines if "encoder" in line]
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells[:9] == ["encoder", "3x8x8", "3x3", "1x1", "same", "1", "27", "", ""]
    assert " ... " in cells[9]  # of its biases, in floats
    assert cells[10:] == ["float", "0.4", "0.4", "0"]
    assert sum("Conv" in line for line in lines) == 1
    assert "encoder" not in call("inspect", "n.net", "--no-encode")
    export_hdf5(graded(), "n.net")
    assert "0-255" in call("inspect", "n.net")


@pytest.mark.parametrize("kind", NETS)
def test_convert_and_verify_pass_the_encoding_on(folder, kind):
    net = f"mynet.py:{kind}"
    options = ["--encoding", kind, "--calibrate", "weights"]
    output = call("convert", net, "--input-shape", "1,8,8", "-o", "n.net", *options)
    assert "n.net: 4 layers" in output
    assert f"n.encoder.h5: {'Encoder' if kind == 'direct' else 'GradedInput'}(" in output
    np.save("x.npy", analog(NETS[kind]()).numpy())
    output = call("verify", net, "n.net", "--input", "x.npy")
    assert "exact: all" in output
    assert "integers of n.net: exact: all" in output
    assert "float net against n.net: drift" in output
    assert ("encoder" in output) == (kind == "direct")  # graded inputs are no spikes of neurons


@pytest.mark.parametrize("kind", ["direct", "graded"])
def test_a_twin_with_an_encoder_converts_with_that_encoding_too(kind):
    net = nn.Sequential(
        layer.Conv2d(1, 3, 3), neuron.IFNode(0.3), layer.Conv2d(3, 2, 3), neuron.IFNode(0.3)
    ).eval()
    functional.set_step_mode(net, "m")
    twin = to_spikingjelly(to_slayer(net, (1, 8, 8), encoding=kind, calibrate="weights"))
    x = torch.rand(6, 3, 1, 8, 8)
    for encoding in (None, kind):
        assert check_equivalence(twin, to_slayer(twin, (1, 8, 8), encoding=encoding), x).ok
    other = {"direct": "graded", "graded": "direct"}[kind]
    said = f"0 .EncoderNode.: encodes the net's input itself, by '{kind}'; found encoding='{other}'"
    with pytest.raises(ConversionError, match=said):
        to_slayer(twin, (1, 8, 8), encoding=other)


@pytest.mark.parametrize("kind", ["direct", "graded"])
def test_a_graded_input_needs_graded_spikes_of_the_chip(kind, tmp_path):
    net = nn.Sequential(
        layer.Linear(6, 5), neuron.IFNode(0.3), layer.Linear(5, 3), neuron.IFNode(0.3)
    ).eval()
    functional.set_step_mode(net, "m")
    blocks = to_slayer(net, (6,), encoding=kind, calibrate="weights")
    export_hdf5(blocks, tmp_path / "n.net")
    for found in (blocks, tmp_path / "n.net"):
        assert check_chip(found, LOIHI2).ok
        broken = check_chip(found, LOIHI1).violations
        assert [(part.place, part.limit) for part in broken] == (
            [("0 Input", "spikes")] if kind == "graded" else []
        )
    (tmp_path / "n.encoder.h5").unlink()  # a net without is still one
    assert check_chip(tmp_path / "n.net", LOIHI1).ok
