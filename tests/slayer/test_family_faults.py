"""Each fault of lava-dl's other neuron families that is known: here the right thing happens."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st

from lava_bridge import BridgeError, slayer

from .cases import FAMILY_CASES
from .files import exported
from .strategies import ADAPTIVE, FIRING, RESONATORS, analog, drive, response, seeds, shapes

of_resonators = pytest.mark.parametrize("name", RESONATORS)


def neuron(name, **changes):
    return getattr(slayer.neuron, name).Neuron(**{**FIRING[name], **changes})


# --- The way back from device parameters


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_step_of_the_threshold_comes_from_its_own_device_parameter(name):
    # lava takes vThMant, the threshold itself; adrf's and adrf_iz's raise
    made = neuron(name, threshold=1.5, threshold_step=0.25)
    assert (made.device_params["vThMant"], made.device_params["vThStep"]) == (96, 16)
    back = getattr(slayer.neuron, name).neuron_params(made.device_params)
    assert back["threshold_step"] == 0.25
    assert back["threshold"] == 1.5


@pytest.mark.parametrize("name", ["rf", "rf_iz", "alif", "adrf", "adrf_iz", "sigma_delta"])
def test_every_threshold_on_the_grid_of_a_decimal_scale_is_kept(name):
    # lava rounds 0.58 * 100 down to 57, and that / 100 * 100 to 56
    for mantissa in range(1, 300):
        params = {"threshold": mantissa / 100}
        if name in ADAPTIVE:
            params["threshold_step"] = mantissa / 100
        made = neuron(name, scale=100, **params)
        written = made.device_params
        back = getattr(slayer.neuron, name).neuron_params(written, scale=100)
        again = neuron(name, scale=100, **back).device_params
        assert again == written, mantissa
        assert float(made.threshold) == pytest.approx(written["vThMant"] / 100, abs=1e-6)
        if name in ADAPTIVE:
            assert made.threshold_step == pytest.approx(written["vThStep"] / 100)


@of_resonators
@pytest.mark.parametrize("period", [8, 27.5, 31.25, 92.25, 403])
def test_a_resonator_without_decay_is_the_same_after_the_way_back(name, period):
    first = neuron(name, period=period, decay=0)
    back = getattr(slayer.neuron, name).neuron_params(first.device_params)
    second = neuron(name, **back)
    assert second.device_params == first.device_params


# --- Resonators


@of_resonators
@pytest.mark.parametrize("shared", [True, False])
def test_a_decay_of_one_forgets_all_and_is_not_nan(name, shared):
    # lava divides by a gain of 0
    made = neuron(name, decay=1 if shared else (1, 1), shared_param=shared)
    x = drive(name, (2, 3, 5), 1, 1)
    real, imag, *_ = made.dynamics(x)
    assert torch.isfinite(made.sin_decay).all()
    assert torch.equal(made.cos_decay, torch.zeros_like(made.cos_decay))
    # the smallest turn that there is, 1 / 4096, stays
    for state, part in zip((real, imag), x, strict=True):
        assert (state - part).abs().max() < 0.01
    assert made.device_params["sinDecay"].max() == 1


@of_resonators
def test_a_checkpoint_of_one_channel_from_before_the_first_forward_is_not_nan(lava, name):
    # lava's parameters per channel are NaN until they are drawn
    fresh = getattr(lava.neuron, name).Neuron(**FIRING[name], shared_param=False)
    loaded = neuron(name, shared_param=False)
    loaded.load_state_dict(fresh.state_dict(), strict=True)
    loaded(drive(name, (2, 1, 5), 1, 1))
    assert torch.isfinite(loaded.sin_decay).all()
    assert loaded.period == pytest.approx(FIRING[name]["period"], rel=0.02)


@given(shape=shapes(), seed=seeds, parts=st.lists(st.integers(1, 6), min_size=2, max_size=4))
@pytest.mark.parametrize("name", ["rf", "adrf"])
def test_dynamics_alone_carry_the_imaginary_state_on(name, shape, seed, parts):
    # lava keeps it where the spike is computed
    x = drive(name, (2, *shape, sum(parts)), seed, 1)
    real, imag, *_ = neuron(name).dynamics(x)
    made = neuron(name, persistent_state=True)
    pieces = zip(*[part.split(parts, dim=-1) for part in x], strict=True)
    split = [made.dynamics(piece)[:2] for piece in pieces]
    assert torch.equal(torch.cat([piece[0] for piece in split], -1), real)
    assert torch.equal(torch.cat([piece[1] for piece in split], -1), imag)


@pytest.mark.parametrize("name", ["rf Affine", "rf_iz Affine"])
def test_an_affine_block_with_persistent_state_goes_on(name):
    case = FAMILY_CASES[name]
    x = case.input(1, time=10)
    _, whole = case.built_and_run(slayer, 1, x)
    case = case.of_neuron(persistent_state=True)
    torch.manual_seed(1)
    block = case.build(slayer)
    split = torch.cat([block(part) for part in x.split([3, 1, 6], dim=-1)], -1)
    assert torch.equal(split, whole)


@pytest.mark.parametrize("name", ["rf Affine", "rf_iz Affine"])
def test_a_complex_affine_block_never_fires(name):
    # lava can't build one
    block, _ = FAMILY_CASES[name].built_and_run(slayer, 1, FAMILY_CASES[name].input(1))
    assert block.neuron.threshold is None
    assert exported(block)["layer/0/neuron/vThMant"][2] == (1 << 18) - 1


def test_adrf_iz_has_a_forward():
    # lava's gives its spike one argument too few
    x = drive("adrf_iz", (2, 3, 20), 1, 1)
    spike = neuron("adrf_iz")(x)
    assert torch.equal(spike, response(neuron("adrf_iz"), x)[-1])
    assert spike.any()


def test_states_of_more_than_24_bits_keep_their_last_bit_past_a_reset_that_does_not_happen():
    # lava takes the state through float32 where there is a threshold
    x = tuple(2**13 * part for part in drive("rf", (2, 3, 9), 1, 1, torch.float64))
    resetting, free = neuron("rf_iz", threshold=2**20), neuron("rf")
    assert max(part.abs().max() for part in x) * 4096 > 2**24
    for mine, reference in zip(resetting.dynamics(x), free.dynamics(x), strict=True):
        assert torch.equal(mine, reference)


@of_resonators
@pytest.mark.parametrize("scale", [3, 100])
def test_in_float64_a_state_is_its_integer_over_the_scale(name, scale):
    # lava divides in float32
    x = drive(name, (2, 3, 9), 1, 1, torch.float64)
    for state in response(neuron(name, scale=scale), x)[:-1]:
        integers = torch.round(state * 64 * scale)
        assert torch.equal(integers / (64 * scale), state)


@of_resonators
def test_the_norms_of_both_parts_are_written(name):
    # lava leaves both out
    case = FAMILY_CASES[f"{name} ConvT with norm"]
    block, _ = case.built_and_run(slayer, 1, case.input(1))
    written = exported(block)
    for part in ("real", "imag"):
        norm = getattr(block.neuron, f"{part}_norm")
        assert written[f"layer/0/bias_{part}"][2].tolist() == norm.bias.tolist()
        assert written[f"layer/0/neuron/weight_exp_{part}"][2] == norm.weight_exp


# --- Sigma-delta


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3, 2)])
def test_the_cumulated_error_starts_anew_where_the_state_is_not_persistent(batch, shape):
    # lava subtracts a boolean, adds in place, and fails for a batch of one
    delta = slayer.axon.Delta(0.5, cum_error=True)
    x = 0.2 * torch.ones(batch, *shape, 4).cumsum(-1)
    first = delta(x)
    held = delta.error_state
    before = held.clone()
    assert first.any()
    for _ in range(3):
        assert torch.equal(delta(x), first)
    assert torch.equal(held, before)
    assert not before.any()


def test_a_forward_leaves_the_tensor_of_a_persistent_error_alone():
    delta = slayer.axon.Delta(0.5, cum_error=True, persistent_state=True)
    delta(0.2 * torch.ones(2, 3, 4))
    held = delta.error_state
    before = held.clone()
    delta(0.9 * torch.ones(2, 3, 4))
    assert torch.equal(held, before)


@pytest.mark.parametrize("shape", [(1,), (3,), (3, 2, 2)])
def test_a_threshold_of_each_channel_learns(shape):
    # lava's gradient has another shape than the threshold
    made = neuron("sigma_delta", activation=torch.tanh, shared_param=False, requires_grad=True)
    optimiser = torch.optim.SGD(made.parameters(), lr=0.01)
    made(analog((2, *shape, 9), 1, 1)).square().sum().backward()
    before = made.threshold.detach().clone()
    assert made.threshold.grad.shape == before.shape == (shape[0], *[1] * (len(shape) - 1))
    optimiser.step()
    assert (made.threshold != before).all()
    assert len(made.device_params["vThMant"].flatten()) == shape[0]


def test_a_checkpoint_brings_the_bias_along():
    # in lava it is loaded and not used
    made, x = neuron("sigma_delta"), analog((2, 3, 9), 1, 1)
    made.set_bias(torch.tensor([0.5, -0.2, 1.0]))
    y = made(x)
    for first in (None, torch.zeros(2, 3, 4)):
        loaded = neuron("sigma_delta")
        if first is not None:
            loaded(first)
        loaded.load_state_dict(made.state_dict(), strict=True)
        assert torch.equal(loaded(x), y)
    assert not torch.equal(neuron("sigma_delta")(x), y)


def test_an_activation_may_be_a_module():
    # lava asks it for its __name__
    x = analog((2, 3, 9), 1, 1)
    module, function = (
        neuron("sigma_delta", activation=activation) for activation in (torch.nn.ReLU(), F.relu)
    )
    assert torch.equal(module(x), function(x))
    assert module.device_params == function.device_params


def test_a_sigma_delta_block_takes_delay_shift_by_its_place():
    # lava looks for it among the named arguments only
    params = FIRING["sigma_delta"]
    placed = slayer.block.sigma_delta.Dense(params, 3, 2, 1, False, None, False, True)
    named = slayer.block.sigma_delta.Dense(params, 3, 2, delay_shift=True)
    assert placed.delay_shift is named.delay_shift is True
    assert slayer.block.sigma_delta.Dense(params, 3, 2).delay_shift is False


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_threshold_that_is_set_later_is_where_the_adaptive_one_begins(name):
    made, meant = neuron(name, threshold=1), neuron(name, threshold=3)
    made.threshold = 3
    x = drive(name, (2, 3, 9), 1, 1)
    assert torch.equal(made.dynamics(x)[2], meant.dynamics(x)[2])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in sorted(FIRING)
        for kind in ("Dense", "Recurrent")
        if hasattr(getattr(slayer.block, name), kind)
    ],
)
def test_a_dry_run_in_inference_mode_does_not_hinder_training(name, kind):
    params = {**FIRING[name], "shared_param": False, "persistent_state": True}
    params |= {"requires_grad": True, "norm": slayer.neuron.norm.MeanOnlyBatchNorm}
    made = getattr(getattr(slayer.block, name), kind)(params, 4, 3, weight_scale=3, delay=True)
    x = (torch.rand(2, 4, 9) < 0.5).float()
    with torch.inference_mode():
        made.eval()(x)
    made.train()(x).sum().backward()
    assert all(not tensor.is_inference() for tensor in made.parameters())


def test_a_bias_that_is_learned_is_not_the_callers_tensor():
    made, bias = neuron("sigma_delta", requires_grad=True), torch.ones(3)
    made.set_bias(bias)
    made.bias.data.add_(1)
    assert torch.equal(bias, torch.ones(3))


@pytest.mark.parametrize("name", ["cuba", "rf", "rf_iz"])
def test_an_affine_block_gives_half_precision_for_half_precision(name):
    leak = {"threshold": 1, "current_decay": 0.1, "voltage_decay": 0.1}
    made = getattr(slayer.block, name).Affine(FIRING.get(name, leak), 4, 3)
    x = (torch.rand(2, 4, 9) < 0.5).half()
    assert made.half()(x).dtype == torch.float16


@pytest.mark.parametrize("name", FIRING)
def test_the_states_that_go_on_are_cut_from_their_past(name):
    # Else every forward would hold the graph of the one before, and nobody could copy the neuron.
    made = neuron(name, persistent_state=True, requires_grad=True)
    x = drive(name, (2, 3, 5), 1, 1)
    for part in x if isinstance(x, tuple) else [x]:
        part.requires_grad_()
    assert made(x).requires_grad
    for key, state in made.named_buffers():
        assert not state.requires_grad, key
    copy.deepcopy(made)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", FIRING)
def test_a_neuron_that_forgets_is_as_at_its_first_forward(name, batch):
    made = neuron(name, persistent_state=True)
    x = drive(name, (batch, 3, 9), 1, 1)
    first = made(x)
    assert not torch.equal(made(x), first)
    made.forget()
    assert torch.equal(made(x), first)


@pytest.mark.parametrize("name", FIRING)
def test_a_block_that_forgets_as_docs_slayer_says_is_as_at_its_first_forward(name):
    params = {**FIRING[name], "persistent_state": True}
    block = getattr(slayer.block, name).Dense(params, 4, 5, weight_scale=4, delay=True)
    block.delay.persistent_state = True
    x = torch.rand(2, 4, 9)
    first = block(x)
    assert first.any()
    assert not torch.equal(block(x), first)
    for part in (block.neuron, block, block.delay):
        part.forget()
    assert torch.equal(block(x), first)


def test_a_row_that_has_run_is_no_picture_of_one_pixel():
    made = neuron("cuba")
    made(torch.ones(2, 3, 5))
    with pytest.raises(BridgeError, match="use one a layer"):
        made(torch.ones(2, 3, 1, 1, 5))


@pytest.mark.parametrize("name", [name for name in FIRING if name != "sigma_delta"])
def test_dynamics_and_spike_by_themselves_go_on_in_pieces_as_the_forward(name):
    x = drive(name, (2, 3, 12), 1, 1)
    whole = neuron(name)(x)
    made = neuron(name, persistent_state=True)
    if isinstance(x, tuple):
        pieces = zip(*[part.split(4, -1) for part in x], strict=True)
    else:
        pieces = x.split(4, -1)
    assert torch.equal(torch.cat([response(made, piece)[-1] for piece in pieces], -1), whole)


@pytest.mark.parametrize("in_parts", [True, False])
@pytest.mark.parametrize("norm", ["MeanOnlyBatchNorm", "WgtScaleBatchNorm", "ChannelBias"])
def test_what_goes_on_of_a_normed_current_is_the_normed_one_but_no_bias(lava, norm, in_parts):
    made = neuron("cuba", persistent_state=True, norm=getattr(slayer.neuron.norm, norm))
    x = drive("cuba", (2, 3, 6), 1, 1) + 1
    if norm == "ChannelBias":
        made.norm.value.data.fill_(0.5)
        reference = neuron("cuba", persistent_state=True)
    else:
        made_by = getattr(lava.neuron.norm, norm)
        reference = lava.neuron.cuba.Neuron(**FIRING["cuba"], persistent_state=True, norm=made_by)
    for run in (made, reference):
        response(run, x) if in_parts else run(x)
    assert made.current_state.any()
    assert torch.equal(made.current_state, reference.current_state)


@pytest.mark.parametrize("name", [name for name in FIRING if name != "sigma_delta"])
def test_a_threshold_of_zero_has_no_surrogate_gradient_and_says_so(name):
    made = neuron(name, threshold=0)
    x = drive(name, (2, 3, 9), 1, 1)
    for part in x if isinstance(x, tuple) else [x]:
        part.requires_grad_()
    with pytest.raises(BridgeError, match="surrogate gradient of some width"):
        made(x).sum().backward()


@pytest.mark.parametrize("scale", [7, 22, 64])
def test_a_forwards_current_decay_learns_as_that_of_dynamics_and_spike_at_any_scale(scale):
    # At a scale that is no power of two no current follows from a voltage as float32 holds it.
    made = neuron("cuba", threshold=1000, voltage_decay=0.001, scale=scale, requires_grad=True)
    x = drive("cuba", (2, 3, 400), 1, 0.3).abs()
    found = [
        torch.autograd.grad(run(made, x).sum(), made.current_decay)[0]
        for run in (lambda made, x: made(x), lambda made, x: response(made, x)[-1])
    ]
    assert found[1].any()
    torch.testing.assert_close(*found, rtol=1e-6, atol=0)
