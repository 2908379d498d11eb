"""Usual calls, which the CPU's kernels run by programs of their own, in whole numbers as floats.

What makes a call usual is in ``cuda/``: ``is_usual`` and ``usual`` of a program.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from compared import EXTREMES, both
from gpu_cases import OPERATORS, outcome
from hypothesis import given, strategies as st
from kernel_cases import ALL_ORDERS, INSTRUCTION_SETS, laid_out, numbers, shapes_and_orders
from torch import Tensor

from lava_bridge import kernels
from lava_bridge.exchange import CubaLIFNode
from lava_bridge.kernels import native
from lava_bridge.kernels.call import Call
from lava_bridge.ops import cuba, cuba_reset, leaky_integrator, resonate_and_fire
from lava_bridge.ops.surrogate import SIGMOID, Smooth
from lava_bridge.slayer import neuron

pytestmark = pytest.mark.skipif(
    native.missing() is not None, reason=f"no native kernels: {native.missing()}"
)

SCALE = 64
SURROGATE = 0.7, 1.3
# Whole numbers in floats are taken below 2^22, integers of 32 bits below 2^24.
LIMITS = 2**22, 2**24
FRACTIONS = 0, 1, 410, 2048, 4095, 4096

Run = Callable[[Tensor, tuple[Tensor, Tensor], int], list[Tensor]]


def _states() -> tuple[Tensor, Tensor]:
    return torch.tensor(-0.3), torch.tensor(0.7)


def _leaks(threshold: float | None) -> Run:
    def run(x: Tensor, decays: tuple[Tensor, Tensor], scale: int) -> list[Tensor]:
        return [leaky_integrator.dynamics(x, decays[0], torch.tensor(0.7), scale, threshold)]

    return run


# A bias of each neuron that is a whole number of 64ths, and one just below: its sum with a current
# is rounded to such a number, but not toward zero.
WHOLE, BETWEEN = 1 / 64, float(np.nextafter(np.float32(1 / 64), np.float32(0)))


def _bias(x: Tensor, step: float | None) -> Tensor | None:
    if step is None:
        return None
    drawn = torch.randint(-99, 99, x.shape[:-1], generator=torch.Generator().manual_seed(3))
    return drawn * step


def _slayers(step: float | None = None) -> Run:
    def run(x: Tensor, decays: tuple[Tensor, Tensor], scale: int) -> list[Tensor]:
        settings = scale, 1.5, SURROGATE, False, _bias(x, step)
        fired = cuba.fire(x, decays, _states(), *settings)
        return [fired.spike, fired.voltage, fired.last_current, fired.last_held]

    return run


def _resets(is_current: bool, step: float | None = None) -> Run:
    def run(x: Tensor, decays: tuple[Tensor, Tensor], scale: int) -> list[Tensor]:
        settings = scale, 1.5, Smooth(SIGMOID, 1.5), False, is_current, False, False
        more = kernels.current_backend(), _bias(x, step)
        fired = cuba_reset.fire_and_reset(x, decays, _states(), *settings, *more)
        return [fired.spike, fired.voltage, fired.last_held]

    return run


def _alif(x: Tensor, decays: tuple[Tensor, Tensor], scale: int) -> list[Tensor]:
    numbers = *decays, *_states(), *decays, *_states(), 0.5, 1.5, scale, *SURROGATE, False, False
    kept = x.requires_grad, False, kernels.current_backend()
    return torch.ops.lava_bridge.alif(x, *numbers, *kept)


def _resonates(phase: bool, adaptive: bool, threshold: float = 1.5) -> Run:
    def run(x: Tensor, decays: tuple[Tensor, Tensor], scale: int) -> list[Tensor]:
        pair = x, -0.5 * x.flip(0)
        of_threshold = (*decays, *_states()) if adaptive else (None,) * 4
        numbers = *decays, *_states(), *of_threshold, 0.5, 1.5, scale, threshold, *SURROGATE
        kept = resonate_and_fire._Kind(phase, adaptive).kept(x.requires_grad, False)
        settings = False, False, phase, *kept, kernels.current_backend()
        return torch.ops.lava_bridge.resonate_and_fire(*pair, *numbers, *settings)

    return run


RUNS: dict[str, Run] = {
    "leak": _leaks(None),
    "leak with reset": _leaks(1.5),
    "cuba": _slayers(),
    "cuba with a bias": _slayers(WHOLE),
    "cuba with a bias between two integers": _slayers(BETWEEN),
    "cuba with a gradient through the reset": _resets(False),
    "cuba of currents": _resets(True),
    "cuba of currents and a bias": _resets(True, WHOLE),
    "alif": _alif,
    "rf": _resonates(True, False),
    "rf_iz": _resonates(False, False),
    "rf with a threshold between two integers": _resonates(True, False, 1.51),
    "rf with a threshold out of reach": _resonates(True, False, 2.0**18 - 1 / 64),
    "adrf": _resonates(True, True),
    "adrf_iz": _resonates(False, True),
}


def assert_same_bits(mine: list[Tensor], reference: list[Tensor]) -> None:
    """Equal to the bit, zeros' signs included; NaN is any NaN."""
    for k, (one, other) in enumerate(zip(mine, reference, strict=True)):
        assert one.dtype == other.dtype, k
        assert torch.equal(one.isnan(), other.isnan()), k
        bits = (
            y.nan_to_num(5, float("inf"), -float("inf")).view(torch.int32) for y in (one, other)
        )
        assert torch.equal(*bits), k


