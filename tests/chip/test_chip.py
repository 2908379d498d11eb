"""What a net needs on a chip: counted exactly, and every limit broken once."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lava_bridge import BridgeError, export_hdf5, load_hdf5, slayer
from lava_bridge.chip import LOIHI1, LOIHI2, ChipReport, LayerNeeds, check_chip, needs
from lava_bridge.quantize import quantize_8bit

PROGRAM = Path(sys.executable).parent / "lava-bridge"

CUBA = {"threshold": 1.0, "current_decay": 0.3, "voltage_decay": 0.1}
RF = {"threshold": 1.0, "period": 8, "decay": 0.1}
SIGMA_DELTA = {"threshold": 0.5, "activation": torch.relu}

sizes = st.integers(1, 6)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.tuples(st.integers(0, 2), st.integers(0, 2))


def sparse(synapse: Any, seed: int) -> None:
    """Draw integers as weights, of both signs, a third of them 0."""
    generator = torch.Generator().manual_seed(seed)
    for _, part in synapse.parts(""):
        drawn = torch.randint(-128, 128, part.weight.shape, generator=generator) * 2 / 64
        kept = torch.rand(part.weight.shape, generator=generator) < 0.67
        part.weight.data = drawn * kept


@st.composite
def layers(draw: Any) -> tuple[Any, tuple[int, ...]]:
    """A block with sparse weights, and the shape of its input."""
    kind = draw(st.sampled_from(["Dense", "Plane", "Conv", "ConvT", "Pool", "Unpool", "Recurrent"]))
    family, params = draw(st.sampled_from([(slayer.block.cuba, CUBA), (slayer.block.rf, RF)]))
    channels, height, width = draw(st.integers(1, 3)), draw(sizes), draw(sizes)
    shape: tuple[int, ...] = (channels, height, width)
    if kind in ("Dense", "Recurrent"):
        shape = (channels * height,)
        block = getattr(family, kind)(params, shape[0], draw(sizes))
    elif kind == "Plane":
        block = family.Dense(params, (width, height, channels), draw(sizes))
    else:
        window = draw(pairs), draw(st.none() | pairs), draw(paddings), draw(pairs)
        if kind in ("Pool", "Unpool"):
            block = getattr(family, kind)(params, *window)
        else:
            groups = draw(st.integers(1, 2))
            shape = (channels * groups, height, width)
            outputs = groups * draw(st.integers(1, 2))
            kernel, stride, *rest = window
            arguments = shape[0], outputs, kernel, stride or 1, *rest, groups
            block = getattr(family, kind)(params, *arguments)
    seed = draw(st.integers(0, 2**32 - 1))
    sparse(block.synapse, seed)
    if kind == "Recurrent":
        sparse(block.recurrent_synapse, seed + 1)
    try:
        block.infer_shape(shape)
    except BridgeError:
        assume(False)
    return block, shape


def matrix(synapse: Any, shape: tuple[int, ...]) -> torch.Tensor:
    """The chip's integers of every connection, ``[neurons, inputs]``: an impulse to each input."""
    inputs = math.prod(shape)
    impulses = torch.eye(inputs).reshape(inputs, *shape, 1)
    with torch.no_grad():
        return (synapse(impulses) * 64).reshape(inputs, -1).T


def matrices(block: Any, shape: tuple[int, ...]) -> list[list[torch.Tensor]]:
    """Of each bundle of synapses (from the inputs; back from the neurons) each part's matrix."""
    bundles = [[matrix(part, shape) for _, part in block.synapse.parts("")]]
    if hasattr(block, "recurrent_synapse"):
        parts = block.recurrent_synapse.parts("")
        bundles.append([matrix(part, (block.num_neurons,)) for _, part in parts])
    return bundles


def input_of(shape: tuple[int, ...]) -> Any:
    block = slayer.block.cuba.Input()
    block.infer_shape(shape)
    return block


