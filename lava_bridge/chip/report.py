"""What a net needs, held against the limits of a chip."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch.nn as nn
from rich.table import Table

from ..checks import path_text
from ..errors import BridgeError, NetFileError
from ..hdf5 import load_hdf5
from ..report import as_text
from .limits import Chip
from .needs import LayerNeeds, needs

__all__ = ["ChipReport", "Violation", "check_chip"]

# Width of a report as text: more columns than a terminal's 80 hold.
TEXT_WIDTH = 160


@dataclass(frozen=True)
class Violation:
    """A limit that is broken: where, what is limited, what was found and what is allowed."""

    place: str
    limit: str
    value: int | str
    allowed: int | str

    def __str__(self) -> str:
        value, allowed = (
            f"{number:,}" if isinstance(number, int) else number
            for number in (self.value, self.allowed)
        )
        return f"{self.place}: {self.limit}: {value}, limit {allowed}"


def check_chip(
    net: str | os.PathLike[str] | Iterable[nn.Module] | nn.Module, chip: Chip
) -> "ChipReport":
    """Hold what a net needs against the published limits of a chip.

    Args:
        net: Path of a ``.net`` file, or blocks of ``lava_bridge.slayer.block`` that know their
            shape.
        chip: :data:`LOIHI1` or :data:`LOIHI2`.

    Raises:
        NetFileError: If the file can't be read.
        BridgeError: If there are no blocks, or ``chip`` is none; if a block does not know its shape
            or does not fit the one before it, or its weights are not integers on the chip; it is
            named.
    """
    if not isinstance(chip, Chip):
        raise BridgeError(
            f"expected the chip as LOIHI1 or LOIHI2 of lava_bridge.chip, found {chip!r}"
        )
    if isinstance(net, str | bytes | os.PathLike):
        try:
            blocks = load_hdf5(net)
        except NetFileError:  # the encoder's file may not be there
            blocks = load_hdf5(net, encoder=False)
        return ChipReport(Path(path_text(net)).name, chip, needs(blocks))
    found = needs(net)
    if not found:
        raise BridgeError("there are no blocks to check; give at least one, or a file's path")
    return ChipReport("the net", chip, found)


@dataclass
class ChipReport:
    """What :func:`check_chip` found.

    Attributes:
        net: What was checked.
        chip: The chip.
        layers: What each layer needs.
    """

    net: str
    chip: Chip
    layers: list[LayerNeeds]

    @property
    def ok(self) -> bool:
        """Whether no limit is broken."""
        return not self.violations

    @property
    def violations(self) -> list[Violation]:
        """The broken limits, of layers first, then of the net."""
        chip, found = self.chip, []
        for index, layer in enumerate(self.layers):
            kind = layer.neuron
            if kind and chip.neurons is not None and kind not in chip.neurons:
                found.append(Violation(layer.name, "neuron", kind, " or ".join(chip.neurons)))
            if layer.graded_spikes and not chip.graded_spikes:
                found.append(Violation(layer.name, "spikes", "graded", "binary"))
            for limit, value, allowed in (
                ("input axons of a neuron", layer.axons, chip.input_axons),
                ("bits of a neuron's weights", layer.neuron_memory, chip.core_memory),
                ("weight bits", layer.weight_bits, chip.weight_bits),
                ("delay", layer.delay, chip.max_delay),
                ("threshold", layer.threshold or 0, (1 << chip.threshold_bits) - 1),
                ("bias bits", layer.bias_bits, chip.bias_bits),
                ("state bits", layer.state_bits, chip.state_bits),
                ("cores", self.cores_of(index), chip.cores),
            ):
                if allowed is not None and value > allowed:
                    found.append(Violation(layer.name, limit, value, allowed))
        for limit, value, allowed in (
            ("stored weights", sum(layer.weights for layer in self.layers), chip.synapses),
            ("cores", self.cores, chip.cores),
        ):
            if value > allowed:
                found.append(Violation(self.net, limit, value, allowed))
        return found

    @property
    def notes(self) -> list[str]:
        """What only fits because kernels are shared, where a tool has to see to that."""
        if self.chip.own_convolutions:
            return []
        most, notes = self.chip.input_axons, []
        for layer in self.layers:
            if most is not None and layer.axons <= most < layer.inputs:
                notes.append(
                    f"{layer.name}: a neuron has {layer.inputs:,} inputs, more than {most:,} input "
                    "axons: they must be population axons"
                )
        unshared = -(-sum(layer.unshared for layer in self.layers) // self.chip.core_memory)
        if self.cores <= self.chip.cores < unshared:
            notes.append(
                f"{self.net}: with a weight for each connection it needs {unshared:,} cores, more "
                f"than {self.chip.cores:,}: kernels must be shared"
            )
        return notes

    def cores_of(self, index: int) -> int:
        """Cores that a layer needs, at least: for its neurons, its weights or its output axons."""
        layer, chip = self.layers[index], self.chip
        if not layer.neurons:
            return 0
        loads = [(layer.neurons, chip.neurons_per_core), (layer.memory, chip.core_memory)]
        following = next((other for other in self.layers[index + 1 :] if other.synapses), None)
        if chip.output_axons is not None and following is not None:
            # An axon leads to one core, thus to as many neurons as a core holds.
            reached = -(-following.targets // chip.neurons_per_core)
            loads.append((max(following.sources, reached), chip.output_axons))
        return max(-(-load // most) for load, most in loads)

    @property
    def cores(self) -> int:
        """Cores that the net needs, at least, for neurons and weights: layers may share a core."""
        neurons = sum(layer.neurons for layer in self.layers)
        memory = sum(layer.memory for layer in self.layers)
        return max(
            -(-neurons // self.chip.neurons_per_core),
            -(-memory // self.chip.core_memory),
        )

    @property
    def verdict(self) -> str:
        """The result, a line for each note and each broken limit, and one for the whole."""
        broken = [f"BROKEN {violation}" for violation in self.violations]
        count = len(broken)
        result = (
            f"{count} published limit{'s' if count > 1 else ''} of {self.chip.name} broken"
            if count
            else f"no published limit of {self.chip.name} is broken"
        )
        return "\n".join([*(f"note: {note}" for note in self.notes), *broken, result])

    def table(self) -> Table:
        """The layers as a table for rich."""
        title = f"{self.net} on {self.chip.name}: what it needs at least"
        table = Table(title=title, show_footer=True)
        memory, unshared = (
            sum(getattr(layer, name) for layer in self.layers) for name in ("memory", "unshared")
        )
        totals = {
            "neurons": sum(layer.neurons for layer in self.layers),
            "synapses": sum(layer.synapses for layer in self.layers),
            "weight bytes": _bytes(memory),
            "unshared": _bytes(unshared),
            "cores": self.cores,
        }
        table.add_column("layer", footer="net")
        for column in (
            *("neurons", "synapses", "weight bytes", "unshared", "fan-in", "fan-out", "axons"),
            *("weight bits", "delay bits", "threshold", "cores"),
        ):
            total = f"{totals[column]:,}" if column in totals else ""
            table.add_column(column, justify="right", footer=total)
        for index, layer in enumerate(self.layers):
            numbers = (
                *(layer.neurons, layer.synapses, _bytes(layer.memory), _bytes(layer.unshared)),
                *(layer.fan_in, layer.fan_out, layer.axons, layer.weight_bits, layer.delay_bits),
            )
            threshold = "" if layer.threshold is None else f"{layer.threshold:,}"
            cells = [f"{number:,}" if number else "" for number in numbers]
            table.add_row(layer.name, *cells, threshold, f"{self.cores_of(index):,}")
        return table

    def __str__(self) -> str:
        return f"{as_text(self.table(), TEXT_WIDTH)}{self.verdict}"


def _bytes(bits: int) -> int:
    return -(-bits // 8)
