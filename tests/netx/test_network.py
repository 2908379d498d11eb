"""The integer run's own ways: layouts, chunks, arguments, traces, and what it refuses."""

import copy
import os
import pickle
import pty
import re
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st

import lava_bridge
from lava_bridge import slayer
from lava_bridge.netx import Network
from lava_bridge.netx.synapse import conv_transpose
from lava_bridge.netx.weights import cut, spread

from .random_nets import random_net

DATA = Path(__file__).parents[1] / "data" / "netx"
CUBA = {"threshold": 1, "current_decay": 0.5, "voltage_decay": 0.1}


def dense(inputs: int, outputs: int, **more: object) -> torch.nn.Module:
    block = slayer.block.cuba.Dense({**CUBA, **more}, inputs, outputs, delay_shift=False)
    block.synapse.weight.data = torch.randint(-20, 40, block.synapse.weight.shape) * 2.0 / 64
    return block


def written(tmp_path: Path, *blocks: torch.nn.Module, shape: tuple[int, ...]) -> Path:
    lava_bridge.export_hdf5(blocks, tmp_path / "net.net", input_shape=shape)
    return tmp_path / "net.net"


def recorded(name: str) -> tuple[Network, torch.Tensor, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as run:
        x, y = torch.from_numpy(run["x"]).float(), run["y"]
    return Network(DATA / f"{name}.net"), F.pad(x, (0, y.shape[-1] - x.shape[-1])), y


# Layouts ----------------------------------------------------------------------------------------


def test_the_layout_of_spikingjelly_gives_the_same_spikes() -> None:
    net, x, y = recorded("conv")
    spikes = net.run(x.movedim(-1, 0), layout="TNX")
    assert np.array_equal(spikes.movedim(0, -1).numpy(), y)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64]
)
def test_every_dtype_gives_the_same_spikes(dtype: torch.dtype) -> None:
    net, x, y = recorded("conv")
    assert np.array_equal(net.run(x.to(dtype)).numpy(), y)


def test_sparse_tensors_and_arrays_give_the_same_spikes() -> None:
    net, x, y = recorded("conv")
    assert np.array_equal(net.run(x.to_sparse()).numpy(), y)
    assert np.array_equal(net.run(x.numpy()).numpy(), y)


def test_views_with_gaps_give_the_same_spikes() -> None:
    net, x, y = recorded("conv")
    wide = x.repeat_interleave(2, dim=-1)
    assert np.array_equal(net.run(wide[..., ::2]).numpy(), y)


def test_a_plane_is_taken_flat_where_the_net_begins_flat() -> None:
    net, x, y = recorded("flatten_first")
    assert net.input_shape == (24,)
    assert x.dim() == 5
    assert np.array_equal(net.run(x).numpy(), y)
    assert np.array_equal(net.run(x.flatten(1, -2)).numpy(), y)


def test_no_samples_give_no_spikes() -> None:
    net, x, _ = recorded("conv")
    assert net.run(x[:0]).shape == (0, 5, x.shape[-1])


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_every_backend_gives_the_same_spikes(backend: str) -> None:
    net, x, y = recorded("cuba")
    if lava_bridge.backends()[backend].startswith("missing"):
        pytest.skip(f"the backend {backend} is {lava_bridge.backends()[backend]}")
    with lava_bridge.use_backend(backend):
        assert np.array_equal(net.run(x).numpy(), y)


# Chunks -----------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(1, 11), max_size=4))
def test_chunks_with_kept_state_give_what_one_run_gives(seed, cuts, tmp_path_factory) -> None:
    made = random_net(seed)
    path = tmp_path_factory.mktemp("chunks") / "net.net"
    lava_bridge.export_hdf5(made.blocks, path)
    net = Network(path, reset_interval=5, reset_offset=2)
    whole = net.run(made.x, traces=True)
    parts = np.split(made.x.numpy(), sorted(cuts), axis=-1)
    parts = [part for part in parts if part.shape[-1]]
    net.reset()
    runs = [net.run(part, traces=True, resume=True) for part in parts]
    assert torch.equal(torch.cat([run.output for run in runs], dim=-1), whole.output)
    for i, layer in enumerate(whole.layers):
        for name, trace in layer.traces.items():
            joined = torch.cat([run.layers[i].traces[name] for run in runs], dim=-1)
            assert torch.equal(joined, trace), (layer.name, name)


