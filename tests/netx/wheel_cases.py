"""The recorded runs that lava-dl's wheel carries, in the terms of ``lava_bridge.netx.Network``.

``tests/lava/lib/dl/netx`` of lava-dl 0.6.0 has nets and the runs that its tests compare Lava's
with. All were run again in the real Lava (lava-nc 0.10.0, Python 3.10). What they are:

- ``tinynet`` (test_hdf5.py): ``input_bias.npy`` ``[W, H, C]`` becomes the bias of the input's
  neurons for all steps; resets make it 17 steps for each sample, as ``reset_interval=17`` does.
  Lava's step t of layer i is step t - i + 1 of the recording, whose step 0 is not Lava's.
- ``pilotnet_lif`` (test_hdf5_nx.py, for a chip): the same with ``image.npy`` and
  ``reset_interval=16``; step t is step t. In the real netx the spikes and currents are the
  recorded ones up to step 17 + i, where the recording's next sample begins a step later than the
  reset. The recorded voltages are those before the reset of a spike, and ``fc-3-u`` is not what the
  real netx gives: both are left out.
- ``pilotnet_sdnn`` (test_hdf5.py): ``input.npy`` of one step, which Lava's source repeats, goes to
  the input's neurons (``neuron.a_in``); all 9 steps of the output are compared. With
  ``spike_exp=0`` lava-dl has a tolerance alone: the numbers here are from the real netx.
- ``square_network`` and ``pilotnet_sdnn_spikes`` (test_hdf5_nx.py): ``act0.npy``, the graded spikes
  of the input's neurons, go to the net without its first layer (``skip_layers=1``); compared are
  the sigmas after each step.
- ``ntidigits`` (test_hdf5.py): spikes ``[C, T]`` into the first five groups of the file (the sixth,
  ``average``, is none that Lava can make). lava-dl compares one column alone; but all 242 rows and
  2999 steps agree: Lava's step t is step t + 1 of ``output.npy``. It took the real netx 310 s.
- ``dense``, ``complex_dense``, ``tinynet_sdnn`` (test_blocks.py): single blocks made of arrays;
  here a file is written of them. Lava's blocks take them without ``input_message_bits``, so that
  graded spikes count as one. (The test of a resonator as an input can't be said by a file.)
"""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..conftest import missing_reference

FOLDER = "tests/lava/lib/dl/netx/"
# The resonators of test_blocks.py.
PERIOD, DECAY = 11, 0.05


class Expected(NamedTuple):
    """What a layer does from step ``start`` on: its ``spike``, or a trace, ``[N, *, T]``."""

    layer: int
    trace: str
    start: int
    values: np.ndarray


class WheelCase(NamedTuple):
    """A file, the arguments of ``Network``, an input ``[N, *, T]``, and what has to come of it."""

    path: Path
    kwargs: dict[str, Any]
    x: np.ndarray
    expected: list[Expected]


def root() -> Path:
    """The folder of lava-dl's tests of netx."""
    try:
        listed = files("lava-dl") or []
    except PackageNotFoundError:
        listed = []
    for file in listed:
        if str(file) == f"{FOLDER}test_hdf5.py":
            return Path(str(file.locate())).parent
    missing_reference("lava-dl is not installed")
    raise AssertionError  # not reached: that skips or fails


def recorded(name: str) -> np.ndarray:
    return np.load(root() / "gts" / f"{name}.npy")


def slayers(values: np.ndarray) -> np.ndarray:
    """A sample of Lava's ``[W, H, C, T]`` or ``[C, T]`` as slayer's ``[1, C, H, W, T]``."""
    return np.moveaxis(values.T, 0, -1)[None]


def drawn_from_bias(bias: np.ndarray, weight: int, shift: int, steps: int) -> np.ndarray:
    """The input for which the transform of an input layer gives this bias ``[W, H, C]``."""
    x = (bias.T.astype(np.float64) - shift) / weight
    return np.repeat(x[None, ..., None], steps, axis=-1)


def tinynet(folder: Path) -> WheelCase:
    x = drawn_from_bias(recorded("tinynet/input_bias"), 36, 34, 17)
    expected = [
        Expected(0, "spike", 0, recorded("tinynet/input")[..., 1:]),
        Expected(1, "spike", 1, recorded("tinynet/layer1")[..., 1:]),
        Expected(2, "spike", 2, recorded("tinynet/output")[..., 1:]),
    ]
    return WheelCase(root() / "tiny.net", {"reset_interval": 17}, x, expected)


def pilotnet_lif(folder: Path) -> WheelCase:
    x = drawn_from_bias(recorded("pilotnet_lif/image"), 40, 36, 17)
    expected = [Expected(0, "spike", 0, slayers(recorded("pilotnet_lif/input-s"))[..., :17])]
    names = [f"conv-{i}" for i in range(5)] + [f"fc-{i}" for i in range(3)]
    for i, name in enumerate(names, start=1):
        for trace, suffix in (("spike", ""), ("current", "-u")):
            values = slayers(recorded(f"pilotnet_lif/{name}{suffix}"))
            expected.append(Expected(i, trace, 0, values[..., :17]))
    path = root() / "gts" / "pilotnet_lif" / "network.net"
    return WheelCase(path, {"reset_interval": 16}, x, expected)


def pilotnet_sdnn(folder: Path) -> WheelCase:
    x = np.repeat(slayers(recorded("pilotnet_sdnn/input")), 9, axis=-1)
    expected = [Expected(-1, "spike", 0, slayers(recorded("pilotnet_sdnn/output")))]
    return WheelCase(root() / "gts" / "pilotnet_sdnn" / "network.net", {}, x, expected)


