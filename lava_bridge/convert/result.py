"""What a conversion gives: the blocks, and what was done to come to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn as nn
from rich.table import Table

from ..report import as_text
from .choices import Calibration
from .layers import FloatLayer

__all__ = ["ConversionReport", "SlayerNet"]

COLUMNS = ("layer", "rewritten")
TITLE = "What was rewritten, exactly but for the rounding to 8 bits"


@dataclass(frozen=True)
class ConversionReport:
    """What was done to a net to convert it.

    Attributes:
        rewrites: The place of each layer, and a phrase for each exact rewrite that led to it.
        calibration: What was chosen for the 8 bits of each layer; None: nothing was.
    """

    rewrites: tuple[tuple[str, str], ...] = ()
    calibration: Calibration | None = None

    @staticmethod
    def of(
        layers: Sequence[FloatLayer], calibration: Calibration | None = None
    ) -> "ConversionReport":
        """The report of these layers."""
        rewrites = tuple((layer.place, phrase) for layer in layers for phrase in layer.rewrites)
        return ConversionReport(rewrites, calibration)

    @property
    def tables(self) -> list[tuple[str, Sequence[str], list[tuple[Any, ...]]]]:
        """``(title, columns, rows)`` each, for a page or a printout."""
        found: list[tuple[str, Sequence[str], list[tuple[Any, ...]]]] = []
        if self.rewrites:
            found.append((TITLE, COLUMNS, list(self.rewrites)))
        if self.calibration is not None:
            found.append(
                (self.calibration.title, self.calibration.columns, list(self.calibration.rows))
            )
        return found

    def __str__(self) -> str:
        text = []
        if self.rewrites:
            table = Table(*COLUMNS, title=TITLE)
            for row in self.rewrites:
                table.add_row(*row)
            text.append(as_text(table))
        if self.calibration is not None:
            text.append(str(self.calibration))
        return "\n".join(text) or "Nothing was rewritten or calibrated."


class SlayerNet(nn.Sequential):
    """Slayer blocks in order, for inputs ``[N, C, H, W, T]`` or ``[N, C, T]``.

    Attributes:
        report: What was done to the net that they were made of; ``print(blocks.report)``.
    """

    def __init__(self, *blocks: Any, report: ConversionReport | None = None) -> None:
        # As nn.Sequential: modules, or one ordered dict of them (that is how a slice is made).
        super().__init__(*blocks)
        self.report = ConversionReport() if report is None else report
