"""SpikingJelly nets for the tests, and what they compute, said once more without the converter."""

import copy
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor

from lava_bridge.exchange import CubaLIFNode, quantize_8bit

THRESHOLDS = st.one_of(
    st.sampled_from([1.0, 0.5, 0.7, 0.33, 1 / 64]),
    st.floats(0.1, 3.0, allow_nan=False),
)


@st.composite
def neurons(draw: st.DrawFn) -> nn.Module:
    """An IFNode, LIFNode or CubaLIFNode that slayer can hold."""
    threshold = draw(THRESHOLDS)
    kind = draw(st.sampled_from(["if", "lif", "cuba"]))
    if kind == "if":
        return neuron.IFNode(v_threshold=threshold, step_mode="m")
    if kind == "lif":
        tau = draw(st.floats(1.01, 20.0))
        return neuron.LIFNode(tau=tau, decay_input=False, v_threshold=threshold, step_mode="m")
    decays = draw(st.tuples(st.floats(0, 1), st.floats(0, 1)))
    return CubaLIFNode(*decays, v_threshold=threshold, step_mode="m")


@st.composite
def conv_nets(draw: st.DrawFn) -> tuple[list[nn.Module], tuple[int, int, int]]:
    """Layers ``conv neuron (pool (neuron))? ...  flatten linear neuron`` and an input shape."""
    channels = draw(st.integers(1, 3))
    height, width = draw(st.integers(6, 11)), draw(st.integers(6, 11))
    shape = (channels, height, width)
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 2))):
        groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
        outputs = groups * draw(st.integers(1, 3))
        conv = layer.Conv2d(
            channels,
            outputs,
            kernel_size=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
            stride=draw(st.integers(1, 2)),
            padding=draw(st.integers(0, 1)),
            dilation=draw(st.integers(1, 2)),
            groups=groups,
            bias=False,
            step_mode="m",
        )
        probe = (
            conv(torch.zeros(1, 1, channels, height, width)) if _fits(conv, height, width) else None
        )
        if probe is None:
            break
        layers += [conv, draw(neurons())]
        channels, height, width = probe.shape[2:]
        if min(height, width) >= 2 and draw(st.booleans()):
            layers += [layer.AvgPool2d(2, step_mode="m"), draw(neurons())]
            height, width = height // 2, width // 2
    # A pooling without a neuron, merged into the linear layer.
    if min(height, width) >= 2 and layers and draw(st.booleans()):
        layers.append(layer.AvgPool2d(2, step_mode="m"))
        height, width = height // 2, width // 2
    layers.append(layer.Flatten(step_mode="m"))
    layers += [
        layer.Linear(channels * height * width, draw(st.integers(1, 5)), bias=False, step_mode="m"),
        draw(neurons()),
    ]
    return layers, shape


def _fits(conv: nn.Conv2d, height: int, width: int) -> bool:
    return all(
        size + 2 * p - d * (k - 1) >= 1
        for size, p, d, k in zip(
            (height, width), conv.padding, conv.dilation, conv.kernel_size, strict=True
        )
    )


def widen_weights(layers: list[nn.Module], factor: float = 3.0) -> None:
    """Make the drawn weights large enough for spikes."""
    with torch.no_grad():
        for module in layers:
            if hasattr(module, "weight"):
                module.weight.mul_(factor)


def quantised_run(layers: list[nn.Module], x_seq: Tensor) -> list[Tensor]:
    """The spikes ``[T, N, *]`` of every neuron, with 8-bit weights, layer by layer as they stand.

    A pooling sums here, and the next neuron's threshold is larger by its size. Nothing is merged.
    """
    outputs, factor, scale = [], 1.0, 64
    for module in layers:
        steps = x_seq.shape[:2]
        merged = x_seq.flatten(0, 1)
        if isinstance(module, nn.Conv2d):
            weight = quantize_8bit(module.weight, scale)
            merged = F.conv2d(
                merged, weight, None, module.stride, module.padding, module.dilation, module.groups
            )
        elif isinstance(module, nn.Linear):
            merged = F.linear(merged, quantize_8bit(module.weight, scale))
        elif isinstance(module, nn.AvgPool2d):
            merged = F.avg_pool2d(
                merged, module.kernel_size, module.stride, module.padding, divisor_override=1
            )
            k = module.kernel_size
            factor *= module.divisor_override or (k * k if isinstance(k, int) else k[0] * k[1])
        elif isinstance(module, nn.Flatten):
            merged = merged.flatten(1)
        else:
            x_seq = cuba_of(module, factor)(x_seq)
            outputs.append(x_seq)
            factor = 1.0
            continue
        x_seq = merged.unflatten(0, steps)
    return outputs


def cuba_of(node: Any, factor: float) -> CubaLIFNode:
    """The quantised neuron of a SpikingJelly one, its threshold times ``factor``."""
    threshold = node.v_threshold * factor
    if isinstance(node, CubaLIFNode):
        made = copy.deepcopy(node)
        made.v_threshold = threshold
        return made
    voltage_decay = 1 / node.tau if isinstance(node, neuron.LIFNode) else 0.0
    return CubaLIFNode(1.0, voltage_decay, threshold, step_mode="m")


def spikes(*shape: int, rate: float = 0.4, seed: int = 0) -> Tensor:
    """Random spikes, 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator) < rate).float()


def described(found) -> list[str]:
    return [repr(module) for _, module in found]


def run(found, x, step_mode: str = "s"):
    """What the modules compute in order; those of torch.nn take a batch of all steps."""
    for _, module in found:
        if step_mode == "m" and getattr(module, "step_mode", "s") == "s":
            x = functional.seq_to_ann_forward(x, module)
        else:
            x = module(x)
    return x
