"""Files written and read: against lava-dl's own, and against the blocks that they come from."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn as nn
from spikingjelly.activation_based import neuron

import lava_bridge
from lava_bridge import NetFileError, export_hdf5, load_hdf5, net_writer, slayer as native
from lava_bridge.hdf5.writer import whole_files
from lava_bridge.slayer.block import cuba

from .nets import PARAMS, conv_blocks, dense_blocks, run, strong

NETS = {"conv": (conv_blocks, (1, 9, 8)), "dense": (dense_blocks, (12,))}


def lava_export(blocks, path: Path) -> None:
    """As lava-dl's examples write a net."""
    with h5py.File(path, "w") as file:
        layers = file.create_group("layer")
        for i, block in enumerate(blocks):
            block.export_hdf5(layers.create_group(str(i)))


def datasets(path: Path) -> dict[str, tuple]:
    """Every dataset: dtype, shape and bytes."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            kind = h5py.check_string_dtype(item.dtype) or item.dtype
            found[name] = (str(kind), item.shape, np.asarray(item[()]).tolist())

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


@pytest.fixture(params=NETS)
def pair(request, lava):
    """The same net of the original's blocks and of ours, after the original has run."""
    make, shape = NETS[request.param]
    torch.manual_seed(3)
    original = strong(make(lava))
    x = (torch.rand(4, *shape, 8) < 0.4).float()
    run(original, x)
    for block in original:
        block.eval()
    ours = make(native)
    for our_block, their_block in zip(ours, original, strict=True):
        our_block.load_state_dict(their_block.state_dict())
        our_block.eval()
    return original, ours, shape, x


def test_the_file_is_lava_dls_dataset_by_dataset(pair, tmp_path):
    original, ours, shape, _ = pair
    export_hdf5(ours, tmp_path / "ours.net", input_shape=shape)
    lava_export(original, tmp_path / "theirs.net")
    mine, theirs = datasets(tmp_path / "ours.net"), datasets(tmp_path / "theirs.net")
    assert len(theirs) > 20
    assert mine == theirs


