"""What the chain asks of single modules: copies of them, their shapes, how errors call them."""

import math
from typing import Any

import torch
import torch.nn as nn

from ..errors import ConversionError
from ..exchange import CubaLIFNode
from ..exchange.pool import SumPool2d
from ..exchange.synapses import conv_padding
from .layers import ChannelAffine
from .merge import affine_as_conv, affine_as_linear, pool_as_conv

__all__ = ["MOST_WEIGHTS", "affine_alone", "fit_pool", "forgetful", "is_global", "kind_of"]
__all__ += ["larger", "plain_synapse", "shape_after"]

# A net's last convolution, or a norm of a flat signal, becomes a dense layer if that has no more
# weights than this.
MOST_WEIGHTS = 1 << 24


def forgetful() -> CubaLIFNode:
    """A neuron that fires where a spike comes in, and forgets it at once."""
    return CubaLIFNode(1.0, 1.0, v_threshold=0.5, step_mode="m")


def larger(node: Any, factor: float) -> nn.Module:
    """A neuron with a threshold that is larger by a factor; the neuron itself for a factor of 1."""
    if factor == 1:
        return node
    made = _copied(node)
    made.v_threshold = node.v_threshold * factor
    if isinstance(node, CubaLIFNode) and node.norm is not None:
        raise ConversionError(
            "has a norm, but the pooling before it sums where the net averages, which the norm "
            "would see; use a SumPool2d, or a neuron without a norm"
        )
    return made


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
    held = (*module.named_parameters(), *module.named_buffers())
    state = {name: torch.empty_like(value, device="meta") for name, value in held}
    x = torch.empty(1, *shape, device="meta")
    if state:
        x = x.to(next(iter(state.values())).dtype)
    try:
        output = torch.func.functional_call(module, state, (x,))
    except (RuntimeError, ValueError, IndexError):
        return None
    return tuple(output.shape[1:]) if output.numel() else None
