"""Make the nets and inputs that netx_runs.py runs in Lava's own netx.

Run with the project's environment, after ``make demo`` (or ``python examples/digits.py``), which
trains the net of ``digits.net``:

    python tests/reference/make_netx_inputs.py tests/data/netx --demo out

It writes NAME.net, by :func:`lava_bridge.export_hdf5`, and NAME.npz with the input spikes ``x``
``[N, *, T]``; what was recorded there before is lost, so netx_runs.py has to follow, on the folder
and on its folder ``lowered``. In that the nets are exported with ``target="lava"``; the blocks
themselves are beside them, NAME.blocks.net. All but the demo's net are drawn from seeds. Every net
must spike at 5 to 40 % in its output: a silent or a saturated one would show little.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lava_bridge
from lava_bridge import slayer
from lava_bridge.slayer.block import cuba as block
from lava_bridge.slayer.neuron.norm import MeanOnlyBatchNorm

DIGITS = 4  # samples of the demo's input
SAMPLES, STEPS, INPUT_RATE = 3, 24, 0.3
LEAST_RATE, MOST_RATE = 0.05, 0.4

Net = tuple[list[torch.nn.Module], tuple[int, ...]]


class Draw:
    """Makes blocks with random weights on the chip's grid."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        torch.manual_seed(seed)  # for the decays that a block draws for its channels

    def weights(self, synapse: Any, least: int, most: int) -> None:
        """Even integers from ``least`` to ``most``, as the chip has them, over the scale of 64."""
        drawn = 2 * self.random.integers(least // 2, most // 2, synapse.weight.shape, endpoint=True)
        synapse.weight.data = torch.from_numpy(drawn).float() / 64

    def filled(self, made: Any, least: int, most: int) -> Any:
        """The block, with weights drawn from ``least`` to ``most``, both parts if complex."""
        for _, part in made.synapse.parts(""):
            self.weights(part, least, most)
        return made


def neuron(threshold: float = 1.0, current: Any = 1.0, voltage: Any = 0.1, **more: Any) -> dict:
    return {
        "threshold": threshold,
        "current_decay": current,
        "voltage_decay": voltage,
        **more,
    }


def dense(draw: Draw) -> Net:
    """Two layers, as simple as it gets."""
    first = block.Dense(neuron(1.0), 12, 16, delay_shift=False)
    second = block.Dense(neuron(2.0), 16, 6, delay_shift=False)
    return [draw.filled(first, -60, 80), draw.filled(second, -60, 70)], (12,)


def conv(draw: Draw) -> Net:
    """Convolutions with all sizes different in height and width, then flatten and dense."""
    first = block.Conv(
        neuron(2.0),
        2,
        4,
        kernel_size=(3, 2),
        stride=(2, 1),
        padding=(1, 0),
        delay_shift=False,
    )
    second = block.Conv(
        neuron(1.5),
        4,
        6,
        kernel_size=(2, 3),
        stride=(1, 2),
        padding=(0, 2),
        dilation=(2, 1),
        groups=2,
        delay_shift=False,
    )
    last = block.Dense(neuron(4.0), 6 * 2 * 4, 5, delay_shift=False)
    return [
        block.Input(delay_shift=False),
        draw.filled(first, -100, 120),
        draw.filled(second, -80, 100),
        block.Flatten(),
        draw.filled(last, -70, 90),
    ], (2, 7, 6)


def cuba(draw: Draw) -> Net:
    """A current that lasts, thresholds off the 1/64 grid, decays of each channel, axonal delays.

    Weights and thresholds are small and the decays slow: one unit of 1/4096 in a state then counts.
    """
    first: Any = block.Dense(neuron(0.36, 0.13, 0.02), 12, 32, delay=True, delay_shift=False)
    decays = {"current": (0.05, 0.4), "voltage": (0.01, 0.1), "shared_param": False}
    second: Any = block.Dense(neuron(0.33, **decays), 32, 24, delay=True, delay_shift=False)
    for made, most in ((first, 3), (second, 6)):
        channels = made.infer_shape((made.synapse.in_channels,))[0]
        delays = draw.random.uniform(0, most, channels)
        made.delay.delay.data = torch.from_numpy(delays).float()
    return [draw.filled(first, -8, 8), draw.filled(second, -6, 6)], (12,)


def recurrent(draw: Draw) -> Net:
    """Two layers with feedback, of blocks that delay their spikes as the chip does."""
    blocks = []
    for inputs, outputs in ((12, 8), (8, 6)):
        made = block.Recurrent(neuron(1.0, 0.5), inputs, outputs)
        draw.weights(made.recurrent_synapse, -40, 30)
        blocks.append(draw.filled(made, -40, 60))
    return blocks, (12,)


def biased(draw: Draw) -> Net:
    """Two layers with a norm, which the file has as a bias."""
    blocks = []
    for inputs, outputs in ((12, 8), (8, 6)):
        params = neuron(1.0, 0.5, norm=MeanOnlyBatchNorm)
        made = draw.filled(block.Dense(params, inputs, outputs, delay_shift=False), -50, 60)
        made.neuron.norm.running_mean = torch.from_numpy(
            2 * draw.random.integers(-8, 12, outputs).astype(np.float32) / 64
        )
        blocks.append(made)
    return blocks, (12,)


def flatten_first(draw: Draw) -> Net:
    """An input with height and width, flattened at once."""
    made = block.Dense(neuron(2.0), 2 * 3 * 4, 6, delay_shift=False)
    return [
        block.Input(delay_shift=False),
        block.Flatten(),
        draw.filled(made, -80, 90),
    ], (2, 3, 4)


def rf(draw: Draw) -> Net:
    """Two layers of resonators that fire at phase zero, of different periods and decays."""
    first = slayer.block.rf.Dense(
        {"threshold": 0.6, "period": 7.3, "decay": 0.07}, 12, 16, delay_shift=False
    )
    second = slayer.block.rf.Dense(
        {"threshold": 0.4, "period": 11, "decay": 0.2}, 16, 6, delay_shift=False
    )
    return [draw.filled(first, -80, 90), draw.filled(second, -90, 90)], (12,)


def rf_iz(draw: Draw) -> Net:
    """Two layers of resonators that fire by their imaginary part and are reset."""
    first = slayer.block.rf_iz.Dense(
        {"threshold": 2.1, "period": 9.1, "decay": 0.05}, 12, 16, delay_shift=False
    )
    second = slayer.block.rf_iz.Dense(
        {"threshold": 1.3, "period": 6, "decay": 0.3}, 16, 6, delay_shift=False
    )
    return [draw.filled(first, -80, 90), draw.filled(second, -60, 60)], (12,)


def set_norm(draw: Draw, made: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Tell a block its shape, and its norm a mean for each channel."""
    shape = made.infer_shape(shape)
    mean = 2 * draw.random.integers(-8, 12, shape[0]).astype(np.float32) / 64
    made.neuron.norm.running_mean = torch.from_numpy(mean)
    return shape


def pool(draw: Draw) -> Net:
    """Pools: of a plane that they do not divide, and one that overlaps, padded and dilated."""
    first = block.Conv(neuron(2.0), 2, 4, 3, padding=1, delay_shift=False)
    tiles = block.Pool(neuron(1.5, 0.0, 0.2), 2, delay_shift=False)
    window = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0), "dilation": (1, 2)}
    overlapping = block.Pool(neuron(3.0), weight_scale=0.75, **window, delay_shift=False)
    last = block.Dense(neuron(4.0), 4 * 4 * 2, 6, delay_shift=False)
    return [
        draw.filled(first, -100, 110),
        tiles,
        overlapping,
        block.Flatten(),
        draw.filled(last, -60, 66),
    ], (2, 7, 9)


def plane(draw: Draw) -> Net:
    """A dense layer on height and width behind a convolution, and one behind it."""
    first = block.Conv(neuron(2.0), 2, 3, (3, 2), delay_shift=False)
    second = block.Dense(neuron(2.0), (5, 3, 3), 8, delay_shift=False)
    last = block.Dense(neuron(1.5), 8, 6, delay_shift=False)
    return [
        draw.filled(first, -100, 120),
        draw.filled(second, -70, 80),
        block.Flatten(),
        draw.filled(last, -90, 100),
    ], (2, 5, 6)


def bias(draw: Draw) -> Net:
    """Norms in a convolution of per-channel decays and in a dense layer on height and width."""
    norm = {"norm": MeanOnlyBatchNorm}
    decays = {"current": (0.2, 1.0), "voltage": (0.05, 0.3), "shared_param": False}
    first = draw.filled(
        block.Conv(neuron(2.0, **decays, **norm), 2, 3, 2, delay_shift=False), -80, 110
    )
    pooled = block.Pool(neuron(1.0), 2, delay_shift=False)
    last = block.Dense(neuron(2.0, 0.5, **norm), (2, 2, 3), 6, delay_shift=False)
    shape = pooled.infer_shape(set_norm(draw, first, (2, 5, 5)))
    set_norm(draw, draw.filled(last, -80, 80), shape)
    return [first, pooled, last], (2, 5, 5)


def delays(draw: Draw) -> Net:
    """Axonal delays in dense layers, the first of which sees height and width."""
    first = block.Dense(neuron(2.0, 0.4), (4, 3, 2), 10, delay=True, delay_shift=False)
    second = block.Dense(neuron(1.0, 0.3), 10, 6, delay=True, delay_shift=False)
    for made, shape in ((first, (2, 3, 4)), (second, (10, 1, 1))):
        channels = made.infer_shape(shape)[0]
        made.delay.delay.data = torch.from_numpy(draw.random.uniform(0, 5, channels)).float()
    return [draw.filled(first, -60, 70), draw.filled(second, -70, 60)], (2, 3, 4)


def resonators(draw: Draw) -> Net:
    """Resonators of a period and a decay for each channel."""
    channels = {"period": (5.0, 12.0), "decay": (0.02, 0.2), "shared_param": False}
    return [
        draw.filled(
            slayer.block.rf.Dense({"threshold": 0.6, **channels}, 12, 16, delay_shift=False),
            -80,
            90,
        ),
        draw.filled(
            slayer.block.rf_iz.Dense({"threshold": 1.3, **channels}, 16, 6, delay_shift=False),
            -60,
            60,
        ),
    ], (12,)


# Exported with target="lava"; the seeds go on from those of NETS.
LOWERED: list[Callable[[Draw], Net]] = [pool, plane, bias, delays, resonators]

# The place in the list is the seed.
NETS: list[Callable[[Draw], Net]] = [
    dense,
    conv,
    cuba,
    recurrent,
    biased,
    flatten_first,
    rf,
    rf_iz,
]


def write_drawn(folder: Path, make: Callable[[Draw], Net], seed: int) -> None:
    """Draw a net and an input and write them."""
    draw = Draw(seed)
    blocks, shape = make(draw)
    lava_bridge.export_hdf5(blocks, folder / f"{make.__name__}.net", input_shape=shape)
    x = draw.random.random((SAMPLES, *shape, STEPS)) < INPUT_RATE
    write_input(folder / f"{make.__name__}.npz", x)


def write_lowered(folder: Path, make: Callable[[Draw], Net], seed: int) -> None:
    """Draw a net and an input and write them, the net as it is and lowered."""
    draw = Draw(seed)
    blocks, shape = make(draw)
    folder.mkdir(exist_ok=True)
    name = make.__name__
    lava_bridge.export_hdf5(blocks, folder / f"{name}.blocks.net", input_shape=shape)
    lava_bridge.export_hdf5(blocks, folder / f"{name}.net", input_shape=shape, target="lava")
    write_input(folder / f"{name}.npz", draw.random.random((SAMPLES, *shape, STEPS)) < INPUT_RATE)


def write_digits(folder: Path, demo: Path) -> None:
    """Copy the demo's net as it is, and the first samples of its input."""
    shutil.copyfile(demo / "digits.net", folder / "digits.net")
    x = np.load(demo / "digits.npy", mmap_mode="r")[:, :DIGITS]  # [T, N, C, H, W]
    write_input(folder / "digits.npz", np.moveaxis(x, 0, -1))


def write_input(path: Path, x: np.ndarray) -> None:
    """Write input spikes, if the net beside them makes enough and not too many of them."""
    blocks = lava_bridge.load_hdf5(path.with_suffix(".net")).eval()
    spikes, rates = torch.tensor(x, dtype=torch.float32), []
    with torch.no_grad():
        for made in blocks:
            spikes = made(spikes)
            rates.append(spikes.mean().item())
    print(f"{path.stem}: spike rates {', '.join(f'{rate:.1%}' for rate in rates)}")
    if not LEAST_RATE <= rates[-1] <= MOST_RATE:
        raise SystemExit(
            f"{path.stem}: the last rate is outside {LEAST_RATE:.0%} ... {MOST_RATE:.0%}"
        )
    np.savez_compressed(path, x=x.astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the nets and inputs for netx_runs.py.")
    parser.add_argument("folder", type=Path, help="where to write, as tests/data/netx")
    parser.add_argument("--demo", type=Path, help="has digits.net and digits.npy; default: skip")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for seed, make in enumerate(NETS):
        write_drawn(arguments.folder, make, seed)
    for seed, make in enumerate(LOWERED, start=len(NETS)):
        write_lowered(arguments.folder / "lowered", make, seed)
    if arguments.demo is not None:
        write_digits(arguments.folder, arguments.demo)


if __name__ == "__main__":
    main()
