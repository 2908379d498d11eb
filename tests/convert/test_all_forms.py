"""Random nets of all that converts, in all forms: blocks, twin, file, integers; encoders too."""

import copy
import subprocess
import sys
import warnings

import h5py
import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings, strategies as st
from spikingjelly.activation_based import functional, layer, neuron

import lava_bridge
from lava_bridge import ConversionError, check_equivalence, export_hdf5, to_slayer, to_spikingjelly
from lava_bridge.convert import rewrite

from .nets import spikes
from .random_nets import nets, run


def assert_all_agree(blocks, x, path):
    """Twin, blocks, file and integers give the same spikes; and so does the way back and forth."""
    export_hdf5(blocks, path)
    twin = to_spikingjelly(blocks)
    again = to_slayer(twin, tuple(x.shape[2:]))
    for a, b, integers in (
        (twin, blocks, False),
        (twin, path, False),
        (twin, path, True),
        (again, path, False),
    ):
        report = check_equivalence(a, b, x, integers=integers)
        assert report.claim == "exact"
        if integers and not report.ok:
            assert_agree_within_24_bits(a, b, x)
        else:
            assert report.ok, str(report)


def assert_agree_within_24_bits(a, b, x):
    """Each sample is the same in all layers up to the layer and step where 24 bits end."""
    for sample in x.split(1, dim=1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            report = check_equivalence(a, b, sample, integers=True)
        # A matrix without a positive weight, which Lava changes: what comes before it is the same.
        changed = [
            str(w.message).split(":")[0] for w in caught if "become others" in str(w.message)
        ]
        ends = []
        for part in report.layers:
            if part.name_b.split()[0] in changed:
                break
            ends += [part] if part.beyond else []
            if part.mismatches:
                assert ends, str(report)
                assert min(end.beyond.time for end in ends) <= part.first.time, str(report)
                assert f"they end in {ends[0].name_b} at {ends[0].beyond}" in report.verdict


@settings(max_examples=30)
@given(drawn=nets(), mode=st.sampled_from(["weights", "data"]), seed=st.integers(0, 99))
def test_random_nets_say_the_same_in_all_forms_and_stay_as_they_were(
    drawn, mode, seed, tmp_path_factory
):
    net, shape = drawn
    x = spikes(12, 2, *shape, seed=seed)
    before = copy.deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    objects = {id(module): dict(module.__dict__) for module in net.modules()}
    blocks = to_slayer(net, shape, calibrate="weights" if mode == "weights" else x)
    assert [module.training for module in net.modules()] == modes
    for module in net.modules():
        kept = objects[id(module)]
        assert all(module.__dict__[name] is value for name, value in kept.items())
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
    assert_all_agree(blocks, x, tmp_path_factory.mktemp("nets") / "n.net")
    assert check_equivalence(net, blocks, x).claim == "drift"


def test_a_step_in_which_one_channel_spikes_and_the_other_is_silent_is_within_24_bits(tmp_path):
    # Channel 0 spikes with the input and channel 1 always; the Linear sees a mean of each.
    net = nn.Sequential(
        layer.Conv2d(1, 2, 1),
        neuron.IFNode(0.5),
        nn.AdaptiveAvgPool2d(1),
        layer.Flatten(),
        layer.Linear(2, 3, bias=False),
        neuron.IFNode(0.4),
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1))
        net[0].bias.copy_(torch.tensor([0.0, 1.0]))
        net[4].weight.copy_(torch.tensor([[1.7, -1.3], [-1.9, 0.7], [1.1, -0.3]]))
    x = torch.zeros(3, 2, 1, 40, 40)
    x[:, 1] = 1
    blocks = to_slayer(net, (1, 40, 40), calibrate="weights")
    assert_all_agree(blocks, x, tmp_path / "n.net")
    report = check_equivalence(net, tmp_path / "n.net", x, integers=True)
    assert report.ok, str(report)
    assert all(part.fired_b for part in report.layers)


