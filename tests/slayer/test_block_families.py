"""The blocks of the other families give what lava's give, where lava's run; else what they say."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, strategies as st

from lava_bridge import slayer

from .cases import FAMILIES, FAMILY_CASES, RANGES, Case, feed_forward, in_family
from .strategies import (
    FIRING,
    NORMS,
    RESONATORS,
    analog,
    assert_close,
    batches,
    blocks_neuron,
    brief,
    on_each_part,
    run_alike,
    seeds,
    spikes,
    with_forward,
)

times = st.integers(1, 10)
every_family = pytest.mark.parametrize("family", FAMILIES)
of_resonators = pytest.mark.parametrize("family", RESONATORS)


@pytest.fixture(scope="module", autouse=True)
def _transposed_convolution_of_adrf_iz(lava):
    """adrf_iz looks for it under another name than lava's complex synapses have."""
    with pytest.MonkeyPatch.context() as patch:
        convolution = lava.synapse.complex.ConvTranspose
        patch.setattr(lava.synapse.complex, "ConvT", convolution, raising=False)
        yield


@st.composite
def blocks(draw, family, dropout=True):
    """A feed-forward block of this family with any of its options."""
    case = in_family(draw(feed_forward(dropout=dropout)), family)
    # lava's CPU loops broadcast the parameters of [N, C, H, W, T] along W
    assume(len(case.shape) == 1 or case.neuron.get("shared_param", True))
    return case


@pytest.mark.parametrize("family", FAMILIES)
@brief
@given(data=st.data(), batch=batches, time=times, seed=seeds)
def test_a_feed_forward_block_gives_lavas_messages(lava, family, data, batch, time, seed):
    case = data.draw(blocks(family))
    x = case.input(seed, batch, time)
    ours, mine = case.built_and_run(slayer, seed, x)
    theirs, reference = case.built_and_run(lava, seed, x)
    assert torch.equal(mine, reference)
    assert ours.shape == theirs.shape == mine.shape[1:-1]
    mine, reference = run_alike(ours, theirs, case.input(seed + 1, batch + 1, time), seed)
    assert torch.equal(mine, reference)
    ours.eval(), theirs.eval()
    assert torch.equal(ours(x), theirs(x))


def gradients(block, x, seed):
    x = x.clone().requires_grad_()
    block.zero_grad()
    y = block(x)
    (y * analog(tuple(y.shape), seed, 1, y.dtype)).sum().backward()
    named = {n: p.grad.clone() for n, p in block.named_parameters() if p.grad is not None}
    return x.grad, named


def assert_same_gradients(mine_x, reference_x, mine, reference):
    assert_close(mine_x, reference_x)
    assert mine.keys() == reference.keys()
    # one weight's direction has a gradient of 0, but for what is rounded in the largest
    largest = max((grad.abs().max().item() for grad in reference.values()), default=0)
    for key, grad in reference.items():
        torch.testing.assert_close(mine[key], grad, rtol=1e-5, atol=1e-9 * largest + 1e-300)


@every_family
@brief
@given(data=st.data(), batch=batches, time=times, seed=seeds, training=st.booleans())
def test_a_feed_forward_blocks_gradients_are_lavas(lava, family, data, batch, time, seed, training):
    case = data.draw(blocks(family, dropout=False))
    # lava's threshold of each channel has no backward
    assume(family != "sigma_delta" or case.neuron.get("shared_param", True))
    ours, mine = case.built_and_run(slayer, seed, case.input(seed, batch, time))
    # lava's Delay has no backward for [C, 1, 1]
    assume(ours.delay is None or mine.dim() == 3 or mine[0, 0, ..., 0].numel() > 1)
    theirs, _ = case.built_and_run(lava, seed, case.input(seed, batch, time))
    for block in (ours, theirs):
        block.double().train(training)
        if block.delay is not None:
            block.delay.delay.data += 1.5
    x = analog((batch, *case.shape, time), seed, 1, torch.float64)
    (mine_x, mine), (reference_x, reference) = (gradients(b, x, seed + 1) for b in (ours, theirs))
    assert_same_gradients(mine_x, reference_x, mine, reference)


