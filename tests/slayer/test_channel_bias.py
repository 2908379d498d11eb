"""A channel's bias: what it adds, what it keeps, and where it stands in the neuron."""

import copy

import pytest
import torch
from hypothesis import given, strategies as st

from lava_bridge import BridgeError
from lava_bridge.quantize import BIAS_MAX, BIAS_MIN, quantize_bias
from lava_bridge.slayer.block import cuba
from lava_bridge.slayer.neuron.cuba import Neuron
from lava_bridge.slayer.neuron.norm import ChannelBias

from .strategies import analog, seeds

# On and off the grid, at the ends of the 13 bits and beyond them.
biases = st.one_of(
    st.floats(-70, 70, width=32), st.sampled_from([0.0, 64.0, -64.0, 63.99, 0.5 / 64])
)
scales = st.sampled_from([1, 16, 64, 256])
spaces = st.sampled_from([(1,), (5,), (2, 3), (2, 3, 1), (2, 3, 4)])
PARAMS = {"threshold": 0.7, "current_decay": 0.3, "voltage_decay": 0.1}


def biased(values: list[float], scale: int = 64) -> ChannelBias:
    norm = ChannelBias(len(values), scale)
    norm.value.data = torch.tensor(values)
    return norm


@given(st.lists(biases, min_size=1, max_size=4), scales, spaces, seeds)
def test_it_adds_each_channel_its_multiple_of_a_step_within_13_bits(values, scale, rest, seed):
    norm = biased(values, scale)
    integers = [max(-4096, min(4095, round(value * scale))) for value in values]
    assert norm.bias.tolist() == integers
    x = analog((2, len(values), *rest), seed, 3).mul(4096).round().div(4096)
    added = torch.tensor(integers).reshape(-1, *[1] * len(rest)) / scale
    assert torch.equal(norm(x), x + added)
    # What is held as integers comes back.
    again = biased((norm.bias / scale).tolist(), scale)
    assert torch.equal(again.bias, norm.bias)


def test_its_ends_are_those_of_lavas_bias_mantissa():
    assert (BIAS_MIN, BIAS_MAX) == (-4096, 4095)
    assert quantize_bias(torch.tensor([-1e9, 1e9]), 64, descale=True).tolist() == [-4096, 4095]


