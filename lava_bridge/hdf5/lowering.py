"""From the layers that a ``.net`` file can have to those that Lava's ``netx`` can run.

A table of rules, one for each type of layer. A rule gets a :class:`Layer`, as its block wrote it,
and adds what netx runs in its place to a :class:`Lowering`::

    @rule("flatten")
    def _flatten(layer, net):
        net.add(layer)

What netx does was found by running it (lava-dl 0.6.0, lava-nc 0.10.0; docs/net-files.md).
"""

import math
from collections.abc import Callable, Iterable

import numpy as np

from ..errors import ConversionError
from ..net_writer import NEVER_FIRES
from ..quantize import DECAY_SCALE, WEIGHT_MAX, WEIGHT_MIN
from .layer import Layer

__all__ = ["RULES", "Lowering", "lower", "rule"]

# netx holds the sizes of a convolution and its groups in 8 bits with a sign.
MAX_SIZE = (1 << 7) - 1
# The voltage of Lava's neurons has 24 bits with a sign and the threshold is 64 times its mantissa:
# above this one no voltage reaches it.
MAX_THRESHOLD = (1 << 17) - 1
# netx's sigma-delta neurons know one scale of weights, that of 64, and a message is 64 times finer.
SIGMA_DELTA_SCALE = 1 << 6
# What netx weighs the input of neurons by where a file has no weight for it.
WEIGHT_UNIT = 1 << 6
MESSAGE_OVER_WEIGHT = 1 << 6
# netx makes a resonator's decays from its angle and radius and rounds down what may be a hair too
# small; halfway to the next integer nothing is.
HALFWAY = 0.5

# Neurons of which netx makes a process: CUBA (and its old name), the resonators, sigma-delta.
SPIKING, COMPLEX, SIGMA_DELTA = ("CUBA", "LOIHI"), ("RF_PHASE", "RF_IZHIKEVICH"), "SDNN"


class Lowering:
    """The net under lowering, which rules add layers to.

    Attributes:
        layers: The layers so far, each with the place of the block that it comes from.
        shape: Shape ``[C, *]`` of the signal here, as netx has it; None if not known.
        place: The block whose rule is at work.
        is_last: Whether that block is the net's last.
    """

    def __init__(self, input_shape: tuple[int, ...] | None) -> None:
        self.layers: list[tuple[str, Layer]] = []
        self.shape = input_shape
        self.place = ""
        self.is_last = False
        # Whether signals are graded messages; None before the first neuron.
        self.graded: bool | None = None

    def add(self, layer: Layer, shape: tuple[int, ...] | None = None) -> None:
        """Add a layer; its output has its own shape, or the one given."""
        self.layers.append((self.place, layer))
        self.shape = layer.shape if shape is None else shape

    def add_input(self, shape: tuple[int, ...]) -> None:
        """Tell netx the shape of the input, if this is the net's first layer."""
        if not self.layers:
            layer = Layer(shape=np.array(shape, dtype=np.int64))
            layer.set_kind("input")
            layer.attrs["delay_shift"] = False
            self.add(layer)

    def flatten(self) -> None:
        """Make one dimension of the signal's, in the order (C, H, W), unless it has one."""
        if self.shape is None or len(self.shape) == 1:
            return
        if len(self.shape) == 2:
            raise ConversionError(
                f"flattens a shape of two dimensions {self.shape}, but netx flattens (C, H, W) "
                "only; give the input a height of 1"
            )
        neurons = math.prod(self.shape)
        layer = Layer(shape=np.array([neurons, 1, 1], dtype=np.int64))
        layer.set_kind("flatten")
        self.add(layer, (neurons,))


Rule = Callable[[Layer, Lowering], None]

RULES: dict[str, Rule] = {}


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Register a function ``(layer, net) -> None`` as the rule for layers of these types."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def lower(
    layers: Iterable[tuple[str, Layer]], input_shape: tuple[int, ...] | None = None
) -> list[tuple[str, Layer]]:
    """Lower the layers of a net to such as netx runs with the same spikes.

    Args:
        layers: The layers in order, each with its place in the net, for errors. They are changed.
        input_shape: Shape ``[C, *]`` of one input; needed where a convolution or pooling is first.

    Returns:
        The layers of the lowered net with their places.

    Raises:
        ConversionError: If netx has nothing that gives a layer's spikes; it names the place.
    """
    given = list(layers)
    net = Lowering(input_shape)
    for i, (place, layer) in enumerate(given):
        net.place, net.is_last = place, i == len(given) - 1
        try:
            apply = RULES.get(layer.kind)
            if apply is None:
                raise ConversionError(f"is of type {layer.kind!r}, which netx does not know")
            apply(layer, net)
        except ConversionError as error:
            raise ConversionError(f"{place}: {error}") from error
    return net.layers


