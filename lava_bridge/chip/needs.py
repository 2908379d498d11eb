"""What the layers of a net need on a chip, counted from below.

Synapses are counted by what a kernel's rows and columns join, never one by one: a layer of many
millions takes no more than a few numbers for each neuron.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from ..encoder import GradedInput, is_block, split_encoder
from ..errors import BridgeError
from ..net_writer import integer_weight, norms_of
from ..slayer.block.plain import Flatten
from ..slayer.neuron.base import STATE_OVER_WEIGHT
from ..slayer.synapse.layer import Dense, Pool, Unpool

__all__ = ["LayerNeeds", "needs"]

Shape = tuple[int, int, int]

# The neuron whose bias is known to be a mantissa: lava-nc's LIF.
LIF = "CUBA"


@dataclass(frozen=True)
class LayerNeeds:
    """What a layer needs on a chip, at least.

    Attributes:
        name: Its number and type.
        neurons: Number of neurons; 0 for a layer without any, which is not on the chip.
        synapses: Number of connections of weights other than 0: those that padding or a border cuts
            off don't count; those of complex weights count twice.
        weights: How many weights are stored, each kernel once.
        memory: Bits of these weights.
        unshared: Bits of the weights if each connection has its own.
        neuron_memory: Most bits of weights that one neuron needs in its core.
        fan_in: Most synapses onto one neuron.
        fan_out: Most synapses of this layer that one of its inputs has; in a recurrent layer its
            own neurons are inputs too.
        sources: Number of neurons of the layer before that have a synapse here; 0 where the inputs
            are no neurons on the chip.
        targets: Number of their pairs with a neuron that they have a synapse onto.
        axons: Most input axons that one neuron needs: of a dense layer, one for each of its inputs;
            of one with a kernel, one for each place, whose channels are a population.
        inputs: Most inputs of one neuron: its input axons if each input has its own.
        weight_bits: Bits of a weight, without the factors of 2 that all share.
        delay: Largest delay of an axon, in steps.
        threshold: The largest mantissa; None where nothing fires.
        bias_bits: Of the largest bias of a CUBA neuron's norm, and of an input's.
        state_bits: Of the largest number that a state starts from, is compared with or gains.
        neuron: The neuron's type in a file; empty without one.
        graded_spikes: Whether its spikes carry values.
    """

    name: str
    neurons: int = 0
    synapses: int = 0
    weights: int = 0
    memory: int = 0
    unshared: int = 0
    neuron_memory: int = 0
    fan_in: int = 0
    fan_out: int = 0
    sources: int = 0
    targets: int = 0
    axons: int = 0
    inputs: int = 0
    weight_bits: int = 0
    delay: int = 0
    threshold: int | None = None
    bias_bits: int = 0
    state_bits: int = 0
    neuron: str = ""
    graded_spikes: bool = False

    @property
    def delay_bits(self) -> int:
        """Bits of the delay."""
        return self.delay.bit_length()


def needs(net: Iterable[nn.Module] | nn.Module) -> list[LayerNeeds]:
    """What the layers of a net need on a chip, at least.

    A first layer with a kernel whose input is not known (in a file without an ``input`` layer) is
    counted on the smallest input that gives its output.

    Args:
        net: Blocks of ``lava_bridge.slayer.block`` that know their shape; they are not changed. An
            encoder in front of them is not on the chip.

    Raises:
        BridgeError: If a block does not know its shape or does not fit the one before it, or its
            weights are not integers on the chip; it is named.
    """
    encoder, blocks = split_encoder(net)
    block: Any
    found: list[LayerNeeds] = []
    shape: Shape | None = None
    from_neurons = False
    for i, block in enumerate(blocks):
        name = f"{i} {type(block).__name__}"
        if not is_block(block):
            raise BridgeError(
                f"{name}: is no slayer block; convert the net with lava_bridge.to_slayer first"
            )
        if block.shape is None:
            raise BridgeError(
                f"{name}: its shape is not known; run it once, or call infer_shape((C, H, W))"
            )
        output = _three(block.shape)
        try:
            counts = _synapse_needs(block, shape, output) | _neuron_needs(block, output)
        except BridgeError as error:
            raise BridgeError(f"{name}: {error}") from error
        if not from_neurons:
            counts |= {"sources": 0, "targets": 0}
        if not found and isinstance(encoder, GradedInput):  # what comes in are numbers
            counts |= {"graded_spikes": True}
        found.append(LayerNeeds(name, **counts))
        shape = output
        from_neurons = bool(found[-1].neurons) or (from_neurons and isinstance(block, Flatten))
    return found


def _three(shape: tuple[int, ...]) -> Shape:
    """A shape with channels, height and width."""
    channels, height, width = (*shape, 1, 1)[:3]
    return channels, height, width


# Synapses ---------------------------------------------------------------------------------------


class _Window(NamedTuple):
    """The geometry of a synapse, in (height, width)."""

    kernel: tuple[int, ...] = (1, 1)
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    transposed: bool = False

    @classmethod
    def of(cls, part: Any) -> "_Window":
        kernel, stride = part.kernel_size[:2], part.stride[:2]
        return cls(kernel, stride, part.padding[:2], part.dilation[:2], part.transposed)

    def joined(self, axis: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        """1 where a row of the kernel joins an input, ``[k, inputs]``, and where an output.

        Row k joins the output ``o`` to the input ``o * stride - padding + k * dilation``; in a
        transposed one the two change places. No two outputs share an input by the same row.
        """
        starts, ends = (inputs, outputs) if self.transposed else (outputs, inputs)
        row = torch.arange(self.kernel[axis])[:, None]
        start = torch.arange(starts) * self.stride[axis] - self.padding[axis]
        end = start + row * self.dilation[axis]
        inside = ((end >= 0) & (end < ends)).double()
        reached = inside.new_zeros(len(row), ends).scatter_add(1, end.clamp(0, ends - 1), inside)
        return (inside, reached) if self.transposed else (reached, inside)


class _Bundle(NamedTuple):
    """Synapses from the same inputs to the same neurons: one, or a real and an imaginary one.

    Attributes:
        window: Their geometry.
        parts: Their weights as integers, ``[groups, out, in, height, width]``.
        stored: How many of the groups have weights of their own.
        shape, output: The shapes of inputs and neurons.
        dense: Whether each input has an axon of its own.
    """

    window: _Window
    parts: list[Tensor]
    stored: int
    shape: Shape
    output: Shape
    dense: bool

    def links(self, used: Tensor) -> tuple[Tensor, Tensor]:
        """How many synapses each neuron has, ``[*output]``, and each input, ``[*shape]``.

        ``used``: whether a weight is there. The numbers are doubles, which are exact below 2^53.
        """
        rows, columns = (
            self.window.joined(axis, self.shape[axis + 1], self.output[axis + 1]) for axis in (0, 1)
        )
        onto = torch.einsum("gokl,ky,lx->goyx", used.sum(2).double(), rows[1], columns[1])
        out_of = torch.einsum("gikl,ky,lx->giyx", used.sum(1).double(), rows[0], columns[0])
        return onto.flatten(0, 1), out_of.flatten(0, 1)


def _bundle(synapse: Any, mask: Any, shape: Shape, output: Shape) -> _Bundle:
    parts = [part for _, part in synapse.parts("")]
    window, groups, pools = _Window.of(parts[0]), parts[0].groups, _pools(parts[0])
    weights = []
    for part in parts:
        weight = integer_weight(part, mask)[..., 0]
        if pools:
            weights.append(weight[None].expand(shape[0], -1, -1, -1, -1))
        else:
            grouped = weight.unflatten(0, (groups, -1))
            weights.append(grouped.transpose(1, 2) if window.transposed else grouped)
    return _Bundle(window, weights, groups, shape, output, isinstance(parts[0], Dense))


def _pools(part: Any) -> bool:
    """Whether one kernel, its one group, serves every channel by itself."""
    return isinstance(part, Pool | Unpool)


def _feedback(block: Any, output: Shape) -> list[_Bundle]:
    """The synapses from a layer's neurons back to them, if there are any."""
    if hasattr(block, "recurrent_synapse"):
        return [_bundle(block.recurrent_synapse, None, output, output)]
    if hasattr(block, "feedback_weight"):
        weight = block.feedback_weight(descale=True).detach()[None, :, :, None, None]
        return [_Bundle(_Window(), [weight], 1, output, output, True)]
    return []


