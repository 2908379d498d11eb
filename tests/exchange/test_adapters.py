"""slayer blocks in SpikingJelly nets, and SpikingJelly modules among slayer blocks."""

import copy
import pickle

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings, strategies as st
from spikingjelly.activation_based import functional, layer, monitor, neuron

from lava_bridge import BridgeError, Encoder, NXT_to_TNX, TNX_to_NXT, slayer
from lava_bridge.convert.result import SlayerNet
from lava_bridge.exchange import AsSlayer, AsSpikingJelly, BlockContainer, CubaLIFNode
from tests.conftest import traced_since

block = slayer.block
CUBA = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}
ADAPTIVE = {"threshold_step": 0.1, "threshold_decay": 0.1, "refractory_decay": 0.2}
TURNING = {"threshold": 0.5, "period": 8, "decay": 0.1}
FAMILIES = {
    "cuba": CUBA,
    "alif": {**CUBA, **ADAPTIVE},
    "rf": TURNING,
    "rf_iz": TURNING,
    "adrf": {**TURNING, **ADAPTIVE},
    "adrf_iz": {**TURNING, **ADAPTIVE},
    "sigma_delta": {"threshold": 0.1, "activation": torch.relu},
}


def spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(shape) < 0.5).float()


def conv_blocks(delay: bool = False) -> nn.Sequential:
    return nn.Sequential(
        block.cuba.Conv(CUBA, 2, 3, 3, padding=1, weight_scale=4, delay=delay),
        block.cuba.Pool({**CUBA, "threshold": 0.5}, 2),
        block.cuba.Flatten(),
        block.cuba.Dense(CUBA, 12, 5, weight_scale=6, delay=delay),
    )


def lif(n: int, m: int) -> nn.Sequential:
    return nn.Sequential(layer.Linear(n, m), neuron.LIFNode(v_threshold=0.2))


def in_steps(module: nn.Module, x_seq: torch.Tensor) -> torch.Tensor:
    functional.set_step_mode(module, "s")
    return torch.stack([module(x) for x in x_seq])


# Single steps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Dense", "Recurrent"])
@pytest.mark.parametrize("family", FAMILIES)
def test_single_steps_of_every_family_are_the_steps_of_one_run(family, kind):
    if family == "sigma_delta" and kind == "Recurrent":
        kind = "Output"
    options = {} if kind == "Output" else {"delay_shift": True, "delay": True}
    made = getattr(block, family)
    dense = made.Dense(FAMILIES[family], 4, 6, weight_scale=3, delay=True)
    last = getattr(made, kind)(FAMILIES[family], 6, 6, weight_scale=3, **options)
    net, x = AsSpikingJelly([dense, last], "m"), spikes(20, 3, 4)
    net(x)
    for axon in (dense.delay, getattr(last, "delay", None)):
        if axon is not None:
            axon.delay.data = torch.linspace(0, 5, 6)
    net.reset()
    whole = net(x)
    assert whole.any()
    net.reset()
    assert torch.equal(in_steps(net, x), whole)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**31 - 1))
@settings(max_examples=20)
def test_any_parts_of_a_sequence_give_the_spikes_of_the_whole(parts, seed):
    torch.manual_seed(seed)
    blocks = nn.Sequential(block.cuba.Input(delay_shift=True), *conv_blocks(delay=True))
    net, x = AsSpikingJelly(blocks, "m"), spikes(sum(parts), 2, 2, 4, 4)
    net(x)
    for part in (blocks[1], blocks[4]):
        part.delay.delay.data = 62 * torch.rand(part.delay.delay.shape).square()
    net.reset()
    whole = net(x)
    net.reset()
    assert torch.equal(torch.cat([net(part) for part in x.split(parts)]), whole)


def test_kwta_goes_on_step_by_step_and_is_reset():
    net, x = AsSpikingJelly(block.cuba.KWTA(CUBA, 4, 6, 2, weight_scale=6), "m"), spikes(9, 3, 4)
    whole = net(x)
    assert whole.any()
    assert not torch.equal(net(x), whole)
    functional.reset_net(net)
    assert torch.equal(in_steps(net, x), whole)


