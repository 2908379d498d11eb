"""What users' own neurons, written on slayer's dynamics, call to keep a state between forwards."""

import pytest
import torch

from lava_bridge.slayer.neuron import dynamics

ADAPTIVE = ("adaptive_threshold", "adaptive_phase_th", "adaptive_resonator")
CALLS = [
    ("leaky_integrator", "persistent_state", ()),
    ("resonator", "persistent_real_state", ()),
    ("resonator", "persistent_imag_state", (1.3, 64)),
    *((name, "persistent_ref_state", (torch.tensor([0.2, 0.5, 0.9]),)) for name in ADAPTIVE),
    *((name, "persistent_th_state", (0.7,)) for name in ADAPTIVE),
    *((name, "persistent_th_state", (torch.tensor([0.2, 0.5, 0.9]),)) for name in ADAPTIVE),
]


@pytest.mark.parametrize(("module", "name", "rest"), CALLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_a_spike_leaves_of_a_state_what_lava_leaves(lava, module, name, rest, dtype):
    reference = getattr(getattr(lava.neuron.dynamics, module), name)
    mine = getattr(getattr(dynamics, module), name)
    state = torch.randn(2, 3).to(dtype)
    for spike in (torch.rand(2, 3).round(), torch.randn(2, 3), torch.tensor([True, False, True])):
        expected, found = reference(state, spike, *rest), mine(state, spike, *rest)
        assert torch.equal(found, expected)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize("module", dynamics.__all__)
def test_no_function_of_lavas_dynamics_is_missing(lava, module):
    theirs = vars(getattr(lava.neuron.dynamics, module))
    names = {name for name in theirs if name.startswith("persistent") or name == "dynamics"}
    assert len(names) > 1
    assert names <= set(getattr(dynamics, module).__all__)
