"""The blocks without a synapse: input, flatten, average and time decimation.

The last three have no neuron either: they are the same in every family.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import net_writer
from ...errors import BridgeError
from ...quantize import unquantized
from .common import Block, fired, step_delay

__all__ = ["AbstractAverage", "AbstractFlatten", "AbstractInput", "AbstractTimeDecimation"]
__all__ += ["Average", "Flatten", "TimeDecimation"]


class AbstractInput(Block):
    """Encodes an input: ``s = neuron(weight * x + bias)``, or ``x`` itself without a neuron.

    For a complex neuron x is a pair (real, imaginary), or the real part alone.

    Args:
        neuron_params: The neuron's constructor arguments.
        weight, bias: Learnable factor and shift of the input. None: none.
        delay_shift: Delay the spikes by one step, as the chip does between layers.
        count_log: Give the event rate too.
    """

    def __init__(
        self,
        neuron_params: dict[str, Any] | None = None,
        weight: float | None = None,
        bias: float | None = None,
        delay_shift: bool = True,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        self.neuron: Any = None if neuron_params is None else self.neuron_class(**neuron_params)
        self.delay = None
        self.delay_shift = delay_shift
        self.weight = None if weight is None else torch.nn.Parameter(torch.tensor([float(weight)]))
        self.bias = None if bias is None else torch.nn.Parameter(torch.tensor([float(bias)]))
        self.pre_hook_fx: Any = unquantized
        self.input_shape: torch.Size | None = None

    def forward(self, x: Any) -> Any:
        if self.input_shape is None:
            self.input_shape = (x[0] if isinstance(x, (tuple, list)) else x).shape[1:-1]
        if self.neuron is not None:
            if isinstance(x, (tuple, list)):
                x = self._encode(tuple(self._weighted(part) for part in x))
            elif self.neuron.complex:
                x = self._encode((self._weighted(x), torch.zeros_like(x)))
            else:
                x = self._encode(self._weighted(x))
        elif self.delay_shift:
            x = step_delay(self, x)
        return self._counted(x)

    def _weighted(self, x: Tensor) -> Tensor:
        x = self.pre_hook_fx(x)
        if self.weight is not None:
            x = x * self.pre_hook_fx(self.weight)
        return x if self.bias is None else x + self.pre_hook_fx(self.bias)

    def _encode(self, x: Any) -> Tensor:
        return fired(self, x)

    @property
    def shape(self) -> torch.Size | None:
        return self.input_shape if self.neuron is None else self.neuron.shape

    def infer_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.input_shape = torch.Size(input_shape)
        if self.neuron is not None:
            self.neuron.shape = self.input_shape
            self.neuron.draw(self.input_shape[0])
        return tuple(input_shape)

    def export_hdf5(self, handle: Any) -> None:
        net_writer.write_header(handle, self, "input")
        if self.neuron is not None:
            if net_writer.norms_of(self.neuron):
                raise BridgeError("Input: a file has no place for its norm; use weight and bias")
            for name in ("weight", "bias"):
                value = getattr(self, name)
                if value is not None:
                    integers = self.pre_hook_fx(value.detach(), descale=True)
                    handle.create_dataset(name, data=integers.cpu().numpy())
            net_writer.write_neuron(handle, self.neuron)
        net_writer.write_axon(handle, self)


class _NoNeuron(Block):
    """What the blocks share that have neither a synapse nor a neuron."""

    gives_spikes = False
    kind: str

    def __init__(self, count_log: bool = False) -> None:
        super().__init__(count_log)
        self._shape: Any = None

    @property
    def shape(self) -> Any:
        return self._shape

    def forward(self, x: Tensor) -> Any:
        self.infer_shape(x.shape[1:-1])
        return self._counted(self._reduced(x))

    def _reduced(self, x: Tensor) -> Tensor:
        raise NotImplementedError  # each block has its own, of a sequence [N, *, T]

    def export_hdf5(self, handle: Any) -> None:
        net_writer.write_header(handle, self, self.kind)


class Flatten(_NoNeuron):
    """Flattens channels, height and width: ``[N, C, H, W, T]`` to ``[N, C H W, T]``."""

    kind = "flatten"

    def _reduced(self, x: Tensor) -> Tensor:
        return x.flatten(1, -2)

    def infer_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        neurons = math.prod(input_shape)
        self._shape = [neurons, 1, 1]
        return (neurons,)


class Average(_NoNeuron):
    """Averages neighbouring neurons: ``[N, num_outputs * k, T]`` to ``[N, num_outputs, T]``.

    ``num_outputs`` is the number of groups; the number of neurons must be a multiple of it.

    Attributes:
        in_neurons: The number of neurons, from the first input or ``infer_shape``; None before.
    """

    kind = "average"

    def __init__(self, num_outputs: int, count_log: bool = False) -> None:
        super().__init__(count_log)
        if not isinstance(num_outputs, int) or num_outputs < 1:
            found = f"found {num_outputs!r}"
            raise BridgeError(f"Average: expected num_outputs to be a positive int, {found}")
        self.num_outputs = num_outputs
        self.in_neurons: int | None = None
        self._shape = torch.Size([num_outputs, 1, 1])

    def _reduced(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], self.num_outputs, -1, x.shape[-1]).mean(dim=2)

    def infer_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(input_shape) % self.num_outputs:
            raise BridgeError(
                f"Average: can't form {self.num_outputs} groups of equal size from an input of "
                f"shape {tuple(input_shape)}; choose num_outputs to divide {math.prod(input_shape)}"
            )
        self.in_neurons = math.prod(input_shape)
        return (self.num_outputs,)


class TimeDecimation(_NoNeuron):
    """Averages ``factor`` steps, a power of 2, into one; the last bin is filled with zeros."""

    kind = "decimation"

    def __init__(self, factor: int, count_log: bool = False) -> None:
        super().__init__(count_log)
        if not isinstance(factor, int) or factor < 1 or factor & (factor - 1):
            found = f"found {factor!r}"
            raise BridgeError(
                f"TimeDecimation: expected factor to be a positive power of 2, {found}"
            )
        self.factor = factor

    def _reduced(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, -x.shape[-1] % self.factor))
        return x.unflatten(-1, (-1, self.factor)).mean(dim=-1)

    def infer_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._shape = torch.Size(input_shape)
        return tuple(input_shape)

    def export_hdf5(self, handle: Any) -> None:
        # lava-dl raises here; the type is this library's own, it fits the ten bytes of the field.
        super().export_hdf5(handle)
        handle.create_dataset("factor", data=self.factor)


# slayer's names; in its family modules they have no "Abstract".
AbstractFlatten, AbstractAverage, AbstractTimeDecimation = Flatten, Average, TimeDecimation
