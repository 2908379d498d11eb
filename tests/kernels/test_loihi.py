"""Neurons in Loihi's arithmetic: native kernels, the torch reference, and NumPy's 32 bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from compared import assert_same
from hypothesis import given, strategies as st
from kernel_cases import ALL_ORDERS, INSTRUCTION_SETS, in_order_of, spread
from loihi_cases import CASES, SIZES, inputs_of, literally, parameters_of, runs, settings_of, whole

from lava_bridge.errors import BridgeError
from lava_bridge.kernels import native
from lava_bridge.ops import loihi

needs_native = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)
names = pytest.mark.parametrize("name", CASES)


def outputs(name, run, backend, keep=True):
    more = {} if name == "sigma" else {"keep": keep}
    sequences, parameters = inputs_of(name, run), parameters_of(name, run)
    settings = settings_of(name, run)
    return CASES[name].operator(*sequences, *parameters, **settings, **more, backend=backend)


def one_run(layout, size="chip", dtype=torch.float32, seed=0, kind="neuron"):
    settings = {"reset": (4, 2), "exponents": (6, 1)}
    return {
        "layout": layout,
        "seed": seed,
        "size": size,
        "kind": kind,
        "dtype": dtype,
        **settings,
    }


# Against Lava -------------------------------------------------------------------------------------

# What tests/reference/loihi_neurons.py saw, and what it told the models.
RECORDED = Path(__file__).parents[1] / "data" / "loihi_neurons.npz"
TOLD = {
    "lif_reset": {"reset_interval": 5, "reset_phase": 3 - 1},  # Lava counts steps from 1
    "delta": {"spike_exp": 1, "state_exp": 6},
    "sigma_delta": {"state_exp": 6},
}


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("neuron", [*CASES, "lif_reset"])
def test_lavas_own_models_give_these_integers(neuron, backend):
    with np.load(RECORDED) as file:
        found = {key: torch.from_numpy(file[key]) for key in file if key.startswith(f"{neuron}/")}

    def numbers(kind):
        keys = sorted(key for key in found if key.startswith(f"{neuron}/{kind}"))
        return [found[key].double().unsqueeze(0) for key in keys]

    name = "lif" if neuron == "lif_reset" else neuron
    inputs = [*numbers("input"), None][: CASES[name].inputs]
    told = TOLD.get(neuron, {}) | ({} if name == "sigma" else {"keep": True})
    done = CASES[name].operator(*inputs, *numbers("parameter"), **told, backend=backend)
    expected = numbers("output")
    lasts = [sequence[..., -1] for sequence in expected[1:]]
    assert_same(done, [*(expected[:1] if name == "sigma" else expected), *lasts])


# Against NumPy ------------------------------------------------------------------------------------


@names
@given(run=runs)
def test_the_reference_is_the_equation_in_numpys_32_bits(name, run):
    if 0 in run["layout"][0]:
        return
    run = {**run, "dtype": torch.float64}
    assert_same(outputs(name, run, "torch"), literally(name, run))


@names
@given(run=runs)
def test_everyday_numbers_need_no_more_than_single_precision(name, run):
    if 0 in run["layout"][0]:
        return
    run = {**run, "dtype": torch.float32, "size": "everyday"}
    assert_same(outputs(name, run, "torch"), literally(name, run))


@given(run=runs)
def test_single_precision_holds_all_that_a_chip_does_with_activations_of_17_bits(run):
    if 0 in run["layout"][0]:
        return
    run = {**run, "dtype": torch.float32, "size": "chip"}
    for name in ("lif", "rf", "rf_iz"):
        assert_same(outputs(name, run, "torch"), literally(name, run))


# Against the reference ----------------------------------------------------------------------------


@needs_native
@names
@given(run=runs)
def test_the_kernels_give_the_references_integers(name, run):
    mine, reference = outputs(name, run, "native"), outputs(name, run, "torch")
    assert_same(mine, reference)
    for sequence, expected in zip(mine, reference, strict=True):
        assert sequence.shape == expected.shape
        if sequence.shape == run["layout"][0]:
            assert in_order_of(sequence, inputs_of(name, run)[0])


@needs_native
@names
@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_shape_order_and_instruction_set(name, instructions, dtype, monkeypatch):
    if instructions > len(native._native.instruction_sets()):
        pytest.skip("this CPU has not these instructions")
    monkeypatch.setattr(native, "instructions", instructions)
    for seed, layout in enumerate(ALL_ORDERS):
        for size in SIZES:
            run = one_run(layout, size, dtype, seed)
            assert_same(outputs(name, run, "native"), outputs(name, run, "torch"))


@needs_native
@names
def test_any_number_of_threads_gives_the_same(name):
    run = one_run(((4, 8, 14, 14, 33), (0, 1, 2, 3, 4)))
    expected, before = outputs(name, run, "torch"), torch.get_num_threads()
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            for order in ((0, 1, 2, 3, 4), (4, 0, 1, 2, 3)):
                run["layout"] = run["layout"][0], order
                assert_same(outputs(name, run, "native"), expected)
    finally:
        torch.set_num_threads(before)


# Runs in parts ------------------------------------------------------------------------------------


@names
@given(run=runs, cut=st.integers(0, 40), backend=st.sampled_from(["torch", "auto"]))
def test_a_run_in_two_parts_is_one_run(name, run, cut, backend):
    case, steps = CASES[name], run["layout"][0][-1]
    # Float32 holds the states between the parts only if they are within 2^24.
    run["dtype"] = torch.float64
    cut = min(cut, steps)
    whole_run = outputs(name, run, backend, keep=False)
    sequences, parameters = inputs_of(name, run), parameters_of(name, run)
    settings = settings_of(name, run)
    parts = []
    for begin, end in ((0, cut), (cut, steps)):
        piece = [sequence[..., begin:end] for sequence in sequences]
        if name == "lif":
            settings["reset_phase"] = run["reset"][1] - begin
        done = case.operator(*piece, *parameters, **settings, backend=backend)
        parts.append(done[0])
        parameters[-case.states :] = done[-case.states :]
    assert_same([torch.cat(parts, -1), *done[-case.states :]], _without_kept(whole_run, case))


def _without_kept(done, case):
    return [done[0], *done[-case.states :]]


@names
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_states_that_are_not_kept_are_empty_and_the_last_ones_are_the_same(name, backend):
    run, case = one_run(((2, 3, 9), (0, 1, 2))), CASES[name]
    kept, short = outputs(name, run, backend), outputs(name, run, backend, keep=False)
    assert_same(_without_kept(kept, case), _without_kept(short, case))
    if name != "sigma":
        for sequence, last in zip(kept[1 : 1 + case.states], kept[-case.states :], strict=True):
            assert torch.equal(sequence[..., -1], last)
        assert all(sequence.numel() == 0 for sequence in short[1 : 1 + case.states])


# Views, missing sequences, errors -----------------------------------------------------------------


@names
def test_views_empty_batches_and_no_steps(name):
    case, shape = CASES[name], (3, 4, 8)
    parameters = [whole((1,), k, 2**15, kind, torch.float32) for k, kind in enumerate(case.kinds)]
    x = whole(shape, 9, 3000, "input", torch.float32)
    for view in (spread(x), x[::2], x[:, 1:], x[..., 2:7], x[..., :1].expand(shape), x[:0]):
        mine = case.operator(*[view] * case.inputs, *parameters, backend="auto")
        dense = [view.clone()] * case.inputs
        assert_same(mine, case.operator(*dense, *parameters, backend="torch"))
    still = case.operator(*[x[..., :0]] * case.inputs, *parameters)
    assert still[0].shape == (3, 4, 0)
    for last, first in zip(still[-case.states :], parameters[-case.states :], strict=True):
        assert torch.equal(last, first.expand(3, 4))


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_a_sequence_that_is_missing_is_zeros(backend):
    x = whole((2, 5, 12), 0, 3000, "input", torch.float32)
    for name in ("lif", "rf", "rf_iz"):
        case = CASES[name]
        of_run = one_run(((2, 5, 12), (0, 1, 2)), "everyday")
        parameters = parameters_of(name, of_run)
        with_zeros = case.operator(x, torch.zeros_like(x), *parameters, backend=backend)
        assert_same(case.operator(x, None, *parameters, backend=backend), with_zeros)


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_a_reset_comes_at_its_phase_and_may_lie_beyond_the_run(backend):
    x, zero, one = torch.ones(1, 1, 10), torch.zeros(1), torch.full((1,), 1e6)

    def currents(**settings):
        run = loihi.lif(x, *[zero] * 3, one, zero, zero, keep=True, backend=backend, **settings)
        return (run.current[0, 0] / 64).int().tolist()

    assert currents() == list(range(1, 11))
    assert currents(reset_interval=4, reset_phase=-2) == [1, 2, 1, 2, 3, 4, 1, 2, 3, 4]
    assert currents(reset_interval=1, reset_phase=7) == [1] * 10
    for interval in (10, 2**40):
        assert currents(reset_interval=interval, reset_phase=3) == [1, 2, 3, *range(1, 8)]
        assert currents(reset_interval=interval + 1, reset_phase=10) == list(range(1, 11))


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_a_current_wraps_once_as_on_the_chip(backend):
    half, zero = 2**17, torch.zeros(1, dtype=torch.float64)
    x = torch.tensor([half, half + 1, -half, 1 - half, 2 * half, 2**25, 2**30]).double()
    forgets = torch.full((1,), 4096)
    run = loihi.lif(x.reshape(1, 1, -1), forgets, *[zero] * 5, keep=True, backend=backend)
    found = run.current.flatten().long().tolist()
    assert found == [2**23, 64 - 2**23, 2**23, 64 - 2**23, 0, 2**24 - 2**31, 0]
    # And without an activation, from states at the ends.
    states = torch.tensor([[2**23, 2**23 + 1, -(2**23), 1 - 2**23, 3 * 2**23]]).double()
    silent = torch.zeros(1, 5, 1).double()
    last = loihi.lif(silent, *[zero] * 4, states, zero, backend=backend).last_current
    assert last.flatten().long().tolist() == [2**23, 1 - 2**23, 2**23, 1 - 2**23, 2**23]


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_the_lowest_integer_has_no_magnitude_and_is_not_sent(backend):
    zero = torch.zeros(1, dtype=torch.float64)
    x = torch.tensor([-(2**31), -(2**31), 1 - 2**31]).double().reshape(1, 1, 3)
    run = loihi.delta(x, zero + 1, zero, zero, keep=True, backend=backend)
    assert run.spike.flatten().tolist() == [0, 0, 1 - 2**31]
    assert run.residue.flatten().tolist() == [-(2**31), -(2**31), 0]


def test_what_does_not_fit_is_said():
    x, zero = torch.zeros(2, 3, 4), torch.zeros(1)
    six, five = [zero] * 6, [zero] * 5
    with pytest.raises(BridgeError, match=r"^lif: expected a drive of shape \[2, 3, 4\], found"):
        loihi.lif(x, *six, drive=x[..., :2])
    with pytest.raises(
        BridgeError, match=r"^lif: expected a reset_interval of 0 or more, found -1"
    ):
        loihi.lif(x, *six, reset_interval=-1)
    for operator in (loihi.rf, loihi.rf_iz):
        with pytest.raises(BridgeError, match=r": expected an imaginary part of shape \[2, 3, 4\]"):
            operator(x, x[:1], *five)
    for exponents in ((-1, 0), (0, -1), (20, 12), (-1, 3)):
        with pytest.raises(
            BridgeError, match=r"^delta: expected exponents of 0 to 31 in all, found"
        ):
            loihi.delta(x, zero, zero, zero, spike_exp=exponents[0], state_exp=exponents[1])
    with pytest.raises(BridgeError, match=r"^sigma_delta: expected exponents of 0 to 31"):
        loihi.sigma_delta(x, *five, state_exp=32)


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_the_operators_are_registered_as_torch_wants(backend):
    x, ops = torch.ones(2, 3, 7), torch.ops.lava_bridge
    five = [torch.ones(3)] * 5
    for keep in (False, True):
        torch.library.opcheck(ops.loihi_lif.default, (x, x, *five, x[..., 0], 3, 1, keep, backend))
        torch.library.opcheck(ops.loihi_rf.default, (x, None, *five, keep, keep, backend))
        torch.library.opcheck(ops.loihi_delta.default, (x, *five[:3], 7, 6, keep, backend))
        torch.library.opcheck(ops.loihi_sigma_delta.default, (x, *five, 6, keep, backend))
    torch.library.opcheck(ops.loihi_sigma.default, (x, five[0], backend))