def pilotnet_sdnn_exp0(folder: Path) -> WheelCase:
    output = np.array([0, -60, 70, 5594, 7048, 5328, -4946, -4946, -76]).reshape(1, 1, -1)
    case = pilotnet_sdnn(folder)
    return case._replace(kwargs={"spike_exp": 0}, expected=[Expected(-1, "spike", 0, output)])


def pilotnet_sdnn_spikes(folder: Path) -> WheelCase:
    expected = [
        Expected(i, "sigma", 0, slayers(recorded(f"pilotnet_sdnn/sigma{i + 1}"))) for i in range(2)
    ]
    path = root() / "gts" / "pilotnet_sdnn" / "network.net"
    x = slayers(recorded("pilotnet_sdnn/act0"))
    return WheelCase(path, {"skip_layers": 1}, x, expected)


def square_network(folder: Path) -> WheelCase:
    expected = [
        Expected(i, "sigma", 0, slayers(recorded(f"pilotnet_sdnn/sigma{i + 1}_square")))
        for i in range(4)
    ]
    path = root() / "gts" / "pilotnet_sdnn" / "square_network.net"
    x = slayers(recorded("pilotnet_sdnn/act0")[:33, :33])
    return WheelCase(path, {"skip_layers": 1}, x, expected)


def ntidigits(folder: Path) -> WheelCase:
    x, output = recorded("ntidigits/input")[None], recorded("ntidigits/output")[None]
    path = root() / "gts" / "ntidigits" / "ntidigits.net"
    return WheelCase(path, {"num_layers": 5}, x, [Expected(-1, "spike", 0, output[..., 1:])])


def write_layers(path: Path, layers: list[dict[str, Any]]) -> Path:
    """Write layers as a file: a name with a slash goes into a group."""
    with h5py.File(path, "w") as file:
        for i, layer in enumerate(layers):
            for name, value in layer.items():
                file[f"layer/{i}/{name}"] = value
    return path


def dense(folder: Path) -> WheelCase:
    weight = recorded("dense/weight")
    neuron = {"neuron/iDecay": 4096, "neuron/vDecay": 415, "neuron/vThMant": 6}
    layer = {"type": "dense", "shape": [256], "weight": weight, "neuron/type": "CUBA", **neuron}
    expected = [Expected(0, "spike", 0, recorded("dense/out")[None])]
    path = write_layers(folder / "dense.net", [layer])
    return WheelCase(path, {}, recorded("dense/in")[None], expected)


def complex_dense(folder: Path) -> WheelCase:
    turn, size = 2 * np.pi / PERIOD, (1 - DECAY) * 4096
    layer = {
        "type": "dense",
        "shape": [256],
        "weight/real": recorded("complex_dense/weight_r"),
        "weight/imag": recorded("complex_dense/weight_img"),
        "neuron/type": "RF_PHASE",
        "neuron/sinDecay": int(size * np.sin(turn)),
        "neuron/cosDecay": int(size * np.cos(turn)),
        "neuron/vThMant": 25,
    }
    expected = [Expected(0, "spike", 0, recorded("complex_dense/out")[None])]
    path = write_layers(folder / "complex_dense.net", [layer])
    return WheelCase(path, {}, recorded("complex_dense/in")[None], expected)


def sigma_delta_input(folder: Path) -> WheelCase:
    steps = np.arange(15)
    wave = recorded("tinynet_sdnn/input_bias")[..., None] * np.sin(2 * np.pi * steps / len(steps))
    layer = {"type": "input", "shape": [3, 16, 16], "neuron/type": "SDNN", "neuron/vThMant": 20}
    expected = [Expected(0, "spike", 0, slayers(recorded("tinynet_sdnn/input")))]
    path = write_layers(folder / "input.net", [layer])
    return WheelCase(path, {}, slayers(wave.astype(int)), expected)


def sigma_delta_conv(folder: Path) -> WheelCase:
    kernel = recorded("tinynet_sdnn/layer1_kernel").transpose(0, 3, 2, 1)[:, :, ::-1, ::-1]
    layer = {
        "type": "conv",
        "shape": [24, 6, 6],
        "weight": kernel,
        "bias": recorded("tinynet_sdnn/layer1_bias"),
        "stride": [2, 2],
        "padding": [0, 0],
        "dilation": [1, 1],
        "groups": 1,
        "neuron/type": "SDNN",
        "neuron/vThMant": 20,
    }
    # Lava's source has 15 steps and begins again at the sixteenth.
    x = slayers(recorded("tinynet_sdnn/input"))
    x = np.concatenate([x, x[..., :1]], axis=-1)
    expected = [Expected(0, "spike", 0, slayers(recorded("tinynet_sdnn/layer1")))]
    path = write_layers(folder / "conv.net", [{"type": "input", "shape": [3, 16, 16]}, layer])
    return WheelCase(path, {}, x, expected)


def sigma_dense(folder: Path) -> WheelCase:
    layer = {
        "type": "dense",
        "shape": [100],
        "weight": recorded("tinynet_sdnn/layer2_weight"),
        "neuron/type": "SDNN",
        "neuron/vThMant": 0,
        "neuron/sigma_output": True,
    }
    x = recorded("tinynet_sdnn/layer1").reshape(1, -1, 16)
    expected = [Expected(0, "spike", 0, recorded("tinynet_sdnn/layer2")[None])]
    return WheelCase(write_layers(folder / "dense.net", [layer]), {}, x, expected)


# Each writes what it has to write into the folder.
CASES: list[Callable[[Path], WheelCase]] = [
    tinynet,
    pilotnet_lif,
    pilotnet_sdnn,
    pilotnet_sdnn_exp0,
    pilotnet_sdnn_spikes,
    square_network,
    ntidigits,
    dense,
    complex_dense,
    sigma_delta_input,
    sigma_delta_conv,
    sigma_dense,
]
