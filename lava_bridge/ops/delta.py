r"""The delta encoder: send what changed since the last message, once it is large enough.

.. math::
    d[t] &= x[t] - x[t-1] + \rho[t-1], \qquad e[t] = d[t] \;(\text{cumulated: } e[t-1] + d[t]) \\
    y[t] &= d[t]\,\mathcal{H}(|e[t]| - \vartheta), \qquad
    \rho[t] = d[t] - y[t], \qquad e[t] \leftarrow e[t]\,(y[t] = 0)

Source: ``lava.lib.dl.slayer.axon.delta``.
"""

import torch
from torch import Tensor

__all__ = ["dynamics"]


class _Delta(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, threshold, before, residual, error, cum_error, tau_grad, scale_grad):
        changes, output = torch.empty_like(x), torch.empty_like(x)
        for t in range(x.shape[-1]):
            change = x[..., t] - before + residual
            error = error + change if cum_error else change
            sent = torch.where(error.abs() >= threshold, change, 0)
            error = error * (sent == 0)
            residual, before = change - sent, x[..., t]
            changes[..., t], output[..., t] = change, sent
        ctx.save_for_backward(changes, threshold)
        ctx.surrogate = tau_grad, scale_grad
        ctx.mark_non_differentiable(residual, error)
        return output, residual, error

    @staticmethod
    def backward(ctx, *grad_outputs):
        changes, threshold = ctx.saved_tensors
        tau_grad, scale_grad = ctx.surrogate
        grad = grad_outputs[0]
        grad_x = grad.clone()
        grad_x[..., :-1] -= grad[..., 1:]
        grad_threshold = None
        if ctx.needs_input_grad[1]:
            level = threshold.unsqueeze(-1)
            above = changes.abs() - level
            near = scale_grad * torch.exp(-above.abs() / tau_grad)
            slope = torch.where(above > 0, -changes * near / level, -changes.sign())
            grad_threshold = (slope * grad).sum(-1).sum_to_size(threshold.shape)
            grad_threshold = grad_threshold.to(threshold.dtype)
        return grad_x, grad_threshold, None, None, None, None, None, None


def dynamics(
    x: Tensor,
    threshold: Tensor,
    before: Tensor,
    residual: Tensor,
    error: Tensor,
    cum_error: bool = False,
    tau_grad: float = 1,
    scale_grad: float = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Messages y ``[N, *, T]``, and the last residual :math:`\rho` and error e ``[N, *]``.

    ``x`` is ``[N, *, T]``; the threshold, and x, :math:`\rho` and e before the first step
    (``before``, ``residual``, ``error``), broadcast with ``[N, *]``. The gradient of ``x`` is that
    of sending always, :math:`g[t] - g[t+1]`; that of the threshold is slayer's surrogate, of width
    ``tau_grad`` and height ``scale_grad``.
    """
    states = (state.to(x.dtype) for state in (before, residual, error))
    return _Delta.apply(x, threshold, *states, cum_error, tau_grad, scale_grad)
