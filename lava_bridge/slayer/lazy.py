"""Tensors whose number of channels is known only at the first forward."""

from typing import TYPE_CHECKING, Any

import torch

from ..checks import made_in_inference_mode

__all__ = ["LazyChannels"]


class LazyChannels(torch.nn.Module):
    """A module that has tensors of one element until it sees its number of channels.

    ``load_state_dict`` gives them the loaded shape, so that a checkpoint loads into a module that
    has not run yet.

    Attributes:
        lazy_channels: The names of those tensors.
        init: Whether they have their channels.
    """

    lazy_channels: tuple[str, ...] = ()

    if TYPE_CHECKING:  # parameters and states are registered by name

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self) -> None:
        super().__init__()
        self.init = False
        self._loaded = False

    def draw(self, channels: int) -> None:
        """Give the tensors ``channels`` channels, unless they have or were loaded with them."""
        names = self.lazy_channels
        if self.init or not names:
            return
        if not (self._loaded and getattr(self, names[0]).numel() == channels):
            # Also in a dry run they are for training, unless the module was made in one.
            with torch.inference_mode(made_in_inference_mode(getattr(self, names[0]))):
                self._draw(channels)
        self.init = True

    def _draw(self, channels: int) -> None:
        """Replace the data of the tensors that ``lazy_channels`` names."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._loaded = any(prefix + name in state_dict for name in self.lazy_channels)
        for name in self.lazy_channels:
            loaded, own = state_dict.get(prefix + name), getattr(self, name)
            if loaded is None:
                continue
            # lava-dl saves NaN before a run.
            self._loaded = self._loaded and bool(torch.isfinite(loaded).all())
            if own.numel() == 1 and loaded.shape != own.shape:
                own.data = own.data.new_zeros(loaded.shape)
                self.init = True
        super()._load_from_state_dict(state_dict, prefix, *args)
