"""What was measured, as a table for the terminal, as Markdown, and as a picture."""

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from .measure import COPY, LAVA, THEIRS, compared

__all__ = ["draw", "markdown", "tables"]

Results = dict[str, Any]

HEADER = (
    "case",
    "side",
    "median",
    "min - max",
    "x lava-dl",
    "x SJ CubaLIF",
    "x SJ LIF",
    "x lava-nc",
    "copies",
    "to reach",
)
GROWTH_HEADER = ("what grows", "size", "neuron-steps", "ns per neuron-step, NXT", "TNX")
NETX_HEADER = (
    "net",
    "batch",
    "us per sample and step",
    "min - max",
    "Lava's step, us",
    "x",
    "Lava's sample, ms",
    "x",
    "to reach",
)
MEMORY_HEADER = ("training step of", "side", "peak MB")

# The colours of light backgrounds; a dash for what is not there.
BAR, REACHED, MISSED = "#4878a8", "#2a7f3f", "#b5402c"
NOTHING = "-"


def title(results: Results) -> str:
    """Which machine the figures are from."""
    found = results["machine"]
    return (
        f"{found['cpu']}, {found['cores']} cores, {found['clock']}, threads: {found['threads']}; "
        f"kernels: {found['kernels'].removeprefix('ready: ')}; torch {found['torch']}, "
        f"SpikingJelly {found['spikingjelly']}, lava-dl {found['lava-dl']}, "
        f"Python {found['python']}; {found['date']}, load {found['load']}"
    )


def gpu_title(results: Results) -> str:
    """Which GPU, or why none."""
    found = results["gpu"]
    if "skipped" in found:
        return f"No rows of a GPU: {found['skipped']}"
    memory = f"{found['memory'] / 2**30:.0f} GiB"
    return (
        f"{found['device']}, {memory}, CUDA {found['cuda']}; times on the device, of training "
        f"steps on the wall; torch {results['machine']['torch']}; "
        f"LIFNode's backend: {found['lif']}"
    )


def rows(cases: list[Results]) -> Iterator[tuple[str, ...]]:
    """A row of each side: median, spread, and how it compares with the others of its case."""
    for case in cases:
        what = f"{case['group']}: {case['name']}"
        for side, seconds in case["seconds"].items():
            median = f"{milliseconds(statistics.median(seconds))} ms"
            spread = f"{milliseconds(min(seconds))} - {milliseconds(max(seconds))}"
            ratios = compared(case, side)
            yield (
                what,
                side if side in THEIRS else f"**{side}**",
                median,
                spread,
                *(number(None if side == name else ratios.get(name)) for name in THEIRS),
                NOTHING if side in THEIRS else ", ".join(goals(case, ratios)),
            )
        for side, reason in case["skipped"].items():
            yield (what, side, "skipped", reason, *[NOTHING] * (len(THEIRS) + 1))


def goals(case: Results, ratios: dict[str, float]) -> Iterator[str]:
    """What is to be reached, and whether it was."""
    for name, target in case["targets"].items():
        if name in ratios:
            reached = ratios[name] <= target if name == COPY else ratios[name] >= target
            what = {COPY: "copies", "frameworks": "x the faster framework"}.get(name, f"x {name}")
            bound = "at most " if name == COPY else ""
            shown = f" ({number(ratios[name])})" if name == "frameworks" else ""
            yield f"{'✓' if reached else '✗'} {bound}{number(target)} {what}{shown}"


def growth_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """A row of each size."""
    for what, entries in results["growth"].items():
        for entry in entries:
            each = (
                f"{statistics.median(seconds) / entry['neuron_steps'] * 1e9:.2f}"
                for seconds in entry["seconds"].values()
            )
            yield what, f"{entry['size']}", f"{entry['neuron_steps']:,}", *each


def memory_rows(found: Results) -> Iterator[tuple[str, ...]]:
    """A row of each side."""
    for side, peak in found["bytes"].items():
        yield found["name"], side if side in THEIRS else f"**{side}**", f"{peak / 1e6:.0f}"


def netx_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """A row of each net."""
    for row in results["netx"]["rows"]:
        each = [seconds * 1e6 for seconds in row["seconds"]]
        ours = statistics.median(row["seconds"])
        times = {
            "step": row["lava"]["step"] / ours,
            "sample": row["lava"]["sample"] / ours / row["lava_steps"],
        }
        mark = "✓" if times[row["of"]] >= row["target"] else "✗"
        yield (
            row["name"],
            str(row["batch"]),
            number(statistics.median(each)),
            f"{number(min(each))} - {number(max(each))}",
            f"{row['lava']['step'] * 1e6:,.0f}",
            f"{times['step']:,.0f}",
            f"{row['lava']['sample'] * 1e3:,.0f}",
            f"{times['sample']:,.0f}",
            f"{mark} {row['target']:,} x Lava's {row['of']}",
        )


