"""What operators say of their outputs without data is what these are: backwards and forwards."""

import pytest
import torch
from gpu_cases import OPERATORS, outcome
from kernel_cases import laid_out, numbers, orders
from torch._subclasses.fake_utils import CrossRefFakeMode

from lava_bridge.kernels import native

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("backend", ["torch", "native"])
def test_shapes_dtypes_and_orders_in_memory(name, backend):
    half = laid_out(numbers((2, 3, 4, 5), 0, 1.0, torch.float16), orders(4)[3])
    for x in (half, laid_out(half.float(), orders(4)[1])):
        with CrossRefFakeMode():
            outcome(name, backend, x)
