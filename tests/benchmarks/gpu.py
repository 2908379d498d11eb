"""The fused neuron on a GPU, against a copy of as many bytes, lava-dl's CUDA and SpikingJelly's."""

from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from types import ModuleType
from typing import Any

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor

import lava_bridge
from lava_bridge import NXT_to_TNX, slayer
from lava_bridge.exchange import CubaLIFNode

from .measure import COPY, LAVA, LIF, Case, Run, Sizes, measure, one_line
from .operators import (
    BOTH_MOVE,
    DECAYS,
    EXCHANGE,
    FORWARD_MOVES,
    NXT,
    PARAMS,
    TNX,
    copies,
    forward,
    forward_and_backward,
    in_time,
)

__all__ = ["cases", "gpu", "missing"]

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


def gpu(lava: ModuleType, sizes: Sizes) -> dict[str, Any]:
    """The rows of the GPU and whose they are, or why there are none."""
    reason = missing()
    if reason is not None:
        return {"skipped": reason}
    try:
        measured = [measure(case, sizes.rounds) for case in cases(lava, sizes)]
    except torch.cuda.OutOfMemoryError as error:
        return {"skipped": one_line(error)}
    return {
        "device": torch.cuda.get_device_name(),
        "memory": torch.cuda.mem_get_info()[1],
        "cuda": torch.version.cuda,
        "lif": "cupy" if "backend" in signature(neuron.LIFNode).parameters else "its own choice",
        "cases": measured,
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
        sides: dict[str, Run] = {side: _when_first_run(make, *how) for side, how in made.items()}
        sides[COPY] = copies(x, moves)
        yield Case("GPU", f"CUBA {name}, {million}", sides, targets, device_clock)


def _when_first_run(make: Callable[[Any, Tensor], Run], build: Callable[[], Any], x: Tensor) -> Run:
    """What can't be built is found when it is first run, and noted there."""
    held: list[Run] = []

    def run() -> None:
        if not held:
            held.append(make(build(), x))
        held[0]()

    return run


def _lif() -> Any:
    """SpikingJelly's LIFNode with its CuPy backend; 2.x has no backends, and takes its fastest."""
    options: dict[str, Any] = {"tau": 4.0, "decay_input": False, "step_mode": "m"}
    if "backend" in signature(neuron.LIFNode).parameters:
        options["backend"] = "cupy"
    return neuron.LIFNode(**options)


def _backward(module: Any, x: Tensor) -> Run:
    """The backward pass alone, again and again through the same graph."""
    leaf = x.detach().requires_grad_()
    y = module(leaf)
    gradient = torch.randn_like(y)
    return partial(torch.autograd.grad, y, leaf, gradient, retain_graph=True)