@rule("input")
def _input(layer: Layer, net: Lowering) -> None:
    if net.layers:
        raise ConversionError("is an input, but not the first layer; netx does not connect it")
    if layer.neuron in COMPLEX:
        raise ConversionError(
            "is an input of resonators, which netx can't build; leave the neuron out of the Input "
            "and encode before it"
        )
    if layer.neuron:
        _lower_neuron(layer, net)
    if layer.neuron in SPIKING:
        _lower_driven(layer)
    net.add(layer)


def _lower_driven(layer: Layer) -> None:
    """An input of CUBA neurons, which netx drives by their bias: past the current, times 64."""
    if _current_lasts(layer):
        raise ConversionError(
            "is an input of neurons whose current lasts, but netx's input goes to the voltage; use "
            "current_decay=1"
        )
    scale = layer.attrs.get("scale", WEIGHT_UNIT)
    if scale != WEIGHT_UNIT and "weight" not in layer:
        if scale % 2 or scale > WEIGHT_MAX:
            raise ConversionError(
                f"is an input with a scale of {scale}, which no weight holds, and netx takes "
                f"{WEIGHT_UNIT}; use scale={WEIGHT_UNIT}"
            )
        layer["weight"] = np.array([scale])


@rule("flatten")
def _flatten(layer: Layer, net: Lowering) -> None:
    if net.shape is None:
        net.add(layer, (layer.shape[0],))
    else:
        net.flatten()


@rule("dense", "dense_rec")
def _dense(layer: Layer, net: Lowering) -> None:
    recurrent = layer.kind == "dense_rec"
    if not layer.neuron:
        raise ConversionError(
            "gives its dendritic input, but netx has a neuron in each layer; use dynamics=True "
            "with decays of 1 and read the voltage"
        )
    if recurrent and layer.neuron in COMPLEX:
        raise ConversionError("has complex recurrent weights, which netx leaves out; use cuba")
    if not net.is_last and NEVER_FIRES in layer["neuron/vThMant"]:
        raise ConversionError(
            "gives voltages, but in netx only spikes go on to the next layer; make it the last"
        )
    if not net.is_last and "neuron/sigma_output" in layer:
        raise ConversionError("gives sums, which netx can't pass on; make it the last layer")
    _lower_neuron(layer, net)
    normed = "bias" in layer and layer["bias"].any() and not layer.attrs.get("channel_bias", False)
    if recurrent and layer.neuron in SPIKING and normed and _current_lasts(layer):
        raise ConversionError(
            "feeds back a current that has its norm in it, and netx's has not; use ChannelBias, or "
            "current_decay=1"
        )
    if recurrent or layer.neuron in COMPLEX:
        what = "recurrent" if recurrent else "complex"
        _drop_delays(layer, f"delays its spikes, which netx's {what} layers can't")
    elif _has_delays(layer) and "bias" in layer and layer["bias"].any():
        raise ConversionError(
            "has both a norm (or bias) and delays, but netx delays the spikes before the bias is "
            "added; leave one of them out"
        )
    window = layer[layer.weights()[0]].shape[2:]
    if window:
        net.add_input((int(layer["inFeatures"]), *window))
        for name in [*layer.weights(), *(layer.weights("weight_rec") if recurrent else [])]:
            layer[name] = layer[name].reshape(len(layer[name]), -1)
        layer["inFeatures"] = layer[layer.weights()[0]].shape[1]
    net.flatten()
    layer["shape"] = layer["shape"][:1]
    for name in layer.weights():
        _check_weights(name, *([layer[name], layer["weight_rec"]] if recurrent else [layer[name]]))
    net.add(layer)


@rule("conv")
def _conv(layer: Layer, net: Lowering) -> None:
    if layer.neuron in COMPLEX:
        raise ConversionError(
            "has complex weights, but netx has resonators in dense layers only; use rf.Dense"
        )
    _require_plane(net)
    _lower_neuron(layer, net)
    _drop_delays(layer, "delays its spikes, but netx ignores the delays of convolutions")
    _split_groups(layer)
    for name in ("kernelSize", "stride", "padding", "dilation"):
        if layer[name].max() > MAX_SIZE:
            raise ConversionError(f"has a {name} of {layer[name].max()}; netx holds {MAX_SIZE}")
    net.add(layer)


