r"""Spikes and their surrogate gradients, of a real voltage and of a complex state.

.. math::
    s[t] &= v[t] \ge \vartheta \\
    s[t] &= (\Re z[t] \ge \vartheta)\;(\Im z[t-1] < 0)\;(\Im z[t] \ge 0)
    \qquad\text{(at phase zero)}

and, graded, times :math:`v / c` or :math:`\Re z / c`. The surrogates are those that
:class:`lava_bridge.slayer.spike.Spike` and :class:`lava_bridge.slayer.spike.complex.Spike` tell.

Source: ``lava.lib.dl.slayer.spike``.
"""

from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..errors import BridgeError
from ..quantize import exact_dtype, scalar
from .autograd import no_gradients
from .operator import operator

__all__ = [
    "at_phase_zero", "at_threshold", "phase_slopes", "phase_spike", "require_width", "slope",
    "spike",
]  # fmt: skip

Surrogate = tuple[float, float, bool]


def require_width(tau_rho: float) -> None:
    """Refuse a surrogate gradient of width 0."""
    if tau_rho == 0:
        raise BridgeError(
            "Spike: expected a surrogate gradient of some width, found tau_rho = 0; a neuron's is "
            "a multiple of its threshold, so give it a threshold of 1 / scale or more"
        )


# The torch references ---------------------------------------------------------------------------


def at_threshold(voltage: Tensor, threshold: Any, graded: bool, scale: float = 1) -> Tensor:
    """Spikes ``[N, *, T]`` of a voltage ``[N, *, T]``; no gradient."""
    fired = voltage >= threshold
    return fired * voltage / scale if graded else fired.to(voltage.dtype)


def slope(above: Tensor, tau: float, height: float, graded: bool) -> Tensor:
    """The surrogate's derivative ``above`` (or below) the threshold."""
    if graded:
        return height * torch.exp(above.clamp(max=0) / tau)
    return height * _nascent_delta(above, tau)


def at_phase_zero(
    real: Tensor, imag: Tensor, threshold: Any, imag_last: Tensor, graded: bool, scale: float = 1
) -> Tensor:
    """Spikes ``[N, *, T]`` of a state ``[N, *, T]`` where its phase passes zero; no gradient."""
    first = imag_last.to(imag).expand(imag.shape[:-1]).unsqueeze(-1)
    before = torch.cat([first, imag], dim=-1)[..., :-1]
    fired = (real >= threshold) & (before < 0) & (imag >= 0)
    return fired * real / scale if graded else fired.to(real.dtype)


def phase_slopes(
    above: Tensor, imag: Tensor, tau: float, height: float, graded: bool
) -> tuple[Tensor, Tensor]:
    """The surrogate's derivatives by the real and by the imaginary part."""
    of_real = torch.exp(above.clamp(max=0) / tau) if graded else _nascent_delta(above, tau)
    of_imag = _nascent_delta(imag, tau)
    step = (1 + torch.sign(above) * (1 - 2 * tau * of_real)) / 2
    return height * of_real * of_imag, -height / tau * torch.sign(imag) * of_imag * step


def _nascent_delta(x: Tensor, tau: float) -> Tensor:
    return torch.exp(-x.abs() / tau) / (2 * tau)


# The operators ----------------------------------------------------------------------------------


def _taken(threshold: Tensor, like: Tensor) -> tuple[Tensor | None, Tensor] | None:
    """A threshold as a kernel takes it: a sequence, and numbers that broadcast with ``[N, *]``.

    None: the kernels can't, as what they compare would be of ``like``'s dtype.
    """
    if threshold.dim() == 0:
        return None, threshold.to(like.dtype)
    if torch.promote_types(threshold.dtype, like.dtype) != like.dtype:
        return None
    if threshold.shape[-1] == 1 and threshold.dim() <= like.dim():
        return None, threshold[..., 0]
    return threshold.expand_as(like), threshold.new_zeros(1)


@operator("lava_bridge::spike")
def _spike(
    voltage: Tensor,
    threshold: Tensor,
    tau: float,
    height: float,
    graded: bool,
    scale: float,
    backend: str,
) -> Tensor:
    compiled, taken = kernels.chosen(backend, voltage), _taken(threshold, voltage)
    if compiled is None or taken is None:
        return at_threshold(voltage, threshold, graded, scale)
    inputs, numbers = (voltage, taken[0]), (graded, scale)
    done = kernels.run(compiled, "spike", voltage, inputs, [taken[1]], numbers, [voltage.dtype])
    return done.sequences[0]