@every_family
@brief
@given(
    data=st.data(), batch=batches, parts=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    seed=seeds,
)  # fmt: skip
def test_a_block_with_persistent_state_goes_on_as_lavas(lava, family, data, batch, parts, seed):
    case = data.draw(blocks(family))
    case = case.of_neuron(persistent_state=True)
    first, *rest = case.input(seed, batch, sum(parts)).split(parts, dim=-1)
    with torch.no_grad():  # lava raises with a gradient: it writes into a view
        ours, mine = case.built_and_run(slayer, seed, first)
        theirs, reference = case.built_and_run(lava, seed, first)
        assert torch.equal(mine, reference)
        for part in [*rest, case.input(seed, batch + 1, 3), first]:
            mine, reference = run_alike(ours, theirs, part, seed)
            assert torch.equal(mine, reference)


@every_family
@brief
@given(
    data=st.data(), batch=batches, parts=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    seed=seeds,
)  # fmt: skip
def test_a_split_sequence_equals_one_long_run_also_with_a_gradient(
    family, data, batch, parts, seed
):
    case = data.draw(blocks(family, dropout=False))
    assume(not case.options["delay"])  # a learned delay keeps no steps between forwards
    case = case.of_neuron(norm=None)
    x = case.input(seed, batch, sum(parts))
    _, whole = case.built_and_run(slayer, seed, x)
    case = case.of_neuron(persistent_state=True)
    torch.manual_seed(seed)
    block = case.build(slayer)
    split = torch.cat([block(part) for part in x.split(parts, dim=-1)], dim=-1)
    assert torch.equal(split, whole)
    if case.block not in ("Pool", "Unpool"):
        split.sum().backward()
        assert all(torch.isfinite(weight.grad).all() for weight in block.synapse.parameters())


# --- Input and output


@of_resonators
@brief
@given(
    weight=st.sampled_from([None, 1.3]), bias=st.sampled_from([None, -0.2]), shift=st.booleans(),
    shape=st.sampled_from([(3,), (2, 3, 2)]), time=times, seed=seeds,
)  # fmt: skip
def test_a_complex_input_block_encodes_both_parts_with_lavas_neuron(
    lava, family, weight, bias, shift, shape, time, seed
):
    # lava's own can't take a pair
    case = Case("Input", shape, {"weight": weight, "bias": bias, "delay_shift": shift}, {}, family)
    parts = analog((2, *shape, time), seed, 1), analog((2, *shape, time), seed + 1, 1)
    block, mine = case.built_and_run(slayer, seed, parts)
    neuron = with_forward(getattr(lava.neuron, family).Neuron(**FIRING[family]))

    def encoded(part):
        part = neuron.quantize_8bit(part)
        for value, act in ((weight, torch.mul), (bias, torch.add)):
            if value is not None:
                part = act(part, neuron.quantize_8bit(torch.tensor([value])))
        return part

    reference = neuron(on_each_part(encoded, parts))
    reference = lava.axon.delay(reference, 1) if shift else reference
    assert torch.equal(mine, reference)
    assert block.shape == shape


@of_resonators
@brief
@given(weight=st.sampled_from([None, 1.3]), seed=seeds, shape=st.sampled_from([(3,), (2, 3, 2)]))
def test_a_real_input_drives_the_real_part_alone(family, weight, seed, shape):
    case = Case("Input", shape, {"weight": weight}, {}, family)
    x = analog((2, *shape, 7), seed, 2)
    _, mine = case.built_and_run(slayer, seed, x)
    _, reference = case.built_and_run(slayer, seed, (x, torch.zeros_like(x)))
    assert torch.equal(mine, reference)


@pytest.mark.parametrize("family", ["alif", "sigma_delta"])
@brief
@given(
    weight=st.sampled_from([None, 0, 1.3, 3.9]), bias=st.sampled_from([None, -0.2, 0.52]),
    shift=st.booleans(), shape=st.sampled_from([(3,), (2, 3, 2)]), time=times, seed=seeds,
)  # fmt: skip
def test_an_input_block_encodes_as_lavas(lava, family, weight, bias, shift, shape, time, seed):
    options = {"weight": weight, "bias": bias}
    if family == "alif":  # lava's sigma-delta input is never shifted
        options["delay_shift"] = shift
    case = Case("Input", shape, options, {}, family)
    x = analog((2, *shape, time), seed, 1)
    ours, mine = case.built_and_run(slayer, seed, x)
    theirs, reference = case.built_and_run(lava, seed, x)
    assert torch.equal(mine, reference)
    assert ours.shape == theirs.shape == shape
    if weight or bias:
        (mine_x, mine), (reference_x, reference) = (
            gradients(b.double(), x.double(), seed + 1) for b in (ours, theirs)
        )
        assert_same_gradients(mine_x, reference_x, mine, reference)


