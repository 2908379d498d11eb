"""What the operators' gradients share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..quantize import exact_dtype
from .operator import Operator

__all__ = ["in_order", "no_gradients", "per_neuron", "reduced"]


def per_neuron(x: Tensor, wanted: bool = True) -> Tensor:
    """An empty tensor ``[N, *]`` in the order of ``[N, *, T]``, in the dtype computed in.

    It is what :func:`lava_bridge.kernels.run` gives as a result: empty if that is not wanted.
    """
    if not wanted:
        return x.new_empty(0, dtype=exact_dtype(x))
    like = x[..., 0] if x.shape[-1] else x.new_empty(x.shape[:-1])
    return torch.empty_like(like, dtype=exact_dtype(x))


def reduced(sums: Tensor, parameter: Tensor) -> Tensor:
    """A gradient ``[N, *]`` summed to the shape of a parameter that broadcasts with it."""
    return sums.sum_to_size(parameter.shape).to(parameter.dtype)


def in_order(grad: Tensor, strides: Sequence[int]) -> Tensor:
    """A gradient in its sequence's order of memory: so it goes back through the layers before."""
    lengths = zip(grad.shape, grad.stride(), strides, strict=True)
    if all(size == 1 or found == wanted for size, found, wanted in lengths):
        return grad
    return grad.new_empty_strided(grad.shape, strides).copy_(grad)


def no_gradients(operator: Operator) -> None:
    """Say that an operator, itself a gradient, has no gradient.

    A surrogate stands for a derivative that is 0: it has none of its own that would mean anything.
    """

    def refuse(ctx: object, *grads: Tensor) -> None:
        # Torch's own word for what it can't differentiate: it is a RuntimeError.
        raise NotImplementedError(
            f"{operator.name}: there is no gradient of a gradient; leave it out of the loss"
        )

    operator.register_autograd(refuse)
