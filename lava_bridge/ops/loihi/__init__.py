r"""Neurons in Loihi's arithmetic, as Lava's ``fixed_pt`` models run it: whole numbers, no gradient.

Sums are registers of 32 bits, which wrap; a state x decays to
:math:`D(x, d) = \mathrm{sign}(x (4096 - d))\,(|x (4096 - d)| \gg 12)`. Sequences are whole numbers
in floating point: float32 holds those up to :math:`2^{24}`, float64 all. A run in parts, each from
the last states of the one before, gives what one run does.

Source: lava-nc 0.10.0, ``lava.proc.lif``, ``rf``, ``rf_iz`` and ``sdn``.
"""

from .lif import LifRun, lif
from .resonator import RfRun, rf, rf_iz
from .sigma_delta import DeltaRun, SigmaDeltaRun, SigmaRun, delta, sigma, sigma_delta

__all__ = ["DeltaRun", "LifRun", "RfRun", "SigmaDeltaRun", "SigmaRun"]
__all__ += ["delta", "lif", "rf", "rf_iz", "sigma", "sigma_delta"]
