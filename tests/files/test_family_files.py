"""Files of every neuron family: read back to the same blocks, lava-dl's too, bad ones refused."""

import h5py
import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from lava_bridge import NetFileError, export_hdf5, load_hdf5, slayer as native

from .test_hdf5 import datasets, lava_export

LEAK = {"threshold": 0.5, "current_decay": 0.2, "voltage_decay": 0.1}
TURN = {"threshold": 0.4, "period": 8, "decay": 0.1}
ADAPTATION = {"threshold_step": 0.3, "threshold_decay": 0.1, "refractory_decay": 0.3}
PARAMS = {
    "cuba": LEAK,
    "rf": TURN,
    "rf_iz": TURN,
    "alif": {**LEAK, **ADAPTATION},
    "adrf": {**TURN, **ADAPTATION},
    "adrf_iz": {**TURN, **ADAPTATION},
    "sigma_delta": {"threshold": 0.1, "activation": F.relu},
}
NEURON_TYPES = {
    "cuba": "CUBA",
    "rf": "RF_PHASE",
    "rf_iz": "RF_IZHIKEVICH",
    "alif": "ALIF",
    "adrf": "ADRF_PHASE",
    "adrf_iz": "ADRF_IZHIKEVICH",
    "sigma_delta": "SDNN",
}
ROW, PLANE = (6,), (2, 4, 4)
# Constructor arguments after the neuron's, and the shape of an input.
BLOCKS = {
    "Input": ((), ROW),
    "Dense": ((6, 5), ROW),
    "Affine": ((6, 5), ROW),
    "Output": ((6, 5), ROW),
    "Recurrent": ((6, 5), ROW),
    "KWTA": ((6, 5, 2), ROW),
    "Conv": ((2, 3, 3), PLANE),
    "ConvT": ((2, 3, 3), PLANE),
    "Pool": ((2,), PLANE),
    "Unpool": ((2,), PLANE),
}
ALL = [
    (family, name)
    for family in PARAMS
    for name in BLOCKS
    if hasattr(getattr(native.block, family), name)
]


def make(family, name, slayer=native, **changes):
    """A block with weights that make it fire, and the shape of its input."""
    arguments, shape = BLOCKS[name]
    options = {} if name in ("Pool", "Unpool", "KWTA", "Input") else {"weight_scale": 4}
    if "delay" in changes:
        options["delay"] = changes.pop("delay")
    block_class = getattr(getattr(slayer.block, family), name)
    return block_class({**PARAMS[family], **changes}, *arguments, **options), shape


def spikes_for(shape, steps=24):
    return (torch.rand(3, *shape, steps) < 0.5).float()


def assert_reads_back(block, shape, path):
    """The file's blocks give the same output, and write the same file again."""
    export_hdf5([block], path / "first.net", input_shape=shape)
    (read,) = load_hdf5(path / "first.net")
    assert type(read) is type(block)
    export_hdf5([read], path / "second.net")
    assert datasets(path / "first.net") == datasets(path / "second.net")
    x = spikes_for(shape)
    with torch.no_grad():
        output, again = block(x), read.eval()(x)
    assert torch.equal(output, again)
    return output


@pytest.mark.parametrize(("family", "name"), ALL)
def test_a_block_reads_back_before_any_forward(family, name, tmp_path):
    block, shape = make(family, name)
    output = assert_reads_back(block, shape, tmp_path)
    assert output.abs().sum() > 0 or name == "Pool"
    kind = datasets(tmp_path / "first.net")["layer/0/neuron/type"]
    assert NEURON_TYPES[family] in str(kind)


@pytest.mark.parametrize(("family", "name"), ALL)
def test_a_trained_block_of_channels_with_their_own_parameters_reads_back(family, name, tmp_path):
    changes = {"shared_param": False}
    if name not in ("Pool", "Unpool", "Input", "Output"):
        changes["norm"] = native.neuron.norm.WgtScaleBatchNorm
    if name in ("Dense", "Conv", "ConvT", "Recurrent"):
        changes["delay"] = True
    if family != "sigma_delta":
        changes["graded_spike"] = True
    block, shape = make(family, name, **changes)
    block.train()
    block(spikes_for(shape))
    trained, _ = make(family, name, **changes)
    trained.load_state_dict(block.state_dict())
    output = assert_reads_back(trained.eval(), shape, tmp_path)
    assert output.abs().sum() > 0 or name == "Pool"


@pytest.mark.parametrize("family", PARAMS)
def test_mean_only_norms_read_back(family, tmp_path):
    block, shape = make(family, "Dense", norm=native.neuron.norm.MeanOnlyBatchNorm)
    block.train()
    block(spikes_for(shape))
    fresh, _ = make(family, "Dense", norm=native.neuron.norm.MeanOnlyBatchNorm)
    fresh.load_state_dict(block.state_dict())
    assert_reads_back(fresh.eval(), shape, tmp_path)


def test_an_affine_block_of_complex_synapses_without_dynamics_reads_back(tmp_path):
    block = native.block.rf.Affine(dict(TURN), 6, 5, weight_scale=4, dynamics=False)
    assert_reads_back(block, ROW, tmp_path)


