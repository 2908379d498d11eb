"""The neurons of an integer run, read from a layer of a ``.net`` file."""

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..net_reader import LayerReader
from ..quantize import DECAY_SCALE
from .layer import UNIT
from .neuron import ACTIVATION_BITS, Lif, Neuron, Resonator, Sigma, SigmaDelta

__all__ = ["GRADED_BITS", "Options", "Reading", "lif", "message_bits", "neuron_of", "neuron_type"]
__all__ += ["leave_out", "sigma_delta_left_out", "values"]

# A layer without a neuron integrates and never fires, as in Lava's netx.
SILENT = 1 << 17
# Lava's default width of a sigma-delta neuron's messages.
GRADED_BITS = 16


class Options(NamedTuple):
    """The arguments of :class:`~lava_bridge.netx.Network` that the layers depend on."""

    num_layers: int | None = None
    skip_layers: int = 0
    input_message_bits: int = 0
    input_shape: tuple[int, ...] | None = None
    reset_interval: int | None = None
    reset_offset: int = 0
    spike_exp: int = 6
    encoded: bool = False  # the shape is what the file's encoder gives


class Reading:
    """Where reading stands: what the next layer gets from the one before it.

    Attributes:
        shape: Of what comes in, ``(C, H, W)`` or ``(C,)``; None: not known.
        before: What that shape is of, and what to do where it does not fit.
        message_bits: Of the spikes that come in.
        reset_offset: The step, counted from 1, of the next layer's first reset.
        shifted_input: Whether the block of the input delays it by a step.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        shape = options.input_shape
        # Lava's order is (W, H, C).
        self.shape = None if shape is None else tuple(shape)[::-1]
        self.before = "input_shape", "give the net's own (W, H, C), or none"
        if options.encoded:
            self.before = "its encoder", "export the net anew"
        self.message_bits = options.input_message_bits
        self.shifted_input = False
        # Time starts from 1 in hardware.
        self.reset_offset = options.reset_offset + 1

    def reset(self) -> dict[str, int]:
        interval = self.options.reset_interval
        if interval is None:
            return {}
        return {"reset_interval": interval, "reset_offset": self.reset_offset % interval}


def neuron_of(group: LayerReader, shape: tuple[int, ...], reading: Reading) -> Neuron:
    if not group.has("neuron"):
        if group.has("weight/imag"):
            raise group.error("neuron", "is missing, and its weights are complex")
        leave_out(group, "without neurons it sums its input up over the steps")
        silent = torch.tensor(float(SILENT))
        no_decay, all_decay = torch.tensor(0.0), torch.tensor(float(DECAY_SCALE))
        bias = _bias(group, shape)
        return Lif(no_decay, all_decay, silent, bias, **reading.reset())
    kind, complex_weights = neuron_type(group), group.has("weight/imag")
    if complex_weights != kind.startswith("RF"):
        found = "complex" if complex_weights else "real"
        raise group.error("neuron/type", f"is {kind!r}, but the layer's weights are {found}")
    if kind == "CUBA":
        return lif(group, shape, reading, _bias(group, shape))
    if reading.options.reset_interval is not None:
        leave_out(group, f"{kind} neurons are not reset")
    if kind == "SDNN":
        return _sigma_delta(group, shape, reading.options.spike_exp)
    return _resonator(group, shape, kind)


def lif(group: LayerReader, shape: tuple[int, ...], reading: Reading, bias: Tensor | None) -> Lif:
    if group.has("neuron/weight_exp") and group.integer("neuron/weight_exp"):
        leave_out(group, "the shift of its norm (neuron/weight_exp) is left out")
    _leave_out_grades(group)
    return Lif(
        _decay(group, "iDecay", shape),
        _decay(group, "vDecay", shape),
        values(group, "vThMant", shape),
        torch.zeros(1) if bias is None else bias,
        **reading.reset(),
    )


def _leave_out_grades(group: LayerReader) -> None:
    if group.has("neuron/gradedSpike") and group.integer("neuron/gradedSpike"):
        leave_out(group, "its spikes are not graded")


def leave_out(group: LayerReader, what: str) -> None:
    """Say what of a layer Lava's netx does not run, and so this does not either."""
    warnings.warn(f"{group.name}: {what}, as in Lava; its blocks do otherwise", stacklevel=3)


