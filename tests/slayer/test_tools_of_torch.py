"""What torch does to modules: meta tensors, pruning, transforms; and states are copies."""

import copy

import pytest
import torch
from spikingjelly.activation_based import functional
from torch.func import functional_call, vmap
from torch.nn.utils import prune

from lava_bridge import export_hdf5, load_hdf5, slayer, use_backend
from lava_bridge.exchange import AsSpikingJelly

CUBA = {"threshold": 0.3, "current_decay": 0.25, "voltage_decay": 0.1}
ALIF = {**CUBA, "threshold_step": 0.25, "threshold_decay": 0.1, "refractory_decay": 0.2}
NORM = {**CUBA, "norm": slayer.neuron.norm.MeanOnlyBatchNorm}
LEARNED = {**CUBA, "requires_grad": True}
RELU = {"threshold": 0.1, "activation": torch.nn.functional.relu}
dense, recurrent = slayer.block.cuba.Dense, slayer.block.cuba.Recurrent

MADE = {
    "dense": lambda: dense(CUBA, 9, 6, weight_scale=4),
    "recurrent": lambda: recurrent(CUBA, 9, 6, weight_scale=4),
    "kwta": lambda: slayer.block.cuba.KWTA(CUBA, 9, 6, 2, weight_scale=4),
    "alif": lambda: slayer.block.alif.Dense(ALIF, 9, 6, weight_scale=4),
    "sigma delta": lambda: slayer.block.sigma_delta.Dense(RELU, 9, 6, weight_scale=4),
}


@pytest.fixture
def x():
    return torch.rand(3, 9, 20)


