"""What 8 bits cost on handwritten digits: float, plain, calibrated, and after fine-tuning.

``python examples/accuracy.py --output docs/accuracy.md`` trains each net with several seeds and
writes what was measured as a page.
"""

import argparse
import statistics
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from digits import STEPS, build, spikes_of, train
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from spikingjelly.activation_based import functional, layer, neuron, surrogate

import lava_bridge

SHAPE = (1, 8, 8)
CALIBRATION = 256  # training digits that the calibration by data sees
DRAWS = 4  # times that the test digits are turned into spikes, each time with other chances
COLUMNS = ("float", "plain 8-bit", "calibrated: weights", "calibrated: data", "fine-tuned")


def build_usual() -> nn.Sequential:
    """What SpikingJelly's users build: BatchNorm, LIFNodes as they come, max pooling, biases."""
    options = {"surrogate_function": surrogate.ATan(), "detach_reset": True}
    net = nn.Sequential(
        layer.Conv2d(1, 16, kernel_size=3, padding=1, bias=False),
        layer.BatchNorm2d(16),
        neuron.LIFNode(**options),
        layer.MaxPool2d(2),
        layer.Conv2d(16, 32, kernel_size=3, padding=1, bias=False),
        layer.BatchNorm2d(32),
        neuron.LIFNode(**options),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(32 * 2 * 2, 64),
        neuron.LIFNode(**options),
        layer.Linear(64, 10),
        neuron.LIFNode(**options),
    )
    functional.set_step_mode(net, "m")
    return net


def shrink(net: nn.Sequential, factor: float = 1 / 20) -> nn.Sequential:
    """Weights and thresholds times a factor: the same net in floats, but not in 8 bits."""
    for module in net:
        if hasattr(module, "weight"):
            module.weight.data.mul_(factor)
        elif hasattr(module, "v_threshold"):
            module.v_threshold *= factor
    return net


class Digits:
    """Training and test digits, and spikes of both."""

    def __init__(self) -> None:
        images, test_images, labels, test_labels = train_test_split(
            *load_digits(return_X_y=True), test_size=450, random_state=0
        )
        self.images: np.ndarray = images.reshape(-1, 8, 8)
        self.labels = torch.from_numpy(labels)
        test_images = test_images.reshape(-1, 8, 8)
        self.test = torch.cat([spikes_of(test_images, 1000 + draw) for draw in range(DRAWS)], 1)
        self.test_labels = torch.from_numpy(test_labels).repeat(DRAWS)
        self.calibration = spikes_of(self.images[:CALIBRATION], seed=2000)


def measure(net: nn.Sequential, digits: Digits, epochs: int) -> list[tuple[float, float]]:
    """For each of the columns: percent right, and percent of the output's places that differ."""
    net.eval()
    with torch.no_grad():
        truth = net(digits.test)
    functional.reset_net(net)
    found = [(percent(truth.mean(0).argmax(1) == digits.test_labels), 0.0)]

    def convert(source: nn.Sequential, **options: object) -> nn.Sequential:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what rounding and clipping cost is measured here
            blocks = lava_bridge.to_slayer(source, SHAPE, **options)
        with torch.no_grad():
            spikes = lava_bridge.NXT_to_TNX(blocks(lava_bridge.TNX_to_NXT(digits.test)))
        right = spikes.mean(0).argmax(1) == digits.test_labels
        found.append((percent(right), percent(spikes != truth)))
        return blocks

    convert(net)
    convert(net, calibrate="weights")
    blocks = convert(net, calibrate=digits.calibration)
    # Quantisation-aware fine-tuning: the twin computes with 8 bits and learns as any other net.
    twin = lava_bridge.to_spikingjelly(blocks)
    train(twin, digits.images, digits.labels, epochs)
    convert(twin.eval())
    return found


def percent(which: torch.Tensor) -> float:
    return 100 * which.float().mean().item()


