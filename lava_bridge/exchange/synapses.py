"""From SpikingJelly's and torch's layers to slayer's synapses; and what slayer has none of."""

import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import layer as sj_layer
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import type_before_parametrizations

from .. import slayer as native_slayer
from ..drawing import no_drawing
from ..errors import ConversionError
from ..quantize import WEIGHT_MAX, all_finite, quantize_8bit
from .pool import SumPool2d

__all__ = [
    "avgpool2d_to_lava_synapse_pool",
    "check_flatten",
    "check_norm",
    "check_numbers",
    "check_permanent",
    "check_pool_scale",
    "check_synapse",
    "check_type",
    "conv2d_to_lava_synapse_conv",
    "conv_padding",
    "copy_weight",
    "linear_to_lava_synapse_dense",
    "sum_pool_of",
    "upsampling",
]

# Of weights that can be scaled and rounded.
FLOATS = torch.float16, torch.bfloat16, torch.float32, torch.float64


def check_synapse(layer: Any) -> None:
    """Refuse a layer that no slayer synapse equals (its bias apart, which is the neuron's)."""
    check_permanent(layer, ("weight", "bias"))
    padding_mode = getattr(layer, "padding_mode", "zeros")
    if padding_mode != "zeros":
        raise ConversionError(
            f"has padding_mode={padding_mode!r}, but slayer pads with zeros; "
            "use padding_mode='zeros'"
        )
    if any(getattr(layer, "output_padding", ())):
        raise ConversionError(
            f"has output_padding={tuple(layer.output_padding)}, which slayer's ConvTranspose has "
            "not; choose kernel, stride and padding so that it is 0"
        )
    if isinstance(layer, nn.Upsample):
        upsampling(layer)
    check_numbers(layer)
    weight = getattr(layer, "weight", None)
    for name, shape in _shapes(layer).items():
        _check_tensor(name, getattr(layer, name), shape)
    if weight is not None and not all_finite(weight):
        raise ConversionError(
            f"has {int((~torch.isfinite(weight)).sum())} weights that are NaN or infinite; "
            "check the training or the checkpoint"
        )