def test_the_chunks_of_a_long_run_give_what_one_chunk_gives(monkeypatch) -> None:
    net, x, y = recorded("conv")
    monkeypatch.setattr("lava_bridge.netx.network.CHUNK", 1)
    assert np.array_equal(net.run(x).numpy(), y)


def test_a_run_begins_anew_unless_it_resumes() -> None:
    net, x, y = recorded("dense")
    for _ in range(2):
        assert np.array_equal(net.run(x).numpy(), y)
    again = net.run(x, resume=True)
    assert not np.array_equal(again.numpy(), y)


def test_another_batch_size_can_not_resume() -> None:
    net, x, _ = recorded("dense")
    net.run(x)
    with pytest.raises(lava_bridge.BridgeError, match="3 samples can't go on as 2"):
        net.run(x[:2], resume=True)
    net.run(x[:2])


def test_a_run_that_fails_leaves_the_state() -> None:
    net, x, y = recorded("dense")
    first = net.run(x[..., :10])
    broken = x[..., 10:].clone()
    broken[0, 0, -1] = 0.5
    with pytest.raises(lava_bridge.BridgeError, match="not whole"):
        net.run(broken, resume=True)
    rest = net.run(x[..., 10:], resume=True)
    assert np.array_equal(torch.cat([first, rest], dim=-1).numpy(), y)


# Arguments --------------------------------------------------------------------------------------


def test_the_first_layers_and_the_rest_give_what_the_whole_net_gives() -> None:
    whole, x, y = recorded("conv")
    path = DATA / "conv.net"
    first, rest = Network(path, num_layers=2), Network(path, skip_layers=2)
    assert len(first) + len(rest) == len(whole) == 3
    assert rest.input_shape == first.output_shape
    assert np.array_equal(rest.run(first.run(x)).numpy(), y)


def test_the_shape_of_the_input_is_in_lavas_order(tmp_path) -> None:
    block = slayer.block.cuba.Conv(CUBA, 2, 3, 3)
    path = written(tmp_path, block, shape=(2, 5, 7))
    with pytest.raises(lava_bridge.NetFileError, match=r"give input_shape=\(W, H, C\)"):
        Network(path)
    net = Network(path, input_shape=(7, 5, 2))
    assert net.input_shape == (2, 5, 7)
    assert net.run(torch.ones(1, 2, 5, 7, 4)).shape == (1, 3, 3, 5, 4)


def test_a_shape_that_is_not_the_files_is_refused(tmp_path) -> None:
    path = DATA / "digits.net"
    shape = Network(path).input_shape[::-1]
    assert Network(path, input_shape=shape).input_shape == shape[::-1]
    for wrong in ((*shape[:-1], shape[-1] + 1), shape[::-1] if shape[::-1] != shape else (1, 2, 3)):
        with pytest.raises(
            lava_bridge.BridgeError, match=r"input_shape is .* takes .*leave it out"
        ):
            Network(path, input_shape=wrong)
    dense_path = written(tmp_path, dense(3, 4), shape=(3,))
    asked = r"takes 3 neurons, but input_shape has \(5,\); give the net's own"
    with pytest.raises(lava_bridge.BridgeError, match=asked):
        Network(dense_path, input_shape=(5,))


