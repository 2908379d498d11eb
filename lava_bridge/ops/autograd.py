"""What the operators' gradients share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..quantize import exact_dtype
from .operator import Operator

__all__ = [
    "before_last",
    "in_order",
    "last_of",
    "no_gradients",
    "per_neuron",
    "reduced",
    "summed",
]


def per_neuron(x: Tensor, wanted: bool = True) -> Tensor:
    """An empty tensor ``[N, *]`` in the order of ``[N, *, T]``, in the dtype computed in.

    It is what :func:`lava_bridge.kernels.run` gives as a result: empty if that is not wanted.
    """
    if not wanted:
        return x.new_empty(0, dtype=exact_dtype(x))
    like = x[..., 0] if x.shape[-1] else x.new_empty(x.shape[:-1])
    return torch.empty_like(like, dtype=exact_dtype(x))


def summed(products: Tensor, x: Tensor) -> Tensor:
    """Sums over time of ``[N, *, T]``, as a kernel on ``x`` leaves them."""
    return per_neuron(x).copy_(products.sum(-1))


def last_of(steps: Tensor, first: Tensor) -> Tensor:
    """A copy of a sequence's last step ``[N, *]``; without a step, of the state before it."""
    if steps.shape[-1]:
        return steps[..., -1].clone()
    return per_neuron(steps).copy_(first)


def before_last(states: Tensor) -> Tensor:
    """States ``[N, *, T]`` for a kernel that multiplies the last ones by 0.

    Half precision may have overflowed there, and 0 times infinity is no 0.
    """
    if states.dtype == exact_dtype(states):
        return states
    states = states.to(exact_dtype(states))
    states[..., -1:] = 0
    return states


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
