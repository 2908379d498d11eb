"""The neuron of a layer in a ``.net`` file: a table of families, one for each neuron type."""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import slayer
from ..net_reader import LayerReader
from ..net_writer import ACTIVATIONS, NEVER_FIRES
from ..ops import DECAY_SCALE
from ..quantize import BIAS_MAX, BIAS_MIN, WEIGHT_MAX, WEIGHT_MIN, inside_circle

__all__ = ["block_of", "family_of", "neuron_params", "no_neuron", "restore_neuron", "scale_of"]

# Of a norm's shift of the weights: more than any register is wide.
MAX_EXPONENT = 32

# What a file calls a decay, and what the neuron calls it.
_LEAK = {"iDecay": "current_decay", "vDecay": "voltage_decay"}
_TURN = {"sinDecay": "sin_decay", "cosDecay": "cos_decay"}
_ADAPTATION = {"thDecay": "threshold_decay", "refDecay": "refractory_decay"}


class Family(NamedTuple):
    """A neuron family: its blocks, its neuron, its decays in a file, its default of delay_shift."""

    block: ModuleType
    neuron: ModuleType
    decays: dict[str, str]
    delay_shift: bool = True


_CUBA = Family(slayer.block.cuba, slayer.neuron.cuba, _LEAK)
_RF = Family(slayer.block.rf, slayer.neuron.rf, _TURN)
FAMILIES = {
    "CUBA": _CUBA,
    "LOIHI": _CUBA,
    "ALIF": Family(slayer.block.alif, slayer.neuron.alif, {**_LEAK, **_ADAPTATION}),
    "RF_PHASE": _RF,
    "RF_IZHIKEVICH": Family(slayer.block.rf_iz, slayer.neuron.rf_iz, _TURN),
    "ADRF_PHASE": Family(slayer.block.adrf, slayer.neuron.adrf, {**_TURN, **_ADAPTATION}),
    "ADRF_IZHIKEVICH": Family(
        slayer.block.adrf_iz, slayer.neuron.adrf_iz, {**_TURN, **_ADAPTATION}
    ),
    "SDNN": Family(slayer.block.sigma_delta, slayer.neuron.sigma_delta, {}, False),
}