def test_a_file_of_lava_dl_reads_back_to_blocks_of_the_same_spikes(pair, tmp_path):
    original, _, _, x = pair
    lava_export(original, tmp_path / "theirs.net")
    for block in original:  # from a fresh state, as the blocks that are read
        block.delay_buffer = None
        if getattr(block, "neuron", None) is not None:
            block.neuron.current_state = torch.zeros(1)
            block.neuron.voltage_state = torch.zeros(1)
    expected = run(original, x)
    found = run(load_hdf5(tmp_path / "theirs.net"), x)
    assert any(output.any() for output in expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def five_bit_norm() -> native.neuron.norm.WgtScaleBatchNorm:
    """A norm whose variance needs more than the usual three bits."""
    norm = native.neuron.norm.WgtScaleBatchNorm(weight_exp_bits=5).eval()
    norm.running_mean.fill_(0.25)
    norm.running_var.fill_(2.0**-9)
    return norm


def bias_of_13_bits() -> native.neuron.norm.ChannelBias:
    """Odd, and at both ends of 13 bits."""
    bias = native.neuron.norm.ChannelBias(3)
    bias.value.data = torch.tensor([-4096.0, 4095.0, 3.0]) / 64
    return bias


ALL_BLOCKS = {
    "dense with a bias": (
        lambda: cuba.Dense({**PARAMS, "norm": bias_of_13_bits}, 12, 3),
        (12,),
    ),
    "affine with a bias": (
        lambda: cuba.Affine({**PARAMS, "norm": bias_of_13_bits}, 12, 3),
        (12,),
    ),
    "input": (lambda: cuba.Input(dict(PARAMS), weight=1.5, bias=0.25), (3,)),
    "plain input": (lambda: cuba.Input(), (2, 5, 4)),
    "flatten": (lambda: cuba.Flatten(), (2, 5, 4)),
    "average": (lambda: cuba.Average(3), (12,)),
    "time decimation": (lambda: cuba.TimeDecimation(4), (12,)),
    "affine": (lambda: cuba.Affine(dict(PARAMS), 12, 3), (12,)),
    "affine without dynamics": (lambda: cuba.Affine(dict(PARAMS), 12, 3, dynamics=False), (12,)),
    "dense": (lambda: cuba.Dense(dict(PARAMS), 12, 3), (12,)),
    "dense over an image": (lambda: cuba.Dense(dict(PARAMS), (4, 5, 2), 3), (2, 5, 4)),
    "dense per channel": (
        lambda: cuba.Dense({**PARAMS, "shared_param": False}, 12, 3, delay=True),
        (12,),
    ),
    "dense graded": (lambda: cuba.Dense({**PARAMS, "graded_spike": True}, 12, 3), (12,)),
    "dense of another scale": (lambda: cuba.Dense({**PARAMS, "scale": 100}, 12, 3), (12,)),
    "dense without shift": (lambda: cuba.Dense(dict(PARAMS), 12, 3, delay_shift=False), (12,)),
    "dense with weight norm": (lambda: cuba.Dense(dict(PARAMS), 12, 3, weight_norm=True), (12,)),
    "masked dense": (
        lambda: cuba.Dense(dict(PARAMS), 12, 3, mask=torch.arange(36).reshape(3, 12) % 2),
        (12,),
    ),
    "affine with a norm": (
        lambda: cuba.Affine({**PARAMS, "norm": five_bit_norm}, 12, 3),
        (12,),
    ),
    "dense with a norm of five bits": (
        lambda: cuba.Dense({**PARAMS, "norm": five_bit_norm}, 12, 3),
        (12,),
    ),
    "conv": (lambda: cuba.Conv(dict(PARAMS), 2, 4, (3, 2), 2, 1, groups=2, delay=True), (2, 5, 4)),
    "pool": (lambda: cuba.Pool(dict(PARAMS), 2), (2, 5, 4)),
    "convT": (lambda: cuba.ConvT(dict(PARAMS), 2, 4, 3, 2), (2, 5, 4)),
    "unpool": (lambda: cuba.Unpool(dict(PARAMS), (2, 1)), (2, 5, 4)),
    "kwta": (lambda: cuba.KWTA(dict(PARAMS), 12, 5, 2), (12,)),
    "recurrent": (lambda: cuba.Recurrent(dict(PARAMS), 12, 5, delay=True), (12,)),
}


def has_whole_delays(block: nn.Module) -> bool:
    """Give a block that delays whole steps, as a file holds them; those drawn are below one."""
    if getattr(block, "delay", None) is None:
        return False
    block.delay.delay.data = torch.arange(1.0, block.shape[0] + 1) % 4
    return True


@pytest.mark.parametrize("name", ALL_BLOCKS)
def test_every_block_exports_before_a_forward_and_reads_back_to_the_same_output(name, tmp_path):
    make, shape = ALL_BLOCKS[name]
    (block,) = strong([make()])
    export_hdf5([block], tmp_path / "block.net", input_shape=shape)
    if has_whole_delays(block):
        export_hdf5([block], tmp_path / "block.net")
    (loaded,) = load_hdf5(tmp_path / "block.net")
    assert type(loaded) is type(block)
    assert tuple(loaded.shape) == tuple(block.shape)
    x = (torch.rand(3, *shape, 9) < 0.5).float()
    block.eval()
    (expected,), (found,) = run([block], x), run([loaded.eval()], x)
    assert expected.any()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ALL_BLOCKS)
def test_exporting_changes_nothing_and_twice_gives_the_same_bytes(name, tmp_path):
    make, shape = ALL_BLOCKS[name]
    block = make()
    block.infer_shape(shape)
    before = {key: value.clone() for key, value in block.state_dict().items()}
    for file in ("a.net", "b.net"):
        export_hdf5([block], tmp_path / file)
    assert list(before) == list(block.state_dict())
    for key, value in block.state_dict().items():
        assert torch.equal(value, before[key])
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "b.net").read_bytes()


@pytest.mark.parametrize("steps", [[2, 4, -6], [2, 4, -7], [2, 4, 600]])
@pytest.mark.parametrize("marked", [True, False])
def test_a_bias_is_read_as_the_norm_that_can_hold_it(steps, marked, tmp_path):
    bias = bias_of_13_bits()
    bias.value.data = torch.tensor(steps) / 64
    block = cuba.Dense({**PARAMS, "norm": lambda: bias}, 12, 3)
    export_hdf5([block], tmp_path / "net.net")
    if not marked:  # as a file of lava-dl
        with h5py.File(tmp_path / "net.net", "r+") as file:
            del file["layer/0"].attrs["channel_bias"]
    read = load_hdf5(tmp_path / "net.net")[0].neuron.norm
    is_mean = not marked and steps == [2, 4, -6]
    norms = native.neuron.norm
    assert type(read) is (norms.MeanOnlyBatchNorm if is_mean else norms.ChannelBias)
    assert read.bias.tolist() == steps


