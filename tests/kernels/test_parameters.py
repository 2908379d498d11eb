"""Parameters and states of every operator: in half precision too, and where there is no step."""

import gpu_cases
import pytest
import torch
from gpu_cases import OPERATORS, Parameters, outcome
from kernel_cases import same

from lava_bridge.kernels import native
from lava_bridge.slayer import neuron

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

BACKENDS = ("torch", "native")
# Operators that take no parameter in half precision as another dtype than the sequence's.
OF_ONE_DTYPE = ("spike", "graded spike", "phase spike")


def taken_in(dtype, rounded_to):
    """Parameters as the cases draw them, rounded to a dtype and held in another one."""

    class Taken(Parameters):
        def between(self, low, high):
            number = super().between(low, high).detach().to(rounded_to).to(dtype)
            self.made[-1] = number.requires_grad_(self._learned)
            return number

        def whole(self, low, high):
            number = super().between(low, high).detach().round().to(rounded_to).to(dtype)
            self.made[-1] = number.requires_grad_(self._learned)
            return number

    return Taken


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in OF_ONE_DTYPE])
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_parameters_in_half_precision_are_the_numbers_that_they_are(
    name, half, backend, monkeypatch
):
    # Its digits are few, but no reason to compute with few: 1 - d / 4096 has more.
    x = torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(0))
    runs = []
    for dtype in (half, torch.float32):
        monkeypatch.setattr(gpu_cases, "Parameters", taken_in(dtype, half))
        runs.append(outcome(name, backend, x))
    mine, expected = runs
    assert all(map(same, mine.outputs, expected.outputs))
    for found, wanted in zip(mine.gradients, expected.gradients, strict=True):
        if found.shape == x.shape:
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)
        else:
            torch.testing.assert_close(found, wanted.to(found.dtype))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_without_a_step_the_last_states_are_the_first(name, dtype):
    runs = []
    for backend in BACKENDS:
        used = torch.full((1 << 12,), 7e7)  # what memory may hold that nobody wrote to
        del used
        runs.append(outcome(name, backend, torch.zeros(2, 5, 0, dtype=dtype), learned=False))
    for found, expected in zip(runs[1].outputs, runs[0].outputs, strict=True):
        assert same(found, expected)
        assert found.shape in ((2, 5), (2, 5, 0), (0,))
        assert found.numel() == 0 or found.abs().max() < 3e6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operator", ["leaky integrator", "resonator"])
def test_a_last_step_that_half_precision_cannot_hold_says_nothing_of_the_decays(operator, backend):
    x = torch.ones(2, 20, 7, dtype=torch.float16)
    x[..., -2:] = 6e4
    grads = outcome(operator, backend, x).gradients
    assert outcome(operator, backend, x).outputs[0][..., -1].isinf().all()
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("scale", [7, 100])
def test_decays_that_are_learned_later_have_the_same_gradient(scale):
    x, weight = torch.randn(2, 4, 50, 60, generator=torch.Generator().manual_seed(0)) * 0.3

    def gradients(at_once):
        made = neuron.cuba.Neuron(1.0, 0.3, 0.03, scale=scale, requires_grad=at_once)
        made.requires_grad_()
        return torch.autograd.grad(made(x), list(made.parameters()), weight)

    for one, other in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
