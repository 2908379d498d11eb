"""Complex synapses: two real ones, for the real and the imaginary part of the dendritic input."""

import inspect
import math
from typing import Any

import torch
from torch import Tensor

from . import layer

__all__ = ["ComplexLayer", "Conv", "ConvTranspose", "Dense", "Pool", "Unpool"]

# What a complex synapse has from its parts, which agree on it.
_GEOMETRY = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
)


class ComplexLayer(torch.nn.Module):
    """What the complex synapses share: :math:`z = W_{re}\\,x + i\\,W_{im}\\,x`.

    A subclass is made of two of the real synapse ``part``, and has its constructor's arguments.

    Attributes:
        real, imag: The two synapses.
        complex: True: the dendritic input is a pair (real, imaginary).

    Source: ``lava.lib.dl.slayer.synapse.complex``.
    """

    part_class: type[Any]
    complex = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.real = self.part_class(*args, **kwargs)
        self.imag = self.part_class(*args, **kwargs)
        for name in _GEOMETRY:
            setattr(self, name, getattr(self.real, name))

    def __init_subclass__(cls, part: Any, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.part_class = part
        cls.__doc__ = f"Complex. {part.__doc__}"
        cls.__signature__ = inspect.signature(part)  # type: ignore[attr-defined] # for help()

    def forward(self, input: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        """Real and imaginary dendritic input from spikes; ``args`` as in the real synapse."""
        return self.real(input, *args), self.imag(input, *args)

    def parts(self, name: str) -> list[tuple[str, Any]]:
        """The real synapses that this one is made of, with their places under ``name``."""
        return [(f"{name}/real", self.real), (f"{name}/imag", self.imag)]

    def enable_weight_norm(self) -> None:
        """Hold both weights as magnitude and direction."""
        self.real.enable_weight_norm()
        self.imag.enable_weight_norm()

    def disable_weight_norm(self) -> None:
        """Hold each weight as one parameter again."""
        self.real.disable_weight_norm()
        self.imag.disable_weight_norm()

    @property
    def weight_norm_enabled(self) -> bool:
        """Whether the weights are held as magnitude and direction."""
        return self.real.weight_norm_enabled

    @property
    def grad_norm(self) -> float:
        """Norm of both weights' gradients over the number of elements of one."""
        return math.hypot(self.real.grad_norm, self.imag.grad_norm)

    @property
    def pre_hook_fx(self) -> Any:
        """The function applied to both weights before use; None: none."""
        return self.real.pre_hook_fx

    @pre_hook_fx.setter
    def pre_hook_fx(self, fx: Any) -> None:
        self.real.pre_hook_fx = self.imag.pre_hook_fx = fx

    @property
    def shape(self) -> torch.Size:
        """Shape of each weight, five dimensions."""
        return self.real.shape

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape ``[C, *]`` of each part of the dendritic input for spikes of shape ``[C, *]``."""
        return self.real.output_shape(input_shape)


# fmt: off
class Dense(ComplexLayer, part=layer.Dense): ...
class Conv(ComplexLayer, part=layer.Conv): ...
class ConvTranspose(ComplexLayer, part=layer.ConvTranspose): ...
class Pool(ComplexLayer, part=layer.Pool): ...
class Unpool(ComplexLayer, part=layer.Unpool): ...
# fmt: on