def _shapes(layer: Any) -> dict[str, tuple[int, ...]]:
    """The shapes that a layer's weight and bias have by its other attributes."""
    if isinstance(layer, nn.Linear):
        return {"weight": (layer.out_features, layer.in_features), "bias": (layer.out_features,)}
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
        return {}
    into, out = layer.in_channels, layer.out_channels
    sides = (into, out) if isinstance(layer, nn.ConvTranspose2d) else (out, into)
    return {"weight": (sides[0], sides[1] // layer.groups, *layer.kernel_size), "bias": (out,)}


def _check_tensor(name: str, tensor: torch.Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuse a weight or bias that is not of plain floats, or not of its layer's shape."""
    if tensor is None:
        return
    if tensor.dtype not in FLOATS:
        raise ConversionError(f"has a {name} of {tensor.dtype}; convert a net of torch.float32")
    if tensor.layout != torch.strided:
        raise ConversionError(f"has a {name} that is sparse ({tensor.layout}); make it dense")
    if tuple(tensor.shape) != shape:
        raise ConversionError(
            f"has a {name} of shape {tuple(tensor.shape)}, but is a layer with one of {shape}; "
            "make a new layer of that size, as pruning by hand must"
        )


def check_permanent(module: nn.Module, names: Iterable[str]) -> None:
    """Refuse a module of whose parameters one was made a mere attribute by torch's hooks."""
    for name in names:
        if hasattr(module, name) and name not in module._parameters:
            raise ConversionError(
                f"computes its {name} in a hook (weight norm, pruning), so it may be out of date; "
                "make it permanent with remove_weight_norm, prune.remove or "
                "parametrize.remove_parametrizations"
            )


def check_numbers(module: nn.Module) -> None:
    """Refuse a module that was made without numbers."""
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise ConversionError("is on the meta device, without numbers; load its weights first")


def _refuse_bias(layer: nn.Module) -> None:
    if getattr(layer, "bias", None) is not None:
        raise ConversionError(
            "has a bias, which a synapse alone can't hold; make a block of it and its neuron, or "
            "use bias=False"
        )


def upsampling(layer: nn.Upsample) -> tuple[int, int]:
    """The whole factors, of height and width, by which a nearest upsampling repeats.

    Raises:
        ConversionError: If it does anything else.
    """
    factors = layer.scale_factor
    pair: tuple[Any, ...] = (
        tuple(factors) if isinstance(factors, tuple | list) else (factors, factors)
    )
    if layer.mode not in ("nearest", "nearest-exact"):
        raise ConversionError(
            f"has mode={layer.mode!r}, which mixes neighbours; slayer's Unpool repeats: use "
            "mode='nearest'"
        )
    if len(pair) != 2 or not all(f is not None and f >= 1 and f == int(f) for f in pair):
        raise ConversionError(
            f"has scale_factor={factors} and size={layer.size}, but slayer's Unpool repeats each "
            "spike a whole number of times; use a whole scale_factor"
        )
    return int(pair[0]), int(pair[1])


def check_pool_scale(scale: int) -> None:
    """Refuse a neuron whose scale can't hold a pooling's weight of 1."""
    if quantize_8bit(torch.ones(()), scale) != 1:
        raise ConversionError(
            f"has a scale of {scale}, at which 8 bits can't hold a pooling's weight of 1; use an "
            f"even scale of {WEIGHT_MAX} at most"
        )


def check_norm(synapse: Any, sj_neuron: Any) -> None:
    """Refuse a norm of other channels than its layer has."""
    channels = getattr(synapse, "out_features", getattr(synapse, "out_channels", None))
    norm = getattr(sj_neuron, "norm", None)
    if norm is not None and channels is not None and norm.num_features != channels:
        raise ConversionError(
            f"has a norm of {norm.num_features} features on a layer of {channels} channels; put "
            "the neuron before the Flatten, with one feature for each channel"
        )


def check_flatten(flatten: nn.Flatten) -> None:
    """Refuse a Flatten that does not take all dimensions but the batch."""
    if flatten.start_dim != 1 or flatten.end_dim != -1:
        raise ConversionError(
            f"flattens dimensions {flatten.start_dim} to {flatten.end_dim}, but slayer's Flatten "
            "takes all but the batch; use start_dim=1, end_dim=-1"
        )


def check_type(layer: nn.Module, *expected: type[nn.Module]) -> None:
    """Refuse a layer of other types, and of a type of its own: that may compute something else.

    SpikingJelly's layer of the same name is the same.
    """
    kind = next((kind for kind in expected if isinstance(layer, kind)), None)
    found = type_before_parametrizations(layer)
    if kind is None:
        names = ", ".join(kind.__name__ for kind in expected)
        raise ConversionError(f"expected a {names}, found a {found.__name__}")
    if isinstance(layer, LazyModuleMixin):
        raise ConversionError("has no weights before its first forward; run the net once")
    if found not in expected and found is not getattr(sj_layer, kind.__name__, None):
        raise ConversionError(
            f"is a {found.__name__}, a kind of {kind.__name__} that may compute something else; "
            f"copy what it computes with into a {kind.__name__}"
        )


def conv_padding(conv: nn.Conv2d | nn.ConvTranspose2d) -> tuple[int, int]:
    """A convolution's padding as two numbers, also where it is given as a word."""
    if not isinstance(conv.padding, str):
        return (int(conv.padding[0]), int(conv.padding[1]))
    if conv.padding == "valid":
        return (0, 0)
    totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    if any(total % 2 for total in totals):
        raise ConversionError(
            f"has padding='same' with a kernel of {tuple(conv.kernel_size)}, which pads one side "
            "more than the other; use an odd kernel"
        )
    return (totals[0] // 2, totals[1] // 2)


def linear_to_lava_synapse_dense(fc: nn.Linear, slayer: Any = native_slayer) -> nn.Module:
    """slayer's Dense synapse for a linear layer without bias."""
    check_type(fc, nn.Linear)
    check_synapse(fc)
    _refuse_bias(fc)
    with no_drawing():
        dense = slayer.synapse.Dense(fc.in_features, fc.out_features)
    copy_weight(fc, dense)
    return dense


def conv2d_to_lava_synapse_conv(conv2d_nn: nn.Conv2d, slayer: Any = native_slayer) -> nn.Module:
    """slayer's Conv synapse for a convolution without bias."""
    check_type(conv2d_nn, nn.Conv2d)
    check_synapse(conv2d_nn)
    _refuse_bias(conv2d_nn)
    with no_drawing():
        conv = slayer.synapse.Conv(
            conv2d_nn.in_channels,
            conv2d_nn.out_channels,
            conv2d_nn.kernel_size,
            conv2d_nn.stride,
            conv_padding(conv2d_nn),
            conv2d_nn.dilation,
            conv2d_nn.groups,
        )
    copy_weight(conv2d_nn, conv)
    return conv


def avgpool2d_to_lava_synapse_pool(pool2d_nn: nn.AvgPool2d, slayer: Any = native_slayer) -> Any:
    """slayer's Pool synapse for an average pooling: it *sums*, so it gives ``k * k`` times more.

    Raises:
        ConversionError: If its windows at an edge are weighed otherwise than the others.

    Warns
    -----
    UserWarning
        That it sums, and what to divide by.
    """
    check_type(pool2d_nn, nn.AvgPool2d)
    _, divisor = sum_pool_of(pool2d_nn)
    warnings.warn(
        f"slayer's Pool sums where AvgPool2d averages: divide its output by {divisor:g}",
        stacklevel=2,
    )
    return slayer.synapse.Pool(pool2d_nn.kernel_size, pool2d_nn.stride, pool2d_nn.padding)


def copy_weight(layer: Any, synapse: Any, factor: float = 1) -> None:
    """Copy a layer's weight into a synapse's, which has one to three dimensions more, each 1.

    It is multiplied by ``factor`` there. No second copy is held meanwhile.
    """
    held = synapse.weight.data
    held.copy_(layer.weight.detach().reshape(held.shape))
    if factor != 1:
        held.mul_(factor)


def sum_pool_of(pool: nn.AvgPool2d) -> tuple[SumPool2d, float]:
    """An average pooling as a sum pooling, and the divisor that is left over."""
    if pool.ceil_mode and not pool.divisor_override:
        raise ConversionError(
            "has ceil_mode=True: a window that is cut off is divided by its own size; use "
            "ceil_mode=False, or divisor_override"
        )
    geometry = SumPool2d(pool.kernel_size, pool.stride, pool.padding, ceil_mode=pool.ceil_mode)
    if any(geometry.padding) and not pool.count_include_pad:
        raise ConversionError(
            "has count_include_pad=False with padding: its windows at the edge have weights of "
            "their own; use count_include_pad=True"
        )
    return geometry, pool.divisor_override or math.prod(geometry.kernel_size)
