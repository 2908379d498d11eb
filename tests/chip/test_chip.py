"""The limits of the chips: each broken once, by the function and by the command line."""

import dataclasses
import io
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from lava_bridge import BridgeError, export_hdf5, load_hdf5, slayer
from lava_bridge.chip import LOIHI1, LOIHI2, ChipReport, LayerNeeds, check_chip, needs
from tests.forked import lava_bridge

from .nets import CUBA, RF, conv, dense, input_of

SIGMA_DELTA = {"threshold": 0.5, "activation": torch.relu}


# Limits -----------------------------------------------------------------------------------------


def delayed() -> Any:
    block = dense(delay=True)
    block.delay.max_delay = None
    block.delay.delay.data = torch.tensor([3.0, 63.5])
    block.delay.init = True
    return block


def wide_weights() -> Any:
    block = dense()
    block.synapse.weight.data[0, 0] = -1
    block.synapse.weight.data[1, 1] = 511 / 64
    block.synapse.pre_hook_fx = lambda x, descale=False: x * 64 if descale else x
    return block


def biased() -> Any:
    block = dense(params={**CUBA, "norm": slayer.neuron.norm.MeanOnlyBatchNorm})
    block.neuron.norm.running_mean = torch.tensor([65.0, 0.0])
    block.neuron.norm.pre_hook_fx = lambda x, descale=False: x * 64 if descale else x
    return block


def sigma_delta(bias: float = 0) -> Any:
    block = slayer.block.sigma_delta.Dense(SIGMA_DELTA, 3, 2)
    block.neuron.set_bias(torch.full((2,), float(bias)))
    return block


small = dataclasses.replace(LOIHI2, core_memory=64, cores=8)

