"""The CubaLIFNode's state: what is kept of a run, and what the next one starts from."""

import copy

import pytest
import torch
from hypothesis import given, strategies as st
from spikingjelly.activation_based import base, functional, monitor, neuron

from lava_bridge import BridgeError
from lava_bridge.exchange import BatchNorm2d, BlockContainer

from .strategies import (
    CubaLIFNode,
    batches,
    bounded_sequence,
    neurons,
    run_steps,
    seeds,
    sequence,
    shapes,
    sizes,
    times,
)

PARAMS = {"current_decay": 0.3, "voltage_decay": 0.1, "v_threshold": 0.7}
BOTH_MODES = pytest.mark.parametrize("step_mode", ["s", "m"])


def run(node, x_seq):
    """Run ``node`` on a sequence in its own step mode."""
    return node(x_seq) if node.step_mode == "m" else run_steps(node, x_seq)


def states(node):
    return node.current_state, node.voltage_state, node.v


def assert_same_states(node, other):
    for mine, theirs in zip(states(node), states(other), strict=True):
        assert torch.equal(mine, theirs)


# Values -----------------------------------------------------------------------------------------


def integer_states(params, x_seq):
    """Currents, voltages after the reset and spikes of one neuron, in Python's integers."""
    scale = params["scale"]
    kept = [4096 - round(4096 * params[name]) for name in ("current_decay", "voltage_decay")]
    threshold = int(params["v_threshold"] * scale) * 64
    current = voltage = 0
    for x in x_seq:
        current = int(current * kept[0] / 4096) + int(x * scale * 64)
        voltage = int(voltage * kept[1] / 4096) + current
        spike = voltage > threshold
        voltage = 0 if spike else voltage
        yield [state / (64 * scale) for state in (current, voltage)] + [float(spike)]


@BOTH_MODES
@given(params=neurons(), time=times, seed=seeds, size=sizes)
def test_states_and_spikes_are_those_of_the_recurrence_in_pythons_integers(
    step_mode, params, time, seed, size
):
    # decays of exactly 12 bits: Python rounds halves as torch does, but in float64
    for name in ("current_decay", "voltage_decay"):
        params = {**params, name: round(params[name] * 4096) / 4096}
    x_seq = bounded_sequence(params, (time, 1, 1), seed, size)
    node = CubaLIFNode(**params, step_mode=step_mode, store_v_seq=True, store_i_seq=True)
    spike_seq = run(node, x_seq)
    found = torch.cat([node.i_seq, node.v_seq, spike_seq], dim=-1)[:, 0].tolist()
    assert found == list(integer_states(params, x_seq.flatten().tolist()))


@BOTH_MODES
@given(params=neurons(), shape=shapes(), batch=batches, time=times, seed=seeds, size=sizes)
def test_the_sequences_that_are_kept_end_in_the_state(
    step_mode, params, shape, batch, time, seed, size
):
    x_seq = bounded_sequence(params, (time, batch, *shape), seed, size)
    node = CubaLIFNode(**params, step_mode=step_mode, store_v_seq=True, store_i_seq=True)
    spike_seq = run(node, x_seq)
    assert node.v_seq.shape == node.i_seq.shape == spike_seq.shape == x_seq.shape
    assert torch.equal(node.v_seq[-1], node.voltage_state)
    assert torch.equal(node.i_seq[-1], node.current_state)
    assert torch.equal(node.v, node.voltage_state)
    assert (node.v_seq[spike_seq == 1] == 0).all()
    other = CubaLIFNode(**params, step_mode="sm".replace(step_mode, ""))
    other.store_v_seq = other.store_i_seq = True
    run(other, x_seq)
    assert torch.equal(node.v_seq, other.v_seq)
    assert torch.equal(node.i_seq, other.i_seq)
    assert_same_states(node, other)