@pytest.mark.parametrize("steps", [4096, -4097])
def test_a_bias_beyond_13_bits_is_refused(steps, tmp_path):
    export_hdf5([cuba.Dense({**PARAMS, "norm": bias_of_13_bits}, 12, 3)], tmp_path / "net.net")
    with h5py.File(tmp_path / "net.net", "r+") as file:
        file["layer/0/bias"][1] = steps
    with pytest.raises(NetFileError, match=rf"layer/0/bias is outside its 13 bits.*{steps}"):
        load_hdf5(tmp_path / "net.net")


def test_many_weights_are_written_in_parts_and_are_the_same(tmp_path, monkeypatch):
    blocks = [
        cuba.Dense({**PARAMS, "scale": 100}, (4, 5, 2), 7, mask=torch.arange(14).reshape(7, 2) % 3),
        cuba.Dense(dict(PARAMS), 7, 9, weight_norm=True),
    ]
    export_hdf5(blocks, tmp_path / "whole.net", input_shape=(2, 5, 4))
    monkeypatch.setattr(net_writer, "SLICE", 100)
    export_hdf5(blocks, tmp_path / "parts.net", input_shape=(2, 5, 4))
    assert datasets(tmp_path / "parts.net") == datasets(tmp_path / "whole.net")
    # A quantiser of one's own may look at all weights at once.
    seen = []
    blocks[1].synapse.pre_hook_fx = lambda x, descale=False: seen.append(len(x)) or x.mul(0)
    export_hdf5(blocks[1:], tmp_path / "own.net", input_shape=(7,))
    assert seen == [9]


def test_a_whole_net_reads_back_to_the_same_spikes_in_every_layer(tmp_path):
    for make, shape in NETS.values():
        blocks = strong(make(native))
        for block in blocks:
            block.eval()
        export_hdf5(blocks, tmp_path / "net.net", input_shape=shape)
        for block in blocks:
            if has_whole_delays(block):
                export_hdf5(blocks, tmp_path / "net.net")
        x = (torch.rand(3, *shape, 9) < 0.5).float()
        loaded = load_hdf5(tmp_path / "net.net")
        assert isinstance(loaded, nn.Sequential)
        for found, expected in zip(run(loaded, x), run(blocks, x), strict=True):
            assert torch.equal(found, expected)


def test_a_converted_net_exports_at_once(tmp_path):
    blocks = lava_bridge.to_slayer([nn.Linear(4, 3, bias=False), neuron.IFNode()], (4,))
    export_hdf5(blocks, tmp_path / "net.net")
    assert [type(block).__name__ for block in load_hdf5(tmp_path / "net.net")] == [
        "Input",
        "Dense",
    ]


# Writing that fails -----------------------------------------------------------------------------


def test_a_block_that_cannot_be_exported_leaves_the_former_file_whole(tmp_path):
    target = tmp_path / "net.net"
    export_hdf5([cuba.Dense(dict(PARAMS), 4, 3)], target)
    former = target.read_bytes()
    good, bad = cuba.Dense(dict(PARAMS), 4, 3), cuba.Conv(dict(PARAMS), 1, 2, 3)
    with pytest.raises(NetFileError, match=r"^1 \(Conv\): .*shape is not known.*input_shape"):
        export_hdf5([good, bad], target)
    with pytest.raises(NetFileError, match=r"^0 \(Linear\): is no slayer block"):
        export_hdf5([nn.Linear(2, 2)], target)
    with pytest.raises(NetFileError, match="no blocks"):
        export_hdf5([], target)
    assert target.read_bytes() == former
    assert os.listdir(tmp_path) == ["net.net"]