BROKEN = {
    "axons": ([dense(4097, 1)], LOIHI1, "0 Dense: input axons of a neuron: 4,097, limit 4,096"),
    "neuron's memory": (
        [wide_weights()],
        dataclasses.replace(LOIHI1, core_memory=29),
        "0 Dense: bits of a neuron's weights: 30, limit 29",
    ),
    "weight bits": ([wide_weights()], LOIHI1, "0 Dense: weight bits: 10, limit 9"),
    "weight bits 2": ([wide_weights()], LOIHI2, "0 Dense: weight bits: 10, limit 8"),
    "delay": ([delayed()], LOIHI2, "0 Dense: delay: 63, limit 62"),
    "threshold": (
        [dense(), dense(2, 2, {**CUBA, "threshold": 2048})],
        LOIHI2,
        "1 Dense: threshold: 131,072, limit 131,071",
    ),
    "bias": ([biased()], LOIHI1, "0 Dense: bias bits: 14, limit 13"),
    "state": ([sigma_delta(-2049)], LOIHI2, "0 Dense: state bits: 25, limit 24"),
    "neuron": (
        [slayer.block.rf.Dense(RF, 3, 2)],
        LOIHI1,
        "0 Dense: neuron: RF_PHASE, limit CUBA or ALIF",
    ),
    "graded spikes": (
        [dense(), dense(2, 2, {**CUBA, "graded_spike": True})],
        LOIHI1,
        "1 Dense: spikes: graded, limit binary",
    ),
    "stored weights": (
        [dense(), dense(2, 3)],
        dataclasses.replace(LOIHI2, synapses=11),
        "the net: stored weights: 12, limit 11",
    ),
    "cores for neurons": (
        [conv(129)],
        LOIHI1,
        "the net: cores: 129, limit 128",
    ),
    "cores of a layer": ([conv(129)], LOIHI1, "0 Conv: cores: 129, limit 128"),
    "cores for weights": (
        [dense(60, 9), dense(9, 1)],
        small,
        "the net: cores: 9, limit 8",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_limit_is_named_with_the_layer_the_value_and_the_limit(name):
    net, chip, expected = BROKEN[name]
    report = check_chip(net, chip)
    assert not report.ok
    assert [str(violation) for violation in report.violations if str(violation) == expected]
    assert f"BROKEN {expected}" in str(report)
    assert report.verdict.splitlines()[-1].endswith(f"of {chip.name} broken")


@pytest.mark.parametrize(
    ("net", "chip"),
    [
        ([dense(4096, 1)], LOIHI1),
        ([dense(4097, 1)], LOIHI2),
        ([dense(2, 2, {**CUBA, "threshold": 131071 / 64})], LOIHI2),
        ([sigma_delta(2047)], LOIHI2),
        ([slayer.block.rf.Dense(RF, 3, 2)], LOIHI2),
        ([slayer.block.rf.Affine(RF, 3, 2, dynamics=False)], LOIHI1),
        ([conv(128)], LOIHI1),
        ([conv(129)], LOIHI2),
        ([dense(60, 8), dense(8, 1)], small),
        ([slayer.block.cuba.Affine(CUBA, 4, 2), slayer.block.cuba.Flatten()], LOIHI1),
    ],
)
def test_what_just_fits_breaks_no_limit(net, chip):
    for block in net:
        if block.shape is None:
            block.infer_shape((2,))
    report = check_chip(net, chip)
    assert report.violations == []
    assert report.verdict.splitlines()[-1] == f"no published limit of {chip.name} is broken"


def test_the_convolution_of_spikingjelly_543_fits_loihi_1_by_population_axons_only():
    """Its question: a kernel of (512, 3, 3) has 4608 inputs, but a core takes 4096 axons."""
    block = slayer.block.cuba.Conv(CUBA, 512, 1, 3)
    block.synapse.weight.data.fill_(1)
    block.infer_shape((512, 3, 3))
    report = check_chip([block], LOIHI1)
    assert report.ok
    assert report.layers[0].axons == 9
    (note,) = report.notes
    assert note.startswith("0 Conv: a neuron has 4,608 inputs, more than 4,096 input axons")
    assert f"note: {note}" in str(report)
    assert check_chip([block], LOIHI2).notes == []


def test_a_net_that_only_fits_with_shared_kernels_says_so():
    block = slayer.block.cuba.Conv(CUBA, 16, 16, 5, padding=2)
    block.synapse.weight.data.uniform_(-2, 2)
    block.infer_shape((16, 70, 70))
    report = check_chip([block], LOIHI1)
    assert report.ok
    assert "kernels must be shared" in report.verdict


def test_no_note_says_what_a_broken_limit_says_already():
    assert check_chip([dense(4097, 1)], LOIHI1).notes == []
    large = LayerNeeds("0 Conv", neurons=1 << 18, memory=1, unshared=1 << 40)
    assert ChipReport("net", LOIHI1, [large]).notes == []


def test_a_bias_is_held_as_a_state_64_times_finer_than_a_weight():
    found = needs([biased()])[0]
    assert (found.bias_bits, found.state_bits) == (14, 20)


def test_output_axons_of_a_layer_take_cores():
    """1024 neurons with synapses in ten cores each need 10,240 axons: three cores' worth."""
    first = LayerNeeds("0 Dense", neurons=1024, synapses=1024)
    second = LayerNeeds(
        "1 Dense", neurons=10240, synapses=1024 * 10240, sources=1024, targets=1024 * 10240
    )
    report = ChipReport("net", LOIHI1, [first, second])
    assert report.cores_of(0) == 3
    assert ChipReport("net", LOIHI2, [first, second]).cores_of(0) == 1


def test_layers_may_share_a_core():
    report = ChipReport("net", LOIHI1, [LayerNeeds(str(i), neurons=512) for i in range(3)])
    assert [report.cores_of(i) for i in range(3)] == [1, 1, 1]
    assert report.cores == 2


def test_the_documented_limits_are_the_constants():
    document = (Path(__file__).resolve().parents[2] / "docs" / "chip.md").read_text()
    lines = [line for line in document.splitlines() if line.count("|") == 6]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    documented = {row[2].strip("`"): row[3:5] for row in rows if row[2][:1] == "`"}
    fields = {field.name for field in dataclasses.fields(LOIHI1)}
    assert fields - documented.keys() == {"name", "own_convolutions"}
    for name in fields & documented.keys() - {"neurons", "graded_spikes"}:
        for chip, written in zip((LOIHI1, LOIHI2), documented[name], strict=True):
            value = getattr(chip, name)
            value = value // 8192 if name == "core_memory" else value
            assert written == ("" if value is None else f"{value:,}")


# Errors -----------------------------------------------------------------------------------------


def unquantised() -> Any:
    block = dense()
    block.synapse.pre_hook_fx = None
    return block


def fractional() -> Any:
    block = dense()
    block.synapse.pre_hook_fx = lambda x, descale=False: x / 3
    return block


def test_a_check_of_nothing_is_refused():
    for nothing in ([], io.BytesIO(), torch.nn.Sequential()):
        with pytest.raises(BridgeError, match=r"^there are no blocks to check; give at least one"):
            check_chip(nothing, LOIHI1)
    with pytest.raises(BridgeError, match=r"expected the path of a .net file, found b'net.net'"):
        check_chip(b"net.net", LOIHI1)


def test_a_chip_that_is_none_is_refused():
    with pytest.raises(BridgeError, match=r"expected the chip as LOIHI1 or LOIHI2 .*'loihi1'"):
        check_chip([dense()], "loihi1")


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ([torch.nn.Linear(3, 2)], "0 Linear: is no slayer block"),
        ([slayer.block.cuba.Conv(CUBA, 1, 1, 1)], "0 Conv: its shape is not known; run it once"),
        ([dense(), dense()], "1 Dense: synapse.Dense: expected an input of 3 neurons"),
        ([unquantised()], "0 Dense: synapse.Dense: has no pre_hook_fx"),
        ([fractional()], "0 Dense: its weights are not integers on the chip"),
        ([input_of((1, 64, 128)), conv(128)], "1 Conv: has neurons of shape (8, 128, 128), but"),
    ],
)
def test_what_can_not_be_counted_is_one_line_that_names_the_layer(net, expected):
    with pytest.raises(BridgeError) as error:
        check_chip(net, LOIHI2)
    assert expected in str(error.value)
    assert len(str(error.value).splitlines()) == 1