def test_a_multi_step_run_keeps_its_own_sequence_and_single_steps_add_up_until_reset():
    x_seq = sequence((6, 2, 3), 1, 1.0)
    multi = CubaLIFNode(**PARAMS, step_mode="m", store_v_seq=True, store_i_seq=True)
    single = CubaLIFNode(**PARAMS, step_mode="s", store_v_seq=True, store_i_seq=True)
    for node in (multi, single):
        run(node, x_seq)
        first = node.v_seq
        run(node, x_seq)
        assert not torch.equal(node.v_seq[-6:], first)
    assert multi.v_seq.shape[0] == multi.i_seq.shape[0] == 6
    assert single.v_seq.shape[0] == single.i_seq.shape[0] == 12
    assert torch.equal(single.v_seq[6:], multi.v_seq)
    single.reset()
    assert single.v_seq is single.i_seq is None
    run(single, x_seq)
    assert torch.equal(single.v_seq, first[:6])


@BOTH_MODES
def test_nothing_is_kept_that_was_not_asked_for(step_mode):
    node = CubaLIFNode(**PARAMS, step_mode=step_mode)
    run(node, sequence((6, 2, 3), 1, 1.0))
    assert node.v_seq is node.i_seq is None
    node.store_v_seq = True
    run(node, sequence((6, 2, 3), 1, 1.0))
    assert node.v_seq.shape == (6, 2, 3)
    assert node.i_seq is None
    node.store_v_seq = False
    assert node.v_seq is None


# From run to run --------------------------------------------------------------------------------


@given(
    neurons(), shapes(), batches, st.lists(st.integers(1, 12), min_size=2, max_size=4), seeds, sizes
)
def test_a_split_sequence_in_any_mix_of_step_modes_equals_one_long_run(
    params, shape, batch, parts, seed, size
):
    x_seq = bounded_sequence(params, (sum(parts), batch, *shape), seed, size)
    whole, split = CubaLIFNode(**params, step_mode="m"), CubaLIFNode(**params)
    spike_seq = whole(x_seq)
    found = []
    for i, part in enumerate(x_seq.split(parts)):
        split.step_mode = "ms"[(i + seed) % 2]
        found.append(run(split, part))
    assert torch.equal(torch.cat(found), spike_seq)
    assert_same_states(split, whole)


@BOTH_MODES
@given(params=neurons(), shape=shapes(), seed=seeds)
def test_a_batch_of_another_size_or_shape_starts_from_zero(step_mode, params, shape, seed):
    node = CubaLIFNode(**params, step_mode=step_mode)
    for batch, layer in ((2, shape), (3, shape), (3, (*shape, 2))):
        x_seq = bounded_sequence(params, (5, batch, *layer), seed, 1.0)
        fresh = CubaLIFNode(**params, step_mode=step_mode)
        assert torch.equal(run(node, x_seq), run(fresh, x_seq))
        assert_same_states(node, fresh)


@BOTH_MODES
def test_kept_single_steps_of_a_batch_of_another_size_start_anew(step_mode):
    node = CubaLIFNode(**PARAMS, step_mode=step_mode, store_v_seq=True, store_i_seq=True)
    run(node, sequence((4, 2, 3), 1, 1.0))
    run(node, sequence((5, 3, 3), 1, 1.0))
    assert node.v_seq.shape == node.i_seq.shape == (5, 3, 3)


@BOTH_MODES
def test_reset_net_forgets_and_the_next_run_is_as_the_first(step_mode):
    net = torch.nn.Sequential(CubaLIFNode(**PARAMS, step_mode=step_mode))
    x_seq = sequence((8, 2, 3), 1, 1.0)
    first = run(net[0], x_seq)
    assert not torch.equal(run(net[0], x_seq), first), "the state went on"
    functional.reset_net(net)
    assert states(net[0]) == (0.0, 0.0, 0.0)
    assert torch.equal(run(net[0], x_seq), first)


def test_the_state_at_the_end_does_not_change_with_the_sequence_it_came_from():
    node = CubaLIFNode(**PARAMS, step_mode="m", store_v_seq=True, store_i_seq=True)
    node(sequence((8, 2, 3), 1, 0.1))
    before = [state.clone() for state in states(node)]
    node.v_seq.zero_()
    node.i_seq.zero_()
    for state, kept in zip(states(node), before, strict=True):
        assert kept.any()
        assert torch.equal(state, kept)


