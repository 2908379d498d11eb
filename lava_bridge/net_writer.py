"""How a block's parts are written into its HDF5 group, as lava-dl 0.6.0 writes them.

Datasets are lava-dl's, name for name. What lava-dl leaves out and reading back needs (``scale``,
``delay_shift``) is kept in attributes, which Lava's reader does not look at.
"""

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .checks import overridden, recompute
from .errors import BridgeError
from .quantize import all_finite

__all__ = [
    "ACTIVATIONS",
    "NEVER_FIRES",
    "integer_weight",
    "norms_of",
    "write_axon",
    "write_header",
    "write_neuron",
    "write_norm",
    "write_weight",
]

# The largest threshold mantissa: how lava-dl writes a neuron that never fires.
NEVER_FIRES = (1 << 18) - 1

# Weights that are quantised and written at a time.
SLICE = 1 << 18

# A file has no more of a sigma-delta neuron's activation than its name. A module has its class's.
ACTIVATIONS: dict[str, Any] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "leakyrelu": torch.nn.LeakyReLU(),
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "identity": torch.nn.Identity(),
}


def write_header(handle: Any, block: torch.nn.Module, kind: str) -> None:
    """Type and shape of a layer; what each channel draws at the first forward is drawn now."""
    shape = getattr(block, "shape", None)
    if shape is None:
        raise BridgeError(
            f"{_name(block)}: its shape is not known, so it can't be exported; run it once, or "
            "call infer_shape((C, H, W)), or pass input_shape to lava_bridge.export_hdf5"
        )
    for part in block.children():
        draw: Any = getattr(part, "draw", None)
        if draw is not None:
            draw(shape[0])
    for name, tensor in block.state_dict().items():
        if not all_finite(tensor):
            raise BridgeError(
                f"{_name(block)}: {name} has values that are NaN or infinite; check the training "
                "or the checkpoint"
            )
    handle.create_dataset("type", (1,), "S10", [kind.encode("ascii")])
    handle.create_dataset("shape", data=np.array(shape, dtype=np.int64))