@_spike.register_fake
def _(voltage: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(voltage)


@operator("lava_bridge::spike_backward")
def _spike_backward(
    grad: Tensor,
    voltage: Tensor,
    threshold: Tensor,
    tau: float,
    height: float,
    graded: bool,
    backend: str,
) -> Tensor:
    compiled, taken = kernels.chosen(backend, voltage), _taken(threshold, voltage)
    if compiled is None or taken is None:
        above = voltage.to(exact_dtype(voltage)) - threshold
        return torch.empty_like(voltage).copy_(slope(above, tau, height, graded) * grad)
    inputs, numbers = (grad, voltage, taken[0]), (0, tau, height, graded)
    done = kernels.run(
        compiled, "spike_backward", voltage, inputs, [taken[1]], numbers, [voltage.dtype]
    )
    return done.sequences[0]


@_spike_backward.register_fake
def _(grad: Tensor, voltage: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(voltage)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    voltage, threshold, *ctx.surrogate, _, ctx.backend = inputs
    ctx.save_for_backward(voltage, threshold)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    require_width(ctx.surrogate[0])
    found = _spike_backward(grad, *ctx.saved_tensors, *ctx.surrogate, ctx.backend)
    return found, *(None,) * 6


_spike.register_autograd(_gradients, setup_context=_save)
no_gradients(_spike_backward)


@operator("lava_bridge::phase_spike")
def _phase_spike(
    real: Tensor,
    imag: Tensor,
    threshold: Tensor,
    imag_last: Tensor,
    tau: float,
    height: float,
    graded: bool,
    scale: float,
    backend: str,
) -> Tensor:
    compiled, taken = kernels.chosen(backend, real), _taken(threshold, real)
    if compiled is None or taken is None:
        spike = at_phase_zero(real, imag, threshold, imag_last, graded, scale)
        return torch.empty_like(real).copy_(spike)
    inputs, numbers = (real, imag, taken[0]), (graded, scale)
    parameters = taken[1], imag_last
    done = kernels.run(compiled, "phase_spike", real, inputs, parameters, numbers, [real.dtype])
    return done.sequences[0]


@_phase_spike.register_fake
def _(real: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(real)


@operator("lava_bridge::phase_spike_backward")
def _phase_spike_backward(
    grad: Tensor,
    real: Tensor,
    imag: Tensor,
    threshold: Tensor,
    tau: float,
    height: float,
    graded: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    compiled, taken = kernels.chosen(backend, real), _taken(threshold, real)
    if compiled is None or taken is None:
        exact = exact_dtype(real)
        above = real.to(exact) - threshold
        slopes = phase_slopes(above, imag.to(exact), tau, height, graded)
        by_real, by_imag = (torch.empty_like(real).copy_(slope * grad) for slope in slopes)
        return by_real, by_imag
    inputs, numbers = (grad, real, imag, taken[0]), (0, tau, height, graded)
    wanted = [real.dtype, real.dtype]
    done = kernels.run(compiled, "phase_spike_backward", real, inputs, [taken[1]], numbers, wanted)
    return done.sequences[0], done.sequences[1]


@_phase_spike_backward.register_fake
def _(grad: Tensor, real: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(real), torch.empty_like(real)


def _save_phase(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    real, imag, threshold, _, *ctx.surrogate, _, ctx.backend = inputs
    ctx.save_for_backward(real, imag, threshold)


def _phase_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    require_width(ctx.surrogate[0])
    found = _phase_spike_backward(grad, *ctx.saved_tensors, *ctx.surrogate, ctx.backend)
    return *found, *(None,) * 7


_phase_spike.register_autograd(_phase_gradients, setup_context=_save_phase)
no_gradients(_phase_spike_backward)


def _number(x: Any, like: Tensor) -> Tensor:
    """A number as a tensor of ``like``'s dtype, as torch takes it beside ``like``."""
    if isinstance(x, Tensor):
        return x.detach()
    if isinstance(x, int | float):
        # Filled where it is used: a copy to a GPU would wait, and can't be in a CUDA graph.
        return scalar(x, like)
    return torch.as_tensor(x, dtype=like.dtype, device=like.device)


def spike(voltage: Tensor, threshold: Any, surrogate: Surrogate, scale: float = 1) -> Tensor:
    """Spikes of a voltage ``[N, *, T]``, with the exponential surrogate as their gradient.

    Args:
        voltage: In any memory order; spikes come in its dtype and order.
        threshold: A number, or a tensor that broadcasts with ``[N, *, T]``. It gets no gradient.
        surrogate: Width and height of the surrogate, and whether spikes are graded.
        scale: What graded spikes are divided by.
    """
    backend = kernels.current_backend()
    tau, height, graded = surrogate
    return _spike(voltage, _number(threshold, voltage), tau, height, bool(graded), scale, backend)


def phase_spike(
    real: Tensor,
    imag: Tensor,
    threshold: Any,
    imag_last: Any,
    surrogate: Surrogate,
    scale: float = 1,
) -> Tensor:
    """Spikes of a state ``[N, *, T]`` where its phase passes zero.

    ``imag_last``: the imaginary part before the first step, a number or a tensor that broadcasts
    with ``[N, *]``. The rest is :func:`spike`'s; memory order and dtype are the real part's.
    """
    tau, height, graded = surrogate
    numbers = _number(threshold, real), _number(imag_last, imag)
    backend = kernels.current_backend()
    return _phase_spike(real, imag, *numbers, tau, height, bool(graded), scale, backend)