@BOTH_MODES
def test_detach_net_cuts_the_state_and_what_was_kept_from_its_past(step_mode):
    net = torch.nn.Sequential(
        CubaLIFNode(**PARAMS, step_mode=step_mode, store_v_seq=True, store_i_seq=True)
    )
    x_seq = sequence((4, 2, 3), 1, 0.3).requires_grad_()
    run(net[0], x_seq)
    kept = (*states(net[0]), net[0].v_seq, net[0].i_seq)
    assert all(tensor.requires_grad for tensor in kept)
    values = [tensor.detach().clone() for tensor in kept]
    functional.detach_net(net)
    kept = (*states(net[0]), net[0].v_seq, net[0].i_seq)
    for tensor, value in zip(kept, values, strict=True):
        assert not tensor.requires_grad
        assert torch.equal(tensor, value)
    run(net[0], sequence((4, 2, 3), 2, 0.3).requires_grad_()).sum().backward()
    assert x_seq.grad is None


def test_detach_net_cuts_the_state_of_a_node_with_a_norm():
    # SpikingJelly detaches in place, which torch refuses for a view of the run.
    node = CubaLIFNode(**PARAMS, step_mode="m", norm=BatchNorm2d(3))
    node(sequence((4, 2, 3, 2, 2), 1, 0.3).requires_grad_())
    assert all(state.requires_grad for state in states(node))
    functional.detach_net(node)
    assert not any(state.requires_grad for state in states(node))


def test_without_detach_net_a_gradient_goes_through_the_state():
    node = CubaLIFNode(**PARAMS, step_mode="m")
    x_seq = sequence((4, 2, 3), 1, 0.3).requires_grad_()
    node(x_seq)
    node(sequence((4, 2, 3), 2, 0.3)).sum().backward()
    assert x_seq.grad.any()


# As a SpikingJelly module -----------------------------------------------------------------------


def test_it_is_one_of_spikingjellys_neurons():
    node = CubaLIFNode(0.3, 0.1)
    assert isinstance(node, neuron.BaseNode)
    assert isinstance(node, base.MemoryModule)
    assert node.supported_step_mode() == ("s", "m")
    assert node.supported_backends == ("torch", "native", "cupy")
    assert node.backend == "torch"
    assert [name for name, _ in node.named_memories()] == ["v", "current_state", "voltage_state"]


def test_set_step_mode_reaches_it():
    net = torch.nn.Sequential(CubaLIFNode(0.3, 0.1), torch.nn.Sequential(CubaLIFNode(0.3, 0.1)))
    functional.set_step_mode(net, "m")
    assert net[0].step_mode == net[1][0].step_mode == "m"
    with pytest.raises(ValueError, match="step_mode"):
        net[0].step_mode = "x"


def test_set_backend_reaches_it_where_spikingjelly_has_it():
    node = CubaLIFNode(0.3, 0.1, step_mode="m")
    if hasattr(functional, "set_backend"):
        functional.set_backend(node, "torch")
    else:  # SpikingJelly 2 has no backends: it chooses its kernels itself
        node.backend = "torch"
    assert node.backend == "torch"
    assert node(torch.ones(2, 1, 1)).shape == (2, 1, 1)


@BOTH_MODES
def test_monitors_see_its_output_its_input_and_its_kept_sequences(step_mode):
    node = CubaLIFNode(**PARAMS, step_mode=step_mode, store_v_seq=True, store_i_seq=True)
    net = torch.nn.Sequential(node)
    outputs = monitor.OutputMonitor(net, CubaLIFNode)
    inputs = monitor.InputMonitor(net, CubaLIFNode)
    kept = {
        name: monitor.AttributeMonitor(name, pre_forward=False, net=net, instance=CubaLIFNode)
        for name in ("v_seq", "i_seq", "voltage_state", "current_state", "v")
    }
    x_seq = sequence((6, 2, 3), 1, 1.0)
    spike_seq = run(node, x_seq)
    steps = 1 if step_mode == "m" else 6
    assert torch.equal(torch.cat(outputs["0"]).reshape(x_seq.shape), spike_seq)
    assert torch.equal(torch.cat(inputs["0"]).reshape(x_seq.shape), x_seq)
    for name, records in kept.items():
        assert len(records["0"]) == steps
        assert torch.equal(records["0"][-1], getattr(node, name)), name


def test_an_attribute_that_is_not_there_is_an_attribute_error():
    node = CubaLIFNode(0.3, 0.1)
    with pytest.raises(AttributeError, match="no_such_thing"):
        node.no_such_thing  # noqa: B018
    assert not hasattr(node, "no_such_thing")


