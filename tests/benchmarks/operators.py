"""The operators: neurons and a block, forward and backward, and how their time grows."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import layer, neuron
from torch import Tensor

from lava_bridge import NXT_to_TNX, TNX_to_NXT, slayer
from lava_bridge.exchange import BlockContainer, CubaLIFNode
from lava_bridge.memory import keep_memory

from .measure import COPY, LAVA, LIF, SPIKINGJELLY, Case, Run, Sizes, timed

__all__ = ["FAMILIES", "PARAMS", "both_ways", "copies", "forward", "forward_and_backward", "growth"]
__all__ += ["in_time", "operators", "other_neurons"]

NXT, TNX, EXCHANGE = "slayer, NXT", "slayer, TNX", "exchange, TNX"

DECAYS = {"current_decay": 0.25, "voltage_decay": 0.1}
PARAMS: dict[str, Any] = {"threshold": 1.0, **DECAYS}
_RESONATOR = {"threshold": 0.5, "period": 8, "decay": 0.1}
_ADAPTIVE = {"threshold_step": 0.3, "threshold_decay": 0.1, "refractory_decay": 0.3}
FAMILIES: dict[str, dict[str, Any]] = {
    "rf": _RESONATOR,
    "rf_iz": _RESONATOR,
    "alif": {**PARAMS, **_ADAPTIVE},
    "adrf": {**_RESONATOR, **_ADAPTIVE},
    "adrf_iz": {**_RESONATOR, **_ADAPTIVE},
    "sigma_delta": {"threshold": 0.1, "activation": F.relu},
}

# How many sequences an operator must read and write: input and spikes; with the backward pass the
# voltage is written and read too, the gradient of the spikes read, that of the input written.
FORWARD_MOVES, BOTH_MOVE = 2, 6


def forward(module: Any, x: Tensor) -> Run:
    """Run without a gradient."""

    def run() -> None:
        with torch.no_grad():
            module(x)
        if hasattr(module, "reset"):
            module.reset()

    return run


def forward_and_backward(module: Any, xs: Sequence[Tensor], learned: Sequence[Tensor] = ()) -> Run:
    """Run for the gradients of the inputs, and of what is learned, from a dense gradient."""
    leaves = [x.detach().requires_grad_() for x in xs]
    inputs = leaves[0] if len(leaves) == 1 else tuple(leaves)
    gradient: list[Tensor] = []

    def run() -> None:
        y = module(inputs)
        if not gradient:
            gradient.append(torch.randn_like(y))
        torch.autograd.grad(y, [*leaves, *learned], gradient[0])
        if hasattr(module, "reset"):
            module.reset()

    return run


def copies(like: Tensor, sequences: int) -> Run:
    """``dst.copy_(src)`` of as many bytes as ``sequences`` reads and writes: half of them each."""
    source = torch.rand(sequences * like.numel() // 2, device=like.device, dtype=like.dtype)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def in_time(x: Tensor) -> Tensor:
    """``[N, *, T]`` laid out as TNX in memory: a view of that."""
    return TNX_to_NXT(NXT_to_TNX(x).contiguous())


def operators(lava: ModuleType, sizes: Sizes) -> Iterator[Case]:
    """The cases, each made when it is wanted: the tensors are large."""
    from spikingjelly.activation_based import lava_exchange

    x = torch.rand(sizes.batch, *sizes.shape, sizes.steps)
    view = in_time(x)
    tnx = NXT_to_TNX(view)

    def neurons() -> dict[str, tuple[Any, Tensor]]:
        return {
            NXT: (slayer.neuron.cuba.Neuron(**PARAMS), x),
            TNX: (slayer.neuron.cuba.Neuron(**PARAMS), view),
            EXCHANGE: (CubaLIFNode(**DECAYS, step_mode="m"), tnx),
            LAVA: (lava.neuron.cuba.Neuron(**PARAMS), x),
            SPIKINGJELLY: (lava_exchange.CubaLIFNode(**DECAYS, step_mode="m"), tnx),
            LIF: (neuron.LIFNode(tau=4.0, decay_input=False, step_mode="m"), tnx),
        }

    runs = {side: forward(*made) for side, made in neurons().items()}
    targets: dict[str, float] = {LAVA: 60, COPY: 3}
    yield Case("CUBA", "forward", {**runs, COPY: copies(x, FORWARD_MOVES)}, targets)
    runs = {side: forward_and_backward(made, [x]) for side, (made, x) in neurons().items()}
    runs[COPY] = copies(x, BOTH_MOVE)
    yield Case("CUBA", "forward + backward", runs, {LAVA: 40})

    channels = sizes.shape[0]
    spikes = (x < 0.2).to(x.dtype)
    view = in_time(spikes)
    tnx = NXT_to_TNX(view)

    def conv() -> layer.Conv2d:
        return layer.Conv2d(channels, channels, 3, padding=1, bias=False, step_mode="m")

    window = {"kernel_size": 3, "padding": 1}
    blocks: dict[str, tuple[Any, Tensor]] = {
        NXT: (slayer.block.cuba.Conv(dict(PARAMS), channels, channels, **window), spikes),
        TNX: (slayer.block.cuba.Conv(dict(PARAMS), channels, channels, **window), view),
        EXCHANGE: (BlockContainer(conv(), CubaLIFNode(**DECAYS), "m"), tnx),
        LAVA: (lava.block.cuba.Conv(dict(PARAMS), channels, channels, **window), spikes),
        SPIKINGJELLY: (
            torch.nn.Sequential(conv(), lava_exchange.CubaLIFNode(**DECAYS, step_mode="m")),
            tnx,
        ),
        LIF: (
            torch.nn.Sequential(conv(), neuron.LIFNode(tau=4.0, decay_input=False, step_mode="m")),
            tnx,
        ),
    }
    name = f"{channels} to {channels}, 3x3, forward + backward"
    yield Case(
        "Conv block", name, {side: _block(*made) for side, made in blocks.items()}, {LAVA: 3}
    )


def _block(block: Any, x: Tensor) -> Run:
    """A block's forward and backward, to its input and its weight."""
    (weight,) = (parameter for parameter in block.parameters() if parameter.dim() > 1)
    run = forward_and_backward(block, [x], [weight])

    def stateless() -> None:
        run()
        for part in block.modules():
            if hasattr(part, "reset") and hasattr(part, "_memories"):
                part.reset()

    return stateless


