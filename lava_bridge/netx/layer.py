"""A layer of an integer run: its synapses, its delays, its neurons; run over many steps at once."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BridgeError
from ..ops import shift_channels
from ..quantize import quantize_8bit
from .copies import Copies
from .neuron import BIAS_BITS, Fired, Lif, Neuron, State
from .synapse import Synapse, wrapped

__all__ = ["Average", "Delays", "InputLayer", "Layer", "LayerState", "Ran", "SynapticLayer"]
__all__ += ["UNIT"]

# What a weight of 1 is as the chip's integer.
UNIT = 64


class LayerState(NamedTuple):
    """What a layer goes on from.

    Attributes:
        neuron: The neurons' state.
        lines: For each delay line, what is still on its way, ``[P, N, *]``, the earliest first.
        spike: The spikes of the last step, ``[N, *]``, which a recurrent layer gets back.
    """

    neuron: State = ()
    lines: tuple[Tensor, ...] = ()
    spike: Tensor | None = None

    def to(self, device: torch.device) -> "LayerState":
        """The same on a device."""
        return LayerState(
            tuple(part.to(device) for part in self.neuron),
            tuple(line.to(device) for line in self.lines),
            None if self.spike is None else self.spike.to(device),
        )


class Ran(NamedTuple):
    """What a run of a layer gives: spikes, and traces by name, ``[T, N, *]``, and its state."""

    spike: Tensor
    traces: dict[str, Tensor]
    state: LayerState


class Delays:
    """A delay line: each neuron's values come later by its own number of steps.

    Args:
        steps: Whole steps ``[*]``, or one number for all neurons.
    """

    def __init__(self, steps: Tensor | int) -> None:
        steps = torch.as_tensor(steps)
        self.longest = int(steps.max())
        uniform = self.longest == int(steps.min())
        self._steps = None if uniform else steps.float()
        self._copies = Copies()

    def __call__(self, x: Tensor, waiting: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pass ``[T, N, *]`` through; gives what arrives in these steps, and what still waits."""
        if waiting is None:
            waiting = x.new_zeros(self.longest, *x.shape[1:])
        line = torch.cat([waiting, x])
        arrived = line[: len(x)]
        if self._steps is not None:
            steps = self._copies.on(x.device, self._steps).unsqueeze(0)
            arrived = shift_channels(line.movedim(0, -1), steps).movedim(-1, 0)[self.longest :]
        return arrived, line[len(x) :].clone()  # not a view of all of the line


class Layer(ABC):
    """What the layers share.

    Attributes:
        name: Its place in the file, ``layer/N``.
        kind: What it is called in the table.
        shape: Of its output, ``(C, H, W)`` or ``(C,)``.
        inputs: Shape of its input, where the layer itself says it.
        steps: Steps by which its output is later than its input, delays apart.
        neuron: Its neurons; None: it has none.
        table: Its cells after the shape in Lava's table: kernel, stride and so on.
        has_delays: Whether its file has delays.
        recurrent: The synapses of its own spikes; empty: they are not fed back.
        delay_shift: Whether the block that it was exported from delays its spikes by a step.
        begins: Its neurons rest, at zero and silent, for so many steps from the first.
    """

    kind: str
    inputs: tuple[int, ...] | None = None
    steps = 0
    neuron: Neuron | None = None
    table: tuple[str, ...] = ()
    has_delays = False
    recurrent: "tuple[Synapse, ...]" = ()
    delay_shift = False
    begins = 0

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name = name
        self.shape = shape

    @property
    def width(self) -> int:
        """How many values a step has at most, of a sample."""
        return math.prod(self.shape)

    @property
    def message_bits(self) -> int:
        """Bits of a spike that leaves; 0: spikes are 0 or 1."""
        return 0 if self.neuron is None else self.neuron.message_bits

    @abstractmethod
    def run(self, spikes: Tensor, state: LayerState, time: int, keep: bool) -> Ran:
        """Run over spikes ``[T, N, *]``, ``time`` steps in; ``keep``: give traces."""

    def __repr__(self) -> str:
        neuron = "" if self.neuron is None else f", {type(self.neuron).__name__}"
        return f"{self.kind}({self.name}, {'x'.join(map(str, self.shape))}{neuron})"