@BOTH_MODES
@pytest.mark.parametrize("normed", [False, True])
def test_a_deep_copy_after_a_run_and_a_reset_is_a_neuron_of_its_own(step_mode, normed):
    norm = BatchNorm2d(3) if normed else None
    node = CubaLIFNode(
        **PARAMS, step_mode=step_mode, norm=norm, store_v_seq=True, requires_grad=True
    )
    node.eval()
    x_seq = sequence((6, 2, 3), 1, 1.0)
    first = run(node, x_seq.clone().requires_grad_())
    functional.reset_net(node)
    twin = copy.deepcopy(node)
    assert torch.equal(run(twin, x_seq), first)
    assert states(node) == (0.0, 0.0, 0.0)
    twin.current_decay.data.fill_(4096)
    assert node.current_decay.item() != 4096
    assert twin.surrogate_function is not node.surrogate_function
    if normed:
        assert twin.norm.pre_hook_fx.__self__ is twin


@BOTH_MODES
def test_a_deep_copy_in_the_middle_of_training_goes_on_as_the_node_without_its_past(step_mode):
    options = {"step_mode": step_mode, "store_v_seq": True, "store_i_seq": True}
    node = CubaLIFNode(**PARAMS, requires_grad=True, norm=BatchNorm2d(3), **options)
    x_seq = sequence((6, 2, 3), 1, 1.0)
    first = run(node, x_seq)
    twin = copy.deepcopy(node)
    assert_same_states(twin, node)
    assert torch.equal(twin.v_seq, node.v_seq)
    assert torch.equal(twin.i_seq, node.i_seq)
    for kept in (*states(twin), twin.v_seq, twin.i_seq):
        assert not kept.requires_grad
    assert twin.norm.pre_hook_fx.__self__ is twin
    assert torch.equal(run(twin, x_seq), run(node, x_seq))
    first.sum().backward()  # the node's own graph is whole
    assert node.current_decay.grad is not None
    assert twin.current_decay.grad is None


@BOTH_MODES
def test_a_deep_copy_in_the_middle_of_training_shares_no_memory(step_mode):
    node = CubaLIFNode(**PARAMS, step_mode=step_mode)
    run(node, sequence((4, 2, 3), 1, 0.3).requires_grad_())
    for mine, theirs in zip(states(copy.deepcopy(node)), states(node), strict=True):
        assert mine.data_ptr() != theirs.data_ptr()


@BOTH_MODES
def test_training_goes_on_from_the_state_of_a_run_in_inference_mode(step_mode):
    node = CubaLIFNode(**PARAMS, requires_grad=True, step_mode=step_mode)
    twin = copy.deepcopy(node)
    x_seq = sequence((6, 2, 3), 1, 1.0)
    with torch.inference_mode():
        run(node, x_seq)
    with torch.no_grad():
        run(twin, x_seq)
    for trained in (node, twin):
        run(trained, x_seq).sum().backward()
    assert torch.equal(node.voltage_decay.grad, twin.voltage_decay.grad)


def test_a_layer_with_a_bias_takes_a_node_in_the_middle_of_training():
    node = CubaLIFNode(1.0, 0.1, 0.7, requires_grad=True, step_mode="m")
    linear = torch.nn.Linear(4, 3)
    x_seq = sequence((6, 2, 4), 1, 1.0)
    node(linear(x_seq))
    container = BlockContainer(linear, node, "m")
    assert container.neuron is not node
    assert torch.equal(container.neuron.voltage_state, node.voltage_state)
    container(x_seq).sum().backward()
    assert linear.weight.grad is not None