def test_the_gradient_passes_through_the_rounding_but_not_through_the_ends():
    norm = biased([0.013, 70.0, -70.0])
    weight = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1)
    (norm(torch.zeros(2, 3, 5)) * weight).sum().backward()
    assert norm.value.grad.tolist() == [10.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_nothing_of_the_bias(dtype):
    norm = biased([4095 / 64, -1 / 64])
    y = norm(torch.ones(1, 2, 3, dtype=dtype))
    assert torch.equal(
        y, torch.tensor([1 + 4095 / 64, 1 - 1 / 64]).reshape(1, 2, 1).expand(1, 2, 3)
    )
    neuron = Neuron(**PARAMS, norm=ChannelBias)
    neuron.norm.value.data = torch.tensor([3.0, -3.0])
    x = torch.ones(1, 2, 4)
    assert torch.equal(neuron(x.to(dtype)).float(), copy.deepcopy(neuron)(x))


def test_its_channels_are_those_of_the_first_input_and_no_others():
    norm = ChannelBias()
    value = norm.value
    norm(torch.zeros(2, 3, 4))
    assert norm.value is value, "an optimiser made before holds it"
    assert norm.bias.tolist() == [0, 0, 0]
    assert norm.num_features == 3
    with pytest.raises(BridgeError, match="ChannelBias"):
        norm(torch.zeros(2, 4, 4))


def test_a_neuron_gives_it_its_scale_and_its_channels():
    block = cuba.Conv({**PARAMS, "norm": ChannelBias, "scale": 16}, 2, 5, 3)
    block.infer_shape((2, 6, 6))
    assert block.neuron.norm.scale == 16
    assert block.neuron.norm.value.shape == (5,)
    assert "ChannelBias" in repr(block)
    assert "scale=16" in repr(block)
    assert any(p is block.neuron.norm.value for p in block.parameters())


def test_state_dict_and_deepcopy_carry_it_also_before_a_first_run():
    trained = cuba.Dense({**PARAMS, "norm": ChannelBias}, 4, 3)
    trained(torch.ones(1, 4, 2))
    trained.neuron.norm.value.data = torch.tensor([1.0, -2.0, 0.3])
    fresh = cuba.Dense({**PARAMS, "norm": ChannelBias}, 4, 3)
    fresh.load_state_dict(trained.state_dict())
    copied = copy.deepcopy(trained)
    x = torch.ones(1, 4, 6)
    for other in (fresh, copied):
        assert torch.equal(other.neuron.norm.bias, trained.neuron.norm.bias)
        assert torch.equal(other(x), trained(x))
    copied.neuron.norm.value.data.zero_()
    assert trained.neuron.norm.value.any()


@given(st.lists(biases, min_size=3, max_size=3), st.sampled_from([0.0, 0.3, 1.0]), seeds)
def test_it_is_added_after_the_leak_and_not_gathered_by_the_current(values, decay, seed):
    params = {**PARAMS, "threshold": 2000.0, "current_decay": decay}
    neuron = Neuron(**params, norm=lambda: biased(values))
    plain = Neuron(**params)
    x = analog((2, 3, 7), seed, 1)
    added = neuron.norm.bias.reshape(3, 1) / 64
    assert torch.equal(neuron.dynamics(x)[0], plain.dynamics(x)[0] + added)


@given(st.lists(biases, min_size=3, max_size=3), st.integers(1, 6), seeds)
def test_split_runs_of_persistent_state_are_one_long_run(values, first, seed):
    x = analog((2, 3, 9), seed, 1)
    whole = Neuron(**PARAMS, norm=lambda: biased(values))
    split = Neuron(**PARAMS, norm=lambda: biased(values), persistent_state=True)
    parts = [split(part) for part in (x[..., :first], x[..., first:])]
    assert torch.equal(torch.cat(parts, -1), whole(x))


def apart(neuron: Neuron) -> Neuron:
    """The same neuron with a norm that is called by itself, between current and voltage."""
    other = copy.deepcopy(neuron)
    other.norm.register_forward_hook(lambda *_: None)
    return other


@given(
    st.lists(biases, min_size=3, max_size=3),
    st.booleans(),
    st.booleans(),
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
    spaces,
    seeds,
)
def test_in_one_operator_with_the_neuron_it_does_what_it_does_by_itself(
    values, learned, graded, dtype, rest, seed
):
    fused = Neuron(
        **PARAMS,
        norm=lambda: biased(values),
        requires_grad=learned,
        graded_spike=graded,
        persistent_state=True,
    )
    runs = []
    for neuron in (fused, apart(fused)):
        spikes, gradients = [], []
        for part in (seed, seed + 1):  # the second from the states after the first
            x = analog((2, 3, *rest), part, 2).to(dtype).requires_grad_()
            y = neuron(x)
            (y * torch.linspace(0.3, 1, y.shape[-1]).to(dtype)).sum().backward()
            spikes.append(y.detach())
            gradients.append(x.grad)
        own = neuron.norm.value, neuron.current_decay, neuron.voltage_decay
        gradients += [p.grad for p in own if p.requires_grad]
        runs.append(([*spikes, neuron.current_state, neuron.voltage_state], gradients))
    (mine, my_gradients), (reference, gradients) = runs
    assert all(torch.equal(a, b) for a, b in zip(mine, reference, strict=True))
    bound = 1e-3 if dtype == torch.float16 else 1e-5
    for gradient, expected in zip(my_gradients, gradients, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=bound, atol=bound)


def test_what_hooks_on_to_it_is_called():
    neuron = Neuron(**PARAMS, norm=lambda: biased([0.5, -0.5]))
    x = analog((2, 2, 9), 1, 1)
    assert neuron.norm.is_plain
    called = []
    handle = neuron.norm.register_forward_pre_hook(lambda module, inputs: called.append(inputs))
    neuron(x)
    handle.remove()
    assert len(called) == 1
    assert neuron.norm.is_plain
    doubled = Neuron(**PARAMS, norm=lambda: Twice(2))
    doubled.norm.value.data = torch.tensor([0.5, -0.5])
    assert not doubled.norm.is_plain
    twice = Neuron(**PARAMS, norm=lambda: biased([1.0, -1.0]))
    assert torch.equal(doubled(x), twice(x))


class Twice(ChannelBias):
    def forward(self, inp: torch.Tensor) -> torch.Tensor:
        return super().forward(super().forward(inp))


def test_a_compiled_neuron_with_a_bias_is_the_eager_one():
    torch._dynamo.reset()
    neuron = Neuron(**PARAMS, norm=lambda: biased([0.5, -0.5]))
    x = analog((2, 2, 9), 1, 1)
    compiled = torch.compile(copy.deepcopy(neuron), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), neuron(x))
