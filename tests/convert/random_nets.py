"""Random SpikingJelly nets of all that can be rewritten, small enough to run by the hundred."""

from typing import Any

import torch
import torch.nn as nn
from hypothesis import strategies as st
from spikingjelly.activation_based import layer, neuron
from torch import Tensor

# Not CubaLIFNode: the neurons that rewriting adds give no spikes that the net has.
FIRING = tuple(
    getattr(neuron, name)
    for name in ("IFNode", "LIFNode", "ParametricLIFNode", "SimpleIFNode", "SimpleLIFNode")
    if hasattr(neuron, name)
)
# What may stand in front of a convolution.
BEFORE = ("", "", "max", "max_overlap", "avg", "avg_avg", "pad", "norm", "up", "norm_up", "pad_up")
Net = tuple[nn.Sequential, tuple[int, ...]]


@st.composite
def firing_neurons(draw: st.DrawFn) -> nn.Module:
    """An IFNode, LIFNode or ParametricLIFNode, its options drawn."""
    kind = draw(st.sampled_from(["if", "lif", "plif"]))
    reset = draw(st.sampled_from([0.0, 0.0, -0.5, 0.25]))
    threshold = reset + draw(st.floats(0.2, 1.5))
    options: dict[str, Any] = {"v_threshold": threshold, "v_reset": reset}
    if kind == "if":
        return neuron.IFNode(**options)
    options["decay_input"] = draw(st.booleans())
    tau = draw(st.floats(1.05, 6.0))
    if kind == "lif":
        return neuron.LIFNode(tau=tau, **options)
    return neuron.ParametricLIFNode(init_tau=tau, **options)