def test_on_the_meta_device_it_is_made_shown_and_run_without_numbers():
    with torch.device("meta"):
        made = CubaLIFNode(0.3, torch.tensor([0.1, 0.2, 0.3]), step_mode="m", norm=BatchNorm2d(3))
    moved = CubaLIFNode(0.3, torch.tensor([0.1, 0.2, 0.3]), step_mode="m", norm=BatchNorm2d(3))
    state = moved.state_dict()
    moved.to("meta")
    for node in (made, moved):
        assert "voltage_decay=[3]" in repr(node)
        assert node(torch.ones(4, 2, 3, device="meta")).shape == (4, 2, 3)
        with pytest.raises(BridgeError, match="meta device, without numbers") as error:
            node.lava_cuba_neuron_params  # noqa: B018
        assert "\n" not in str(error.value)
        node.reset()
        node.load_state_dict(state, assign=True)
        assert "current_decay=0.3" in repr(node)
        node(torch.ones(4, 2, 3))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_state_dict_carries_decays_and_norm_and_nothing_of_the_run(requires_grad):
    node = CubaLIFNode(
        torch.tensor([0.1, 0.2, 0.9]), 0.3, requires_grad=requires_grad, norm=BatchNorm2d(3)
    )
    node(sequence((4, 3), 1, 1.0))
    state = node.state_dict()
    assert state.keys() == {
        "current_decay",
        "voltage_decay",
        "norm.running_mean",
        "norm.running_var",
    }
    other = CubaLIFNode(
        torch.zeros(3), 0.9, requires_grad=requires_grad, norm=BatchNorm2d(3), step_mode="m"
    )
    other.load_state_dict(state, strict=True)
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name]), name
    node.reset()
    node.step_mode = "m"
    x_seq = sequence((8, 2, 3), 1, 1.0)
    assert torch.equal(other.eval()(x_seq), node.eval()(x_seq))
    assert [name for name, _ in other.named_parameters()] == (
        ["current_decay", "voltage_decay"] if requires_grad else []
    )


def test_the_state_moves_with_the_module():
    node = CubaLIFNode(**PARAMS, step_mode="m")
    node(sequence((4, 2, 3), 1, 0.3))
    before = [state.double() for state in states(node)]
    node.to(torch.float64)
    for state, value in zip(states(node), before, strict=True):
        assert state.dtype == torch.float64
        assert torch.equal(state, value)
    assert node.to("meta").voltage_state.device.type == "meta"


# Explicit states --------------------------------------------------------------------------------


@given(neurons(), shapes(), batches, times, seeds, sizes)
def test_steps_from_explicit_states_are_those_of_the_module(params, shape, batch, time, seed, size):
    x_seq = bounded_sequence(params, (time, batch, *shape), seed, size)
    module, node = CubaLIFNode(**params, step_mode="m"), CubaLIFNode(**params)
    spike_seq = module(x_seq)
    zero = node.materialize_states((x_seq[0],), (0.0, 0.0, 0.0), "s")
    assert all(torch.equal(state, torch.zeros_like(x_seq[0])) for state in zero)
    (multi,), end = node.multi_step_functional_forward((x_seq,), zero)
    assert torch.equal(multi, spike_seq)
    now, found = zero, []
    for x in x_seq:
        (spike,), now = node.single_step_functional_forward((x,), now)
        found.append(spike)
    assert torch.equal(torch.stack(found), spike_seq)
    expected = (module.v, module.current_state, module.voltage_state)
    for state, last, reference in zip(now, end, expected, strict=True):
        assert torch.equal(state, reference)
        assert torch.equal(last, reference)
    # neither the module's own state nor the given ones were changed
    assert states(node) == (0.0, 0.0, 0.0)
    assert not any(state.any() for state in zero)


@BOTH_MODES
def test_spikingjellys_functional_form_of_a_net_is_the_net(step_mode):
    if not hasattr(base, "to_functional_forward"):
        # SpikingJelly 0.0.0.0.14 has no functional form: the module takes states itself
        assert not hasattr(base.MemoryModule, "functional_forward")
        return
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 4, bias=False), CubaLIFNode(**PARAMS, step_mode=step_mode)
    )
    x_seq = sequence((6, 2, 3), 1, 2.0)
    for module in (net, net[1]):
        x = x_seq if module is net else net[0](x_seq).detach()
        x = x if step_mode == "m" else x[0]
        run_functional = base.to_functional_forward(module)
        (spike,), after = run_functional((x,), tuple(base.extract_memories(module)))
        (again,), _ = run_functional((x,), after)
        assert states(net[1]) == (0.0, 0.0, 0.0)
        assert torch.equal(spike, module(x))
        for state, expected in zip(after, base.extract_memories(module), strict=True):
            assert torch.equal(state, expected)
        assert torch.equal(again, module(x))
        functional.reset_net(net)
