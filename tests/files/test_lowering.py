"""export_hdf5(target="lava"): what netx can run, with the blocks' spikes, or an error by name.

That netx itself gives these spikes is shown in tests/netx. Here the lowered file is read back.
"""

from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given, settings, strategies as st

from lava_bridge import BridgeError, ConversionError, export_hdf5, load_hdf5
from lava_bridge.cli import main
from lava_bridge.hdf5.lowering import RULES
from lava_bridge.hdf5.reader import _READERS
from lava_bridge.netx import Network
from lava_bridge.slayer import block
from lava_bridge.slayer.neuron.norm import ChannelBias, MeanOnlyBatchNorm, WgtScaleBatchNorm

cuba, rf, sd = block.cuba, block.rf, block.sigma_delta

CUBA = {"threshold": 0.7, "current_decay": 0.3, "voltage_decay": 0.1}
RF = {"threshold": 0.5, "period": 7.3, "decay": 0.07}
SD = {"threshold": 0.5, "activation": F.relu}
ADAPTIVE = {"threshold": 0.5, "threshold_step": 0.1, "threshold_decay": 0.1}
ADAPTIVE |= {"refractory_decay": 0.1}

# The types that netx loads.
RUN_BY_NETX = {"input", "conv", "flatten", "dense", "dense_rec"}


def lowered(blocks: Any, path: Any, shape: Any = None) -> list[dict[str, Any]]:
    """The datasets of a lowered file's layers."""
    export_hdf5(blocks, path, input_shape=shape, target="lava")
    layers: list[dict[str, Any]] = []
    with h5py.File(path) as file:
        for i in range(len(file["layer"])):
            found: dict[str, Any] = {}

            def collect(name: str, item: Any, found: dict[str, Any] = found) -> None:
                if isinstance(item, h5py.Dataset):
                    found[name] = item[()]

            file[f"layer/{i}"].visititems(collect)
            layers.append(found)
    return layers


def kinds(layers: list[dict[str, Any]]) -> list[str]:
    return [layer["type"][0].decode() for layer in layers]


def assert_same_spikes(blocks: list[Any], path: Any, x: torch.Tensor) -> torch.Tensor:
    read = load_hdf5(path).eval()
    with torch.no_grad():
        theirs = read(x)
        for made in blocks:
            x = made.eval()(x)
    assert torch.equal(x.reshape(theirs.shape), theirs)
    return x


def spikes(*shape: int, rate: float = 0.4) -> torch.Tensor:
    return (torch.rand(2, *shape, 16) < rate).float()


def louder(made: Any, factor: float = 4) -> Any:
    for _, part in made.synapse.parts(""):
        part.weight.data *= factor
    return made


def refused(blocks: Any, path: Any, shape: Any = None) -> str:
    """The one line with which the lowering is refused; nothing is written."""
    with pytest.raises(ConversionError) as caught:
        export_hdf5(blocks, path / "refused.net", input_shape=shape, target="lava")
    assert "\n" not in str(caught.value)
    assert not list(path.iterdir())
    return str(caught.value)


def test_every_type_that_a_file_can_have_has_a_rule() -> None:
    assert RULES.keys() == _READERS.keys()


def test_a_pool_becomes_a_grouped_convolution(tmp_path) -> None:
    pool = cuba.Pool({**CUBA, "threshold": 1.5}, (2, 3), weight_scale=0.5)
    blocks = [cuba.Input(delay_shift=False), pool]
    layers = lowered(blocks, tmp_path / "pool.net", (3, 4, 6))
    assert kinds(layers) == ["input", "conv"]
    assert layers[1]["weight"].shape == (3, 1, 2, 3)
    assert (layers[1]["weight"] == 32).all()
    assert layers[1]["groups"] == layers[1]["inChannels"] == layers[1]["outChannels"] == 3
    assert assert_same_spikes(blocks, tmp_path / "pool.net", spikes(3, 4, 6)).any()