@settings(max_examples=150)
@given(layers())
def test_synapses_fan_in_and_fan_out_are_those_of_the_connection_matrix(drawn):
    block, shape = drawn
    bundles = matrices(block, shape)
    parts = [part for bundle in bundles for part in bundle]
    found = needs([input_of(shape), block])[1]
    assert found.neurons == math.prod(block.shape) == len(parts[0])
    assert found.synapses == sum(int((part != 0).sum()) for part in parts)
    assert found.fan_in == sum((part != 0).sum(1) for part in parts).max()
    assert found.fan_out == max(sum((p != 0).sum(0) for p in bundle).max() for bundle in bundles)
    pairs = [sum((part != 0) for part in bundle) > 0 for bundle in bundles]
    assert found.inputs == sum(pair.sum(1) for pair in pairs).max()
    assert found.sources == max(int(pair.any(0).sum()) for pair in pairs)
    assert found.targets == max(int(pair.sum()) for pair in pairs)


@settings(max_examples=100)
@given(layers())
def test_a_kernels_axons_are_the_places_that_a_neuron_sees_and_a_dense_layers_its_inputs(drawn):
    block, shape = drawn
    axons: Any = 0
    for bundle in matrices(block, shape):
        seen = sum((part != 0) for part in bundle) > 0
        if len(shape) == 3 and not isinstance(block, slayer.block.base.AbstractDense):
            # Of a convolution in groups, neurons of one place see the channels of theirs only.
            seen = seen.unflatten(1, shape).any(1).flatten(1)
        axons = axons + seen.sum(1)
    assert needs([input_of(shape), block])[1].axons == axons.max()


@given(layers())
def test_a_kernel_is_stored_once_and_unshared_weights_are_one_for_each_synapse(drawn):
    block, shape = drawn
    found = needs([input_of(shape), block])[1]
    synapses = [block.synapse]
    if hasattr(block, "recurrent_synapse"):
        synapses.append(block.recurrent_synapse)
    real = [part for synapse in synapses for _, part in synapse.parts("")]
    integers = [quantize_8bit(part.weight.detach(), 64, descale=True) for part in real]
    assert found.weights == sum(int((weight != 0).sum()) for weight in integers)
    assert found.memory <= found.weights * 8
    assert found.unshared <= found.synapses * 8
    assert found.weight_bits <= 8


@given(layers())
def test_the_input_of_a_first_layer_is_the_smallest_that_gives_its_output(drawn):
    block, shape = drawn
    try:
        alone = needs([block])[0]
    except BridgeError:
        # No input of a row or more gives this output: there is padding on all sides of nothing.
        assume(False)
    known = needs([input_of(shape), block])[1]
    assert alone.neurons == known.neurons
    assert alone.weights == known.weights
    assert alone.synapses <= known.synapses
    assert alone.fan_in <= known.fan_in


@pytest.mark.parametrize(
    ("integers", "bits"),
    [
        ([0, 0], 0),
        ([64, 64], 1),
        ([-256, 254], 8),
        ([2, 254], 7),
        ([-256], 1),
        ([-2, 2], 2),
        ([-4, 2], 2),
        ([-128, 64], 2),
        ([6, -6], 3),
        ([10], 3),
    ],
)
def test_weight_bits_leave_out_common_factors_of_2_and_the_sign_where_there_is_one(integers, bits):
    block = slayer.block.cuba.Dense(CUBA, len(integers), 1)
    block.synapse.weight.data = torch.tensor(integers).float().reshape(1, -1, 1, 1, 1) / 64
    assert needs([block])[0].weight_bits == bits