# The command line -------------------------------------------------------------------------------


def inspect(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return lava_bridge("inspect", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two files: one fits both chips, one has a fan-in that Loihi 1 can't hold."""
    folder = tmp_path_factory.mktemp("nets")
    block = slayer.block.cuba
    small = [block.Input(), block.Conv(CUBA, 1, 2, 3), block.Flatten(), block.Dense(CUBA, 72, 3)]
    for layer in (small[1], small[3]):
        layer.synapse.weight.data.fill_(1)
    export_hdf5(small, folder / "small.net", input_shape=(1, 8, 8))
    export_hdf5([dense(5000, 2)], folder / "wide.net")
    (folder / "text.net").write_text("no net")
    return folder


@pytest.mark.parametrize("chip", ["loihi1", "loihi2"])
def test_inspect_shows_what_a_net_needs_and_exits_with_0_where_it_breaks_no_limit(folder, chip):
    done = inspect("small.net", "--chip", chip, cwd=folder)
    assert done.returncode == 0, done.stderr
    for part in (f"small.net on {chip}: what it needs at least", "1 Conv", "648", "fan-in", "216"):
        assert part in done.stdout
    assert done.stdout.splitlines()[-1] == f"no published limit of {chip} is broken"
    report = check_chip(folder / "small.net", LOIHI1 if chip == "loihi1" else LOIHI2)
    assert report.layers == needs(load_hdf5(folder / "small.net"))


def test_inspect_exits_with_1_and_names_the_limit_that_is_broken(folder):
    done = inspect("wide.net", "--chip", "loihi1", cwd=folder)
    assert done.returncode == 1, done.stderr
    expected = "BROKEN 0 Dense: input axons of a neuron: 5,000, limit 4,096"
    assert expected in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "1 published limit of loihi1 broken"
    assert inspect("wide.net", "--chip", "loihi2", cwd=folder).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("text.net", "--chip", "loihi1"), "text.net: is no HDF5 file"),
        (("none.net", "--chip", "loihi1"), "none.net: there is no such"),
        (("small.net", "--chip", "loihi3"), "'loihi1', 'loihi2'"),
    ],
)
def test_inspect_exits_with_2_where_the_file_or_the_chip_is_none(folder, arguments, expected):
    done = inspect(*arguments, cwd=folder)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_of_inspect_has_an_example_with_a_chip(folder):
    done = inspect("--help", cwd=folder)
    assert done.returncode == 0
    assert "lava-bridge inspect net.net --chip loihi2" in done.stdout
