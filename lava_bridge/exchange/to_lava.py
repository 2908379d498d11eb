"""From SpikingJelly's layers and neurons, one by one, to slayer's synapses, neurons and blocks.

Every function copies: what it gives shares nothing with what it was given. ``slayer`` is this
library's by default; ``lava.lib.dl.slayer``, where it is installed, gives the original's objects.
"""

from typing import Any

import torch.nn as nn

from .. import slayer as native_slayer
from ..drawing import no_drawing
from ..errors import ConversionError
from .neurons import (
    check_takes_bias,
    copy_learned,
    lava_neuron_forward,
    set_bias,
    to_lava_neuron,
    to_lava_neuron_param_dict,
)
from .smooth import widened
from .synapses import (
    avgpool2d_to_lava_synapse_pool,
    check_flatten,
    check_norm,
    check_pool_scale,
    check_synapse,
    check_type,
    conv2d_to_lava_synapse_conv,
    conv_padding,
    copy_weight,
    linear_to_lava_synapse_dense,
    sum_pool_of,
    upsampling,
)

__all__ = [
    "avgpool2d_to_lava_synapse_pool",
    "block_of",
    "conv2d_to_lava_synapse_conv",
    "lava_neuron_forward",
    "linear_to_lava_synapse_dense",
    "to_lava_block_conv",
    "to_lava_block_dense",
    "to_lava_block_flatten",
    "to_lava_block_pool",
    "to_lava_blocks",
    "to_lava_neuron",
    "to_lava_neuron_param_dict",
]

# An Affine's neuron, which never fires: its voltage is what arrives in the step.
FORGETS_AT_ONCE = {
    "threshold": 1.0,
    "current_decay": 1.0,
    "voltage_decay": 1.0,
    "requires_grad": False,
}


def block_of(
    synapse: Any,
    sj_neuron: nn.Module | None,
    quantize_to_8bit: bool = True,
    delay_shift: bool = False,
    threshold_factor: float = 1,
    slayer: Any = native_slayer,
    weight_factor: float = 1,
    scale: int = 1 << 6,
) -> Any:
    """The slayer block of a synapse and a neuron of SpikingJelly.

    Args:
        synapse: A Linear, Conv2d or ConvTranspose2d, with a bias or without; a SumPool2d; or an
            Upsample by whole factors.
        sj_neuron: Its neuron. With a bias its current decay must be 1: the bias becomes the
            neuron's. None, for a Linear: an Affine block, whose voltage is the sum and the bias.
        quantize_to_8bit: Whether the block quantises its weights.
        delay_shift: Whether it delays its spikes by one step.
        threshold_factor: By how much the weighed spikes are larger than the net's: a factor on the
            neuron's threshold and the bias, not on the weights.
        weight_factor: A factor on weights, bias and threshold alike. It leaves the spikes as they
            are, but for what 8 bits hold of the weights; an Affine's sums are larger by it.
        slayer: ``lava_bridge.slayer``, or ``lava.lib.dl.slayer`` for the original's blocks.
        scale: What a weight of 1 is on the chip, where there is no neuron that says it.

    Raises:
        ConversionError: If the chip has no such layer.
    """
    check_synapse(synapse)
    bias = getattr(synapse, "bias", None)
    if weight_factor != 1 and not hasattr(synapse, "weight"):
        raise ConversionError(
            f"is a {type(synapse).__name__}, whose weights are 1; found a weight_factor of "
            f"{weight_factor:g}, which belongs to layers with weights"
        )
    hook = {} if quantize_to_8bit else {"pre_hook_fx": None}
    if sj_neuron is None:
        params: dict[str, Any] = {**FORGETS_AT_ONCE, "scale": scale}
        with no_drawing():
            block = _affine(synapse, params, slayer, hook)
    else:
        params = to_lava_neuron_param_dict(sj_neuron, threshold_factor * weight_factor)
        if bias is not None:
            check_takes_bias(sj_neuron, params)
        params["persistent_state"] = False
        check_norm(synapse, sj_neuron)
        with no_drawing():
            block = _spiking(synapse, params, slayer, {"delay_shift": delay_shift, **hook})
    if hasattr(synapse, "weight"):
        copy_weight(synapse, block.synapse, weight_factor)
    factor = threshold_factor * weight_factor
    if sj_neuron is not None:
        dimensions = 1 if isinstance(synapse, nn.Linear) else 3
        copy_learned(sj_neuron, block.neuron, slayer, dimensions, factor)
        # What its twin is trained by, a note: a tuple is no module of the block.
        node: Any = sj_neuron
        block.surrogate = widened(node.surrogate_function, factor), node.detach_reset
    if bias is not None:
        set_bias(block.neuron, bias * factor, slayer)
    return block