def test_what_leaves_24_bits_is_the_same_up_to_there_and_no_other_error_is_let_pass(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Linear(200, 3, bias=False), neuron.IFNode(60.0), layer.Linear(3, 2), neuron.IFNode()
    )
    with torch.no_grad():
        net[0].weight.uniform_(0.7, 0.8)[:, :100] *= -1
        net[2].weight.fill_(1.2)
    x = torch.zeros(24, 2, 200)
    x[0, 0, 100:] = x[11:, 0, 100:] = x[::3, 1, 100:] = 1
    x[1:11, 0, :100] = 1
    path = tmp_path / "n.net"
    blocks = to_slayer(net, (200,), calibrate="weights")
    assert_all_agree(blocks, x, path)
    report = check_equivalence(blocks, path, x, integers=True)
    first, second = report.layers
    assert (first.beyond.sample, first.beyond.time, second.beyond) == (0, 6, None)
    assert (first.first.sample, first.first.time) == (second.first.sample, second.first.time)
    assert first.first.time > 11
    with h5py.File(path, "a") as file:
        file["layer/1/neuron/vThMant"][...] *= 2
    for sample in x.split(1, dim=1):
        with pytest.raises(AssertionError, match="NOT exact"):
            assert_agree_within_24_bits(blocks, path, sample)


def images(batch: int, *shape: int, seed: int = 0, low: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (1 - low) * torch.rand(1, batch, *shape, generator=generator)


def image_net() -> nn.Sequential:
    torch.manual_seed(5)
    net = nn.Sequential(
        layer.Conv2d(3, 8, 3, padding=1, bias=False),
        layer.BatchNorm2d(8),
        neuron.LIFNode(tau=2.0),
        layer.MaxPool2d(2),
        layer.Conv2d(8, 8, 3),
        neuron.IFNode(0.5),
        layer.Flatten(),
        layer.Linear(72, 10),
    )
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        net.train()
        net(images(16, 3, 10, 10).expand(4, -1, -1, -1, -1))
        net[0].weight.mul_(3)
        net[4].weight.mul_(3)
        functional.reset_net(net)
    return net.eval()


@pytest.mark.parametrize("encoding", ["direct", "graded"])
@pytest.mark.parametrize("calibrate", ["weights", "data"])
def test_a_net_that_is_fed_with_images_converts_with_an_encoder(encoding, calibrate, tmp_path):
    net, x = image_net(), images(4, 3, 10, 10).expand(16, -1, -1, -1, -1)
    by = calibrate if calibrate == "weights" else x
    blocks = to_slayer(net, (3, 10, 10), encoding=encoding, calibrate=by)
    kinds = [type(block).__name__ for block in blocks]
    first = {"direct": ["Encoder", "Input"], "graded": ["GradedInput", "Input", "Conv"]}[encoding]
    assert kinds == [*first, "Pool", "Conv", "Flatten", "Affine"]
    assert_all_agree(blocks, x, tmp_path / "n.net")
    assert (tmp_path / "n.encoder.h5").exists()
    drift = check_equivalence(net, tmp_path / "n.net", x)
    assert drift.claim == "drift"
    assert drift.drift < 0.05
    if encoding == "direct":
        assert drift.layers[0].mismatches == 0  # it is the net's own layer, in floats


def test_a_net_of_one_dimension_says_the_same_in_all_forms(tmp_path):
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv1d(2, 6, 3),
        nn.BatchNorm1d(6),
        neuron.IFNode(0.4),
        nn.MaxPool1d(2),
        nn.Conv1d(6, 6, 3),
        neuron.LIFNode(v_threshold=0.2),
        nn.Flatten(),
        nn.Linear(30, 5),
        neuron.IFNode(0.3),
    ).eval()
    x = spikes(12, 3, 2, 16)
    blocks = to_slayer(net, (2, 16), calibrate="weights")
    assert_all_agree(blocks, x, tmp_path / "n.net")
    planes = to_slayer(net, (2, 16), calibrate=x.unsqueeze(3)).report.calibration
    assert to_slayer(net, (2, 16), calibrate=x).report.calibration == planes
    for encoding in ("direct", "graded"):
        blocks = to_slayer(net, (2, 16), calibrate=x, encoding=encoding)
        assert_all_agree(blocks, x, tmp_path / f"{encoding}.net")
    assert all(part.fired_a for part in check_equivalence(net, blocks, x).layers)


