"""The operators that have kernels, in the form that the GPU's tests run them: on any device.

For a further operator, add a function to :data:`OPERATORS`: all of the tests take it up.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from kernel_cases import same
from torch import Tensor

from lava_bridge import kernels
from lava_bridge.ops import (
    adaptive_phase_th,
    adaptive_resonator,
    adaptive_threshold,
    alif,
    cuba,
    cuba_reset,
    delta,
    leaky_integrator,
    loihi,
    resonate_and_fire,
    resonator,
    shift,
    shift_channels,
    sigma,
    sigma_delta,
    spike,
)
from lava_bridge.ops.surrogate import ATAN, PIECEWISE_QUADRATIC, SIGMOID, SOFT_SIGN, Smooth

# A power of two: the decays' gradients of slayer are exact for these only.
SCALE = 64
THRESHOLD = 1.5


class Parameters:
    """Numbers for each neuron of ``x`` ``[N, *, T]``, or one for all, the same on every device."""

    def __init__(self, x: Tensor, shared: bool, learned: bool) -> None:
        self.made: list[Tensor] = []
        self._x, self._shared, self._learned = x, shared, learned

    def between(self, low: float, high: float) -> Tensor:
        real = torch.float64 if self._x.dtype == torch.float64 else torch.float32
        shape = (1,) if self._shared else self._x.shape[:-1]
        drawn = torch.rand(shape, generator=torch.Generator().manual_seed(len(self.made)))
        number = (low + (high - low) * drawn).to(real).to(self._x.device)
        self.made.append(number.requires_grad_(self._learned))
        return number

    def whole(self, low: float, high: float) -> Tensor:
        number = self.between(low, high).detach().round()
        self.made[-1] = number.requires_grad_(self._learned)
        return number

    def decay(self) -> Tensor:
        return self.whole(100, 3000)

    def decays(self) -> tuple[Tensor, Tensor]:
        return self.decay(), self.decay()

    def states(self) -> tuple[Tensor, Tensor]:
        return self.between(-1, 1), self.between(-1, 1)

    def adaptation(self) -> resonate_and_fire.Adaptation:
        first, after = (self.between(0, 0.5), self.decay()), (self.between(1, 2), self.decay())
        return resonate_and_fire.Adaptation(*first, *after, 0.5, THRESHOLD)


Operator = Callable[[Tensor, Parameters], list[Tensor]]


def _dynamics(threshold: float | None) -> Operator:
    def run(x: Tensor, numbers: Parameters) -> list[Tensor]:
        decay, state = numbers.decay(), numbers.between(-1, 1)
        return [leaky_integrator.dynamics(x, decay, state, SCALE, threshold)]

    return run


def _leak(x: Tensor, numbers: Parameters) -> list[Tensor]:
    decay, state = numbers.decay(), numbers.between(-1, 1)
    return [leaky_integrator.leak(x, decay, state, 100, kernels.current_backend())]


def _fire(graded: bool, biased: bool = False, delay_shift: bool = False) -> Operator:
    def run(x: Tensor, numbers: Parameters) -> list[Tensor]:
        decays, states = numbers.decays(), numbers.states()
        bias = numbers.between(-1, 1) if biased else None
        firing = SCALE, THRESHOLD, (0.7, 1.3), graded, bias, delay_shift
        fired = cuba.fire(x, decays, states, *firing)
        return [fired.spike, fired.last_current, fired.last_held]

    return run


def _sigmoid(above: Tensor) -> Tensor:
    return torch.sigmoid(4 * above)


def _fire_and_reset(
    is_current: bool,
    detach_reset: bool,
    keep: bool,
    smooth: Callable[[Tensor], Tensor] | Smooth = _sigmoid,
    biased: bool = False,
) -> Operator:
    def run(x: Tensor, numbers: Parameters) -> list[Tensor]:
        decays, states = numbers.decays(), numbers.states()
        fired = cuba_reset.fire_and_reset(
            x,
            decays,
            states,
            SCALE,
            THRESHOLD,
            smooth,
            detach_reset,
            is_current,
            keep_current=keep,
            keep_held=keep,
            backend=kernels.current_backend(),
            bias=numbers.between(-1, 1) if biased else None,
        )
        kept = [fired.current, fired.held] if keep else []
        # Where x is the current itself there is no state of it.
        last = [] if is_current else [fired.last_current]
        return [fired.spike, *kept, *last, fired.last_held]

    return run


def _pair(x: Tensor) -> tuple[Tensor, Tensor]:
    """An input and another one, in another order of memory."""
    return x, -0.5 * x.flip(0).contiguous()


def _alif(delay_shift: bool) -> Operator:
    def run(x: Tensor, numbers: Parameters) -> list[Tensor]:
        decays, states = numbers.decays(), numbers.states()
        settings = numbers.adaptation(), SCALE, (0.7, 1.3, False), delay_shift
        fired = alif.fire(x, decays, states, *settings)
        return [fired.spike, *fired.last]

    return run


def _resonate_and_fire(phase: bool, adaptive: bool, delay_shift: bool) -> Operator:
    def run(x: Tensor, numbers: Parameters) -> list[Tensor]:
        decays, states = numbers.decays(), numbers.states()
        adaptation = numbers.adaptation() if adaptive else None
        settings = SCALE, THRESHOLD, (0.7, 1.3, not adaptive), phase, adaptation, delay_shift
        fired = resonate_and_fire.fire(_pair(x), decays, states, *settings)
        return [fired.spike, *fired.last]

    return run


def _resonator(x: Tensor, numbers: Parameters) -> list[Tensor]:
    decays, states = numbers.decays(), numbers.states()
    return list(resonator.dynamics(*_pair(x), *decays, *states, SCALE, THRESHOLD))


def _adaptive_threshold(x: Tensor, numbers: Parameters) -> list[Tensor]:
    return list(adaptive_threshold.dynamics(x.detach(), *numbers.adaptation(), SCALE))


def _adaptive_phase_threshold(x: Tensor, numbers: Parameters) -> list[Tensor]:
    of_phase = numbers.between(-1, 1), *numbers.adaptation()
    pair = (part.detach() for part in _pair(x))
    return list(adaptive_phase_th.dynamics(*pair, *of_phase, SCALE))


def _adaptive_resonator(x: Tensor, numbers: Parameters) -> list[Tensor]:
    decays, states, adaptation = numbers.decays(), numbers.states(), numbers.adaptation()
    of_threshold = adaptation.ref_decay, adaptation.th_decay
    first = *states, adaptation.ref_state, adaptation.th_state
    return list(
        adaptive_resonator.dynamics(*_pair(x), *decays, *of_threshold, *first, 0.5, 1.5, SCALE)
    )


def _delta(cumulated: bool, scale: float | None) -> Operator:
    def run(x: Tensor, numbers: Parameters) -> list[Tensor]:
        threshold, before = numbers.between(0.5, 1), numbers.between(-1, 1)
        states = threshold, before, *numbers.states()
        return list(delta.dynamics(x, *states, cumulated, 0.7, 1.3, scale))

    return run


def _sigma(x: Tensor, numbers: Parameters) -> list[Tensor]:
    return [sigma.dynamics(x, numbers.between(-1, 1))]


def _sigma_delta(rectifies: bool) -> Operator:
    def run(x: Tensor, numbers: Parameters) -> list[Tensor]:
        threshold, bias = numbers.between(0.5, 1), numbers.between(-1, 1)
        states = sigma_delta.States(*numbers.states(), *numbers.states())
        settings = rectifies, True, (0.7, 1.3), 64, True
        sent = sigma_delta.dynamics(x, threshold, bias, states, *settings)
        return [sent.message, *sent.states]

    return run


def _spike(graded: bool) -> Operator:
    def run(x: Tensor, numbers: Parameters) -> list[Tensor]:
        threshold = numbers.between(0.5, 1.5).detach().to(x.dtype).unsqueeze(-1)
        return [spike.spike(x, threshold, (0.7, 1.3, graded), SCALE)]

    return run


def _phase_spike(x: Tensor, numbers: Parameters) -> list[Tensor]:
    last = numbers.between(-1, 1).detach().to(x.dtype)
    threshold = x.detach().roll(1, 0) - 0.5
    return [spike.phase_spike(*_pair(x), threshold, last, (0.7, 1.3, True), SCALE)]


def _shift(x: Tensor, numbers: Parameters) -> list[Tensor]:
    return [shift(x, 3), shift(x, -1), shift(x, 10**6)]


def _shift_channels(x: Tensor, numbers: Parameters) -> list[Tensor]:
    return [
        shift_channels(x, numbers.whole(0, 9).detach()),
        shift_channels(x, numbers.between(0, 4)),
    ]


def _whole(x: Tensor) -> Tensor:
    """Activations of ``x``: whole numbers, some hundreds for a number of 1."""
    return (x.detach() * 300).round()


def _loihi_lif(driven: bool, keep: bool) -> Operator:
    def run(x: Tensor, numbers: Parameters) -> list[Tensor]:
        activation = _whole(x)
        decays, bias = numbers.decays(), numbers.whole(-500, 500)
        states = numbers.whole(-(10**6), 10**6), numbers.whole(-(10**6), 10**6)
        parameters = (*decays, bias, numbers.whole(10**4, 10**5), *states)
        more = {"drive": activation.flip(0)} if driven else {"reset_interval": 7, "reset_phase": 3}
        backend = kernels.current_backend()
        return _wanted(loihi.lif(activation, *parameters, keep=keep, backend=backend, **more))

    return run


def _loihi_rf(operator: Callable[..., loihi.RfRun]) -> Operator:
    def run(x: Tensor, numbers: Parameters) -> list[Tensor]:
        states = numbers.whole(-(10**6), 10**6), numbers.whole(-(10**6), 10**6)
        parameters = (*numbers.decays(), numbers.whole(10**4, 10**5), *states)
        pair = map(_whole, _pair(x))
        return _wanted(operator(*pair, *parameters, keep=True, backend=kernels.current_backend()))

    return run


def _loihi_sigma(x: Tensor, numbers: Parameters) -> list[Tensor]:
    state, backend = numbers.whole(-999, 999), kernels.current_backend()
    return list(loihi.sigma(_whole(x), state, backend=backend))


def _loihi_delta(x: Tensor, numbers: Parameters) -> list[Tensor]:
    parameters = numbers.whole(10**4, 10**5), numbers.whole(-999, 999), numbers.whole(-999, 999)
    backend, exponents = kernels.current_backend(), {"spike_exp": 1, "state_exp": 6}
    return _wanted(loihi.delta(_whole(x), *parameters, **exponents, keep=True, backend=backend))


def _loihi_sigma_delta(x: Tensor, numbers: Parameters) -> list[Tensor]:
    parameters = [numbers.whole(-999, 999), numbers.whole(10**3, 10**4)]
    parameters += [numbers.whole(-999, 999) for _ in range(3)]
    settings = {"state_exp": 6, "keep": True, "backend": kernels.current_backend()}
    return _wanted(loihi.sigma_delta(_whole(x), *parameters, **settings))


def _wanted(outputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [y for y in outputs if y.shape != (0,)]


OPERATORS: dict[str, Operator] = {
    "leaky integrator": _dynamics(None),
    "leaky integrator with reset": _dynamics(THRESHOLD),
    "leak": _leak,
    "fire": _fire(False),
    "delayed graded fire": _fire(True, delay_shift=True),
    "fire with a bias": _fire(False, True),
    "fire and reset": _fire_and_reset(False, False, True),
    "fire and detached reset": _fire_and_reset(False, True, False),
    "fire and reset of currents": _fire_and_reset(True, False, True),
    "fire and reset with a bias": _fire_and_reset(False, False, True, biased=True),
    **{
        f"fire and reset by surrogate {kind}": _fire_and_reset(
            False, False, True, Smooth(kind, 1.5)
        )
        for kind in (SIGMOID, ATAN, SOFT_SIGN, PIECEWISE_QUADRATIC)
    },
    "alif": _alif(False),
    "delayed alif": _alif(True),
    "rf": _resonate_and_fire(True, False, False),
    "delayed rf_iz": _resonate_and_fire(False, False, True),
    "delayed adrf": _resonate_and_fire(True, True, True),
    "adrf_iz": _resonate_and_fire(False, True, False),
    "resonator": _resonator,
    "adaptive threshold": _adaptive_threshold,
    "adaptive phase threshold": _adaptive_phase_threshold,
    "adaptive resonator": _adaptive_resonator,
    "delta": _delta(False, None),
    "delta of the cumulated error, rounded": _delta(True, 64),
    "sigma": _sigma,
    "sigma-delta": _sigma_delta(True),
    "sigma-delta of the identity": _sigma_delta(False),
    "spike": _spike(False),
    "graded spike": _spike(True),
    "phase spike": _phase_spike,
    "shift": _shift,
    "shift channels": _shift_channels,
    "loihi lif with resets": _loihi_lif(False, False),
    "driven loihi lif": _loihi_lif(True, True),
    "loihi rf": _loihi_rf(loihi.rf),
    "loihi rf_iz": _loihi_rf(loihi.rf_iz),
    "loihi sigma": _loihi_sigma,
    "loihi delta": _loihi_delta,
    "loihi sigma delta": _loihi_sigma_delta,
}


class Outcome(NamedTuple):
    """What an operator on a dtype gives, and the gradients of input and parameters; on the CPU."""

    dtype: torch.dtype
    outputs: list[Tensor]
    gradients: list[Tensor]


def outcome(
    name: str,
    backend: str,
    x: Tensor,
    shared: bool = False,
    learned: bool = True,
    device: str = "cpu",
    learns_parameters: bool = True,
) -> Outcome:
    """Run an operator and its gradients on a backend and a device."""
    x = x.to(device).detach().requires_grad_(learned)
    numbers = Parameters(x, shared, learned and learns_parameters)
    with kernels.use_backend(backend):
        outputs = OPERATORS[name](x, numbers)
        sources = [x, *(number for number in numbers.made if number.requires_grad)]
        found: tuple[Tensor | None, ...] = ()
        grown = [y for y in outputs if y.requires_grad]
        if grown:
            weights = [
                torch.randn(y.shape, generator=torch.Generator().manual_seed(y.dim())).to(y)
                for y in grown
            ]
            found = torch.autograd.grad(grown, sources, weights, allow_unused=True)
    gradients = [g.cpu() for g in found if g is not None]
    return Outcome(x.dtype, [y.detach().cpu() for y in outputs], gradients)


# A reference that runs in half precision is no better than that, the kernels compute in float32.
_DIGITS = {torch.float64: 1e-10, torch.float32: 1e-6, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def assert_same(mine: Outcome, reference: Outcome, slack: float = 1) -> None:
    """Outputs to the bit; gradients to the digits of the input's dtype, beside the largest one.

    ``slack``: how much more they may differ, as where another machine computes exponentials.
    """
    assert len(mine.gradients) == len(reference.gradients)
    for found, expected in zip(mine.outputs, reference.outputs, strict=True):
        assert same(found, expected)
    for found, expected in zip(mine.gradients, reference.gradients, strict=True):
        assert found.dtype == expected.dtype
        # A parameter for all sums over the neurons, in no fixed order: much may cancel.
        digits = slack * _DIGITS[reference.dtype] * (100 if expected.numel() == 1 else 1)
        largest = float(expected.abs().nan_to_num(0, 0, 0).max()) if expected.numel() else 0
        torch.testing.assert_close(
            found, expected, rtol=digits, atol=digits * largest, equal_nan=True
        )
