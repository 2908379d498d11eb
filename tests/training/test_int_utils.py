"""``utils.int_utils`` as lava-dl's."""

import torch

from lava_bridge import exchange
from lava_bridge.slayer.utils import int_utils


def test_rounding_to_zero_is_lavas_with_its_gradient(lava):
    from lava.lib.dl.slayer.utils.int_utils import Q2Zero as Lavas

    x = torch.tensor([-2.5, -1.0, -0.3, 0.0, 0.3, 1.0, 2.5, 1e6 + 0.5], requires_grad=True)
    found = [function.apply(x) for function in (int_utils.Q2Zero, Lavas)]
    assert torch.equal(*found)
    slopes = [torch.autograd.grad((y * x.detach()).sum(), x)[0] for y in found]
    assert torch.equal(*slopes)


def test_the_shift_is_the_one_of_the_exchange(lava):
    from lava.lib.dl.slayer.utils.int_utils import right_shift_to_zero as lavas

    assert int_utils.right_shift_to_zero is exchange.right_shift_to_zero
    x = torch.tensor([-9, -8, -1, 0, 1, 8, 9], dtype=torch.int32)
    assert torch.equal(int_utils.right_shift_to_zero(x, 3), lavas(x, 3))
