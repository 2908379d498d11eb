"""The integer run's sums are exact, whatever torch is told to round."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import lava_bridge
from lava_bridge.netx import Network, synapse
from lava_bridge.netx.copies import Copies
from lava_bridge.netx.layer import Average, LayerState

from .random_nets import random_net

# Messages of so many bits are more than a bfloat16 or TF32 has.
BITS = 12


def messages(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 1 << BITS, shape))


def made(kind: str) -> tuple[synapse.Synapse, torch.Tensor]:
    """A synapse whose sums float32 holds, and messages for it."""
    random = np.random.default_rng(0)
    if kind == "dense":
        return synapse.dense(random.integers(-10, 10, (64, 64))), messages(40, 64)
    weight = random.integers(-10, 10, (8, 4, 3, 3))
    window = (1, 1), (1, 1), (1, 1), 1
    made = (
        synapse.conv(weight, *window)
        if kind == "conv"
        else synapse.conv_transpose(weight.transpose(1, 0, 2, 3), *window)
    )
    return made, messages(40, 4, 8, 8)


def sums(kind: str) -> torch.Tensor:
    part, x = made(kind)
    return part(x, (1 << BITS) - 1)


def exact(kind: str) -> torch.Tensor:
    part, x = made(kind)
    # Too large a bound for float32: sums are of doubles.
    return part(x, 1 << 20).double()


KINDS = pytest.mark.parametrize("kind", ["dense", "conv", "conv_transpose"])


@KINDS
def test_sums_are_exact_without_onednn(kind: str) -> None:
    # NNPACK's convolutions, which come in then, are Winograd's.
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(sums(kind).double(), exact(kind))


@KINDS
def test_sums_are_of_doubles_where_float32_may_be_rounded(kind: str) -> None:
    """Which no machine without bfloat16 shows; a GPU takes the same way."""
    part, x = made(kind)
    seen: list[torch.dtype] = []
    apply = part._apply

    def spied(spikes: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        seen.append(weight.dtype)
        return apply(spikes, weight)

    part._apply = spied
    before = torch.get_float32_matmul_precision()
    largest = (1 << BITS) - 1
    plain = part(x, largest)
    try:
        torch.set_float32_matmul_precision("medium")
        rounded = part(x, largest)
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == [torch.float32, torch.float64]
    assert torch.equal(plain, rounded)
    assert plain.dtype == rounded.dtype


def test_a_gpu_never_sums_float32() -> None:
    for narrow in (False, True):
        assert not synapse._float32_is_plain(torch.device("cuda"), narrow)
        assert synapse._float32_is_plain(torch.device("cpu"), narrow)


def test_autocast_changes_no_integer(tmp_path: Any) -> None:
    blocks = [
        lava_bridge.slayer.block.cuba.Dense(
            {"threshold": 500.0, "current_decay": 0.5, "voltage_decay": 0.1}, 8, 5
        )
    ]
    blocks[0].infer_shape((8,))
    lava_bridge.export_hdf5(blocks, tmp_path / "net.net")
    net = Network(tmp_path / "net.net", input_message_bits=BITS)
    x = messages(3, 8, 12)
    expected = net.run(x, traces=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net.run(x, traces=True)
    assert expected.layers[0].traces["current"].any()
    assert torch.equal(found.output, expected.output)
    for name, trace in expected.layers[0].traces.items():
        assert torch.equal(found.layers[0].traces[name], trace), name


@pytest.mark.parametrize("value", [200, 228])
def test_sums_of_odd_numbers_wrap_exactly_at_24_bits(value: int) -> None:
    """Half of the range is added on the way, which left what float32 holds."""
    part = synapse.conv(np.full((1, 32, 3, 3), 255), (1, 1), (0, 0), (1, 1), 1)
    x = torch.full((1, 32, 3, 3), value)
    x[0, 0, 0, 0] -= 1
    total = 255 * int(x.sum())
    assert 1 << 23 < total < 1 << 24
    assert part(x, value).item() == total - (1 << 24)


def test_the_mean_of_groups_is_what_torchs_mean_is() -> None:
    x = (torch.rand(7, 3, 6 * 49, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    found = Average("layer/0", (6,)).run(x, LayerState(), 0, False).spike
    assert torch.equal(found, x.unflatten(-1, (6, 49)).mean(-1))


# Devices ------------------------------------------------------------------------------------------

ELSEWHERE = torch.device("meta")


def test_a_copy_for_a_device_is_made_once() -> None:
    copies, one, other = Copies(), torch.ones(3), torch.ones(3)
    made = copies.on(ELSEWHERE, one)
    assert made.device == ELSEWHERE
    assert copies.on(ELSEWHERE, one) is made
    assert copies.on(ELSEWHERE, other) is not made
    assert copies.on(ELSEWHERE, one, torch.float64).dtype == torch.float64
    assert copies.on(one.device, one) is one


def test_a_net_is_copied_and_pickled_without_its_copies_for_devices(tmp_path: Any) -> None:
    made = random_net(3)
    lava_bridge.export_hdf5(made.blocks, tmp_path / "net.net")
    net = Network(tmp_path / "net.net")
    expected = net.run(made.x)
    copies: Any = net.layers[-1]._synapses[0]._copies
    copies.on(ELSEWHERE, torch.ones(1))
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert not other.layers[-1]._synapses[0]._copies._made
        assert torch.equal(other.run(made.x), expected)


def test_all_of_a_layers_state_goes_to_another_device() -> None:
    one = torch.ones(2)
    state = LayerState((one, one), (one,), one).to(ELSEWHERE)
    parts = [*state.neuron, *state.lines, state.spike]
    assert [part.device for part in parts if part is not None] == [ELSEWHERE] * 4
    assert LayerState().to(ELSEWHERE) == LayerState()
