"""SpikingJelly's own models, with seeded weights and statistics such that every layer spikes."""

import sys
import types
import unittest.mock
from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import functional, neuron
from torch import Tensor

PARAMETRIC = {
    # The input's shape, and how many steps of it.
    "MNISTNet": (1, 28, 28),
    "FashionMNISTNet": (1, 28, 28),
    "NMNISTNet": (2, 34, 34),
    "CIFAR10Net": (3, 32, 32),
    "CIFAR10DVSNet": (2, 128, 128),
    "DVSGestureNet": (2, 128, 128),
}
NEURONS: dict[str, Any] = {
    "IF": neuron.IFNode,
    "LIF": neuron.LIFNode,
    "PLIF": neuron.ParametricLIFNode,
}
VGG = ("spiking_vgg11_bn", "spiking_vgg16_bn")


def parametric(name: str, neurons: str, channels: int = 6) -> nn.Module:
    """A net of ``parametric_lif_net``, narrow."""
    from spikingjelly.activation_based.model import parametric_lif_net

    torch.manual_seed(len(name) + len(neurons))
    net = getattr(parametric_lif_net, name)(channels=channels, spiking_neuron=NEURONS[neurons])
    return prepared(net, PARAMETRIC[name])


def vgg(name: str, neurons: str = "IF") -> nn.Module:
    """A net of ``spiking_vgg``, for images of 32 x 32."""
    # Its module wants torchvision for downloads, which has to fit torch's build.
    stand_in: Any = types.ModuleType("torchvision.models.utils")
    stand_in.load_state_dict_from_url = None
    names = ("torchvision", "torchvision.models", stand_in.__name__)
    with unittest.mock.patch.dict(sys.modules, dict.fromkeys(names, stand_in)):
        from spikingjelly.activation_based.model import spiking_vgg

    torch.manual_seed(len(name))
    with torch.device("meta"):  # 130 million weights: drawn once, below
        net = getattr(spiking_vgg, name)(spiking_neuron=NEURONS[neurons], num_classes=10)
    net.to_empty(device="cpu")
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    return prepared(net, (3, 32, 32))


def prepared(net: Any, shape: tuple[int, ...]) -> nn.Module:
    """Statistics of random spikes, weights without a norm large enough to drive, evaluation."""
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the mean of all batches
                module.weight.fill_(2.0)
                module.bias.fill_(0.3)
            elif isinstance(module, nn.Linear):
                few = min(512, module.in_features)  # the same over and over, to draw fewer
                drawn = torch.randn(module.out_features, few) * 4 / module.in_features**0.5
                repeats = -(-module.in_features // few)
                module.weight.copy_(drawn.repeat(1, repeats)[:, : module.in_features])
                if module.bias is not None:
                    module.bias.uniform_(-0.1, 0.2)
        net.train()
        net(random_spikes(4, 2, shape))
        functional.reset_net(net)
    return net.eval()


def random_spikes(steps: int, batch: int, shape: tuple[int, ...], seed: int = 1) -> Tensor:
    """Spikes ``[T, N, C, H, W]``."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(steps, batch, *shape, generator=generator) < 0.3).float()


__all__ = ["NEURONS", "PARAMETRIC", "VGG", "parametric", "random_spikes", "vgg"]
