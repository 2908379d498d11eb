"""Blocks of sigma-delta neurons, quantised to 8 bits.

Source: ``lava.lib.dl.slayer.block.sigma_delta``.
"""

import inspect
from typing import Any

from torch import Tensor

from ..neuron import sigma_delta
from ..synapse import layer
from . import base
from .common import step_delay
from .plain import Average as Average, Flatten as Flatten, TimeDecimation as TimeDecimation


class AbstractSDRelu(base.NeuronFamily):
    """Makes a block one of sigma-delta neurons with real synapses; ``delay_shift`` is off."""

    neuron_class = sigma_delta.Neuron
    synapse_types = layer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if len(args) <= list(inspect.signature(self.abstract).parameters).index("delay_shift"):
            kwargs.setdefault("delay_shift", False)
        super().__init__(*args, **kwargs)


class Input(AbstractSDRelu, base.AbstractInput):
    """Encodes an input as changes: ``s = neuron.delta(weight * x + bias)``.

    Parameters as in :class:`lava_bridge.slayer.block.base.AbstractInput`.
    """

    def _encode(self, x: Tensor) -> Tensor:
        x = self.neuron.delta(x)
        self.neuron.shape = self.neuron.delta.shape
        return step_delay(self, x) if self.delay_shift else x


# fmt: off
class Dense(AbstractSDRelu, base.AbstractDense): ...
class Conv(AbstractSDRelu, base.AbstractConv): ...
class ConvT(AbstractSDRelu, base.AbstractConvT): ...
class Pool(AbstractSDRelu, base.AbstractPool): ...
class Unpool(AbstractSDRelu, base.AbstractUnpool): ...
# fmt: on


class Output(AbstractSDRelu, base.DenseFields):
    """All-to-all layer that gives the sum of its messages: ``y = neuron.sigma(synapse(x))``.

    Args:
        neuron_params: The neuron's constructor arguments; a ``norm`` is held, and not applied.
        in_neurons, out_neurons, weight_scale, weight_norm: The synapse's
            (:class:`lava_bridge.slayer.synapse.Dense`).
        count_log: Give the rate of values other than 0 too.
    """

    kind = "dense"
    applies_norm = False

    def __init__(
        self,
        neuron_params: dict[str, Any],
        in_neurons: Any,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        count_log: bool = False,
    ) -> None:
        synapse = "Dense", in_neurons, out_neurons, weight_scale, weight_norm
        super().__init__(neuron_params, synapse, count_log=count_log)
        self._know_shape(in_neurons)

    def forward(self, x: Tensor) -> Any:
        sums = self.neuron.sigma(self.synapse(x))
        self.neuron.shape = self.neuron.sigma.shape
        return self._counted(sums)

    def infer_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.neuron.shape = shape = self.synapse.output_shape(input_shape)
        return shape

    def export_hdf5(self, handle: Any) -> None:
        super().export_hdf5(handle)
        handle.create_dataset("neuron/sigma_output", data=True)
