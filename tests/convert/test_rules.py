"""Each rule by itself: the net against its rewritten form, in floats of 64 bits, each spike."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn as nn
from spikingjelly.activation_based import functional, layer, neuron

from lava_bridge import to_slayer
from lava_bridge.convert import rewrite

from .nets import spikes
from .random_nets import run

IF, LIF = neuron.IFNode, neuron.LIFNode


def norm(kind: type[nn.Module], features: int, *options: object) -> nn.Module:
    """A BatchNorm whose statistics and parameters are all its own."""
    made = kind(*options, features)
    made.eps = 0.3  # so large that it counts
    made.running_mean.copy_(torch.linspace(-0.4, 0.3, features))
    made.running_var.copy_(torch.linspace(0.3, 2.0, features))
    made.weight.data.copy_(torch.linspace(2.0, 0.7, features))
    made.bias.data.copy_(torch.linspace(0.4, -0.1, features))
    return made


def td_norm(dimensions: int, features: int) -> nn.Module:
    return norm(getattr(layer, f"ThresholdDependentBatchNorm{dimensions}d"), features, 1.0, 1.0)


# What is rewritten: layers, the shape of their input, and how many layers come out of it.
RULES: dict[str, tuple[Callable[[], list[nn.Module]], tuple[int, ...], int]] = {
    "decay_input": (lambda: [nn.Linear(6, 5), LIF(tau=3.0)], (6,), 1),
    "v_reset of IF": (lambda: [nn.Linear(6, 5), IF(v_threshold=0.4, v_reset=-0.3)], (6,), 1),
    "v_reset of LIF": (
        lambda: [nn.Linear(6, 5), LIF(tau=2.5, v_threshold=0.4, v_reset=-0.3)],
        (6,),
        1,
    ),
    "v_reset without decay_input": (
        lambda: [nn.Linear(6, 5), LIF(3.0, False, 0.4, 0.2)],
        (6,),
        1,
    ),
    "PLIF": (lambda: [nn.Linear(6, 5), neuron.ParametricLIFNode(3.7)], (6,), 1),
    "PLIF without decay_input": (
        lambda: [nn.Linear(6, 5), neuron.ParametricLIFNode(3.7, decay_input=False)],
        (6,),
        1,
    ),
    "BatchNorm1d": (lambda: [nn.Linear(6, 5), norm(nn.BatchNorm1d, 5), IF()], (6,), 1),
    "BatchNorm2d": (
        lambda: [layer.Conv2d(2, 3, 3), norm(layer.BatchNorm2d, 3), LIF()],
        (2, 6, 6),
        1,
    ),
    "BatchNorm2d before pooling": (
        lambda: [nn.Conv2d(2, 3, 3, padding=1), norm(nn.BatchNorm2d, 3), nn.AvgPool2d(2), IF()],
        (2, 6, 7),
        1,
    ),
    "BatchNorm2d after pooling": (
        lambda: [nn.Conv2d(2, 3, 3), nn.AvgPool2d(2, 1), norm(nn.BatchNorm2d, 3), LIF()],
        (2, 6, 7),
        1,
    ),
    "BatchNorm2d before a convolution": (
        lambda: [norm(nn.BatchNorm2d, 4), nn.Conv2d(4, 6, 3, groups=2), IF()],
        (4, 6, 6),
        1,
    ),
    "BatchNorm2d of a transposed convolution": (
        lambda: [nn.ConvTranspose2d(4, 6, 3, 2, groups=2), norm(nn.BatchNorm2d, 6), IF()],
        (4, 3, 3),
        1,
    ),
    "BatchNorm2d twice": (
        lambda: [nn.Conv2d(2, 3, 3), norm(nn.BatchNorm2d, 3), norm(nn.BatchNorm2d, 3), IF()],
        (2, 6, 6),
        1,
    ),
    "BatchNorm2d alone": (lambda: [norm(nn.BatchNorm2d, 2), IF()], (2, 4, 4), 1),
    "BatchNorm2d, Flatten, Linear": (
        lambda: [norm(nn.BatchNorm2d, 2), nn.Flatten(), nn.Linear(32, 5), IF()],
        (2, 4, 4),
        2,
    ),
    "bias": (lambda: [nn.Conv2d(2, 3, 3), IF()], (2, 5, 5), 1),
    "AvgPool2d before a convolution": (
        lambda: [nn.AvgPool2d(2), nn.Conv2d(2, 3, 2, padding=1, dilation=2), LIF()],
        (2, 8, 8),
        1,
    ),
    "overlapping AvgPool2d before a convolution": (
        lambda: [nn.AvgPool2d(3, 2, 1), nn.Conv2d(2, 3, 2, stride=2, dilation=2), IF()],
        (2, 11, 12),
        1,
    ),
    "AvgPool2d twice before a convolution": (
        lambda: [nn.AvgPool2d(2), nn.AvgPool2d((1, 2)), nn.Conv2d(2, 3, 2), IF()],
        (2, 8, 9),
        1,
    ),
    "AvgPool2d of a biased convolution": (
        lambda: [nn.Conv2d(2, 3, 2, 2, 1, 2), nn.AvgPool2d((2, 3), (1, 2)), IF()],
        (2, 11, 12),
        1,
    ),
    "AvgPool2d, Flatten, Linear": (
        lambda: [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 5), LIF(v_threshold=0.4)],
        (2, 6, 7),
        2,
    ),
    "AvgPool2d in ceil_mode before a linear layer": (
        lambda: [nn.AvgPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(24, 5), IF()],
        (2, 6, 7),
        2,
    ),
    "AvgPool2d in ceil_mode that cuts nothing off": (
        lambda: [nn.Conv2d(2, 4, 1), IF(0.3), nn.AvgPool2d(3, 2, ceil_mode=True), IF(0.57)],
        (2, 7, 9),
        2,
    ),
    "AvgPool2d that does not count its padding": (
        lambda: [
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            nn.Flatten(),
            nn.Linear(24, 5),
            IF(),
        ],
        (2, 6, 7),
        2,
    ),
    "MaxPool2d": (lambda: [nn.MaxPool2d(2), nn.Conv2d(2, 3, 2), IF()], (2, 7, 6), 2),
    "overlapping MaxPool2d": (
        lambda: [nn.MaxPool2d(3, 2, 1, dilation=2), nn.Conv2d(2, 3, 2), IF()],
        (2, 9, 9),
        2,
    ),
    "MaxPool2d in ceil_mode": (
        lambda: [layer.MaxPool2d(2, ceil_mode=True), nn.Conv2d(2, 3, 2), IF()],
        (2, 7, 7),
        2,
    ),
    "MaxPool2d in ceil_mode that cuts nothing off": (
        lambda: [nn.MaxPool2d(2, 2, dilation=2, ceil_mode=True), nn.Conv2d(2, 3, 2), IF()],
        (2, 7, 9),
        2,
    ),
    "AdaptiveAvgPool2d to one": (
        lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 5), IF(0.2)],
        (2, 5, 6),
        2,
    ),
    "AdaptiveAvgPool2d of even windows": (
        lambda: [nn.AdaptiveAvgPool2d((2, None)), nn.Conv2d(2, 3, 2), IF()],
        (2, 6, 5),
        1,
    ),
    "AdaptiveAvgPool2d of uneven windows": (
        lambda: [layer.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(98, 5), IF(0.2)],
        (2, 5, 9),
        2,
    ),
    "AdaptiveAvgPool2d to the size it has": (
        lambda: [nn.AdaptiveAvgPool2d((5, 6)), nn.Conv2d(2, 3, 2), IF()],
        (2, 5, 6),
        1,
    ),
    "global pooling at the end": (
        lambda: [nn.Conv2d(2, 3, 3), IF(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        (2, 6, 6),
        3,
    ),
    "ZeroPad2d": (
        lambda: [nn.ZeroPad2d((0, 2, 1, 0)), nn.Conv2d(2, 3, 2, 2, 1, 2), IF()],
        (2, 6, 7),
        1,
    ),
    "ZeroPad2d twice": (
        lambda: [nn.ZeroPad2d(1), nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(2, 3, 3), IF()],
        (2, 6, 7),
        1,
    ),
    "ConvTranspose2d": (
        lambda: [nn.ConvTranspose2d(2, 3, 3, 2, 1), LIF()],
        (2, 4, 5),
        1,
    ),
    "ConvTranspose2d with output_padding": (
        lambda: [nn.ConvTranspose2d(2, 4, 2, 3, 1, (2, 1), 2, dilation=2), IF()],
        (2, 4, 5),
        1,
    ),
    "Upsample": (
        lambda: [nn.Upsample(scale_factor=2), nn.Conv2d(2, 3, 3, padding=1), IF()],
        (2, 4, 4),
        2,
    ),
    "Upsample to a size": (
        lambda: [nn.Upsample((8, 12)), nn.Conv2d(2, 3, 3), IF()],
        (2, 4, 4),
        2,
    ),
    "Upsample before a neuron": (
        lambda: [nn.Upsample(scale_factor=2), LIF(v_threshold=0.4)],
        (2, 4, 4),
        1,
    ),
    "Upsample before a linear layer": (
        lambda: [nn.Upsample(scale_factor=2), nn.Flatten(), nn.Linear(64, 4), IF()],
        (2, 2, 4),
        2,
    ),
    "Conv1d": (
        lambda: [layer.Conv1d(4, 6, 3, 2, 1, 2, 2), norm(nn.BatchNorm1d, 6), LIF()],
        (4, 12),
        1,
    ),
    "AvgPool1d, MaxPool1d": (
        lambda: [
            nn.Conv1d(2, 3, 3),
            IF(),
            nn.MaxPool1d(2),
            nn.AvgPool1d(2),
            nn.Conv1d(3, 6, 2, padding="same", dilation=2),
            IF(0.2),
            nn.AdaptiveAvgPool1d(2),
            nn.Flatten(),
            nn.Linear(12, 3),
            IF(0.05),
        ],
        (2, 26),
        5,
    ),
    "Upsample in one dimension": (
        lambda: [nn.Upsample(scale_factor=2), nn.Conv1d(2, 3, 3), IF()],
        (2, 9),
        2,
    ),
    "two linear layers": (
        lambda: [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 5), IF(0.2)],
        (6,),
        1,
    ),
    "a convolution and a linear layer": (
        lambda: [nn.Conv2d(2, 3, 3, 2, 1), nn.Flatten(), nn.Linear(27, 5), IF(0.2)],
        (2, 6, 6),
        2,
    ),
    "last linear layer": (lambda: [nn.Linear(6, 5), IF(0.2), nn.Linear(5, 3)], (6,), 2),
    "last linear layer after pooling": (
        lambda: [nn.Conv2d(2, 3, 3), IF(0.2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)],
        (2, 6, 6),
        3,
    ),
    "last convolution": (
        lambda: [nn.Conv2d(2, 3, 3), IF(0.2), nn.Conv2d(3, 4, 4), nn.Flatten()],
        (2, 6, 6),
        3,
    ),
    "votes": (lambda: [nn.Linear(6, 8), IF(0.2), layer.VotingLayer(4)], (6,), 2),
    "votes of flattened spikes": (
        lambda: [nn.Conv2d(2, 3, 3), IF(0.2), nn.Flatten(), layer.VotingLayer(6), nn.Flatten()],
        (2, 6, 6),
        3,
    ),
    "mean over the plane": (
        lambda: [nn.Conv2d(2, 3, 3), IF(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        (2, 6, 6),
        3,
    ),
    "votes of sums": (
        lambda: [nn.Linear(6, 5), IF(0.2), nn.Linear(5, 8), layer.VotingLayer(4)],
        (6,),
        2,
    ),
}
if hasattr(layer, "WSConv2d"):  # SpikingJelly 2; the norm raises in 0.0.0.0.14
    RULES["threshold-dependent BatchNorm"] = (
        lambda: [layer.Conv2d(2, 3, 3, step_mode="m"), td_norm(2, 3), IF(step_mode="m")],
        (2, 6, 6),
        1,
    )
    RULES["standardised weights"] = (
        lambda: [
            layer.WSConv2d(2, 3, 3),
            neuron.SimpleLIFNode(3.0, True, 0.2),
            nn.Flatten(),
            layer.WSLinear(48, 5),
            neuron.SimpleIFNode(0.3),
        ],
        (2, 6, 6),
        3,
    )


@pytest.mark.parametrize("steps", [1, 9])
@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_exact(name, steps):
    make, shape, layers = RULES[name]
    torch.manual_seed(3)
    net = nn.Sequential(*make()).double().eval()
    with torch.no_grad():  # weights that 32 bits don't hold
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
                module.weight.mul_(3)
    before = copy.deepcopy(net.state_dict())
    made = rewrite(net, shape)
    assert sum(isinstance(part, layer.SeqToANNContainer | layer.VotingLayer) for part in made) == (
        layers
    )
    x = spikes(steps, 3, *shape, rate=0.6).double()
    after_x = x.unsqueeze(3) if len(shape) == 2 else x
    expected, seen = run(net, x)
    found, seen_after = run(made, after_x)
    functional.reset_net(net)
    assert len(seen) == len(seen_after)
    for ours, truth in zip(seen_after, seen, strict=True):
        assert torch.equal(ours.reshape(truth.shape), truth)
    if steps > 1 and seen:
        assert all(0 < truth.mean() < 1 for truth in seen), "spikes are needed to compare"
    torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=1e-9, atol=1e-9)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("kind", [torch.tensor, int, lambda x: torch.tensor([x])])
def test_thresholds_that_were_set_as_tensors_or_integers_are_numbers(kind):
    node, leaky = IF(), LIF(2.0, decay_input=False)
    node.v_threshold, leaky.v_threshold, leaky.tau = kind(1), kind(2), kind(3)
    net = nn.Sequential(nn.Linear(6, 5), node, nn.Linear(5, 4), leaky)
    x = spikes(5, 2, 6)
    made = rewrite(net, (6,))
    numbers = made[1].v_threshold, made[3].v_threshold, made[3].tau
    assert numbers == (1.0, 2.0, 3.0)
    assert all(type(number) is float for number in numbers)
    blocks = to_slayer(net, (6,), calibrate=x)
    assert blocks[1].neuron.threshold > 0


def test_a_conversion_draws_no_random_numbers():
    pool = nn.AvgPool2d(3, 2, 1)  # slayer has none that overlaps: a convolution
    net = nn.Sequential(pool, IF(0.2), nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), IF())
    x = spikes(3, 2, 2, 8, 8)
    before = torch.get_rng_state()
    to_slayer(net, (2, 8, 8), calibrate=x)
    assert torch.equal(torch.get_rng_state(), before)


def test_nets_convert_in_inference_mode_as_outside_of_it():
    net = nn.Sequential(
        *(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(12, 5), nn.BatchNorm1d(5), IF()),
    ).double()
    expected = rewrite(net, (2, 6, 6))
    for inside in (torch.inference_mode, torch.no_grad):
        with inside():
            found = rewrite(net, (2, 6, 6))
        for ours, theirs in zip(found.parameters(), expected.parameters(), strict=True):
            assert torch.equal(ours, theirs)
