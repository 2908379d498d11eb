"""The twin is trained as its net was: its surrogate is as wide as its numbers are large."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from lava_bridge import exchange, export_hdf5, load_hdf5, to_slayer, to_spikingjelly
from lava_bridge.convert import rewrite
from lava_bridge.exchange import BlockContainer, CubaLIFNode
from lava_bridge.exchange.smooth import Widened, widened

from .nets import spikes

SURROGATES = {
    "ATan": lambda: surrogate.ATan(1.3),
    "Sigmoid": lambda: surrogate.Sigmoid(3.0),
    "PiecewiseExp": lambda: surrogate.PiecewiseExp(1.5),
    "S2NN": lambda: surrogate.S2NN(2.0, 0.7),
    "QPseudoSpike": lambda: surrogate.QPseudoSpike(3.0),
}
NODES = {
    "IF": lambda function, detach: neuron.IFNode(0.7, 0.0, function, detach),
    "LIF": lambda function, detach: neuron.LIFNode(4.0, True, 0.7, 0.0, function, detach),
    "LIF from -0.5": lambda function, detach: neuron.LIFNode(
        4.0, False, 0.7, -0.5, function, detach
    ),
}


def net_of(node: str, function: str, detach: bool, factor: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(layer.AvgPool2d(2), layer.Flatten(), layer.Linear(16, 6, bias=False))
    net.append(NODES[node](SURROGATES[function](), detach))
    net[2].weight.data = factor * torch.rand(6, 16)
    functional.set_step_mode(net, "m")
    return net


def gradient(net: nn.Module, x: Tensor) -> Tensor:
    """Of the input, for the sum of what the net gives."""
    functional.reset_net(net)
    x = x.clone().requires_grad_()
    y = net(x)
    (grad,) = torch.autograd.grad((y * torch.linspace(0, 1, y.numel()).reshape(y.shape)).sum(), x)
    return grad


def assert_alike(found: Tensor, expected: Tensor, share: float) -> None:
    """Within a share of its size: 8 bits round weights and thresholds."""
    assert expected.abs().max() > 0
    assert (found - expected).norm() < share * expected.norm()


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("function", SURROGATES)
@pytest.mark.parametrize("node", NODES)
def test_a_calibrated_twin_has_the_gradients_of_its_net(node, function, detach, tmp_path):
    net, x = net_of(node, function, detach), spikes(1, 3, 1, 8, 8)
    expected = gradient(net, x)
    assert_alike(gradient(rewrite(net, (1, 8, 8)), x), expected, 1e-5)
    blocks = to_slayer(net, (1, 8, 8), calibrate="weights")
    assert blocks[2].weight_factor > 2
    twin = to_spikingjelly(blocks)
    assert_alike(gradient(twin, x), expected, 0.05)
    assert twin[-1].neuron.detach_reset is detach
    # There and back, and saved into a twin of another calibration.
    assert_alike(gradient(to_spikingjelly(to_slayer(twin, (1, 8, 8))), x), expected, 0.05)
    plain = to_spikingjelly(to_slayer(net, (1, 8, 8)))
    plain.load_state_dict(twin.state_dict())
    assert torch.allclose(gradient(plain, x), gradient(twin, x))
    net[3].surrogate_function.alpha = 50.0  # theirs stays as it was
    assert_alike(gradient(to_spikingjelly(blocks), x), expected, 0.05)


def test_a_files_twin_has_a_surrogate_as_wide_as_its_factor(tmp_path):
    net = net_of("LIF", "Sigmoid", False)
    net[3].surrogate_function = surrogate.Sigmoid()
    net[3].decay_input = False
    blocks = to_slayer(net, (1, 8, 8), calibrate="weights")
    export_hdf5(blocks, tmp_path / "n.net")
    twin = to_spikingjelly(load_hdf5(tmp_path / "n.net"))
    factor = blocks[2].weight_factor
    assert twin[-1].neuron.surrogate_function.alpha == pytest.approx(4.0 / factor)


@given(st.sampled_from([*SURROGATES]), st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_wider_surrogate_has_the_same_spikes_and_gradients_of_smaller_numbers(name, a, b):
    function, x = SURROGATES[name](), torch.linspace(-3, 3, 41, dtype=torch.float64)

    def both(f: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        y = f(x)
        return y.detach(), torch.autograd.grad(y.sum(), x)[0]

    wide = widened(widened(function, a), b)
    y, grad = both(function, x)
    wide_y, wide_grad = both(wide, a * b * x)
    assert torch.equal(y, wide_y)
    torch.testing.assert_close(a * b * wide_grad, grad)
    if a != 1 or b != 1:
        assert isinstance(wide, Widened) == (name in ("S2NN", "QPseudoSpike"))
    assert wide.spiking
    assert widened(function, 1) is not function


def test_a_container_of_ones_own_keeps_its_surrogate_through_blocks():
    node = CubaLIFNode(1.0, 0.25, 0.5, surrogate_function=surrogate.ATan(7.0), detach_reset=True)
    container = BlockContainer(nn.Linear(4, 3, bias=False), node, step_mode="m")
    (twin,) = to_spikingjelly([container.to_lava_block()])
    assert type(twin.neuron.surrogate_function) is surrogate.ATan
    assert twin.neuron.detach_reset is True
    assert twin.neuron.surrogate_function.alpha == 7.0
    assert twin.neuron.surrogate_function is not container.neuron.surrogate_function
    assert copy.deepcopy(container.to_lava_block()).surrogate[1] is True


def test_a_block_of_the_exchange_knows_its_neurons_surrogate():
    node = neuron.LIFNode(4.0, False, 0.7, 0.0, surrogate.Erf(1.5), True, step_mode="m")
    (twin,) = to_spikingjelly([exchange.to_lava_block_dense(nn.Linear(4, 3, bias=False), node)])
    assert type(twin.neuron.surrogate_function) is surrogate.Erf
    assert (twin.neuron.surrogate_function.alpha, twin.neuron.detach_reset) == (1.5, True)