def family_of(layer: LayerReader) -> Family:
    """The family of a layer's neuron; without one, of its weights: real or complex."""
    if not layer.has("neuron"):
        return _RF if layer.has("weight/real") else _CUBA
    kind = layer.text("neuron/type")
    if kind not in FAMILIES:
        raise layer.error("neuron/type", f"is {kind!r}, which is none of {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def block_of(layer: LayerReader, name: str) -> Any:
    """The class of a block of the layer's family."""
    found = getattr(family_of(layer).block, name, None)
    if found is None:
        kind, neuron = layer.text("type"), layer.text("neuron/type")
        raise layer.error("type", f"is {kind!r}, as {name}, which {neuron!r} neurons do not have")
    return found


def scale_of(layer: LayerReader) -> int:
    """What a weight of 1 is in the file; lava-dl does not write it."""
    return layer.attribute("scale", 1 << 6, 1)


def no_neuron(layer: LayerReader) -> dict[str, Any]:
    """For an Affine without dynamics: arguments of a neuron that is there but does nothing."""
    if family_of(layer) is _RF:
        return {"threshold": 1, "period": 4, "decay": 0.5, "scale": scale_of(layer)}
    return {"threshold": 1, "current_decay": 1, "voltage_decay": 1, "scale": scale_of(layer)}


def neuron_params(layer: LayerReader) -> dict[str, Any]:
    """Constructor arguments of a layer's neuron; :func:`restore_neuron` does the rest."""
    family, scale = family_of(layer), scale_of(layer)
    mantissa = _channel_values(layer, "vThMant", 0, NEVER_FIRES)
    if mantissa.size > 1 and "threshold" not in _per_channel(family):
        raise layer.error("neuron/vThMant", f"has {mantissa.size} values where one is expected")
    device: dict[str, Any] = {"vThMant": int(mantissa[0])}
    sizes = [mantissa.size]
    for key in family.decays:
        values = _channel_values(layer, key, 0, DECAY_SCALE)
        device[key] = int(values[0])
        sizes.append(values.size)
    if "sinDecay" in family.decays:
        _check_turn(layer)
    if "thDecay" in family.decays:
        device["vThStep"] = layer.integer("neuron/vThStep")
    params: dict[str, Any] = family.neuron.neuron_params(device, scale)
    params |= {"scale": scale, "shared_param": max(sizes) == 1}
    if family.block is slayer.block.sigma_delta:
        params["activation"] = _activation(layer)
        params["cum_error"] = layer.flag("cum_error", False)
    else:
        graded = layer.has("neuron/gradedSpike") and bool(layer.integer("neuron/gradedSpike"))
        params["graded_spike"] = graded
    for suffix in _norm_suffixes(family):
        norm = _norm_of(layer, suffix)
        if norm is not None:
            params["norm"] = norm
    return params


def restore_neuron(layer: LayerReader, neuron: Any) -> None:
    """The integers of each channel, the norms and a sigma-delta neuron's bias."""
    family, channels = family_of(layer), neuron.shape[0]
    values = {key: _integers(layer, key) for key in family.decays}
    if "sinDecay" in values:
        values["sinDecay"], values["cosDecay"] = inside_circle(
            values["sinDecay"], values["cosDecay"]
        )
    neuron.init = True  # nothing is drawn: the file has it
    neuron.draw(channels)
    for key, name in family.decays.items():
        _set(getattr(neuron, name), values[key], 1 if neuron.shared_param else channels)
    if family.block is slayer.block.sigma_delta:
        _restore_sigma_delta(layer, neuron)
    for suffix in _norm_suffixes(family):
        found = getattr(neuron, f"{suffix[1:]}_norm" if suffix else "norm")
        if found is not None:
            _restore_norm(layer, neuron, found, suffix)


def _set(parameter: Any, values: np.ndarray, size: int) -> None:
    parameter.data = torch.from_numpy(np.broadcast_to(values.astype(np.float32), size).copy())


def _per_channel(family: Family) -> tuple[str, ...]:
    """What else than decays may differ between channels."""
    return ("threshold",) if family.block is slayer.block.sigma_delta else ()


def _norm_suffixes(family: Family) -> tuple[str, ...]:
    return ("_real", "_imag") if "sinDecay" in family.decays else ("",)


def _channel_values(layer: LayerReader, key: str, least: int, most: int) -> np.ndarray:
    """The integers of all channels or of each, checked."""
    place, values = f"neuron/{key}", _integers(layer, key)
    if values.size not in (1, layer.shape()[0]):
        raise layer.error(place, f"has {values.size} values for {layer.shape()[0]} channels")
    if values.min() < least or values.max() > most:
        raise layer.error(place, f"is outside {least} ... {most}")
    return values


def _integers(layer: LayerReader, key: str) -> np.ndarray:
    """The integers of a neuron's parameter; a resonator's decays are rounded down, as by netx."""
    read = layer.rounded_down if key in _TURN else layer.integers
    return read(f"neuron/{key}").reshape(-1)


def _norm_of(layer: LayerReader, suffix: str) -> Any:
    """The class of a layer's norm, which a bias may stand for; None if it has none."""
    norm, name = slayer.neuron.norm, f"bias{suffix}"
    if layer.has(f"neuron/weight_exp{suffix}"):
        return norm.WgtScaleBatchNorm
    if not layer.has(name) or layer.text("type") == "input":
        return None
    bias = layer.integers(name)
    if not layer.flag(f"channel_bias{suffix}", False):
        if not (bias % 2).any() and bias.min() >= -WEIGHT_MAX and bias.max() <= -WEIGHT_MIN:
            return norm.MeanOnlyBatchNorm
        if family_of(layer).block is slayer.block.sigma_delta and not layer.has("neuron/bias"):
            return None  # the neuron's own bias, which may be finer
    if bias.min() < BIAS_MIN or bias.max() > BIAS_MAX:
        raise layer.error(
            name,
            f"is outside its 13 bits, {BIAS_MIN} ... {BIAS_MAX}: {bias.reshape(-1)[:4].tolist()}",
        )
    return norm.ChannelBias


def _check_turn(layer: LayerReader) -> None:
    """A resonator's decays must be what a neuron can have: in its quarter circle."""
    sine, cosine = (_integers(layer, key) for key in _TURN)
    sine, cosine = inside_circle(sine, cosine)
    if sine.min() < 1:
        raise layer.error("neuron/sinDecay", f"is {sine.min():g}, below 1")
    if (np.hypot(sine, cosine) > DECAY_SCALE - 1).any():
        raise layer.error("neuron/sinDecay", f"and cosDecay are beyond a gain of {DECAY_SCALE - 1}")


def _activation(layer: LayerReader) -> Any:
    name = layer.text("neuron/activation")
    if name not in ACTIVATIONS:
        raise layer.error(
            "neuron/activation", f"is {name!r}, which is none of {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def _restore_sigma_delta(layer: LayerReader, neuron: Any) -> None:
    if not neuron.shared_param:
        mantissa = layer.integers("neuron/vThMant").reshape(neuron.threshold.shape)
        thresholds = torch.from_numpy(mantissa.astype(np.float32))
        neuron.threshold.data = thresholds / neuron.scale
    if layer.has("bias") and neuron.norm is None and layer.text("type") != "input":
        each = _per_channel_bias(layer, "bias", neuron) / neuron.scale
        layer.claim("bias of each neuron", 4 * neuron.num_neurons)
        neuron.set_bias(each.reshape(-1, *[1] * (len(neuron.shape) - 1)).expand(neuron.shape))
    if layer.has("neuron/bias"):
        bias = layer.floats("neuron/bias").astype(np.float32)
        if bias.size != neuron.num_neurons:
            raise layer.error(
                "neuron/bias", f"has {bias.size} values for {neuron.num_neurons} neurons"
            )
        neuron.set_bias(torch.from_numpy(bias.reshape(neuron.shape)) / neuron.s_scale)


def _per_channel_bias(layer: LayerReader, name: str, neuron: Any) -> torch.Tensor:
    bias = layer.floats(name).astype(np.float32).reshape(-1)
    if bias.size not in (1, neuron.shape[0]):
        raise layer.error(name, f"has {bias.size} values for {neuron.shape[0]} channels")
    return torch.from_numpy(bias)


def _restore_norm(layer: LayerReader, neuron: Any, norm: Any, suffix: str) -> None:
    channels = neuron.shape[0]
    bias = _per_channel_bias(layer, f"bias{suffix}", neuron) / neuron.scale
    norm.num_features = channels
    if isinstance(norm, slayer.neuron.norm.ChannelBias):
        norm.value.data = bias.expand(channels).clone()
        return
    norm.running_mean = -bias
    norm.eval()
    place = f"neuron/weight_exp{suffix}"
    if layer.has(place):
        exponent = layer.integer(place)
        if abs(exponent) > MAX_EXPONENT:
            raise layer.error(place, f"is {exponent}, beyond {MAX_EXPONENT} bits")
        # Any variance between two powers of four has the exponent of the upper.
        norm.running_var = torch.tensor([4.0 ** (exponent - 0.5)])
        norm.weight_exp_bits = layer.attribute("weight_exp_bits", 3, 0)
