"""From SpikingJelly's neurons to slayer's: parameters, decays per channel, norms and biases."""

import math
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import neuron
from torch import Tensor

from .. import slayer as native_slayer
from ..checks import require
from ..errors import BridgeError, ConversionError
from ..layout import NXT_to_TNX, TNX_to_NXT
from ..ops import DECAY_SCALE
from ..quantize import BIAS_MAX, BIAS_MIN, all_finite, quantize_bias
from ..slayer.neuron.norm import ChannelBias
from .cuba_lif import THRESHOLD_MAX, CubaLIFNode
from .norm import BatchNorm2d

__all__ = [
    "SPIKING",
    "check_bias",
    "check_takes_bias",
    "copy_learned",
    "lava_neuron_forward",
    "set_bias",
    "to_lava_neuron",
    "to_lava_neuron_param_dict",
]


# No subclass: SpikingJelly's LIAFNode, for example, gives no spikes.
_EXACT = neuron.IFNode, neuron.LIFNode

# The bases of SpikingJelly's neurons; the second is not in 0.0.0.0.14.
SPIKING: tuple[type, ...] = tuple(
    base for name in ("BaseNode", "SimpleBaseNode") if (base := getattr(neuron, name, None))
)


def to_lava_neuron_param_dict(
    sj_ms_neuron: nn.Module, threshold_factor: float = 1
) -> dict[str, Any]:
    """Constructor arguments of slayer's CUBA neuron for a SpikingJelly neuron.

    The threshold is multiplied by ``threshold_factor``: a drive that is larger by a factor needs a
    threshold that is larger by it (and so does a bias). An IFNode has decays 1 (current) and 0
    (voltage), a LIFNode 1 and ``1 / tau``; a :class:`CubaLIFNode` has its own.

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
        if isinstance(sj_ms_neuron.norm, BatchNorm2d) and threshold_factor != 1:
            raise ConversionError(
                "has a norm, but the pooling before it sums where the net averages, which the norm "
                "would see; use a SumPool2d, or a neuron without a norm"
            )
    elif isinstance(sj_ms_neuron, neuron.IFNode | neuron.LIFNode) and type(sj_ms_neuron) in _EXACT:
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
            f"no rule makes a slayer neuron of a {type(sj_ms_neuron).__name__} of "
            f"{type(sj_ms_neuron).__module__}; use IFNode, LIFNode(decay_input=False) or "
            "lava_bridge.exchange.CubaLIFNode, which loads the state_dict of SpikingJelly's"
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
    copy_learned(sj_ms_neuron, lava_neuron, slayer)
    return lava_neuron


def copy_learned(
    sj_ms_neuron: nn.Module,
    lava_neuron: Any,
    slayer: Any,
    dimensions: int | None = None,
    factor: float = 1,
) -> None:
    """Decays per channel and the norm: what constructor arguments can't carry.

    ``dimensions`` is 1 for a layer ``[C]``, 3 for a layer ``[C, H, W]``, None if not known; a
    norm's bias is multiplied by ``factor``.
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
    if isinstance(sj_ms_neuron.norm, ChannelBias):
        set_bias(lava_neuron, sj_ms_neuron.norm.value * factor, slayer)
    elif sj_ms_neuron.norm is not None:
        lava_neuron.norm = sj_ms_neuron.norm.to_lava(slayer)
        lava_neuron.norm.pre_hook_fx = lava_neuron.quantize_8bit


def set_bias(lava_neuron: Any, bias: Tensor, slayer: Any = native_slayer) -> None:
    """Give a slayer neuron a copy of a bias ``[C]``, in the units of weights, as its norm.

    That is a ``ChannelBias``; for the original slayer, which has none, a ``MeanOnlyBatchNorm`` of
    minus the bias that does not learn: the same spikes, and the same integers in a file.

    Raises:
        ConversionError: If a bias is no number, or beyond the chip's 13 bits.
    """
    bias = bias.detach().to("cpu", torch.float32).clone()
    scale = lava_neuron.scale
    check_bias(bias, scale)
    norms = slayer.neuron.norm
    if hasattr(norms, "ChannelBias"):
        made = norms.ChannelBias(bias.numel(), scale)
        made.value.data = bias
    else:
        made = norms.MeanOnlyBatchNorm(bias.numel(), pre_hook_fx=partial(_quantize_mean, scale))
        made.running_mean = -bias
        made.update = False
    lava_neuron.norm = made


def _quantize_mean(scale: int, mean: Tensor, descale: bool = False) -> Tensor:
    """The mean whose negative is a quantised bias."""
    return -quantize_bias(-mean, scale, descale)


def check_bias(bias: Tensor, scale: int) -> None:
    """Refuse biases that 13 bits can't hold, or that are no numbers."""
    if not all_finite(bias):
        raise ConversionError("has biases that are NaN or infinite; check the training")
    steps = torch.round(bias.detach() * scale)
    outside = steps[(steps < BIAS_MIN) | (steps > BIAS_MAX)]
    if outside.numel():
        raise ConversionError(
            f"has a bias of {outside[0].item() / scale:g}, which is {int(outside[0])} on the chip, "
            f"outside its 13 bits ({BIAS_MIN} ... {BIAS_MAX}); scale weights, bias and threshold "
            "down together, as to_slayer(..., calibrate='weights') does"
        )


def check_takes_bias(sj_neuron: Any, params: dict[str, Any]) -> None:
    """Refuse a neuron in which a layer's bias is not what the chip's bias is."""
    if getattr(sj_neuron, "norm", None) is not None:
        raise ConversionError(
            f"has a bias, and its neuron a {type(sj_neuron.norm).__name__}, but a neuron has one "
            "of them; use bias=False, or a neuron without a norm"
        )
    decay = params["current_decay"]
    low = min(decay) if isinstance(decay, tuple) else decay
    if low != 1:
        raise ConversionError(
            f"has a bias, which its neuron's current would gather over time (current_decay="
            f"{low:g}), while the chip's bias goes past the current; use bias=False, or a "
            "current_decay of 1 (as IFNode and LIFNode have)"
        )


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
        lava_neuron: A slayer CUBA neuron, e.g. a block's ``neuron``. Its current goes on from its
            last run on a batch of this shape.
        x_seq: ``[T, N, *]``, or ``[T, N]`` for a layer of one neuron.
        v: The voltage before the first step, ``[N, *]``.

    Returns:
        The spikes ``[T, N, *]`` and the voltage after the last step ``[N, *]``.

    Raises:
        BridgeError: For anything but such a neuron, a floating sequence and a voltage of its shape.
    """
    require("lava_neuron_forward", x_seq, "[T, N, *]")
    if not hasattr(lava_neuron, "current_state") or not hasattr(lava_neuron, "dynamics"):
        raise BridgeError(
            "lava_neuron_forward: expected slayer's CUBA neuron, found a "
            f"{type(lava_neuron).__name__}; give a block's neuron, or what to_lava_neuron makes"
        )
    neurons = x_seq.unsqueeze(-1) if x_seq.dim() == 2 else x_seq
    start = torch.as_tensor(v, dtype=torch.float32, device=x_seq.device)
    if start.numel() != 1 and start.shape != x_seq.shape[1:]:
        raise BridgeError(
            f"lava_neuron_forward: expected a voltage of shape {tuple(x_seq.shape[1:])}, as a step "
            f"of the sequence has, found {tuple(start.shape)}; give one number, or one a neuron"
        )
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