def _synapse_needs(block: Any, shape: Shape | None, output: Shape) -> dict[str, Any]:
    """What of :class:`LayerNeeds` the synapses say."""
    synapse = getattr(block, "synapse", None)
    if synapse is None:
        return {}
    if shape is None:
        shape = _smallest_input(synapse.parts("")[0][1], output)
    given = _three(synapse.output_shape(shape))
    if given != output:
        raise BridgeError(
            f"has neurons of shape {output}, but an input of {shape} gives {given}; check the "
            "layer before it"
        )
    bundles = [_bundle(synapse, getattr(block, "mask", None), shape, output)]
    bundles += _feedback(block, output)
    totals = dict.fromkeys(("synapses", "weights", "memory", "unshared"), 0)
    widths, fan_outs, sources, targets = [], [], [], []
    fan_in, axons, inputs = (torch.zeros(output, dtype=torch.double) for _ in range(3))
    neuron_memory = torch.zeros(output[0], dtype=torch.double)
    for bundle in bundles:
        fan_out = torch.zeros(bundle.shape, dtype=torch.double)
        for weight in bundle.parts:
            used, bits = (weight != 0).cpu(), _weight_bits(weight)
            onto, out_of = bundle.links(used)
            fan_in, fan_out = fan_in + onto, fan_out + out_of
            synapses, weights = int(onto.sum()), int(used[: bundle.stored].sum())
            totals["synapses"] += synapses
            totals["weights"] += weights
            totals["memory"] += weights * bits
            totals["unshared"] += synapses * bits
            neuron_memory += used.sum(dim=(2, 3, 4)).flatten() * bits
            widths.append(bits)
        either = torch.stack([weight != 0 for weight in bundle.parts]).any(0).cpu()
        met = bundle.links(either)[0]
        places = either.any(2, keepdim=True)  # the channels of a place are one population
        inputs, axons = inputs + met, axons + (met if bundle.dense else bundle.links(places)[0])
        fan_outs.append(int(fan_out.max()))
        sources.append(int((fan_out > 0).sum()))
        targets.append(int(met.sum()))
    return totals | {
        "neuron_memory": int(neuron_memory.max()),
        "fan_in": int(fan_in.max()),
        "fan_out": max(fan_outs),
        "sources": sources[0],
        "targets": targets[0],
        "axons": int(axons.max()),
        "inputs": int(inputs.max()),
        "weight_bits": max(widths),
    }


