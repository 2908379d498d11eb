"""The sums over time of the backward kernels: right however many steps, on any path the same."""

import pytest
import torch
from kernel_cases import INSTRUCTION_SETS, laid_out

from lava_bridge import kernels
from lava_bridge.kernels import native

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

SURROGATE = 0.5, 1.0, 1.0, 0.0
# Of each kernel its inputs, parameters, numbers and outputs, and which of its results are sums.
DECAYS = 400.0, 1024.0
KERNELS = {
    "leaky_integrator_backward": (2, DECAYS[:1], (), 1, (0,)),
    "cuba_slayer_backward": (2, (*DECAYS, 0, 0), (64.0, 32.0, *SURROGATE), 1, (0, 1, 2)),
    "cuba_reset_backward": (5, (*DECAYS, 0, 0, 0, 0, 0), (64.0, 2, 1, 0), 1, (0, 1, 4)),
    "alif_backward": (4, DECAYS, SURROGATE, 1, (0, 1)),
    "resonator_backward": (4, DECAYS, (), 2, (1,)),
    "izhikevich_backward": (4, DECAYS, SURROGATE, 2, (1,)),
    # Without a turn, and one part of the state: the sine's products have one sign, too.
    "resonator_backward of the sine": (4, (0, 1024.0), (), 2, (0,)),
    "izhikevich_backward of the sine": (4, (0, 1024.0), SURROGATE, 2, (0,)),
}


def sums(kernel, steps, dtype, order=(0, 1, 2), backend=native):
    """Where all that comes in is 0 or more, and exact on a grid of 1/64."""
    inputs, parameters, numbers, outputs, results = KERNELS[kernel]
    generator = torch.Generator().manual_seed(1)
    parts = [
        laid_out((torch.rand(1, 48, steps, generator=generator) * 30).round().to(dtype) / 64, order)
        for _ in range(inputs)
    ]
    kernel, _, alone = kernel.partition(" of the ")
    if alone:
        parts[2] = None
    wanted = [k in results for k in range(5)]
    given = [torch.tensor([float(number)]) for number in parameters]
    outs = [dtype] * outputs
    done = kernels.run(backend, kernel, parts[0], parts, given, numbers, outs, wanted)
    return [done.neurons[k] for k in results]


@pytest.mark.parametrize("kernel", KERNELS)
def test_sums_of_one_sign_stay_right_over_30000_steps(kernel):
    for mine, exact in zip(
        sums(kernel, 30_000, torch.float32), sums(kernel, 30_000, torch.float64), strict=True
    ):
        assert exact.abs().min() > 100
        torch.testing.assert_close(mine.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_delays_sums_stay_right_over_30000_steps(order):
    # 0.1 at every other step, and the gradient where it falls from that to 0.
    odd = (torch.arange(30_000) % 2).expand(1, 48, 30_000)
    grad, output = (laid_out(part.float(), order) for part in (odd, 0.1 * (1 - odd)))
    inputs, wanted = (grad, output), ([None], [True])
    done = kernels.run(native, "delay_gradient", output, inputs, (), (), *wanted)
    exact = 15_000 * torch.tensor(0.1).double().expand(1, 48)
    torch.testing.assert_close(done.neurons[0].double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("steps", [64, 65, 150, 192])
def test_sums_are_the_same_in_every_order_and_instruction_set(kernel, steps, monkeypatch):
    expected = sums(kernel, steps, torch.float32)
    assert any(total.any() for total in expected)
    for instructions in INSTRUCTION_SETS[: len(native._native.instruction_sets())]:
        monkeypatch.setattr(native, "instructions", instructions)
        for order in ((0, 1, 2), (2, 0, 1)):
            for mine, first in zip(
                sums(kernel, steps, torch.float32, order), expected, strict=True
            ):
                assert torch.equal(mine, first)