@pytest.mark.parametrize("kind", ["dense", "recurrent", "kwta", "alif"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_a_block_from_the_meta_device_starts_where_its_input_is(kind, backend, x):
    block = MADE[kind]()
    with torch.device("meta"):
        made = MADE[kind]()
    made.load_state_dict(block.state_dict(), assign=True)
    with use_backend(backend):
        for _ in range(2):
            expected = block(x)
            assert expected.any()
            assert torch.equal(made(x), expected)
    states = dict(block.named_buffers())
    for name, state in made.named_buffers():
        assert (state.dtype, state.device) == (states[name].dtype, states[name].device)


@pytest.mark.parametrize("kind", ["recurrent", "kwta"])
def test_spikes_that_are_fed_back_are_a_copy(kind, x):
    block = MADE[kind]()
    block.delay_shift = False
    with torch.no_grad():
        y = block(x)
        state = block.spike_state.clone()
        assert state.any()
        y.mul_(0)
    assert torch.equal(block.spike_state, state)
    assert block.spike_state.untyped_storage().nbytes() == state.numel() * 4


def test_a_loaded_recurrent_block_starts_from_rest(x):
    block = MADE["recurrent"]()
    saved = copy.deepcopy(block.state_dict())
    first = block(x)
    assert not torch.equal(block(x), first)
    block.load_state_dict(saved)
    assert torch.equal(block(x), first)


@pytest.mark.parametrize("kind", ["dense", "recurrent"])
@pytest.mark.parametrize("made", [prune.l1_unstructured, torch.nn.utils.weight_norm])
def test_weights_that_hooks_of_torchs_compute_are_up_to_date(kind, made, x, tmp_path):
    def hooked(seed):
        torch.manual_seed(seed)
        block = MADE[kind]()
        names = ["synapse"] if kind == "dense" else ["input_synapse", "recurrent_synapse"]
        for name in names:
            more = (0.3,) if made is prune.l1_unstructured else ()
            made(getattr(block, name), "weight", *more)
        return block

    block, other = hooked(0), hooked(1)
    other.load_state_dict(block.state_dict())
    assert torch.equal(other(x), block(x))
    for _ in range(2):  # the second backward meets the hooks' graph
        block(x).sum().backward()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.mul_(torch.rand_like(parameter) + 0.5)
    export_hdf5([block], tmp_path / "net.net")  # before any forward
    block.forget()
    block.neuron.forget()
    block.spike_state = torch.zeros(1)
    spikes = block(x)
    assert spikes.any()
    assert torch.equal(load_hdf5(tmp_path / "net.net")(x), spikes)


@pytest.mark.parametrize("name", ["weight_v", "weight_g"])
def test_the_parts_of_a_weight_norm_can_be_pruned(name, x, lava):
    blocks = []
    for made in (dense, lava.block.cuba.Dense):
        torch.manual_seed(0)
        block = made(CUBA, 9, 6, weight_scale=4, weight_norm=True)
        prune.l1_unstructured(block.synapse, name, 0.5)
        blocks.append(block)
    ours, theirs = (block(x) for block in blocks)
    assert ours.any()
    assert torch.equal(ours, theirs)


class Streams(torch.nn.Module):
    """Slayer blocks as SpikingJelly's, which wait for the next forward with delays and all."""

    def __init__(self):
        super().__init__()
        self.blocks = AsSpikingJelly([dense(CUBA, 9, 6, weight_scale=4, delay=True)], "m")

    def forward(self, x):
        return self.blocks(x.movedim(-1, 0)).movedim(0, -1)


@pytest.mark.parametrize(
    "made", [MADE["recurrent"], lambda: dense(NORM, 9, 6, weight_scale=4), Streams]
)
def test_transforms_leave_nothing_of_theirs_in_a_module(made, x, tmp_path):
    block = made()
    block(x[:1])  # as many as a sample of vmap's has

    def one(sample):
        return functional_call(block, {}, (sample[None],))

    def waiting():
        parts = [getattr(m, n, None) for m in block.modules() for n in ("past", "delay_buffer")]
        return [*block.buffers(), *(part for part in parts if part is not None)]

    before = [state.clone() for state in waiting()]
    vmap(one)(x)
    assert all(torch.equal(*pair) for pair in zip(waiting(), before, strict=True))
    torch.func.grad(lambda sample: one(sample).sum())(x[0])
    block.eval()
    block(x)
    torch.save(block.state_dict(), tmp_path / "state.pt")
    assert all(torch.isfinite(buffer).all() for buffer in block.buffers())


@pytest.mark.parametrize(
    "made",
    [
        lambda: dense(CUBA, 9, 6, weight_scale=4, delay=True),
        lambda: dense(LEARNED, 9, 6, weight_scale=4),
        MADE["sigma delta"],
    ],
)
def test_ensembles_of_parameters_run_at_once(made, x):
    block = made()
    expected = block(x)
    several = {k: torch.stack([v.detach()] * 2) for k, v in block.named_parameters()}
    for spikes in vmap(lambda given: functional_call(block, given, (x,)))(several):
        assert torch.equal(spikes, expected)


def test_parameters_that_a_caller_puts_in_stay_the_callers(x):
    block = dense(LEARNED, 9, 6, weight_scale=4)
    given = {k: v.detach().clone() for k, v in block.named_parameters()}
    given["neuron.current_decay"].fill_(5000)
    spikes = functional_call(block, given, (x,))
    assert given["neuron.current_decay"].item() == 5000
    block.neuron.current_decay.data.fill_(4096)  # the largest there is
    assert torch.equal(block(x), spikes)


def test_a_block_that_is_put_into_an_adapter_later_goes_on_too(x):
    net = AsSpikingJelly(
        [dense(CUBA, 9, 12, weight_scale=4), dense(CUBA, 12, 4, weight_scale=4)], "m"
    )
    net.module[1] = dense(CUBA, 12, 5, weight_scale=4)
    x_seq = x.movedim(-1, 0)
    whole = net(x_seq)
    functional.reset_net(net)
    assert whole.any()
    assert torch.equal(torch.cat([net(chunk) for chunk in x_seq.split(4)]), whole)
    functional.reset_net(net)
    net.step_mode = "s"
    assert torch.equal(torch.stack([net(step) for step in x_seq]), whole)