@pytest.mark.parametrize("family", ["rf", "rf_iz", "alif", "adrf", "sigma_delta"])
def test_a_dense_file_of_lava_dl_is_ours_and_reads_back_to_its_spikes(lava, family, tmp_path):
    torch.manual_seed(4)
    theirs, shape = make(family, "Dense", lava)
    torch.manual_seed(4)
    ours, _ = make(family, "Dense")
    x = spikes_for(shape)
    with torch.no_grad():
        expected = theirs(x)
    lava_export([theirs], tmp_path / "theirs.net")
    export_hdf5([ours], tmp_path / "ours.net", input_shape=shape)
    assert datasets(tmp_path / "ours.net") == datasets(tmp_path / "theirs.net")
    with torch.no_grad():
        assert torch.equal(load_hdf5(tmp_path / "theirs.net")(x), expected)
    assert expected.abs().sum() > 0


turns = st.tuples(st.floats(4, 400), st.one_of(st.sampled_from([0.0, 1e-5, 1.0]), st.floats(0, 1)))


@settings(max_examples=150)
@given(turns)
def test_every_resonator_has_the_same_integers_once_read_back(tmp_path_factory, turn):
    period, decay = turn
    block = native.block.rf.Dense({"threshold": 1, "period": period, "decay": decay}, 1, 1)
    path = tmp_path_factory.mktemp("turn") / "net.net"
    export_hdf5([block], path)
    (read,) = load_hdf5(path)
    assert read.neuron.device_params == block.neuron.device_params


def test_a_sigma_delta_bias_reads_back(tmp_path):
    block, shape = make("sigma_delta", "Conv")
    block.infer_shape(shape)
    block.neuron.set_bias(torch.randn(block.shape).mul(4096).round() / 4096)
    assert_reads_back(block, shape, tmp_path)


def test_a_net_of_several_families_reads_back(tmp_path):
    net = nn.Sequential(
        native.block.rf.Conv(dict(TURN), 2, 3, 3, weight_scale=4),
        native.block.alif.Pool({**PARAMS["alif"], "threshold": 0.2}, 2),
        native.block.cuba.Flatten(),
        native.block.sigma_delta.Dense(dict(PARAMS["sigma_delta"]), 3, 4, weight_scale=4),
    )
    export_hdf5(net, tmp_path / "net.net", input_shape=PLANE)
    read = load_hdf5(tmp_path / "net.net")
    x = spikes_for(PLANE)
    with torch.no_grad():
        assert torch.equal(read(x), net(x))
    assert [type(block).__module__.rpartition(".")[2] for block in read] == [
        "rf",
        "alif",
        "plain",
        "sigma_delta",
    ]


def test_reading_draws_no_channels(tmp_path):
    block, shape = make("adrf", "Dense", shared_param=False, delay=True)
    export_hdf5([block], tmp_path / "net.net", input_shape=shape)
    (read,) = load_hdf5(tmp_path / "net.net")
    before = [parameter.clone() for parameter in read.parameters()]
    read(spikes_for(shape))
    for parameter, value in zip(read.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


LIES = [
    ("adrf", "neuron/sinDecay", 0, "neuron/sinDecay is 0, below 1"),
    ("adrf", "neuron/sinDecay", 4000, "beyond a gain of 4095"),
    ("adrf", "neuron/cosDecay", -1, "neuron/cosDecay is outside 0 ... 4096"),
    ("adrf", "neuron/thDecay", 4097, "neuron/thDecay is outside 0 ... 4096"),
    ("adrf", "neuron/refDecay", np.arange(3), "neuron/refDecay has 3 values for 5 channels"),
    ("adrf", "neuron/vThMant", np.arange(5), "neuron/vThMant has 5 values where one is expected"),
    ("adrf", "neuron/type", "ADRF", "neuron/type is 'ADRF', which is none of CUBA"),
    ("adrf", "weight/real", np.zeros((5, 7)), "weight/real has the shape (5, 7)"),
    ("adrf", "weight/imag", np.zeros((5, 7)), "weight/imag has the shape (5, 7)"),
    ("adrf", "weight/imag", np.full((5, 6), 3), "weight/imag has 3, but 8 bits hold"),
    ("adrf", "weight/imag", None, "weight/imag is missing"),
    ("adrf", "neuron/vThStep", None, "neuron/vThStep is missing"),
    ("sigma_delta", "neuron/activation", "softmax", "'softmax', which is none of relu, relu6"),
    ("sigma_delta", "neuron/vThMant", np.arange(3), "has 3 values for 5 channels"),
    ("sigma_delta", "neuron/bias", np.arange(3), "neuron/bias has 3 values for 5 neurons"),
    ("sigma_delta", "neuron/vThMant", np.zeros(0, int), "neuron/vThMant has 0 values"),
]


@pytest.mark.parametrize(("family", "name", "value", "what"), LIES)
def test_a_wrong_file_is_refused_and_the_place_named(family, name, value, what, tmp_path):
    block, shape = make(family, "Dense")
    path = tmp_path / "net.net"
    export_hdf5([block], path, input_shape=shape)
    load_hdf5(path)
    with h5py.File(path, "r+") as file:
        if name in file["layer/0"]:
            del file["layer/0"][name]
        if value is not None:
            file["layer/0"][name] = value
    with pytest.raises(NetFileError) as error:
        load_hdf5(path)
    assert "layer/0" in str(error.value)
    assert what in str(error.value)
    assert "\n" not in str(error.value)


class OwnRelu(nn.Module):
    def forward(self, x):
        return x.clamp(0, 0.5)


def relu(x):
    return x.clamp(0, 100)


@pytest.mark.parametrize(
    "activation",
    [
        nn.ELU(0.5),
        nn.Softplus(beta=5),
        nn.Hardtanh(0, 0.3),
        nn.PReLU(),
        OwnRelu(),
        relu,
        F.relu_,
        lambda x: F.relu(x),
    ],
)
def test_an_activation_that_a_file_can_not_hold_is_refused(activation, tmp_path):
    block, shape = make("sigma_delta", "Dense", activation=activation)
    with pytest.raises(NetFileError, match="a file holds no more of its activation than the name"):
        export_hdf5([block], tmp_path / "net.net", input_shape=shape)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(), nn.LeakyReLU(), nn.Identity(), nn.Sigmoid(), torch.relu, torch.tanh, F.elu, F.gelu],
)
def test_an_activation_of_torch_with_its_defaults_reads_back(activation, tmp_path):
    block, shape = make("sigma_delta", "Dense", activation=activation)
    assert_reads_back(block, shape, tmp_path)