def in_one_of_four_channels() -> nn.Module:
    """A block whose normed current decays there into the next step, elsewhere at once."""
    params = {**CUBA, "shared_param": False, "norm": slayer.neuron.norm.MeanOnlyBatchNorm}
    made = block.cuba.Dense(params, 4, 4)
    made(torch.zeros(2, 4, 1))
    made.neuron.current_decay.data = torch.tensor([4096.0, 1024.0, 4096.0, 4096.0])
    return made


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: block.cuba.TimeDecimation(2), "one step of several"),
        (
            lambda: block.cuba.Dense({**CUBA, "dropout": slayer.neuron.Dropout(0.3)}, 4, 4),
            "the whole time",
        ),
        (
            lambda: block.cuba.Dense({**CUBA, "norm": slayer.neuron.norm.MeanOnlyBatchNorm}, 4, 4),
            "normed current",
        ),
        (lambda: in_one_of_four_channels(), "normed current"),
    ],
)
def test_what_can_not_run_step_by_step_is_refused_there_and_runs_at_once(made, reason):
    net, x = AsSpikingJelly([block.cuba.Dense(CUBA, 4, 4), made()]), spikes(8, 2, 4)
    with pytest.raises(BridgeError, match=rf"1[.\w]* .*step mode 's'.*{reason}.*'m'") as error:
        net(x[0])
    assert "\n" not in str(error.value)
    functional.set_step_mode(net, "m")
    net(x)


@pytest.mark.parametrize(
    "params",
    [  # a norm on a current that does not decay into the next step; dropout that drops nothing
        {"current_decay": 1.0, "norm": slayer.neuron.norm.MeanOnlyBatchNorm},
        {"dropout": slayer.neuron.Dropout(0.9)},
        {"norm": slayer.neuron.norm.ChannelBias},
    ],
)
def test_what_is_no_matter_of_time_in_evaluation_runs_step_by_step_there(params):
    made = block.cuba.Dense({**CUBA, **params}, 4, 5, weight_scale=6)
    net, x = AsSpikingJelly(made, "m"), spikes(9, 2, 4)
    net(x)
    for bias in [part for part in made.modules() if hasattr(part, "value")]:
        bias.value.data.fill_(0.2)
    net.eval()
    net.reset()
    whole = net(x)
    net.reset()
    assert torch.equal(in_steps(net, x), whole)


# State ------------------------------------------------------------------------------------------


def test_reset_net_resets_neurons_delays_and_rates_and_step_modes_follow_the_net():
    net = nn.Sequential(layer.Conv2d(1, 2, 3, padding=1), neuron.IFNode())
    net.append(AsSpikingJelly(conv_blocks(delay=True)))
    functional.set_step_mode(net, "m")
    assert net[2].step_mode == "m"
    x = 4 * torch.rand(7, 2, 1, 4, 4)
    first = net(x)
    functional.reset_net(net)
    assert torch.equal(net(x), first)
    assert not torch.equal(net(x), first)
    functional.detach_net(net)
    functional.reset_net(net)
    assert all(buffer.numel() == 1 for buffer in net[2].buffers())
    assert net[2].module[0].delay_buffer is None
    assert net[2].module[0].delay.past is None


def test_another_batch_size_starts_afresh():
    net, x = AsSpikingJelly(conv_blocks(delay=True), "m"), spikes(7, 3, 2, 4, 4)
    net(x)
    net.reset()
    fresh = net(x[:, :2])
    net(x)
    assert torch.equal(net(x[:, :2]), fresh)


def test_as_slayer_resets_before_each_forward_unless_its_state_persists():
    module, x = lif(4, 5), spikes(2, 4, 12)
    resets, goes_on = AsSlayer(module), AsSlayer(copy.deepcopy(module), persistent_state=True)
    whole = resets(x)
    assert whole.any()
    assert torch.equal(resets(x), whole)
    parts = [goes_on(part) for part in x.split([5, 3, 4], -1)]
    assert torch.equal(torch.cat(parts, -1), whole)
    parts[-1].sum().backward()  # the state is detached: no second backward through the first parts
    assert torch.equal(goes_on(x[:1]), resets(x[:1]))
    goes_on.forget()
    assert torch.equal(goes_on(x[:1]), resets(x[:1]))
    resets(x)
    resets.persistent_state = True  # from now on: what was before is over
    assert torch.equal(resets(x), whole)