def outputs(run: Run, x: Tensor, *settings: Any) -> list[list[Tensor]]:
    """Of the reference and the kernels, without a gradient and as for one."""
    found = []
    for learns in (False, True):
        leaf = x.detach().requires_grad_(learns)
        given = both(functools.partial(run, leaf, *settings))
        found += [[y.detach() for y in outputs] for outputs in given]
    return found


def check(run: Run, x: Tensor, decays: tuple[Tensor, Tensor], scale: int = SCALE) -> None:
    reference, mine, learning, mine_learning = outputs(run, x, decays, scale)
    assert_same_bits(mine, reference)
    assert_same_bits(mine_learning, learning)


@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
@pytest.mark.parametrize("name", RUNS)
def test_states_around_the_limits_are_the_references_to_the_bit(name, instructions, monkeypatch):
    if instructions > len(native._native.instruction_sets()):
        pytest.skip("this CPU has not these instructions")
    monkeypatch.setattr(native, "instructions", instructions)
    generator = torch.Generator().manual_seed(7)
    beside = torch.arange(-40, 40.0).reshape(1, -1, 1)
    for limit in LIMITS:
        # Each neuron goes to its own place near the limit, and from there to the other end.
        x = torch.randint(-90, 90, (2, 80, 20), generator=generator) / 7
        x[..., 3:4] += (limit + beside) / SCALE
        x[..., 9:10] -= (2 * limit + beside.flip(1)) / SCALE
        for fractions in ((1, 410), (4095, 4095)):
            decays = tuple(torch.tensor([float(k)]) for k in fractions)
            for order in ((0, 1, 2), (2, 0, 1)):
                check(RUNS[name], laid_out(x, order), decays)


def test_no_sum_on_the_way_to_a_state_is_too_large_to_be_whole():
    """A turn adds two states of one sign, which the input takes back: only the sum is too large."""

    def run(real: Tensor, imag: Tensor) -> list[Tensor]:
        turn = (torch.tensor([4095.0]),) * 2, (torch.tensor(0.0),) * 2
        fired = resonate_and_fire.fire((real, imag), *turn, SCALE, 1.5, (*SURROGATE, False), True)
        return list(fired.last)

    generator = torch.Generator().manual_seed(7)
    states = torch.randint(2**23, 2**24 - 2**13, (2, 40, 9), generator=generator) / SCALE
    for order in ((0, 1, 2, 3), (3, 0, 1, 2)):
        for real, imag in ((states[:1], -states[1:]), (states[:1], states[1:])):
            back = imag - real, -real - imag
            pair = (torch.stack(two, -1) for two in zip((real, imag), back, strict=True))
            reference, mine = both(functools.partial(run, *(laid_out(y, order) for y in pair)))
            assert_same_bits(mine, reference)


@pytest.mark.parametrize("name", RUNS)
@given(
    layout=shapes_and_orders,
    seed=st.integers(0, 1000),
    size=st.sampled_from([0.01, 1.0, 300.0, 2e4, 6e4, 3e5]),
    fractions=st.tuples(st.sampled_from(FRACTIONS), st.sampled_from(FRACTIONS)),
    scale=st.sampled_from([1, 64, 4096, 100, 6400]),
)
def test_any_states_are_the_references_to_the_bit(name, layout, seed, size, fractions, scale):
    shape, order = layout
    x = laid_out(numbers(shape, seed, size, torch.float32), order)
    check(RUNS[name], x, tuple(torch.tensor([float(k)]) for k in fractions), scale)


@pytest.mark.parametrize("name", RUNS)
def test_extreme_inputs_are_the_references_to_the_bit(name):
    values = torch.tensor(EXTREMES).reshape(1, -1, 1).repeat(1, 1, 8)
    values[..., 4:] = values[..., 4:].flip(1)
    x = torch.cat([values, torch.randn(1, 70, 8)], dim=1)
    decays = torch.tensor([410.0]), torch.tensor([2048.0])
    for order in ((0, 1, 2), (2, 0, 1)):
        check(RUNS[name], laid_out(x, order), decays)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e18, 2.0**25, -0.0, 1e-30, -1e-30])
