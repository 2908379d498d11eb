"""What a net needs on Loihi, layer by layer, against the limits that are published of the chip.

Everything is counted from below: a real mapping needs at least as much. So a limit that is broken
here is broken on the chip, and a net that breaks none may still not fit.
"""

from .limits import CHIPS, LOIHI1, LOIHI2, Chip
from .needs import LayerNeeds, needs
from .report import ChipReport, Violation, check_chip

__all__ = ["CHIPS", "LOIHI1", "LOIHI2", "Chip", "ChipReport", "LayerNeeds", "Violation"]
__all__ += ["check_chip", "needs"]
