"""How fast the operators are, against both frameworks in the same process: ``make bench``.

Prints a table of medians with their spread and writes ``out/bench.json``. What is compared runs on
the same tensors, turn by turn, so that a machine that slows down slows both.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import import_lava_slayer

from lava_bridge import slayer
from lava_bridge.exchange import CubaLIFNode

ROUNDS = 5
STEPS, BATCH, SHAPE = 32, 32, (16, 14, 14)
PARAMS = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}
OUT = Path("out")

Case = dict[str, Callable[[], None]]


def forward(module: torch.nn.Module, x: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            module(x)

    return run


def forward_backward(module: torch.nn.Module, x: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        leaf = x.detach().requires_grad_()
        module(leaf).sum().backward()
        if hasattr(module, "reset"):
            module.reset()

    return run


def cases() -> dict[str, Case]:
    lava = import_lava_slayer()
    from spikingjelly.activation_based import lava_exchange

    nxt = torch.rand(BATCH, *SHAPE, STEPS)
    tnx = nxt.movedim(-1, 0).contiguous()
    node = {"current_decay": 0.25, "voltage_decay": 0.1, "step_mode": "m"}
    makers = {"forward": forward, "forward + backward": forward_backward}
    found: dict[str, Case] = {}
    for what, make in makers.items():
        found[f"CUBA neuron, {what}"] = {
            "lava_bridge.slayer": make(slayer.neuron.cuba.Neuron(**PARAMS), nxt),
            "lava-dl": make(lava.neuron.cuba.Neuron(**PARAMS), nxt),
            "lava_bridge.exchange": make(CubaLIFNode(**node), tnx),
            "SpikingJelly CubaLIFNode": make(lava_exchange.CubaLIFNode(**node), tnx),
        }
    found["Conv block 16 to 16, 3x3, forward + backward"] = {
        "lava_bridge.slayer": forward_backward(
            slayer.block.cuba.Conv(dict(PARAMS), 16, 16, 3, padding=1), nxt
        ),
        "lava-dl": forward_backward(lava.block.cuba.Conv(dict(PARAMS), 16, 16, 3, padding=1), nxt),
    }
    source, target = torch.rand_like(nxt), torch.empty_like(nxt)
    found["the limit: a copy of the input"] = {"torch": lambda: target.copy_(source)}
    return found


def measure(case: Case) -> dict[str, list[float]]:
    """Seconds of each round of each side, turn by turn, after a warm-up."""
    seconds: dict[str, list[float]] = {side: [] for side in case}
    for run in case.values():
        run()
    for _ in range(ROUNDS):
        for side, run in case.items():
            start = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)  # the tests' set-up takes one
    results = {what: measure(case) for what, case in track(cases().items(), "measuring")}
    table = Table(
        "what",
        "side",
        "median ms",
        "min - max ms",
        "times lava-dl's speed",
        title=f"T={STEPS}, N={BATCH}, neurons {SHAPE}, float32, {torch.get_num_threads()} threads",
    )
    for what, sides in results.items():
        medians = {side: statistics.median(seconds) * 1e3 for side, seconds in sides.items()}
        for side, median in medians.items():
            ratio = f"{medians['lava-dl'] / median:.2f}" if "lava-dl" in medians else ""
            spread = f"{min(sides[side]) * 1e3:.1f} - {max(sides[side]) * 1e3:.1f}"
            table.add_row(what, side, f"{median:.1f}", spread, ratio)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print("No GPU rows: the kernels are still to come.")
    OUT.mkdir(exist_ok=True)
    machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    (OUT / "bench.json").write_text(json.dumps({**machine, "seconds": results}, indent=2))
    print(f"Written: {OUT / 'bench.json'}")


if __name__ == "__main__":
    main()