def other_neurons(lava: ModuleType, sizes: Sizes) -> Iterator[Case]:
    """Each other family, forward and backward."""
    for family in FAMILIES:
        sides = both_ways(lava, family, (sizes.batch, *sizes.shape, sizes.steps))
        yield Case("Other neurons", f"{family}, forward + backward", sides, {LAVA: 30})


def both_ways(
    lava: ModuleType, family: str, shape: tuple[int, ...], device: str = "cpu"
) -> dict[str, Run]:
    """Forward and backward of a family's neurons."""
    params = FAMILIES[family]
    xs = [torch.randn(shape, device=device) for _ in range(2 if "rf" in family else 1)]
    views = [in_time(x) for x in xs]

    def ours() -> Any:
        return getattr(slayer.neuron, family).Neuron(**params).to(device)

    return {
        NXT: forward_and_backward(ours(), xs),
        TNX: forward_and_backward(ours(), views),
        LAVA: forward_and_backward(_lava_neuron(lava, family, params, device), xs),
    }


def _lava_neuron(lava: ModuleType, family: str, params: dict[str, Any], device: str) -> Any:
    made = getattr(lava.neuron, family).Neuron(**params).to(device)
    if family == "adrf_iz":  # its own forward passes one argument too few
        return lambda xs: made.spike(*made.dynamics(xs))
    return made


# Growth -----------------------------------------------------------------------------------------

# A run that is shorter than this is repeated: the clock and the call are not what is measured.
SHORTEST = 2e-3


def growth(
    sizes: Sizes, time_now: Callable[[], float] = time.perf_counter
) -> dict[str, list[dict[str, Any]]]:
    """Seconds of CUBA forward and backward where steps, batch or neurons grow, in both layouts.

    In a process of its own, which keeps its memory: at some sizes page faults would be what grows.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), keep_memory) as process:
        return process.submit(_grown, sizes, time_now, torch.get_num_threads()).result()


def _grown(
    sizes: Sizes, time_now: Callable[[], float], threads: int
) -> dict[str, list[dict[str, Any]]]:
    torch.set_num_threads(threads)
    found: dict[str, list[dict[str, Any]]] = {}
    for i, what in enumerate(("steps", "batch", "neurons")):
        found[what] = []
        for size in sizes.growth[i]:
            steps, batch, neurons = (
                size if i == k else base for k, base in enumerate(sizes.growth_base)
            )
            x = torch.rand(batch, neurons, steps)
            runs = {
                layout: forward_and_backward(slayer.neuron.cuba.Neuron(**PARAMS), [laid_out])
                for layout, laid_out in (("NXT", x), ("TNX", in_time(x)))
            }
            seconds: dict[str, list[float]] = {layout: [] for layout in runs}
            repeats = {layout: _repeats(run) for layout, run in runs.items()}
            for _ in range(sizes.rounds):
                for layout, run in runs.items():
                    start = time_now()
                    for _ in range(repeats[layout]):
                        run()
                    seconds[layout].append((time_now() - start) / repeats[layout])
            entry = {"size": size, "neuron_steps": steps * batch * neurons, "seconds": seconds}
            found[what].append(entry)
    return found


def _repeats(run: Run) -> int:
    run()
    return max(1, round(SHORTEST / timed(run)))
