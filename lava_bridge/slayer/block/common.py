"""What all blocks share: shape, export, the step between layers; and how a family plugs in."""

import inspect
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ... import net_writer
from ...checks import kept_copy, transformed
from ...errors import BridgeError
from ...ops import shift
from ..axon import Delay
from ..neuron import base as neuron_base

__all__ = ["Block", "NeuronFamily", "SynapticBlock", "step_delay"]

# Loihi's axons delay by 62 steps at most (lava-dl's blocks).
MAX_DELAY = 62


def step_delay(module: Any, x: Tensor) -> Tensor:
    """Delay ``[N, *, T]`` by the one step that spikes take from a layer to the next.

    Where the module's neuron (or the module, if it has none) has persistent state, the last step
    waits in ``module.delay_buffer`` for the next forward of the same batch size.
    """
    waiting = getattr(module, "delay_buffer", None)
    persistent = getattr(getattr(module, "neuron", None) or module, "persistent_state", False)
    shifted = shift(x, 1)
    if persistent and waiting is not None and waiting.shape == x.shape[:-1]:
        if transformed():
            shifted = torch.cat([waiting.unsqueeze(-1), shifted[..., 1:]], dim=-1)
        else:
            shifted[..., 0] = waiting
    if persistent:
        last = kept_copy(x[..., -1])
        module.delay_buffer = waiting if last is None else last
    elif waiting is not None:  # else nothing to say, and torch 2.4 compiles
        module.delay_buffer = None
    return shifted


def fired(module: Any, z: Any) -> Tensor:
    """Spikes ``[N, *, T]`` of the module's neuron for its input ``z`` (of a complex one, a pair).

    With ``delay_shift`` delayed as by :func:`step_delay`; where none waits, by the neuron itself.
    """
    neuron = module.neuron
    if not module.delay_shift:
        return neuron(z)
    if not isinstance(neuron, neuron_base.Neuron) or neuron.persistent_state:
        return step_delay(module, neuron(z))
    if getattr(module, "delay_buffer", None) is not None:
        module.delay_buffer = None
    return neuron.delayed(z)


class Block(torch.nn.Module):
    """What all blocks share: shape, event count and export."""

    # Whether the output is spikes, so that they can be counted.
    gives_spikes = True
    persistent_state = False  # of a block without a neuron that has one
    delay_buffer: Tensor | None = None
    # From the family that is mixed in.
    synapse_types: Any

    def __init__(self, count_log: bool = False) -> None:
        super().__init__()
        self.count_log = count_log

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if issubclass(cls, NeuronFamily):
            # help() of a family's block is that of the abstract block behind it.
            cls.abstract = next(c for c in cls.__mro__ if not issubclass(c, NeuronFamily))
            cls.__doc__ = cls.__doc__ or cls.abstract.__doc__
            if "__init__" not in vars(cls):
                cls.__signature__ = inspect.signature(cls.abstract)  # type: ignore[attr-defined] # for help()

    @property
    def shape(self) -> Any:
        """Shape ``[C, *]`` of the output, or None before it is known."""
        raise NotImplementedError

    def infer_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Tell the block the shape ``[C, *]`` of its input, and get that of its output.

        A BridgeError is raised if the block can't take an input of that shape.
        """
        raise NotImplementedError

    def export_hdf5(self, handle: Any) -> None:
        """Write the block into an open HDF5 group, as lava-dl does.

        A BridgeError is raised if the block's shape is not known, or its weights have no quantiser.
        """
        raise NotImplementedError

    @property
    def neuron_class(self) -> Any:
        """The neuron that the block is made of; a :class:`NeuronFamily` says which."""
        raise BridgeError(
            f"block.{type(self).__name__}: has no neuron_class; mix in block.base.NeuronFamily, "
            "with a neuron_class and synapse_types, as block.cuba does"
        )

    def forget(self) -> None:
        """Let go of what waits for the next forward; the neuron has a ``forget`` of its own."""
        self.delay_buffer = None

    def _counted(self, x: Tensor) -> Any:
        """``x``; with ``count_log`` the pair of ``x`` and the rate of its events."""
        if not self.count_log:
            return x
        return x, (x != 0).to(x.dtype).mean() if self.gives_spikes else None

    def extra_repr(self) -> str:
        shape = self.shape
        return f"shape={None if shape is None else tuple(shape)}"


class NeuronFamily(torch.nn.Module):
    """Mixed in before an abstract block: says which neuron and synapses it is made of.

    Weights are quantised to 8 bits by the neuron, unless ``pre_hook_fx`` is given by name.
    """

    neuron_class: Any
    synapse_types: ModuleType
    abstract: type
    neuron: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "pre_hook_fx" in kwargs or self.neuron is None:
            return
        for part in (self, *self.children()):
            if hasattr(part, "pre_hook_fx"):
                part.pre_hook_fx = self.neuron.quantize_8bit


class SynapticBlock(Block):
    """A synapse, a neuron and an axon: ``s = delay(neuron(synapse(x)))``."""

    # The type in a file, the names and values of its integers, and the dimensions of its weight.
    kind: str
    weight_dimensions: int
    # Whether the neuron takes part; an Affine block can do without. And whether its norm does.
    dynamics = applies_norm = True
    # By what the weights, bias and threshold of the net that it was converted from were multiplied.
    weight_factor = 1.0
    mask: Tensor | None
    neuron: Any
    synapse: Any

    def __init__(
        self,
        neuron_params: dict[str, Any],
        synapse: tuple[Any, ...],
        delay: bool = False,
        delay_shift: bool = True,
        mask: Tensor | None = None,
        count_log: bool = False,
    ) -> None:
        """``synapse``: the name of its class in ``synapse_types``, and its arguments."""
        super().__init__(count_log)
        self.register_buffer(
            "mask", None if mask is None else mask.reshape(*mask.shape[:2], 1, 1, 1)
        )
        self.neuron = self.neuron_class(**neuron_params)
        self.delay = Delay(max_delay=MAX_DELAY) if delay else None
        self.delay_shift = delay_shift
        if synapse:
            self.synapse = getattr(self.synapse_types, synapse[0])(*synapse[1:])

    def forward(self, x: Tensor) -> Any:
        z = self.synapse(x) if self.mask is None else self.synapse(x, self.mask)
        return self._counted(self._axon(fired(self, z)))

    def _axon(self, x: Tensor) -> Tensor:
        return x if self.delay is None else self.delay(x)

    @property
    def shape(self) -> torch.Size | None:
        return self.neuron.shape

    def infer_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = self.synapse.output_shape(input_shape)
        self.neuron.shape = shape
        self.neuron.draw(shape[0])
        if self.delay is not None:
            self.delay.draw(shape[0])
        return shape

    def _fields(self) -> dict[str, Any]:
        """The integers that describe the synapse in a file."""
        raise NotImplementedError

    def export_hdf5(self, handle: Any) -> None:
        net_writer.write_header(handle, self, self.kind)
        for name, value in self._fields().items():
            handle.create_dataset(name, data=value)
        net_writer.write_weight(handle, self.synapse, self.weight_dimensions, self.mask)
        net_writer.write_axon(handle, self)
        handle.attrs["scale"] = self.neuron.scale
        if self.weight_factor != 1:
            handle.attrs["weight_factor"] = float(self.weight_factor)
        if self.dynamics:
            if self.applies_norm:
                net_writer.write_norm(handle, self.neuron)
            net_writer.write_neuron(handle, self.neuron)