def test_what_is_no_file_is_never_replaced_and_a_link_stays_a_link(tmp_path):
    block = cuba.Dense(dict(PARAMS), 4, 3)
    folder, pipe = tmp_path / "folder.net", tmp_path / "pipe.net"
    folder.mkdir()
    os.mkfifo(pipe)
    for target in (folder, pipe):
        with pytest.raises(NetFileError, match="not a file; choose another path"):
            export_hdf5([block], target)
    assert folder.is_dir()
    assert pipe.is_fifo()
    link, real = tmp_path / "link.net", tmp_path / "real.net"
    real.write_bytes(b"former")
    link.symlink_to(real)
    export_hdf5([block], link)
    assert link.is_symlink()
    load_hdf5(real)
    circle = tmp_path / "circle.net"
    circle.symlink_to(circle)
    with pytest.raises(NetFileError, match=r"circle\.net: is a link to itself; choose another"):
        export_hdf5([block], circle)
    assert circle.is_symlink()


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(NetFileError, match=r"nowhere/net.net: can't be written"):
        export_hdf5([cuba.Dense(dict(PARAMS), 4, 3)], tmp_path / "nowhere" / "net.net")


CHILD = """
    import os, resource, signal, sys
    import lava_bridge
    from lava_bridge import hdf5
    from lava_bridge.slayer.block import cuba
    block = cuba.Dense({"threshold": 1, "current_decay": 1, "voltage_decay": 0}, 300, 300)
    target = sys.argv[1]
"""


def in_child(body: str, target: Path) -> subprocess.CompletedProcess:
    code = textwrap.dedent(CHILD) + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def former(tmp_path) -> Path:
    target = tmp_path / "net.net"
    export_hdf5([cuba.Dense(dict(PARAMS), 4, 3)], target)
    return target


def test_a_full_disk_leaves_the_former_file_whole_and_nothing_beside_it(former):
    content = former.read_bytes()
    # The kernel refuses to write beyond 100,000 bytes of a file; the net has 360,000.
    done = in_child(
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            hdf5.export_hdf5([block], target)
        except lava_bridge.NetFileError as error:
            print(error)
        """,
        former,
    )
    assert "can't be written (File too large)" in done.stdout, done.stderr
    assert former.read_bytes() == content
    assert os.listdir(former.parent) == [former.name]
    load_hdf5(former)


def test_an_export_holds_no_second_copy_of_the_weights(tmp_path):
    done = in_child(
        """
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        lava_bridge.net_writer.SLICE = 1 << 18
        hdf5.export_hdf5([block], target)
        block = cuba.Dense({"threshold": 1, "current_decay": 1, "voltage_decay": 0}, 4_000, 4_000)
        before = peak()
        hdf5.export_hdf5([block], target)
        print(peak() - before)
        """,
        tmp_path / "net.net",
    )
    # The weights have 61 MiB.
    assert float(done.stdout) < 30, done.stderr


@pytest.mark.parametrize("moment", ["os.fsync", "os.replace"])
def test_a_kill_in_the_middle_of_an_export_leaves_the_former_file_whole(former, moment):
    content = former.read_bytes()
    done = in_child(
        f"""
        {moment} = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
        hdf5.export_hdf5([block], target)
        """,
        former,
    )
    assert done.returncode == -signal.SIGKILL
    assert former.read_bytes() == content
    load_hdf5(former)


def test_a_written_file_keeps_the_permissions_of_the_former_one(former):
    former.chmod(0o640)
    export_hdf5([cuba.Dense(dict(PARAMS), 4, 3)], former)
    assert former.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_the_permissions_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        export_hdf5([cuba.Dense(dict(PARAMS), 4, 3)], tmp_path / "new.net")
    finally:
        os.umask(before)
    assert (tmp_path / "new.net").stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_is_being_written_is_no_more_readable_than_what_it_replaces(former):
    former.chmod(0o600)
    with whole_files(former) as (file,):
        (beside,) = former.parent.glob(f".{former.name}.*.part")
        assert beside.stat().st_mode & 0o777 == 0o600
        file.write(b"new")
    assert former.read_bytes() == b"new"
    assert former.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_one_error_and_leaves_nothing_behind(former):
    code = f"""
        import resource, signal
        from pathlib import Path
        from lava_bridge import NetFileError
        from lava_bridge.hdf5.writer import write_whole

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_whole(Path({str(former)!r}), memoryview(bytes(5000)))
        except NetFileError as error:
            assert "can't be written (File too large); free space" in str(error), error
        else:
            raise AssertionError
        """
    content = former.read_bytes()
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert former.read_bytes() == content
    assert not list(former.parent.glob(".*.part"))
