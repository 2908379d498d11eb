"""The net under conversion: slayer blocks so far, and the layer that still waits for its neuron."""

import warnings
from typing import Any

import torch
import torch.nn as nn

from .. import slayer as native_slayer
from ..errors import ConversionError
from ..exchange.pool import SumPool2d
from ..exchange.to_lava import block_of, check_pool_scale
from ..quantize import WEIGHT_MAX, WEIGHT_MIN
from .merge import pool_as_conv, pool_into_conv, pool_into_linear

__all__ = ["Chain"]


class Chain:
    """What the rules act on. A rule calls one of its methods and returns.

    Attributes:
        blocks: The slayer blocks so far.
        shape: Shape ``[C, *]`` of the signal here, without batch and time; None if not known.
        place: The path in the net of the module whose rule is at work.
    """

    def __init__(self, input_shape: tuple[int, ...] | None, slayer: Any, delay_shift: bool) -> None:
        self.blocks: list[nn.Module] = []
        self.shape = input_shape
        self.place = ""
        self._slayer = slayer
        self._delay_shift = delay_shift
        # A layer waits for its neuron; its output may be larger than the net's by a factor.
        self._waiting: nn.Module | None = None
        self._waiting_place = ""
        self._factor = 1.0
        self._flatten_waits = False
        # The neurons met so far.
        self._seen: set[int] = set()
        if input_shape is not None:
            self._append(slayer.block.cuba.Input(delay_shift=False))

    # What rules call ----------------------------------------------------------------------------

    def synapse(self, layer: nn.Linear | nn.Conv2d) -> None:
        """A linear layer or convolution without bias; a neuron must follow."""
        if isinstance(self._waiting, SumPool2d):
            layer = self._merge_pool(self._waiting, layer)
        elif self._waiting is not None:
            self._refuse_waiting()
        else:
            self._factor = 1.0
        self._wait(layer)

    def pool(self, pool: SumPool2d, divisor: float = 1) -> None:
        """A sum pooling whose output the net divides by ``divisor``.

        A neuron, a linear layer or a convolution must follow; the divisor goes into the threshold.
        """
        self._refuse_waiting()
        self._wait(pool)
        self._factor = divisor

    def flatten(self) -> None:
        """Channels, height and width become one dimension."""
        if self._waiting is None:
            self._append(self._slayer.block.cuba.Flatten())
        else:
            self._flatten_waits = True

    def neuron(self, node: nn.Module) -> None:
        """An IFNode, LIFNode or CubaLIFNode: with the layer that waits it makes a block."""
        layer = self._waiting
        if layer is None:
            raise ConversionError(
                "has no synapse before it, but a slayer neuron is part of a layer; put a Linear, "
                "Conv2d or pooling in front"
            )
        if id(node) in self._seen:
            raise ConversionError(
                "is used a second time: two layers would share its state; give each layer a neuron "
                "of its own"
            )
        self._seen.add(id(node))
        scale = getattr(node, "scale", getattr(node, "lava_s_cale", 1 << 6))
        if isinstance(layer, SumPool2d):
            check_pool_scale(scale)
            layer = self._fit_pool(layer)
        block = block_of(
            layer,
            node,
            delay_shift=self._delay_shift,
            threshold_factor=self._factor,
            slayer=self._slayer,
        )
        self._warn_of_clipping(layer, scale)
        self._waiting = None
        self.place = self._waiting_place  # a shape that does not fit is the layer's fault
        self._append(block, layer, node)
        if self._flatten_waits:
            self._flatten_waits = False
            self.flatten()

    def finish(self) -> list[nn.Module]:
        """The blocks of the whole net."""
        self._refuse_waiting()
        return self.blocks

    # The mechanism ------------------------------------------------------------------------------

    def _wait(self, layer: nn.Module) -> None:
        self._waiting, self._waiting_place = layer, self.place

    def _refuse_waiting(self) -> None:
        if self._waiting is None:
            return
        self.place = self._waiting_place
        raise ConversionError(
            f"is a synapse ({type(self._waiting).__name__}) without a neuron of its own, but each "
            "slayer layer has one; put an IFNode or LIFNode after it"
        )

    def _append(self, block: Any, layer: Any = None, node: Any = None) -> None:
        """Add a block and move on to the shape of its output."""
        if self.shape is not None:
            if hasattr(block, "infer_shape"):
                self.shape = block.infer_shape(self.shape)
            else:
                self._infer_original(block, layer, node)
        self.blocks.append(block)

    def _infer_original(self, block: Any, layer: Any, node: Any) -> None:
        """Tell a block of the original slayer its shape, by way of this library's."""
        assert self.shape is not None
        if node is not None:
            self.shape = block_of(layer, node).infer_shape(self.shape)
            block.neuron.shape = torch.Size(self.shape)
        elif hasattr(block, "input_shape"):
            block.input_shape = torch.Size(self.shape)
        else:
            flatten = native_slayer.block.cuba.Flatten()
            self.shape = flatten.infer_shape(self.shape)
            block.shape = flatten.shape

    def _merge_pool(self, pool: SumPool2d, layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
        """One layer for a pooling without a neuron and the layer after it."""
        if self._flatten_waits:
            if not isinstance(layer, nn.Linear):
                raise ConversionError("expected a Linear after a Flatten")
            merged = pool_into_linear(pool, layer, self.shape)
            self._waiting, self._flatten_waits = None, False
            self.flatten()
            return merged
        if not isinstance(layer, nn.Conv2d):
            raise ConversionError(
                "follows a pooling without a Flatten between them; put nn.Flatten() before it"
            )
        return pool_into_conv(pool, layer, self.shape)

    def _fit_pool(self, pool: SumPool2d) -> nn.Module:
        """The pooling itself where slayer's Pool is equal to it, else the same as a convolution."""
        if pool.tiles:
            cut_off = self.shape is not None and any(
                size % k for size, k in zip(self.shape[1:], pool.kernel_size, strict=False)
            )
            if pool.ceil_mode or not cut_off:
                return pool
        return pool_as_conv(pool, self.shape)

    def _warn_of_clipping(self, layer: nn.Module, scale: int) -> None:
        weight = getattr(layer, "weight", None)
        if weight is None:
            return
        low, high = WEIGHT_MIN / scale, WEIGHT_MAX / scale
        clipped = int(((weight < low) | (weight > high)).sum())
        if clipped:
            warnings.warn(
                f"{self._waiting_place}: {clipped} of {weight.numel()} weights lie outside the "
                f"8-bit range [{low}, {high}] and are clipped to it; scale weights and threshold "
                "down together",
                stacklevel=4,
            )
