"""What all parts with a state share: the layer's shape, and states that follow the batch."""

import math
from typing import Any

import torch
from torch import Tensor

from ..checks import described, kept_copy, made_in_inference_mode, require
from ..errors import BridgeError
from .lazy import LazyChannels

__all__ = ["Stateful"]


class Stateful(LazyChannels):
    """A module that carries states ``[N, *]`` over the time of an input ``[N, *, T]``.

    Attributes:
        shape: Shape ``[C, *]`` of the layer, without batch and time. Taken from the first input; it
            may be set before.
        num_neurons: Number of neurons in it, or None before.
        persistent_state: Go on from the state at the end of the last forward (of the same batch
            size).
    """

    def __init__(self, persistent_state: bool = False) -> None:
        super().__init__()
        self.persistent_state = persistent_state
        self._shape: torch.Size | None = None
        self.num_neurons: int | None = None
        self._starts: dict[str, float] = {}
        self._ran = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_starts" not in state:
            raise BridgeError(
                f"{type(self).__name__}: expected a pickle of our own, found one of lava-dl's; "
                "save the net's state_dict() there, and load it into one that is built here"
            )
        super().__setstate__(state)

    @property
    def shape(self) -> torch.Size | None:
        return self._shape

    @shape.setter
    def shape(self, shape: tuple[int, ...] | None) -> None:
        self._set_shape(shape)

    def _set_shape(self, shape: tuple[int, ...] | None) -> None:
        self._shape = None if shape is None else torch.Size(shape)
        self.num_neurons = None if shape is None else math.prod(shape)

    @property
    def device(self) -> torch.device | None:
        """Where the tensors are; None if there are none."""
        own = next(iter((self._parameters or self._buffers).values()), None)
        return None if own is None else own.device

    def add_state(self, name: str, start: float = 0) -> None:
        """Register a state ``[N, *]`` that begins at ``start``; it is not in the ``state_dict``."""
        self.register_buffer(name, torch.tensor([float(start)]), persistent=False)
        self._starts[name] = start

    def keep(self, **sequences: Tensor) -> None:
        """If the state is persistent, go on from the last step of the named ``[N, *, T]``."""
        if self.persistent_state:
            self.set_states(**{name: steps[..., -1] for name, steps in sequences.items()})

    def set_states(self, **states: Tensor) -> None:
        """Go on from copies of the named states ``[N, *]``."""
        for name, state in states.items():
            copied = kept_copy(state)
            if copied is not None:
                setattr(self, name, copied)

    def forget(self) -> None:
        """Start the next forward afresh, from what :meth:`add_state` was given; so do the parts."""
        for part in self.children():
            if isinstance(part, Stateful):
                part.forget()
        for name, start in self._starts.items():
            setattr(self, name, getattr(self, name).new_full((1,), start))

    def prepare(self, input: Tensor) -> None:
        """Check ``[N, C, *, T]`` against the layer's shape, and bring the states to that shape.

        A batch of another size starts anew.

        A BridgeError is raised if a dimension is missing, the shape is not that of the first
        forward, or the input is on another device.
        """
        require(self.place, input, "[N, C, *, T > 0]", device=self.device)
        found = input.shape[1:-1]
        if self._shape is None or self._is_same_row(found):
            self.shape = found
        elif found != self._shape:
            expected = f"neurons of shape {tuple(self._shape)} as at the first forward"
            given = f"{tuple(found)} in an input {tuple(input.shape)}"
            raise BridgeError(f"{self.place}: expected {expected}, found {given}; use one a layer")
        self.draw(found[0])
        self._ran = True
        for name, start in self._starts.items():
            before = state = getattr(self, name)
            if state.is_meta and not input.is_meta:  # made there, and given numbers since
                state = torch.full((1,), float(start), dtype=state.dtype, device=input.device)
            # Else one number for all will do: nothing of the batch's size is left in the module.
            if state.shape != (1,) or self.persistent_state:
                if state.shape[0] != input.shape[0]:
                    state = state.new_full(input.shape[:-1], start)
                elif state.shape[1:] != found:
                    state = state * state.new_ones(input.shape[:-1])
            if made_in_inference_mode(state) and not torch.is_inference_mode_enabled():
                state = state.clone()  # autograd takes none of these
            if state is not before:  # a module's attributes are slow to set
                setattr(self, name, state)

    @property
    def place(self) -> str:
        """How errors name the module: ``cuba.Neuron``."""
        return type(self).__module__.rpartition(".")[2] + "." + type(self).__name__

    def require_pair(self, input: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Require a pair (real, imaginary) of tensors of one shape, and give it."""
        if not isinstance(input, (tuple, list)) or len(input) != 2:
            expected = "a pair (real, imag) of tensors, as synapse.complex gives"
            raise BridgeError(f"{self.place}: expected {expected}, found {described(input)}")
        real, imag = input
        for part in (real, imag):
            require(self.place, part, "[N, C, *, T]", device=self.device)
        if real.shape != imag.shape:
            shapes = f"{tuple(real.shape)} and {tuple(imag.shape)}"
            raise BridgeError(f"{self.place}: expected a pair of one shape, found {shapes}")
        return real, imag

    def _is_same_row(self, found: torch.Size) -> bool:
        """Whether a layer that has not run was given as [C] and gets [C, 1, 1], or the reverse."""
        assert self._shape is not None
        return not self._ran and found[0] == self._shape[0] == found.numel() == self._shape.numel()
