"""A ``.net`` file, run with integers as Lava runs it: :class:`Network`."""

import copy
import math
import os
import warnings
from typing import Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from ..checks import dense, path_text
from ..encoder import GradedInput, encoder_on
from ..errors import BridgeError, NetFileError
from ..hdf5.encoder import read_encoder
from ..layout import NXT_to_TNX, TNX_to_NXT
from ..progress import progress_bar
from .layer import InputLayer, Layer, LayerState, SynapticLayer
from .neuron import Lif
from .neuron_reader import Options
from .reader import read_layers
from .synapse import PORT_BITS

__all__ = ["LayerRun", "NetRun", "Network"]

LAYOUTS = ("NXT", "TNX")
# Steps are run in chunks whose largest layer has about so many values: they stay in the caches, and
# memory stays bounded.
CHUNK = 1 << 20
# A bar is shown from so many chunks on.
LONG_RUN = 8

HEADER = "|   Type   |  W  |  H  |  C  | ker | str | pad | dil | grp |delay|"


class LayerRun(NamedTuple):
    """What one layer did, in the layout of the run's input.

    Attributes:
        name: Its place in the file, ``layer/N``.
        spike: Its spikes, as they leave the neurons.
        traces: The neurons' states after each step, int32: ``current`` and ``voltage`` (LIF),
            ``real`` and ``imag`` (resonators), ``sigma``, ``act`` and ``residue`` (sigma-delta).
            ``beyond`` (LIF) is 1 where the current did not fit into 24 bits and was wrapped around,
            or the voltage stands at an end of them.
    """

    name: str
    spike: Tensor
    traces: dict[str, Tensor]


class NetRun(NamedTuple):
    """What a run with ``traces=True`` gives: the output, and each layer."""

    output: Tensor
    layers: list[LayerRun]


