"""What the chain asks of single modules: copies of them, their shapes, how errors call them."""

import math
from typing import Any

import torch
import torch.nn as nn

from ..errors import ConversionError
from ..exchange import CubaLIFNode
from ..exchange.pool import SumPool2d
from ..exchange.smooth import widened
from ..exchange.synapses import conv_padding
from ..layout import no_samples
from ..quantize import from_steps, quantize_8bit, quantize_bias
from ..slayer.neuron.norm import ChannelBias
from .layers import ChannelAffine
from .merge import affine_as_conv, affine_as_linear, pool_as_conv

__all__ = ["MOST_WEIGHTS", "affine_alone", "eight_bit_synapse", "fit_pool", "forgetful"]
__all__ += ["is_global", "kind_of"]
__all__ += ["larger", "plain_synapse", "shape_after", "with_one_bias"]

# A net's last convolution, or a norm of a flat signal, becomes a dense layer if that has no more
# weights than this.
MOST_WEIGHTS = 1 << 24


def forgetful() -> CubaLIFNode:
    """A neuron that fires where a spike comes in, and forgets it at once."""
    return CubaLIFNode(1.0, 1.0, v_threshold=0.5, step_mode="m")


def larger(node: Any, factor: float) -> nn.Module:
    """A neuron with a threshold and a bias that are larger by a factor; for a factor of 1, itself.

    A quantised neuron has rounded them before: its integers are larger by the factor.
    """
    if factor == 1:
        return node
    made = _copied(node)
    made.surrogate_function = widened(node.surrogate_function, factor)
    if not isinstance(node, CubaLIFNode):
        made.v_threshold = node.v_threshold * factor
        return made
    made.v_threshold = _on_grid(node.quantized_threshold * factor, node.scale)
    if isinstance(node.norm, ChannelBias):
        made.norm = ChannelBias(node.norm.value.numel(), node.scale)
        value = quantize_bias(node.norm.value.detach(), node.scale) * factor
        made.norm.value = nn.Parameter(value)
    elif node.norm is not None:
        raise ConversionError(
            "has a norm, but the pooling before it sums where the net averages, which the norm "
            "would see; use a SumPool2d, or a neuron without a norm"
        )
    return made


def _on_grid(threshold: float, scale: int) -> float:
    """A threshold that float arithmetic left a hair off the grid of ``1 / scale``, put onto it."""
    steps = round(threshold * scale)
    return from_steps(steps, scale) if math.isclose(threshold * scale, steps) else threshold


def with_one_bias(synapse: Any, node: Any) -> tuple[Any, Any]:
    """A synapse's bias and that of a quantised neuron as the synapse's, if both have one.

    Where the current is forgotten at once, both are added to the voltage in every step.
    """
    own = getattr(node, "norm", None)
    if getattr(synapse, "bias", None) is None or not isinstance(own, ChannelBias):
        return synapse, node
    gathers = node.lava_cuba_neuron_params["current_decay"] != 1
    if gathers or own.value.numel() != synapse.bias.numel():
        return synapse, node  # refused when the block is built
    made = plain_synapse(synapse)
    bias = quantize_bias(own.value.detach(), node.scale)
    made.bias = nn.Parameter(synapse.bias.detach() + bias.to(synapse.bias))
    bare = _copied(node)
    bare.norm = None
    return made, bare


def plain_synapse(synapse: Any) -> Any:
    """torch's own layer with the same weight and bias, whatever step mode the given one has."""
    if isinstance(synapse, nn.Linear):
        made: Any = nn.Linear(1, 1, device="meta")
        names: tuple[str, ...] = ("in_features", "out_features")
    else:
        kind = nn.ConvTranspose2d if isinstance(synapse, nn.ConvTranspose2d) else nn.Conv2d
        made = kind(1, 1, 1, device="meta")
        names = ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups")
        if kind is nn.ConvTranspose2d:
            made.output_padding, made.padding = synapse.output_padding, synapse.padding
        else:
            made.padding = conv_padding(synapse)
            made._reversed_padding_repeated_twice = [0] * 4  # only for modes other than zeros
    for name in names:
        setattr(made, name, getattr(synapse, name))
    made.weight, made.bias = synapse.weight, synapse.bias
    return made.train(synapse.training)


def eight_bit_synapse(synapse: Any, scale: int, factor: float = 1.0) -> Any:
    """The layer with the weights that it computes with as a container's: of 8 bits.

    Its bias is larger than the container's by ``factor``.
    """
    made = plain_synapse(synapse)
    made.weight = nn.Parameter(quantize_8bit(made.weight.detach(), scale))
    if made.bias is not None:
        made.bias = nn.Parameter(quantize_bias(made.bias.detach() / factor, scale) * factor)
    return made


def _copied(module: Any) -> Any:
    """A copy of a module that shares its tensors, but not the dicts that hold them."""
    made = module.__class__.__new__(module.__class__)
    made.__dict__.update(module.__dict__)
    for name in ("_parameters", "_buffers", "_modules", "_memories", "_memories_rv"):
        if name in module.__dict__:
            made.__dict__[name] = dict(module.__dict__[name])
    return made


def kind_of(module: nn.Module) -> str:
    """How errors call a module."""
    return "BatchNorm" if isinstance(module, ChannelAffine) else type(module).__name__


def is_global(pool: SumPool2d, shape: tuple[int, ...]) -> bool:
    """Whether a pooling's one window is the whole plane."""
    return len(shape) == 3 and pool.kernel_size == shape[1:] and not any(pool.padding)


def affine_alone(affine: ChannelAffine, flat: bool) -> nn.Module:
    """A norm without a synapse beside it as one, of planes or of a flat signal."""
    if flat and len(affine.scale) ** 2 > MOST_WEIGHTS:
        raise ConversionError(
            f"is a norm of {len(affine.scale)} neurons without a synapse before it, which would be "
            f"a matrix of more than {MOST_WEIGHTS:,} weights; put it after a Linear"
        )
    return affine_as_linear(affine) if flat else affine_as_conv(affine)


def fit_pool(pool: SumPool2d, shape: tuple[int, ...] | None) -> nn.Module:
    """The pooling itself where slayer's Pool is equal to it, else the same as a convolution."""
    if pool.tiles:
        cut_off = shape is not None and any(
            size % k for size, k in zip(shape[1:], pool.kernel_size, strict=False)
        )
        if pool.ceil_mode or not cut_off:
            return pool
    return pool_as_conv(pool, shape)


def shape_after(module: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Shape ``[C, *]`` of a module's output, found without computing it; None if there is none."""
    if isinstance(module, nn.Flatten):
        return (math.prod(shape),)
    held = (*module.parameters(), *module.buffers(), torch.empty(()))
    try:
        with torch.no_grad():
            output = module(no_samples(shape, held[0]))
    except (RuntimeError, ValueError, IndexError):
        return None
    return tuple(output.shape[1:]) if all(output.shape[1:]) else None
