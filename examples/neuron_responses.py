"""What each neuron of ``lava_bridge.slayer`` does: a picture of its response for each family.

Run it with ``python examples/neuron_responses.py``. It writes ``neuron-NAME.png`` for the pages in
``docs/neurons``; two runs give the same files.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from lava_bridge import slayer

# Okabe and Ito's colours, which colour-blind people tell apart.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GREY = "#222222", "#8A8A8A"

WIDTH, DPI = 9, 100  # 900 pixels, the width of a README
COLOURS = 64

STYLE = {
    "font.size": 10,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "xtick.color": INK,
    "ytick.color": INK,
}


# 1. The inputs, [T].
def pulses(steps: int, start: int, stop: int, every: int, height: float) -> Tensor:
    """A pulse at ``start`` and then ``every`` so many steps, before ``stop``."""
    x = torch.zeros(steps)
    x[start:stop:every] = height
    return x


def step(steps: int, start: int, stop: int, height: float) -> Tensor:
    return pulses(steps, start, stop, 1, height)


def run(neuron: Any, x: Any) -> tuple[list[Tensor], Tensor]:
    """States and spikes, [T] each, of one neuron for an input [T] or a pair of inputs."""
    one = tuple(part.reshape(1, 1, -1) for part in x) if isinstance(x, tuple) else x.view(1, 1, -1)
    with torch.no_grad():
        states = neuron.dynamics(one)
        spike = neuron(one)
    return [state.flatten() for state in states], spike.flatten()


# 2. What a panel is made of.
class Picture:
    """Panels over one time axis, each with its legend above it."""

    def __init__(self, title: str, heights: Sequence[float]) -> None:
        self.figure = Figure(figsize=(WIDTH, 0.9 + 1.25 * sum(heights)), layout="constrained")
        self.figure.suptitle(title, fontsize=11.5, color=INK, x=0.01, ha="left")
        panels = self.figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        self._panels = iter(panels)
        self.last = panels[-1]
        self.figure.get_layout_engine().set(h_pad=0.06)

    def panel(self, label: str) -> Axes:
        axes = next(self._panels)
        axes.set_ylabel(label)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        return axes

    def bars(self, x: Tensor, label: str, legend: str | None = None) -> Axes:
        """Values that are zero most of the time."""
        axes = self.panel(label)
        axes.fill_between(range(len(x)), x, step="mid", color=BLUE, lw=0, label=legend)
        axes.axhline(0, color=GREY, lw=0.8)
        axes.margins(y=0.12)
        return axes

    def spikes(self, spike: Tensor) -> None:
        """A tick for each spike."""
        axes = self.panel("spikes")
        axes.eventplot(spike.nonzero().flatten(), lineoffsets=0.5, linelengths=0.7, color=INK)
        axes.set(ylim=(0, 1), yticks=[])
        axes.grid(axis="y", visible=False)

    def finish(self, steps: int) -> Figure:
        for axes in self.figure.axes:
            if axes.get_legend_handles_labels()[0]:
                axes.legend(
                    loc="lower left",
                    bbox_to_anchor=(0, 0.98),
                    ncols=5,
                    frameon=False,
                    borderaxespad=0,
                    handlelength=1.8,
                )
        self.last.set(xlabel="time (steps)", xlim=(-0.01 * steps, 1.01 * steps))
        self.figure.align_ylabels()
        return self.figure


def line(axes: Axes, y: Tensor, color: str, label: str, **style: Any) -> None:
    axes.plot(y, color=color, label=label, **style)


def level(axes: Axes, y: float | Tensor, label: str, color: str = RED) -> None:
    """A threshold: dashed, a number or [T]."""
    style = {"color": color, "lw": 1.3, "ls": (0, (4, 2)), "label": label}
    if isinstance(y, Tensor):
        axes.plot(y, **style)
    else:
        axes.axhline(y, **style)


def mark(axes: Axes, spike: Tensor, y: Tensor) -> None:
    """A dot on the state where it fires."""
    time = spike.nonzero().flatten()
    axes.plot(time, y[time], "o", color=INK, ms=3.5, label="fires", zorder=3)


def name_drives(axes: Axes, names: dict[tuple[int, int], str]) -> None:
    """Say above the input what it is, from step to step."""
    for (start, stop), name in names.items():
        place = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
        axes.annotate(name, ((start + stop) / 2, 1.02), color=INK, fontsize=9, **place)


# 3. The families.
def cuba() -> Figure:
    steps = 160
    x = pulses(steps, 8, 70, 6, 0.35) + step(steps, 95, 145, 0.12)
    neuron = slayer.neuron.cuba.Neuron(threshold=1, current_decay=0.3, voltage_decay=0.08)
    (current, voltage), spike = run(neuron, x)
    picture = Picture(
        "CUBA: current and voltage leak, a spike sets the voltage to zero", [0.8, 0.9, 1.4, 0.4]
    )
    axes = picture.bars(x, "input x\n(weights)")
    name_drives(axes, {(8, 68): "pulses of 0.35, every 6 steps", (95, 145): "step of 0.12"})
    line(picture.panel("current u\n(weights)"), current, GREEN, "u")
    axes = picture.panel("voltage v\n(weights)")
    line(axes, voltage, BLUE, "v, before the reset")
    level(axes, neuron.threshold, "threshold ϑ")
    mark(axes, spike, voltage)
    picture.spikes(spike)
    return picture.finish(steps)


PERIOD, TOO_FAST = 12, 8
RESONATE = {"threshold": 1, "period": PERIOD, "decay": 0.06}
ADAPT = {"threshold_step": 0.3, "threshold_decay": 0.02, "refractory_decay": 0.2}


def resonator(title: str, neuron: Any, fires_by: str, height: float) -> Figure:
    """A resonator under pulses of its own period, and under pulses that are too fast."""
    steps = 260
    resonant, fast = (6, 140), (180, 236)
    x = pulses(steps, *resonant, PERIOD, height) + pulses(steps, *fast, TOO_FAST, height)
    (real, imag, *adaptive), spike = run(neuron, (x, torch.zeros_like(x)))
    picture = Picture(title, [0.7, 2.1, 0.4])
    axes = picture.bars(x, "input Re x\n(weights)")
    own = f"pulses of {height}, every {PERIOD} steps: the neuron's period"
    name_drives(axes, {resonant: own, fast: f"every {TOO_FAST} steps"})
    axes = picture.panel("state z\n(weights)")
    line(axes, real, BLUE, "Re z")
    line(axes, imag, ORANGE, "Im z")
    bounds(axes, neuron, adaptive, f" of {fires_by} z")
    mark(axes, spike, real if fires_by == "Re" else imag)
    picture.spikes(spike)
    return picture.finish(steps)


def bounds(axes: Axes, neuron: Any, adaptive: Sequence[Tensor], of: str) -> None:
    """The threshold; where it adapts, with the refractory state on it."""
    if not adaptive:
        level(axes, neuron.threshold, f"threshold ϑ{of}")
        return
    threshold, refractory = adaptive
    level(axes, threshold + refractory, f"ϑ + r: threshold{of}", GREY)
    level(axes, threshold, "ϑ: without the refractory r")


def rf() -> Figure:
    neuron = slayer.neuron.rf.Neuron(**RESONATE)
    return resonator("RF: fires where Im z passes zero and Re z reaches ϑ", neuron, "Re", 0.7)


def rf_iz() -> Figure:
    neuron = slayer.neuron.rf_iz.Neuron(**RESONATE)
    return resonator("RF IZ: fires where Im z reaches ϑ, and is reset", neuron, "Im", 0.7)


def adrf() -> Figure:
    neuron = slayer.neuron.adrf.Neuron(**RESONATE, **ADAPT)
    return resonator("ADRF: an RF whose threshold rises with each spike", neuron, "Re", 0.9)


def adrf_iz() -> Figure:
    neuron = slayer.neuron.adrf_iz.Neuron(**RESONATE, **ADAPT)
    return resonator("ADRF IZ: an RF IZ whose threshold rises, without reset", neuron, "Im", 0.9)


def alif() -> Figure:
    steps = 200
    x = step(steps, 10, 160, 0.15)
    neuron = slayer.neuron.alif.Neuron(
        threshold=1,
        threshold_step=0.2,
        current_decay=0.4,
        voltage_decay=0.1,
        threshold_decay=0.015,
        refractory_decay=0.2,
    )
    (_, voltage, *adaptive), spike = run(neuron, x)
    picture = Picture("ALIF: under a constant drive the spikes become rarer", [0.6, 2.1, 0.4])
    axes = picture.bars(x, "input x\n(weights)")
    name_drives(axes, {(10, 160): "step of 0.15"})
    axes = picture.panel("voltage v\n(weights)")
    line(axes, voltage, BLUE, "v")
    bounds(axes, neuron, adaptive, " of v")
    mark(axes, spike, voltage)
    picture.spikes(spike)
    return picture.finish(steps)


def sigma_delta() -> Figure:
    steps = 200
    time = torch.arange(steps)
    signal = torch.sin(2 * torch.pi * time / 100) * torch.exp(-time / 250)
    x = slayer.axon.Delta(threshold=1 / 16)(signal.view(1, 1, -1))
    neuron = slayer.neuron.sigma_delta.Neuron(threshold=0.25, activation=F.relu)
    with torch.no_grad():
        total = neuron.sigma(x)
        wanted = neuron.activation(total)
        sent = neuron(x)
    x, total, wanted, sent = (part.flatten() for part in (x, total, wanted, sent))
    picture = Picture("Sigma-delta: only changes of at least ϑ are sent", [0.8, 1.7, 0.9])
    name_drives(
        picture.bars(x, "input x\n(weights)"), {(0, steps): "changes of a slow analog signal"}
    )
    axes = picture.panel("level\n(weights)")
    line(axes, total, ORANGE, "sigma: Σ x")
    line(axes, wanted, BLUE, "activation: relu(Σ x)")
    line(axes, sent.cumsum(0), INK, "sum of what was sent", drawstyle="steps-post", lw=1.1)
    axes = picture.bars(sent, "output y\n(weights)", "delta: what is sent")
    level(axes, 0.25, "± threshold ϑ")
    level(axes, -0.25, "_")
    return picture.finish(steps)


FAMILIES: dict[str, Callable[[], Figure]] = {
    draw.__name__: draw for draw in (cuba, rf, rf_iz, alif, adrf, adrf_iz, sigma_delta)
}


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of 64 colours: a third of the size, and no difference to see."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  python examples/neuron_responses.py --out out rf rf_iz",
)
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(list(FAMILIES)))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(__file__).resolve().parents[1] / "docs" / "images",
    help="The folder to write to.  [default: docs/images]",
)
def main(names: tuple[str, ...], out: Path) -> None:
    """Draw how the neurons NAME respond, or all of them: cuba, rf, rf_iz, alif, adrf, adrf_iz,
    sigma_delta."""
    out.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        for name in names or FAMILIES:
            path = out / f"neuron-{name}.png"
            save(FAMILIES[name](), path)
            click.echo(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
