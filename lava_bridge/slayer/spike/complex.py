"""The spike at phase zero and its surrogate."""

from typing import Any

from torch import Tensor

from ...ops import spike

__all__ = ["Spike"]


class Spike:
    r"""Spikes of a complex state that is large enough where its phase passes zero.

    .. math::
        s[t] &= (\Re z[t] \ge \vartheta)\;(\Im z[t-1] < 0)\;(\Im z[t] \ge 0)
        \qquad\text{(graded: } s\,\Re z / c) \\
        \delta(x) &= \tfrac{1}{2\tau} e^{-|x| / \tau}, \qquad
        H(x) = \tfrac12 \bigl(1 + \mathrm{sgn}(x)(1 - 2 \tau \delta(x))\bigr) \\
        \partial s / \partial \Re z &:= \sigma\,\delta(\Re z - \vartheta)\,\delta(\Im z), \qquad
        \partial s / \partial \Im z :=
        -\tfrac{\sigma}{\tau}\,\mathrm{sgn}(\Im z)\,\delta(\Im z)\,H(\Re z - \vartheta)

    (graded: :math:`e^{\min(\Re z - \vartheta,\,0) / \tau}` in place of
    :math:`\delta(\Re z - \vartheta)`).

    ``Spike.apply(real, imag, threshold, tau_rho, scale_rho, graded_spike, imag_last, scale)``:

    - ``real``, ``imag``: ``[N, *, T]``; ``threshold``: :math:`\vartheta`, a number or a tensor that
      broadcasts;
    - ``tau_rho``, ``scale_rho``: the surrogate's width :math:`\tau` and height :math:`\sigma`;
    - ``graded_spike``: whether a spike carries its real part, over ``scale`` (c);
    - ``imag_last``: the imaginary part before the first step, broadcasts with ``[N, *]``.

    Source: ``lava.lib.dl.slayer.spike.complex.Spike``.
    """

    @staticmethod
    def apply(
        real: Tensor,
        imag: Tensor,
        threshold: Any,
        tau_rho: float,
        scale_rho: float,
        graded_spike: bool,
        imag_last: Any,
        scale: float,
    ) -> Tensor:
        """Spikes ``[N, *, T]``, in the dtype of the real part."""
        surrogate = tau_rho, scale_rho, graded_spike
        return spike.phase_spike(real, imag, threshold, imag_last, surrogate, scale)
