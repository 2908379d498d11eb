"""The neurons of an integer run, as Lava's ``fixed_pt`` models have them.

Each is run over all time steps of ``[N, *, T]`` at once by an operator of
:mod:`lava_bridge.ops.loihi`; what goes on from one run to the next is its state, a tuple of tensors
``[N, *]``.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels import current_backend
from ..net_writer import NEVER_FIRES
from ..ops import loihi
from ..quantize import DECAY_SCALE
from .copies import Copies
from .synapse import wrapped

__all__ = [
    "ACTIVATION_BITS",
    "BIAS_BITS",
    "Delta",
    "Fired",
    "Lif",
    "Neuron",
    "Resonator",
    "Sigma",
    "SigmaDelta",
]

# Activations, thresholds and biases are aligned with the states by six bits.
ACTIVATION_BITS = 6
# What Lava holds of a bias mantissa. (The chip: 13 bits, which Lava does not enforce.)
BIAS_BITS = 16
# A state has 24 bits, one of them its sign.
STATE_BOUND = 1 << 23

State = tuple[Tensor, ...]


class Fired(NamedTuple):
    """What a run of a neuron gives.

    Attributes:
        spike: ``[N, *, T]``.
        state: What the next run goes on from.
        traces: The states after each step by name, ``[N, *, T]``; empty if not asked for.
    """

    spike: Tensor
    state: State
    traces: dict[str, Tensor]


class Neuron(ABC):
    """A layer's neurons.

    Attributes:
        message_bits: Bits of a spike; 0: spikes are 0 or 1.
        traces: The names of the states that a run can give.
        spike_scale: What a spike of 1 in the blocks is here.
        never_fires: Whether it was written as a neuron of which the voltage is the output.
    """

    message_bits = 0
    spike_scale = 1
    never_fires = False
    traces: tuple[str, ...]
    # How many states there are.
    states: int

    def __init__(self) -> None:
        self._copies = Copies()

    def _on(self, x: Tensor, *parameters: Tensor) -> list[Tensor]:
        """The parameters on the device of an activation."""
        return [self._copies.on(x.device, parameter) for parameter in parameters]

    def fresh(self, like: Tensor) -> State:
        """The state before the first step."""
        return (torch.zeros(1, dtype=like.dtype, device=like.device),) * self.states

    @abstractmethod
    def run(self, inputs: tuple[Tensor, ...], state: State, time: int, keep: bool) -> Fired:
        """Run over activations ``[N, *, T]`` (a pair for complex neurons), ``time`` steps in."""


def _like(state: State, dtype: torch.dtype) -> State:
    return tuple(part.to(dtype) for part in state)


class Lif(Neuron):
    """Loihi's leaky integrate-and-fire neuron.

    Args:
        current_decay, voltage_decay: 0 ... 4096, of all neurons or broadcasting with ``[*]``.
        threshold: The mantissa.
        bias: The mantissa, likewise.
        reset_interval, reset_offset: Current and voltage are set to 0 before every step, counted
            from 1, that is ``reset_offset`` modulo ``reset_interval``; 0: never.
    """

    traces = ("current", "voltage", "beyond")
    states = 2

    def __init__(
        self,
        current_decay: Tensor,
        voltage_decay: Tensor,
        threshold: Tensor,
        bias: Tensor,
        reset_interval: int = 0,
        reset_offset: int = 0,
    ) -> None:
        super().__init__()
        self.current_decay = current_decay
        self.voltage_decay = voltage_decay
        self.threshold = threshold
        self.never_fires = bool((threshold == NEVER_FIRES).all())
        self.bias = bias
        self.reset_interval = reset_interval
        self.reset_offset = reset_offset

    def run(self, inputs: tuple[Tensor, ...], state: State, time: int, keep: bool) -> Fired:
        return self._fire(inputs[0], None, state, time, keep)

    def drive(self, bias: Tensor, state: State, time: int, keep: bool) -> Fired:
        """Run without activations on a bias ``[N, *, T]`` that changes with time: a mantissa."""
        scaled = bias * (1 << ACTIVATION_BITS)
        return self._fire(torch.zeros_like(bias), scaled, state, time, keep)

    def _fire(
        self, activation: Tensor, drive: Tensor | None, state: State, time: int, keep: bool
    ) -> Fired:
        phase = 0
        if self.reset_interval:
            # The first step of this run is step `time + 1`.
            phase = (self.reset_offset - time - 1) % self.reset_interval
        current, voltage = _like(state, activation.dtype)
        parameters = self.current_decay, self.voltage_decay, self.bias, self.threshold
        current_decay, voltage_decay, bias, threshold = self._on(activation, *parameters)
        done = loihi.lif(
            activation,
            current_decay,
            voltage_decay,
            wrapped(bias, BIAS_BITS) * (1 << ACTIVATION_BITS),
            threshold * (1 << ACTIVATION_BITS),
            current,
            voltage,
            reset_interval=self.reset_interval,
            reset_phase=phase,
            drive=drive,
            keep=keep,
            backend=current_backend(),
        )
        traces = {}
        if keep:
            beyond = self._beyond(activation, current, done.current, done.voltage, phase)
            traces = {"current": done.current, "voltage": done.voltage, "beyond": beyond}
        return Fired(done.spike, (done.last_current, done.last_voltage), traces)

    def _beyond(
        self, activation: Tensor, first: Tensor, current: Tensor, voltage: Tensor, phase: int
    ) -> Tensor:
        """1 where a current did not fit into 24 bits or a voltage stands at an end of them."""
        before = current.roll(1, -1)
        before[..., 0] = first
        if self.reset_interval:
            before[..., phase :: self.reset_interval] = 0
        (current_decay,) = self._on(current, self.current_decay)
        kept = (DECAY_SCALE - current_decay).unsqueeze(-1)
        sums = torch.trunc(before.double() * kept / DECAY_SCALE)
        sums += activation.double() * (1 << ACTIVATION_BITS)
        outside = (sums > STATE_BOUND) | (sums <= -STATE_BOUND)
        return (outside | (voltage.abs() >= STATE_BOUND - 1)).to(current.dtype)


class Resonator(Neuron):
    """Loihi's resonate-and-fire neuron: fires at phase zero, or by its imaginary part.

    Args:
        sin_decay, cos_decay: The turn of a step, times 4096.
        threshold: The mantissa.
        izhikevich: Fires by the imaginary part, and is reset.
    """

    traces = ("real", "imag")
    states = 2

    def __init__(
        self, sin_decay: Tensor, cos_decay: Tensor, threshold: Tensor, izhikevich: bool
    ) -> None:
        super().__init__()
        self.sin_decay = sin_decay
        self.cos_decay = cos_decay
        self.threshold = threshold
        self.izhikevich = izhikevich

    def run(self, inputs: tuple[Tensor, ...], state: State, time: int, keep: bool) -> Fired:
        wide = torch.float64 if torch.float64 in [x.dtype for x in inputs] else torch.float32
        real, imag = (x.to(wide) for x in inputs)
        fire = loihi.rf_iz if self.izhikevich else loihi.rf
        real_state, imag_state = _like(state, wide)
        parameters = self.sin_decay, self.cos_decay, self.threshold
        sin_decay, cos_decay, threshold = self._on(real, *parameters)
        done = fire(
            real,
            imag,
            sin_decay,
            cos_decay,
            threshold * (1 << ACTIVATION_BITS),
            real_state,
            imag_state,
            keep=keep,
            backend=current_backend(),
        )
        traces = {"real": done.real, "imag": done.imag} if keep else {}
        return Fired(done.spike, (done.last_real, done.last_imag), traces)


class Sigma(Neuron):
    """The sum of all activations so far, which is its output.

    Args:
        spike_exp: The binary point of the spikes that it sums.
        message_bits: Bits of its output.
    """

    traces = ("sigma",)
    states = 1

    def __init__(self, spike_exp: int, message_bits: int) -> None:
        super().__init__()
        self.message_bits = message_bits
        self.spike_scale = 1 << (2 * ACTIVATION_BITS + spike_exp)

    def run(self, inputs: tuple[Tensor, ...], state: State, time: int, keep: bool) -> Fired:
        # A sum of many steps may need more than a float has.
        (before,) = _like(state, torch.float64)
        done = loihi.sigma(inputs[0].double(), before, backend=current_backend())
        traces = {"sigma": done.spike} if keep else {}
        return Fired(done.spike, (done.last,), traces)


class Delta(Neuron):
    """Sends the change of its input where it reaches the threshold.

    Args:
        threshold: The mantissa.
        spike_exp: The binary point of a spike.
        message_bits: Bits of a spike.
    """

    traces = ("act", "residue")
    states = 2

    def __init__(self, threshold: Tensor, spike_exp: int, message_bits: int) -> None:
        super().__init__()
        self.threshold = threshold
        self.spike_exp = spike_exp
        self.message_bits = message_bits
        self.spike_scale = 1 << (ACTIVATION_BITS + spike_exp)

    def run(self, inputs: tuple[Tensor, ...], state: State, time: int, keep: bool) -> Fired:
        act, residue = _like(state, torch.float64)
        (threshold,) = self._on(inputs[0], self.threshold)
        done = loihi.delta(
            inputs[0].double(),
            threshold * (1 << (self.spike_exp + ACTIVATION_BITS)),
            act,
            residue,
            spike_exp=self.spike_exp,
            state_exp=ACTIVATION_BITS,
            keep=keep,
            backend=current_backend(),
        )
        traces = {"act": done.act, "residue": done.residue} if keep else {}
        return Fired(done.spike, (done.last_act, done.last_residue), traces)


class SigmaDelta(Neuron):
    """Sums its activations, rectifies the sum with its bias, and sends the changes of that.

    Args:
        threshold: The mantissa.
        bias: Over a scale of ``2^(6 + spike_exp)``.
        spike_exp: The binary point of a spike.
        message_bits: Bits of a spike.
    """

    traces = ("sigma", "act", "residue")
    states = 3

    def __init__(self, threshold: Tensor, bias: Tensor, spike_exp: int, message_bits: int) -> None:
        super().__init__()
        self.threshold = threshold
        self.never_fires = bool((threshold == NEVER_FIRES).all())
        self.bias = bias
        self.spike_exp = spike_exp
        self.message_bits = message_bits
        self.spike_scale = 1 << (ACTIVATION_BITS + spike_exp)

    def run(self, inputs: tuple[Tensor, ...], state: State, time: int, keep: bool) -> Fired:
        bias, threshold = self._on(inputs[0], self.bias, self.threshold)
        sigma, act, residue = _like(state, torch.float64)
        done = loihi.sigma_delta(
            inputs[0].double(),
            bias,
            threshold * (1 << (self.spike_exp + ACTIVATION_BITS)),
            sigma,
            act,
            residue,
            state_exp=ACTIVATION_BITS,
            keep=keep,
            backend=current_backend(),
        )
        kept = done.sigma, done.act, done.residue
        traces = dict(zip(self.traces, kept, strict=True)) if keep else {}
        last = done.last_sigma, done.last_act, done.last_residue
        return Fired(done.spike, last, traces)
