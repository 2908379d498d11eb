"""SpikingJelly's surrogate functions: as the kernels know them, and for larger voltages."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch.nn as nn
from spikingjelly.activation_based import surrogate
from torch import Tensor

from ..checks import has_hooks
from ..ops.surrogate import ATAN, PIECEWISE_QUADRATIC, SIGMOID, SOFT_SIGN, Smooth

__all__ = ["Widened", "smooth", "widened"]

# By the exact type: a subclass may compute something else.
_KINDS: dict[type, int] = {
    surrogate.Sigmoid: SIGMOID,
    surrogate.ATan: ATAN,
    surrogate.SoftSign: SOFT_SIGN,
    surrogate.PiecewiseQuadratic: PIECEWISE_QUADRATIC,
}
# Those that are a function of alpha times the voltage; not every release has all.
_OF_ALPHA = {
    getattr(surrogate, name, None)
    for name in (
        *("ATan", "Erf", "NonzeroSignLogAbs", "PiecewiseExp", "PiecewiseQuadratic", "Rect"),
        *("Sigmoid", "SoftSign"),
    )
}
# Where an alpha below 0 has a derivative that is not the kernels'.
_ABOVE_ZERO = (SOFT_SIGN, PIECEWISE_QUADRATIC)


def smooth(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor] | Smooth:
    """A surrogate as :func:`lava_bridge.ops.cuba_reset.fire_and_reset` takes it fastest."""
    kind = _KINDS.get(type(function))
    module: Any = function
    alpha: Any = getattr(function, "alpha", None)
    if kind is None or type(alpha) not in (int, float) or not -math.inf < alpha < math.inf:
        return function
    if (kind in _ABOVE_ZERO and alpha <= 0) or has_hooks(module):
        return function
    return Smooth(kind, float(alpha))


class Widened(nn.Module):
    """The surrogate of a voltage that is larger by a factor: ``S(x / factor)``.

    Its spikes are the same, and its gradient, taken for what is larger too, is that of before.
    """

    def __init__(self, surrogate_function: Callable[[Tensor], Tensor], factor: float) -> None:
        super().__init__()
        self.surrogate_function = surrogate_function
        self.factor = factor

    @property
    def spiking(self) -> bool:
        """Whether it gives spikes, or numbers."""
        return getattr(self.surrogate_function, "spiking", True)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of a voltage above its threshold, of any shape."""
        return self.surrogate_function(x / self.factor)

    def extra_repr(self) -> str:
        return f"factor={self.factor:.4g}"


def widened(function: Any, factor: float) -> Any:
    """A copy of a surrogate for voltages that are larger by a factor; see :class:`Widened`."""
    made = copy.deepcopy(function)
    if factor == 1:
        return made
    if type(made) in _OF_ALPHA and type(made.alpha) in (int, float):
        made.alpha = made.alpha / factor
        return made
    if isinstance(made, Widened):
        return Widened(made.surrogate_function, made.factor * factor)
    return Widened(made, factor)