NUMBERS = [
    ("cuba", "Dense", "neuron.current_decay", {}),
    ("rf", "Conv", "neuron.sin_decay", {}),
    ("alif", "Dense", "neuron.refractory_decay", {}),
    ("cuba", "Dense", "neuron.norm.running_mean", {"norm": native.neuron.norm.WgtScaleBatchNorm}),
    ("cuba", "Dense", "neuron.norm.running_var", {"norm": native.neuron.norm.WgtScaleBatchNorm}),
    (
        "adrf",
        "Dense",
        "neuron.imag_norm.running_mean",
        {"norm": native.neuron.norm.MeanOnlyBatchNorm},
    ),
    ("rf_iz", "Dense", "delay.delay", {"delay": True}),
    ("cuba", "KWTA", "self_excitation", {}),
    ("sigma_delta", "Dense", "neuron.delta.threshold", {}),
    ("sigma_delta", "Dense", "neuron.bias", {}),
    ("rf", "Dense", "synapse.imag.weight", {}),
]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("family", "name", "place", "changes"), NUMBERS)
def test_numbers_that_are_none_are_refused_and_the_former_file_stays(
    family, name, place, changes, value, tmp_path
):
    block, shape = make(family, name, **changes)
    path = tmp_path / "net.net"
    export_hdf5([block], path, input_shape=shape)
    former = path.read_bytes()
    owner, _, tensor = place.rpartition(".")
    getattr(block.get_submodule(owner), tensor).data.fill_(value)
    with pytest.raises(NetFileError, match=f"{place} has values that are NaN or infinite"):
        export_hdf5([block], path)
    assert path.read_bytes() == former


def test_a_neuron_that_fires_can_not_be_taken_for_one_that_never_does(tmp_path):
    block = native.block.alif.Dense({**PARAMS["alif"], "threshold": (2**18 - 1) / 64}, 6, 5)
    with pytest.raises(NetFileError, match="its threshold is 262143 on the chip, above 262142"):
        export_hdf5([block], tmp_path / "net.net")


@pytest.mark.parametrize(
    ("family", "name", "dataset", "value", "what"),
    [
        ("cuba", "KWTA", "neuron/type", "SDNN", "'kwta', as KWTA, which 'SDNN' neurons"),
        ("cuba", "Recurrent", "neuron/type", "SDNN", "'dense_rec', as Recurrent, which 'SDNN'"),
        ("alif", "Dense", "neuron/vThMant", 2**18 - 1, "'dense', as Affine, which 'ALIF' neurons"),
        (
            "rf",
            "Dense",
            "neuron/sigma_output",
            True,
            "'dense', as Output, which 'RF_PHASE' neurons",
        ),
    ],
)
def test_a_layer_that_its_family_does_not_have_is_refused(
    family, name, dataset, value, what, tmp_path
):
    block, shape = make(family, name)
    export_hdf5([block], tmp_path / "net.net", input_shape=shape)
    with h5py.File(tmp_path / "net.net", "r+") as file:
        group = file["layer/0"]
        if dataset in group:
            del group[dataset]
        group[dataset] = value
        if "activation" not in group["neuron"]:
            group["neuron/activation"] = "relu"
    with pytest.raises(NetFileError, match=what) as error:
        load_hdf5(tmp_path / "net.net")
    assert "layer/0" in str(error.value)
