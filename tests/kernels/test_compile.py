"""torch.compile, torch.export and autocast on nets of these modules."""

import copy
import io
import subprocess
import sys

import pytest
import torch
from spikingjelly.activation_based import functional, layer, surrogate

import lava_bridge
from lava_bridge import slayer
from lava_bridge.exchange import AsSlayer, BatchNorm2d, CubaLIFNode
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


def gradients(run, x, parameters):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(run(leaf).sum(), [leaf, *parameters], allow_unused=True)


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


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"surrogate_function": surrogate.ATan(), "detach_reset": True},
        {"requires_grad": True},
        {"norm": True},
        {"store_v_seq": True, "store_i_seq": True},
    ],
    ids=str,
)
def test_a_net_of_spikingjellys_compiles_whole(node):
    node = {**node, "norm": BatchNorm2d(5)} if "norm" in node else node
    net = torch.nn.Sequential(
        layer.Conv2d(3, 5, 3, padding=1, step_mode="m"),
        CubaLIFNode(0.3, 0.1, v_threshold=0.25, step_mode="m", **node),
    )
    net.eval()  # a norm's statistics do not move between the runs

    def fresh(run):
        def from_rest(x):
            functional.reset_net(net)
            return run(x)

        return from_rest

    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    x = torch.rand(6, 2, 3, 4, 4)
    parameters = [p for p in net.parameters() if p.requires_grad]
    assert 0.01 < fresh(net)(x).mean() < 0.99
    assert torch.equal(fresh(compiled)(x), fresh(net)(x))
    for mine, reference in zip(
        gradients(fresh(compiled), x, parameters),
        gradients(fresh(net), x, parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(
    "2.10" <= torch.__version__ < "2.13",  # by versions, not by letters
    reason="torch 2.10 to 2.12 take min(time, 3 * time) == time for a constraint on time",
)
def test_a_net_of_slayer_blocks_is_exported_for_any_batch_and_time():
    net, x = conv_net().eval(), torch.rand(2, 2, 6, 6, 7)
    net(x)
    sizes = ({0: torch.export.Dim("batch"), 4: torch.export.Dim("time", min=2)},)
    program = torch.export.export(net, (x,), dynamic_shapes=sizes)
    names = {str(node.target) for node in program.graph.nodes}
    assert "lava_bridge.cuba.default" in names
    for batch in (x, torch.rand(5, 2, 6, 6, 9)):
        assert net(batch).any()
        assert torch.equal(program.module()(batch), net(batch))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_program_of_any_family_takes_any_time_in_another_process(family, tmp_path):
    net = getattr(slayer.block, family).Dense(FAMILIES[family], 4, 5, weight_scale=4).eval()
    # Gradients are on, and the sample is short: neither may become a condition.
    sizes = ({0: torch.export.Dim("batch"), 2: torch.export.Dim("time", min=2)},)
    program = torch.export.export(net, (torch.rand(2, 4, 9),), dynamic_shapes=sizes)
    x = torch.rand(3, 4, 70)
    torch.export.save(program.run_decompositions(), tmp_path / "net.pt2")
    torch.save([x, net(x).detach()], tmp_path / "run.pt")
    code = """
import sys, torch, lava_bridge.ops
x, expected = torch.load(sys.argv[2])
assert expected.any() and torch.equal(torch.export.load(sys.argv[1]).module()(x), expected)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "net.pt2"), str(tmp_path / "run.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def saved_and_loaded(program):
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()


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


@traced_since("2.13")
def test_a_program_of_a_node_that_learns_is_saved_loaded_and_run():
    node = CubaLIFNode(0.3, 0.1, v_threshold=0.25, requires_grad=True, step_mode="m")
    x = torch.rand(6, 2, 4)
    node.voltage_decay.data.fill_(-100)
    program = torch.export.export(copy.deepcopy(node), (x,)).run_decompositions()
    found, expected = saved_and_loaded(program)(x), node(x)
    assert expected.any()
    assert node.voltage_decay == 0
    assert torch.equal(found, expected)


def test_a_net_of_spikingjellys_is_exported():
    net = torch.nn.Sequential(
        layer.Linear(4, 5, step_mode="m"), CubaLIFNode(0.3, 0.1, v_threshold=0.25, step_mode="m")
    ).eval()
    program = torch.export.export(net, (torch.rand(6, 2, 4),))
    functional.reset_net(net)
    x = torch.rand(6, 2, 4)
    found, expected = program.module()(x), net(x)
    assert expected.any()
    assert torch.equal(found, expected)


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


def test_under_autocast_spikingjellys_node_gives_spikes_of_its_input():
    node = CubaLIFNode(0.3, 0.1, step_mode="m", requires_grad=True)
    x = torch.rand(6, 2, 3).to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spikes = node(x)
    assert spikes.dtype == torch.bfloat16
    assert node.v.dtype == torch.float32
    spikes.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert node.current_decay.grad.dtype == torch.float32


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
    x = torch.rand(2, 3, 12)
    neuron((x, x))
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager", dynamic=True)
    for part in (neuron.real_norm, neuron.imag_norm):
        part.value.data.uniform_(0, 0.2)
    for y in (x, torch.rand(4, 3, 40)):
        assert neuron((y, y)).any()
        assert torch.equal(compiled((y, y)), neuron((y, y)))


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("smooth", [surrogate.Sigmoid, surrogate.Erf])
def test_a_compiled_node_goes_on_from_its_state(smooth, dynamic):
    one = CubaLIFNode(0.3, 0.1, 0.8, requires_grad=True, surrogate_function=smooth(), step_mode="m")
    other = copy.deepcopy(one)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for steps in (6, 6, 7):  # without a reset between them
        x = torch.rand(steps, 2, 3)
        found, expected = compiled(x), one(x)
        assert expected.any()
        assert torch.equal(found, expected)
        assert torch.equal(other.v, one.v)
        found.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(other.current_decay.grad, one.current_decay.grad)
        functional.detach_net(other)
        functional.detach_net(one)


def test_a_spikingjelly_net_in_slayers_goes_on_from_its_state_when_compiled():
    node = CubaLIFNode(0.3, 0.1, v_threshold=0.2, step_mode="m")
    one = AsSlayer([layer.Linear(3, 4, step_mode="m"), node], persistent_state=True)
    one.module[0].weight.data.abs_()  # so that it spikes
    other = copy.deepcopy(one)
    compiled = torch.compile(other, backend="aot_eager")
    for _ in range(2):
        x = torch.rand(2, 3, 6)
        found, expected = compiled(x), one(x)
        assert expected.any()
        assert torch.equal(found, expected)
        found.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(other.module[0].weight.grad, one.module[0].weight.grad)


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