def test_graded_spikes_count_as_one_unless_they_have_bits(tmp_path) -> None:
    path = written(tmp_path, dense(3, 4), shape=(3,))
    ones = (torch.rand(2, 3, 9) < 0.5).float()
    net, graded = Network(path), Network(path, input_message_bits=8)
    assert torch.equal(net.run(7 * ones), net.run(ones))
    assert torch.equal(graded.run(ones), net.run(ones))
    traces = graded.run(7 * ones, traces=True).layers[0].traces
    assert torch.equal(
        traces["current"][..., 1],
        (7 * net.run(ones, traces=True).layers[0].traces["current"])[..., 1],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "num_layers must be 1 or more, found 0"),
        ({"skip_layers": -1}, "skip_layers must be 0 or more"),
        ({"skip_layers": 9}, "no layer is left to run"),
        ({"reset_interval": 0}, "reset_interval must be 1 or more"),
        ({"spike_exp": 8}, "spike_exp must be in 0 ... 7"),
        ({"input_shape": (1, 2, 3, 4)}, r"input_shape must be \(W, H, C\)"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message) -> None:
    with pytest.raises(lava_bridge.BridgeError, match=message):
        Network(DATA / "conv.net", **arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(2, 2, 7), "expected samples of shape"),
        (torch.ones(2, 2, 6, 7, 4), r"expected samples of shape \(2, 7, 6\), found \(2, 6, 7\)"),
        (torch.ones(4), "of at least one step"),
        (torch.ones(2, 2, 7, 6, 0), "of at least one step"),
        (torch.ones(2, 2, 7, 6, 4) / 2, "not whole"),
        (torch.full((2, 2, 7, 6, 4), torch.nan), "NaN or infinite"),
        (torch.ones(2, 2, 7, 6, 4) * 1j, "complex"),
        ([["spike"]], "no array of numbers"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, message) -> None:
    with pytest.raises(lava_bridge.BridgeError, match=message):
        Network(DATA / "conv.net").run(x)


def test_a_layout_that_does_not_exist_is_refused() -> None:
    with pytest.raises(lava_bridge.BridgeError, match="layout must be 'NXT' or 'TNX'"):
        Network(DATA / "dense.net").run(torch.ones(1, 12, 3), layout="NTX")


# Bias and alignment -----------------------------------------------------------------------------


def test_a_bias_runs_ahead_of_the_spikes_unless_the_layers_are_aligned(tmp_path) -> None:
    blocks = lava_bridge.load_hdf5(DATA / "biased.net")
    x = torch.from_numpy(np.load(DATA / "biased.npz")["x"]).float()
    with torch.no_grad():
        expected = blocks(x)
    x = F.pad(x, (0, 2))
    aligned = Network(DATA / "biased.net", aligned=True).run(x)
    assert torch.equal(aligned[..., 2:], expected)
    said = "the bias of layer/0 .and of 1 more. works from the first step on, as in Lava"
    with pytest.warns(UserWarning, match=said):
        net = Network(DATA / "biased.net")
    assert not torch.equal(net.run(x)[..., 2:], expected)
    # What was done before the input came is forgotten; Lava does it too (loihi_cases.py).
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = Network(DATA / "biased.net", reset_interval=expected.shape[-1], reset_offset=1)
    assert torch.equal(net.run(x[..., :-2])[..., 2:], expected[..., :-2])
    # Of many samples in a row each begins at rest.
    row = torch.cat([*x[..., :-2]], dim=-1).unsqueeze(0)
    assert torch.equal(net.run(F.pad(row, (0, 2)))[0, ..., 2:], torch.cat([*expected], dim=-1))


