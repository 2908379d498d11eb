"""From handwritten digits to a Loihi net: train, convert, export, and prove every spike.

Run it with ``make demo`` or ``python examples/digits.py``. It writes ``out/digits.net``, the
picture ``out/digits.png``, and for the command line the trained weights and the test spikes.
"""

import sys
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from spikingjelly.activation_based import encoding, functional, layer, neuron, surrogate

import lava_bridge

STEPS = 16  # time steps that the net sees each digit for
EPOCHS = 40
OUT = Path("out")


# 1. The net: SpikingJelly as usual, with what a chip has: no bias, hard reset to 0, and a leak
#    that does not scale the input.
def build() -> nn.Sequential:
    options = {"surrogate_function": surrogate.ATan(), "detach_reset": True}
    net = nn.Sequential(
        layer.Conv2d(1, 16, kernel_size=3, padding=1, bias=False),
        neuron.IFNode(**options),
        layer.AvgPool2d(2),
        layer.Conv2d(16, 32, kernel_size=3, padding=1, bias=False),
        neuron.LIFNode(tau=4.0, decay_input=False, **options),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Dropout(0.2),
        layer.Linear(32 * 2 * 2, 10, bias=False),
        neuron.LIFNode(tau=4.0, decay_input=False, **options),
    )
    functional.set_step_mode(net, "m")
    return net


# 2. The input: 1,797 real digits of 8 x 8 pixels. A bright pixel spikes often.
def spikes_of(images: np.ndarray, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    encoder = encoding.PoissonEncoder()
    brightness = torch.from_numpy(images / 16).float().unsqueeze(1)  # [N, 1, 8, 8] in 0 ... 1
    return torch.stack([encoder(brightness) for _ in range(STEPS)])  # [T, N, 1, 8, 8]


def train(
    net: nn.Sequential, images: np.ndarray, labels: torch.Tensor, epochs: int = EPOCHS
) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in track(range(epochs), "training", disable=not sys.stdout.isatty()):
        x = spikes_of(images, seed=epoch)
        for batch in torch.randperm(len(labels)).split(64):
            rate = net(x[:, batch]).mean(0)
            loss = F.cross_entropy(rate * 8, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            functional.reset_net(net)
        schedule.step()


def accuracy(rate: torch.Tensor, labels: torch.Tensor) -> float:
    return (rate.argmax(1) == labels).float().mean().item()


@click.command()
def main() -> None:
    """Train a net on handwritten digits, convert it, export it to out/, and prove every spike."""
    OUT.mkdir(exist_ok=True)
    console = Console()
    torch.set_num_threads(1)  # the tensors are small: threads would only wait for each other
    torch.manual_seed(0)
    images, test_images, labels, test_labels = train_test_split(
        *load_digits(return_X_y=True), test_size=450, random_state=0
    )
    images, test_images = images.reshape(-1, 8, 8), test_images.reshape(-1, 8, 8)
    labels, test_labels = torch.from_numpy(labels), torch.from_numpy(test_labels)

    net = build()
    train(net, images, labels)
    net.eval()

    # 3. Convert, write the file, read it back.
    blocks = lava_bridge.to_slayer(net, input_shape=(1, 8, 8))
    twin = lava_bridge.to_spikingjelly(blocks)
    lava_bridge.export_hdf5(blocks, OUT / "digits.net")
    read_back = lava_bridge.load_hdf5(OUT / "digits.net")

    # 4. Prove it on the whole test set: the quantised SpikingJelly twin, the slayer blocks, the
    #    file, and the file run with the chip's integers give the same spikes. How far the float net
    #    is from them is measured, not claimed.
    x = spikes_of(test_images, seed=1000)
    blocks_report = lava_bridge.check_equivalence(twin, blocks, x)
    file_report = lava_bridge.check_equivalence(blocks, read_back, x)
    integer_report = lava_bridge.check_equivalence(twin, OUT / "digits.net", x, integers=True)
    drift_report = lava_bridge.check_equivalence(net, blocks, x)

    # 5. What it means for the digits.
    with torch.no_grad():
        before = accuracy(net(x).mean(0), test_labels)
        after = accuracy(read_back(lava_bridge.TNX_to_NXT(x)).mean(-1), test_labels)
    functional.reset_net(net)

    header = ["layer", "shape", "spike rate", "mismatching: blocks", "file", "integers", "drift"]
    rows = [
        [
            exact.name_b,
            "x".join(map(str, exact.shape)),
            f"{exact.rate_b:.1%}",
            f"{exact.mismatches} of {exact.spikes:,}",
            f"{file.mismatches}",
            f"{integers.mismatches}",
            f"{drift.drift:.2%}",
        ]
        for exact, file, integers, drift in zip(
            *(report.layers for report in (blocks_report, file_report, integer_report)),
            drift_report.layers,
            strict=True,
        )
    ]
    verdict = f"{len(test_labels)} test digits: {before:.1%} right float, {after:.1%} from the file"
    table = Table(
        *header, title="Twin, slayer blocks, digits.net and its integers on the whole test set"
    )
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(verdict)
    picture = draw(header, rows, verdict, blocks_report, int(test_labels[0]))
    picture.savefig(OUT / "digits.png", dpi=120)

    # For the command line: lava-bridge verify examples/digits.py:build out/digits.net
    #                           --weights out/digits.pt --input out/digits.npy
    torch.save(net.state_dict(), OUT / "digits.pt")
    np.save(OUT / "digits.npy", x.numpy())
    console.print(f"Written: {', '.join(str(path) for path in sorted(OUT.glob('digits.*')))}")
    proofs = blocks_report, file_report, integer_report
    if not all(proof.ok for proof in proofs):
        raise SystemExit("\n".join(proof.verdict for proof in proofs))


def draw(
    header: list[str],
    rows: list[list[str]],
    verdict: str,
    report: lava_bridge.EquivalenceReport,
    label: int,
) -> Figure:
    """The table, and below it the spikes of the first test digit in every layer."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 2])
    top.suptitle(verdict)
    axis = top.subplots()
    axis.axis("off")
    table = axis.table([header, *rows], loc="center", cellLoc="center", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1, 1.5)
    bottom.suptitle(f"Spikes of the first test digit, a {label}")
    for axis, compared in zip(bottom.subplots(1, len(rows)), report.layers, strict=True):
        for raster, style in (
            (compared.raster_a, {"s": 14, "facecolors": "none", "edgecolors": "tab:blue"}),
            (compared.raster_b, {"s": 2, "color": "tab:orange"}),
        ):
            unit, time = raster.nonzero(as_tuple=True)
            axis.scatter(time, unit, **style)
        axis.set(title=compared.name_b, xlabel="time step", xlim=(-0.5, STEPS - 0.5))
        axis.set_ylim(-0.5, len(compared.raster_b) - 0.5)
        axis.yaxis.get_major_locator().set_params(integer=True)
    bottom.axes[0].set_ylabel("neuron")
    bottom.legend(["quantised twin", "slayer blocks"], loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    main()