def test_a_pool_of_more_channels_than_netx_has_groups_joins_them(tmp_path) -> None:
    blocks = [cuba.Pool(CUBA, 2)]
    for channels, groups in ((127, 127), (128, 64), (134, 67), (131, 1)):
        layers = lowered(blocks, tmp_path / "wide.net", (channels, 2, 2))
        assert layers[1]["groups"] == groups
        assert layers[1]["weight"].shape == (channels, channels // groups, 2, 2)
        assert_same_spikes(blocks, tmp_path / "wide.net", spikes(channels, 2, 2))


def test_a_convolution_of_more_groups_than_netx_has_joins_them(tmp_path) -> None:
    blocks = [louder(cuba.Conv(CUBA, 390, 260, 2, groups=130))]
    layers = lowered(blocks, tmp_path / "wide.net", (390, 3, 3))
    assert layers[1]["groups"] == 65
    assert assert_same_spikes(blocks, tmp_path / "wide.net", spikes(390, 3, 3)).any()


def test_an_input_is_put_before_a_first_convolution(tmp_path) -> None:
    blocks = [louder(cuba.Conv(CUBA, 2, 3, 2))]
    layers = lowered(blocks, tmp_path / "conv.net", (2, 4, 5))
    assert kinds(layers) == ["input", "conv"]
    assert layers[0]["shape"].tolist() == [2, 4, 5]
    assert_same_spikes(blocks, tmp_path / "conv.net", spikes(2, 4, 5))
    (tmp_path / "conv.net").unlink()
    assert "0 (Conv): is the first layer" in refused(blocks, tmp_path)


def test_a_dense_layer_on_height_and_width_is_flattened(tmp_path) -> None:
    blocks = [
        louder(cuba.Conv(CUBA, 2, 3, 2)),
        louder(cuba.Dense(CUBA, (4, 3, 3), 5)),
        cuba.Flatten(),
        louder(cuba.Dense(CUBA, 5, 4)),
    ]
    layers = lowered(blocks, tmp_path / "dense.net", (2, 4, 5))
    assert kinds(layers) == ["input", "conv", "flatten", "dense", "dense"]
    assert layers[3]["weight"].shape == (5, 3 * 3 * 4)
    assert layers[3]["inFeatures"] == 36
    assert assert_same_spikes(blocks, tmp_path / "dense.net", spikes(2, 4, 5)).any()


def test_a_first_dense_layer_on_height_and_width_tells_netx_the_shape(tmp_path) -> None:
    blocks = [louder(cuba.Dense(CUBA, (4, 3, 2), 5))]
    blocks[0].infer_shape((2, 3, 4))
    layers = lowered(blocks, tmp_path / "dense.net")
    assert kinds(layers) == ["input", "flatten", "dense"]
    assert_same_spikes(blocks, tmp_path / "dense.net", spikes(2, 3, 4))


def test_a_norm_becomes_a_bias(tmp_path) -> None:
    made = louder(cuba.Dense({**CUBA, "norm": WgtScaleBatchNorm}, 6, 4), 8)
    made.infer_shape((6,))
    made.neuron.norm.running_mean = torch.tensor([0.25, -0.5, 0.125, -2.0])
    made.neuron.norm.running_var = torch.tensor([0.5])  # shifts by nothing
    layers = lowered([made], tmp_path / "norm.net")
    assert layers[0]["bias"].tolist() == [-16, 32, -8, 128]
    assert "neuron/weight_exp" not in layers[0]
    assert assert_same_spikes([made], tmp_path / "norm.net", spikes(6)).any()
    made.neuron.norm.running_var = torch.tensor([3.0])
    (tmp_path / "norm.net").unlink()
    assert "0 (Dense): has a norm that shifts its input by -1 bits" in refused([made], tmp_path)


def test_delays_of_nothing_are_left_out_where_netx_ignores_delays(tmp_path) -> None:
    made = louder(cuba.Conv(CUBA, 2, 3, 2, delay=True))
    made.infer_shape((2, 3, 3))
    made.delay.delay.data = torch.tensor([0.0, 0.9, 0.5])
    assert "delay" not in lowered([made], tmp_path / "delay.net", (2, 3, 3))[1]
    assert_same_spikes([made], tmp_path / "delay.net", spikes(2, 3, 3))


def test_the_decays_of_a_resonator_are_where_rounding_down_cannot_miss_them(tmp_path) -> None:
    made = louder(rf.Dense({**RF, "shared_param": False, "period": (4, 20)}, 6, 300))
    made.infer_shape((6,))
    layer = lowered([made], tmp_path / "rf.net")[0]
    assert_same_spikes([made], tmp_path / "rf.net", spikes(6))
    # What netx makes of them: period and decay, and integers again.
    sine, cosine = layer["neuron/sinDecay"] / 4096, layer["neuron/cosDecay"] / 4096
    period, radius = 2 * np.pi / np.arctan2(sine, cosine), np.hypot(sine, cosine)
    again = (radius * np.sin(2 * np.pi / period) * 4096).astype(int)
    assert np.array_equal(again, made.neuron.device_params["sinDecay"])


def test_the_bias_of_a_sigma_delta_neuron_becomes_the_layers(tmp_path) -> None:
    conv = louder(sd.Conv({**SD, "norm": MeanOnlyBatchNorm}, 2, 3, 2))
    dense = louder(sd.Dense(SD, (3, 2, 3), 4))
    blocks = [sd.Input(SD), conv, dense, louder(sd.Output(SD, 4, 2))]
    shape: tuple[int, ...] = (2, 3, 4)
    for made in blocks:
        shape = made.infer_shape(shape)
    bias = torch.tensor([1.0, -3, 64]).reshape(3, 1, 1) / 64
    conv.neuron.set_bias(bias.expand(conv.neuron.shape))
    conv.neuron.norm.running_mean = torch.tensor([0.5, 0.25, -1.0])
    dense.neuron.set_bias(torch.tensor([1.0, 2, 200, 1000]) / 64)
    layers = lowered(blocks, tmp_path / "sd.net", (2, 3, 4))
    assert layers[1]["bias"].tolist() == [1 - 32, -3 - 16, 64 + 64]
    assert layers[3]["bias"].tolist() == [1, 2, 200, 1000]
    assert not any("neuron/bias" in layer for layer in layers)
    assert_same_spikes(blocks, tmp_path / "sd.net", torch.randn(2, 2, 3, 4, 12))
    for change, what in (
        (torch.full((3, 2, 3), 0.01), "not a multiple of 1/64"),
        (torch.arange(18.0).reshape(3, 2, 3), "differs within a channel"),
    ):
        conv.neuron.set_bias(change)
        with pytest.raises(ConversionError, match=f"1 \\(Conv\\): .*{what}"):
            export_hdf5(blocks, tmp_path / "sd.net", target="lava")


def test_accumulated_errors_come_back_from_a_file(tmp_path) -> None:
    made = louder(sd.Dense({**SD, "cum_error": True}, 6, 4))
    export_hdf5(made, tmp_path / "cum.net")
    assert load_hdf5(tmp_path / "cum.net")[0].neuron.delta.cum_error
    assert_same_spikes([made], tmp_path / "cum.net", torch.randn(2, 6, 12))


def filled(made: Any, value: float) -> Any:
    for _, part in made.synapse.parts(""):
        part.weight.data.fill_(value / 64)
    return made


def delayed(made: Any, shape: Any) -> Any:
    made.infer_shape(shape)
    made.delay.delay.data.fill_(3)
    return made


def biased(made: Any, shape: Any) -> Any:
    made.infer_shape(shape)
    for norm in made.neuron.children():
        norm.running_mean.fill_(0.5)
    return made


PLANE = (2, 4, 4)
# Blocks, the shape of their input, the place that is named, and what is said of it.
REFUSED: dict[str, tuple[Any, Any, str, str]] = {
    "convT": ([cuba.ConvT(CUBA, 2, 3, 2, stride=2)], PLANE, "0 (ConvT)", "use a Flatten"),
    "unpool": ([cuba.Unpool(CUBA, 2)], PLANE, "0 (Unpool)", "'unpool'"),
    "average": ([cuba.Dense(CUBA, 4, 4), cuba.Average(2)], (4,), "1 (Average)", "averages neurons"),
    "decimation": ([cuba.TimeDecimation(2)], (4,), "0 (TimeDecimation)", "averages steps"),
    "kwta": ([cuba.KWTA(CUBA, 4, 4, 2)], (4,), "0 (KWTA)", "k-winners"),
    "second input": ([cuba.Dense(CUBA, 4, 4), cuba.Input()], (4,), "1 (Input)", "not the first"),
    "rf input": ([rf.Input(RF)], (4,), "0 (Input)", "resonators"),
    "alif": (
        [block.alif.Dense({**CUBA, **ADAPTIVE}, 4, 4)],
        (4,),
        "0 (Dense)",
        "ALIF neurons",
    ),
    "adrf": ([block.adrf.Dense({**RF, **ADAPTIVE}, 4, 4)], (4,), "0 (Dense)", "ADRF_PHASE"),
    "adrf_iz": ([block.adrf_iz.Dense({**RF, **ADAPTIVE}, 4, 4)], (4,), "0 (Dense)", "ADRF_IZ"),
    "rf conv": ([rf.Conv(RF, 2, 3, 2)], PLANE, "0 (Conv)", "rf.Dense"),
    "rf pool": ([rf.Pool(RF, 2)], PLANE, "0 (Pool)", "rf.Dense"),
    "rf recurrent": ([rf.Recurrent(RF, 4, 4)], (4,), "0 (Recurrent)", "complex recurrent"),
    "rf delay": ([delayed(rf.Dense(RF, 4, 4, delay=True), (4,))], (4,), "0 (Dense)", "complex"),
    "rf norm": (
        [biased(rf.Dense({**RF, "norm": MeanOnlyBatchNorm}, 4, 4), (4,))],
        (4,),
        "0 (Dense)",
        "resonators have no bias",
    ),
    "graded": ([cuba.Dense({**CUBA, "graded_spike": True}, 4, 4)], (4,), "0 (Dense)", "graded"),
    "threshold": ([cuba.Dense({**CUBA, "threshold": 2048}, 4, 4)], (4,), "0 (Dense)", "131071"),
    "conv delay": (
        [cuba.Input(), delayed(cuba.Conv(CUBA, 2, 3, 2, delay=True), PLANE)],
        PLANE,
        "1 (Conv)",
        "ignores the delays",
    ),
    "recurrent delay": (
        [delayed(cuba.Recurrent(CUBA, 4, 4, delay=True), (4,))],
        (4,),
        "0 (Recurrent)",
        "recurrent layers can't",
    ),
    "delay and bias": (
        [
            delayed(
                biased(cuba.Dense({**CUBA, "norm": MeanOnlyBatchNorm}, 4, 4, delay=True), (4,)),
                (4,),
            )
        ],
        (4,),
        "0 (Dense)",
        "both a norm (or bias) and delays",
    ),
    "no dynamics": ([cuba.Affine(CUBA, 4, 4, dynamics=False)], (4,), "0 (Affine)", "dendritic"),
    "affine inside": (
        [cuba.Affine(CUBA, 4, 4), cuba.Dense(CUBA, 4, 4)],
        (4,),
        "0 (Affine)",
        "make it the last",
    ),
    "output inside": (
        [sd.Output(SD, 4, 4), sd.Dense(SD, 4, 4)],
        (4,),
        "0 (Output)",
        "make it the last",
    ),
    "conv after dense": (
        [cuba.Dense(CUBA, (4, 4, 2), 3), cuba.Conv(CUBA, 3, 3, 1)],
        PLANE,
        "1 (Conv)",
        "no dense layer in front",
    ),
    "large padding": (
        [cuba.Conv(CUBA, 2, 3, 2, padding=(0, 128))],
        PLANE,
        "0 (Conv)",
        "padding of 128",
    ),
    "flat plane": ([cuba.Flatten()], (4, 4), "0 (Flatten)", "two dimensions"),
    "zeros": ([filled(cuba.Dense(CUBA, 4, 4), 0)], (4,), "0 (Dense)", "weight of zeros"),
    "zero imaginary": (
        [rf.Dense(RF, 4, 4)],
        (4,),
        "0 (Dense)",
        "weight/imag of zeros",
    ),
    "negative": ([filled(cuba.Dense(CUBA, 4, 4), -64)], (4,), "0 (Dense)", "make that -62"),
    "none positive": ([filled(cuba.Dense(CUBA, 4, 4), -64)], (4,), "0 (Dense)", "make that -62"),
    "mixed": ([cuba.Dense(CUBA, 4, 4), sd.Dense(SD, 4, 4)], (4,), "1 (Dense)", "mixes"),
    "activation": (
        [sd.Dense({**SD, "activation": torch.tanh}, 4, 4)],
        (4,),
        "0 (Dense)",
        "relu only",
    ),
    "scale": ([sd.Dense({**SD, "scale": 32}, 4, 4)], (4,), "0 (Dense)", "scale=64"),
    "no threshold": ([sd.Dense({**SD, "threshold": 0}, 4, 4)], (4,), "0 (Dense)", "threshold of 0"),
    "lasting input": (
        [cuba.Input(CUBA), cuba.Dense(CUBA, 4, 4)],
        (4,),
        "0 (Input)",
        "use current_decay=1",
    ),
    "large input scale": (
        [cuba.Input({**CUBA, "current_decay": 1, "scale": 256})],
        (4,),
        "0 (Input)",
        "a scale of 256, which no weight holds",
    ),
    "norm fed back": (
        [biased(cuba.Recurrent({**CUBA, "norm": MeanOnlyBatchNorm}, 4, 4), (4,))],
        (4,),
        "0 (Recurrent)",
        "use ChannelBias, or current_decay=1",
    ),
    "cum error": ([sd.Dense({**SD, "cum_error": True}, 4, 4)], (4,), "0 (Dense)", "accumulated"),
}
REFUSED["zero imaginary"][0][0].synapse.imag.weight.data.zero_()
REFUSED["none positive"][0][0].synapse.weight.data[0] = 0


@pytest.mark.parametrize("case", REFUSED)
def test_what_netx_cannot_run_is_refused_by_name(tmp_path, case: str) -> None:
    blocks, shape, place, what = REFUSED[case]
    message = refused(blocks, tmp_path, shape)
    assert message.startswith(f"{place}: ")
    assert what in message


@pytest.mark.filterwarnings("error")
def test_an_input_of_another_scale_gets_it_as_its_weight(tmp_path) -> None:
    made = cuba.Input({**CUBA, "current_decay": 1, "scale": 128}, bias=0.125, delay_shift=False)
    path = tmp_path / "input.net"
    (layer,) = lowered([made], path, (4,))
    assert layer["weight"] == 128
    x = torch.randn(2, 4, 30)
    fired = assert_same_spikes([made], path, x)
    net = Network(path)
    assert torch.equal(net.run(net.encoded(x)), fired)
    assert fired.any()


@pytest.mark.filterwarnings("error", "ignore:.*which Lava runs from the first step on")
@pytest.mark.parametrize(("norm", "decay"), [(ChannelBias, 0.3), (MeanOnlyBatchNorm, 1)])
def test_a_bias_that_netx_feeds_back_as_the_block_is_written(tmp_path, norm, decay) -> None:
    neuron = {**CUBA, "current_decay": decay, "norm": norm}
    made = louder(cuba.Recurrent(neuron, 4, 4, delay_shift=False))
    made.infer_shape((4,))
    if norm is ChannelBias:
        made.neuron.norm.value.data = torch.full((4,), 0.25)
    else:
        biased(made, (4,))
    path, x = tmp_path / "rec.net", spikes(4)
    lowered([made], path, (4,))
    fired = assert_same_spikes([made], path, x)
    assert torch.equal(Network(path, aligned=True).run(x)[..., 1:], fired[..., :-1])
    assert fired.any()


def test_thresholds_of_each_channel_are_refused_in_sigma_delta_neurons(tmp_path) -> None:
    made = sd.Dense({**SD, "shared_param": False}, 4, 3)
    made.infer_shape((4,))
    lowered([made], tmp_path / "sd.net")  # all the same
    made.neuron.threshold.data = torch.tensor([0.5, 1.0, 1.5])
    (tmp_path / "sd.net").unlink()
    assert "a threshold for each channel" in refused([made], tmp_path)


def test_an_unknown_target_is_refused(tmp_path) -> None:
    with pytest.raises(BridgeError, match="expected target as None or 'lava', found 'loihi'"):
        export_hdf5(cuba.Dense(CUBA, 4, 4), tmp_path / "x.net", target="loihi")  # type: ignore[arg-type]


def test_the_blocks_are_not_changed(tmp_path) -> None:
    blocks = torch.nn.Sequential(cuba.Pool(CUBA, 2), cuba.Dense(CUBA, (2, 2, 2), 3))
    before = {key: value.clone() for key, value in blocks.state_dict().items()}
    lowered(blocks, tmp_path / "a.net", PLANE)
    after = blocks.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    export_hdf5(blocks, tmp_path / "b.net")
    with h5py.File(tmp_path / "b.net") as file:
        assert file["layer/0/type"][0] == b"pool"


# Randomised nets --------------------------------------------------------------------------------


@st.composite
def nets(draw: Any) -> tuple[list[Any], tuple[int, ...]]:
    """Nets of what can be lowered, and the shape of their input."""
    torch.manual_seed(draw(st.integers(0, 1 << 16)))
    small, flag = st.integers(1, 3), st.booleans()

    def params() -> dict[str, Any]:
        decays = [draw(st.sampled_from([0.0, 0.02, 0.3, 1.0])) for _ in range(2)]
        norm = MeanOnlyBatchNorm if draw(flag) else None
        return {"threshold": draw(st.sampled_from([0.3, 1, 2.2])), "norm": norm} | {
            "current_decay": decays[0],
            "voltage_decay": decays[1],
            "shared_param": draw(flag),
        }

    input_shape = shape = (draw(small), draw(st.integers(4, 7)), draw(st.integers(4, 7)))
    blocks: list[Any] = [cuba.Input(delay_shift=draw(flag))] if draw(flag) else []
    for _ in range(draw(small)):
        window = [(draw(small), draw(small)) for _ in range(2)]
        edge = {"padding": (draw(small) - 1, draw(small) - 1), "dilation": draw(small)}
        made: Any
        if draw(flag):
            made = cuba.Pool(params(), window[0], **({} if draw(flag) else edge))
        else:
            groups = shape[0] if draw(flag) else 1
            made = cuba.Conv(
                params(), shape[0], groups * draw(small), *window, **edge, groups=groups
            )
            louder(made)
        made.delay_shift = draw(flag)
        try:
            shape = made.infer_shape(shape)
        except BridgeError:  # nothing is left of the plane
            continue
        blocks.append(made)
    if draw(flag):
        blocks.append(cuba.Flatten())
        inputs: Any = int(np.prod(shape))
    else:
        inputs = (shape[2], shape[1], shape[0])
    delay = draw(flag)
    last = cuba.Dense({**params(), **({"norm": None} if delay else {})}, inputs, 5, delay=delay)
    return [*blocks, louder(last, 8), *([cuba.Flatten()] if draw(flag) else [])], input_shape


@settings(max_examples=60)
@given(net=nets())
def test_any_lowered_net_gives_the_blocks_spikes_and_is_what_netx_loads(
    tmp_path_factory: Any, net: Any
) -> None:
    blocks, shape = net
    path = tmp_path_factory.mktemp("net") / "net.net"
    for made in blocks:
        norm = getattr(getattr(made, "neuron", None), "norm", None)
        if norm is not None:
            norm.running_mean = torch.randn(1)
    layers = lowered(blocks, path, shape)
    assert set(kinds(layers)) <= RUN_BY_NETX
    assert all(layer["weight"].ndim == 2 for layer in layers if layer["type"][0] == b"dense")
    assert_same_spikes(blocks, path, spikes(*shape))


def test_the_command_line_lowers(tmp_path, monkeypatch) -> None:
    (tmp_path / "lowered_net.py").write_text(
        "import torch.nn as nn\n"
        "from spikingjelly.activation_based import neuron\n"
        "def build():\n"
        "    return nn.Sequential(nn.AvgPool2d(2), neuron.IFNode(v_threshold=0.5))\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["lowered_net.py:build", "--input-shape", "2,4,4", "-o", "net.net"]
    result = CliRunner().invoke(main, ["convert", *arguments, "--target", "lava"])
    assert result.exit_code == 0, result.output
    with h5py.File("net.net") as file:
        assert file["layer/1/type"][0] == b"conv"
    result = CliRunner().invoke(main, ["convert", *arguments, "--target", "tea"])
    assert result.exit_code == 2
