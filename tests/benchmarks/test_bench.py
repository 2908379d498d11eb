"""The benchmark runs: every side of every case, on sizes that say nothing about speed."""

import json
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from . import bench, gpu, memory, report
from .measure import (
    COPY,
    FRAMEWORKS,
    LAVA,
    LAVA_NC,
    LIF,
    SPIKINGJELLY,
    Case,
    Sizes,
    compared,
    measure,
)
from .training import EXCHANGE, SIDES

TINY = Sizes(
    steps=3,
    batch=2,
    shape=(2, 4, 4),
    rounds=1,
    digits=(2, 2),
    vgg=(2, 1),
    gpu_vgg=(2, 1),
    blocks=(2, 1),
    layer=(4, 2, 3),
    growth=((2, 4), (1, 2), (3, 5)),
    growth_base=(3, 2, 4),
    netx_batch=2,
    gpu_batch=2,
)


@pytest.fixture(scope="module")
def results(lava: ModuleType, lava_conv: ModuleType) -> dict[str, Any]:
    """What a run over all parts gives; the memory of one side only: each is a process."""
    parts = [part for part in bench.PARTS if part != "memory"]
    found = bench.bench(lava, TINY, parts, say=lambda _: None)
    return {**found, "memory": memory.memory(TINY, (EXCHANGE,))}


def test_every_side_of_every_case_runs(results):
    assert len(results["cases"]) == 3 + 6 + 2 + 3
    for case in results["cases"]:
        assert case["skipped"] == {}, case["name"]
        assert {LAVA, LAVA_NC} & set(case["seconds"])
        assert all(len(times) == 1 and times[0] > 0 for times in case["seconds"].values())
    forward, both, block, *neurons, digits, vgg = results["cases"][:-3]
    assert {COPY, *FRAMEWORKS} < set(forward["seconds"])
    assert set(both["seconds"]) == set(forward["seconds"])
    assert set(FRAMEWORKS) < set(block["seconds"])
    assert all(len(case["seconds"]) == 3 for case in neurons)
    assert [len(case["seconds"]) for case in results["cases"][-3:]] == [2, 2, 2]
    assert set(digits["seconds"]) == set(vgg["seconds"]) == set(SIDES)


def test_the_growth_and_the_memory_are_there(results):
    for what, entries in results["growth"].items():
        assert [entry["size"] for entry in entries] == list(
            TINY.growth[("steps", "batch", "neurons").index(what)]
        )
        assert all(set(entry["seconds"]) == {"NXT", "TNX"} for entry in entries)
    assert results["memory"]["bytes"][EXCHANGE] >= 0


def test_integer_runs_say_where_the_times_of_lava_are_from(results):
    found = results["netx"]
    assert found["lava"].startswith("recorded, not this run")
    assert [row["name"] for row in found["rows"]][-2:] == ["digits", "ntidigits"]
    assert all(row["lava"]["step"] < row["lava"]["sample"] for row in found["rows"])
    assert {row["batch"] for row in found["rows"][:-1]} == {TINY.netx_batch}


def test_without_a_gpu_the_benchmark_says_so(results, capsys, monkeypatch, lava):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.gpu(lava, TINY) == {"skipped": "no CUDA device, or a torch without CUDA"}
    assert "No rows of a GPU: " in report.markdown({**results, "gpu": gpu.gpu(lava, TINY)})


def test_the_cases_of_the_gpu_run_where_they_can_be_tried(lava):
    cases = list(gpu.cases(lava, TINY, "cpu"))
    assert [case.name.split(",")[0] for case in cases] == [
        "CUBA forward",
        "CUBA backward",
        "CUBA forward + backward",
    ]
    cases += [*gpu.other_neurons(lava, TINY, "cpu"), *gpu.training(lava, TINY, "cpu")]
    assert len(cases) == 3 + 6 + 2
    for case in cases:
        found = measure(replace(case, clock=None), 1)
        assert found["skipped"] == {}
        assert len(found["seconds"]) == (6 if "CUBA" in case.name or "step," in case.name else 3)


def test_tables_file_and_picture_are_written(results, tmp_path, capsys):
    bench.show(results, tmp_path)
    printed = capsys.readouterr().out
    for name in ("CUBA: forward", "sigma_delta", "VGG-like net", "ns per neuron-step", "peak MB"):
        assert name in printed
    assert json.loads((tmp_path / "bench.json").read_text()).keys() == results.keys()
    picture = (tmp_path / "bench.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
    bench.main(["--table", str(tmp_path / "bench.json")])
    table = capsys.readouterr().out
    assert results["machine"]["cpu"] in table
    widths = {line.count(" | ") for line in table.splitlines() if line.startswith("| ")}
    assert widths == {9, 8, 4, 2}
    assert "**slayer, NXT**" in table


def test_ratios_are_of_the_medians_and_the_frameworks_fastest_counts():
    case = {"seconds": {"ours": [1, 2, 9], LAVA: [60, 40, 50], LIF: [6, 4, 8], COPY: [1, 1, 4]}}
    assert compared(case, "ours") == {LAVA: 25, LIF: 3, "frameworks": 3, COPY: 2}
    targets = {LAVA: 30, "frameworks": 3, COPY: 3}
    goals = list(report.goals({**case, "targets": targets}, compared(case, "ours")))
    assert [goal[0] for goal in goals] == ["✗", "✓", "✓"]


def test_sides_take_turns_and_slow_ones_fewer():
    turns: list[str] = []

    def clock(run) -> float:
        return run()

    def side(name: str, seconds: float):
        def run() -> float:
            turns.append(name)
            return seconds

        return run

    case = Case("", "", {"ours": side("ours", 1e-3), LAVA: side(LAVA, 1.0)}, {}, clock)
    found = measure(case, 8)["seconds"]
    assert len(found["ours"]) == 8
    assert len(found[LAVA]) == 4
    assert turns == ["ours", "ours", LAVA, LAVA] + ["ours", "ours", LAVA] * 4


def test_a_side_of_theirs_that_fails_is_skipped_with_its_reason_and_ours_is_not():
    def fails() -> None:
        raise RuntimeError("no\n nvcc")

    case = Case("", "", {"ours": lambda: None, SPIKINGJELLY: fails})
    found = measure(case, 1)
    assert found["skipped"] == {SPIKINGJELLY: "RuntimeError: no nvcc"}
    assert list(found["seconds"]) == ["ours"]
    with pytest.raises(RuntimeError, match="nvcc"):
        measure(Case("", "", {"ours": fails}), 1)