def sections(results: Results) -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Title, header and rows of each table."""
    if results.get("cases"):
        yield f"CPU: {title(results)}", HEADER, list(rows(results["cases"]))
    if results.get("growth"):
        yield "CUBA forward + backward as it grows", GROWTH_HEADER, list(growth_rows(results))
    if results.get("memory"):
        yield "Peak memory, over net and data", MEMORY_HEADER, list(memory_rows(results["memory"]))
    if results.get("netx"):
        heading = f"Integer runs of .net files: {title(results)}; Lava: {results['netx']['lava']}"
        yield heading, NETX_HEADER, list(netx_rows(results))
    if results.get("gpu", {}).get("cases"):
        yield f"GPU: {gpu_title(results)}", HEADER, list(rows(results["gpu"]["cases"]))
        found = results["gpu"]["memory_of_step"]
        yield "GPU: peak memory, over net and data", MEMORY_HEADER, list(memory_rows(found))


def tables(results: Results) -> Iterator[Table]:
    """For the terminal."""
    for heading, header, lines in sections(results):
        table = Table(*header, title=heading)
        before = None
        for first, *rest in lines:
            if before not in (None, first):
                table.add_section()
            shown = [cell.replace("**", "") for cell in rest]
            style = "bold" if rest[0].startswith("**") else ""
            table.add_row("" if first == before else first, *shown, style=style)
            before = first
        yield table


def markdown(results: Results) -> str:
    """For the documents."""
    parts = []
    for heading, header, lines in sections(results):
        table = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header))]
        before = None
        for first, *rest in lines:
            cells = ["" if first == before else first, *rest]
            table.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
            before = first
        parts.append(f"{heading}\n\n" + "\n".join(table))
    if "skipped" in results.get("gpu", {}):
        parts.append(gpu_title(results) + ".")
    return "\n\n".join(parts)


def milliseconds(seconds: float) -> str:
    """Three digits."""
    return number(seconds * 1e3)


def number(value: float | None) -> str:
    """Three digits, without an exponent."""
    if value is None:
        return NOTHING
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, min(digits, 3))}f}"


# The picture ------------------------------------------------------------------------------------


def draw(results: Results, path: Path) -> None:
    """How many times as fast as lava-dl our fastest layout is, and how time grows, if measured."""
    widths = [3, 2] if results.get("growth") else [3]
    figure = Figure(figsize=(2.4 * sum(widths), 6), layout="constrained", facecolor="white")
    left, *right = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    bars(left, results)
    for axis in right:
        lines(axis, results)
    alone = not results.get("cases") and "cases" in results.get("gpu", {})
    figure.suptitle(gpu_title(results) if alone else title(results), fontsize=8, wrap=True)
    figure.savefig(path, dpi=120)


def bars(axis: Any, results: Results) -> None:
    """A bar of each case, with what is to be reached as a mark."""
    found = []
    for case in [*results.get("cases", []), *results.get("gpu", {}).get("cases", [])]:
        ratios = [compared(case, side).get(LAVA) for side in case["seconds"] if side not in THEIRS]
        ratio = max((value for value in ratios if value), default=None)
        if ratio is not None:
            found.append((f"{case['group']}: {case['name']}", ratio, case["targets"].get(LAVA)))
    found.reverse()
    for place, (_, ratio, target) in enumerate(found):
        colour = BAR if target is None else REACHED if ratio >= target else MISSED
        axis.barh(place, ratio - 1, left=1, color=colour, height=0.6)
        axis.text(max(ratio, 1) * 1.05, place, f"{number(ratio)}x", va="center", fontsize=8)
        if target is not None:
            axis.plot([target] * 2, [place - 0.4, place + 0.4], color="black", linewidth=2)
    axis.set_yticks(range(len(found)), [name for name, *_ in found], fontsize=8)
    axis.set_xscale("log")
    furthest = max((max(ratio, target or 0) for _, ratio, target in found), default=1)
    axis.set_xlim(left=0.5, right=2 * furthest)
    axis.axvline(1, color="grey", linewidth=0.8)
    axis.set(xlabel="times as fast as lava-dl (black: to reach)", title="Speed, the faster layout")
    axis.spines[["top", "right"]].set_visible(False)


def lines(axis: Any, results: Results) -> None:
    """Time of a neuron-step where steps, batch or neurons grow: level is linear."""
    for colour, (what, entries) in zip(
        ("tab:blue", "tab:orange", "tab:green"), results.get("growth", {}).items(), strict=False
    ):
        sizes = [entry["neuron_steps"] for entry in entries]
        for layout, style in (("NXT", "-"), ("TNX", "--")):
            each = [
                statistics.median(entry["seconds"][layout]) / entry["neuron_steps"] * 1e9
                for entry in entries
            ]
            axis.plot(sizes, each, style, color=colour, marker="o", markersize=3)
            axis.lines[-1].set_label(f"{what} grow{'s' if what == 'batch' else ''}, {layout}")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="neuron-steps",
        ylabel="ns per neuron-step, CUBA forward + backward",
        title="Growth: level is linear",
    )
    axis.grid(alpha=0.3)
    if axis.lines:
        axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
