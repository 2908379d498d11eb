"""The page: verdicts, what was compared, a table a comparison, the spikes of the first sample."""

import os
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import BridgeError
from ..hdf5.writer import write_whole
from ..report import EquivalenceReport, LayerComparison
from .markup import Markup, tag
from .raster import Picture, draw

__all__ = ["save_html"]

# Nothing is fetched, whatever a name in the page says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

# What each claim says where it holds, where it does not; its sign and its colour's name.
EXACT = ("Exact", "✓", "exact")
BROKEN = ("Not exact", "✗", "broken")
DRIFT = ("Drift, measured", "≈", "drift")

# A picture of more steps than this takes the page's width.
WIDE = 40


def save_html(
    reports: Mapping[str, EquivalenceReport],
    path: str | os.PathLike[str],
    title: str = "Equivalence of two nets",
    tables: Iterable[tuple[str, Sequence[str], Iterable[Sequence[Any]]]] = (),
) -> None:
    """Write equivalence reports as one HTML page.

    The page holds all that it shows: no script, no picture or font from elsewhere. It follows the
    reader's light or dark scheme and prints. Of a layer it shows the first sample's spikes, some
    ten thousand at most.

    Args:
        reports: Each comparison's heading, and what it found.
        path: The file; it appears whole or not at all.
        title: The page's.
        tables: What was rewritten or calibrated, say: ``(title, columns, rows)`` each, with as many
            cells in a row as there are columns.

    Raises:
        BridgeError: If there is no report, or a row has not as many cells as there are columns.
        NetFileError: If the file can't be written.
    """
    if not reports:
        raise BridgeError(f"{os.fspath(path)}: there is no report to write; give at least one")
    parts = [_head(title, reports), _verdicts(reports)]
    extra = list(tables)
    parts += [_extra(extra)] if extra else []
    parts += [_layers(reports), _rasters(reports), _foot()]
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    page = Markup(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"{tag('title', title)}\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{tag('main', Markup(chr(10).join(parts)))}\n</body>\n</html>\n"
    )
    write_whole(Path(path), memoryview(page.encode("utf-8")))


def _kind(report: EquivalenceReport) -> tuple[str, str, str]:
    if report.claim == "drift":
        return DRIFT
    return EXACT if report.ok else BROKEN


def _finding(report: EquivalenceReport) -> str:
    """The verdict without its first word, which the badge says."""
    return report.verdict.partition(": ")[2]


def _badge(kind: tuple[str, str, str]) -> Markup:
    word, sign, name = kind
    return tag("span", tag("span", sign, aria_hidden="true"), f" {word}", class_=f"badge {name}")


def _anchor(prefix: str, number: int) -> str:
    return f"{prefix}-{number + 1}"


def _head(title: str, reports: Mapping[str, EquivalenceReport]) -> Markup:
    claims = [report for report in reports.values() if report.claim == "exact"]
    kinds = {_kind(report) for report in reports.values()}
    kind = BROKEN if BROKEN in kinds else EXACT if EXACT in kinds else DRIFT
    if kind is BROKEN:
        bad = sum(not report.ok for report in claims)
        text = f"{bad} of {len(claims)} exact claims {'does' if bad == 1 else 'do'} not hold."
    elif kind is EXACT:
        places = sum(layer.spikes for report in claims for layer in report.layers)
        text = f"All {places:,} spike places of the exact claims agree."
    else:
        text = "No exact claim was made: a float net was compared."
    return tag(
        "header",
        tag("p", "Equivalence report", class_="kicker"),
        tag("h1", title),
        tag("p", _badge(kind), f" {text}", class_=f"banner {kind[2]}"),
    )


def _verdicts(reports: Mapping[str, EquivalenceReport]) -> Markup:
    cards = [
        tag(
            "article",
            tag("h3", tag("a", heading, href=f"#{_anchor('layers', i)}")),
            tag("p", _badge(_kind(report))),
            tag("p", _finding(report)),
            class_=_kind(report)[2],
        )
        for i, (heading, report) in enumerate(reports.items())
    ]
    facts = tag("dl", *(tag("div", tag("dt", k), tag("dd", v)) for k, v in _facts(reports)))
    return tag("section", tag("h2", "Verdicts"), tag("div", *cards, class_="cards"), facts)


