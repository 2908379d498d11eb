"""What all parts with a state share: the layer's shape, and states that follow the batch."""

import math

import torch
from torch import Tensor

from ..errors import BridgeError
from .lazy import LazyChannels

__all__ = ["Stateful"]


class Stateful(LazyChannels):
    """A module that carries states ``[N, *]`` over the time of an input ``[N, *, T]``.

    Attributes
    ----------
    shape : torch.Size or None
        Shape ``[C, *]`` of the layer, without batch and time. Taken from the first input; it may
        be set before.
    persistent_state : bool
        Go on from the state at the end of the last forward (of the same batch size).
    """

    def __init__(self, persistent_state: bool = False) -> None:
        super().__init__()
        self.persistent_state = persistent_state
        self._shape: torch.Size | None = None
        self._starts: dict[str, float] = {}

    @property
    def shape(self) -> torch.Size | None:
        return self._shape

    @shape.setter
    def shape(self, shape: tuple[int, ...] | None) -> None:
        self._shape = None if shape is None else torch.Size(shape)

    @property
    def num_neurons(self) -> int | None:
        """Number of neurons in the layer, or None before its shape is known."""
        return None if self._shape is None else math.prod(self._shape)

    @property
    def device(self) -> torch.device | None:
        """Where the tensors are; None if there are none."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return None

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
            setattr(self, name, state.detach().clone())

    def prepare(self, input: Tensor) -> None:
        """Check ``[N, C, *, T]`` against the layer's shape, and bring the states to that shape.

        A batch of another size starts anew.

        Raises
        ------
        BridgeError
            If a dimension is missing, or the shape is not that of the first forward.
        """
        self.require_tensor(input)
        found = input.shape[1:-1]
        if self._shape is None or self._is_same_row(found):
            self.shape = found
        elif found != self._shape:
            raise BridgeError(
                f"{self.place}: expected neurons of shape {tuple(self._shape)} as at the first "
                f"forward, found {tuple(found)} in an input {tuple(input.shape)}; use one neuron "
                "for each layer"
            )
        self.draw(found[0])
        for name, start in self._starts.items():
            state = getattr(self, name)
            if state.shape[0] != input.shape[0]:
                state = state.new_full(input.shape[:-1], start)
            elif state.shape[1:] != found:
                state = state * state.new_ones(input.shape[:-1])
            setattr(self, name, state)

    @property
    def place(self) -> str:
        """How errors name the module: ``cuba.Neuron``."""
        return type(self).__module__.rpartition(".")[2] + "." + type(self).__name__

    def require_tensor(self, input: Tensor) -> None:
        """Require one floating tensor of three dimensions or more."""
        if not isinstance(input, Tensor):
            raise BridgeError(
                f"{self.place}: expected one tensor [N, C, *, T], found {_described(input)}; a "
                "complex synapse needs a complex neuron (rf, rf_iz, adrf, adrf_iz)"
            )
        if input.dim() < 3:
            raise BridgeError(
                f"{self.place}: expected [N, C, *, T] of 3 or more dimensions, found shape "
                f"{tuple(input.shape)}; add the missing dimension with unsqueeze"
            )
        if not input.is_floating_point():
            raise BridgeError(
                f"{self.place}: expected a floating dtype, found {input.dtype}; pass input.float()"
            )

    def require_pair(self, input: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Require a pair (real, imaginary) of tensors of one shape, and give it."""
        if not isinstance(input, tuple | list) or len(input) != 2:
            raise BridgeError(
                f"{self.place}: expected a pair (real, imag) as synapse.complex gives, found "
                f"{_described(input)}; pass (input, torch.zeros_like(input)) for a real one"
            )
        real, imag = input
        for part in (real, imag):
            self.require_tensor(part)
        if real.shape != imag.shape:
            raise BridgeError(
                f"{self.place}: expected a real and an imaginary input of one shape, found "
                f"{tuple(real.shape)} and {tuple(imag.shape)}"
            )
        return real, imag

    def _is_same_row(self, found: torch.Size) -> bool:
        """Whether a layer that has not run was given as [C] and gets [C, 1, 1], or the reverse."""
        fresh = all(getattr(self, name).dim() == 1 for name in self._starts)
        assert self._shape is not None
        return fresh and found[0] == self._shape[0] == found.numel() == self._shape.numel()


def _described(input: object) -> str:
    if isinstance(input, Tensor):
        return f"one tensor of shape {tuple(input.shape)}"
    if isinstance(input, tuple | list):
        return f"a {type(input).__name__} of {len(input)}"
    return f"a {type(input).__name__}"