@rule("pool")
def _pool(layer: Layer, net: Lowering) -> None:
    """A sum over windows is a convolution in which each channel is a group by itself."""
    if layer.neuron not in COMPLEX:
        _require_plane(net)
        assert net.shape is not None
        channels, *plane = net.shape
        weight, sizes = layer["weight"], layer["kernelSize"]
        # Rows and columns of zeros that a Pool adds below and at the right. netx pads both sides,
        # so that the kernel begins with as many zeros.
        reach = layer["dilation"] * (sizes - 1) + 1
        covered = (np.array(layer.shape[1:]) - 1) * layer["stride"] + reach
        fill = np.maximum(covered - np.array(plane) - 2 * layer["padding"], 0)
        if fill.any():
            weight = np.pad(weight, ((0, 0), (0, 0), (fill[0], 0), (fill[1], 0)))
            layer["kernelSize"] = np.array(weight.shape[2:])
            layer["padding"] = fill
        layer["weight"] = weight.repeat(channels, axis=0)
        layer["inChannels"] = layer["outChannels"] = layer["groups"] = channels
        layer.set_kind("conv")
    _conv(layer, net)


@rule("convT", "unpool")
def _transposed(layer: Layer, net: Lowering) -> None:
    raise ConversionError(
        f"is of type {layer.kind!r}, which netx can't run, nor does any of its layers make a "
        "larger plane of a smaller; use a Flatten and a Dense"
    )


@rule("average")
def _average(layer: Layer, net: Lowering) -> None:
    raise ConversionError("averages neurons, which netx can't; leave it out and average the output")


@rule("decimation")
def _decimation(layer: Layer, net: Lowering) -> None:
    raise ConversionError("averages steps, which netx can't; leave it out and average the output")


@rule("kwta")
def _kwta(layer: Layer, net: Lowering) -> None:
    raise ConversionError("is a k-winners-take-all layer, which netx can't run; use Recurrent")


# The parts of a layer ---------------------------------------------------------------------------


def _lower_neuron(layer: Layer, net: Lowering) -> None:
    """A neuron that netx has, with its norm and bias as the layer's one bias."""
    kind, mantissa = layer.neuron, layer["neuron/vThMant"]
    if kind not in (*SPIKING, *COMPLEX, SIGMA_DELTA):
        raise ConversionError(
            f"has {kind} neurons, of which netx makes no process; use CUBA, RF or sigma-delta ones"
        )
    graded = kind == SIGMA_DELTA
    if net.graded not in (None, graded):
        raise ConversionError(
            "mixes sigma-delta and spiking neurons, whose signals netx scales differently; use one "
            "kind in the whole net"
        )
    net.graded = graded
    _lower_norm(layer)
    if graded:
        _lower_sigma_delta(layer)
        return
    if "neuron/gradedSpike" in layer and layer["neuron/gradedSpike"].any():
        raise ConversionError("has graded spikes, but netx sends 0 or 1; use graded_spike=False")
    if np.any((mantissa > MAX_THRESHOLD) & (mantissa != NEVER_FIRES)):
        raise ConversionError(
            f"has a threshold of {mantissa.max()} on the chip, which 24-bit voltages don't reach "
            f"above {MAX_THRESHOLD}; choose a smaller threshold or scale"
        )
    if kind in COMPLEX:
        for name in ("neuron/sinDecay", "neuron/cosDecay"):
            layer[name] = layer[name] + HALFWAY


def _lower_norm(layer: Layer) -> None:
    """A norm as a bias alone."""
    for suffix in ("", "_real", "_imag"):
        exponent = f"neuron/weight_exp{suffix}"
        if exponent in layer:
            bits = layer.attrs.pop("weight_exp_bits", MAX_SIZE)
            shift = int(np.clip(layer[exponent], -bits, bits).item())
            if shift:
                raise ConversionError(
                    f"has a norm that shifts its input by {-shift} bits, which netx leaves out; "
                    "use MeanOnlyBatchNorm"
                )
            del layer[exponent]
        if suffix and f"bias{suffix}" in layer:
            if layer[f"bias{suffix}"].any():
                raise ConversionError("has a norm, but netx's resonators have no bias; remove it")
            del layer[f"bias{suffix}"]


