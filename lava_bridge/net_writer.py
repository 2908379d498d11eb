"""How a block's parts are written into its HDF5 group, as lava-dl 0.6.0 writes them.

Datasets are lava-dl's, name for name. What lava-dl leaves out and reading back needs (``scale``,
``delay_shift``) is kept in attributes, which Lava's reader does not look at.
"""

from typing import Any

import numpy as np
import torch

from .errors import BridgeError

__all__ = [
    "NEVER_FIRES",
    "norms_of",
    "write_axon",
    "write_header",
    "write_neuron",
    "write_norm",
    "write_weight",
]

# The largest threshold mantissa: how lava-dl writes a neuron that never fires.
NEVER_FIRES = (1 << 18) - 1


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
    handle.create_dataset("type", (1,), "S10", [kind.encode("ascii")])
    handle.create_dataset("shape", data=np.array(shape, dtype=np.int64))


def write_weight(
    handle: Any, synapse: Any, dimensions: int, mask: Any = None, name: str = "weight"
) -> None:
    """The weights as the chip's integers; the first ``dimensions`` of the five.

    A Dense synapse that sees height and width keeps its kernel: four dimensions.
    """
    for place, part in synapse.parts(name):
        if part.pre_hook_fx is None:
            raise BridgeError(
                f"synapse.{type(part).__name__}: has no pre_hook_fx, so its weights are not the "
                "chip's 8-bit integers; set synapse.pre_hook_fx = neuron.quantize_8bit"
            )
        with torch.no_grad():
            weight = part.weight if mask is None else part.weight * mask
            integers = part.pre_hook_fx(weight, descale=True)
        if not bool(torch.isfinite(integers).all()):
            raise BridgeError(
                f"synapse.{type(part).__name__}: has weights that are NaN or infinite; check the "
                "training or the checkpoint"
            )
        shape = integers.shape[: 4 if max(integers.shape[2:4]) > 1 else dimensions]
        handle.create_dataset(place, data=integers.reshape(shape).cpu().numpy())


def norms_of(neuron: Any) -> dict[str, Any]:
    """A neuron's norms, by the suffix of their datasets; lava-dl writes a complex neuron's not."""
    if not neuron.complex:
        found = {"": neuron.norm}
    else:
        found = {"_real": neuron.real_norm, "_imag": neuron.imag_norm}
    return {suffix: norm for suffix, norm in found.items() if norm is not None}


def write_norm(handle: Any, neuron: Any) -> None:
    """A norm as the chip has it: a bias and an exponent of the weights."""
    for suffix, norm in norms_of(neuron).items():
        with torch.no_grad():
            handle.create_dataset(f"bias{suffix}", data=norm.bias.cpu().numpy().flatten())
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
    params = neuron.device_params
    if not str(params.get("activation", "named")).isidentifier():
        raise BridgeError(
            f"{neuron.place}: its activation {params['activation']!r} has no name that a file can "
            "hold; use a function with a name, e.g. torch.nn.functional.relu"
        )
    if np.max(params["vThMant"]) > NEVER_FIRES:
        raise BridgeError(
            f"{neuron.place}: its threshold is {np.max(params['vThMant'])} on the chip, above "
            f"{NEVER_FIRES}; choose a smaller threshold or scale"
        )
    for key, value in params.items():
        handle.create_dataset(f"neuron/{key}", data=value)
    if getattr(neuron, "bias_is_set", False):
        # A sigma-delta neuron's bias, which lava-dl leaves out; Lava does not read it.
        bias = torch.round(neuron.bias.detach() * neuron.s_scale).to(torch.int64)
        handle.create_dataset("neuron/bias", data=bias.cpu().numpy())
    handle.attrs["scale"] = neuron.scale


def _name(block: torch.nn.Module) -> str:
    return f"{type(block).__module__.rpartition('.')[2]}.{type(block).__name__}"
