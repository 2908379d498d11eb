"""The spike at phase zero and its surrogate."""

import torch
from torch import Tensor

from .spike import require_width

__all__ = ["Spike"]


class Spike(torch.autograd.Function):
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
    def forward(ctx, real, imag, threshold, tau_rho, scale_rho, graded_spike, imag_last, scale):
        first = torch.as_tensor(imag_last).to(imag).expand_as(imag[..., 0]).unsqueeze(-1)
        before = torch.cat([first, imag[..., :-1]], dim=-1)
        fired = (real >= threshold) & (before < 0) & (imag >= 0)
        ctx.save_for_backward(real, imag)
        ctx.surrogate = threshold, tau_rho, scale_rho, graded_spike
        return fired * real / scale if graded_spike else fired.to(real.dtype)

    @staticmethod
    def backward(ctx, *grad_outputs):
        real, imag = ctx.saved_tensors
        threshold, tau_rho, scale_rho, graded_spike = ctx.surrogate
        require_width(tau_rho)
        above = real - threshold
        if graded_spike:
            of_real = torch.exp(above.clamp(max=0) / tau_rho)
        else:
            of_real = _nascent_delta(above, tau_rho)
        of_imag = _nascent_delta(imag, tau_rho)
        step = (1 + torch.sign(above) * (1 - 2 * tau_rho * of_real)) / 2
        by_real = scale_rho * of_real * of_imag
        by_imag = -scale_rho / tau_rho * torch.sign(imag) * of_imag * step
        (grad,) = grad_outputs
        return grad * by_real, grad * by_imag, None, None, None, None, None, None


def _nascent_delta(x: Tensor, tau_rho: float) -> Tensor:
    return torch.exp(-x.abs() / tau_rho) / (2 * tau_rho)
