"""What a file has that Lava's netx does not run is said, wherever the blocks do otherwise."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

import lava_bridge
from lava_bridge import NetFileError, slayer
from lava_bridge.netx import Network
from lava_bridge.slayer.neuron.norm import ChannelBias, MeanOnlyBatchNorm, WgtScaleBatchNorm

from .loihi_cases import DATA

CUBA = {"threshold": 0.5, "current_decay": 0.25, "voltage_decay": 0.1}
AT_ONCE = {**CUBA, "current_decay": 1}
RF = {"threshold": 0.4, "period": 8, "decay": 0.1}
SIGMA_DELTA = {"threshold": 0.1, "activation": torch.relu}
block: Any = slayer.block


def normed(made: Any) -> Any:
    """With a norm that has a mean of 0.25, or a bias of minus that, and a variance of 9."""
    made.infer_shape((4,))
    norm = made.neuron.norm
    norm.num_features = 3
    if isinstance(norm, ChannelBias):
        norm.value.data = torch.full((3,), -0.25)
    else:
        norm.running_mean = torch.full((3,), 0.25)
        norm.running_var = torch.tensor([9.0])
    return made.eval()


def recurrent(neuron: dict[str, Any], norm: Any) -> Any:
    return normed(block.cuba.Recurrent({**neuron, "norm": norm}, 4, 3, weight_scale=4))


def written(made: Any, tmp_path: Path) -> Path:
    lava_bridge.export_hdf5([made], tmp_path / "net.net", input_shape=(4,))
    return tmp_path / "net.net"


def sigma_delta(**changes: Any) -> Any:
    return block.sigma_delta.Dense({**SIGMA_DELTA, **changes}, 4, 3)


LEFT_OUT = {
    "graded resonators": (
        lambda: block.rf_iz.Dense({**RF, "graded_spike": True}, 4, 3),
        "its spikes are not graded",
    ),
    "a sigma-delta scale": (lambda: sigma_delta(scale=128), "its scale is taken for 64, not 128"),
    "an input's sigma-delta scale": (
        lambda: block.sigma_delta.Input({**SIGMA_DELTA, "scale": 32}),
        "its scale is taken for 64, not 32",
    ),
    "a sigma-delta norm": (
        lambda: normed(sigma_delta(norm=WgtScaleBatchNorm)),
        "the shift of its norm",
    ),
    "no neurons": (
        lambda: block.cuba.Affine(dict(CUBA), 4, 3, dynamics=False),
        "without neurons it sums its input up",
    ),
    "a norm that is fed back": (
        lambda: recurrent(CUBA, MeanOnlyBatchNorm),
        "the current goes on without what its norm added",
    ),
    "an input's scale": (
        lambda: block.cuba.Input({**AT_ONCE, "scale": 128}),
        "the input is weighed by 64, not by its scale of 128",
    ),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_is_left_out_is_said(case: str, tmp_path: Path) -> None:
    make, said = LEFT_OUT[case]
    path = written(make(), tmp_path)
    with pytest.warns(UserWarning, match=f"layer/0: {said}.* as in Lava; its blocks do otherwise"):
        Network(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("neuron", [CUBA, AT_ONCE])
def test_a_bias_that_is_fed_back_is_run_as_the_blocks_run_it(neuron: Any, tmp_path: Path) -> None:
    norm = ChannelBias if neuron is CUBA else MeanOnlyBatchNorm
    made = recurrent(neuron, norm)
    made.delay_shift = False
    net = Network(written(made, tmp_path), aligned=True)
    x = (torch.rand(3, 4, 24) < 0.4).float()
    with torch.no_grad():
        expected = made(x)
    assert torch.equal(net.run(x)[..., 1:], expected[..., :-1])
    assert expected.any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [16, 32, 64, 128])
def test_an_input_is_rounded_by_its_own_scale(scale: int, tmp_path: Path) -> None:
    made = block.cuba.Input({**AT_ONCE, "scale": scale}, weight=1.0, bias=0.25, delay_shift=False)
    net = Network(written(made, tmp_path))
    x = torch.randn(3, 4, 40)
    with torch.no_grad():
        expected = made(x)
    assert torch.equal(net.run(net.encoded(x)), expected)
    assert expected.any()


def test_complex_weights_without_neurons_are_refused(tmp_path: Path) -> None:
    path = written(block.rf.Affine(dict(RF), 4, 3, dynamics=False), tmp_path)
    with pytest.raises(NetFileError, match=r"layer/0/neuron is missing, and its weights are compl"):
        Network(path)


@pytest.mark.parametrize("name", ["bias", "neuron/vThMant", "neuron/iDecay", "neuron/vDecay"])
@pytest.mark.parametrize("shape", [(3, 3, 4), (36,), (3, 4, 3)])
def test_numbers_of_each_neuron_in_an_order_that_lava_can_t_take_are_refused(
    name, shape, tmp_path
) -> None:
    path = tmp_path / "net.net"
    shutil.copy(DATA / "neuron_arrays.net", path)
    with h5py.File(path, "r+") as file:
        group = file["layer/1"]
        before = group[name][()]
        assert before.shape == (4, 3, 3)
        del group[name]
        group[name] = before.reshape(shape)
    with pytest.raises(NetFileError, match=r"layer/1/.*Lava takes \(4, 3, 3\)"):
        Network(path)


def test_biases_that_lava_runs_before_the_input_comes_are_said(tmp_path: Path) -> None:
    made = [
        block.cuba.Dense({**AT_ONCE, "norm": ChannelBias}, *sizes) for sizes in ((4, 3), (3, 2))
    ]
    for dense in made:
        dense.infer_shape((dense.synapse.in_channels,))
        dense.neuron.norm.value.data = torch.full((dense.synapse.out_channels,), 0.25)
    said = r"n.net: 0 \(Dense\) .as 1 more. has a bias, which Lava runs from the first step on"
    for delays, remedy in ((True, "no reset makes them so"), (False, "and a reset_offset of 1")):
        for dense in made:
            dense.delay_shift = delays
        with pytest.warns(UserWarning, match=f"{said}.*{remedy}"):
            lava_bridge.export_hdf5(made, tmp_path / "n.net", target="lava")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lava_bridge.export_hdf5(made, tmp_path / "n.net")
        Network(tmp_path / "n.net", aligned=True)


@pytest.mark.parametrize(
    ("changes", "quiet"),
    [
        ({"reset_interval": 20, "reset_offset": 1}, True),
        ({"reset_interval": 20}, False),
        ({"reset_interval": 20, "reset_offset": 2}, False),
        ({"reset_interval": 20, "reset_offset": 1, "delay_shift": True}, False),
        ({"reset_interval": 20, "reset_offset": 1, "recurrent": True}, False),
        ({"aligned": True, "delay_shift": True}, True),
    ],
)
def test_a_reset_takes_back_what_biases_did_where_nothing_is_still_on_its_way(
    changes: dict[str, Any], quiet: bool, tmp_path: Path
) -> None:
    kind = block.cuba.Recurrent if changes.pop("recurrent", False) else block.cuba.Dense
    made = kind({**AT_ONCE, "norm": ChannelBias}, 4, 3)
    made.delay_shift = changes.pop("delay_shift", False)
    made.infer_shape((4,))
    made.neuron.norm.value.data = torch.full((3,), 0.25)
    path = written(made, tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Network(path, **changes)
    said = ["works from the first step on" in str(warning.message) for warning in caught]
    assert said == ([] if quiet else [True])