@brief
@given(st.booleans(), batches, times, seeds, st.booleans())
def test_the_output_block_sums_as_lavas(lava, weight_norm, batch, time, seed, persistent):
    case = FAMILY_CASES["sigma_delta Output"].but(weight_norm=weight_norm)
    case = case.of_neuron(persistent_state=persistent)
    x = case.input(seed, batch, time)
    with torch.no_grad():
        ours, mine = case.built_and_run(slayer, seed, x)
        theirs, reference = case.built_and_run(lava, seed, x)
        assert torch.equal(mine, reference)
        assert torch.equal(ours(x), theirs(x))
    assert ours.shape == theirs.shape == (4,)
    assert ours(x).requires_grad


# --- Affine, Recurrent and KWTA


def loaded(lava, case, synapse, own):
    """lava's complex dense synapse with the weights of ``own``."""
    theirs = lava.synapse.complex.Dense(*case, pre_hook_fx=synapse.quantize_8bit)
    theirs.load_state_dict(own.state_dict())
    return theirs


@pytest.mark.parametrize("family", ["rf", "rf_iz"])
@brief
@given(dynamics=st.booleans(), per_channel=st.booleans(), batch=batches, time=times, seed=seeds)
def test_a_complex_affine_block_gives_the_imaginary_part_without_a_reset(
    lava, family, dynamics, per_channel, batch, time, seed
):
    # lava's raises in its constructor: its neuron's threshold can't be set
    neuron = RANGES[family] if per_channel else {}
    case = FAMILY_CASES[f"{family} Affine"].but(dynamics=dynamics, weight_scale=3)
    case = Case(case.block, case.shape, case.options, neuron, family)
    x = case.input(seed, batch, time)
    block, mine = case.built_and_run(slayer, seed, x)
    # rf never resets: its neuron is what rf_iz is without a threshold
    free = lava.neuron.rf.Neuron(**{**FIRING["rf"], **neuron})
    torch.manual_seed(seed)
    z = loaded(lava, (6, 3), free, block.synapse)(x)
    if dynamics:
        free.dynamics(on_each_part(torch.zeros_like, z))
        free.load_state_dict(block.neuron.state_dict())
    assert torch.equal(mine, free.dynamics(z)[1] if dynamics else z[1])
    assert mine.shape == (batch, 3, time)


@brief
@given(
    per_channel=st.booleans(), norm=st.sampled_from([None, *NORMS]), delay=st.booleans(),
    shift=st.booleans(), batch=batches, time=times, seed=seeds,
)  # fmt: skip
def test_an_alif_recurrents_first_forward_is_lavas(
    lava, per_channel, norm, delay, shift, batch, time, seed
):
    case = FAMILY_CASES["alif Recurrent"].but(delay=delay, delay_shift=shift)
    neuron = {**(RANGES["alif"] if per_channel else {}), "norm": norm}
    case = Case(case.block, case.shape, case.options, neuron, "alif")
    x = case.input(seed, batch, time)
    _, mine = case.built_and_run(slayer, seed, x)
    assert torch.equal(mine, case.built_and_run(lava, seed, x)[1])


# At a scale of 1 or 4 the bias of the winners is a whole step of the weights and more.
scales_and_thresholds = st.sampled_from([(64, 0.34), (4, 7), (1, 9)])


def kwta(family, scale_and_threshold, winners, excitation, shift):
    scale, threshold = scale_and_threshold
    case = FAMILY_CASES[f"{family} KWTA"].but(
        weight_scale=300 / scale,
        num_winners=winners,
        self_excitation=excitation,
        delay_shift=shift,
    )
    return Case(
        case.block, case.shape, case.options, {"scale": scale, "threshold": threshold}, family
    )


@brief
@given(
    scale_and_threshold=scales_and_thresholds, winners=st.integers(1, 4),
    excitation=st.sampled_from([0, 0.5, 0.8]), shift=st.booleans(), batch=batches, time=times,
    seed=seeds,
)  # fmt: skip
def test_an_alif_kwtas_first_forward_is_lavas(
    lava, scale_and_threshold, winners, excitation, shift, batch, time, seed
):
    case = kwta("alif", scale_and_threshold, winners, excitation, shift)
    x = case.input(seed, batch, time)
    with torch.no_grad():  # lava raises with a gradient
        _, mine = case.built_and_run(slayer, seed, x)
        assert torch.equal(mine, case.built_and_run(lava, seed, x)[1])