def _lower_sigma_delta(layer: Layer) -> None:
    if layer.attrs.get("scale", SIGMA_DELTA_SCALE) != SIGMA_DELTA_SCALE:
        raise ConversionError(
            f"has sigma-delta neurons with a scale of {layer.attrs['scale']}, but netx's have "
            f"{SIGMA_DELTA_SCALE}; use scale={SIGMA_DELTA_SCALE}"
        )
    thresholds = layer["neuron/vThMant"]
    if (thresholds != thresholds.min()).any():
        raise ConversionError(
            "has a threshold for each channel, but netx's sigma-delta neurons have one for all; "
            "use shared_param=True"
        )
    layer["neuron/vThMant"] = int(thresholds.min())
    if thresholds.min() < 1:
        raise ConversionError(
            "has a threshold of 0, where netx loses what is finer than a message; use "
            f"1/{SIGMA_DELTA_SCALE} or more"
        )
    if layer.attrs.get("cum_error", False):
        raise ConversionError(
            "compares accumulated errors, but netx compares the last; use cum_error=False"
        )
    if "neuron/sigma_output" in layer or layer.kind == "input":
        if "neuron/bias" in layer:  # without effect in such a block, but netx would trip over it
            del layer["neuron/bias"]
        return
    if layer["neuron/activation"] != "relu":
        raise ConversionError(
            f"has the activation {layer['neuron/activation']}, but netx has relu only; use relu"
        )
    if "neuron/bias" in layer:
        each = layer["neuron/bias"].reshape(layer.shape[0], -1)
        if (each % MESSAGE_OVER_WEIGHT).any():
            raise ConversionError(
                f"has a bias that is not a multiple of 1/{SIGMA_DELTA_SCALE}, but netx's are; "
                f"round it: set_bias(torch.round(bias * {SIGMA_DELTA_SCALE}) / {SIGMA_DELTA_SCALE})"
            )
        if (each != each[:, :1]).any():
            raise ConversionError(
                "has a bias that differs within a channel, but a file has one for each channel"
            )
        former = layer["bias"] if "bias" in layer else np.zeros(len(each))
        layer["bias"] = (former + each[:, 0] // MESSAGE_OVER_WEIGHT).astype(np.float32)
        del layer["neuron/bias"]


def _current_lasts(layer: Layer) -> bool:
    """Whether some of a CUBA neuron's current is left in the next step."""
    return bool((layer["neuron/iDecay"] != DECAY_SCALE).any())


def _has_delays(layer: Layer) -> bool:
    return "delay" in layer and bool(layer["delay"].any())


def _drop_delays(layer: Layer, why: str) -> None:
    if _has_delays(layer):
        raise ConversionError(f"{why}; use delay=False, or delay in a Dense layer")
    if "delay" in layer:
        del layer["delay"]


def _require_plane(net: Lowering) -> None:
    """Height and width in front of a convolution, which netx has to know."""
    if net.shape is None:
        raise ConversionError(
            "is the first layer, for which netx must know the input's shape; pass input_shape, or "
            "begin with an Input"
        )
    net.add_input(net.shape)
    if len(net.shape) != 3:
        raise ConversionError(
            f"gets a signal of shape {net.shape} in netx, without height and width; put no dense "
            "layer in front of a convolution"
        )


def _split_groups(layer: Layer) -> None:
    """As many groups as netx can count: those that are too many are joined, with weights of 0."""
    groups = int(layer["groups"])
    if groups <= MAX_SIZE:
        return
    fewer = max(number for number in range(1, MAX_SIZE + 1) if groups % number == 0)
    joined = groups // fewer
    weight = layer["weight"]  # [out, in / groups, height, width]
    inputs = weight.shape[1]
    each = weight.reshape(fewer, joined, -1, inputs, *weight.shape[2:])
    wide = np.zeros((*each.shape[:3], joined, *each.shape[3:]), dtype=weight.dtype)
    for i in range(joined):
        wide[:, i, :, i] = each[:, i]
    layer["weight"] = wide.reshape(len(weight), joined * inputs, *weight.shape[2:])
    layer["groups"] = fewer


def _check_weights(name: str, *parts: np.ndarray) -> None:
    """Refuse what Lava changes on the way to its 8 bits; ``parts`` are shifted together.

    They are shifted left as far as they fit. A part without a positive weight is then held as
    magnitudes of 8 bits, up to 255: its least weight must not arrive at -256.
    """
    low, high = min(part.min() for part in parts), max(part.max() for part in parts)
    if low == high == 0:
        raise ConversionError(f"has a {name} of zeros, which netx fails on; leave the layer out")
    step = 1
    while 2 * step * low >= WEIGHT_MIN and 2 * step * high <= WEIGHT_MAX:
        step *= 2
    for part in parts:
        if part.max() <= 0 and step * part.min() == WEIGHT_MIN:
            raise ConversionError(
                f"has a {name} without a positive weight and with {int(part.min())}, which Lava "
                f"would change; make that {int(part.min()) + 2}"
            )