class Network:
    """A net of integers, read from a ``.net`` file.

    It computes bit for bit what Lava's processes with ``fixed_pt`` models do, layer by layer over
    many time steps and samples at once. What a layer's synapses receive in a step reaches its
    neurons in the next one: spikes come a step later with each layer that has synapses.

    Args:
        net_config: The file.
        num_layers: Only the first so many groups of the file are used. None: all.
        skip_layers: The first so many of these are left out.
        input_message_bits: Bits of the spikes that come in; 0: they are taken as 0 or 1.
        input_shape: ``(W, H, C)``, in Lava's order, where the file's first layer is a convolution.
        reset_interval: Loihi's neurons are set to 0 every so many steps, each layer with synapses a
            step later than the one before it. None: never.
        reset_offset: Step of the first layer's first reset, counted from 0.
        spike_exp: Binary point of graded spikes.
        aligned: Each layer rests until the blocks' first step has come to it. Otherwise, as in
            Lava, it runs from the first step, so that in a deeper layer a bias works some steps
            longer than in the blocks; with it the spikes are theirs, later by the layers.
        encoder: Whether to read the encoder of the net's input, if the file has one. With it, what
            comes in has the shape that it gives, and a GradedInput's bits.

    Attributes:
        encoder: What :meth:`encoded` applies first; None if the file has none, it is not wanted, or
            the layer that it is for is skipped.
        layers: The layers, without those that do nothing (flatten).
        input_shape: ``(C, H, W)`` or ``(C,)`` of an input; None if the file does not say.
        output_shape: Likewise of the output.
        latency: Steps from an input to the output that it causes first, delays apart.
        graded_input: Whether the values of the input count; if not, what is not 0 is a spike of 1.

    Raises:
        NetFileError: If the file is missing, damaged, or no net that can be run with integers.
        BridgeError: If an argument can't be used.

    >>> net = lava_bridge.netx.Network("net.net")
    >>> spikes = net.run(x)  # [N, C, H, W, T] or [N, C, T]

    Source: ``lava.lib.dl.netx.hdf5.Network`` (lava-dl 0.6.0), on the models of lava-nc 0.10.0.
    """

    def __init__(
        self,
        net_config: str | os.PathLike[str],
        num_layers: int | None = None,
        skip_layers: int = 0,
        input_message_bits: int = 0,
        input_shape: tuple[int, ...] | None = None,
        reset_interval: int | None = None,
        reset_offset: int = 0,
        spike_exp: int = 6,
        aligned: bool = False,
        encoder: bool = True,
    ) -> None:
        self.filename = path_text(net_config)
        _check_shape(input_shape)
        given = input_shape
        self.encoder = read_encoder(net_config) if encoder and not skip_layers else None
        encoded = None if self.encoder is None else self.encoder.shape
        if encoded is not None:
            input_shape = encoded[::-1]
            if isinstance(self.encoder, GradedInput):
                input_message_bits = input_message_bits or self.encoder.message_bits
        options = Options(
            num_layers,
            skip_layers or 0,
            input_message_bits or 0,
            input_shape,
            reset_interval,
            reset_offset,
            spike_exp,
            encoded is not None,
        )
        _check(options)
        read = read_layers(net_config, options)
        self.layers: list[Layer] = read.layers
        self.input_shape = read.input_shape
        self.output_shape = read.output_shape
        if encoded is None and not skip_layers:
            self._require_given(given)
        self._require_fit()
        self.latency = sum(layer.steps for layer in self.layers)
        self._shifted_input = read.shifted_input
        if aligned:
            self._align()
        elif not self._begins_by_a_reset(reset_interval, reset_offset):
            self._warn_of_early_biases()
        first = self.layers[0]
        self.graded_input = first.graded if isinstance(first, SynapticLayer) else True
        self.reset()

    def later_than_blocks(self) -> list[int]:
        """Steps by which each layer's spikes come later than its block's, which may be late too."""
        later, found = -int(self._shifted_input), []
        for layer in self.layers:
            later += layer.steps - layer.delay_shift
            found.append(later)
        return found

    def _align(self) -> None:
        for layer, later in zip(self.layers, self.later_than_blocks(), strict=True):
            layer.begins = later + layer.delay_shift

    def _begins_by_a_reset(self, interval: int | None, offset: int) -> bool:
        """Whether each layer is reset as the input comes to it: its bias then begins there."""
        if not interval or offset != 1 or self._shifted_input:
            return False
        return not any(x.delay_shift or x.has_delays or x.recurrent for x in self.layers)

    def _warn_of_early_biases(self) -> None:
        early = [
            layer.name
            for layer, later in zip(self.layers, self.later_than_blocks(), strict=True)
            if later + layer.delay_shift > 0 and _is_biased(layer)
        ]
        if early:
            others = f" (and of {len(early) - 1} more)" if early[1:] else ""
            warnings.warn(
                f"{self.filename}: the bias of {early[0]}{others} works from the first step on, as "
                "in Lava, before the input has come to it: the spikes are not the blocks'; "
                "aligned=True (lava-bridge run: --aligned) makes them so, in Lava reset_interval "
                "does (docs/netx.md, Time)",
                stacklevel=3,
            )

    def aligned_copy(self) -> "Network":
        """The net as ``aligned=True`` makes it, from a fresh state; this one stays as it is."""
        other = copy.copy(self)
        other.layers = [copy.copy(layer) for layer in self.layers]
        other._align()
        other.reset()
        return other

    def reset(self) -> None:
        """Forget the state: the next run begins at the first step."""
        self._states = [LayerState() for _ in self.layers]
        self._time = 0
        self._batch: int | None = None

    def _require_given(self, shape: tuple[int, ...] | None) -> None:
        """Refuse a caller's ``(W, H, C)`` that is not what the file says of its input."""
        if shape is None or self.input_shape is None:
            return
        told, found = tuple(shape)[::-1], self.input_shape
        if math.prod(told) != math.prod(found) or (len(told) == len(found) and told != found):
            raise BridgeError(
                f"Network: input_shape is {tuple(shape)}, but {self.filename} takes {found[::-1]}; "
                "leave it out"
            )

    def _require_fit(self) -> None:
        """Refuse an encoder that gives what the first layer can't take."""
        if self.encoder is None or self.encoder.shape is None or self.input_shape is None:
            return
        if math.prod(self.encoder.shape) != math.prod(self.input_shape):
            raise NetFileError(
                f"{self.filename}: its encoder gives {self.encoder.shape}, but it takes "
                f"{self.input_shape}; export the net anew"
            )

    def encoded(self, x: Tensor | np.ndarray, layout: str = "NXT") -> Tensor:
        """What :meth:`run` takes for an input ``x`` to the blocks that the file was made of.

        That is what the net's encoder makes of ``x``, all of its steps from a fresh state; without
        an encoder ``x`` itself. But an input layer of neurons rounds it to 8 bits, as its block
        does; for sigma-delta neurons it is ``weight * x + bias`` then, with the integers of the
        file (64 and 0 where it has none), without what is beyond whole numbers.

        Args:
            x: ``[N, *, T]``, or ``[T, N, *]`` with ``layout="TNX"``.
            layout: ``"NXT"`` or ``"TNX"``.

        Raises:
            BridgeError: If the input is no array of numbers, or the encoder can't take it.
        """
        first = self.layers[0]
        x = _dense(x, layout, "encoded")
        if self.encoder is not None:
            if x.dim() == 4 and len(self.encoder.input_shape or ()) == 3:  # signals [C, L]
                x = x.unsqueeze(3 if layout == "TNX" else 2)
            encoder = encoder_on(self.encoder, x.device)
            x = NXT_to_TNX(encoder(TNX_to_NXT(x))) if layout == "TNX" else encoder(x)
        return first.encoded(x) if isinstance(first, InputLayer) else x

    def __len__(self) -> int:
        return len(self.layers)

    def __str__(self) -> str:
        """Lava's table of the layers."""
        return "\n".join([HEADER, *map(_row, self.layers)])

    def __repr__(self) -> str:
        shapes = " -> ".join(
            "?" if shape is None else "x".join(map(str, shape))
            for shape in (self.input_shape, *(layer.shape for layer in self.layers))
        )
        return f"Network({self.filename!r}, {shapes})"

    @overload
    def run(
        self,
        x: Tensor | np.ndarray,
        layout: str = ...,
        traces: Literal[False] = ...,
        resume: bool = ...,
    ) -> Tensor: ...

    @overload
    def run(
        self,
        x: Tensor | np.ndarray,
        layout: str = ...,
        *,
        traces: Literal[True],
        resume: bool = ...,
    ) -> NetRun: ...

    def run(
        self,
        x: Tensor | np.ndarray,
        layout: str = "NXT",
        traces: bool = False,
        resume: bool = False,
    ) -> Tensor | NetRun:
        """Run on a batch of spikes.

        Args:
            x: Spikes ``[N, C, H, W, T]``, ``[N, C, L, T]`` or ``[N, C, T]``; with ``layout="TNX"``
                ``[T, N, C, H, W]``, ``[T, N, C, L]`` or ``[T, N, C]``. Whole numbers of any dtype,
                dense or sparse. An input layer of Loihi's neurons takes real numbers too.
            layout: ``"NXT"``, slayer's, or ``"TNX"``, SpikingJelly's.
            traces: Give each layer's spikes and states as well.
            resume: Go on from where the last run ended, with as many samples, on whatever device:
                chunks of a sequence then give what the whole sequence gives. Otherwise a run begins
                from zeros.

        Returns:
            The output spikes in the same layout, a step for each step of the input, at the times at
            which Lava's sink has them; or with ``traces=True`` a :class:`NetRun`.

        Raises:
            BridgeError: If the input does not fit the net.
        """
        x = self._prepared(x, layout)
        # Only at the end is the state replaced: a run that fails leaves it as it was.
        before, time = [LayerState() for _ in self.layers], 0
        if resume:
            if self._batch is not None and x.shape[1] != self._batch:
                raise BridgeError(
                    f"run: {self._batch} samples can't go on as {x.shape[1]}; give as many, or "
                    "take resume=False"
                )
            before, time = [state.to(x.device) for state in self._states], self._time
        outputs: list[Tensor] = []
        layers: list[list[Tensor]] = [[] for _ in self.layers]
        states: list[dict[str, list[Tensor]]] = [{} for _ in self.layers]
        widest = max(math.prod(x.shape[2:]), *(layer.width for layer in self.layers))
        steps = max(1, CHUNK // max(1, widest * x.shape[1]))
        chunks = x.split(steps)
        shown = len(chunks) if len(chunks) >= LONG_RUN else 1
        exact = torch.autocast(x.device.type, enabled=False)
        with torch.no_grad(), exact, progress_bar("running", shown) as advance:
            for chunk in chunks:
                spikes = self._taken(chunk)
                for i, layer in enumerate(self.layers):
                    ran = layer.run(spikes, before[i], time, traces)
                    spikes, before[i] = ran.spike, ran.state
                    if traces:
                        layers[i].append(ran.spike)
                        for name, trace in ran.traces.items():
                            states[i].setdefault(name, []).append(trace)
                outputs.append(spikes.reshape(*spikes.shape[:2], *self.output_shape))
                time += len(chunk)
                advance()
        self._states, self._time, self._batch = before, time, x.shape[1]

        def given(parts: list[Tensor]) -> Tensor:
            whole = parts[0] if len(parts) == 1 else torch.cat(parts)
            return whole.movedim(0, -1) if layout == "NXT" else whole

        output = given(outputs)
        if not traces:
            return output
        return NetRun(
            output,
            [
                LayerRun(
                    layer.name,
                    given(spike),
                    {name: given(parts).to(torch.int32) for name, parts in state.items()},
                )
                for layer, spike, state in zip(self.layers, layers, states, strict=True)
            ],
        )

    def _prepared(self, x: Tensor | np.ndarray, layout: str) -> Tensor:
        """The input as ``[T, N, *]``, checked."""
        x = _dense(x, layout, "run")
        if x.dim() < 3 or not x.shape[0 if layout == "TNX" else -1]:
            axes = "[N, *, T]" if layout == "NXT" else "[T, N, *]"
            raise BridgeError(
                f"run: expected an input {axes} of at least one step, found shape {tuple(x.shape)}"
            )
        if x.is_complex():
            raise BridgeError("run: the input is complex; give spikes, real numbers")
        if layout == "NXT":
            x = x.movedim(-1, 0)
        shape, expected = tuple(x.shape[2:]), self.input_shape
        if expected is None or shape == expected:
            return x
        planes = (*shape[:1], 1, *shape[1:])  # of signals [C, L]
        if math.prod(shape) != math.prod(expected) or (
            len(expected) > 1 < len(shape) and planes != expected
        ):
            raise BridgeError(
                f"run: expected samples of shape {expected}, found {shape} in layout {layout}"
            )
        return x.reshape(*x.shape[:2], *expected)

    def _taken(self, chunk: Tensor) -> Tensor:
        """A chunk of the input as floats; as spikes of 0 and 1 unless it is graded."""
        spikes = (chunk != 0).to(torch.float32, memory_format=torch.contiguous_format)
        if chunk.dtype == torch.bool or torch.equal(spikes.to(chunk.dtype), chunk):
            return spikes
        if chunk.is_floating_point():
            if not bool(torch.isfinite(chunk).all()):
                raise BridgeError("run: the input has values that are NaN or infinite")
            takes_any = isinstance(self.layers[0].neuron, Lif) and not self.layers[0].steps
            if not takes_any and bool((chunk != chunk.trunc()).any()):
                raise BridgeError(
                    "run: the input has values that are not whole, as spikes are; round them, or "
                    "give net.encoded(x) where x is what the blocks take"
                )
        if not self.graded_input:
            return spikes
        narrow = chunk.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.uint8)
        taken = chunk.to(torch.float32 if narrow else torch.float64).contiguous()
        if bool((taken.abs() >= 1 << PORT_BITS - 1).any()):
            raise BridgeError(
                f"run: the input has values beyond {PORT_BITS} bits, which Lava's ports have"
            )
        return taken


