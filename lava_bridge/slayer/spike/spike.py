"""The threshold spike and its exponential surrogate."""

from typing import Any

from torch import Tensor

from ...ops import spike

__all__ = ["Spike"]


class Spike:
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
    def apply(
        voltage: Tensor,
        threshold: Any,
        tau_rho: float,
        scale_rho: float,
        graded_spike: bool,
        voltage_last: Any,
        scale: float,
    ) -> Tensor:
        """Spikes ``[N, *, T]``, in the dtype of the voltage."""
        return spike.spike(voltage, threshold, (tau_rho, scale_rho, graded_spike), scale)