def step_by_step(block, lava, case, feedback, x):
    """The spikes of lava's neuron under the input's weights and what ``feedback`` gives."""
    neuron = with_forward(
        getattr(lava.neuron, case.family).Neuron(
            **blocks_neuron(lava, family=case.family, **case.neuron, persistent_state=True)
        )
    )
    parts = block.input_synapse if case.block == "Recurrent" else block.synapse
    z = loaded(lava, (6, 4), neuron, parts)(x)
    first = on_each_part(lambda part: torch.zeros_like(part[..., :1]), z)
    neuron(first)
    neuron.load_state_dict(block.neuron.state_dict())
    for name in ("real_state", "imag_state", "threshold_state", "refractory_state"):
        if hasattr(neuron, name):  # at rest again
            start = neuron.threshold if name == "threshold_state" else 0
            setattr(neuron, name, torch.full(z[0].shape[:-1], float(start)))
    spike, steps = torch.zeros(z[0].shape[:-1]), []
    for t in range(x.shape[-1]):
        drive = zip(z, feedback(neuron, spike), strict=True)
        spike = neuron(tuple((part[..., t] + fed)[..., None] for part, fed in drive))[..., 0]
        steps.append(spike)
    return torch.stack(steps, -1)


@of_resonators
@brief
@given(per_channel=st.booleans(), shift=st.booleans(), batch=batches, time=times, seed=seeds)
def test_a_complex_recurrent_block_feeds_its_spikes_back_into_both_parts(
    lava, family, per_channel, shift, batch, time, seed
):
    case = FAMILY_CASES[f"{family} Recurrent"].but(delay_shift=shift)
    neuron = RANGES[family] if per_channel else {}
    case = Case(case.block, case.shape, case.options, neuron, family)
    x = case.input(seed, batch, time)
    block, mine = case.built_and_run(slayer, seed, x)

    def feedback(neuron, spike):
        synapse = loaded(lava, (4, 4), neuron, block.recurrent_synapse)
        return [part[..., 0] for part in synapse(spike[..., None])]

    reference = step_by_step(block, lava, case, feedback, x)
    reference = lava.axon.delay(reference, 1) if shift else reference
    assert torch.equal(mine, reference)


@of_resonators
@brief
@given(
    scale_and_threshold=scales_and_thresholds, winners=st.integers(1, 4),
    excitation=st.sampled_from([0, 0.5, 0.8]), batch=batches, time=times, seed=seeds,
)  # fmt: skip
def test_a_complex_kwta_block_feeds_its_spikes_back_into_the_real_part(
    lava, family, scale_and_threshold, winners, excitation, batch, time, seed
):
    case = kwta(family, scale_and_threshold, winners, excitation, shift=False)
    x = case.input(seed, batch, time)
    block, mine = case.built_and_run(slayer, seed, x)

    def feedback(neuron, spike):
        weight = neuron.quantize_8bit((1 + excitation) * torch.eye(4) - 1)
        bias = neuron.threshold * (4 - 2 * winners) / 4 / neuron.scale
        return F.linear(spike, weight) + neuron.quantize_8bit(torch.tensor([bias])), 0

    assert torch.equal(mine, step_by_step(block, lava, case, feedback, x))


@pytest.mark.parametrize("name", ["Recurrent", "Recurrent per channel", "KWTA"])
@pytest.mark.parametrize("family", ["rf", "rf_iz", "alif", "adrf", "adrf_iz"])
@brief
@given(parts=st.lists(st.integers(1, 5), min_size=2, max_size=4), batch=batches, seed=seeds)
def test_feedback_goes_on_over_a_split_sequence_as_in_one_long_run(
    family, name, parts, batch, seed
):
    case = FAMILY_CASES[f"{family} {name}"]
    x = case.input(seed, batch, sum(parts))
    _, whole = case.built_and_run(slayer, seed, x)
    torch.manual_seed(seed)
    block = case.build(slayer)
    split = torch.cat([block(part) for part in x.split(parts, dim=-1)], dim=-1)
    assert torch.equal(split, whole)
    # a batch of another size starts from rest
    other = case.input(seed + 1, batch + 1, 6)
    torch.manual_seed(seed)
    assert torch.equal(block(other), case.build(slayer)(other))


