"""From slayer blocks back to a SpikingJelly net: their quantised twin."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import layer
from torch import Tensor

from ..checks import overridden
from ..drawing import no_drawing
from ..encoder import Encoder, GradedInput, InputEncoder, in_order
from ..errors import BridgeError, ConversionError
from ..exchange import BatchNorm2d, BlockContainer, CubaLIFNode, SumPool2d
from ..exchange.encoder import EncoderNode
from ..exchange.smooth import widened
from ..slayer.block import cuba
from ..slayer.neuron.norm import ChannelBias, MeanOnlyBatchNorm, WgtScaleBatchNorm

__all__ = ["TWINS", "to_spikingjelly", "twin"]

# A block's type to the function that makes its twin; None: the block computes nothing.
TWINS: dict[type, Callable[[Any], nn.Module | None]] = {}


def twin(*types: type) -> Callable[[Callable[[Any], nn.Module | None]], Any]:
    """Register a function ``block -> module or None`` as the way back for blocks of ``types``."""

    def register(function: Callable[[Any], nn.Module | None]) -> Any:
        TWINS.update(dict.fromkeys(types, function))
        return function

    return register


def to_spikingjelly(blocks: Iterable[nn.Module] | nn.Module) -> nn.Sequential:
    """Convert slayer blocks to a multi-step SpikingJelly net that gives the same spikes.

    Each block becomes a :class:`~lava_bridge.exchange.BlockContainer` with copies of its weights:
    trained on, it is quantisation-aware training, and :func:`to_slayer` leads back. Its neurons
    have the surrogate function and ``detach_reset`` of the net's that blocks were made of, else
    SpikingJelly's ``Sigmoid``, as wide as their numbers are larger than the net's.

    Args:
        blocks: Blocks of ``lava_bridge.slayer.block.cuba``: Input (without a neuron), Flatten,
            Dense, Conv, ConvT, Pool, Unpool (without overlap), Affine (whose neuron forgets at
            once) and Average, without delays. A MeanOnlyBatchNorm becomes the bias that it is in
            evaluation; an encoder in front of them stays as it is.

    Returns:
        Of containers in step mode ``"m"``, for inputs ``[T, N, *]``.

    Raises:
        ConversionError: If a block has no twin; it names the block's place.
    """
    containers = []
    for i, block in enumerate(in_order(blocks)):
        try:
            make = TWINS.get(type(block))
            if make is None:
                raise ConversionError(
                    "no SpikingJelly module equals this block; register one with "
                    "lava_bridge.convert.twin"
                )
            made = make(block)
        except BridgeError as error:
            raise ConversionError(f"{i} ({type(block).__name__}): {error}") from error
        if made is not None:
            containers.append(made)
    return nn.Sequential(*containers)


@twin(Encoder, GradedInput)
def _encoder(encoder: InputEncoder) -> EncoderNode:
    return EncoderNode(encoder)


@twin(cuba.Input)
def _input(block: cuba.Input) -> None:
    if block.neuron is not None:
        raise ConversionError("has a neuron, but SpikingJelly's input is the spikes themselves")
    if block.delay_shift:
        _refuse_delay()


@twin(cuba.Flatten)
def _flatten(block: cuba.Flatten) -> BlockContainer:
    return BlockContainer(nn.Flatten(), None, step_mode="m")


@twin(cuba.Dense)
def _dense(block: cuba.Dense) -> BlockContainer:
    weight = _weight(block)
    outputs, inputs, height, width, _ = weight.shape
    if height * width > 1:
        conv = nn.Conv2d(inputs, outputs, (height, width), bias=False)
        return _container(block, conv, weight)
    with no_drawing():
        linear = nn.Linear(inputs, outputs, bias=False)
    return _container(block, linear, weight)


@twin(cuba.Affine)
def _affine(block: cuba.Affine) -> BlockContainer:
    neuron = block.neuron
    decays = torch.cat([neuron.current_decay.detach(), neuron.voltage_decay.detach()])
    if not block.dynamics or bool((torch.round(decays) != neuron.p_scale).any()):
        raise ConversionError(
            "no SpikingJelly module equals this block: its twin gives the sums of each step; use "
            "dynamics=True, and decays of 1"
        )
    weight = _weight(block)
    if max(weight.shape[2:]) > 1:
        raise ConversionError("sees height and width, but a Linear does not; put a Flatten first")
    _require_quantiser(block)
    norm = _norm(neuron.norm, neuron.scale)
    if norm is not None and not isinstance(norm, ChannelBias):
        raise ConversionError("has a norm that divides, which a Linear has not")
    with no_drawing():
        linear: Any = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = _parameter(weight, linear)
    linear.bias = None if norm is None else norm.value
    return _made(block, BlockContainer(linear, None, "m", neuron.scale))


@twin(cuba.Average)
def _average(block: cuba.Average) -> layer.VotingLayer:
    if block.in_neurons is None:
        raise ConversionError(
            "does not know how many neurons it averages; run the blocks once, or call "
            "infer_shape((C,))"
        )
    return layer.VotingLayer(block.in_neurons // block.num_outputs, step_mode="m")


@twin(cuba.Conv)
def _conv(block: cuba.Conv) -> BlockContainer:
    return _convolution(block, nn.Conv2d)


@twin(cuba.ConvT)
def _conv_transpose(block: cuba.ConvT) -> BlockContainer:
    return _convolution(block, nn.ConvTranspose2d)


def _convolution(block: Any, kind: Any) -> BlockContainer:
    synapse = block.synapse
    with no_drawing():
        conv = kind(
            synapse.in_channels,
            synapse.out_channels,
            synapse.kernel_size[:2],
            synapse.stride[:2],
            synapse.padding[:2],
            dilation=synapse.dilation[:2],
            groups=synapse.groups,
            bias=False,
        )
    return _container(block, conv, _weight(block))


@twin(cuba.Pool)
def _pool(block: cuba.Pool) -> BlockContainer:
    synapse = block.synapse
    _require_ones(block)
    pool = SumPool2d(
        synapse.kernel_size[:2], synapse.stride[:2], synapse.padding[:2], synapse.dilation[:2]
    )
    pool.ceil_mode = pool.tiles
    return _container(block, pool)


@twin(cuba.Unpool)
def _unpool(block: cuba.Unpool) -> BlockContainer:
    synapse = block.synapse
    _require_ones(block)
    kernel, stride = synapse.kernel_size[:2], synapse.stride[:2]
    if kernel != stride or any(synapse.padding) or max(synapse.dilation) > 1:
        raise ConversionError(
            f"unpools by {kernel} with stride {stride}, padding {synapse.padding[:2]} and dilation "
            f"{synapse.dilation[:2]}, but nn.Upsample repeats side by side; use stride=kernel_size "
            "and padding=0"
        )
    return _container(block, nn.Upsample(scale_factor=tuple(map(float, kernel))))


def _container(block: Any, synapse: Any, weight: Tensor | None = None) -> BlockContainer:
    if block.delay_shift or block.delay is not None:
        _refuse_delay()
    _require_quantiser(block)
    if weight is not None:
        synapse.weight = _parameter(weight, synapse)
    # Decays per channel broadcast with [N, C] or [N, C, H, W].
    spatial = 0 if isinstance(synapse, nn.Linear) else 2
    node = _neuron(block.neuron, spatial)
    factor = getattr(block, "weight_factor", 1.0)
    trained_with = getattr(block, "surrogate", (widened(node.surrogate_function, factor), False))
    node.surrogate_function, node.detach_reset = copy.deepcopy(trained_with)
    return _made(block, BlockContainer(synapse, node, step_mode="m"))


def _made(block: Any, container: BlockContainer) -> BlockContainer:
    """The container, which knows the block's factor: the way back gives it to a block again."""
    container.weight_factor = getattr(block, "weight_factor", 1.0)
    return container


