"""From SpikingJelly's layers and neurons, one by one, to slayer's synapses, neurons and blocks.

Every function copies: what it gives shares nothing with what it was given. ``slayer`` is this
library's by default; ``lava.lib.dl.slayer``, where it is installed, gives the original's objects.
"""

import math
import warnings
from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import neuron
from torch import Tensor

from .. import slayer as native_slayer
from ..errors import ConversionError
from ..layout import NXT_to_TNX, TNX_to_NXT
from ..ops import DECAY_SCALE
from ..quantize import WEIGHT_MAX, quantize_8bit
from .cuba_lif import THRESHOLD_MAX, CubaLIFNode
from .pool import SumPool2d

__all__ = [
    "avgpool2d_to_lava_synapse_pool",
    "block_of",
    "check_flatten",
    "check_synapse",
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


# Neurons ----------------------------------------------------------------------------------------


def to_lava_neuron_param_dict(
    sj_ms_neuron: nn.Module, threshold_factor: float = 1
) -> dict[str, Any]:
    """Constructor arguments of slayer's CUBA neuron for a SpikingJelly neuron.

    The threshold is multiplied by ``threshold_factor``: a drive that is larger by a factor needs a
    threshold that is larger by it. An IFNode has decays 1 (current) and 0 (voltage), a LIFNode 1
    and ``1 / tau``; a :class:`CubaLIFNode` has its own.

    Raises:
        ConversionError: If the chip has no such neuron.
    """
    params: dict[str, Any] = {
        "tau_grad": 1,
        "scale_grad": 1,
        "norm": None,
        "dropout": None,
        "shared_param": True,
        "persistent_state": True,
        "requires_grad": False,
        "graded_spike": False,
    }
    if isinstance(sj_ms_neuron, CubaLIFNode):
        own = sj_ms_neuron.lava_cuba_neuron_params
        for name in ("current_decay", "voltage_decay"):
            if isinstance(own[name], Tensor):
                own[name] = (own[name].min().item(), own[name].max().item())
                params["shared_param"] = False
        if not params["shared_param"]:
            for name in ("current_decay", "voltage_decay"):
                own[name] = own[name] if isinstance(own[name], tuple) else (own[name],) * 2
        params |= own | {"requires_grad": sj_ms_neuron.requires_grad}
        if sj_ms_neuron.norm is not None and threshold_factor != 1:
            raise ConversionError(
                "has a norm, but the pooling before it sums where the net averages, which the norm "
                "would see; use a SumPool2d, or a neuron without a norm"
            )
    elif isinstance(sj_ms_neuron, neuron.IFNode | neuron.LIFNode):
        is_lif = isinstance(sj_ms_neuron, neuron.LIFNode)
        params |= {
            "threshold": sj_ms_neuron.v_threshold,
            "current_decay": 1.0,
            "voltage_decay": 1.0 / sj_ms_neuron.tau if is_lif else 0.0,
            "scale": sj_ms_neuron.lava_s_cale,
        }
        if is_lif and sj_ms_neuron.decay_input:
            raise ConversionError(
                f"has decay_input=True: its input is divided by tau={sj_ms_neuron.tau}, which the "
                "chip does not do; train with decay_input=False"
            )
    else:
        raise ConversionError(
            f"no rule makes a slayer neuron of a {type(sj_ms_neuron).__name__}; use IFNode, "
            "LIFNode(decay_input=False) or CubaLIFNode"
        )
    params["threshold"] *= threshold_factor
    _check_reset(sj_ms_neuron.v_reset)
    _check_threshold(params["threshold"], params["scale"])
    for name in ("current_decay", "voltage_decay"):
        _check_decay(name, params[name])
    return params


def _check_reset(v_reset: float | None) -> None:
    if v_reset is None:
        raise ConversionError(
            "has a soft reset (v_reset=None), but the chip sets the voltage to 0 after a spike; "
            "train with v_reset=0."
        )
    if v_reset != 0:
        raise ConversionError(
            f"has v_reset={v_reset}, but the chip resets to 0; train with v_reset=0."
        )


def _check_threshold(threshold: float, scale: int) -> None:
    if not math.isfinite(threshold) or int(threshold * scale) < 1:
        raise ConversionError(
            f"has v_threshold={threshold}, below the grid of 1/{scale} on which thresholds lie; "
            f"scale weights and threshold up to at least {1 / scale}"
        )
    if int(threshold * scale) > THRESHOLD_MAX:
        raise ConversionError(
            f"has v_threshold={threshold}, which is {int(threshold * scale)} on the chip, above "
            f"its 17 bits ({THRESHOLD_MAX}); scale weights and threshold down, to at most "
            f"{THRESHOLD_MAX / scale}"
        )


def _check_decay(name: str, decay: float | tuple[float, float]) -> None:
    for value in decay if isinstance(decay, tuple) else (decay,):
        if not 0 <= value <= 1:
            raise ConversionError(
                f"has a {name} of {value}, outside 0 ... 1; for a LIFNode it is 1/tau, so tau must "
                "be 1 or more"
            )


def to_lava_neuron(sj_ms_neuron: nn.Module, slayer: Any = native_slayer) -> Any:
    """slayer's CUBA neuron for an IFNode, LIFNode or :class:`CubaLIFNode`."""
    lava_neuron = slayer.neuron.cuba.Neuron(**to_lava_neuron_param_dict(sj_ms_neuron))
    _copy_learned(sj_ms_neuron, lava_neuron, slayer)
    return lava_neuron


def _copy_learned(
    sj_ms_neuron: nn.Module, lava_neuron: Any, slayer: Any, dimensions: int | None = None
) -> None:
    """Decays per channel and the norm: what constructor arguments can't carry.

    ``dimensions`` is 1 for a layer ``[C]``, 3 for a layer ``[C, H, W]``, None if not known.
    """
    if not isinstance(sj_ms_neuron, CubaLIFNode):
        return
    if not lava_neuron.shared_param:
        channels = max(sj_ms_neuron.current_decay.numel(), sj_ms_neuron.voltage_decay.numel())
        decays = {
            name: _per_channel(name, getattr(sj_ms_neuron, name), channels, dimensions)
            for name in ("current_decay", "voltage_decay")
        }
        if hasattr(lava_neuron, "current_decay_min"):
            # lava-dl draws them at the first forward, whatever they were: from a range of one point
            for name, decay in decays.items():
                getattr(lava_neuron, name).data = decay
                setattr(lava_neuron, f"{name}_min", decay / DECAY_SCALE)
                setattr(lava_neuron, f"{name}_max", decay / DECAY_SCALE)
        else:
            lava_neuron.load_state_dict(decays)
    if sj_ms_neuron.norm is not None:
        lava_neuron.norm = sj_ms_neuron.norm.to_lava(slayer)
        lava_neuron.norm.pre_hook_fx = lava_neuron.quantize_8bit


def _per_channel(name: str, decay: Tensor, channels: int, dimensions: int | None) -> Tensor:
    """A decay as slayer holds it, ``[C]``, from one that broadcasts as ``[C]`` or ``[C, 1, 1]``."""
    by_channel = decay.dim() == (dimensions or decay.dim()) and decay.shape[1:].numel() == 1
    if decay.numel() > 1 and not by_channel:
        raise ConversionError(
            f"has a {name} of shape {tuple(decay.shape)}, but slayer's decays differ by channel "
            "only; use one of shape [C, 1, 1] (after a convolution or pooling) or [C] (after a "
            "linear layer)"
        )
    return decay.detach().flatten().expand(channels).clone()


def lava_neuron_forward(
    lava_neuron: Any, x_seq: Tensor, v: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Run slayer's neuron on a SpikingJelly sequence, from a given voltage.

    Args:
        lava_neuron: A slayer CUBA neuron. Its current goes on from its last run on a batch of this
            shape.
        x_seq: ``[T, N, *]``, or ``[T, N]`` for a layer of one neuron.
        v: The voltage before the first step, ``[N, *]``.

    Returns:
        The spikes ``[T, N, *]`` and the voltage after the last step ``[N, *]``.
    """
    neurons = x_seq.unsqueeze(-1) if x_seq.dim() == 2 else x_seq
    start = torch.as_tensor(v, dtype=torch.float32, device=x_seq.device)
    lava_neuron.voltage_state = start.reshape(
        neurons.shape[1:] if start.numel() > 1 else [1] * (neurons.dim() - 1)
    ).expand(neurons.shape[1:])
    if lava_neuron.current_state.shape != neurons.shape[1:]:
        # lava takes a current of another batch for a sign to forget the voltage as well
        lava_neuron.current_state = torch.zeros_like(lava_neuron.voltage_state)
    _, voltage = lava_neuron.dynamics(TNX_to_NXT(neurons))
    spike = lava_neuron.spike(voltage)
    after = voltage[..., -1] * (spike[..., -1] == 0)
    return NXT_to_TNX(spike).reshape(x_seq.shape), after.reshape(x_seq.shape[1:])


# Synapses ---------------------------------------------------------------------------------------


def check_synapse(layer: nn.Module) -> None:
    """Refuse a layer that no slayer synapse equals."""
    if hasattr(layer, "weight") and "weight" not in layer._parameters:
        raise ConversionError(
            "computes its weight in a hook (weight norm, pruning), so it may be out of date; make "
            "it permanent with remove_weight_norm or prune.remove"
        )
    padding_mode = getattr(layer, "padding_mode", "zeros")
    if padding_mode != "zeros":
        raise ConversionError(
            f"has padding_mode={padding_mode!r}, but slayer pads with zeros; "
            "use padding_mode='zeros'"
        )
    weight = getattr(layer, "weight", None)
    if weight is not None and not bool(torch.isfinite(weight).all()):
        raise ConversionError(
            f"has {int((~torch.isfinite(weight)).sum())} weights that are NaN or infinite; "
            "check the training or the checkpoint"
        )


def check_pool_scale(scale: int) -> None:
    """Refuse a neuron whose scale can't hold a pooling's weight of 1."""
    if quantize_8bit(torch.ones(()), scale) != 1:
        raise ConversionError(
            f"has a scale of {scale}, at which 8 bits can't hold a pooling's weight of 1; use an "
            f"even scale of {WEIGHT_MAX} at most"
        )


def _check_norm(synapse: Any, sj_neuron: Any) -> None:
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


def _check_type(layer: nn.Module, expected: type[nn.Module]) -> None:
    if not isinstance(layer, expected):
        raise ConversionError(f"expected a {expected.__name__}, found a {type(layer).__name__}")


def conv_padding(conv: nn.Conv2d) -> tuple[int, int]:
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
    _check_type(fc, nn.Linear)
    check_synapse(fc)
    dense = slayer.synapse.Dense(fc.in_features, fc.out_features)
    _copy_weight(fc, dense)
    return dense


def conv2d_to_lava_synapse_conv(conv2d_nn: nn.Conv2d, slayer: Any = native_slayer) -> nn.Module:
    """slayer's Conv synapse for a convolution without bias."""
    _check_type(conv2d_nn, nn.Conv2d)
    check_synapse(conv2d_nn)
    conv = slayer.synapse.Conv(
        conv2d_nn.in_channels,
        conv2d_nn.out_channels,
        conv2d_nn.kernel_size,
        conv2d_nn.stride,
        conv_padding(conv2d_nn),
        conv2d_nn.dilation,
        conv2d_nn.groups,
    )
    _copy_weight(conv2d_nn, conv)
    return conv


def avgpool2d_to_lava_synapse_pool(pool2d_nn: nn.AvgPool2d, slayer: Any = native_slayer) -> Any:
    """slayer's Pool synapse for an average pooling: it *sums*, so it gives ``k * k`` times more.

    Warns
    -----
    UserWarning
        That it sums.
    """
    _check_type(pool2d_nn, nn.AvgPool2d)
    warnings.warn(
        "slayer's Pool sums where AvgPool2d averages: divide its output by the kernel's size",
        stacklevel=2,
    )
    return slayer.synapse.Pool(pool2d_nn.kernel_size, pool2d_nn.stride, pool2d_nn.padding)


def _copy_weight(layer: Any, synapse: Any) -> None:
    """Copy a layer's weight into a synapse's, which has one to three dimensions more, each 1."""
    weight = layer.weight.detach().to("cpu", synapse.weight.dtype)
    synapse.weight.data = weight.reshape(synapse.weight.shape).clone()


# Blocks -----------------------------------------------------------------------------------------


def block_of(
    synapse: Any,
    sj_neuron: nn.Module,
    quantize_to_8bit: bool = True,
    delay_shift: bool = False,
    threshold_factor: float = 1,
    slayer: Any = native_slayer,
    weight_factor: float = 1,
) -> Any:
    """The slayer block of a synapse and a neuron of SpikingJelly.

    Args:
        synapse: Its layer, without bias.
        sj_neuron: Its neuron.
        quantize_to_8bit: Whether the block quantises its weights.
        delay_shift: Whether it delays its spikes by one step.
        threshold_factor: A factor on the neuron's threshold.
    """
    check_synapse(synapse)
    params = to_lava_neuron_param_dict(sj_neuron, threshold_factor)
    params["persistent_state"] = False
    _check_norm(synapse, sj_neuron)
    hook = {} if quantize_to_8bit else {"pre_hook_fx": None}
    options = {"delay_shift": delay_shift, **hook}
    blocks = slayer.block.cuba
    if isinstance(synapse, nn.Linear):
        block = blocks.Dense(params, synapse.in_features, synapse.out_features, **options)
        _copy_weight(synapse, block.synapse)
    elif isinstance(synapse, nn.Conv2d):
        block = blocks.Conv(
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
        _copy_weight(synapse, block.synapse)
    else:
        block = blocks.Pool(
            params,
            synapse.kernel_size,
            synapse.stride,
            synapse.padding,
            synapse.dilation,
            **options,
        )
    _copy_learned(sj_neuron, block.neuron, slayer, 1 if isinstance(synapse, nn.Linear) else 3)
    return block


def to_lava_block_dense(
    fc: nn.Linear,
    sj_ms_neuron: nn.Module,
    quantize_to_8bit: bool = True,
    slayer: Any = native_slayer,
) -> nn.Module:
    """slayer's Dense block for a linear layer and its neuron."""
    _check_type(fc, nn.Linear)
    return block_of(fc, sj_ms_neuron, quantize_to_8bit, slayer=slayer)


def to_lava_block_conv(
    conv2d_nn: nn.Conv2d,
    sj_ms_neuron: nn.Module,
    quantize_to_8bit: bool = True,
    slayer: Any = native_slayer,
) -> nn.Module:
    """slayer's Conv block for a convolution and its neuron."""
    _check_type(conv2d_nn, nn.Conv2d)
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
    _check_type(pool2d_nn, nn.AvgPool2d)
    pool, divisor = sum_pool_of(pool2d_nn)
    check_pool_scale(to_lava_neuron_param_dict(sj_ms_neuron)["scale"])
    return block_of(pool, sj_ms_neuron, quantize_to_8bit, threshold_factor=divisor, slayer=slayer)


def to_lava_block_flatten(flatten_nn: nn.Flatten, slayer: Any = native_slayer) -> nn.Module:
    """slayer's Flatten block."""
    _check_type(flatten_nn, nn.Flatten)
    check_flatten(flatten_nn)
    return slayer.block.cuba.Flatten()


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


def to_lava_blocks(net: list | tuple | nn.Sequential) -> list[nn.Module]:
    """slayer's blocks for a net; see :func:`lava_bridge.to_slayer`, which can do more.

    Pooling windows are taken to fit their input, since its shape is not known here.
    """
    # The one import from a later room: SpikingJelly has this name here.
    from ..convert import to_slayer

    return list(to_slayer(net))