def write_weight(
    handle: Any, synapse: Any, dimensions: int, mask: Any = None, name: str = "weight"
) -> None:
    """The weights as the chip's integers; the first ``dimensions`` of the five.

    A Dense synapse that sees height and width keeps its kernel: four dimensions. Many weights are
    quantised and written some rows at a time, so that they are not held a second time.
    """
    for place, part in synapse.parts(name):
        recompute(part)
        weight = part.weight.detach()
        shape = weight.shape[: 4 if max(weight.shape[2:4]) > 1 else dimensions]
        row = max(1, weight[0].numel()) if len(weight) else 1
        rows = max(1, SLICE // row) if getattr(part.pre_hook_fx, "elementwise", False) else 0
        if not rows or len(weight) <= rows:
            integers = _integers(part, weight, mask)
            handle.create_dataset(place, data=integers.reshape(shape).cpu().numpy())
            continue
        dataset = None
        for start in range(0, len(weight), rows):
            some = slice(start, start + rows)
            integers = _integers(part, weight[some], None if mask is None else mask[some])
            values = integers.reshape(-1, *shape[1:]).cpu().numpy()
            if dataset is None:
                dataset = handle.create_dataset(place, tuple(shape), values.dtype)
            dataset[some] = values


def integer_weight(part: Any, mask: Any = None) -> torch.Tensor:
    """The weight of a real synapse as the chip's integers, five dimensions, as floats.

    A BridgeError is raised if the synapse has no quantiser, or weights that are no numbers.
    """
    recompute(part)
    return _integers(part, part.weight.detach(), mask)


def _integers(part: Any, weight: torch.Tensor, mask: Any) -> torch.Tensor:
    if part.pre_hook_fx is None:
        raise BridgeError(
            f"synapse.{type(part).__name__}: has no pre_hook_fx, so its weights are not the "
            "chip's 8-bit integers; set synapse.pre_hook_fx = neuron.quantize_8bit"
        )
    with torch.no_grad():
        weight = weight if mask is None else weight * mask
        integers: torch.Tensor = part.pre_hook_fx(weight, descale=True)
    if not all_finite(integers):
        raise BridgeError(
            f"synapse.{type(part).__name__}: has weights that are NaN or infinite; check the "
            "training or the checkpoint"
        )
    return integers


def norms_of(neuron: Any) -> dict[str, Any]:
    """A neuron's norms, by the suffix of their datasets; lava-dl writes a complex neuron's not."""
    if not neuron.complex:
        found = {"": neuron.norm}
    else:
        found = {"_real": neuron.real_norm, "_imag": neuron.imag_norm}
    return {suffix: norm for suffix, norm in found.items() if norm is not None}


def write_norm(handle: Any, neuron: Any) -> None:
    """A norm as the chip has it: a bias and an exponent of the weights.

    An attribute says that it is a ``ChannelBias``.
    """
    for suffix, norm in norms_of(neuron).items():
        with torch.no_grad():
            handle.create_dataset(f"bias{suffix}", data=norm.bias.cpu().numpy().flatten())
            if getattr(norm, "is_bias", False):
                handle.attrs[f"channel_bias{suffix}"] = True
            if hasattr(norm, "weight_exp"):
                exponent = norm.weight_exp.cpu().numpy()
                handle.create_dataset(f"neuron/weight_exp{suffix}", data=exponent)
                handle.attrs["weight_exp_bits"] = norm.weight_exp_bits


def write_axon(handle: Any, block: Any) -> None:
    """Delays, and whether the block delays its spikes by one step."""
    if block.delay is not None:
        block.delay.clamp()
        steps = torch.floor(block.delay.delay.detach()).flatten()
        handle.create_dataset("delay", data=steps.cpu().numpy())
    handle.attrs["delay_shift"] = block.delay_shift


def write_neuron(handle: Any, neuron: Any) -> None:
    """The neuron's device parameters, and the scale that they were made with."""
    if overridden(neuron, "forward", "dynamics", "spike"):
        warnings.warn(
            f"{neuron.place}: its forward, dynamics or spike is not slayer's, and a file holds "
            "nothing of them; compare the file with the blocks by check_equivalence",
            stacklevel=2,
        )
    params = neuron.device_params
    if "activation" in params and not _is_restored(neuron, params["activation"]):
        raise BridgeError(
            f"{neuron.place}: a file holds no more of its activation than the name "
            f"{params['activation']!r}, which is not enough; use one of "
            f"torch.nn.functional.{', '.join(ACTIVATIONS)}, with its defaults"
        )
    most = NEVER_FIRES - (neuron.threshold is not None)
    if np.max(params["vThMant"]) > most:
        raise BridgeError(
            f"{neuron.place}: its threshold is {np.max(params['vThMant'])} on the chip, above "
            f"{most}; choose a smaller threshold or scale"
        )
    for key, value in params.items():
        handle.create_dataset(f"neuron/{key}", data=value)
    if getattr(neuron, "bias_is_set", False):
        # A sigma-delta neuron's bias, which lava-dl leaves out; Lava does not read it.
        bias = torch.round(neuron.bias.detach() * neuron.s_scale).to(torch.int64)
        handle.create_dataset("neuron/bias", data=bias.cpu().numpy())
    if getattr(getattr(neuron, "delta", None), "cum_error", False):
        handle.attrs["cum_error"] = True
    handle.attrs["scale"] = neuron.scale


def _is_restored(neuron: Any, name: str) -> bool:
    """Whether the function that reading finds by this name is the neuron's activation."""
    if name not in ACTIVATIONS:
        return False
    large = torch.logspace(-6, 6, 200)
    probe = torch.cat([torch.linspace(-8, 8, 801), large, -large]).to(neuron.device)
    with torch.no_grad():
        return torch.equal(neuron.activation(probe.clone()), ACTIVATIONS[name](probe))


def _name(block: torch.nn.Module) -> str:
    return f"{type(block).__module__.rpartition('.')[2]}.{type(block).__name__}"
