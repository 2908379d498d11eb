"""The CubaLIFNode's gradients are SpikingJelly's, and right where SpikingJelly has none."""

import pytest
import torch
from hypothesis import given, strategies as st
from spikingjelly.activation_based import surrogate
from torch.utils.checkpoint import checkpoint

from lava_bridge.exchange import BatchNorm2d

from .gradients import PlainNode, gradients, in_float64
from .strategies import (
    EXACT_SCALES,
    GRADIENT_RTOL,
    SURROGATES,
    CubaLIFNode,
    assert_close,
    batches,
    bounded_sequence,
    decays,
    neurons,
    run_steps,
    seeds,
    sequence,
    shapes,
    sizes,
    thresholds,
)

surrogates = st.sampled_from(sorted(SURROGATES))


def double(params, shape, seed, size):
    return bounded_sequence(params, shape, seed, size).double()


def assert_same_gradients(mine, theirs, of_decays=GRADIENT_RTOL):
    """Outputs bit for bit, gradients within the bound, those of decays within theirs."""
    (outputs, grads), (their_outputs, their_grads) = mine, theirs
    for output, expected in zip(outputs, their_outputs, strict=True):
        assert torch.equal(output, expected)
    assert grads.keys() == their_grads.keys()
    for name, grad in grads.items():
        assert_close(grad, their_grads[name], of_decays if "decay" in name else GRADIENT_RTOL)


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("name", SURROGATES)
@given(params=neurons(on_grid=True), shape=shapes(3), batch=batches, seed=seeds, size=sizes)
def test_gradients_are_spikingjellys_for_each_surrogate(
    sj, name, detach_reset, params, shape, batch, seed, size
):
    x_seq = double(params, (9, batch, *shape), seed, size)
    results = []
    for which in (CubaLIFNode, sj.CubaLIFNode):
        with in_float64():
            node = which(
                **params,
                requires_grad=True,
                surrogate_function=SURROGATES[name](),
                detach_reset=detach_reset,
                step_mode="m",
            )
            results.append(gradients(node, [x_seq], seed))
    assert_same_gradients(*results)


@given(params=neurons(on_grid=True), seed=seeds, size=sizes, name=surrogates, detach=st.booleans())
def test_gradients_go_through_the_state_from_run_to_run_as_spikingjellys(
    sj, params, seed, size, name, detach
):
    parts = list(double(params, (12, 2, 3), seed, size).split([5, 1, 6]))
    start = {
        name: double(params, (1, 2, 3), seed + i, 0.3)[0]
        for i, name in enumerate(("current_state", "voltage_state"))
    }
    results = []
    for which in (CubaLIFNode, sj.CubaLIFNode):
        with in_float64():
            node = which(
                **params,
                requires_grad=True,
                surrogate_function=SURROGATES[name](),
                detach_reset=detach,
                step_mode="m",
            )
            results.append(gradients(node, parts, seed, start))
    assert_same_gradients(*results)
    assert results[0][1].keys() > {"part 2", "current_state", "voltage_state", "current_decay"}


@given(params=neurons(), seed=seeds, size=sizes, name=surrogates, detach=st.booleans())
def test_gradients_of_single_steps_are_those_of_a_multi_step_run(params, seed, size, name, detach):
    x_seq = double(params, (8, 2, 3), seed, size)
    grads = []
    for step_mode in "sm":
        node = CubaLIFNode(
            **params,
            requires_grad=True,
            surrogate_function=SURROGATES[name](),
            detach_reset=detach,
            step_mode=step_mode,
        ).double()
        x = x_seq.clone().requires_grad_()
        y = node(x) if step_mode == "m" else run_steps(node, x)
        y.backward(sequence(tuple(y.shape), seed, 1.0, torch.float64))
        grads.append((x.grad, node.current_decay.grad, node.voltage_decay.grad))
    for mine, expected in zip(*grads, strict=True):
        assert_close(mine, expected)


@given(params=neurons(on_grid=True), shape=shapes(3), seed=seeds, detach=st.booleans())
def test_gradients_in_float32_are_spikingjellys(sj, params, shape, seed, detach):
    # Theirs in double: their 1 - sigmoid, in single, has few digits where the voltage is high.
    x_seq = bounded_sequence(params, (9, 2, *shape), seed, 1.0)
    settings = {"requires_grad": True, "detach_reset": detach, "step_mode": "m"}
    outputs, grads = gradients(CubaLIFNode(**params, **settings), [x_seq], seed)
    with in_float64():
        expected, reference = gradients(
            sj.CubaLIFNode(**params, **settings), [x_seq.double()], seed
        )
    assert all(grad.dtype == torch.float32 for grad in grads.values())
    doubles = ([y.double() for y in outputs], {name: g.double() for name, g in grads.items()})
    # The terms of a decay's gradient cancel, as far as to a tenth of them.
    assert_same_gradients(doubles, (expected, reference), 10 * GRADIENT_RTOL)


