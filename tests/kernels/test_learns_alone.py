"""Every input, decay, state and bias that learns alone has the gradient that it has among all."""

import pytest
import torch
from gpu_cases import OPERATORS, Parameters
from kernel_cases import same

from lava_bridge import use_backend
from lava_bridge.kernels import native

BACKENDS = [
    "torch",
    pytest.param(
        "native",
        marks=pytest.mark.skipif(
            native.missing() is not None, reason=f"no native kernels: {native.missing()}"
        ),
    ),
]


def gradients(name, backend, learns):
    """Gradients of x and of the parameters in turn; only the one of this number learns, or all.

    None where there is none.
    """

    class Some(Parameters):
        def whole(self, low, high):
            return self._learning(super().whole(low, high))

        def between(self, low, high):
            return self._learning(super().between(low, high))

        def _learning(self, number):
            return number.requires_grad_(learns in (None, len(self.made)))

    x = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0)) * 1.5
    x.requires_grad_(learns in (None, 0))
    numbers = Some(x, False, False)
    with use_backend(backend):
        outputs = OPERATORS[name](x, numbers)
        loss = [
            (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(k))).sum()
            for k, y in enumerate(outputs)
            if y.requires_grad
        ]
        made = [x, *numbers.made]
        learning = [tensor for tensor in made if tensor.requires_grad]
        found = torch.autograd.grad(sum(loss), learning, allow_unused=True) if loss else ()
    found = iter(found or [None] * len(learning))
    return [next(found) if tensor.requires_grad else None for tensor in made]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPERATORS)
def test_what_learns_alone_has_the_gradient_that_it_has_among_all(name, backend):
    among_all = gradients(name, backend, None)
    for k, expected in enumerate(among_all):
        alone = gradients(name, backend, k)[k]
        assert (alone is None) == (expected is None), k
        assert expected is None or same(alone, expected), k