class InputLayer(Layer):
    """Neurons that the input drives.

    Loihi's neurons take it as a bias that changes with time, ``weight * x + bias``. Sigma-delta
    neurons take integers, which :meth:`encoded` makes of what the blocks take.

    Args:
        name, shape: As in :class:`Layer`.
        neuron: The neurons.
        weight, bias: The chip's integers.
        scale: What a 1 is in them, by which the block rounds its input to 8 bits.
    """

    kind = "Input"

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        neuron: Neuron,
        weight: int,
        bias: int,
        scale: int = UNIT,
    ) -> None:
        super().__init__(name, shape)
        self.neuron: Neuron = neuron
        self._weight = weight
        self._bias = bias
        self._scale = scale

    def encoded(self, x: Tensor) -> Tensor:
        """What the layer takes for an input ``x`` to the blocks, which round it to 8 bits."""
        x = quantize_8bit(x, self._scale)
        if isinstance(self.neuron, Lif):
            return x
        return torch.trunc(x.double() * self._weight + self._bias).to(x.dtype)

    def run(self, spikes: Tensor, state: LayerState, time: int, keep: bool) -> Ran:
        x = spikes.movedim(0, -1)
        before = state.neuron or self.neuron.fresh(x)
        if isinstance(self.neuron, Lif):
            mantissa = wrapped(torch.trunc(x.double() * self._weight + self._bias), BIAS_BITS)
            fired = self.neuron.drive(mantissa.to(x.dtype), before, time, keep)
        else:
            fired = self.neuron.run((x,), before, time, keep)
        return Ran(*_time_first(fired), LayerState(fired.state))


class Average(Layer):
    """Averages groups of neighbouring neurons; takes no time."""

    kind = "Average"

    def run(self, spikes: Tensor, state: LayerState, time: int, keep: bool) -> Ran:
        neurons = math.prod(spikes.shape[2:])
        if neurons % self.shape[0]:
            raise BridgeError(
                f"run: {self.name} averages groups for {self.shape[0]} outputs, which does not "
                f"divide {neurons} neurons"
            )
        size = neurons // self.shape[0]
        sums = spikes.reshape(*spikes.shape[:2], *self.shape, size).sum(dim=-1)
        # By a tensor: a GPU multiplies by the reciprocal of a number, which rounds twice.
        return Ran(sums / sums.new_full((), size), {}, state)