def test_what_lava_leaves_out_is_left_out_with_a_warning(tmp_path) -> None:
    block = dense(3, 4, norm=slayer.neuron.norm.WgtScaleBatchNorm)
    block.neuron.norm.running_var = torch.tensor([9.0])
    path = written(tmp_path, block, shape=(3,))
    x = torch.ones(1, 3, 9)
    with pytest.warns(UserWarning, match=r"layer/0: the shift of its norm .* as in Lava"):
        shifted = Network(path).run(x)
    with h5py.File(path, "r+") as file:
        del file["layer/0/neuron/weight_exp"]
    assert torch.equal(Network(path).run(x), shifted)
    block = slayer.block.sigma_delta.Dense({"threshold": 0.1, "activation": torch.tanh}, 3, 4)
    path = written(tmp_path, block, shape=(3,))
    with pytest.warns(UserWarning, match=r"layer/0: its activation 'tanh' is run as 'relu'"):
        Network(path)


# Traces -----------------------------------------------------------------------------------------


def test_traces_are_integers_in_the_layout_of_the_input() -> None:
    net, x, _ = recorded("conv")
    run = net.run(x.movedim(-1, 0), layout="TNX", traces=True)
    assert [layer.name for layer in run.layers] == ["layer/1", "layer/2", "layer/4"]
    for layer, ran in zip(net.layers, run.layers, strict=True):
        for trace in (ran.spike, *ran.traces.values()):
            assert trace.shape == (*x.movedim(-1, 0).shape[:2], *layer.shape)
        assert {trace.dtype for trace in ran.traces.values()} == {torch.int32}


