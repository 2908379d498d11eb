"""The net under rewriting: finished layers so far, and the linear ones that wait for a neuron."""

import copy
import math
from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import layer

from ..errors import ConversionError
from ..exchange import CubaLIFNode
from ..exchange.pool import SumPool2d
from ..exchange.synapses import check_pool_scale
from ..quantize import held_by_8bit
from .layers import SCALE, ChannelAffine, FloatLayer
from .merge import MERGES, as_linear, into_linear, pad_before_conv, pool_as_conv
from .merge_late import LATE_MERGES
from .modules import (
    MOST_WEIGHTS,
    affine_alone,
    fit_pool,
    forgetful,
    is_global,
    kind_of,
    larger,
    plain_synapse,
    shape_after,
    with_one_bias,
)
from .waiting import SYNAPSES, Waiting, copies_first, merged

__all__ = ["ENCODINGS", "GRADED_LEVELS", "Chain"]

ENCODINGS = ("direct", "graded")
# A graded input has 8 bits: 0 ... 255 for 0 ... 1.
GRADED_LEVELS = 255


class Chain:
    """What the rules act on. A rule calls one of its methods and returns.

    Between two neurons all is linear: sums, whose factor (of an averaging pooling, of a leak that
    divides its input) goes into the threshold, so that weights keep their size.

    Attributes:
        layers: The layers so far.
        encoder: The layer in front of them that stays in floats, with ``encoding="direct"``.
        input_shape: Shape ``[C, *]`` of what the first of the layers takes; None if not known.
        shape: Shape ``[C, *]`` of the signal here, without batch and time; None if not known.
        place: The path in the net of the module whose rule is at work.
        flat: Whether signals have one dimension in space, held as a plane of height 1.
    """

    def __init__(
        self, input_shape: tuple[int, ...] | None = None, encoding: str | None = None
    ) -> None:
        self.layers: list[FloatLayer] = []
        self.encoder: FloatLayer | None = None
        # An encoder that the net itself begins with.
        self.front: nn.Module | None = None
        self.flat = input_shape is not None and len(input_shape) == 2
        if self.flat:
            assert input_shape is not None
            input_shape = (input_shape[0], 1, input_shape[1])
        self.shape = input_shape
        # Of what the first of the layers takes.
        self.input_shape = input_shape
        self.place = ""
        # What a weight of 1 is on the chip, in a last synapse without a neuron.
        self.sum_scale = SCALE
        self._take(encoding)
        self._waiting: list[Waiting] = []
        self._notes: list[str] = []
        self._ended = ""
        self._seen: list[nn.Module] = []

    def _take(self, encoding: str | None) -> None:
        """Begin with what an encoding gives; None: with spikes."""
        self._encoding = encoding
        # The sums are larger than the net's by this factor.
        self._factor = float(GRADED_LEVELS) if encoding == "graded" else 1.0
        # Whether what comes in are spikes, 0 or 1.
        self._spikes = encoding is None

    # What rules call ----------------------------------------------------------------------------

    def synapse(self, synapse: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
        """A linear layer or convolution, with or without bias; a neuron must follow, or the end."""
        self._require_spikes()
        plain = plain_synapse(synapse)
        self._require_input(plain)
        if plain.bias is not None:
            plain.bias = nn.Parameter(plain.bias.detach() * self._factor)
        self._wait(plain)

    def pool(self, pool: SumPool2d, divisor: float = 1) -> None:
        """A sum pooling whose output the net divides by ``divisor``.

        A neuron, a linear layer or a convolution must follow; the divisor goes into the threshold.
        """
        self._wait(pool)
        self.scale(divisor)

    def linear(self, module: nn.Module, alone: str = "") -> None:
        """Any module that is linear; ``alone``: why it can't be a layer without another one."""
        self._wait(module, alone)

    def affine(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        """``scale x + shift`` for each channel, numbers ``[C]``."""
        if self.shape is not None and len(scale) != self.shape[0]:
            raise ConversionError(
                f"has {len(scale)} features after a layer of {self.shape[0]} channels; give it as "
                "many"
            )
        self._wait(ChannelAffine(scale.double(), shift.double() * self._factor))

    def scale(self, divisor: float) -> None:
        """What the net divides by here: the threshold is that much larger instead."""
        self._factor *= divisor

    def flatten(self) -> None:
        """Channels, height and width become one dimension."""
        if not self._ended:  # means have one
            self._wait(nn.Flatten())

    def quantised(self, weight_factor: float, scale: int) -> None:
        """What came last is a BlockContainer's, of this factor and scale."""
        if self._waiting:
            last = self._waiting[-1]
            last.weight_factor, last.scale, last.factor = weight_factor, scale, self._factor
            last.eight_bits = isinstance(last.module, SYNAPSES)

    def encoded(self, encoder: Any) -> None:
        """What the net begins with: it makes spikes of analog input, and stays as it is."""
        if self.front is not None or self._waiting or self.layers:
            raise ConversionError("is an encoder, but not what the net begins with; put it first")
        if self._encoding not in (None, encoder.kind):
            raise ConversionError(
                f"encodes the net's input itself, by {encoder.kind!r}; found "
                f"encoding={self._encoding!r}, leave it out"
            )
        self._take(None)
        self.front = copy.deepcopy(encoder)
        if self.shape is not None:
            self.shape = encoder.infer_shape(self.shape)
        self.input_shape = self.shape

    def note(self, rewrite: str) -> None:
        """Say what was rewritten at this place, for tables and reports."""
        self._notes.append(f"{self.place}: {rewrite}")

    def neuron(self, node: nn.Module, source: nn.Module | None = None) -> None:
        """An IFNode or LIFNode that resets to 0 and does not decay its input, or a CubaLIFNode.

        ``source`` is the net's own neuron, where ``node`` was made of it.
        """
        source = node if source is None else source
        if any(source is seen for seen in self._seen):
            raise ConversionError(
                "is used a second time: two layers would share its state; give each layer a neuron "
                "of its own"
            )
        place, flattened = self.place, self._reduce()
        if not self._waiting:
            raise ConversionError(
                "has no synapse before it, but a slayer neuron is part of a layer; put a Linear, "
                "Conv2d or pooling in front"
            )
        self._seen.append(source)
        waiting = self._only_one()
        if isinstance(waiting.module, SumPool2d):
            check_pool_scale(getattr(node, "scale", getattr(node, "lava_s_cale", 1 << 6)))
        synapse = self._standing_alone(waiting)
        if isinstance(node, CubaLIFNode) and self._factor != 1:
            self.note(f"threshold times {self._factor:g}, states rounded as many times finer")
        synapse, node = with_one_bias(synapse, larger(node, self._factor))
        if self._encoding == "direct" and self.encoder is None:
            if isinstance(synapse, SumPool2d):
                synapse = pool_as_conv(synapse, waiting.shape)
            self.encoder = self._layer(synapse, waiting.place, node, place)
            self.input_shape = self.shape
        else:
            self._append(synapse, waiting.place, node, place)
            if self._encoding == "graded" and not self._spikes:
                self.layers[-1].largest_input = GRADED_LEVELS
            self.layers[-1].weight_factor = waiting.weight_factor
        self._begin(flattened)

    def max_pool(self, pool: SumPool2d) -> None:
        """The largest of each window of spikes, given as the pooling that sums it: their OR."""
        # What is copied, or has zeros around it, are spikes still.
        sums = [w for w in self._waiting if not isinstance(w.module, nn.Upsample | nn.ZeroPad2d)]
        if sums:
            raise ConversionError(
                f"takes the largest of sums (of {sums[-1].place}), which is not linear; put it "
                "after the neuron"
            )
        if not self._spikes:
            raise ConversionError(
                "takes the largest of analog values, but a layer of neurons has spikes only; put "
                "it after the first neuron"
            )
        self.note("largest of spikes as their OR: a sum, and a neuron that forgets at once")
        self._wait(pool)
        self.neuron(forgetful())

    def vote(self, voters: int) -> None:
        """The mean of each ``voters`` neighbouring neurons."""
        self._require_spikes()
        channels = self._channels()
        if channels is None or channels % voters:
            raise ConversionError(
                f"averages groups of {voters} of {channels or 'unknown'} neurons; pass "
                "input_shape, and let them divide"
            )
        if self._spikes and all(isinstance(w.module, nn.Flatten) for w in self._waiting):
            self._begin(flattened=bool(self._waiting))
            self._append_mean(voters, channels // voters)
            self._ended, self.shape = self.place, (channels // voters,)
            return
        mean = torch.eye(channels // voters).repeat_interleave(voters, dim=1) / voters
        linear = nn.Linear(channels, channels // voters, bias=False, device="meta")
        linear.weight = nn.Parameter(mean.double())
        self.note("mean of sums as a linear layer")
        self._wait(linear)

    def finish(self) -> list[FloatLayer]:
        """The layers of the whole net; what waits without a neuron is its output."""
        flattened = self._reduce()
        if not self._waiting:
            self._begin(flattened)
            return self.layers
        waiting = self._only_one()
        self.place = waiting.place
        module, shape = waiting.module, waiting.shape
        if self._encoding == "direct" and self.encoder is None:
            raise ConversionError("has no neuron after it, so nothing encodes the input; add one")
        if (
            isinstance(module, SumPool2d)
            and shape is not None
            and is_global(module, shape)
            and self._factor == math.prod(module.kernel_size)
        ):
            # A mean over the plane is a mean of neighbours once it is flat.
            self._append(nn.Flatten(), self.place, None)
            self._append_mean(math.prod(module.kernel_size), shape[0])
        elif isinstance(module, SYNAPSES):
            self._append_last(waiting)
            if self._factor == 1:
                self.layers[-1].weight_factor = waiting.weight_factor
        else:
            self._refuse_unfinished(module)
        return self.layers

    # The mechanism ------------------------------------------------------------------------------

    def _wait(self, module: nn.Module, alone: str = "") -> None:
        self._require_spikes()
        self._waiting.append(Waiting(module, self.place, self.shape, alone))
        if self.shape is not None:
            after = shape_after(module, self.shape)
            if after is None:
                raise ConversionError(
                    f"takes no input of shape {self.shape}; check it and the layer before it"
                )
            self.shape = after

    def _begin(self, flattened: bool) -> None:
        """Begin a new layer."""
        self._waiting, self._factor, self._spikes = [], 1.0, True
        if flattened:
            self._append(nn.Flatten(), self.place, None)

    def _layer(
        self, synapse: nn.Module, place: str, node: nn.Module | None, neuron_place: str = ""
    ) -> FloatLayer:
        notes: list[str] = []
        if not isinstance(synapse, nn.Flatten):
            notes, self._notes = self._notes, notes
        return FloatLayer(place, synapse, node, notes, neuron_place)

    def _append(
        self, synapse: nn.Module, place: str, node: nn.Module | None, neuron_place: str = ""
    ) -> None:
        if isinstance(synapse, nn.Flatten) and self._encoding == "direct" and not self.encoder:
            return  # the encoder flattens what it takes
        self.layers.append(self._layer(synapse, place, node, neuron_place))

    def _append_mean(self, voters: int, groups: int) -> None:
        self._append(layer.VotingLayer(voters, step_mode="m"), self.place, None)
        self.layers[-1].outputs = groups

    def _append_last(self, waiting: Waiting) -> None:
        """A synapse without a neuron, whose sums are the net's output: a linear layer."""
        module: Any = waiting.module
        shape = waiting.shape
        if not isinstance(module, nn.Linear):
            outputs = None if shape is None else shape_after(module, shape)
            if shape is None or outputs is None:
                self._refuse_unfinished(module)
                return
            if math.prod(shape) * math.prod(outputs) > MOST_WEIGHTS:
                self._refuse_unfinished(module)
            module = as_linear(module, shape)
            self.note("last convolution as a dense layer")
        if len(shape or ()) > 1:
            self._append(nn.Flatten(), self.place, None)
        if self._factor != 1:
            divided: Any = nn.Linear(module.in_features, module.out_features, device="meta")
            divided.weight = nn.Parameter(module.weight.detach() / self._factor)
            divided.bias = None
            if module.bias is not None:
                divided.bias = nn.Parameter(module.bias.detach() / self._factor)
            module = divided
            lost = waiting.eight_bits and not held_by_8bit(module.weight, waiting.scale)
            anew = ", its 8 bits rounded anew" if lost else ""
            self.note(f"sums divided by {self._factor:g}{anew}")
        self._append(module, self.place, None)
        self.layers[-1].scale = self.sum_scale

    def _reduce(self) -> bool:
        """Make what waits one layer, if it can be; whether a Flatten is left over at its end."""
        stack: list[Waiting] = []
        for waiting in copies_first(self._waiting):
            self.place, here = waiting.place, self.place
            stack.append(waiting)
            if isinstance(waiting.module, nn.Linear):
                stack = [self._into_linear(stack)]
            while len(stack) > 1:
                first, second = stack[-2:]
                merge = MERGES.get((type(first.module), type(second.module)))
                if merge is None:
                    break
                stack[-2:] = [self._merged(merge, first, second)]
            self.place = here
        flattened = False
        while stack and isinstance(stack[-1].module, nn.Flatten):
            stack.pop()
            flattened = True
        while len(stack) > 1 and isinstance(stack[0].module, nn.Upsample) and self._spikes:
            # Spikes that are copied are spikes: a layer of their own.
            first = stack.pop(0)
            self._append(first.module, first.place, forgetful(), first.place)
        if len(stack) > 1 and isinstance(stack[0].module, nn.Flatten):
            self._append(nn.Flatten(), stack.pop(0).place, None)
        while len(stack) > 1:
            first, second = stack[:2]
            pair = type(first.module), type(second.module)
            merge = MERGES.get(pair) or LATE_MERGES.get(pair)
            if merge is None:
                break
            self.place, here = second.place, self.place
            stack[:2] = [self._merged(merge, first, second)]
            self.place = here
        self._waiting = stack
        return flattened

    def _merged(self, merge: Any, first: Waiting, second: Waiting) -> Waiting:
        """Two layers as one, by a rule for their types."""
        made = merge(first.computed, second.computed, first.shape)
        place = second.place if isinstance(second.module, SYNAPSES) else first.place
        one = merged(made, place, first.shape, (first, second))
        self._note_merge(first, second, one)
        return one

    def _into_linear(self, stack: list[Waiting]) -> Waiting:
        """The last one, a linear layer, with all linear layers before it in it."""
        *before, last = stack
        flat = [item for item in before if not isinstance(item.module, nn.Flatten)]
        first_shape = before[0].shape if before else last.shape
        if not flat:
            if before:
                self._append(nn.Flatten(), before[0].place, None)
            return last
        shape = first_shape
        if shape is None and isinstance(flat[0].module, nn.Linear):
            shape = (flat[0].module.in_features,)
        if len(before) == len(flat) and shape is not None and len(shape) > 1:
            raise ConversionError(
                f"follows {flat[-1].place} without a Flatten between them; put nn.Flatten() before "
                "it"
            )
        if shape is None:
            raise ConversionError(
                f"follows {flat[-1].place} without a neuron between, so the shape of its input "
                "must be known; pass input_shape=(C, H, W) to to_slayer"
            )
        made = into_linear([item.computed for item in before], last.computed, shape)
        one = merged(made, last.place, (math.prod(shape),), (*flat, last))
        for item in flat:
            self._note_merge(item, last, one)
        if len(shape) > 1:
            self._append(nn.Flatten(), before[0].place, None)
        return one

    def _note_merge(self, first: Waiting, second: Waiting, one: Waiting) -> None:
        lost = (first.eight_bits or second.eight_bits) and not one.eight_bits
        anew = ", its 8 bits rounded anew" if lost else ""
        self._notes.append(f"{first.place} and {second.place} as one layer{anew}")

    def _only_one(self) -> Waiting:
        """The one layer that waits."""
        first, *others = self._waiting
        if others:
            self.place = others[0].place
            raise ConversionError(
                f"follows {first.place} without a neuron between them, and no one layer equals the "
                "two; put an IFNode or LIFNode between"
            )
        return first

    def _standing_alone(self, waiting: Waiting) -> nn.Module:
        """A layer as the synapse of a block."""
        module, here = waiting.module, self.place
        self.place = waiting.place
        if isinstance(module, nn.ZeroPad2d) and waiting.shape is not None:
            module = pad_before_conv(module, pool_as_conv(SumPool2d(1), waiting.shape), None)
        elif waiting.alone:
            raise ConversionError(waiting.alone)
        if isinstance(module, ChannelAffine):
            before = self.layers[-1] if self.layers else self.encoder
            dense = before is not None and isinstance(before.synapse, nn.Linear | nn.Flatten)
            flat = dense if waiting.shape is None else len(waiting.shape) == 1
            module = affine_alone(module, flat)
        elif isinstance(module, SumPool2d):
            module = fit_pool(module, waiting.shape)
        elif not isinstance(module, (*SYNAPSES, nn.Upsample)):
            raise ConversionError(
                f"is a {kind_of(module)} before a neuron without a synapse; put a Linear or Conv2d "
                "between them"
            )
        self.place = here
        return module

    def _refuse_unfinished(self, module: nn.Module) -> None:
        raise ConversionError(
            f"is a synapse ({kind_of(module)}) without a neuron of its own, but each slayer layer "
            "has one; put an IFNode or LIFNode after it (a last Linear may do without)"
        )

    def _require_spikes(self) -> None:
        if self._ended:
            raise ConversionError(
                f"comes after {self._ended}, which gives means, not spikes; end the net there"
            )

    def _require_input(self, synapse: Any) -> None:
        """Refuse a synapse that does not fit the shape of the signal."""
        shape = self.shape
        if shape is None:
            return
        if isinstance(synapse, nn.Linear):
            if tuple(shape) != (synapse.in_features,):
                raise ConversionError(
                    f"expected an input of {synapse.in_features} neurons, found shape {shape}; "
                    "check the layer before it (a Flatten may be missing)"
                )
        elif len(shape) != 3 or shape[0] != synapse.in_channels:
            raise ConversionError(
                f"expected an input of shape ({synapse.in_channels}, H, W), found {shape}; check "
                "the layer before it"
            )
        elif shape_after(synapse, shape) is None:
            raise ConversionError(
                f"a kernel of {tuple(synapse.kernel_size)} leaves nothing of an input of shape "
                f"{shape}; use a smaller kernel or more padding"
            )

    def _channels(self) -> int | None:
        """Channels of the signal here."""
        if self.shape is not None:
            return self.shape[0] if len(self.shape) == 1 else None
        if self._waiting:
            last = self._waiting[-1].module
        else:
            last = self.layers[-1].synapse if self.layers else nn.Identity()
        return last.out_features if isinstance(last, nn.Linear) else None