def lines_of(name: str, runs: list[list[tuple[float, float]]]) -> list[str]:
    """A net's table: a row for each column of what was measured, a run a seed."""
    rows = []
    floats = [run[0][0] for run in runs]
    for i, column in enumerate(COLUMNS):
        right, differ = ([run[i][part] for run in runs] for part in (0, 1))
        lost = [a - b for a, b in zip(floats, right, strict=True)]
        error = statistics.stdev(lost) / len(lost) ** 0.5 if len(lost) > 1 else 0.0
        cells = [
            column,
            f"{statistics.mean(right):.2f}",
            f"{statistics.mean(lost):+.2f} ± {error:.2f}" if i else "",
            f"{statistics.mean(differ):.2f}" if i else "",
            ", ".join(f"{value:.1f}" for value in right),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return [
        f"## {name}",
        "",
        "| net | right, % | points lost against float | output spikes that differ, % | each seed |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="nets trained of each kind")
    parser.add_argument("--epochs", type=int, default=20, help="of training")
    parser.add_argument("--fine-tune", type=int, default=4, help="epochs of fine-tuning")
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the tensors are small: threads would only wait for each other
    begin, digits = time.monotonic(), Digits()
    makers = {
        "Convolutions, IF and LIF without bias, average pooling": build,
        "The same nets, weights and thresholds times 1/20": build,
        "Convolutions with BatchNorm, default LIFNodes, max pooling, biases": build_usual,
    }
    runs: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in makers}
    plain, small, usual = makers
    for seed in range(arguments.seeds):
        for name in (plain, usual):
            torch.manual_seed(seed)
            net = makers[name]()
            train(net, digits.images, digits.labels, arguments.epochs)
            runs[name].append(measure(net, digits, arguments.fine_tune))
            if name == plain:
                runs[small].append(measure(shrink(net), digits, arguments.fine_tune))
    lines = [line for name in makers for line in lines_of(name, runs[name])]
    page = PAGE.format(
        command=f"python examples/accuracy.py --seeds {arguments.seeds} --epochs "
        f"{arguments.epochs} --fine-tune {arguments.fine_tune} --output docs/accuracy.md",
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        fine_tune=arguments.fine_tune,
        minutes=(time.monotonic() - begin) / 60,
        steps=STEPS,
        test=len(digits.test_labels) // DRAWS,
        draws=DRAWS,
        calibration=CALIBRATION,
        versions=f"torch {torch.__version__}, SpikingJelly {version('spikingjelly')}, Python "
        f"{sys.version_info.major}.{sys.version_info.minor}",
        tables="\n".join(lines),
    )
    if arguments.output:
        arguments.output.write_text(page, encoding="utf-8")
    Console().print("\n".join(lines), soft_wrap=True, markup=False)


PAGE = """\
# What 8 bits cost

Measured, not claimed, with

```sh
{command}
```

in {minutes:.0f} minutes on a CPU, {versions}. {seeds} nets of each kind, one a seed,
learn scikit-learn's digits (8 x 8 pixels, a spike's chance is the brightness) for {epochs} epochs
of {steps} steps. Each is tested on {test} digits that it has not seen, turned into spikes {draws}
times. "Points lost" is the mean over the seeds of float minus 8-bit, on the same spikes, with its
standard error; a negative number is a gain. "Output spikes that differ" are places of the last
layer (digit, neuron, step).

- **float**: the net as SpikingJelly runs it.
- **plain 8-bit**: `to_slayer(net, shape)`.
- **calibrated: weights**: `to_slayer(net, shape, calibrate="weights")`.
- **calibrated: data**: `to_slayer(net, shape, calibrate=x)`, {calibration} training digits.
- **fine-tuned**: `to_spikingjelly(...)` of the last, trained on for {fine_tune} epochs with weights
  of 8 bits, and converted back with `to_slayer`. It learns by the net's own surrogate gradient,
  which in the second kind was left as it was: 20 times as wide for its numbers.

{tables}"""


if __name__ == "__main__":
    main()