def test_the_ends_of_24_bits_are_named_where_they_are_reached(tmp_path) -> None:
    block = slayer.block.cuba.Dense(
        {"threshold": 2000, "current_decay": 0.0, "voltage_decay": 1.0}, 2, 3, delay_shift=False
    )
    weight = torch.tensor([[2.0, 2.0], [-3.96875, 0.0], [-4.0, 0.0]])
    block.synapse.weight.data = weight.reshape(3, 2, 1, 1, 1)
    path = written(tmp_path, block, shape=(2,))
    run = Network(path).run(torch.ones(1, 2, 700), traces=True).layers[0].traces
    # 256 * 64 a step reaches 2^23 after 512 steps, and is beyond it one later.
    assert run["current"][0, 0, 512] == 1 << 23
    assert run["current"][0, 0, 513] == (1 << 14) - (1 << 23)
    assert run["beyond"][0, 0].nonzero()[0].item() == 513
    # 254 * 64 downwards.
    first = -(-(1 << 23) // (254 * 64))
    assert run["beyond"][0, 1].nonzero()[0].item() == first
    # -256 * 64 meets the lower end, which is beyond.
    assert run["current"][0, 2, 512] == 1 << 23
    assert run["beyond"][0, 2].nonzero()[0].item() == 512
    # Set to 0 where it has come to the upper end, a current never is.
    net = Network(path, reset_interval=512)
    run = net.run(torch.ones(1, 2, 1100), traces=True).layers[0].traces
    assert run["current"][0, 0].max() == 1 << 23
    assert not run["beyond"][0, 0].any()
    x = torch.ones(700, 1, 2)
    report = lava_bridge.check_equivalence(lava_bridge.load_hdf5(path), path, x, integers=True)
    assert report.layers[0].beyond is not None
    # In the input's steps: the layer's are one later.
    assert report.layers[0].beyond.time == 511


# The table, the progress bar, errors of the file ------------------------------------------------


def test_the_table_is_lavas() -> None:
    net, _, _ = recorded("conv")
    assert str(net).splitlines() == [
        "|   Type   |  W  |  H  |  C  | ker | str | pad | dil | grp |delay|",
        "|Conv      |    5|    4|    4| 2, 3| 1, 2| 0, 1| 1, 1|    1|False|",
        "|Conv      |    4|    2|    6| 3, 2| 2, 1| 2, 0| 1, 2|    2|False|",
        "|Dense     |    1|    1|    5|     |     |     |     |     |False|",
    ]
    assert repr(net).endswith("conv.net', 2x7x6 -> 4x4x5 -> 6x2x4 -> 5)")


def test_a_long_run_shows_a_bar_on_a_terminal_and_nothing_in_a_log() -> None:
    program = (
        "import torch, lava_bridge.netx.network as network\n"
        "network.CHUNK = 1\n"
        f"network.Network({str(DATA / 'dense.net')!r}).run(torch.ones(1, 12, 300))\n"
    )
    master, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", program],
        stderr=terminal,
        timeout=120,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    shown = os.read(master, 1 << 16).decode()
    assert done.returncode == 0
    assert re.search("running.*%", shown)
    quiet = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert quiet.stderr == b""


def test_weights_without_a_positive_one_that_lava_changes_are_said(tmp_path) -> None:
    block = slayer.block.cuba.Dense({"threshold": 1, "current_decay": 1, "voltage_decay": 0}, 2, 2)
    block.synapse.weight.data = torch.tensor([[-4.0, -0.5], [0.0, -4.0]]).reshape(2, 2, 1, 1, 1)
    path = written(tmp_path, block, shape=(2,))
    said = r"layer/0: 2 numbers of its weight become others in 8 bits \(-256 is -240\)"
    with pytest.warns(UserWarning, match=said):
        run = Network(path).run(torch.eye(2).reshape(1, 2, 2), traces=True)
    assert run.layers[0].traces["current"].min() == -240 * 64
    block.synapse.weight.data[0, 1] = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Network(written(tmp_path, block, shape=(2,)))


def test_weights_beyond_eight_bits_are_refused(tmp_path) -> None:
    path = written(tmp_path, dense(3, 4), shape=(3,))
    with h5py.File(path, "a") as file:
        file["layer/0/weight"][...] = 300
    with pytest.raises(
        lava_bridge.NetFileError, match="layer/0/weight has weights from 300 to 300"
    ):
        Network(path)


def test_weights_of_both_signs_are_clipped_to_eight_bits_and_keep_their_ends() -> None:
    found = spread(np.array([[500, -3], [-600, 2]]))
    assert (found.weight.tolist(), found.shift) == ([[254, -3], [-256, 2]], 0)
    assert np.array_equal(cut(found.weight, found.bits), found.weight)


def test_a_delay_beyond_the_chips_is_clamped_with_a_warning(tmp_path) -> None:
    block = slayer.block.cuba.Dense(CUBA, 3, 4, delay=True, delay_shift=False)
    path = written(tmp_path, block, shape=(3,))
    with h5py.File(path, "a") as file:
        file["layer/0/delay"][...] = [0, 1, 62, 90]
    with pytest.warns(UserWarning, match="layer/0/delay: clamped from 90 to 62"):
        Network(path)


def test_families_that_lava_does_not_run_are_refused(tmp_path) -> None:
    params = {**CUBA, "threshold_step": 0.5, "threshold_decay": 0.1, "refractory_decay": 0.1}
    path = written(tmp_path, slayer.block.alif.Dense(params, 3, 4), shape=(3,))
    with pytest.raises(lava_bridge.NetFileError, match="layer/0/neuron/type is 'ALIF'"):
        Network(path)


def test_a_file_is_read_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted(DATA.glob("*.net")):
            Network(path, aligned=True)


# What a review by probes found --------------------------------------------------------------------


def test_an_input_block_that_delays_is_aligned_too(tmp_path) -> None:
    norm = slayer.neuron.norm.MeanOnlyBatchNorm
    for params in (None, {**CUBA, "current_decay": 1}):
        blocks = [slayer.block.cuba.Input(params), dense(3, 6, norm=norm), dense(6, 5, norm=norm)]
        blocks[0].infer_shape((3,))
        for block in blocks[1:]:
            block.neuron.norm.running_mean = -torch.arange(block.shape[0]) * 2.0 / 64
        path = written(tmp_path, *blocks, shape=(3,))
        x = (torch.rand(20, 4, 3) < 0.5).float()
        report = lava_bridge.check_equivalence(blocks, path, x, integers=True)
        assert report.ok, str(report)


def test_the_bias_of_each_sigma_delta_neuron_is_run(tmp_path) -> None:
    block = slayer.block.sigma_delta.Dense({"threshold": 0.1, "activation": F.relu}, 3, 4)
    block.infer_shape((3,))
    block.neuron.set_bias(torch.tensor([0.25, -0.5, 1.0, 0.0]))
    path = written(tmp_path, block, shape=(3,))
    messages = torch.randint(-9, 9, (2, 3, 12)) * 2.0 / 64
    net = Network(path, input_message_bits=16, aligned=True)
    ours = net.run(messages * 4096)[..., 1:] / 4096
    with torch.no_grad():
        assert torch.equal(ours, block(messages)[..., :-1].double())


def test_a_run_that_can_not_begin_leaves_the_state() -> None:
    net, x, y = recorded("dense")
    first = net.run(x[..., :10])
    with pytest.raises(lava_bridge.BridgeError):
        net.run(x[:, :5])
    assert np.array_equal(torch.cat([first, net.run(x[..., 10:], resume=True)], -1).numpy(), y)


def test_a_network_can_be_pickled_and_copied() -> None:
    net, x, y = recorded("conv")
    for twin in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert np.array_equal(twin.run(x).numpy(), y)


def test_arrays_of_other_byte_orders_and_strides_give_the_same_spikes() -> None:
    net, x, y = recorded("conv")
    assert np.array_equal(net.run(x.numpy().astype(">f4")).numpy(), y)
    assert np.array_equal(net.run(x.numpy()[::-1]).numpy(), y[::-1])


def test_what_the_blocks_take_is_not_taken_for_a_sigma_delta_input(tmp_path) -> None:
    block = slayer.block.sigma_delta.Input({"threshold": 0.1, "activation": F.relu})
    net = Network(written(tmp_path, block, shape=(3,)))
    with pytest.raises(lava_bridge.BridgeError, match=r"give net.encoded\(x\)"):
        net.run(torch.rand(1, 3, 5))
    assert net.run(net.encoded(np.random.default_rng(0).random((1, 3, 5)))).any()


def test_values_beyond_the_ports_are_refused(tmp_path) -> None:
    net = Network(written(tmp_path, dense(3, 4), shape=(3,)), input_message_bits=24)
    with pytest.raises(lava_bridge.BridgeError, match="beyond 32 bits"):
        net.run(torch.full((1, 3, 5), 2.0**31))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_integers_that_no_float_of_32_bits_holds_count_as_they_are(dtype, sign, tmp_path) -> None:
    block = dense(2, 1)
    block.synapse.weight.data = torch.tensor([2.0, -2.0]).reshape(1, 2, 1, 1, 1) / 64
    net = Network(written(tmp_path, block, shape=(2,)), input_message_bits=32)
    x = sign * torch.tensor([(1 << 24) + 1, 1 << 24], dtype=dtype).reshape(1, 2, 1).expand(1, 2, 3)
    assert net.run(x, traces=True).layers[0].traces["current"][0, 0, 1] == sign * 2 * 64


def test_all_inputs_of_a_transposed_convolution_count_in_what_its_sums_may_reach() -> None:
    synapse = conv_transpose(np.full((4, 1, 1, 1), 255), (1, 1), (0, 0), (1, 1), 1)
    largest = (1 << 15) + 1
    whole = synapse(torch.full((1, 4, 1, 1), float(largest)), largest)
    assert whole.item() == 4 * 255 * largest - (1 << 25), "as 24 bits hold it"


def test_delays_and_a_bias_together_are_said_to_differ_from_the_blocks(tmp_path) -> None:
    norm = slayer.neuron.norm.MeanOnlyBatchNorm
    block = slayer.block.cuba.Dense({**CUBA, "norm": norm}, 3, 4, delay=True, delay_shift=False)
    path = written(tmp_path, block, shape=(3,))
    with pytest.warns(UserWarning, match="layer/0: delays hold back the input"):
        Network(path)
