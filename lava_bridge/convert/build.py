"""From rewritten layers, in floats, to slayer blocks with weights of 8 bits."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import layer

from .. import slayer as native_slayer
from ..errors import BridgeError, ConversionError
from ..exchange import SumPool2d
from ..exchange.neurons import check_bias
from ..exchange.to_lava import block_of
from ..quantize import WEIGHT_MAX, WEIGHT_MIN, held_by_8bit
from .layer_run import lowest_weight, scale_of
from .layers import FloatLayer
from .merge_late import pad_before_pool

__all__ = ["build_blocks"]

# Below so many of the 256 levels of 8 bits, rounding leaves little of a layer's weights.
FEW_LEVELS = 16


def build_blocks(
    layers: Sequence[FloatLayer],
    input_shape: tuple[int, ...] | None,
    delay_shift: bool = False,
    slayer: Any = native_slayer,
    factors: Sequence[float] | None = None,
) -> list[nn.Module]:
    """The slayer blocks of rewritten layers, an Input block first if the shape is known.

    Args:
        layers: The layers, in order.
        input_shape: Shape ``[C, *]`` of what the first layer takes.
        delay_shift: Whether each block delays its spikes by one step.
        slayer: This library's or the original's.
        factors: By what weight, bias and threshold of each layer are multiplied before they are
            rounded. None: by 1, with a warning where that leaves few of the 256 levels.

    Raises:
        ConversionError: If slayer has no such block; it names the layer or its neuron.
    """
    blocks: list[nn.Module] = []
    shape = input_shape
    if shape is not None:
        blocks.append(slayer.block.cuba.Input(delay_shift=False))
        shape = _told(blocks[0], shape, None)
    for i, float_layer in enumerate(layers):
        factor = 1.0 if factors is None else factors[i]
        if slayer is not native_slayer and shape is not None:
            float_layer = _without_cut_off(float_layer, shape)
        _check_bias(float_layer, factor)
        try:
            block = _block(float_layer, delay_shift, slayer, factor, factors is not None)
        except BridgeError as error:
            raise ConversionError(
                f"{float_layer.neuron_place or float_layer.place}: {error}"
            ) from error
        _warn_of_rounding(float_layer, factor, calibrated=factors is not None)
        if shape is not None:
            try:
                shape = _told(block, shape, float_layer, factor)
            except BridgeError as error:
                raise ConversionError(f"{float_layer.place}: {error}") from error
        blocks.append(block)
    if delay_shift:
        _warn_of_early_bias(layers)
    return blocks


def _warn_of_early_bias(layers: Sequence[FloatLayer]) -> None:
    """Say where a bias acts while the spikes of delayed layers are still on their way."""
    delayed = False
    for float_layer in layers:
        if delayed and getattr(float_layer.synapse, "bias", None) is not None:
            warnings.warn(
                f"{float_layer.place}: has a bias, which acts from the first step on, before the "
                "delayed spikes of the layers in front of it arrive: with delay_shift its spikes "
                "are not those of the net; without, they are",
                stacklevel=4,
            )
            return
        delayed |= float_layer.neuron is not None


def _check_bias(float_layer: FloatLayer, factor: float) -> None:
    """Refuse a bias that does not fit, in the synapse's name."""
    bias = getattr(float_layer.synapse, "bias", None)
    if bias is None:
        return
    try:
        check_bias(bias.detach() * factor, scale_of(float_layer))
    except BridgeError as error:
        raise ConversionError(f"{float_layer.place}: {error}") from error


def _block(
    float_layer: FloatLayer, delay_shift: bool, slayer: Any, factor: float, calibrated: bool
) -> Any:
    synapse: Any = float_layer.synapse
    node: Any = float_layer.neuron
    if isinstance(synapse, nn.Flatten):
        return slayer.block.cuba.Flatten()
    if isinstance(synapse, layer.VotingLayer):
        return slayer.block.cuba.Average(float_layer.outputs)
    # Weights of 1 stay: a factor a hair below 1 is for the threshold, which sums meet exactly.
    name = "weight_factor" if hasattr(synapse, "weight") else "threshold_factor"
    options: Any = {"delay_shift": delay_shift, name: factor, "slayer": slayer}
    block = block_of(synapse, node, scale=float_layer.scale, **options)
    if calibrated and hasattr(synapse, "weight"):
        block.synapse.weight.data.clamp_(min=lowest_weight(float_layer, factor))
    block.weight_factor = factor * (float_layer.weight_factor or 1.0)
    return block


def _without_cut_off(float_layer: FloatLayer, shape: tuple[int, ...]) -> FloatLayer:
    """A pooling whose last windows are cut off as a convolution, where the original's Pool errs.

    It fills a side of size s with ``s % k`` zeros, where ``-s % k`` are wanted.
    """
    pool = float_layer.synapse
    if not isinstance(pool, SumPool2d) or not pool.ceil_mode:
        return float_layer
    if all(-s % k == s % k for s, k in zip(shape[1:], pool.kernel_size, strict=True)):
        return float_layer
    return replace(float_layer, synapse=pad_before_pool(nn.ZeroPad2d(0), pool, shape))


def _told(
    block: Any, shape: tuple[int, ...], float_layer: FloatLayer | None, factor: float = 1.0
) -> tuple[int, ...]:
    """Tell a block the shape of its input, the original's by way of this library's; its output."""
    if hasattr(block, "infer_shape"):
        return block.infer_shape(shape)
    if float_layer is None:
        block.input_shape = torch.Size(shape)
        return shape
    own = _block(float_layer, False, native_slayer, factor, False)
    reached: tuple[int, ...] = own.infer_shape(shape)
    if hasattr(block, "neuron") and block.neuron is not None:
        block.neuron.shape = torch.Size(reached)
    elif hasattr(block, "shape") and not float_layer.outputs:  # an Average finds its own
        block.shape = own.shape
    return reached


def _warn_of_rounding(float_layer: FloatLayer, factor: float, calibrated: bool) -> None:
    """Say where 8 bits lose more of the weights than they should."""
    weight = getattr(float_layer.synapse, "weight", None)
    if weight is None or not weight.numel() or float_layer.weight_factor is not None:
        return  # a container computes with 8 bits itself
    if calibrated and not float_layer.quantised:
        return  # calibration chose what to clip
    scale = scale_of(float_layer)
    low, high = WEIGHT_MIN / scale, WEIGHT_MAX / scale
    least, most = (x.item() for x in torch.aminmax(weight.detach()))
    if least < low or most > high:
        clipped = int((weight < low).sum()) + int((weight > high).sum())
        # Calibration leaves quantised neurons as they are.
        let = "" if float_layer.quantised else ", or let to_slayer(..., calibrate='weights') do it"
        warnings.warn(
            f"{float_layer.place}: {clipped} of {weight.numel()} weights lie outside the 8-bit "
            f"range [{low}, {high}] and are clipped to it; scale weights and threshold down "
            f"together{let}",
            stacklevel=4,
        )
    levels = round(most * scale / 2) - round(least * scale / 2) + 1  # even integers
    vanish = levels == 1 and not round(most * scale / 2)
    few = vanish or levels < FEW_LEVELS <= weight.numel()
    if few and not float_layer.quantised and not held_by_8bit(weight, scale):
        warnings.warn(
            f"{float_layer.place}: its weights, {least:.3g} ... {most:.3g}, are rounded to "
            f"{levels} of the 256 levels of 8 bits; to_slayer(..., calibrate='weights') gives the "
            "layer all of them",
            stacklevel=4,
        )