def _facts(reports: Mapping[str, EquivalenceReport]) -> list[tuple[str, str]]:
    """What was run, with what, and when."""
    first = next(iter(reports.values()))
    facts = [("Samples", f"{first.samples:,}")]
    if first.input_shape:
        _, *shape, steps = first.input_shape
        facts += [("Time steps", f"{steps:,}"), ("Shape of an input", _times(shape))]
    neurons = sum(_neurons(layer) for layer in first.layers)
    facts += [("Layers with neurons", f"{len(first.layers)}"), ("Neurons", f"{neurons:,}")]
    with suppress(metadata.PackageNotFoundError):
        facts.append(("SpikingJelly", metadata.version("spikingjelly")))
    return [
        *facts,
        ("lava_bridge", __version__),
        ("PyTorch", torch.__version__),
        ("Python", platform.python_version()),
        ("Written", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
    ]


def _extra(tables: list[tuple[str, Sequence[str], Iterable[Sequence[Any]]]]) -> Markup:
    drawn = []
    for title, columns, table_rows in tables:
        body, rows = [], list(table_rows)
        for row in rows:
            if len(row) != len(columns):
                raise BridgeError(
                    f"table {title}: a row has {len(row)} cells, and there are {len(columns)} "
                    "columns; give each row a cell for every column"
                )
            body.append(tag("tr", *(_cell(cell) for cell in row)))
        numeric = {i for i in range(len(columns)) if rows and all(_number(r[i]) for r in rows)}
        drawn.append(_table(title, columns, body, numeric=numeric))
    return tag("section", tag("h2", "How the net was converted"), *drawn)


def _cell(value: Any) -> Markup:
    if not _number(value):
        return tag("td", value)
    return tag("td", f"{value:,}" if isinstance(value, int) else f"{value:g}", class_="number")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _table(
    caption: str,
    columns: Sequence[str],
    body: Iterable[Markup],
    foot: str = Markup(""),
    numeric: Collection[int] = (),
) -> Markup:
    """A table in a box of its own, which scrolls where the page is narrower than the table."""
    heads = (
        tag("th", column, scope="col", class_="number" if i in numeric else None)
        for i, column in enumerate(columns)
    )
    head = tag("thead", tag("tr", *heads))
    table = tag("table", tag("caption", caption), head, tag("tbody", *body), foot)
    return tag("div", table, class_="box", role="region", aria_label=caption, tabindex="0")


def _layers(reports: Mapping[str, EquivalenceReport]) -> Markup:
    parts = []
    for i, (heading, report) in enumerate(reports.items()):
        names = (("a", report.a), ("b", report.b))
        sides = (tag("div", tag("dt", side), tag("dd", tag("code", name))) for side, name in names)
        parts.append(
            tag(
                "div",
                tag("h3", heading, id=_anchor("layers", i)),
                tag("p", _badge(_kind(report)), f" {_finding(report)}"),
                tag("dl", *sides, class_="sides"),
                _layer_table(heading, report),
                class_="comparison",
            )
        )
    return tag("section", tag("h2", "Layer by layer"), *parts)


def _layer_table(heading: str, report: EquivalenceReport) -> Markup:
    columns = ["Layer", "Shape", "Places", "Rate a", "Rate b", "Mismatches", "Share", "Largest"]
    columns.append("First divergence")
    limited = any(layer.beyond for layer in report.layers)
    if limited:
        columns.append("Leaves 24 bits")
    first = next((layer for layer in report.layers if layer.mismatches), None)
    body = []
    for layer in report.layers:
        cells = [
            tag("td", _times(layer.shape), class_="number"),
            tag("td", f"{layer.spikes:,}", class_="number"),
            tag("td", _share(layer.rate_a), class_="number"),
            tag("td", _share(layer.rate_b), class_="number"),
            tag("td", f"{layer.mismatches:,}", class_="number count"),
            tag("td", _share(layer.drift), class_="number"),
            tag("td", f"{layer.largest:g}", class_="number"),
            tag("td", str(layer.first or "-")),
        ]
        if limited:
            cells.append(tag("td", str(layer.beyond or "-")))
        name = [_name(layer)]
        if layer is first:
            name.append(tag("span", "▸ differs first", class_="mark"))
        state = " ".join(
            word for word, holds in (("differs", layer.mismatches), ("first", layer is first))
            if holds
        )  # fmt: skip
        body.append(tag("tr", tag("th", *name, scope="row"), *cells, class_=state or None))
    places = sum(layer.spikes for layer in report.layers)
    mismatches = sum(layer.mismatches for layer in report.layers)
    total = [
        tag("th", "All layers", scope="row"),
        tag("td"),
        tag("td", f"{places:,}", class_="number"),
        *(tag("td") for _ in range(2)),
        tag("td", f"{mismatches:,}", class_="number count"),
        tag("td", _share(report.drift), class_="number"),
        *(tag("td") for _ in columns[7:]),
    ]
    caption = f"{heading}: layers, over {report.samples:,} samples"
    return _table(caption, columns, body, tag("tfoot", tag("tr", *total)), range(1, 8))


def _rasters(reports: Mapping[str, EquivalenceReport]) -> Markup:
    parts: list[Markup] = []
    drawn: dict[tuple[str, ...], int] = {}
    graded = False
    for i, (heading, report) in enumerate(reports.items()):
        pictures = [(layer, draw(layer)) for layer in report.layers]
        graded |= any(picture is not None and picture.graded for _, picture in pictures)
        key = tuple(picture.svg if picture else "" for _, picture in pictures)
        parts.append(tag("h3", heading, id=_anchor("spikes", i)))
        if key in drawn:
            same = tag("a", list(reports)[drawn[key]], href=f"#{_anchor('spikes', drawn[key])}")
            parts.append(tag("p", "The same pictures as of: ", same, "."))
            continue
        drawn[key] = i
        figures = (_figure(layer, picture) for layer, picture in pictures if picture is not None)
        parts.append(tag("div", *figures, class_="figures"))
    return tag(
        "section",
        tag("h2", "Spikes of the first sample"),
        tag("p", "A row is a neuron, a column a time step.", class_="note"),
        _legend(graded),
        *parts,
        class_="spikes",
    )


def _legend(graded: bool) -> Markup:
    def sample(text: str, *paths: str, transform: str = "translate(.5 .5)") -> Markup:
        drawn = (tag("path", class_=path, d="M0 0h0", transform=transform) for path in paths)
        svg = tag("svg", *drawn, viewBox="0 0 1 1", preserveAspectRatio="none", aria_hidden="true")
        return tag("li", svg, text)

    bar = tag("path", class_="both", d="M0 .5h1")
    bars = tag("svg", bar, viewBox="0 0 1 1", preserveAspectRatio="none", aria_hidden="true")
    line = tag("path", class_="first", d="M.5 0V1")
    lines = tag("svg", line, viewBox="0 0 1 1", preserveAspectRatio="none", aria_hidden="true")
    items = [
        tag("li", bars, "spike in both nets"),
        sample("only in a", "only a"),
        sample("only in b", "only b", "hole"),
        tag("li", lines, "first difference in this sample"),
    ]
    if graded:
        items.append(tag("li", "Where a layer gives values: bars are those of a, dots those of b."))
    return tag("ul", *items, class_="legend")


def _figure(layer: LayerComparison, picture: Picture) -> Markup:
    start, end = picture.steps
    wide = " wide" if end - start >= WIDE else ""
    rates = f"rate {_share(layer.rate_a)} in a, {_share(layer.rate_b)} in b over all samples"
    differ = f"{layer.mismatches:,} of {layer.spikes:,} differ" if layer.mismatches else "equal"
    axis = tag(
        "div",
        tag("span", f"t={start}"),
        tag("span", f"t={end}"),
        class_="axis",
        style=picture.width,
        aria_hidden="true",
    )
    caption = tag(
        "figcaption",
        tag("strong", _name(layer)),
        tag("span", f"{differ}; {rates}. {picture.note}."),
    )
    return tag("figure", caption, picture.svg, axis, class_=f"layer{wide}")


def _name(layer: LayerComparison) -> str:
    same = layer.name_a == layer.name_b
    return layer.name_a if same else f"{layer.name_a} | {layer.name_b}"


def _neurons(layer: LayerComparison) -> int:
    count = 1
    for size in layer.shape:
        count *= size
    return count


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _share(share: float) -> str:
    """A share in per cent; one that is not 0 never reads as 0."""
    return "<0.01%" if 0 < share < 0.0001 else f"{share:.2%}"


def _foot() -> Markup:
    return tag(
        "footer",
        tag(
            "p",
            tag("strong", "Exact"),
            " compares two quantised nets: one spike of difference is a defect. ",
            tag("strong", "Drift"),
            " compares with a float net: the difference is measured and never called equivalence. ",
            "Rates and shares are of the spike places (sample, neuron, time step); of a last layer "
            "that gives sums, every value other than 0 counts.",
        ),
        tag("p", f"Written by lava_bridge {__version__}."),
    )
