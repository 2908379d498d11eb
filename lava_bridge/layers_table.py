"""The layers of a ``.net`` file as a table: what ``lava-bridge inspect`` shows."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from torch import Tensor

from .encoder import split_encoder
from .hdf5 import load_hdf5
from .net_writer import norms_of

__all__ = ["layers_table"]

COLUMNS = (
    *("shape", "kernel", "stride", "padding", "groups", "weights", "factor", "exponent", "bias"),
    *("neuron", "threshold", "decays", "delay"),
)


def layers_table(file: str, encoder: bool = True) -> Table:
    """The table of a file, with its encoder in front; ``encoder=False``: without it."""
    table = Table(title=Path(file).name)
    table.add_column("layer")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    front, blocks = split_encoder(load_hdf5(file, encoder=encoder))
    if front is not None:
        table.add_row("encoder", *_describe_encoder(front))
    for i, block in enumerate(blocks):
        table.add_row(f"{i} {type(block).__name__}", *_describe(block))
    return table


def _describe_encoder(encoder: Any) -> list[str]:
    """The cells of an encoder of the input; the decay of its float neurons is 1/tau."""
    cells = ["x".join(map(str, encoder.shape))]
    if encoder.kind == "graded":
        return [*cells, *[""] * 8, f"0-{encoder.levels}", f"{encoder.amplitude:g}", "", "0"]
    synapse = encoder.synapse
    if encoder.synapse_kind == "linear":
        cells += [""] * 4
    else:
        padding = synapse.padding if isinstance(synapse.padding, str) else _pair(synapse.padding)
        cells += [_pair(synapse.kernel_size), _pair(synapse.stride), padding, str(synapse.groups)]
    bias = synapse.bias
    cells += [f"{synapse.weight.numel():,}", "", "", "" if bias is None else _range([bias])]
    return [*cells, "float", f"{encoder.threshold:g}", f"{1 / encoder.tau:g}", "0"]


def _range(parts: list[Tensor]) -> str:
    """The lowest and the highest of some numbers; empty if there are none."""
    if not parts:
        return ""
    low, high = min(x.min().item() for x in parts), max(x.max().item() for x in parts)
    ends = (low,) if low == high else (low, high)
    return " ... ".join(f"{x:.4g}" if x % 1 else str(int(x)) for x in ends)


def _pair(values: Any) -> str:
    return "x".join(str(value) for value in values[:2])


def _describe(block: Any) -> list[str]:
    """A block's cells."""

    def span(value: Any) -> str:
        low, high = np.min(value), np.max(value)
        return str(low) if low == high else f"{low}-{high}"

    cells = ["x".join(map(str, block.shape))]
    synapse = getattr(block, "synapse", None)
    if synapse is None:
        cells += [""] * 5
    else:
        cells += [_pair(synapse.kernel_size), _pair(synapse.stride), _pair(synapse.padding)]
        weights = sum(part.weight.numel() for _, part in synapse.parts(""))
        cells += [str(synapse.groups), f"{weights:,}"]
    factor = getattr(block, "weight_factor", 1)
    neuron = getattr(block, "neuron", None)
    norms = [] if neuron is None else list(norms_of(neuron).values())
    exponents = [
        norm.weight_exp.clamp(-norm.weight_exp_bits, norm.weight_exp_bits)
        for norm in norms
        if hasattr(norm, "weight_exp")
    ]
    biases = [norm.bias for norm in norms]
    if getattr(block, "bias", None) is not None:  # an input's
        biases.append(block.pre_hook_fx(block.bias, descale=True))
    if neuron is not None and getattr(neuron, "bias_is_set", False):  # a sigma-delta neuron's
        biases.append((neuron.bias * neuron.s_scale).round())
    cells += ["" if factor == 1 else f"{factor:.4g}", _range(exponents), _range(biases)]
    if neuron is None or neuron.threshold is None:
        cells += ["", "", ""]
    else:
        params = neuron.device_params
        decays = [value for key, value in params.items() if key.endswith("Decay")]
        cells += [params["type"], span(params["vThMant"]), ", ".join(map(span, decays))]
    shift = int(getattr(block, "delay_shift", False))
    delay = getattr(block, "delay", None)
    return [*cells, f"{shift}" if delay is None else f"{shift}+{int(delay.delay.max())}"]
