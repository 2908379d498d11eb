"""SpikingJelly's surrogate functions as the kernels know them."""

import math
from collections.abc import Callable
from typing import Any

from spikingjelly.activation_based import surrogate
from torch import Tensor

from ..checks import has_hooks
from ..ops.surrogate import ATAN, PIECEWISE_QUADRATIC, SIGMOID, SOFT_SIGN, Smooth

__all__ = ["smooth"]

# By the exact type: a subclass may compute something else.
_KINDS: dict[type, int] = {
    surrogate.Sigmoid: SIGMOID,
    surrogate.ATan: ATAN,
    surrogate.SoftSign: SOFT_SIGN,
    surrogate.PiecewiseQuadratic: PIECEWISE_QUADRATIC,
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
