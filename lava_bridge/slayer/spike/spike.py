"""The threshold spike and its exponential surrogate."""

import torch

from ...errors import BridgeError

__all__ = ["Spike", "require_width"]


class Spike(torch.autograd.Function):
    r"""Spikes where the voltage reaches the threshold.

    .. math::
        s &= \mathcal{H}(v - \vartheta) \qquad\text{(graded: } v\,\mathcal{H}(v - \vartheta) / c) \\
        \partial s / \partial v &:= \frac{\sigma}{2 \tau} e^{-|v - \vartheta| / \tau}
        \qquad\text{(graded: } \sigma e^{\min(v - \vartheta,\,0) / \tau})

    ``Spike.apply(voltage, threshold, tau_rho, scale_rho, graded_spike, voltage_last, scale)``:

    - ``voltage``: ``[N, *, T]``, before the reset; ``threshold``: :math:`\vartheta`, a number or a
      tensor that broadcasts;
    - ``tau_rho``, ``scale_rho``: the surrogate's width :math:`\tau` and height :math:`\sigma`;
    - ``graded_spike``: whether a spike carries its voltage, over ``scale`` (c);
    - ``voltage_last``: the voltage before the first step (unused, slayer passes it).

    Source: ``lava.lib.dl.slayer.spike.Spike``.
    """

    @staticmethod
    def forward(ctx, voltage, threshold, tau_rho, scale_rho, graded_spike, voltage_last, scale):
        ctx.save_for_backward(voltage)
        ctx.surrogate = threshold, tau_rho, scale_rho, graded_spike
        fired = voltage >= threshold
        return fired * voltage / scale if graded_spike else fired.to(voltage.dtype)

    @staticmethod
    def backward(ctx, *grad_outputs):
        (voltage,) = ctx.saved_tensors
        threshold, tau_rho, scale_rho, graded_spike = ctx.surrogate
        require_width(tau_rho)
        above = voltage - threshold
        if graded_spike:
            slope = scale_rho * torch.exp(above.clamp(max=0) / tau_rho)
        else:
            slope = scale_rho / 2 / tau_rho * torch.exp(-above.abs() / tau_rho)
        return slope * grad_outputs[0], None, None, None, None, None, None


def require_width(tau_rho: float) -> None:
    """Refuse a surrogate gradient of width 0."""
    if tau_rho == 0:
        raise BridgeError(
            "Spike: expected a surrogate gradient of some width, found tau_rho = 0; a neuron's is "
            "a multiple of its threshold, so give it a threshold of 1 / scale or more"
        )