def test_as_slayer_runs_all_steps_also_where_the_net_around_it_runs_one():
    parts = [block.cuba.Dense(CUBA, 4, 4, weight_scale=6), AsSlayer(lif(4, 5))]
    net, x = AsSpikingJelly(parts, "m"), spikes(10, 2, 4)
    whole = net(x)
    assert whole.any()
    functional.reset_net(net)
    assert torch.equal(in_steps(net, x), whole)


def test_a_block_container_among_blocks_gives_the_spikes_of_the_block_that_it_is():
    container = BlockContainer(nn.Linear(4, 5, bias=False), CubaLIFNode(0.25, 0.1, 0.5))
    container.synapse.weight.data.abs_()
    x = spikes(2, 4, 12)
    net = nn.Sequential(AsSlayer(container), block.cuba.Dense(CUBA, 5, 3, weight_scale=6))
    twin = nn.Sequential(container.to_lava_block(), net[1])
    assert net[0](x).any()
    assert torch.equal(net(x), twin(x))
    functional.set_step_mode(net, "s")
    assert torch.equal(net(x), twin(x))


# The border -------------------------------------------------------------------------------------


def seen_by(part: nn.Module, run, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a part of a net got and gave in a run, and what the run gave."""
    seen = {}
    with part.register_forward_hook(lambda m, i, o: seen.update(i=i[0], o=o)):
        y = run(x)
    return seen["i"], seen["o"], y


@pytest.mark.parametrize("order", ["T first", "T last", "channels last"])
@pytest.mark.parametrize("mode", ["m", "s"])
def test_nothing_is_copied_at_the_border_into_blocks(order, mode):
    x = spikes(6, 2, 2, 4, 4)
    if order == "T last":
        x = NXT_to_TNX(TNX_to_NXT(x).contiguous())
    elif order == "channels last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    inner = block.cuba.Conv(CUBA, 2, 2, 3, padding=1, weight_scale=4)
    net = AsSpikingJelly(inner, mode)
    x = x if mode == "m" else x[0]
    got, gave, y = seen_by(inner, net, x)
    given, back = (TNX_to_NXT(x), NXT_to_TNX(gave)) if mode == "m" else (x, gave.squeeze(-1))
    given = given if mode == "m" else x.unsqueeze(-1)
    assert (got.data_ptr(), got.stride()) == (given.data_ptr(), given.stride())
    assert (y.data_ptr(), y.stride()) == (back.data_ptr(), back.stride())
    if order == "T first":  # as SpikingJelly's tensors are
        assert y.is_contiguous()


@pytest.mark.parametrize("order", ["T first", "T last"])
def test_nothing_is_copied_at_the_border_into_spikingjelly(order):
    x = spikes(2, 3, 6) if order == "T last" else TNX_to_NXT(spikes(6, 2, 3))
    node = CubaLIFNode(0.25, 0.1)
    got, gave, y = seen_by(node, AsSlayer(node), x)
    assert (got.data_ptr(), got.stride()) == (x.data_ptr(), NXT_to_TNX(x).stride())
    assert (y.data_ptr(), y.stride()) == (gave.data_ptr(), TNX_to_NXT(gave).stride())
    assert y.stride() == x.stride()


def mixed() -> nn.Sequential:
    """A SpikingJelly net with blocks inside, which hold a SpikingJelly module in their midst."""
    net = nn.Sequential(
        layer.Conv2d(1, 2, 3, padding=1),
        neuron.IFNode(),
        BlockContainer(nn.Conv2d(2, 2, 1, bias=False), CubaLIFNode(0.25, 0.1)),
        AsSpikingJelly(
            [
                block.cuba.Flatten(),
                AsSlayer(lif(32, 12)),
                block.cuba.Dense(CUBA, 12, 5, weight_scale=9, delay=True),
            ]
        ),
        CubaLIFNode(0.5, 0.1, 0.3),
    )
    for weight in (net[0].weight, net[2].synapse.weight, net[3].module[1].module[0].weight):
        weight.data.abs_()  # so that all of it fires
    functional.set_step_mode(net, "m")
    return net


def by_hand(net: nn.Sequential, x_seq: torch.Tensor) -> torch.Tensor:
    """The same net without adapters: its parts one after the other, permuted by hand."""
    functional.reset_net(net)
    flatten, inner, dense = net[3].module
    z = flatten(net[:3](x_seq).permute(1, 2, 3, 4, 0)).permute(2, 0, 1)
    z = dense(inner.module(z).permute(1, 2, 0)).permute(2, 0, 1)
    return net[4](z)


def test_spikes_and_gradients_are_those_of_the_parts_composed_by_hand():
    net, x = mixed(), torch.rand(9, 3, 1, 4, 4)
    net(x)
    parameters = [p for p in net.parameters() if p.requires_grad]
    found = []
    for run in (net, lambda x: by_hand(net, x)):
        functional.reset_net(net)
        leaf = x.clone().requires_grad_()
        y = run(leaf)
        found.append((y, *torch.autograd.grad(y.square().sum(), [leaf, *parameters])))
    assert found[0][0].any()
    assert all(g.any() for g in found[0][1:])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_state_dicts_have_the_blocks_names_under_module_and_load_into_a_new_net():
    torch.manual_seed(0)
    net, x = mixed(), torch.rand(9, 3, 1, 4, 4)
    y = net(x)
    state = net.state_dict()
    assert {name for name in state if name.startswith("3.")} == {
        "3.module.1.module.0.weight",
        "3.module.1.module.0.bias",
        "3.module.2.synapse.weight",
        "3.module.2.neuron.current_decay",
        "3.module.2.neuron.voltage_decay",
        "3.module.2.delay.delay",
    }
    assert set(AsSpikingJelly(net[3].module[2]).state_dict()) == {
        f"module.{name}" for name in net[3].module[2].state_dict()
    }
    torch.manual_seed(1)
    other = mixed()
    other.load_state_dict(state)
    assert y.any()
    assert torch.equal(other(x), y)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_go_on_from_the_state_and_are_apart(copied):
    net, x = mixed(), torch.rand(9, 3, 1, 4, 4)
    with torch.no_grad():
        net(x)
        other = copied(net)
        assert torch.equal(other(x), net(x))
    functional.reset_net(other)
    assert net[3].module[2].neuron.current_state.numel() > 1
    assert net[3].module[2].delay_buffer is not None


def test_monitors_record_the_adapters_spikes_and_the_rates_that_blocks_count():
    counting = block.cuba.Dense(CUBA, 4, 5, weight_scale=6, count_log=True)
    last = block.cuba.Dense(CUBA, 5, 3, weight_scale=6)
    net = nn.Sequential(layer.Linear(3, 4), neuron.IFNode(), AsSpikingJelly([counting, last]))
    functional.set_step_mode(net, "m")
    outputs = monitor.OutputMonitor(net, AsSpikingJelly)
    inside = monitor.OutputMonitor(net, type(last.neuron))
    rates = monitor.AttributeMonitor("event_rates", False, net, AsSpikingJelly)
    y = net(3 * torch.rand(8, 2, 3))
    assert torch.equal(outputs["2"][0], y)
    assert inside["2.module.1.neuron"][0].shape == (2, 3, 8)
    (rate,) = rates["2"][0]
    assert rate == inside["2.module.0.neuron"][0][..., :-1].sum() / (8 * 2 * 5) > 0
    functional.reset_net(net)
    assert net[2].event_rates == ()


def test_a_module_of_ones_own_that_counts_as_lava_dls_networks_do_is_run_as_it_is():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(conv_blocks())

        def forward(self, x):
            counts = []
            for part in self.blocks:
                x = part(x)
                counts.append(x.mean().item())
            return x, torch.tensor(counts)

    network, x = Network(), spikes(7, 2, 2, 4, 4)
    net = AsSpikingJelly(network, "m")
    y = net(x)
    net.reset()
    assert torch.equal(y, NXT_to_TNX(network(TNX_to_NXT(x))[0]))
    assert [rates.shape for rates in net.event_rates] == []
    net(x)
    assert [rates.shape for rates in net.event_rates] == [(4,)]


@traced_since("2.12")  # copy.deepcopy, in SpikingJelly's reset
def test_a_mixed_net_compiles_whole():
    torch._dynamo.reset()
    parts = AsSpikingJelly(
        [block.cuba.Dense(CUBA, 4, 6, weight_scale=6, delay=True), AsSlayer(CubaLIFNode(0.5, 0.1))],
        "m",
    )
    x = spikes(9, 3, 4)
    parts(x)
    functional.reset_net(parts)
    compiled = torch.compile(parts, fullgraph=True, backend="aot_eager")
    found = []
    for run in (parts, compiled):
        functional.reset_net(parts)
        leaf = x.clone().requires_grad_()
        y = run(leaf)
        found.append((y, *torch.autograd.grad(y.sum(), [leaf, parts.module[0].synapse.weight])))
    assert found[0][0].any()
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@traced_since("2.8")
def test_a_spikingjelly_neuron_in_an_adapter_compiles():
    torch._dynamo.reset()
    net, x = AsSlayer(lif(4, 5)), spikes(2, 4, 9)
    compiled = torch.compile(net, backend="aot_eager")
    assert torch.equal(compiled(x), net(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_the_net_gives_the_spikes_of_its_parts_by_hand(dtype):
    net, x = mixed(), torch.rand(9, 3, 1, 4, 4)
    with torch.autocast("cpu", dtype):
        y = net(x)
        functional.reset_net(net)
        assert torch.equal(y, by_hand(net, x))
    assert y.any()
    assert set(y.unique().tolist()) <= {0, 1}
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)


def test_half_spikes_go_through_both_borders_in_their_dtype():
    x = spikes(6, 2, 4).half()
    assert AsSpikingJelly(block.cuba.Input(CUBA), "m")(x).dtype == torch.float16
    assert AsSlayer(CubaLIFNode(0.25, 0.1))(TNX_to_NXT(x)).dtype == torch.float16


# Bad calls --------------------------------------------------------------------------------------


class Forgetful(nn.Module):
    persistent_state = False


def multi_step_refused() -> nn.Module:
    module = layer.Linear(2, 2)
    type_ = type("Single", (type(module),), {"supported_step_mode": lambda self: ("s",)})
    module.__class__ = type_
    return module


BAD = {
    "no time": (lambda: AsSpikingJelly(conv_blocks(), "m")(spikes(2, 3)), "T, N, C, .* in step"),
    "no batch": (lambda: AsSpikingJelly(conv_blocks())(spikes(3)), "N, C, .* in step mode 's'"),
    "integers": (
        lambda: AsSpikingJelly(conv_blocks())(torch.ones(2, 3, dtype=torch.int)),
        "int32 tensor of shape",
    ),
    "no tensor": (lambda: AsSpikingJelly(conv_blocks())([1, 2]), "found a list"),
    "no module": (lambda: AsSpikingJelly("net.net"), "AsSpikingJelly: expected a module"),
    "no modules": (lambda: AsSlayer([3]), "AsSlayer: expected a module or a list"),
    "foreign state": (lambda: AsSpikingJelly([Forgetful()]), "0 .Forgetful. .*can't be reset"),
    "slayer's no batch": (lambda: AsSlayer(lif(2, 2))(spikes(3)), r"AsSlayer: .*\[N, C, \*, T\]"),
    "slayer's no steps": (lambda: AsSlayer(lif(2, 2))(spikes(3, 2, 0)), r"time step.*\(3, 2, 0\)"),
    "single steps only": (lambda: AsSlayer(multi_step_refused()), "without step mode 'm'"),
    "time lost": (
        lambda: AsSlayer(nn.Flatten(0, 1))(spikes(2, 3, 4)),
        r"to give a sequence \[T, N, \*\] of 4 steps, found .*\(8, 3\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_is_an_error_of_one_line(name):
    call, message = BAD[name]
    with pytest.raises(BridgeError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("made", [list, lambda b: nn.Sequential(*b), lambda b: SlayerNet(*b)])
def test_an_encoder_in_front_goes_on_as_neurons_do_until_reset_net(made):
    encoder = Encoder(nn.Linear(4, 6), threshold=1.0, tau=2.0)
    leak = {"threshold": 0.5, "current_decay": 1.0, "voltage_decay": 0.5}
    net = AsSpikingJelly(made([encoder, slayer.block.cuba.Dense(leak, 6, 3)]), "m")
    x = torch.rand(8, 2, 4, generator=torch.Generator().manual_seed(0)) * 2
    whole = net(x)
    functional.reset_net(net)
    assert torch.equal(torch.cat([net(x[:3]), net(x[3:])]), whole)
    functional.reset_net(net)
    functional.set_step_mode(net, "s")
    assert torch.equal(torch.stack([net(step) for step in x]), whole)
    # The encoder spikes later than at once, so its voltage does matter here.
    fresh = [encoder(step.unsqueeze(-1)) for step in x]
    assert not torch.equal(torch.cat(fresh, -1), encoder(x.movedim(0, -1)))