@pytest.mark.parametrize("name", ["Recurrent", "KWTA"])
@pytest.mark.parametrize("family", ["rf", "rf_iz", "alif", "adrf", "adrf_iz"])
def test_blocks_with_feedback_train(family, name):
    neuron = {"requires_grad": True, "tau_grad": 1 if family == "rf" else 0.01}
    case = FAMILY_CASES[f"{family} {name}"]
    case = Case(case.block, case.shape, case.options, neuron, family)
    torch.manual_seed(1)
    block = case.build(slayer)
    x_grad, named = gradients(block, case.input(1), 2)
    assert x_grad.abs().max() > 0
    learned = {n for n, p in block.named_parameters() if p.requires_grad}
    assert named.keys() == learned
    assert all(torch.isfinite(grad).all() for grad in named.values())
    for key, grad in named.items():
        # within one step the real part does not reach an imaginary part that fires, and as in
        # slayer no gradient goes from step to step through a state
        if "weight" in key and not (family.endswith("iz") and "real" in key):
            assert grad.abs().max() > 0, key


# --- Of all blocks


@every_family
def test_a_family_has_all_blocks_that_lavas_has(lava, family):
    def classes(module):
        found = {n: value for n, value in vars(module).items() if isinstance(value, type)}
        return {n for n, value in found.items() if issubclass(value, torch.nn.Module)} - {"Delay"}

    mine = classes(getattr(slayer.block, family))
    assert classes(getattr(lava.block, family)) <= mine
    covered = {case.block for case in FAMILY_CASES.values() if case.family == family}
    plain = {"Flatten", "Average", "TimeDecimation"}
    assert {name for name in mine if not name.startswith("Abstract")} == covered | plain


@pytest.mark.parametrize("name", FAMILY_CASES)
def test_infer_shape_and_shape_are_the_outputs(name):
    case = FAMILY_CASES[name]
    block, told = case.build(slayer), case.build(slayer)
    y = block(case.input(0))
    assert told.infer_shape(case.shape) == tuple(y.shape[1:-1])
    assert tuple(told.shape) == tuple(block.shape)
    assert told(case.input(0)).shape == y.shape


@pytest.mark.parametrize("name", FAMILY_CASES)
def test_count_log_gives_the_mean_rate_of_events_or_none_without_a_neuron(name):
    # lava raises
    case = FAMILY_CASES[name]
    _, plain = case.built_and_run(slayer, 1, case.input(1))
    _, (y, rate) = case.but(count_log=True).built_and_run(slayer, 1, case.input(1))
    assert torch.equal(y, plain)
    if case.block == "Affine":
        assert rate is None
        return
    assert rate.dtype == torch.float32
    assert rate.item() == pytest.approx((y != 0).sum().item() / y.numel())
    assert 0 < rate <= 1


@every_family
@brief
@given(inputs=st.integers(1, 4), outputs=st.integers(1, 4), seed=seeds, per_channel=st.booleans())
def test_dense_takes_a_row_as_single_pixels_too(family, inputs, outputs, seed, per_channel):
    options = {"in_neurons": inputs, "out_neurons": outputs, "weight_scale": 2}
    neuron = RANGES[family] if per_channel else {}
    case = Case("Dense", (inputs, 1, 1), options, neuron, family)
    x = case.input(seed)
    block, mine = case.built_and_run(slayer, seed, x)
    row, flat = case.built_and_run(slayer, seed, x[..., 0, 0, :])
    assert torch.equal(mine[..., 0, 0, :], flat)
    assert row.shape == (outputs,)
    assert block.shape == (outputs, 1, 1)
    torch.manual_seed(seed)
    told = case.build(slayer)
    told.infer_shape((inputs,))
    assert torch.equal(told(x)[..., 0, 0, :], flat)


@every_family
@brief
@given(seed=seeds)
def test_a_mask_acts_in_the_forward_and_never_changes_the_weights(lava, family, seed):
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(seed)) < 0.5
    case = FAMILY_CASES[f"{family} Dense"]
    x = spikes((2, 6, 8), seed)
    torch.manual_seed(seed)
    ours = case.but(mask=mask).build(slayer)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    y = ours(x)
    for key, value in ours.state_dict().items():
        assert torch.equal(value, before[key]), key
    torch.manual_seed(seed)
    theirs = case.build(lava)  # with weights that are masked already
    for parameter in theirs.synapse.parameters():
        parameter.data.mul_(mask.reshape(4, 6, 1, 1, 1))
    assert torch.equal(y, theirs(x))
    assert math.prod(y.shape) == 2 * 4 * 8
