"""The first sample's spikes of one layer of two nets as a small SVG picture.

A cell of the picture is a neuron (row) at a time step (column), and the SVG's unit. What both nets
have is a bar; what differs is a dot, in another colour. Runs of spikes are one stroke, so that ten
thousand spikes take some ten kilobytes.
"""

from dataclasses import dataclass

import numpy as np

from ..report import LayerComparison
from .markup import Markup, tag

__all__ = ["Picture", "draw"]

# More can't be told apart on a page; the page's size is bounded by the cells.
MAX_STEPS = 400
MAX_ROWS = 64
MAX_CELLS = 16_000

# Up to so many steps, runs of spikes are cut into steps by lines in the colour of the page.
MAX_CUT_STEPS = 160


@dataclass(frozen=True)
class Picture:
    """One layer's picture.

    Attributes:
        svg: It.
        width: How wide it may get, as CSS.
        steps: The first and the last time step that is drawn.
        note: What is drawn of the layer, in words.
        graded: Whether the layer gives values, not spikes of one size.
    """

    svg: Markup
    width: str
    steps: tuple[int, int]
    note: str
    graded: bool


def draw(layer: LayerComparison) -> Picture | None:
    """Draw a layer's rasters ``[neurons, T]``; None where there is nothing to draw."""
    a, b = (
        np.nan_to_num(raster.double().cpu().numpy()) for raster in (layer.raster_a, layer.raster_b)
    )
    if not a.size or a.shape != b.shape:
        return None
    levels = np.unique(np.concatenate([a, b], axis=None))
    levels = levels[levels != 0]
    graded = len(levels) > 1 or bool((levels < 0).any())
    differ = (a != b).any(axis=0)
    first = int(differ.argmax()) if differ.any() else None

    start, steps = 0, a.shape[1]
    if steps > MAX_STEPS:
        steps = MAX_STEPS
        start = min(max((first or 0) - steps // 2, 0), a.shape[1] - steps)
    window = slice(start, start + steps)
    rows = _rows(a[:, window] != b[:, window], min(MAX_ROWS, MAX_CELLS // steps))
    shown_a, shown_b = a[rows, window], b[rows, window]
    strokes = (_value_strokes if graded else _spike_strokes)(shown_a, shown_b)
    if first is not None:
        middle = first - start + 0.5
        strokes += tag("path", class_="first", d=f"M{middle} 0V{len(rows)}")
    width = f"max-width:{max(steps * 18, 240)}px"
    height = len(rows) * (16 if len(rows) <= 12 else 9 if len(rows) <= 36 else 6)
    height *= 2 if graded else 1  # their bars say something by their height
    svg = tag(
        "svg",
        Markup(strokes),
        viewBox=f"0 0 {steps} {len(rows)}",
        preserveAspectRatio="none",
        style=f"height:{height}px;{width}",
        role="img",
        aria_label=_in_words(a, b, graded, first),
    )
    note = _note(len(rows), steps, a.shape)
    return Picture(svg, width, (start, start + steps - 1), note, graded)


def _rows(differ: np.ndarray, most: int) -> np.ndarray:
    """Which neurons are drawn, in order: those that differ, earliest first, then some of each part.

    Args:
        differ: Where the nets differ, ``[neurons, T]``.
        most: How many may be drawn.
    """
    neurons = len(differ)
    if neurons <= most:
        return np.arange(neurons)
    different = np.flatnonzero(differ.any(axis=1))
    by_time = different[np.argsort(differ[different].argmax(axis=1), kind="stable")][:most]
    others = np.setdiff1d(np.arange(neurons), by_time)
    places = np.linspace(0, len(others) - 1, most - len(by_time)).round().astype(int)
    return np.sort(np.concatenate([by_time, others[places]]))


def _spike_strokes(a: np.ndarray, b: np.ndarray) -> str:
    both = (a != 0) & (a == b)
    edges = np.diff(np.pad(both, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    bars = "".join(
        f"M{time} {row}h{end - time}"
        for (row, time), (_, end) in zip(starts.tolist(), ends.tolist(), strict=True)
    )
    strokes = tag("path", class_="both", transform="translate(0 .5)", d=bars) if bars else ""
    if bars and a.shape[1] <= MAX_CUT_STEPS:
        cuts = "".join(f"M{time} 0v{len(a)}" for time in range(a.shape[1] + 1))
        strokes += tag("path", class_="cut", d=cuts)
    for name, only in (("a", (a != b) & (a != 0)), ("b", (a != b) & (b != 0))):
        if dots := "".join(f"M{time} {row}h0" for row, time in np.argwhere(only).tolist()):
            strokes += tag("path", class_=f"only {name}", transform="translate(.5 .5)", d=dots)
            if name == "b":  # a ring: a dot with a hole
                strokes += tag("path", class_="hole", transform="translate(.5 .5)", d=dots)
    return strokes


def _value_strokes(a: np.ndarray, b: np.ndarray) -> str:
    """Bars as high as the values of ``a``, dots as high as those of ``b`` where they differ."""
    peak = max(np.abs(a).max(), np.abs(b).max()) or 1.0
    signed = (a < 0).any() or (b < 0).any()
    base, scale = (0.5, -0.45 / peak) if signed else (0.95, -0.9 / peak)
    bars = "".join(
        f"M{time} {row}v{a[row, time] * scale:.2g}" for row, time in np.argwhere(a).tolist()
    )
    dots = "".join(
        f"M{time} {row + b[row, time] * scale:.2f}h0" for row, time in np.argwhere(a != b).tolist()
    )
    shift = f"translate(.5 {base})"
    strokes = tag("path", class_="value", transform=shift, d=bars) if bars else ""
    return strokes + (tag("path", class_="only a", transform=shift, d=dots) if dots else "")


def _in_words(a: np.ndarray, b: np.ndarray, graded: bool, first: int | None) -> str:
    differ = a != b
    if graded:
        found = f"{int(differ.sum()):,} of {a.size:,} values differ"
    else:
        counts = (~differ & (a != 0), differ & (a != 0), differ & (b != 0))
        both, only_a, only_b = (int(where.sum()) for where in counts)
        found = f"{both:,} spikes in both nets, {only_a:,} only in a, {only_b:,} only in b"
    where = "" if first is None else f", first at t={first}"
    return f"{a.shape[0]:,} neurons over {a.shape[1]:,} steps: {found}{where}"


def _note(rows: int, steps: int, shape: tuple[int, ...]) -> str:
    neurons, all_steps = shape
    note = f"{neurons:,} neurons" if neurons > 1 else "1 neuron"
    if rows < neurons:
        note = f"{rows} of {neurons:,} neurons: those that differ first, then some of each part"
    return note if steps == all_steps else f"{note}; {steps} of {all_steps:,} steps"
