r"""The sigma decoder: the sum over time of what a delta encoder sent.

.. math::
    y[t] = \sum_{\tau \le t} x[\tau] + s

with the sum s before the first step. It is summed in double precision and rounded at each step, as
:func:`torch.cumsum` does on the CPU (half precision: in single), before s is added. The gradient of
x is the same sum from the last step back.

Source: ``lava.lib.dl.slayer.dendrite.sigma``.
"""

from typing import Any

import torch
from torch import Tensor

from .. import kernels
from .autograd import in_order
from .operator import operator

__all__ = ["dynamics"]


@operator("lava_bridge::sigma")
def _sigma(x: Tensor, state: Tensor | None, reverse: bool, backend: str) -> Tensor:
    compiled = kernels.chosen(backend, x)
    if compiled is not None and x.dtype in (torch.float32, torch.float64):
        name, states = "sigma_backward" if reverse else "sigma", [] if state is None else [state]
        return kernels.run(compiled, name, x, [x], states, [], [x.dtype]).sequences[0]
    sums = torch.empty_like(x)
    if reverse:
        sums.copy_(x.flip(-1).cumsum(-1).flip(-1))
    else:
        torch.cumsum(x, -1, out=sums)
    return sums if state is None else sums.add_(state.to(x.dtype).unsqueeze(-1))


@_sigma.register_fake
def _(x: Tensor, state: Tensor | None, reverse: bool, backend: str) -> Tensor:
    return torch.empty_like(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, ctx.reverse, ctx.backend = inputs
    ctx.strides = output.stride()


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x = _sigma(in_order(grad, ctx.strides), None, not ctx.reverse, ctx.backend)
    return grad_x, None, None, None


_sigma.register_autograd(_gradients, setup_context=_save)


def dynamics(x: Tensor, state: Tensor | None = None) -> Tensor:
    """Sums y ``[N, *, T]`` of x ``[N, *, T]``, in its dtype and memory order.

    ``state`` is the sum before the first step (None: 0), and broadcasts with ``[N, *]``; it gets no
    gradient.
    """
    held = None if state is None else state.detach()
    return _sigma(x, held, False, kernels.current_backend())