def _parameter(weight: Tensor, layer: Any) -> nn.Parameter:
    """A copy of a weight in the shape of the layer's."""
    return nn.Parameter(weight.reshape(layer.weight.shape).clone())


def _require_quantiser(block: Any) -> None:
    if block.synapse.pre_hook_fx is None:
        raise ConversionError(
            "does not quantise its weights (pre_hook_fx=None), but its twin does; set "
            "synapse.pre_hook_fx = neuron.quantize_8bit"
        )


def _require_ones(block: Any) -> None:
    if not bool((_weight(block) == 1).all()):
        raise ConversionError(
            "has a weight other than 1, which its twin has not; use weight_scale=1"
        )


def _weight(block: Any) -> Tensor:
    weight = block.synapse.weight.detach()
    mask = getattr(block, "mask", None)
    return weight if mask is None else weight * mask


def _neuron(neuron: Any, spatial: int) -> CubaLIFNode:
    if overridden(neuron, "forward", "dynamics", "spike"):
        raise ConversionError(
            "has a neuron whose forward, dynamics or spike is not slayer's, which no CubaLIFNode "
            "equals; convert blocks of slayer's own neurons"
        )
    if neuron.graded_spike:
        raise ConversionError("has graded spikes, but SpikingJelly's are 0 or 1")
    if neuron.shape is not None:
        neuron.draw(neuron.shape[0])
    decays = []
    for decay in (neuron.current_decay, neuron.voltage_decay):
        held = decay.detach() / neuron.p_scale
        decays.append(held.item() if held.numel() == 1 else held.reshape(-1, *[1] * spatial))
    current_decay, voltage_decay = decays
    return CubaLIFNode(
        current_decay,
        voltage_decay,
        v_threshold=neuron.threshold,
        scale=neuron.scale,
        requires_grad=neuron.requires_grad,
        norm=_norm(neuron.norm, neuron.scale),
        step_mode="m",
    )


def _norm(norm: Any, scale: int) -> BatchNorm2d | ChannelBias | None:
    """The twin's norm; one that only adds is a bias, of a parameter of its own."""
    if norm is None:
        return None
    if type(norm) in (ChannelBias, MeanOnlyBatchNorm):
        made = ChannelBias(norm.bias.numel(), scale)
        value = norm.value if isinstance(norm, ChannelBias) else norm.bias / scale
        made.value.data = value.detach().clone()
        return made
    if not isinstance(norm, WgtScaleBatchNorm):
        raise ConversionError(
            f"has the norm {type(norm).__name__}, but CubaLIFNode has WgtScaleBatchNorm's and "
            "ChannelBias' only"
        )
    batch_norm = BatchNorm2d(
        norm.running_mean.numel(), norm.eps, norm.momentum, norm.update, norm.weight_exp_bits
    )
    batch_norm.running_mean = norm.running_mean.detach().clone()
    batch_norm.running_var = torch.as_tensor(norm.running_var).detach().clone()
    batch_norm.train(norm.training)
    return batch_norm


def _refuse_delay() -> None:
    raise ConversionError(
        "delays its spikes, but a BlockContainer does not; convert with delay_shift=False, or set "
        "block.delay_shift = False"
    )
