"""torch.compile, torch.export and autocast on nets of these modules."""

import copy
import subprocess
import sys

import pytest
import torch

import lava_bridge
from lava_bridge import slayer
from tests.compiled import gradients, saved_and_loaded
from tests.conftest import traced_since

pytestmark = traced_since("2.8")

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


@pytest.fixture(autouse=True)
def _compile_anew():
    torch._dynamo.reset()


def conv_net() -> torch.nn.Sequential:
    block = slayer.block.cuba
    return torch.nn.Sequential(
        block.Conv(CUBA, 2, 4, 3, padding=1, weight_scale=3),
        block.Pool({**CUBA, "threshold": 0.5}, 2),
        block.Flatten(),
        block.Dense(CUBA, 4 * 3 * 3, 5, weight_scale=3, delay=True),
        block.Affine(CUBA, 5, 5),
    )


def assert_same_net(net, compiled, x, other):
    for batch in (x, other):
        assert torch.equal(compiled(batch), net(batch))
    parameters = [p for p in net.parameters() if p.requires_grad]
    compared = 0
    for mine, reference in zip(
        gradients(compiled, x, parameters), gradients(net, x, parameters), strict=True
    ):
        assert (mine is None) == (reference is None)
        if reference is not None:
            compared += int(reference.any())
            torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)
    assert compared > 0


def test_a_net_of_slayer_blocks_compiles_whole():
    net, x = conv_net(), torch.rand(2, 2, 6, 6, 7)
    net(x)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert_same_net(net, compiled, x, torch.rand(3, 2, 6, 6, 7))


@pytest.mark.parametrize(
    ("family", "learned"), [("cuba", False), *((family, True) for family in FAMILIES)]
)
def test_every_family_compiles_whole(family, learned):
    params = {**FAMILIES[family], "requires_grad": learned, "shared_param": not learned}
    net, x = getattr(slayer.block, family).Dense(params, 4, 5, weight_scale=4), torch.rand(2, 4, 9)
    net(x)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert_same_net(net, compiled, x, torch.rand(3, 4, 9))


def test_inductor_compiles_the_net_too():
    net, x = conv_net(), torch.rand(2, 2, 6, 6, 7)
    net(x)
    assert_same_net(net, torch.compile(net, fullgraph=True), x, x)


def test_state_goes_on_in_a_compiled_neuron():
    one = slayer.neuron.cuba.Neuron(**CUBA, persistent_state=True)
    x = torch.rand(2, 3, 8)
    one(x[..., :1])
    other = copy.deepcopy(one)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for part in x.split(4, dim=-1):
        assert torch.equal(compiled(part), one(part))


@pytest.mark.skipif(
    "2.10" <= torch.__version__ < "2.13",  # by versions, not by letters
    reason="torch 2.10 to 2.12 take min(time, 3 * time) == time for a constraint on time",
)
def test_a_net_of_slayer_blocks_is_exported_for_any_batch_and_time():
    net, x = conv_net().eval(), 4 * torch.rand(2, 2, 6, 6, 7)
    net(x)
    sizes = ({0: torch.export.Dim("batch"), 4: torch.export.Dim("time", min=2)},)
    program = torch.export.export(net, (x,), dynamic_shapes=sizes)
    names = {str(node.target) for node in program.graph.nodes}
    assert "lava_bridge.cuba.default" in names
    for batch in (x, 4 * torch.rand(5, 2, 6, 6, 9)):
        assert net(batch).any()
        assert torch.equal(program.module()(batch), net(batch))


def test_saved_programs_of_all_families_take_any_time_in_another_process(tmp_path):
    for family, params in FAMILIES.items():
        net = getattr(slayer.block, family).Dense(params, 4, 5, weight_scale=4).eval()
        # Gradients are on, and the sample is short: neither may become a condition.
        sizes = ({0: torch.export.Dim("batch"), 2: torch.export.Dim("time", min=2)},)
        program = torch.export.export(net, (torch.rand(2, 4, 9),), dynamic_shapes=sizes)
        x = torch.rand(3, 4, 70)
        torch.export.save(program.run_decompositions(), tmp_path / f"{family}.pt2")
        torch.save([x, net(x).detach()], tmp_path / f"{family}.pt")
    code = """
import sys, torch, lava_bridge.ops
for family in sys.argv[1:]:
    x, expected = torch.load(f"{family}.pt")
    assert expected.any()
    assert torch.equal(torch.export.load(f"{family}.pt2").module()(x), expected), family
"""
    command = [sys.executable, "-c", code, *FAMILIES]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@traced_since("2.13")  # as it was seen to load