@pytest.mark.parametrize("scale", [7, 22, 64])
def test_the_currents_decay_learns_as_well_beside_a_large_voltage_at_any_scale(scale):
    # At a scale that is no power of two float32 holds no voltage from which the current follows.
    found = []
    for dtype in (torch.float32, torch.float64):
        node = CubaLIFNode(0.3, 0.001, 1000.0, scale=scale, requires_grad=True, step_mode="m")
        node(sequence((400, 2, 3), 1, 0.3).abs().to(dtype))
        node.v.sum().backward()
        found.append(node.current_decay.grad)
    assert node.v.max() > 100
    torch.testing.assert_close(*found, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gradient_of_a_half_precision_input_has_its_dtype(dtype):
    x_seq = sequence((9, 2, 3), 1, 1.0).to(dtype)
    grads = []
    for x in (x_seq, x_seq.float()):
        node = CubaLIFNode(0.3, 0.1, requires_grad=True, step_mode="m")
        x = x.clone().requires_grad_()
        node(x).float().sum().backward()
        grads.append((x.grad, node.current_decay.grad))
    assert grads[0][0].dtype == dtype
    assert_close(grads[0][0], grads[1][0], rtol=1e-2)
    assert_close(grads[0][1], grads[1][1])


# Decays per channel -----------------------------------------------------------------------------

decays_of_three = st.lists(decays, min_size=3, max_size=3).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


@given(
    current=decays_of_three,
    voltage=decays_of_three,
    steps=st.integers(1, 200),
    spatial=st.sampled_from([(), (2, 1), (2, 2)]),
    seed=seeds,
    size=sizes,
    name=surrogates,
    detach=st.booleans(),
)
def test_gradients_of_decays_per_channel_are_spikingjellys_of_each_channel_alone(
    sj, current, voltage, steps, spatial, seed, size, name, detach
):
    params = {"v_threshold": steps / 64, "scale": 64, "detach_reset": detach}
    options = {**params, "requires_grad": True, "step_mode": "m"}
    shape = [3, *[1] * len(spatial)]
    x_seq = double(params, (8, 2, 3, *spatial), seed, size).requires_grad_()
    grad = sequence(tuple(x_seq.shape), seed + 1, 1.0, torch.float64)
    node = CubaLIFNode(
        current.reshape(shape),
        voltage.reshape(shape),
        surrogate_function=SURROGATES[name](),
        **options,
    ).double()
    y = node(x_seq)
    y.backward(grad)
    assert node.current_decay.grad.shape == node.voltage_decay.grad.shape == tuple(shape)
    for c in range(3):
        with in_float64():
            alone = sj.CubaLIFNode(
                current[c].item(),
                voltage[c].item(),
                surrogate_function=SURROGATES[name](),
                **options,
            ).double()
            x = x_seq.detach()[:, :, c].clone().requires_grad_()
            reference = alone(x)
            reference.backward(grad[:, :, c])
        assert torch.equal(y[:, :, c], reference)
        assert_close(x_seq.grad[:, :, c], x.grad)
        assert_close(node.current_decay.grad[c].squeeze(), alone.current_decay.grad)
        assert_close(node.voltage_decay.grad[c].squeeze(), alone.voltage_decay.grad)


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
def test_spikingjelly_cant_learn_decays_per_channel(sj):
    decay = torch.full((3, 1, 1), 0.25)
    for which in (CubaLIFNode, sj.CubaLIFNode):
        node = which(decay, decay, requires_grad=True, step_mode="m")
        y = node(torch.ones(4, 2, 3, 2, 2, requires_grad=True)).sum()
        if which is CubaLIFNode:
            y.backward()
            assert node.current_decay.grad.any()
        else:
            with pytest.raises(RuntimeError, match="invalid gradient"):
                y.backward()


def test_spikingjelly_cant_learn_decays_of_a_first_layer(sj):
    for which in (CubaLIFNode, sj.CubaLIFNode):
        node = which(0.25, 0.25, requires_grad=True, step_mode="m")
        y = node(torch.full((4, 2, 3), 0.3)).sum()
        if which is CubaLIFNode:
            y.backward()
            assert node.current_decay.grad.any()
        else:
            with pytest.raises(ValueError, match="unpack"):
                y.backward()


# Against plain autograd: thresholds off the grid, decays per channel, norm -----------------------


@given(
    data=st.data(),
    scale=st.sampled_from(EXACT_SCALES),
    current=decays_of_three,
    voltage=decays_of_three,
    shared=st.booleans(),
    norm=st.sampled_from([None, "eval", "train"]),
    seed=seeds,
    size=sizes,
    name=surrogates,
    detach=st.booleans(),
)
def test_gradients_are_those_of_the_equations_also_off_the_grid_per_channel_and_with_norm(
    lava, data, scale, current, voltage, shared, norm, seed, size, name, detach
):
    if shared:
        current, voltage = current[0], voltage[0]
    else:
        current, voltage = current.reshape(3, 1, 1), voltage.reshape(3, 1, 1)
    threshold = data.draw(thresholds(scale))
    params = {"v_threshold": threshold, "scale": scale}
    # through float32, as the node holds them
    options = {**params, "surrogate_function": SURROGATES[name](), "detach_reset": detach}
    node = CubaLIFNode(
        current,
        voltage,
        **options,
        requires_grad=True,
        step_mode="m",
        norm=None if norm is None else BatchNorm2d(3),
    )
    plain = PlainNode(current.float(), voltage.float(), **options)
    if norm is not None:
        plain.norm = lava.neuron.norm.WgtScaleBatchNorm(3, pre_hook_fx=node.quantize_8bit)
        for module in (node, plain):
            module.train(norm == "train")
            module.norm.running_mean = torch.tensor([0.1, -0.2, 0.3]) * threshold
            module.norm.running_var = torch.tensor([threshold**2])
    x_seq = double(params, (8, 2, 3, 2, 2), seed, size)
    mine, reference = (gradients(module, [x_seq], seed) for module in (node, plain))
    assert_same_gradients(mine, reference)


def test_the_spike_takes_the_surrogates_slope_and_the_reset_its_path():
    # one neuron, one spike at t = 0: I = V = x[0], then V[1] = (1 - s) x[0] + I[1]
    x_seq = torch.tensor([1.5, 0.25], dtype=torch.float64).reshape(2, 1, 1)
    slope = surrogate.ATan()(torch.zeros(1).requires_grad_())
    assert slope.item() == 1
    for detach_reset in (False, True):
        x = x_seq.clone().requires_grad_()
        node = CubaLIFNode(
            1.0,
            0.0,
            surrogate_function=surrogate.ATan(),
            detach_reset=detach_reset,
            step_mode="m",
        )
        y = node(x)
        assert y.flatten().tolist() == [1, 0]
        y[1].sum().backward()

        def atan_slope(v):
            v = v - (1 + 0.01 / 4096)
            return 1 / (1 + (torch.pi * v) ** 2)

        last = atan_slope(0.25)
        assert_close(x.grad[1].squeeze(), torch.tensor(last))
        through_reset = 0.0 if detach_reset else -1.5 * atan_slope(1.5) * last
        assert_close(x.grad[0].squeeze(), torch.tensor(through_reset))


@pytest.mark.parametrize("name", SURROGATES)
def test_a_gradient_of_a_gradient_is_refused(name):
    node = CubaLIFNode(
        0.25, 0.1, v_threshold=1.0, surrogate_function=SURROGATES[name](), step_mode="m"
    )
    x = torch.rand(10, 2, 5, requires_grad=True)
    (slope,) = torch.autograd.grad(node(x).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no gradient of a gradient"):
        slope.square().sum().backward()


@pytest.mark.parametrize("name", SURROGATES)
def test_a_gradient_checkpoint_gives_the_gradient(name):
    node = CubaLIFNode(
        0.25, 0.1, v_threshold=1.0, surrogate_function=SURROGATES[name](), step_mode="m"
    )
    weight = torch.randn(10, 2, 5)

    def again(x):
        node.reset()
        return node(x)

    x = torch.rand(10, 2, 5, requires_grad=True)
    (expected,) = torch.autograd.grad((again(x) * weight).sum(), x)
    y = checkpoint(again, x, use_reentrant=False)
    (found,) = torch.autograd.grad((y * weight).sum(), x)
    assert torch.equal(found, expected)
