"""Every operator is for torch what it says it is: torch.library.opcheck, on what callers give it.

Compilers plan memory by what an operator's fake says of its outputs: dtypes, shapes and strides.
"""

import pytest
import torch
from gpu_cases import OPERATORS, outcome
from kernel_cases import laid_out, numbers, orders

from lava_bridge.kernels import native
from lava_bridge.ops import operator as operator_module

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

# For each operator and backend so many calls that differ in more than numbers.
MOST = 8


def kind(x):
    """What an operator's outputs may depend on."""
    if isinstance(x, torch.Tensor):
        return x.dtype, x.shape, x.stride(), x.requires_grad
    return x


def leaf(x):
    return x.detach().clone().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x


@pytest.mark.parametrize("name", OPERATORS)
def test_fakes_and_schemas_say_what_the_operators_do(name, monkeypatch):
    calls: dict[tuple, tuple] = {}
    call = operator_module.Operator.__call__

    def seen(operator, *args):
        calls.setdefault((operator, *map(kind, args)), tuple(map(leaf, args)))
        return call(operator, *args)

    with monkeypatch.context() as patch:
        patch.setattr(operator_module.Operator, "__call__", seen)
        for backend in ("torch", "native"):
            for dtype in (torch.float32, torch.bfloat16):
                for k, order in enumerate(orders(4)):
                    x = laid_out(numbers((2, 3, 2, 5), k, 2.0, dtype), order)
                    outcome(name, backend, x, shared=False)
    checks = "test_schema", "test_autograd_registration", "test_faketensor"
    count: dict[tuple, int] = {}
    for (operator, *_, backend), args in calls.items():
        count[operator, backend] = count.get((operator, backend), 0) + 1
        if count[operator, backend] <= MOST:
            torch.library.opcheck(operator.registered, args, test_utils=checks)
    assert calls