def _affine(synapse: Any, params: dict[str, Any], slayer: Any, options: dict[str, Any]) -> Any:
    if not isinstance(synapse, nn.Linear):
        raise ConversionError(
            f"is a {type(synapse).__name__} without a neuron, but only a Linear can be; put an "
            "IFNode or LIFNode after it"
        )
    sizes = synapse.in_features, synapse.out_features
    return slayer.block.cuba.Affine(params, *sizes, **options)


def _spiking(synapse: Any, params: dict[str, Any], slayer: Any, options: dict[str, Any]) -> Any:
    blocks = slayer.block.cuba
    if isinstance(synapse, nn.Linear):
        return blocks.Dense(params, synapse.in_features, synapse.out_features, **options)
    if isinstance(synapse, nn.Conv2d | nn.ConvTranspose2d):
        kind = blocks.Conv if isinstance(synapse, nn.Conv2d) else blocks.ConvT
        return kind(
            params,
            synapse.in_channels,
            synapse.out_channels,
            synapse.kernel_size,
            synapse.stride,
            conv_padding(synapse),
            synapse.dilation,
            synapse.groups,
            **options,
        )
    if isinstance(synapse, nn.Upsample):
        factors = upsampling(synapse)
        return blocks.Unpool(params, factors, factors, **options)
    window = synapse.kernel_size, synapse.stride, synapse.padding, synapse.dilation
    return blocks.Pool(params, *window, **options)


def to_lava_block_dense(
    fc: nn.Linear,
    sj_ms_neuron: nn.Module,
    quantize_to_8bit: bool = True,
    slayer: Any = native_slayer,
) -> nn.Module:
    """slayer's Dense block for a linear layer and its neuron."""
    check_type(fc, nn.Linear)
    return block_of(fc, sj_ms_neuron, quantize_to_8bit, slayer=slayer)


def to_lava_block_conv(
    conv2d_nn: nn.Conv2d,
    sj_ms_neuron: nn.Module,
    quantize_to_8bit: bool = True,
    slayer: Any = native_slayer,
) -> nn.Module:
    """slayer's Conv block for a convolution and its neuron."""
    check_type(conv2d_nn, nn.Conv2d)
    return block_of(conv2d_nn, sj_ms_neuron, quantize_to_8bit, slayer=slayer)


def to_lava_block_pool(
    pool2d_nn: nn.AvgPool2d,
    sj_ms_neuron: nn.Module,
    quantize_to_8bit: bool = True,
    slayer: Any = native_slayer,
) -> nn.Module:
    """slayer's Pool block for an average pooling and its neuron.

    The block sums, so its neuron's threshold is the kernel's size times the given one's. (In
    SpikingJelly it is left as it is, and the next layer's weights are divided in place.)
    """
    check_type(pool2d_nn, nn.AvgPool2d)
    pool, divisor = sum_pool_of(pool2d_nn)
    check_pool_scale(to_lava_neuron_param_dict(sj_ms_neuron)["scale"])
    return block_of(pool, sj_ms_neuron, quantize_to_8bit, threshold_factor=divisor, slayer=slayer)


def to_lava_block_flatten(flatten_nn: nn.Flatten, slayer: Any = native_slayer) -> nn.Module:
    """slayer's Flatten block."""
    check_type(flatten_nn, nn.Flatten)
    check_flatten(flatten_nn)
    return slayer.block.cuba.Flatten()


def to_lava_blocks(net: list | tuple | nn.Sequential) -> list[nn.Module]:
    """slayer's blocks for a net; see :func:`lava_bridge.to_slayer`, which can do more.

    Pooling windows are taken to fit their input, since its shape is not known here.
    """
    # The one import from a later room: SpikingJelly has this name here.
    from ..convert import to_slayer

    return list(to_slayer(net))
