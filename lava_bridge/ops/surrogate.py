r"""The derivatives of surrogate functions: of SpikingJelly's that have a kernel, and of any other.

.. math::
    \sigma'(x) &= \alpha\,\sigma(\alpha x)\,(1 - \sigma(\alpha x))
    \qquad&\text{(Sigmoid)} \\
    \mathrm{atan}'(x) &= \tfrac{\alpha}{2} \bigm/ \bigl(1 + (\tfrac{\pi}{2} \alpha x)^2\bigr)
    \qquad&\text{(ATan)} \\
    \mathrm{softsign}'(x) &= \tfrac{\alpha}{2} \bigm/ (1 + |\alpha x|)^2
    \qquad&\text{(SoftSign)} \\
    \mathrm{quadratic}'(x) &= \max(\alpha - \alpha^2 |x|,\; 0)
    \qquad&\text{(PiecewiseQuadratic)}

Source: ``spikingjelly.activation_based.surrogate``.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ATAN", "PIECEWISE_QUADRATIC", "SIGMOID", "SOFT_SIGN", "Smooth", "derivative", "of_any"]

# As SmoothSurrogate in cuda/spike.h has them.
SIGMOID, ATAN, SOFT_SIGN, PIECEWISE_QUADRATIC = 1, 2, 3, 4


class Smooth(NamedTuple):
    """A surrogate that the kernels compute: one of the constants above (0: none), and its alpha."""

    kind: int
    alpha: float


def derivative(kind: int, alpha: float, above: Tensor) -> Tensor:
    """The torch reference: the derivative ``above`` (or below) the threshold, elementwise."""
    if kind == SIGMOID:
        # exp of what is negative only; and no 1 - s, which would lose the digits of a small one.
        power = torch.exp(-(alpha * above).abs())
        return alpha * power / (1 + power).square()
    if kind == ATAN:
        return alpha / 2 / (1 + (math.pi / 2 * alpha * above).square())
    if kind == SOFT_SIGN:
        return alpha / 2 / (1 + (alpha * above).abs()).square()
    return (alpha - alpha**2 * above.abs()).clamp(min=0)


# Numbers in a piece: what the surrogate makes of it stays in the cores' caches.
PIECE = 1 << 17


def of_any(surrogate: Callable[[Tensor], Tensor], voltage: Tensor, threshold: float) -> Tensor:
    """The derivative of an elementwise surrogate at each voltage."""
    slope = torch.empty_like(voltage)
    # Both lie densely, in the same order: any piece of the one is a piece of the other.
    flat = (whole.as_strided((whole.numel(),), (1,)) for whole in (voltage, slope))
    for piece, target in zip(*(whole.split(PIECE) for whole in flat), strict=True):
        leaf = (piece - threshold).requires_grad_()
        with torch.enable_grad():
            smooth = surrogate(leaf)
            target.copy_(torch.autograd.grad(smooth, leaf, torch.ones_like(smooth))[0])
    return slope