def sigma_delta_left_out(group: LayerReader) -> None:
    """Say what of sigma-delta neurons is left out, in an input layer too."""
    if group.flag("cum_error", False):
        leave_out(group, "errors are not cumulated")
    scale = group.attribute("scale", UNIT, 1)
    if scale != UNIT:
        leave_out(group, f"its scale is taken for {UNIT}, not {scale}")
    if group.has("neuron/weight_exp") and group.integer("neuron/weight_exp"):
        leave_out(group, "the shift of its norm (neuron/weight_exp) is left out")


def _sigma_delta(group: LayerReader, shape: tuple[int, ...], spike_exp: int) -> Neuron:
    sigma_delta_left_out(group)
    bits = message_bits(group, GRADED_BITS)
    if group.has("neuron/sigma_output"):
        if group.has("bias") or group.has("neuron/bias"):
            raise group.error("bias", "is added to an output of sigma neurons, which have none")
        return Sigma(spike_exp, bits)
    activation = group.text("neuron/activation") if group.has("neuron/activation") else "relu"
    if activation != "relu":
        leave_out(group, f"its activation {activation!r} is run as 'relu'")
    bias = _bias(group, shape).double() * (1 << (spike_exp + ACTIVATION_BITS))
    if group.has("neuron/bias"):
        # This library's own: of each neuron, over 4096, where a state is over 2^(12 + spike_exp).
        own = torch.from_numpy(group.integers("neuron/bias").astype(np.float64))
        if own.numel() != math.prod(shape):
            raise group.error("neuron/bias", f"has {own.numel()} values for {shape}")
        bias = bias + own.reshape(shape) * (1 << spike_exp)
    return SigmaDelta(values(group, "vThMant", shape), bias, spike_exp, bits)


def _resonator(group: LayerReader, shape: tuple[int, ...], kind: str) -> Neuron:
    for name in ("bias", "bias_real", "bias_imag", "neuron/weight_exp_real"):
        if group.has(name):
            leave_out(group, f"its norm ({name}) is left out")
    _leave_out_grades(group)
    # Lava takes a period from these integers and integers from that again, which comes out one
    # lower for some, on some processors. Here they are what the file says; one that was written for
    # Lava has half a step more, which Lava then cuts off.
    return Resonator(
        _spatial(group, "neuron/sinDecay", group.rounded_down("neuron/sinDecay"), shape),
        _spatial(group, "neuron/cosDecay", group.rounded_down("neuron/cosDecay"), shape),
        values(group, "vThMant", shape),
        "PHASE" not in kind,
    )


def neuron_type(group: LayerReader) -> str:
    kind = group.text("neuron/type")
    known = {"LOIHI": "CUBA", "CUBA": "CUBA", "SDNN": "SDNN"}
    known |= {"RF_PHASE": "RF_PHASE", "RF_IZHIKEVICH": "RF_IZHIKEVICH"}
    if kind not in known:
        raise group.error(
            "neuron/type", f"is {kind!r}; an integer run has none but {', '.join(known)}"
        )
    return known[kind]


def message_bits(group: LayerReader, default: int) -> int:
    return group.integer("neuron/messageBits", 0) if group.has("neuron/messageBits") else default


def _bias(group: LayerReader, shape: tuple[int, ...]) -> Tensor:
    if not group.has("bias"):
        return torch.zeros(1)
    return _spatial(group, "bias", np.trunc(group.floats("bias").astype(np.float64)), shape)


def _decay(group: LayerReader, key: str, shape: tuple[int, ...]) -> Tensor:
    decay = values(group, key, shape)
    if decay.min() < 0 or decay.max() > DECAY_SCALE:
        raise group.error(f"neuron/{key}", f"is outside 0 ... {DECAY_SCALE}")
    return decay


def values(group: LayerReader, key: str, shape: tuple[int, ...]) -> Tensor:
    return _spatial(group, key, group.integers(f"neuron/{key}"), shape)


def _spatial(group: LayerReader, name: str, values: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """A number for all neurons, for each channel, or for each neuron, to broadcast with them.

    Those of each neuron of an image are ``[W, H, C]``, as Lava has them.
    """
    found = torch.from_numpy(np.atleast_1d(values).astype(np.float64))
    if found.numel() == 1:
        return found.reshape(1)
    if found.numel() == shape[0]:
        return found.reshape(-1, *[1] * (len(shape) - 1))
    if found.shape == shape[::-1]:
        return found.permute(2, 1, 0)
    if found.numel() == math.prod(shape):
        raise group.error(
            name, f"has the shape {tuple(found.shape)}, but Lava takes {shape[::-1]}: (W, H, C)"
        )
    raise group.error(name, f"has {found.numel()} values for neurons of shape {shape}")
