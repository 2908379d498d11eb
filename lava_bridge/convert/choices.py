"""What a calibration chose, in numbers and as a table."""

from dataclasses import dataclass

from rich.table import Table

from ..report import as_text

__all__ = ["Calibration", "LayerChoice"]

# Width of a table as text: more columns than a terminal's 80 hold.
TEXT_WIDTH = 140

MODES = {
    "weights": "by its weights",
    "data": "by spikes on data",
    "blocks": "by the factor that its block has",
}


@dataclass(frozen=True)
class LayerChoice:
    """What was chosen for a layer.

    Attributes:
        place: The layer's place in the net.
        factor: By what weight, bias and threshold are multiplied before they are rounded.
        clip: The share of the largest weight's magnitude that 8 bits hold with it; 1: all of it.
        clipped: Share of the weights that are clipped (of a large layer, among 262,144 of them;
            so are the levels).
        levels_before, levels: How many of the 256 levels of 8 bits the weights are rounded to with
            a factor of 1, and with this one. 0: no weights.
        threshold: The threshold's mantissa on the chip, 1 ... 131071; None: there is no neuron.
        limit: What kept the factor from being larger.
        error: Share of the spike places that differ from the float net's own run, on the data. Of
            a layer without a neuron the error of its sums, relative to their magnitude. None:
            there were no data.
        steps: By weights, of an IFNode: about how many steps of the strongest inhibition, as from
            channels that spike all or none, its voltage takes before it leaves the chip's 24 bits.
            None: of another neuron, or nothing inhibits.
    """

    place: str
    factor: float
    clip: float = 1.0
    clipped: float = 0.0
    levels_before: int = 0
    levels: int = 0
    threshold: int | None = None
    limit: str = ""
    error: float | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Calibration:
    """What :func:`lava_bridge.convert.calibrate` chose, a :class:`LayerChoice` for each layer.

    Attributes:
        mode: ``"weights"``, ``"data"``, or ``"blocks"`` where the factors of blocks were taken.
        layers: The choices, in the layers' order.
    """

    mode: str
    layers: tuple[LayerChoice, ...]

    columns = (
        *("layer", "factor", "clip point", "clipped", "levels at 1", "levels", "threshold"),
        *("limit", "steps held", "error"),
    )

    @property
    def factors(self) -> list[float]:
        """The factor of each layer."""
        return [choice.factor for choice in self.layers]

    @property
    def title(self) -> str:
        """What the table is about, in one line."""
        return f"Calibration to 8 bits, each layer {MODES[self.mode]}"

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """A row of :attr:`columns` for each layer, as text."""
        return [
            (
                choice.place,
                f"{choice.factor:.4g}",
                f"{choice.clip:.2f}" if choice.levels else "-",
                f"{choice.clipped:.2%}" if choice.levels else "-",
                str(choice.levels_before) if choice.levels else "-",
                str(choice.levels) if choice.levels else "-",
                "-" if choice.threshold is None else f"{choice.threshold:,}",
                choice.limit,
                "-" if choice.steps is None else f"{choice.steps:,}",
                "-" if choice.error is None else f"{choice.error:.2%}",
            )
            for choice in self.layers
        ]

    def table(self) -> Table:
        """The choices as a table for rich."""
        table = Table(title=self.title)
        for column in self.columns:
            table.add_column(column, justify="left" if column in ("layer", "limit") else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def __str__(self) -> str:
        return as_text(self.table(), TEXT_WIDTH)