class SynapticLayer(Layer):
    """Synapses and neurons: what the spikes of a step add arrives in the next step.

    Args:
        name, kind, shape, table: As in :class:`Layer`.
        synapses: One, or a real and an imaginary one.
        neuron: The neurons.
        graded: Whether the spikes that come in have other values than 0 and 1.
        recurrent: As ``synapses``, from the layer's own spikes of the step before.
        arriving: Delays of the spikes that come in, ``[*]`` of them.
        synaptic: Delays of the activations of each neuron, beyond the one step; ``[K, O]`` where
            the synapses have K outputs for each of O neurons, which add up when they arrive.
        leaving: Delays of the spikes of each neuron.
    """

    steps = 1

    def __init__(
        self,
        name: str,
        kind: str,
        shape: tuple[int, ...],
        synapses: tuple[Synapse, ...],
        neuron: Neuron,
        graded: bool,
        recurrent: tuple[Synapse, ...] = (),
        arriving: Tensor | None = None,
        synaptic: Tensor | None = None,
        leaving: Tensor | None = None,
        table: tuple[str, ...] = (),
    ) -> None:
        super().__init__(name, shape)
        self.kind = kind
        self.table = table
        self.neuron: Neuron = neuron
        self.has_delays = not (arriving is synaptic is leaving is None)
        self._synapses = synapses
        self.graded = graded
        self.recurrent = recurrent
        self._arriving = None if arriving is None else Delays(arriving)
        self._outputs = tuple(shape)
        if synaptic is not None and synaptic.dim() > len(shape):
            self._outputs = tuple(synaptic.shape)
        self._synaptic = Delays(1 if synaptic is None else synaptic + 1)
        self._leaving = None if leaving is None else Delays(leaving)

    @property
    def width(self) -> int:
        return math.prod(self._outputs)

    def run(self, spikes: Tensor, state: LayerState, time: int, keep: bool) -> Ran:
        lines: list[Tensor] = []
        before = iter(state.lines)

        def delayed(delays: Delays | None, x: Tensor) -> Tensor:
            if delays is None:
                return x
            x, waiting = delays(x, next(before, None))
            lines.append(waiting)
            return x

        if self._arriving is not None:  # of a dense layer, whatever shape its inputs have
            spikes = delayed(self._arriving, spikes.flatten(2))
        inputs = []
        for synapse in self._synapses:
            activation = self._weighed(synapse, spikes.flatten(0, 1))
            activation = activation.reshape(*spikes.shape[:2], *self._outputs)
            activation = delayed(self._synaptic, activation)
            if self._outputs != self.shape:
                activation = activation.double().sum(dim=2)
            inputs.append(activation)
        rest = min(max(self.begins - time, 0), len(spikes))
        if rest == len(spikes):
            silence = inputs[0].new_zeros(inputs[0].shape)
            spike = delayed(self._leaving, silence)
            traces = dict.fromkeys(self.neuron.traces, silence) if keep else {}
            return Ran(spike, traces, LayerState((), tuple(lines)))
        awake = [x[rest:] for x in inputs]
        if self.recurrent:
            fired = self._recur(awake, state, time + rest, keep)
        else:
            sequences = tuple(x.movedim(0, -1) for x in awake)
            neuron = state.neuron or self.neuron.fresh(awake[0])
            fired = self.neuron.run(sequences, neuron, time + rest, keep)
        spike, traces = _time_first(fired)
        if rest:
            silence = spike.new_zeros(rest, *spike.shape[1:])
            spike = torch.cat([silence, spike])
            traces = {name: torch.cat([silence, trace]) for name, trace in traces.items()}
        last = spike[-1] if self.recurrent else None
        spike = delayed(self._leaving, spike)
        return Ran(spike, traces, LayerState(fired.state, tuple(lines), last))

    def _weighed(self, synapse: Synapse, spikes: Tensor) -> Tensor:
        if not self.graded:
            return synapse(spikes, 1)
        return synapse(spikes, int(spikes.abs().max()) if spikes.numel() else 0)

    def _recur(self, inputs: list[Tensor], state: LayerState, time: int, keep: bool) -> Fired:
        """Step by step: each step's spikes are needed for the next one's activations."""
        inputs = [x.double() for x in inputs]  # there two bounds add up
        spike = inputs[0].new_zeros(inputs[0].shape[1:]) if state.spike is None else state.spike
        neuron = state.neuron or self.neuron.fresh(inputs[0])
        steps: list[Fired] = []
        for t in range(len(inputs[0])):
            sums = (
                (x[t] + self._weighed(synapse, spike).reshape(x[t].shape)).unsqueeze(-1)
                for synapse, x in zip(self.recurrent, inputs, strict=True)
            )
            steps.append(self.neuron.run(tuple(sums), neuron, time + t, keep))
            neuron, spike = steps[-1].state, steps[-1].spike[..., 0]
        traces = {
            name: torch.cat([step.traces[name] for step in steps], dim=-1)
            for name in steps[0].traces
        }
        return Fired(torch.cat([step.spike for step in steps], dim=-1), neuron, traces)


def _time_first(fired: Fired) -> tuple[Tensor, dict[str, Tensor]]:
    traces = {name: trace.movedim(-1, 0) for name, trace in fired.traces.items()}
    return fired.spike.movedim(-1, 0), traces
