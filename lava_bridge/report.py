"""What an equivalence check found: in numbers, as text, and as a picture."""

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

__all__ = ["Divergence", "EquivalenceReport", "LayerComparison", "as_text"]


def as_text(table: Table, width: int = 120) -> str:
    """A table for rich as lines of text without colour."""
    text = io.StringIO()
    Console(file=text, width=width, no_color=True).print(table)
    return text.getvalue()


@dataclass(frozen=True)
class Divergence:
    """Where a layer's spikes first differ: earliest in time, then by sample and neuron."""

    sample: int
    time: int
    neuron: tuple[int, ...]

    def __str__(self) -> str:
        neuron = ",".join(map(str, self.neuron))
        return f"sample {self.sample}, t={self.time}, neuron ({neuron})"


def _no_raster() -> Tensor:
    return torch.zeros(0, 0)


@dataclass
class LayerComparison:
    """One layer of both nets, over all samples and steps.

    Attributes:
        name_a, name_b: The layer's name in either net.
        shape: Its neurons, ``[C, *]``.
        spikes: How many spike places (sample, neuron, step) were compared.
        fired_a, fired_b: In how many of them there is one.
        rate_a, rate_b: The share of these.
        mismatches: How many differ.
        first: Where the first of these is.
        largest: The largest absolute difference.
        beyond: Where a current or a voltage first left the chip's 24 bits, in an integer run; in
            the steps of ``first``, so that no difference before it comes from there.
        raster_a, raster_b: The spikes of the first sample, ``[neurons, T]``, on the CPU.
    """

    name_a: str
    name_b: str
    shape: tuple[int, ...]
    spikes: int = 0
    fired_a: int = 0
    fired_b: int = 0
    mismatches: int = 0
    first: Divergence | None = None
    largest: float = 0.0
    beyond: Divergence | None = None
    raster_a: Tensor = field(default_factory=_no_raster, repr=False, compare=False)
    raster_b: Tensor = field(default_factory=_no_raster, repr=False, compare=False)

    @property
    def rate_a(self) -> float:
        return self.fired_a / self.spikes if self.spikes else 0.0

    @property
    def rate_b(self) -> float:
        return self.fired_b / self.spikes if self.spikes else 0.0

    @property
    def drift(self) -> float:
        """Share of the spike places that differ."""
        return self.mismatches / self.spikes if self.spikes else 0.0

    def add(self, spikes_a: Tensor, spikes_b: Tensor, first_sample: int) -> None:
        """Take a batch ``[N, *, T]`` of either net into account, on whatever devices."""
        spikes_b = spikes_b.to(spikes_a.device)
        if first_sample == 0 and spikes_a.shape[0]:
            rasters = (x[0].reshape(-1, x.shape[-1]) for x in (spikes_a, spikes_b))
            self.raster_a, self.raster_b = (raster.to("cpu", copy=True) for raster in rasters)
        self.spikes += spikes_a.numel()
        self.fired_a += int(torch.count_nonzero(spikes_a))
        self.fired_b += int(torch.count_nonzero(spikes_b))
        differ = spikes_a != spikes_b
        count = int(differ.sum())
        if not count:
            return
        self.mismatches += count
        self.largest = max(self.largest, float((spikes_a - spikes_b).abs().max()))
        self.first = _earlier(self.first, differ, first_sample)

    def add_beyond(self, beyond: Tensor, first_sample: int) -> None:
        """Take into account where the states of a batch ``[N, *, T]`` left 24 bits."""
        self.beyond = _earlier(self.beyond, beyond, first_sample)

    def merge(self, later: "LayerComparison", first_sample: int) -> None:
        """Take the same layer on later samples into account, which start at ``first_sample``."""
        for name in ("spikes", "fired_a", "fired_b", "mismatches"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.largest = max(self.largest, later.largest)
        for name in ("first", "beyond"):
            found = getattr(later, name)
            if found is not None:
                found = replace(found, sample=found.sample + first_sample)
            setattr(self, name, _earliest(getattr(self, name), found))


def _earlier(known: Divergence | None, found: Tensor, first_sample: int) -> Divergence | None:
    """The place ``known``, or the earliest of those ``found`` ``[N, *, T]`` if that is earlier."""
    steps = found.movedim(-1, 0)
    times = steps.flatten(1).any(dim=1).nonzero()
    if not len(times) or (known is not None and known.time < int(times[0])):
        return known
    time = int(times[0])
    sample, *neuron = steps[time].nonzero()[0].tolist()
    return _earliest(known, Divergence(sample + first_sample, time, tuple(neuron)))


def _earliest(*places: Divergence | None) -> Divergence | None:
    """The earliest of the places that there are, however the samples were shared out."""
    known = (place for place in places if place is not None)
    return min(known, key=lambda place: (place.time, place.sample, place.neuron), default=None)


@dataclass
class EquivalenceReport:
    """What :func:`lava_bridge.check_equivalence` found.

    Attributes:
        claim: ``"exact"``: both nets are quantised and must agree. ``"drift"``: one is a float net,
            the difference is only measured.
        a, b: What was compared.
        samples: Number of samples.
        layers: The layers with neurons, in order.
        input_shape: Of the input, ``[N, *, T]``; empty where it is not known.
    """

    claim: str
    a: str
    b: str
    samples: int
    layers: list[LayerComparison]
    input_shape: tuple[int, ...] = ()

    @staticmethod
    def merged(reports: Sequence["EquivalenceReport"]) -> "EquivalenceReport":
        """One report of several of the same nets, each on the samples that follow the last's."""
        whole = replace(reports[0], layers=[replace(layer) for layer in reports[0].layers])
        for report in reports[1:]:
            for layer, later in zip(whole.layers, report.layers, strict=True):
                layer.merge(later, whole.samples)
            whole.samples += report.samples
        if whole.input_shape:
            whole.input_shape = (whole.samples, *whole.input_shape[1:])
        return whole

    @property
    def ok(self) -> bool:
        """Whether every spike of every layer is the same."""
        return not any(layer.mismatches for layer in self.layers)

    @property
    def drift(self) -> float:
        """Share of the spike places of all layers that differ."""
        total = sum(layer.spikes for layer in self.layers)
        return sum(layer.mismatches for layer in self.layers) / total if total else 0.0

    @property
    def verdict(self) -> str:
        """The result in one line."""
        mismatches = sum(layer.mismatches for layer in self.layers)
        total = sum(layer.spikes for layer in self.layers)
        if self.claim == "drift":
            return (
                f"drift: {self.drift:.2%} of {total:,} spike places differ (measured, not a claim"
                f"{self._silence()})"
            )
        if self.ok:
            silence = self._silence()
            return f"exact: all {total:,} spike places agree{silence and f' ({silence[2:]})'}"
        first = next(layer for layer in self.layers if layer.mismatches)
        beyond = next((layer for layer in self.layers if layer.beyond), None)
        note = ""
        if beyond is not None:
            note = (
                f"; the chip's 24 bits do not hold this net: they end in {beyond.name_b} at "
                f"{beyond.beyond}"
            )
        return (
            f"NOT exact: {mismatches:,} of {total:,} spike places differ, first in layer "
            f"{first.name_a} at {first.first}{note}"
        )

    def _silence(self) -> str:
        """What is to be said of layers in which nothing fires, after a semicolon."""
        silent = {
            "": [x.name_a for x in self.layers if not x.fired_a and not x.fired_b],
            f" of {self.a}": [x.name_a for x in self.layers if not x.fired_a and x.fired_b],
            f" of {self.b}": [x.name_b for x in self.layers if x.fired_a and not x.fired_b],
        }
        notes = [f"in {', '.join(names)}{where}" for where, names in silent.items() if names]
        return f"; but no neuron fires {', nor '.join(notes)}" if notes else ""

    def table(self) -> Table:
        """The layers as a table for rich."""
        table = Table(title=f"{self.a} against {self.b}, {self.samples} samples")
        table.add_column("layer")
        for column in ("shape", "rate a", "rate b", "mismatches", "largest", "first divergence"):
            table.add_column(column, justify="right")
        for layer in self.layers:
            same = layer.name_a == layer.name_b
            table.add_row(
                layer.name_a if same else f"{layer.name_a} | {layer.name_b}",
                "x".join(map(str, layer.shape)),
                f"{layer.rate_a:.2%}",
                f"{layer.rate_b:.2%}",
                f"{layer.mismatches:,}",
                f"{layer.largest:g}",
                str(layer.first or "-"),
            )
        return table

    def __str__(self) -> str:
        return f"{as_text(self.table())}{self.verdict}"

    def save_html(
        self,
        path: str | os.PathLike[str],
        title: str | None = None,
        tables: "Iterable[tuple[str, Any, Any]]" = (),
    ) -> None:
        """Write this report as one HTML page; :func:`lava_bridge.html_report.save_html` of one.

        Args:
            path: The file; it appears whole or not at all.
            title: The page's; what was compared, by default.
            tables: What was rewritten or calibrated: ``(title, columns, rows)`` each.

        Raises:
            BridgeError: If a row has not as many cells as there are columns.
            NetFileError: If the file can't be written.
        """
        from .html_report import save_html

        heading = f"{self.a} against {self.b}"
        save_html({heading: self}, path, title=title or heading, tables=tables)

    def plot(self, neurons: int = 100) -> Any:
        """Draw the first sample's spikes, a layer a row; what differs is red.

        Args:
            neurons: How many neurons of a layer are drawn at most.

        Returns:
            Not shown and not saved: call ``figure.savefig(path)``.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 1.6 * len(self.layers) + 0.8), layout="constrained")
        axes = figure.subplots(len(self.layers), 1, sharex=True, squeeze=False)[:, 0]
        for axis, layer in zip(axes, self.layers, strict=True):
            raster_a, raster_b = layer.raster_a[:neurons], layer.raster_b[:neurons]
            same = (raster_a == raster_b) & (raster_a != 0)
            for spikes, colour, label in (
                (same, "black", "both"),
                (raster_a != raster_b, "red", "differ"),
            ):
                unit, time = spikes.nonzero(as_tuple=True)
                axis.scatter(time.numpy(), unit.numpy(), s=4, c=colour, label=label, marker="|")
            axis.set_ylabel(layer.name_a, rotation=0, ha="right", va="center")
            axis.set_title(
                f"{layer.mismatches:,} of {layer.spikes:,} differ, rate {layer.rate_b:.2%}",
                fontsize="small",
                loc="right",
            )
        axes[-1].set_xlabel("time step")
        figure.suptitle(self.verdict, fontsize="medium")
        return figure