def _dense(x: Tensor | np.ndarray, layout: str, place: str) -> Tensor:
    """The input of ``place`` as a dense tensor, in a layout that there is."""
    if layout not in LAYOUTS:
        raise BridgeError(f"{place}: layout must be 'NXT' or 'TNX', found {layout!r}")
    return dense(f"{place}: the input is", x)


def _is_biased(layer: Layer) -> bool:
    bias = getattr(layer.neuron, "bias", None)
    return bias is not None and bool(bias.any())


def _check(options: Options) -> None:
    for name, least, most in (
        ("num_layers", 1, None),
        ("skip_layers", 0, None),
        ("input_message_bits", 0, PORT_BITS),
        ("reset_interval", 1, None),
        ("reset_offset", None, None),
        ("spike_exp", 0, 7),  # three bits on the chip
    ):
        value = getattr(options, name)
        if value is None and name in ("num_layers", "reset_interval"):
            continue
        low, high = -math.inf if least is None else least, math.inf if most is None else most
        if not isinstance(value, int | np.integer) or not low <= value <= high:
            asked = "an integer" if least is None else f"{least} or more"
            asked = asked if most is None else f"in {least} ... {most}"
            raise BridgeError(f"Network: {name} must be {asked}, found {value!r}")


def _check_shape(shape: tuple[int, ...] | None) -> None:
    if shape is not None and not (
        isinstance(shape, tuple | list)
        and 1 <= len(shape) <= 3
        and all(isinstance(size, int | np.integer) and size > 0 for size in shape)
    ):
        raise BridgeError(f"Network: input_shape must be (W, H, C), found {shape!r}")


def _row(layer: Layer) -> str:
    """A layer's row in Lava's table."""
    width, height, channels = [*layer.shape[::-1], 1, 1, 1][:3]
    if len(layer.shape) == 1:
        width, height, channels = 1, 1, layer.shape[0]
    elif len(layer.shape) == 2:
        channels = 1
    cells = layer.table or ("     ",) * 5
    row = [f"{layer.kind:10s}", *(f"{size:5d}" for size in (width, height, channels)), *cells]
    return "|" + "|".join([*row, f"{layer.has_delays!s:5s}"]) + "|"
