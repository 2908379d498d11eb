"""A whole training step: forward, loss, backward and optimiser, of nets of the same shape."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from lava_bridge import TNX_to_NXT, slayer
from lava_bridge.exchange import CubaLIFNode

from .measure import LAVA, LIF, SPIKINGJELLY, Case, Run, Sizes

__all__ = ["BLOCKS", "DIGITS", "SIDES", "VGG", "Plan", "training", "training_step"]

NXT, TNX, EXCHANGE = "slayer blocks, NXT", "slayer blocks, TNX", "exchange, TNX"
SIDES = (NXT, TNX, EXCHANGE, LAVA, SPIKINGJELLY, LIF)

# Low enough for spikes in every layer of an untrained net.
CUBA = {"current_decay": 0.5, "voltage_decay": 0.25}
THRESHOLD = 0.25
SURROGATE: dict[str, Any] = {"detach_reset": True}
FACTOR = 3.0  # how many times as fast as the faster framework a step is to be


@dataclass(frozen=True)
class Plan:
    """A net: 3x3 convolutions to so many channels and ``"pool"`` by 2, then a dense layer.

    Pooling is as each side's users write it: slayer's pooling blocks have neurons, SpikingJelly's
    average pooling has none.
    """

    name: str
    input: tuple[int, int, int]
    layers: tuple[int | str, ...]
    classes: int = 10

    @property
    def flat(self) -> int:
        """Inputs of the dense layer."""
        halvings = self.layers.count("pool")
        channels = next(layer for layer in reversed(self.layers) if isinstance(layer, int))
        return channels * (self.input[1] >> halvings) * (self.input[2] >> halvings)


DIGITS = Plan("digits net", (1, 8, 8), (16, "pool", 32, "pool"))
VGG = Plan("VGG-like net", (3, 32, 32), (32, 32, "pool", 64, 64, "pool"))
BLOCKS = Plan("two Conv blocks 16 to 16", (16, 14, 14), (16, 16))


def slayer_net(library: ModuleType, plan: Plan) -> nn.Module:
    """The net in slayer's blocks, ours or lava-dl's."""
    blocks, params = library.block.cuba, {"threshold": THRESHOLD, **CUBA}
    made: list[nn.Module] = []
    channels = plan.input[0]
    for step in plan.layers:
        if isinstance(step, int):
            made.append(blocks.Conv(dict(params), channels, step, 3, padding=1, weight_scale=2))
            channels = step
        else:
            made.append(blocks.Pool(dict(params), 2))
    made += [blocks.Flatten(), blocks.Dense(dict(params), plan.flat, plan.classes, weight_scale=2)]
    return nn.Sequential(*made)


def spikingjelly_net(plan: Plan, make_neuron: Callable[[], nn.Module]) -> nn.Module:
    """The net in SpikingJelly's layers, with any neuron."""
    made: list[nn.Module] = []
    channels = plan.input[0]
    for step in plan.layers:
        if isinstance(step, int):
            made += [layer.Conv2d(channels, step, 3, padding=1, bias=False), make_neuron()]
            channels = step
        else:
            made.append(layer.AvgPool2d(2))
    dense = layer.Linear(plan.flat, plan.classes, bias=False)
    net = nn.Sequential(*made, layer.Flatten(), dense, make_neuron())
    for parameter in net.parameters():
        parameter.data.mul_(2)
    functional.set_step_mode(net, "m")
    return net


def training_step(
    side: str,
    plan: Plan,
    steps: int,
    batch: int,
    lava: ModuleType | None = None,
    device: str = "cpu",
) -> Run:
    """One step of a side, on random spikes; each call goes on with the same net."""
    torch.manual_seed(0)
    spikes = (torch.rand(steps, batch, *plan.input) < 0.3).float().to(device)
    labels = torch.randint(plan.classes, (batch,)).to(device)
    options = {"v_threshold": THRESHOLD, "surrogate_function": surrogate.ATan(), **SURROGATE}
    time = -1
    if side in (NXT, TNX, LAVA):
        library = lava if side == LAVA else slayer
        assert library is not None
        net = slayer_net(library, plan)
        x = TNX_to_NXT(spikes) if side == TNX else TNX_to_NXT(spikes).contiguous()
    elif side == EXCHANGE:
        net, x, time = spikingjelly_net(plan, lambda: CubaLIFNode(**CUBA, **options)), spikes, 0
    elif side == SPIKINGJELLY:
        from spikingjelly.activation_based import lava_exchange

        make = lava_exchange.CubaLIFNode
        net, x, time = spikingjelly_net(plan, lambda: make(**CUBA, **options)), spikes, 0
    else:
        make = neuron.LIFNode
        net = spikingjelly_net(plan, lambda: make(tau=4.0, decay_input=False, **options))
        x, time = spikes, 0
    net.to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def run() -> Tensor:
        rate = net(x).mean(time)
        loss = F.cross_entropy(rate * 8, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        functional.reset_net(net)
        return loss

    with torch.no_grad():  # slayer's layers know their sizes then
        net(x)
        functional.reset_net(net)
    return run


def training(lava: ModuleType, sizes: Sizes) -> Iterator[Case]:
    """The training steps of all sides."""
    for plan, (steps, batch) in ((DIGITS, sizes.digits), (VGG, sizes.vgg)):
        sides = {side: training_step(side, plan, steps, batch, lava) for side in SIDES}
        name = f"{plan.name}, T={steps}, N={batch}"
        yield Case("Training step", name, sides, {"frameworks": FACTOR})