def draw_statistics(norm: Any, draw: Any) -> Any:
    """A BatchNorm with drawn statistics and parameters."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 20)))
    for tensor, low, high in (
        (norm.running_mean, -0.5, 0.5),
        (norm.running_var, 0.2, 2.0),
        (norm.weight.data, 0.5, 2.0),
        (norm.bias.data, -0.3, 0.5),
    ):
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    return norm


@st.composite
def nets(draw: st.DrawFn) -> Net:
    """Convolutional stages, then a dense one; and the shape of the input, spikes ``[C, H, W]``."""
    torch.manual_seed(draw(st.integers(0, 1 << 20)))
    channels = draw(st.integers(1, 2))
    height, width = draw(st.integers(7, 10)), draw(st.integers(7, 10))
    shape = (channels, height, width)
    modules: list[nn.Module] = []

    def add(*new: nn.Module) -> None:
        nonlocal channels, height, width
        for module in new:
            modules.append(module)
            if not isinstance(module, neuron.BaseNode):
                x = module.eval()(torch.zeros(1, channels, height, width))
                channels, height, width = x.shape[1:]
        for module in new:
            module.train()

    for _ in range(draw(st.integers(1, 2))):
        before = draw(st.sampled_from(BEFORE))
        padding = draw(st.integers(0, 1))
        if before == "max" and min(height, width) > 3:
            first = draw(st.sampled_from(["", "pad", "up"]))
            if first == "pad":
                add(nn.ZeroPad2d(draw(st.tuples(*[st.integers(0, 2)] * 4))))
            elif first == "up" and height < 12:
                add(nn.Upsample(scale_factor=2))
            add(layer.MaxPool2d(2, ceil_mode=draw(st.booleans())))
        elif before == "max_overlap" and min(height, width) > 3:
            add(layer.MaxPool2d(3, stride=draw(st.integers(1, 2)), padding=1))
        elif before == "avg" and min(height, width) > 3:
            tiles = draw(st.booleans())
            if not tiles or height % 2 or width % 2:
                padding = 0
            add(layer.AvgPool2d(2, stride=2 if tiles else 1))
        elif before == "pad":
            sides = st.integers(0, 2)
            add(nn.ZeroPad2d(draw(st.tuples(sides, sides, sides, sides))))
        elif before == "norm":
            add(draw_statistics(layer.BatchNorm2d(channels), draw))
            padding = 0
        elif before == "avg_avg" and min(height, width) > 4:
            tiles = draw(st.booleans())
            if not tiles or height % 4 or width % 4:
                padding = 0
            add(layer.AvgPool2d(2), layer.AvgPool2d(2, stride=2 if tiles else 1))
        elif before.endswith("up") and height < 12:
            if before == "norm_up":
                add(draw_statistics(layer.BatchNorm2d(channels), draw))
                padding = 0
            elif before == "pad_up":
                add(nn.ZeroPad2d(draw(st.tuples(*[st.integers(0, 1)] * 4))))
            mode = draw(st.sampled_from(["nearest", "nearest-exact"]))
            add(nn.Upsample(scale_factor=2, mode=mode))
        out = 2 * draw(st.integers(1, 2))
        groups = draw(st.sampled_from([1, 2])) if channels == 2 else 1
        transposed = draw(st.integers(0, 4)) == 0 and before in ("", "max", "up")
        if transposed:
            stride = draw(st.integers(1, 2))
            padding = padding if min(height, width) > 1 else 0
            add(
                layer.ConvTranspose2d(
                    channels,
                    out,
                    2,
                    stride,
                    padding=padding,
                    output_padding=draw(st.integers(0, stride - 1)),
                    groups=groups,
                    bias=draw(st.booleans()),
                )
            )
        elif min(height, width) + 2 * padding >= 3:
            kernel = draw(st.sampled_from([1, 2, 3]))
            dilation = 2 if kernel == 2 and draw(st.booleans()) else 1
            add(
                layer.Conv2d(
                    channels,
                    out,
                    kernel,
                    stride=draw(st.integers(1, 2)),
                    padding=padding,
                    dilation=dilation,
                    groups=groups,
                    bias=draw(st.booleans()),
                )
            )
        else:
            add(layer.Conv2d(channels, out, 1))
        with torch.no_grad():
            modules[-1].weight.mul_(2.5)  # type: ignore[operator, union-attr]
        if draw(st.booleans()):
            add(draw_statistics(layer.BatchNorm2d(channels), draw))
        if draw(st.integers(0, 2)) == 0 and min(height, width) > 2:
            add(layer.AvgPool2d(2, stride=draw(st.integers(1, 2))))
            if draw(st.booleans()) and min(height, width) > 1:
                add(layer.AvgPool2d(2, stride=1))
            if draw(st.booleans()):
                add(draw_statistics(layer.BatchNorm2d(channels), draw))
        add(draw(firing_neurons()), nn.Dropout(0.5))
    pooled = draw(st.sampled_from(["", "adaptive", "global", "overlap", "cut", "avg"]))
    if pooled == "adaptive" and min(height, width) > 2:
        add(layer.AdaptiveAvgPool2d(2))
    elif pooled == "global":
        add(nn.AdaptiveAvgPool2d(1))
    elif pooled == "overlap" and min(height, width) > 3:
        add(nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False))
    elif pooled == "cut" and min(height, width) > 3:
        add(nn.AvgPool2d(2, ceil_mode=True))
    elif pooled == "avg" and min(height, width) > 3:
        add(nn.AvgPool2d(2))
    modules.append(layer.Flatten())
    features = channels * height * width
    hidden = 2 * draw(st.integers(1, 3))
    modules.append(layer.Linear(features, hidden, bias=draw(st.booleans())))
    with torch.no_grad():
        modules[-1].weight.mul_(3)  # type: ignore[operator, union-attr]
    if draw(st.booleans()):
        modules.append(draw_statistics(layer.BatchNorm1d(hidden), draw))
    modules.append(draw(firing_neurons()))
    if draw(st.integers(0, 3)) == 0:
        norm = draw_statistics(layer.BatchNorm1d(hidden), draw)
        modules += [norm, draw(firing_neurons())]
    end = draw(st.sampled_from(["", "linear", "vote"]))
    if end == "linear":
        modules.append(layer.Linear(hidden, 3))
    elif end == "vote":
        modules.append(layer.VotingLayer(2))
    return nn.Sequential(*modules), shape


def run(net: nn.Sequential, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The output ``[T, N, *]`` and the spikes of each neuron, step by step, from a fresh state.

    The net is a single-step one, or one of containers of steps.
    """
    spikes: dict[nn.Module, list[Tensor]] = {}
    hooks = [
        node.register_forward_hook(
            lambda module, inputs, output: spikes.setdefault(module, []).append(output.detach())
        )
        for node in net.modules()
        if isinstance(node, FIRING)
    ]
    with torch.no_grad():
        if any(getattr(module, "step_mode", "s") == "m" for module in net.modules()):
            output = net(x)
            seen = [steps[0] for steps in spikes.values()]
        else:
            output = torch.stack([net(step) for step in x])
            seen = [torch.stack(steps) for steps in spikes.values()]
    for hook in hooks:
        hook.remove()
    return output, seen
