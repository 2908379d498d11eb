"""One rewritten layer run on spikes: in floats, and as 8 bits hold it."""

import math
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from spikingjelly.activation_based import neuron
from torch import Tensor

from ..exchange import BatchNorm2d, CubaLIFNode
from ..quantize import WEIGHT_MIN, quantize_8bit, quantize_bias
from ..slayer.neuron.norm import ChannelBias
from .layers import FloatLayer
from .modules import eight_bit_synapse

__all__ = ["FloatRun", "QuantisedRun", "lowest_weight", "scale_of"]


def scale_of(layer: FloatLayer) -> int:
    """What a weight of 1 is on the chip."""
    return getattr(layer.neuron, "scale", getattr(layer.neuron, "lava_s_cale", layer.scale))


def lowest_weight(layer: FloatLayer, factor: float) -> float:
    """The lowest that a layer's weights may be, once they are multiplied by a factor and rounded.

    Without one above 0 Lava's 8 bits hold a magnitude of 255: -256 would become another number.
    """
    weight: Any = layer.synapse.weight
    scale = scale_of(layer)
    if layer.quantised or not weight.numel():
        return -math.inf
    above = quantize_8bit(weight.detach().max() * factor, scale) > 0
    return -math.inf if above else (WEIGHT_MIN + 2) / scale


class FloatRun:
    """A layer in floats, as the net itself computes it.

    Attributes:
        reach: The largest magnitude of a current or a voltage so far.
    """

    def __init__(self, layer: FloatLayer) -> None:
        self._synapse: Any = layer.synapse
        if layer.weight_factor is not None and hasattr(layer.synapse, "weight"):
            self._synapse = eight_bit_synapse(layer.synapse, scale_of(layer))
        self._neuron = _fresh(layer.neuron)
        if self._neuron is not None:
            self._neuron.store_v_seq = True
        self.reach = 0.0

    def __call__(self, x_seq: Tensor) -> Tensor:
        """Spikes, or the sums of a layer without a neuron, ``[T, N, *]`` for ``[T, N, *]``."""
        synapse = self._synapse
        drive = _drive(
            synapse, x_seq, getattr(synapse, "weight", None), getattr(synapse, "bias", None)
        )
        if self._neuron is None:
            return drive
        self._neuron.reset()
        spikes = self._neuron(drive)
        lowest, highest = (value.item() for value in torch.aminmax(drive))
        lowest = min(lowest, self._neuron.v_seq.min().item())
        # Above the threshold it fires, wherever the voltage ends.
        self.reach = max(self.reach, -lowest, highest)
        self._neuron.reset()
        return spikes


class QuantisedRun:
    """A layer whose weights, bias and threshold are multiplied by a factor and rounded."""

    def __init__(self, layer: FloatLayer, factor: float) -> None:
        self._synapse: Any = layer.synapse
        scale = scale_of(layer)
        self._weight = self._bias = None
        weight = getattr(layer.synapse, "weight", None)
        if isinstance(weight, Tensor):
            lowest = lowest_weight(layer, factor)
            self._weight = quantize_8bit((weight * factor).clamp(min=lowest), scale)
        bias = getattr(layer.synapse, "bias", None)
        if isinstance(bias, Tensor):
            self._bias = quantize_bias(bias * factor, scale)
        self._neuron = _quantised(layer.neuron, factor, scale)

    def __call__(self, x_seq: Tensor) -> Tensor:
        """Spikes, or the sums of a layer without a neuron, ``[T, N, *]`` for ``[T, N, *]``."""
        drive = _drive(self._synapse, x_seq, self._weight, self._bias)
        if self._neuron is None:
            return drive
        self._neuron.to(drive.device).reset()
        return self._neuron(drive)


def _fresh(node: Any) -> Any:
    """A neuron of the same numbers, without state, hooks and backend of the net's own."""
    if node is None:
        return None
    if isinstance(node, CubaLIFNode):
        params = node.lava_cuba_neuron_params
        norm: Any = None
        if isinstance(node.norm, ChannelBias):
            norm = ChannelBias(node.norm.value.numel(), node.scale)
            norm.load_state_dict(node.norm.state_dict())
        elif node.norm is not None:
            norm = BatchNorm2d(
                node.norm.running_mean.numel(),
                node.norm.eps,
                weight_exp_bits=node.norm.weight_exp_bits,
            )
            norm.load_state_dict(node.norm.state_dict())
            norm.eval()
        made = CubaLIFNode(
            params["current_decay"],
            params["voltage_decay"],
            params["threshold"],
            scale=node.scale,
            norm=norm,
            step_mode="m",
        )
        return made.to(node.current_decay.device)
    if isinstance(node, neuron.LIFNode):
        return neuron.LIFNode(node.tau, False, node.v_threshold, 0.0, step_mode="m")
    return neuron.IFNode(node.v_threshold, 0.0, step_mode="m")


def _quantised(node: Any, factor: float, scale: int) -> Any:
    if node is None or isinstance(node, CubaLIFNode):
        return _fresh(node)
    voltage_decay = 1 / node.tau if isinstance(node, neuron.LIFNode) else 0.0
    return CubaLIFNode(1.0, voltage_decay, node.v_threshold * factor, scale=scale, step_mode="m")


def _drive(synapse: Any, x_seq: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """What a synapse with this weight and bias gives, ``[T, N, *]`` for ``[T, N, *]``.

    Factors are chosen by float32's sums, whatever the caller casts to.
    """
    with torch.autocast(x_seq.device.type, enabled=False):
        return _weighed(synapse, x_seq, weight, bias)


def _weighed(synapse: Any, x_seq: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is None and getattr(synapse, "step_mode", "s") == "m":
        return synapse(x_seq)
    x = x_seq.flatten(0, 1)
    if isinstance(synapse, nn.Linear):
        assert weight is not None
        y = F.linear(x, weight, bias)
    elif isinstance(synapse, nn.Conv2d):
        assert weight is not None
        y = synapse._conv_forward(x, weight, bias)
    elif isinstance(synapse, nn.ConvTranspose2d):
        assert weight is not None
        assert not isinstance(synapse.padding, str)  # a word is for Conv2d only
        y = F.conv_transpose2d(
            x,
            weight,
            bias,
            synapse.stride,
            synapse.padding,
            synapse.output_padding,
            synapse.groups,
            synapse.dilation,
        )
    else:
        y = synapse(x)
    return y.unflatten(0, x_seq.shape[:2])
