"""How fast the operators and training steps are, against both frameworks: ``make bench``.

Prints tables and writes ``out/bench.json`` and ``out/bench.png``. What is compared runs on the same
tensors in this process, turn by turn, so that a machine that slows down slows all sides.

``--only PART`` measures one part; ``--cpu-time`` counts the CPU time of one thread, which says more
than the clock where others are at work on the machine; ``--table [FILE ...]`` prints as Markdown,
for docs/performance.md, what was written before.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.benchmarks.gpu import gpu
from tests.benchmarks.measure import Sizes, machine, measure, timed
from tests.benchmarks.memory import memory
from tests.benchmarks.netx import netx
from tests.benchmarks.operators import growth, operators, other_neurons
from tests.benchmarks.processes import processes
from tests.benchmarks.report import draw, gpu_title, markdown, tables
from tests.benchmarks.training import training
from tests.conftest import import_lava_slayer

OUT = Path("out")
CASES = {"operators": operators, "neurons": other_neurons, "training": training, "proc": processes}
CLOCKS = {time.perf_counter: "time", time.process_time: "CPU time"}
PARTS = (*CASES, "growth", "memory", "netx", "gpu")


def bench(
    lava: ModuleType,
    sizes: Sizes,
    parts: Sequence[str],
    time_now: Callable[[], float] = time.perf_counter,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure the parts."""
    torch.manual_seed(0)
    results: dict[str, Any] = {"machine": {**machine(), "lava-dl": version("lava-dl")}}
    results["sizes"] = {name: getattr(sizes, name) for name in sizes.__dataclass_fields__}
    results["machine"]["clock"] = CLOCKS[time_now]
    results["cases"] = []
    for part in parts:
        if part in CASES:
            for case in CASES[part](lava, sizes):
                say(f"{case.group}: {case.name}")
                results["cases"].append(
                    measure(case, sizes.rounds, partial(timed, time_now=time_now))
                )
        else:
            say(part)
        if part == "growth":
            results["growth"] = growth(sizes, time_now)
        if part == "memory":
            results["memory"] = memory(sizes)
        if part == "netx":
            results["netx"] = netx(sizes, partial(timed, time_now=time_now))
        if part == "gpu":
            results["gpu"] = gpu(lava, sizes, say)
    return results


def show(results: dict[str, Any], out: Path = OUT) -> None:
    """Print the tables; write the figures and the picture."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    for table in tables(results):
        console.print(table)
    if "skipped" in results.get("gpu", {}):
        console.print(gpu_title(results))
    out.mkdir(exist_ok=True)
    (out / "bench.json").write_text(json.dumps(results, indent=1))
    draw(results, out / "bench.png")
    console.print(f"Written: {out / 'bench.json'}, {out / 'bench.png'}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be repeated")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of one thread")
    parser.add_argument("--table", nargs="*", type=Path, metavar="FILE", help="print Markdown")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write (out)")
    asked = parser.parse_args(arguments)
    if asked.table is not None:
        for path in asked.table or [asked.out / "bench.json"]:
            print(markdown(json.loads(path.read_text())), end="\n\n")
        return
    # The tests' set-up takes one.
    torch.set_num_threads(1 if asked.cpu_time else os.cpu_count() or 1)
    time_now = time.process_time if asked.cpu_time else time.perf_counter
    try:
        lava = import_lava_slayer()
    except ImportError as error:
        raise SystemExit(f"lava-dl 0.6.0 is not installed ({error}); use `make bench`") from None
    show(bench(lava, Sizes(), asked.only or PARTS, time_now), asked.out)


if __name__ == "__main__":
    main()
