"""One neuron in Loihi's arithmetic with one number that 24 bits do not hold: the kernels notice it.

Elsewhere such numbers come among others: any of them has the neurons beside it run in 64 bits.
"""

import pytest
import torch
from compared import assert_same
from loihi_cases import CASES

from lava_bridge.kernels import native
from lava_bridge.ops import loihi

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

ZERO = torch.zeros(1, dtype=torch.float64)


def assert_the_references(operator, *sequences, **settings):
    """Of each output the first neuron's last number."""
    mine, reference = (operator(*sequences, **settings, backend=b) for b in ("native", "torch"))
    assert_same(mine, reference)
    return [y.flatten()[-1].item() for y in mine if y.numel()]


def steps(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("state", [2**28, -(2**28), 2**31 - 1, -(2**31)])
def test_a_first_state_of_which_little_is_left(part, state):
    # A shift by 12 bits is what such a decay leaves: nothing that comes out is large.
    decays, states = (ZERO + 4095, ZERO + 4095), [ZERO, ZERO]
    states[part] = ZERO + state
    found = assert_the_references(loihi.lif, steps(0), *decays, ZERO, ZERO + 2**22, *states)
    assert abs(found[1 + part]) >= 2**16
    for operator in (loihi.rf, loihi.rf_iz):
        parameters = ZERO, ZERO + 1, ZERO + 2**22, *states
        found = assert_the_references(operator, steps(0), None, *parameters)
        assert abs(found[1 + part]) >= 2**16


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("operator", [loihi.rf, loihi.rf_iz])
def test_an_input_that_wraps(operator, part):
    inputs = [steps(0, 0), steps(0, 0)]
    inputs[part] = steps(0, 2**26 + 3)
    found = assert_the_references(operator, *inputs, ZERO, ZERO, ZERO + 2**22, ZERO, ZERO)
    assert found[1 + part] == 3 * 64


@pytest.mark.parametrize("name", ["lif", "rf", "rf_iz"])
@pytest.mark.parametrize("threshold", [2.0**31, 1e12])
def test_a_threshold_that_nothing_reaches(name, threshold):
    case = CASES[name]
    parameters = [ZERO + threshold if kind == "threshold" else ZERO for kind in case.kinds]
    x = torch.full((1, 1, 3), 1e5)
    spikes = case.operator(*[x] * case.inputs, *parameters, backend="native")[0]
    assert not spikes.any()


def test_a_state_is_set_back_to_a_threshold_far_below_zero():
    parameters = ZERO, ZERO, ZERO - 2**28, ZERO, ZERO
    found = assert_the_references(loihi.rf_iz, steps(0), None, *parameters)
    assert found == [1, 0, -(2**28) - 1]


@pytest.mark.parametrize("name", ["sigma", "delta", "sigma_delta"])
def test_what_comes_in_beyond_32_bits_wraps(name):
    parameters = [ZERO for _ in CASES[name].kinds]
    found = assert_the_references(CASES[name].operator, steps(0, 2**32 + 7), *parameters)
    assert found[0] == 7