def _smallest_input(part: Any, output: Shape) -> Shape:
    """The smallest input for which a synapse gives this output."""
    if isinstance(part, Dense):
        return _three((part.in_channels, *part.kernel_size[:2]))
    window, tiled = _Window.of(part), _pools(part) and any(part.fill(1, 1))
    sizes = []
    for axis in (0, 1):
        size, stride, padding = output[axis + 1], window.stride[axis], window.padding[axis]
        reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1
        if window.transposed:
            sizes.append((size + 2 * padding - reach) // stride + 1)
        elif tiled:  # a pool's last window may be cut off
            sizes.append((size - 1) * stride + 1)
        else:
            sizes.append(max((size - 1) * stride + reach - 2 * padding, 1))
    return (output[0] if _pools(part) else part.in_channels), sizes[0], sizes[1]


def _weight_bits(weight: Tensor) -> int:
    """Bits of the integers without the factors of 2 that all share.

    The sign takes a bit where there are both (lava-nc's SignMode).
    """
    if not torch.equal(weight.round(), weight):
        raise BridgeError(
            "its weights are not integers on the chip; set synapse.pre_hook_fx = "
            "neuron.quantize_8bit"
        )
    if not bool(weight.any()):
        return 0
    step = 1
    while not bool((weight % (2 * step)).any()):
        step *= 2
    low, high = int(weight.min()) // step, int(weight.max()) // step
    return _signed_bits(low, high) if low < 0 < high else max(-low, high).bit_length()


def _signed_bits(low: int, high: int) -> int:
    """Bits of a signed integer that holds both."""
    return max((-low - 1).bit_length() if low < 0 else 0, max(high, 0).bit_length()) + 1


# Neurons ----------------------------------------------------------------------------------------


def _neuron_needs(block: Any, output: Shape) -> dict[str, Any]:
    """What of :class:`LayerNeeds` the neurons and their axons say."""
    neuron = getattr(block, "neuron", None)
    if neuron is None:
        return {}
    found: dict[str, Any] = {"neurons": int(np.prod(output))}
    delay = getattr(block, "delay", None)
    if delay is not None:
        found["delay"] = int(delay.delay.detach().clamp(0, delay.max_delay).max())
    if not getattr(block, "dynamics", True):
        return found
    found["neuron"] = kind = neuron.device_params["type"]
    if neuron.threshold is not None:
        found["threshold"] = int(np.max(neuron.v_th_mant))
        found["graded_spikes"] = bool(neuron.graded_spike)
    biases = [norm.bias for norm in norms_of(neuron).values()]
    if getattr(block, "bias", None) is not None:
        biases.append(block.pre_hook_fx(block.bias.detach(), descale=True))
    states = [bias * STATE_OVER_WEIGHT for bias in biases]
    if getattr(neuron, "bias_is_set", False):  # a sigma-delta neuron's
        states.append(neuron.bias.detach() * neuron.s_scale)
    if kind == LIF:
        found["bias_bits"] = _bias_bits(biases)
    found["state_bits"] = _bias_bits(states)
    return found


def _bias_bits(biases: list[Tensor]) -> int:
    """Bits of signed integers that hold the numbers, but for those that are all 0."""
    values = torch.cat([bias.detach().flatten() for bias in biases]).round() if biases else None
    if values is None or not bool(values.any()):
        return 0
    return _signed_bits(int(values.min()), int(values.max()))