def test_one_strange_number_among_ordinary_ones_is_noticed(name, value):
    """Of neurons that run together none else goes beyond, and a reset takes this one back."""
    x = torch.rand(1, 70, 9)
    x[0, 33, 4] = value
    decays = torch.tensor([410.0]), torch.tensor([2048.0])
    for order in ((0, 1, 2), (2, 0, 1)):
        check(RUNS[name], laid_out(x, order), decays)


@pytest.mark.parametrize(
    "name", [name for name in OPERATORS if "loihi" not in name and "shift" not in name]
)
def test_what_is_known_of_a_call_changes_no_bit(name):
    """Parameters that learn make a backward pass unusual."""
    for k, (shape, order) in enumerate(ALL_ORDERS):
        x = laid_out(numbers(shape, k, 3.0, torch.float32), order)
        learning = outcome(name, "native", x)
        usual = outcome(name, "native", x, learns_parameters=False)
        assert_same_bits(usual.outputs, learning.outputs)
        # The input's comes first; an operator without a gradient has none.
        assert_same_bits(usual.gradients[:1], learning.gradients[:1])


CUBA = {"threshold": 1.0, "current_decay": 0.1, "voltage_decay": 0.1}
ADAPTIVE = {"threshold_step": 0.5, "threshold_decay": 0.1, "refractory_decay": 0.1}
RF = {"threshold": 1.0, "period": 10.0, "decay": 0.1}

NEURONS: dict[str, Callable[[], torch.nn.Module]] = {
    "cuba": lambda: neuron.cuba.Neuron(**CUBA),
    "cuba with a norm": lambda: neuron.cuba.Neuron(**CUBA, norm=neuron.norm.MeanOnlyBatchNorm),
    "cuba with a bias": lambda: neuron.cuba.Neuron(**CUBA, norm=neuron.norm.ChannelBias),
    "CubaLIFNode": lambda: CubaLIFNode(0.1, 0.1, step_mode="m"),
    "alif": lambda: neuron.alif.Neuron(**CUBA, **ADAPTIVE),
    "rf": lambda: neuron.rf.Neuron(**RF),
    "rf_iz": lambda: neuron.rf_iz.Neuron(**RF),
    "adrf": lambda: neuron.adrf.Neuron(**RF, **ADAPTIVE),
    "adrf_iz": lambda: neuron.adrf_iz.Neuron(**RF, **ADAPTIVE),
    "sigma_delta": lambda: neuron.sigma_delta.Neuron(0.1, torch.nn.functional.relu),
}


@pytest.mark.parametrize("name", NEURONS)
def test_what_neurons_ask_for_is_usual(name, monkeypatch):
    """In a forward pass alone, and in training: else they run, slower, by the other programs."""
    usual: dict[str, bool] = {}
    launch = native.launch

    def watched(kernel: str, call: Call, device: torch.device, real: torch.dtype) -> None:
        launch(kernel, call, device, real)
        usual[kernel] = native._native.is_usual(kernel, ctypes.addressof(call))

    monkeypatch.setattr(native, "launch", watched)
    tested = NEURONS[name]()
    for learns in (False, True):
        x = torch.rand(2, 5, 16).requires_grad_(learns)
        with kernels.use_backend("native"):
            y = tested((x, x)) if "rf" in name else tested(x)
            if learns:
                y.sum().backward()
        assert usual
        assert all(usual.values()), usual


def test_rounding_is_as_before_after_a_call():
    """The CPU rounds toward zero while a kernel runs, in all threads that run it."""
    x = torch.rand(64, 512, 32)
    decays = torch.tensor([410.0]), torch.tensor([2048.0])
    before = torch.get_num_threads()
    one, three = np.float32(1), np.float32(3)
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            with kernels.use_backend("native"):
                _slayers()(x, decays, SCALE)
            assert (one / three).tobytes() == np.float32(1 / 3).tobytes()
            thirds = torch.ones(1 << 20) / 3
            assert torch.equal(thirds, torch.full_like(thirds, float(np.float32(1 / 3))))
            assert torch.equal(-thirds, torch.ones(1 << 20) / -3)
    finally:
        torch.set_num_threads(before)


def test_what_the_user_set_of_the_cpu_stays():
    small = torch.tensor([1e-40])
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU does not flush denormal numbers")
    try:
        with kernels.use_backend("native"):
            _slayers()(torch.rand(2, 3, 4), (torch.tensor([410.0]), torch.tensor([2048.0])), SCALE)
        assert (small * 1).view(torch.int32) == 0
    finally:
        torch.set_flush_denormal(False)
    assert (small * 1).view(torch.int32) != 0
