"""What users override of a neuron is called, as by slayer's forward: ``spike(dynamics(x))``."""

import warnings

import pytest
import torch

from lava_bridge import (
    BridgeError,
    ConversionError,
    check_equivalence,
    export_hdf5,
    slayer,
    to_spikingjelly,
)

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


def changing(neuron):
    """A subclass that takes another input, and remembers its states."""

    class Changing(neuron):
        def dynamics(self, input):
            other = (2 * input[0], -input[1]) if isinstance(input, tuple) else 2 * input
            self.states = super().dynamics(other)
            return self.states

    return Changing


def muted(neuron):
    class Muted(neuron):
        def spike(self, *states):
            return 0.5 * super().spike(*states)

    return Muted


@pytest.mark.parametrize("changed", [changing, muted])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_subclass_gives_what_the_same_one_of_slayers_gives(lava, family, changed, persistent):
    x = input_of(family)
    made = [
        changed(neuron_class(frameworks, family))(**FAMILIES[family], persistent_state=persistent)
        for frameworks in (slayer, lava)
    ]
    if family == "adrf_iz":  # lava's own forward gives its spike an argument too few
        made[1].forward = lambda x: made[1].spike(*made[1].dynamics(x))
    plain = neuron_class(slayer, family)(**FAMILIES[family], persistent_state=persistent)
    for _ in range(2):
        ours, lavas, unchanged = (neuron(x) for neuron in (*made, plain))
        assert ours.any()
        assert torch.equal(ours, lavas)
        assert not torch.equal(ours, unchanged)
    if changed is changing:
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
    x = 9 * (torch.rand(2, 3, 30) < 0.3).float()
    expected = block(x)
    assert expected.any()
    block.neuron.spike = lambda *states: torch.ones_like(states[0])
    assert torch.equal(block(x)[..., 1:], torch.ones(2, 4, 29))
    assert not block(x)[..., 0].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_spikes_come_in_the_inputs_dtype(family, dtype):
    neuron = changing(neuron_class(slayer, family))(**FAMILIES[family])
    assert neuron(input_of(family, dtype)).dtype == dtype


def test_a_neuron_may_set_what_slayers_own_set(family):
    """lava-dl's neurons, and those written after them, set both in their dynamics."""
    neuron = neuron_class(slayer, family)(**FAMILIES[family])
    assert neuron.num_neurons is None
    neuron.shape, neuron.num_neurons = torch.Size((3,)), 3
    assert neuron(input_of(family)).any()
    assert neuron.num_neurons == 3


class Own(slayer.neuron.cuba.Neuron):
    """A neuron of the user's, which fires twice as strongly."""

    def spike(self, voltage):
        return 2 * super().spike(voltage)


class Family(slayer.block.base.NeuronFamily):
    neuron_class = Own
    synapse_types = slayer.synapse


class OwnDense(Family, slayer.block.base.AbstractDense):
    pass


class OwnInput(Family, slayer.block.base.AbstractInput):
    pass


def test_a_family_of_the_users_own_neuron_makes_blocks():
    x = torch.ones(2, 3, 20)
    blocks = [OwnInput(LEAK), OwnDense(LEAK, 3, 4, weight_scale=3)]
    for block in blocks:
        x = block(x)
        assert set(x.unique().tolist()) == {0, 2}
    assert blocks[1].synapse.pre_hook_fx == blocks[1].neuron.quantize_8bit


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("Dense", (3, 4)),
        ("Input", ()),
        ("Affine", (3, 4)),
        ("Recurrent", (3, 4)),
        ("KWTA", (3, 4, 1)),
    ],
)
def test_a_block_without_a_family_says_what_it_lacks(kind, sizes):
    abstract = getattr(slayer.block.base, f"Abstract{kind}")
    block = type("Mine", (abstract,), {})
    with pytest.raises(BridgeError, match=r"^block.Mine: has no neuron_class; mix in") as caught:
        block(LEAK, *sizes)
    assert len(str(caught.value).splitlines()) == 1


def changed_block(how):
    block = slayer.block.cuba.Dense(LEAK, 3, 4, weight_scale=3, delay_shift=False)
    if how == "instance":
        block.neuron.spike = lambda voltage: 0 * voltage
    else:
        block.neuron = Own(**LEAK)
    return block


@pytest.mark.parametrize("how", ["instance", "subclass"])
def test_what_a_file_or_a_twin_can_not_hold_is_said(how, tmp_path):
    block, x = changed_block(how), (torch.rand(9, 2, 3) < 0.5).float()
    block(torch.ones(1, 3, 2))
    with pytest.raises(ConversionError, match=r"^0 \(Dense\): has a neuron whose forward"):
        to_spikingjelly([block])
    with pytest.warns(UserWarning, match="(Neuron|Own): its forward, dynamics or spike"):
        export_hdf5([block], tmp_path / "n.net")
    assert not check_equivalence([block], tmp_path / "n.net", x).ok


def test_of_slayers_own_neurons_nothing_is_said(family, tmp_path):
    block = getattr(slayer.block, family).Dense(FAMILIES[family], 3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_hdf5([block], tmp_path / "n.net")
