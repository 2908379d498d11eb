"""What the operators' gradients share."""

import torch
from torch import Tensor

__all__ = ["no_gradients", "reduced"]


def reduced(per_neuron: Tensor, parameter: Tensor) -> Tensor:
    """A gradient ``[N, *]`` summed to the shape of a parameter that broadcasts with it."""
    return per_neuron.sum_to_size(parameter.shape).to(parameter.dtype)


def no_gradients(operator: str) -> None:
    """Say that an operator, itself a gradient, has no gradient."""

    def refuse(ctx: object, *grads: Tensor) -> None:
        raise NotImplementedError(f"{operator}: there is no gradient of a gradient")

    torch.library.register_autograd(operator, refuse)
