"""What users override of a neuron is called, as by slayer's forward: ``spike(dynamics(x))``."""

import pytest
import torch

from lava_bridge import slayer

LEAK = {"threshold": 0.5, "current_decay": 0.25, "voltage_decay": 0.1}
TURN = {"threshold": 0.3, "period": 8, "decay": 0.1}
ADAPTIVE = {"threshold_step": 0.1, "threshold_decay": 0.1, "refractory_decay": 0.2}
FAMILIES = {
    "cuba": LEAK,
    "alif": {**LEAK, **ADAPTIVE},
    "rf": TURN,
    "rf_iz": TURN,
    "adrf": {**TURN, **ADAPTIVE},
    "adrf_iz": {**TURN, **ADAPTIVE},
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def input_of(family, dtype=torch.float32):
    x = (torch.rand(2, 3, 30) < 0.3).to(dtype)
    return (x, 1 - x) if "rf" in family else x


def neuron_class(frameworks, family):
    return getattr(frameworks.neuron, family).Neuron


def doubling(neuron):
    """A subclass that takes twice the (real) input, and remembers its states."""

    class Doubling(neuron):
        def dynamics(self, input):
            double = (2 * input[0], input[1]) if isinstance(input, tuple) else 2 * input
            self.states = super().dynamics(double)
            return self.states

    return Doubling


def muted(neuron):
    class Muted(neuron):
        def spike(self, *states):
            return 0.5 * super().spike(*states)

    return Muted


@pytest.mark.parametrize("changed", [doubling, muted])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_subclass_gives_what_the_same_one_of_slayers_gives(lava, family, changed, persistent):
    if family == "adrf_iz":
        pytest.skip("lava-dl's forward gives its spike an argument too few")
    x = input_of(family)
    made = [
        changed(neuron_class(frameworks, family))(**FAMILIES[family], persistent_state=persistent)
        for frameworks in (slayer, lava)
    ]
    plain = neuron_class(slayer, family)(**FAMILIES[family], persistent_state=persistent)
    for _ in range(2):
        ours, lavas, unchanged = (neuron(x) for neuron in (*made, plain))
        assert ours.any()
        assert torch.equal(ours, lavas)
        assert not torch.equal(ours, unchanged)
    if changed is doubling:
        for mine, theirs in zip(made[0].states, made[1].states, strict=True):
            assert torch.equal(mine, theirs)


def test_one_neurons_own_method_is_called_and_a_classs_too(family, monkeypatch):
    x, neuron = input_of(family), neuron_class(slayer, family)(**FAMILIES[family])
    assert neuron(x).any()
    neuron.spike = lambda *states: torch.zeros_like(states[0])
    assert not neuron(x).any()
    del neuron.spike
    assert neuron(x).any()
    monkeypatch.setattr(type(neuron), "spike", lambda self, *states: torch.zeros_like(states[0]))
    assert not neuron(x).any()


def test_a_block_calls_it_before_it_delays(family):
    block = getattr(slayer.block, family).Dense(FAMILIES[family], 3, 4, weight_scale=3)
    x = torch.ones(2, 3, 30)
    expected = block(x)
    assert expected.any()
    block.neuron.spike = lambda *states: torch.ones_like(states[0])
    assert torch.equal(block(x)[..., 1:], torch.ones(2, 4, 29))
    assert not block(x)[..., 0].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_spikes_come_in_the_inputs_dtype(family, dtype):
    neuron = doubling(neuron_class(slayer, family))(**FAMILIES[family])
    assert neuron(input_of(family, dtype)).dtype == dtype
