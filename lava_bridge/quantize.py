"""Quantisers: onto a grid and onto 8-bit weights; and the chip's arithmetic with decays."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from .errors import BridgeError

__all__ = [
    "BIAS_MAX",
    "BIAS_MIN",
    "DECAY_BITS",
    "DECAY_SCALE",
    "WEIGHT_MAX",
    "WEIGHT_MIN",
    "all_finite",
    "decayed",
    "elementwise",
    "exact_dtype",
    "from_steps",
    "held_by_8bit",
    "inside_circle",
    "integers",
    "kept",
    "quantize_8bit",
    "quantize_bias",
    "quantize_down",
    "right_shift_to_zero",
    "step_quantize",
    "step_quantize_atgf",
    "straight_through",
    "threshold_eps",
    "truncate",
    "unquantized",
]

# Loihi holds a signed synaptic weight in 8 bits, the lowest of which is spent on the sign: the
# descaled weights are the 256 even integers from -256 to 254 (slayer's neuron.quantize_8bit).
WEIGHT_MIN = -256
WEIGHT_MAX = 254

# Weights that are looked at together.
SLICE = 1 << 18

# A bias mantissa has 13 bits, one of them its sign (lava-nc, lava.proc.lif.models: bias_mant).
BIAS_MIN = -(1 << 12)
BIAS_MAX = (1 << 12) - 1

# Loihi's compartment decays are 12-bit fractions: 4096 forgets everything in one step.
DECAY_BITS = 12
DECAY_SCALE = 1 << DECAY_BITS


_Quantiser = TypeVar("_Quantiser", bound=Callable[..., Tensor])

# In steps of a CUBA neuron's state: what slayer adds to a threshold.
THRESHOLD_EPS = 0.01


def _float32(x: float) -> float:
    """A number as float32 holds it (Veltkamp's splitting): torch.compile can trace this."""
    shifted = x * ((1 << 29) + 1)
    return shifted - (shifted - x)


def threshold_eps(threshold: float | None, s_scale: int) -> float:
    """What is added to a CUBA threshold so that ``>=`` here is ``>`` on the chip.

    It is slayer's hundredth of a state's step. From thresholds of 64 on (at a scale of 64) that is
    below float32's resolution, so that a voltage at the threshold would spike here but not on the
    chip: there it is half a step, which float32 holds up to the chip's 17 bits.
    """
    eps = THRESHOLD_EPS / s_scale
    if threshold is not None and _float32(threshold + eps) == _float32(threshold):
        return 0.5 / s_scale
    return eps


def elementwise(quantiser: _Quantiser) -> _Quantiser:
    """Mark a quantiser that takes each element by itself: rows can be quantised one by one."""
    quantiser.elementwise = True  # type: ignore[attr-defined] # a mark on a function
    return quantiser


def all_finite(x: Tensor) -> bool:
    """Whether no element is NaN or infinite; holds no second tensor, however large ``x`` is."""
    if not x.numel() or not x.is_floating_point():
        return True
    low, high = torch.aminmax(x.detach())
    return bool(torch.isfinite(low)) and bool(torch.isfinite(high))


class step_quantize_atgf(torch.autograd.Function):
    r"""Rounding onto multiples of a step, with the identity as its gradient.

    .. math:: y = \mathrm{round}(x / \mathrm{step}) \cdot \mathrm{step}, \qquad
              \partial y / \partial x := 1
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float = 1.0) -> Tensor:
        # Decays are rounded in every forward, to whole numbers: nothing need be divided.
        if isinstance(step, (int, float)) and step == 1 and x.is_floating_point():
            return torch.round(x)
        return torch.round(x / step) * step

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0], None


class _StraightThrough(torch.autograd.Function):
    """``y``, with the gradient of ``x``: of the form that torch.func asks for, slower to call."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0], None


def scalar(x: float, like: Tensor) -> Tensor:
    """A number as a tensor of ``like``'s dtype, made on its device: nothing is copied there."""
    # (What is too large for the dtype is infinite, as of torch.tensor; filling it would raise.)
    return like.new_full((), x, dtype=torch.float64).to(like.dtype)


def straight_through(function: type[torch.autograd.Function], x: Tensor, step: float) -> Tensor:
    """``function.apply(x, step)`` of a rounding whose gradient is the identity; torch.func too."""
    if torch.compiler.is_compiling():
        return function.apply(x, step)
    if torch._C._are_functorch_transforms_active():
        return _StraightThrough.apply(x, function.forward(None, x.detach(), step))
    if not x.requires_grad and not isinstance(step, Tensor) and forward_ad._current_level < 0:
        return function.forward(None, x, step)  # nobody asks for its gradient
    return function.apply(x, step)


def step_quantize(x: Tensor, step: float = 1) -> Tensor:
    """Round ``x`` to the nearest multiple of ``step``; the gradient passes straight through.

    Halves round to the even multiple, as :func:`torch.round` does.
    """
    # (torch.compile(dynamic=True) takes a default of 1.0 for a variable: its 2nd call would fail.)
    return straight_through(step_quantize_atgf, x, step)


@elementwise
def quantize_8bit(x: Tensor, scale: float, descale: bool = False) -> Tensor:
    """Round weights to what 8 bits hold: ``2k / scale`` with k in -128 ... 127.

    .. math:: y = \\mathrm{clamp}(\\mathrm{round}(x\\,s/2) \\cdot 2/s,\\; -256/s,\\; 254/s)

    Args:
        x: Weights, of any shape.
        scale: The integer that stands for a weight of 1.
        descale: Give the integers themselves (even, -256 ... 254) in place of the scaled weights.

    Source: ``lava.lib.dl.slayer.neuron.base.Neuron.quantize_8bit``. (SpikingJelly's function of
    this name clamps at ``255 / scale``, which is not a weight that 8 bits can hold.)
    """
    quantized = step_quantize(x, 2 / scale).clamp(WEIGHT_MIN / scale, WEIGHT_MAX / scale)
    return quantized * scale if descale else quantized


def held_by_8bit(weight: Tensor, scale: float) -> bool:
    """Whether 8 bits hold weights as they are; some at a time, so that no second copy is held."""
    parts = weight.detach().flatten().split(SLICE)
    return all(torch.equal(quantize_8bit(part, scale), part) for part in parts)


def quantize_bias(x: Tensor, scale: float, descale: bool = False) -> Tensor:
    """Round biases to what 13 bits hold: ``k / scale`` with k in -4096 ... 4095.

    .. math:: y = \\mathrm{clamp}(\\mathrm{round}(x\\,s),\\; -4096,\\; 4095) / s

    The gradient passes straight through, but not where the bias is clamped.

    Args:
        x: Biases, of any shape.
        scale: The integer that stands for a weight of 1.
        descale: Give the integers k themselves.

    Source: ``bias_mant`` of ``lava.proc.lif`` (lava-nc 0.10.0).
    """
    steps = step_quantize(x * scale).clamp(BIAS_MIN, BIAS_MAX)
    return steps if descale else steps / scale


@elementwise
def unquantized(x: Tensor, descale: bool = False) -> Tensor:
    """``x`` itself: the hook of a layer that has no quantiser."""
    return x


def quantize_down(threshold: float, scale: int) -> float:
    """The largest ``k / scale`` that is not above ``threshold`` (for thresholds of 0 and more)."""
    return int(threshold * scale) / scale


def from_steps(steps: int, scale: int) -> float:
    """``steps / scale``, rounded so that :func:`quantize_down` comes back to these steps."""
    value = steps / scale
    return (
        value
        if int(value * scale) == steps
        else math.nextafter(value, math.copysign(math.inf, value))
    )


def right_shift_to_zero(x: Tensor, bits: int) -> Tensor:
    """Shift integers right, rounding toward zero: ``sign(x) * (|x| >> bits)``.

    Raises:
        BridgeError: If ``x`` is neither int32 nor int64, or ``bits`` not in 0 ... 30 or 62.
    """
    if x.dtype not in (torch.int32, torch.int64):
        raise BridgeError(
            f"right_shift_to_zero: expected int32 or int64, found {x.dtype}; "
            "scale and cast the values first"
        )
    most = torch.iinfo(x.dtype).bits - 2  # 2**bits is a number of this type
    if not 0 <= bits <= most:
        raise BridgeError(
            f"right_shift_to_zero: expected 0 ... {most} bits for {x.dtype}, found {bits}"
        )
    # The same in one operation, and right for the lowest integer, whose abs() overflows.
    return torch.div(x, 1 << bits, rounding_mode="trunc")


def exact_dtype(x: Tensor) -> torch.dtype:
    """The dtype to scale ``x`` in: half precision overflows at 16 when it is scaled by 4096."""
    return x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32


def integers(x: Tensor, scale: float = 1) -> Tensor:
    """``trunc(scale * x)`` as integers of 64 bits; no gradient."""
    x = x.detach()
    return (scale * x.to(exact_dtype(x))).to(torch.int64)


def truncate(x: Tensor, scale: float) -> Tensor:
    """``trunc(scale * x) / scale``, as a neuron takes its input.

    The gradient passes straight through. float16 and bfloat16 are truncated in float32.
    """
    x = x.to(exact_dtype(x))
    return x + (integers(x, scale).to(x.dtype) / scale - x).detach()


def kept(decay: Tensor) -> Tensor:
    """What a decay ``d`` in 0 ... 4096 leaves of a state, ``4096 - d``."""
    return DECAY_SCALE - decay.detach().to(torch.int64)


def decayed(state: Tensor, factor: Tensor) -> Tensor:
    """``sign(state * factor) * (|state * factor| >> 12)``: a state times a 12-bit fraction."""
    return right_shift_to_zero(state * factor, DECAY_BITS)


def inside_circle(sine: Any, cosine: Any) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that round to these decays of a resonator, and that it does not shrink.

    It holds its decays in a circle of 4095 and rounds them then: the integers may lie half a step
    outside.
    """
    inward = 0.499 * (np.hypot(sine, cosine) > DECAY_SCALE - 1)
    return np.maximum(sine - inward, np.minimum(sine, 1)), np.maximum(cosine - inward, 0)
