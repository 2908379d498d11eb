r"""Correlation in time with one kernel for all channels, and its faster way back.

.. math:: y[t] = \sum_{k=0}^{K-1} h[k]\; p[t + k]

of a sequence p that has zeros before and after it. Forward it is the convolution of torch that
slayer calls: outputs are the same to the last bit. Torch's own gradient of that takes up to four
times its forward; here the input's is a product with a band matrix.

Source: ``lava.lib.dl.slayer.utils.filter.conv``.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.grad import conv3d_weight

__all__ = ["correlate"]

# A block of fewer steps makes a matrix too narrow to be multiplied fast. The windows are copies and
# twice as long as blocks of K steps; with a longer kernel they would take too much memory.
_LEAST_BLOCK, _LONGEST_KERNEL = 32, 512

# With fewer products than this, torch's own gradient is done before ours has begun.
_WORTHWHILE = 1 << 17


def _convolved(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    return F.conv3d(_as_images(x, before, after), kernel.reshape(1, 1, 1, 1, -1)).reshape(x.shape)


def _as_images(x: Tensor, before: int = 0, after: int = 0) -> Tensor:
    batch = x.shape[0] if x.dim() > 1 else 1
    return F.pad(x.reshape(batch, 1, 1, -1, x.shape[-1]), (before, after))


def _multiplied(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    """The same up to rounding: each block of B steps is its window times ``[B + K - 1, B]``."""
    steps, reach = x.shape[-1], kernel.numel() - 1
    block = max(min(steps, reach + 1), _LEAST_BLOCK)
    rest = -steps % block
    windows = F.pad(x, (before, after + rest)).unfold(-1, block + reach, block)
    band = F.pad(kernel, (block - 1, block - 1)).unfold(0, block, 1).flip(-1)
    return torch.matmul(windows, band).reshape(*x.shape[:-1], -1)[..., :steps]


def _is_finite_on_cpu(grad: Tensor) -> bool:
    """Else the matrix's zeros would make NaN of whole blocks; a GPU would have to be waited for."""
    try:
        return grad.is_cpu and bool(torch.isfinite(grad.sum()))
    except RuntimeError:  # a batch of gradients (`is_grads_batched`), or one without data
        return False


class _Correlate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
        ctx.zeros = before, after
        ctx.save_for_backward(kernel, *[x] * ctx.needs_input_grad[1])
        return _convolved(x, kernel, before, after)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (kernel, *saved) = grads, ctx.saved_tensors
        (before, after), grad_x, grad_kernel = ctx.zeros, None, None
        if ctx.needs_input_grad[0]:
            short = kernel.numel() <= _LONGEST_KERNEL
            back = _multiplied if short and _is_finite_on_cpu(grad) else _convolved
            grad_x = back(grad, kernel.flip(-1), after, before)
        for x in saved:
            shape = (1, 1, 1, 1, kernel.numel())
            images = _as_images(x, before, after), _as_images(grad)
            grad_kernel = conv3d_weight(images[0], shape, images[1]).reshape(-1)
        return grad_x, grad_kernel, None, None


def correlate(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    """Correlate ``[N, *, T]`` or ``[T]`` with a kernel ``[K]`` of its dtype; both get a gradient.

    There are ``before`` zeros before x and ``after`` after it, K - 1 together: T steps go out.
    """
    plain = (  # what is compiled or exported, and the transforms of torch.func, want torch's own
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or not (torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad))
        or x.numel() * kernel.numel() < _WORTHWHILE
    )
    return (_convolved if plain else _Correlate.apply)(x, kernel, before, after)