def test_a_neuron_after_a_flatten_is_compared_with_the_plane_of_its_block():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), neuron.IFNode(0.3)).eval()
    x = spikes(9, 2, 1, 8, 8)
    (layer_,) = check_equivalence(net, to_slayer(net, (1, 8, 8), calibrate="weights"), x).layers
    assert layer_.shape == (144,)
    assert layer_.fired_a
    assert layer_.drift < 0.05


@pytest.mark.parametrize("calibrate", [None, "weights"])
def test_conversion_holds_the_blocks_copy_of_the_weights_and_no_other(calibrate):
    code = f"""
import resource, warnings
import torch.nn as nn
from spikingjelly.activation_based import neuron
import lava_bridge

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

warnings.simplefilter("ignore")
lava_bridge.to_slayer([nn.Linear(9, 9), neuron.IFNode()], (9,), calibrate={calibrate!r})
net = [nn.Linear(4_000, 4_000), neuron.IFNode()]
before = peak()
blocks = lava_bridge.to_slayer(net, (4_000,), calibrate={calibrate!r})
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    # The weights have 61 MiB.
    assert float(done.stdout) < 61 + 30, done.stderr


def test_graded_input_scales_the_first_threshold_only():
    net = nn.Sequential(nn.Linear(4, 3), neuron.IFNode(0.5), nn.Linear(3, 2), neuron.IFNode(0.5))
    made = rewrite(net, (4,), encoding="graded")
    assert made[1].v_threshold == 0.5 * 255
    assert torch.equal(made[0][0].bias, net[0].bias * 255)
    assert made[3].v_threshold == 0.5


def test_what_can_not_encode_is_refused():
    lif, cuba = neuron.LIFNode(), lava_bridge.exchange.CubaLIFNode(1.0, 0.5)
    with pytest.raises(ConversionError, match=r"1 \(CubaLIFNode\): is quantised, but the first"):
        to_slayer([nn.Linear(4, 3), cuba], (4,), encoding="direct")
    with pytest.raises(ConversionError, match=r"0 \(MaxPool2d\): takes the largest of analog"):
        to_slayer([nn.MaxPool2d(2), nn.Conv2d(1, 2, 3), lif], (1, 8, 8), encoding="direct")
    with pytest.raises(ConversionError, match="has no neuron after it, so nothing encodes"):
        to_slayer([nn.Linear(4, 3)], (4,), encoding="direct")
    with pytest.raises(ConversionError, match="encoding: expected None, 'direct' or 'graded'"):
        to_slayer([nn.Linear(4, 3), lif], (4,), encoding="rate")
    with pytest.raises(ConversionError, match="calibrate: expected None, 'weights', or a batch"):
        to_slayer([nn.Linear(4, 3), lif], (4,), calibrate="best")
    batch = spikes(3, 2, 4)
    for data in ([(batch, 0)], {"x": batch}):
        with pytest.raises(ConversionError, match="calibrate: the data are no array of numbers"):
            to_slayer([nn.Linear(4, 3), lif], (4,), calibrate=data)
    two = [nn.Linear(4, 3), lif, nn.Linear(3, 2), neuron.IFNode()]
    with pytest.raises(ConversionError, match="calibrate: expected samples of shape"):
        to_slayer(two, (4,), calibrate=spikes(3, 2, 5), encoding="direct")


@pytest.mark.parametrize("tail", [[], [nn.Flatten()], [nn.Flatten(), layer.VotingLayer(2)]])
def test_an_encoder_alone_leaves_no_layer_for_the_chip(tail):
    """Its file could be written, and never verified."""
    net = [nn.Conv2d(1, 4, 3), neuron.IFNode(0.2), *tail]
    message = (
        r"^1 \(IFNode\): the net's one spiking layer becomes the encoder, and no layer is left"
    )
    with pytest.raises(ConversionError, match=message):
        to_slayer(net, (1, 6, 6), encoding="direct")
    assert len(rewrite(net, (1, 6, 6), encoding="direct")) >= 2
    to_slayer([*net[:2], nn.Flatten(), nn.Linear(64, 2)], (1, 6, 6), encoding="direct")


def test_the_report_says_what_was_rewritten_and_calibrated():
    net = image_net()
    blocks = to_slayer(net, (3, 10, 10), encoding="direct", calibrate="weights")
    text = str(blocks.report)
    for part in ("BatchNorm folded", "decay_input", "OR", "Calibration", "limit"):
        assert part in text, text
    assert [table[0].split()[0] for table in blocks.report.tables] == ["What", "Calibration"]
    assert str(blocks[1:].report) == "Nothing was rewritten or calibrated."


def test_a_layer_of_few_levels_and_one_that_is_clipped_are_said():
    small = nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        small.weight.uniform_(-0.05, 0.05)
    with pytest.warns(UserWarning, match=r"0 \(Linear\): its weights, .* of the 256 levels"):
        to_slayer([small, neuron.IFNode()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_slayer([small, neuron.IFNode()], calibrate="weights")


def test_blocks_of_a_net_convert_it_again_in_the_same_way():
    net = image_net()
    x = images(2, 3, 10, 10).expand(8, -1, -1, -1, -1)
    blocks = to_slayer(net, (3, 10, 10), encoding="direct", calibrate=x)
    again = to_slayer(net, (3, 10, 10), encoding="direct", calibrate=list(blocks)[1:])
    for ours, theirs in zip(blocks.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    _, seen = run(rewrite(net, (3, 10, 10), "direct"), x)
    assert len(seen) == 2


@pytest.mark.parametrize("by", ["weights", "data"])
def test_a_twin_with_biases_is_calibrated_and_stays_as_it_is(by):
    torch.manual_seed(4)
    hidden, leaky = neuron.IFNode(0.5), neuron.LIFNode(v_threshold=0.1)
    net = nn.Sequential(nn.Linear(6, 8), hidden, nn.Linear(8, 5), leaky, nn.Linear(5, 3))
    x = spikes(12, 3, 6)
    blocks = to_slayer(net, (6,), calibrate="weights")
    again = to_slayer(to_spikingjelly(blocks), (6,), calibrate="weights" if by == "weights" else x)
    report = check_equivalence(blocks[:3], again[:3], x)
    assert report.ok, str(report)
    assert all(part.fired_a for part in report.layers)


def test_a_list_of_numbers_calibrates_as_its_tensor():
    net, x = nn.Sequential(nn.Linear(4, 3), neuron.IFNode()), spikes(3, 2, 4)
    one, other = (to_slayer(net, calibrate=data).report.calibration for data in (x, x.tolist()))
    assert one == other


@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8])
def test_sums_are_compared_in_full_whatever_the_dtype_of_the_spikes(dtype, tmp_path):
    torch.manual_seed(8)
    net = nn.Sequential(nn.Linear(6, 8), neuron.IFNode(0.5), nn.Linear(8, 3))
    blocks, x = to_slayer(net, (6,), calibrate="weights"), spikes(8, 2, 6).to(dtype)
    export_hdf5(blocks, tmp_path / "n.net")
    report = check_equivalence(blocks, tmp_path / "n.net", x, integers=True)
    assert report.ok, str(report)
