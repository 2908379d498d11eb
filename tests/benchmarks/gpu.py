"""Neurons and training steps on a GPU, against a copy of as many bytes and both frameworks."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from types import ModuleType
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor

import lava_bridge
from lava_bridge import NXT_to_TNX, slayer
from lava_bridge.exchange import CubaLIFNode

from .measure import COPY, LAVA, LIF, THEIRS, Case, Run, Sizes, measure, one_line
from .operators import (
    BOTH_MOVE,
    DECAYS,
    EXCHANGE,
    FAMILIES,
    FORWARD_MOVES,
    NXT,
    PARAMS,
    TNX,
    both_ways,
    copies,
    forward,
    forward_and_backward,
    in_time,
)
from .training import DIGITS, SIDES, VGG, training_step

__all__ = ["cases", "gpu", "missing", "other_neurons", "training"]

# The backward kernel reads the gradient and the voltage and writes one sequence.
BACKWARD_MOVES = BOTH_MOVE - FORWARD_MOVES - 1
# 70 % of the copy's bandwidth: the same bytes in at most 1 / 0.7 of its time.
SHARE = 0.7
# The device sleeps so long while a run is put into its queue: Python's own time is not measured.
SLEEP_CYCLES = 20_000_000


def missing() -> str | None:
    """Why there are no rows of a GPU, in one line; None: there are."""
    if not torch.cuda.is_available():
        return "no CUDA device, or a torch without CUDA"
    state = lava_bridge.backends()["cupy"]
    return None if state.startswith("ready") else f"backend 'cupy' is {state}"


def gpu(
    lava: ModuleType, sizes: Sizes, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The rows of the GPU and whose they are, or why there are none.

    Medians are said as they come: where the GPU is lent, it may be gone before the last.
    """
    reason = missing()
    if reason is not None:
        return {"skipped": reason}
    measured = []
    try:
        for of_part in (cases, other_neurons, training):
            for case in of_part(lava, sizes):
                measured.append(measure(case, sizes.rounds))
                sides = measured[-1]["seconds"].items()
                medians = (f"{side} {statistics.median(x) * 1e3:.3f} ms" for side, x in sides)
                say(f"{case.name}: {', '.join(medians)}")
        peaks = memory(lava, sizes)
    except torch.cuda.OutOfMemoryError as error:
        return {"skipped": one_line(error)}
    return {
        "device": torch.cuda.get_device_name(),
        "memory": torch.cuda.mem_get_info()[1],
        "cuda": torch.version.cuda,
        "lif": "cupy" if "backend" in signature(neuron.LIFNode).parameters else "its own choice",
        "cases": measured,
        "memory_of_step": peaks,
    }


def device_clock(run: Run) -> float:
    """Seconds that a run takes on the device, from event to event."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP_CYCLES)
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def wall_clock(run: Run) -> float:
    """Seconds until the device has done a run: what a user waits for."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def cases(lava: ModuleType, sizes: Sizes, device: str = "cuda") -> Iterator[Case]:
    """The fused neuron in both layouts; on another device for its test."""
    x = torch.rand(sizes.gpu_batch, *sizes.shape, sizes.steps, device=device)
    view = in_time(x)
    tnx = NXT_to_TNX(view)
    made: dict[str, tuple[Callable[[], Any], Tensor]] = {
        NXT: (lambda: slayer.neuron.cuba.Neuron(**PARAMS).to(device), x),
        TNX: (lambda: slayer.neuron.cuba.Neuron(**PARAMS).to(device), view),
        EXCHANGE: (lambda: CubaLIFNode(**DECAYS, step_mode="m").to(device), tnx),
        # lava-dl compiles its kernels with nvcc when they are first used.
        LAVA: (lambda: lava.neuron.cuba.Neuron(**PARAMS).to(device), x),
        LIF: (lambda: _lif().to(device), tnx),
    }
    million = f"{x.numel() / 1e6:.0f} million neuron-steps"
    makers: tuple[tuple[str, int, Callable[[Any, Tensor], Run]], ...] = (
        ("forward", FORWARD_MOVES, forward),
        ("backward", BACKWARD_MOVES, _backward),
        ("forward + backward", BOTH_MOVE, lambda made, x: forward_and_backward(made, [x])),
    )
    targets = {LAVA: 1.0, LIF: 1.0, COPY: 1 / SHARE}
    for name, moves, make in makers:
        sides: dict[str, Run] = {
            side: _when_first_run(partial(_made, make, *how)) for side, how in made.items()
        }
        sides[COPY] = copies(x, moves)
        yield Case("GPU", f"CUBA {name}, {million}", sides, targets, device_clock)


def other_neurons(lava: ModuleType, sizes: Sizes, device: str = "cuda") -> Iterator[Case]:
    """Each other family, forward and backward."""
    shape = (sizes.gpu_batch, *sizes.shape, sizes.steps)
    for family in FAMILIES:
        sides = both_ways(lava, family, shape, device)
        name = f"{family} forward + backward, {torch.Size(shape).numel() / 1e6:.0f} million"
        yield Case("GPU", f"{name} neuron-steps", sides, {LAVA: 1.0}, device_clock)


def training(lava: ModuleType, sizes: Sizes, device: str = "cuda") -> Iterator[Case]:
    """The training steps of all sides, by the clock on the wall."""
    for plan, (steps, batch) in ((DIGITS, sizes.digits), (VGG, sizes.gpu_vgg)):
        sides = {
            side: _when_first_run(partial(training_step, side, plan, steps, batch, lava, device))
            for side in SIDES
        }
        name = f"training step, {plan.name}, T={steps}, N={batch}"
        yield Case("GPU", name, sides, clock=wall_clock)


def memory(lava: ModuleType, sizes: Sizes) -> dict[str, object]:
    """Peak bytes of the device in a training step of each side, over its net and data."""
    steps, batch = sizes.gpu_vgg
    peaks: dict[str, int] = {}
    for side in SIDES:
        step = _when_first_run(partial(training_step, side, VGG, steps, batch, lava, "cuda"))
        try:
            step()
        except Exception:  # the rows of its times say why
            if side not in THEIRS:
                raise
            continue
        gc.collect()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        peaks[side] = torch.cuda.max_memory_allocated() - before
    return {"name": f"{VGG.name}, T={steps}, N={batch}", "bytes": peaks}


def _made(make: Callable[[Any, Tensor], Run], build: Callable[[], Any], x: Tensor) -> Run:
    return make(build(), x)


def _when_first_run(make: Callable[[], Run]) -> Run:
    """What can't be built is found when it is first run, and noted there."""
    held: list[Run] = []

    def run() -> None:
        if not held:
            held.append(make())
        held[0]()

    return run


def _lif() -> Any:
    """SpikingJelly's LIFNode with its CuPy backend; 2.x has no backends, and takes its fastest."""
    options: dict[str, Any] = {"tau": 4.0, "decay_input": False, "step_mode": "m"}
    if "backend" in signature(neuron.LIFNode).parameters:
        options["backend"] = "cupy"
        if not hasattr(np, "int"):
            setattr(np, "int", int)  # noqa: B010  # its kernels ask for it, NumPy had it until 1.23
    return neuron.LIFNode(**options)


def _backward(module: Any, x: Tensor) -> Run:
    """The backward pass alone, again and again through the same graph."""
    leaf = x.detach().requires_grad_()
    y = module(leaf)
    gradient = torch.randn_like(y)
    return partial(torch.autograd.grad, y, leaf, gradient, retain_graph=True)
