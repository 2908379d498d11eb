"""Random nets of slayer blocks, on the chip's grid, each from a number."""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

import lava_bridge
from lava_bridge import slayer
from lava_bridge.slayer.neuron.norm import MeanOnlyBatchNorm

FAMILIES = ("cuba", "cuba", "cuba", "rf", "rf_iz")
SAMPLES, STEPS, RATE = 2, 12, 0.4


class Net(NamedTuple):
    """Blocks that know their shape, and an input ``[N, *, T]``."""

    blocks: list[torch.nn.Module]
    x: torch.Tensor


class Maker:
    """Draws one net."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.family = FAMILIES[seed % len(FAMILIES)]
        self.block: Any = getattr(slayer.block, self.family)

    def pick(self, *values: Any) -> Any:
        return values[self.random.integers(len(values))]

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def pair(self, least: int, most: int) -> tuple[int, int]:
        first, second = self.random.integers(least, most + 1, 2)
        return int(first), int(second)

    def neuron(self, delay: bool) -> dict[str, Any]:
        threshold = float(self.random.integers(8, 160)) / 64
        if self.family != "cuba":
            period, decay = self.random.uniform(4, 20), self.random.uniform(0, 0.5)
            return {"threshold": threshold, "period": period, "decay": decay}
        params: dict[str, Any] = {
            "threshold": threshold,
            "current_decay": self.pick(1.0, 1.0, float(self.random.random())),
            "voltage_decay": self.pick(0.0, 1.0, float(self.random.random())),
        }
        # With both, Lava's bias runs ahead of the delayed spikes.
        if not delay and self.chance(0.3):
            params["norm"] = MeanOnlyBatchNorm
        return params

    def layer(self, shape: tuple[int, ...]) -> Any:
        """A block for an input of this shape, or None if the one drawn does not fit."""
        delay, shift = self.chance(0.25), self.chance(0.3)
        axon = {"delay": delay, "delay_shift": shift}
        neuron = self.neuron(delay)
        if len(shape) == 1:
            kind = self.pick("Dense", "Dense", "Recurrent")
            if kind == "Recurrent":  # slayer gives the normalised current back there
                neuron.pop("norm", None)
            return getattr(self.block, kind)(
                neuron, shape[0], int(self.random.integers(1, 9)), **axon
            )
        window = {
            "stride": self.pair(1, 2),
            "padding": self.pair(0, 1),
            "dilation": self.pair(1, 2),
        }
        kernel, kind = self.pair(1, 3), self.pick("Conv", "Conv", "Pool", "ConvT", "Unpool")
        if kind in ("Conv", "ConvT"):
            groups = self.pick(1, 1, *[n for n in (2, 3) if shape[0] % n == 0])
            outputs = groups * int(self.random.integers(1, 4))
            sizes = (shape[0], outputs, kernel)
            return getattr(self.block, kind)(neuron, *sizes, groups=groups, **window, **axon)
        if self.chance(0.5):
            window = {}  # tiles, a cut off one at the edge
        weight = 2 * int(self.random.integers(1, 64)) / 64
        return getattr(self.block, kind)(neuron, kernel, weight_scale=weight, **window, **axon)

    def fill(self, made: Any) -> None:
        """Weights on the chip's grid, whole delays, a norm's mean."""
        synapses = [made.synapse]
        if hasattr(made, "recurrent_synapse"):
            synapses.append(made.recurrent_synapse)
        for synapse in synapses:
            for _, part in synapse.parts(""):
                if part.weight.numel() > 1 and part.weight.requires_grad:
                    most = int(self.random.integers(1, 40))
                    drawn = self.random.integers(-most, most + 20, part.weight.shape)
                    part.weight.data = torch.from_numpy(2 * drawn).float() / 64
        if made.delay is not None:
            delays = self.random.integers(0, 5, made.shape[0])
            made.delay.delay.data = torch.from_numpy(delays).float()
        norm = getattr(made.neuron, "norm", None)
        if norm is not None:
            mean = 2 * self.random.integers(-12, 12, made.shape[0])
            norm.num_features = made.shape[0]
            norm.running_mean = torch.from_numpy(mean).float() / 64

    def net(self) -> Net:
        planes = self.chance(0.6)
        shape: tuple[int, ...] = (int(self.random.integers(1, 5)),)
        if planes:
            shape = (*shape, *self.pair(3, 8))
        first, blocks = shape, [self.block.Input(delay_shift=False)]
        blocks[0].infer_shape(shape)
        layers = 1 + self.random.integers(4)
        while sum(hasattr(made, "synapse") for made in blocks) < layers:
            if len(shape) == 3 and self.chance(0.3):
                made = self.block.Flatten()
            else:
                made = self.layer(shape)
            try:
                after = tuple(made.infer_shape(shape))
            except lava_bridge.BridgeError:
                continue
            if int(np.prod(after)) > 600:
                continue
            if hasattr(made, "synapse"):
                self.fill(made)
            blocks.append(made)
            shape = after
        x = self.random.random((SAMPLES, *first, STEPS)) < RATE
        for made in blocks:
            made.eval()
        return Net(blocks, torch.from_numpy(x).float())


def random_net(seed: int) -> Net:
    """The net of this number."""
    return Maker(seed).net()


def random_sigma_delta_net(seed: int) -> Net:
    """A net of sigma-delta neurons: input, a convolution or none, flatten, dense, output."""
    random = np.random.default_rng(seed)
    block = slayer.block.sigma_delta

    def neuron(most: int) -> dict[str, Any]:
        return {"threshold": float(random.integers(0, most)) / 64, "activation": F.relu}

    shape: tuple[int, ...] = tuple(int(size) for size in random.integers(1, 6, 3))
    first = shape
    scaled = {"weight": 0.5, "bias": -0.25} if random.random() < 0.3 else {}
    blocks = [block.Input(neuron(10), **scaled)]
    shape = blocks[0].infer_shape(shape)
    if random.random() < 0.6:
        kernel = (min(2, shape[1]), min(3, shape[2]))
        blocks.append(block.Conv(neuron(40), shape[0], 3, kernel, padding=1))
        shape = blocks[-1].infer_shape(shape)
    blocks.append(block.Flatten())
    shape = blocks[-1].infer_shape(shape)
    blocks.append(block.Dense(neuron(40), shape[0], 7))
    blocks.append(block.Output(neuron(40), 7, 3))
    for made in blocks:
        if hasattr(made, "synapse"):
            drawn = 2 * random.integers(-20, 30, made.synapse.weight.shape)
            made.synapse.weight.data = torch.from_numpy(drawn).float() / 64
        made.eval()
    still = random.integers(-64, 128, (SAMPLES, *first, 1))
    x = still + random.integers(-3, 4, (SAMPLES, *first, STEPS))
    return Net(blocks, torch.from_numpy(x).float() / 64)
