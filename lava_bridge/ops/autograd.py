"""What the operators' gradients share."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["in_order", "no_gradients", "reduced"]


def reduced(per_neuron: Tensor, parameter: Tensor) -> Tensor:
    """A gradient ``[N, *]`` summed to the shape of a parameter that broadcasts with it."""
    return per_neuron.sum_to_size(parameter.shape).to(parameter.dtype)


def in_order(grad: Tensor, strides: Sequence[int]) -> Tensor:
    """A gradient in its sequence's order of memory: so it goes back through the layers before."""
    lengths = zip(grad.shape, grad.stride(), strides, strict=True)
    if all(size == 1 or found == wanted for size, found, wanted in lengths):
        return grad
    return grad.new_empty_strided(grad.shape, strides).copy_(grad)


def no_gradients(operator: str) -> None:
    """Say that an operator, itself a gradient, has no gradient."""

    def refuse(ctx: object, *grads: Tensor) -> None:
        raise NotImplementedError(f"{operator}: there is no gradient of a gradient")

    torch.library.register_autograd(operator, refuse)
