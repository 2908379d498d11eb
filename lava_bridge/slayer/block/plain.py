"""The blocks without a synapse: input, flatten, average and time decimation.

The last three have no neuron either: they are the same in every family.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import BridgeError
from ...quantize import unquantized
from . import export
from .common import Block, step_delay

__all__ = [
    "AbstractAverage",
    "AbstractFlatten",
    "AbstractInput",
    "AbstractTimeDecimation",
    "Average",
    "Flatten",
    "TimeDecimation",
]


class AbstractInput(Block):
    """Encodes an input: ``s = neuron(weight * x + bias)``, or ``x`` itself without a neuron.

    For a complex neuron x is a pair (real, imaginary), or the real part alone.

    Parameters
    ----------
    neuron_params : dict, optional
        The neuron's constructor arguments.
    weight, bias : float, optional
        Learnable factor and shift of the input. None: none.
    delay_shift : bool
        Delay the spikes by one step, as the chip does between layers.
    count_log : bool
        Give the event rate too.
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
            self.input_shape = (x[0] if isinstance(x, tuple) else x).shape[1:-1]
        if self.neuron is not None:
            if self.neuron.complex:
                # A real input drives the real part alone.
                parts = x if isinstance(x, tuple) else (x, torch.zeros_like(x))
                x = self._encode((self._weighted(parts[0]), self._weighted(parts[1])))
            else:
                x = self._encode(self._weighted(x))
        if self.delay_shift:
            x = step_delay(self, x)
        return self._counted(x)

    def _weighted(self, x: Tensor) -> Tensor:
        x = self.pre_hook_fx(x)
        if self.weight is not None:
            x = x * self.pre_hook_fx(self.weight)
        return x if self.bias is None else x + self.pre_hook_fx(self.bias)

    def _encode(self, x: Any) -> Tensor:
        return self.neuron(x)

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
        export.write_header(handle, self, "input")
        if self.neuron is not None:
            if export.norms_of(self.neuron):
                raise BridgeError(
                    "Input: its neuron has a norm, for which a file has no place; use weight and "
                    "bias"
                )
            for name in ("weight", "bias"):
                value = getattr(self, name)
                if value is not None:
                    integers = self.pre_hook_fx(value.detach(), descale=True)
                    handle.create_dataset(name, data=integers.cpu().numpy())
            export.write_neuron(handle, self.neuron)
        export.write_axon(handle, self)


class AbstractFlatten(Block):
    """Flattens channels, height and width: ``[N, C, H, W, T]`` to ``[N, C H W, T]``."""

    gives_spikes = False

    def __init__(self, count_log: bool = False) -> None:
        super().__init__(count_log)
        self._neurons: int | None = None

    def forward(self, x: Tensor) -> Any:
        self.infer_shape(x.shape[1:-1])
        return self._counted(x.flatten(1, -2))

    @property
    def shape(self) -> list[int] | None:
        return None if self._neurons is None else [self._neurons, 1, 1]

    def infer_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._neurons = math.prod(input_shape)
        return (self._neurons,)

    def export_hdf5(self, handle: Any) -> None:
        export.write_header(handle, self, "flatten")


class AbstractAverage(Block):
    """Averages neighbouring neurons: ``[N, num_outputs * k, T]`` to ``[N, num_outputs, T]``.

    Parameters
    ----------
    num_outputs : int
        Number of groups; the number of neurons must be a multiple of it.
    """

    gives_spikes = False

    def __init__(self, num_outputs: int, count_log: bool = False) -> None:
        super().__init__(count_log)
        if not isinstance(num_outputs, int) or num_outputs < 1:
            raise BridgeError(
                f"Average: expected num_outputs to be a positive int, found {num_outputs!r}"
            )
        self.num_outputs = num_outputs

    def forward(self, x: Tensor) -> Any:
        self.infer_shape(x.shape[1:-1])
        groups = x.reshape(x.shape[0], self.num_outputs, -1, x.shape[-1])
        return self._counted(groups.mean(dim=2))

    @property
    def shape(self) -> torch.Size:
        return torch.Size([self.num_outputs, 1, 1])

    def infer_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(input_shape) % self.num_outputs:
            raise BridgeError(
                f"Average: can't form {self.num_outputs} groups of equal size from an input of "
                f"shape {tuple(input_shape)}; choose num_outputs to divide "
                f"{math.prod(input_shape)}"
            )
        return (self.num_outputs,)

    def export_hdf5(self, handle: Any) -> None:
        export.write_header(handle, self, "average")


class AbstractTimeDecimation(Block):
    """Averages ``factor`` steps into one, the last bin filled with zeros.

    Parameters
    ----------
    factor : int
        A power of 2.
    """

    gives_spikes = False

    def __init__(self, factor: int, count_log: bool = False) -> None:
        super().__init__(count_log)
        if not isinstance(factor, int) or factor < 1 or factor & (factor - 1):
            raise BridgeError(
                f"TimeDecimation: expected factor to be a positive power of 2, found {factor!r}"
            )
        self.factor = factor
        self._shape: torch.Size | None = None

    def forward(self, x: Tensor) -> Any:
        self._shape = x.shape[1:-1]
        x = F.pad(x, (0, -x.shape[-1] % self.factor))
        return self._counted(x.unflatten(-1, (-1, self.factor)).mean(dim=-1))

    @property
    def shape(self) -> torch.Size | None:
        return self._shape

    def infer_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self._shape = torch.Size(input_shape)
        return tuple(input_shape)

    def export_hdf5(self, handle: Any) -> None:
        # lava-dl raises here; the type is this library's own, it fits the ten bytes of the field.
        export.write_header(handle, self, "decimation")
        handle.create_dataset("factor", data=self.factor)


class Flatten(AbstractFlatten): ...


class Average(AbstractAverage): ...


class TimeDecimation(AbstractTimeDecimation): ...