def test_what_each_layer_of_a_net_needs():
    block = slayer.block.cuba
    net = [
        block.Input(CUBA),
        block.Conv(CUBA, 2, 4, 3, padding=1),
        block.Pool(CUBA, 2),
        block.Flatten(),
        block.Dense(CUBA, 64, 10, delay=True),
        block.KWTA(CUBA, 10, 6, 2),
        slayer.block.cuba.Average(3),
    ]
    shape: tuple[int, ...] = (2, 8, 8)
    for layer in net:
        shape = layer.infer_shape(shape)
    for layer in (net[1], net[4], net[5]):
        layer.synapse.weight.data.fill_(1)
    net[4].delay.delay.data[3] = 62
    found = needs(net)
    assert [layer.name for layer in found] == [
        *("0 Input", "1 Conv", "2 Pool", "3 Flatten", "4 Dense", "5 KWTA", "6 Average")
    ]
    assert [layer.neurons for layer in found] == [128, 256, 64, 0, 10, 6, 0]
    # A 3 x 3 kernel on 8 x 8 with a border of 1: 22 rows of 24 are inside, as are columns.
    assert [layer.synapses for layer in found] == [0, 8 * 22 * 22, 256, 0, 640, 60 + 36, 0]
    assert [layer.weights for layer in found] == [0, 72, 4, 0, 640, 96, 0]
    assert [layer.fan_in for layer in found] == [0, 18, 4, 0, 64, 16, 0]
    assert [layer.fan_out for layer in found] == [0, 36, 1, 0, 10, 6, 0]
    assert [layer.axons for layer in found] == [0, 9, 4, 0, 64, 16, 0]
    assert [layer.threshold for layer in found] == [64, 64, 64, None, 64, 64, None]
    assert (found[4].delay, found[4].delay_bits) == (62, 6)
    assert found[1].memory == 72  # all weights are 64: one bit each
    report = ChipReport("net", LOIHI1, found)
    assert report.ok
    assert report.cores == 1
    assert not report.notes


def test_a_mask_leaves_synapses_out():
    mask = torch.tensor([[1, 0, 1], [0, 0, 1]])
    block = slayer.block.cuba.Dense(CUBA, 3, 2, mask=mask)
    block.synapse.weight.data.fill_(0.5)
    found = needs([block])[0]
    assert (found.synapses, found.fan_in, found.fan_out, found.sources) == (3, 2, 2, 2)


def test_neither_the_blocks_nor_their_weights_are_changed():
    block = slayer.block.cuba.Recurrent(CUBA, 5, 4, delay=True, weight_norm=True)
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    needs([block])
    after = block.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


# Limits -----------------------------------------------------------------------------------------


def dense(inputs: int = 3, outputs: int = 2, params: dict = CUBA, **kwargs: Any) -> Any:
    block = slayer.block.cuba.Dense(dict(params), inputs, outputs, **kwargs)
    block.synapse.weight.data.fill_(1)
    return block


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


def conv(height: int) -> Any:
    block = slayer.block.cuba.Conv(CUBA, 1, 8, 3, padding=1)
    block.infer_shape((1, height, 128))
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
        "0 Dense: neuron: RF_PHASE, limit CUBA or LOIHI or ALIF",
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
    "cores for neurons": ([conv(129)], LOIHI1, "the net: cores: 129, limit 128"),
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


def test_output_axons_of_a_layer_take_cores():
    """1024 neurons with synapses in ten cores each need 10,240 axons: three cores' worth."""
    first = LayerNeeds("0 Dense", neurons=1024)
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


# Errors -----------------------------------------------------------------------------------------


def unquantised() -> Any:
    block = dense()
    block.synapse.pre_hook_fx = None
    return block


def fractional() -> Any:
    block = dense()
    block.synapse.pre_hook_fx = lambda x, descale=False: x / 3
    return block


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
    return subprocess.run(
        [PROGRAM, "inspect", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two files: one fits both chips, one has a fan-in that Loihi 1 can't hold."""
    folder = tmp_path_factory.mktemp("nets")
    block = slayer.block.cuba
    small = [block.Input(), block.Conv(CUBA, 1, 2, 3), block.Flatten(), block.Dense(CUBA, 72, 3)]
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