@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_program_of_what_learns_decays_and_delays_is_saved_loaded_and_run(family, decomposed):
    params = {**FAMILIES[family], "requires_grad": True, "shared_param": False}
    net = getattr(slayer.block, family).Dense(params, 4, 5, weight_scale=4, delay=True)
    x = torch.rand(2, 4, 12)
    net(x)
    with torch.no_grad():  # as an optimizer's step may leave them: out of their ranges
        for name, parameter in net.named_parameters():
            if name.startswith(("neuron", "delay")) and parameter.numel() > 1:
                parameter[0] -= 5000
                parameter[1] += 5000
    before = copy.deepcopy(net.state_dict())
    program = torch.export.export(net, (x,))
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    run = saved_and_loaded(program.run_decompositions() if decomposed else program)
    found, expected = run(x), net(x)
    assert expected.any()
    assert torch.equal(found, expected)
    # What ran has been brought back in place, as always.
    assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_synapses_run_in_half_and_states_in_full_precision(dtype):
    net, x = slayer.block.cuba.Conv(CUBA, 2, 4, 3, weight_scale=3), torch.rand(2, 2, 6, 6, 7)
    net(x)
    with torch.autocast("cpu", dtype=dtype):
        drive, spikes = net.synapse(x), net(x)
    assert drive.dtype == spikes.dtype == dtype
    # The neuron computes what float32 gives for that input, and no autocast changes it.
    expected = slayer.neuron.cuba.Neuron(**CUBA)(drive.float())
    assert spikes[..., 1:].any()
    assert torch.equal(spikes[..., 1:].float(), expected[..., :-1])
    spikes.sum().backward()
    weight = net.synapse.weight
    assert weight.grad.dtype == torch.float32
    assert weight.grad.any()


def test_the_backend_is_part_of_what_is_compiled():
    neuron, x = slayer.neuron.cuba.Neuron(**CUBA), torch.rand(2, 3, 8)
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    expected = neuron(x)
    for name in ("auto", "torch", "native"):
        with lava_bridge.use_backend(name):
            assert torch.equal(compiled(x), expected)


PER_CHANNEL = {
    "decays": lambda: slayer.neuron.cuba.Neuron(**CUBA, requires_grad=True, shared_param=False),
    "thresholds": lambda: slayer.neuron.sigma_delta.Neuron(
        **FAMILIES["sigma_delta"], requires_grad=True, shared_param=False
    ),
    "delays": lambda: slayer.axon.Delay(max_delay=5),
    "biases": lambda: slayer.neuron.cuba.Neuron(**CUBA, norm=slayer.neuron.norm.ChannelBias),
}


@pytest.mark.parametrize("part", PER_CHANNEL)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_parameters_that_a_compiled_net_draws_get_their_gradients(part, backend):
    module, x = PER_CHANNEL[part](), torch.rand(2, 3, 9)
    compiled = torch.compile(module, backend=backend)
    compiled(x).sum().backward()  # the first run: the channels are drawn
    other = copy.deepcopy(module)
    other.zero_grad()
    other(x).sum().backward()
    compared = 0
    for mine, reference in zip(module.parameters(), other.parameters(), strict=True):
        if reference.grad is not None:
            compared += 1
            torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-5, atol=1e-6)
    assert compared > 0


@pytest.mark.parametrize("part", PER_CHANNEL)
def test_what_channels_draw_is_not_compiled_whole_nor_exported(part):
    x = torch.rand(2, 3, 9)
    compiled = torch.compile(PER_CHANNEL[part](), fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="run the net once before"):
        compiled(x)
    with pytest.raises(lava_bridge.BridgeError, match="run the net once before"):
        torch.export.export(PER_CHANNEL[part](), (x,), strict=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_compiles_whole_with_sizes_left_open(family):
    net = getattr(slayer.block, family).Dense(FAMILIES[family], 4, 5, weight_scale=4)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager", dynamic=True)
    assert_same_net(net, compiled, torch.rand(2, 4, 9), torch.rand(3, 4, 12))


def test_a_bias_in_both_parts_of_a_resonator_compiles_with_sizes_left_open():
    neuron = slayer.neuron.rf.Neuron(**TURNING, norm=slayer.neuron.norm.ChannelBias)
    x = 9 * (torch.rand(2, 3, 12) < 0.3).float()
    neuron((x, x))
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager", dynamic=True)
    for part in (neuron.real_norm, neuron.imag_norm):
        part.value.data.uniform_(0, 0.2)
    for y in (x, 9 * (torch.rand(4, 3, 40) < 0.3).float()):
        assert neuron((y, y)).any()
        assert torch.equal(compiled((y, y)), neuron((y, y)))


def test_an_exported_program_keeps_no_state():
    # docs/slayer.md says so: torch.export leaves out what buffers are set to.
    net = slayer.block.rf.Dense({**TURNING, "persistent_state": True}, 4, 5, weight_scale=4)
    x = torch.rand(2, 4, 12)
    program = torch.export.export(copy.deepcopy(net), (x,)).module()
    first = net(x)
    assert first.any()
    assert not torch.equal(net(x), first)
    for _ in range(2):
        assert torch.equal(program(x), first)
