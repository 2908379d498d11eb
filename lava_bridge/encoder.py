"""What stays in front of an exported net and makes spikes of its analog input.

Blocks take spikes, but most nets are fed with images. Two ways lead from one to the other:

- *direct*: the float net's own first synapse and neuron, :class:`Encoder`;
- *graded*: numbers of 8 bits in place of spikes, :class:`GradedInput`.
"""

import copy
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from .checks import first_line
from .errors import BridgeError
from .layout import NXT_to_TNX, TNX_to_NXT, no_samples
from .quantize import scalar

__all__ = [
    "SYNAPSES",
    "Encoder",
    "GradedInput",
    "InputEncoder",
    "encoder_on",
    "in_order",
    "is_block",
    "plain_synapse",
    "split_encoder",
]

SYNAPSES: dict[str, type[nn.Module]] = {
    "linear": nn.Linear,
    "conv": nn.Conv2d,
    "convT": nn.ConvTranspose2d,
}

# Frames that go through the synapse in one call. torch chooses its algorithm, and with it the order
# of the sums, by the size of the batch: with calls of one size a frame's sums don't depend on how
# many others there are.
FRAMES = 16

# Graded spikes of 8 bits, without a sign.
MOST_LEVELS = 255


class InputEncoder(nn.Module, ABC):
    """What :class:`Encoder` and :class:`GradedInput` share: ``[N, *, T]`` to ``[N, *, T]``.

    Attributes:
        kind: ``"direct"`` or ``"graded"``, as ``to_slayer`` has it for ``encoding``.
        input_shape: Shape ``[C, *]`` of the analog input; None if not known. Taken from the first
            input.
        shape: Shape ``[C, *]`` of what it gives, likewise.
    """

    kind: str
    _spike: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Its dtype is that of what comes out: float32, as blocks have, until .double() comes.
        self.register_buffer("_spike", torch.empty(0, dtype=torch.float32), persistent=False)
        self.input_shape: tuple[int, ...] | None = None
        self.shape: tuple[int, ...] | None = None

    def infer_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Tell it the shape ``[C, *]`` of its input, and get that of its output.

        Raises:
            BridgeError: If it can't take an input of that shape.
        """
        shape = self._output_shape(tuple(input_shape))
        self.input_shape, self.shape = tuple(input_shape), shape
        return shape

    @abstractmethod
    def _output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what it makes of ``input_shape``."""

    def _checked(self, x: Tensor, batch: int) -> None:
        """Refuse an input that does not fit; ``batch``: where its shape ``[C, *]`` begins."""
        name = type(self).__name__
        shape = tuple(x.shape[batch:] if batch == 2 else x.shape[batch:-1])
        if self.input_shape is None:
            self.infer_shape(shape)
        if shape != self.input_shape:
            raise BridgeError(
                f"{name}: expected samples of shape {self.input_shape}, found {shape}"
            )
        if x.is_complex():
            raise BridgeError(f"{name}: the input is complex; give real numbers")
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise BridgeError(f"{name}: the input has values that are NaN or infinite")


class Encoder(InputEncoder):
    r"""Direct encoding: a float synapse and the neurons that it drives.

    .. math::
        v[t] = v[t-1] - v[t-1] / \tau + W x[t] + b,
        \qquad s[t] = v[t] \ge \vartheta,
        \qquad v[t] \leftarrow v[t]\,(1 - s[t])

    This is, on a CPU operation for operation, what SpikingJelly's ``IFNode`` (``tau`` infinite) and
    ``LIFNode(decay_input=False, v_reset=0.)`` compute in evaluation. Nothing is rounded to the
    chip's integers: on hardware the encoder runs on the host.

    It is a fixed part of the net: no gradients, and no state; a forward begins at ``v = 0``. Each
    frame goes through the synapse in calls of 16, so that neither the other samples, nor the number
    of steps, nor the input's layout have a part in its sums. A static input (one frame expanded
    over time, stride 0) is weighed once.

    Args:
        synapse: nn.Linear, nn.Conv2d or nn.ConvTranspose2d, or a kind of these; its numbers are
            copied. A linear one flattens ``[C, H, W]``.
        threshold: The voltage at which a neuron spikes.
        tau: Time constant in steps, 1 or more; infinite: nothing leaks.
        input_shape: Shape ``[C, *]`` of one input, without batch and time, if known.

    Raises:
        BridgeError: If the synapse is another layer, or a number can't be used.
    """

    kind = "direct"

    def __init__(
        self,
        synapse: nn.Module,
        threshold: float = 1.0,
        tau: float = math.inf,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.synapse: Any = _copied(synapse)
        if self.synapse.weight.dtype not in (torch.float32, torch.float64):
            raise BridgeError(
                f"Encoder: has weights of {self.synapse.weight.dtype}; give float32 or float64"
            )
        if not all(bool(torch.isfinite(p).all()) for p in self.synapse.parameters()):
            raise BridgeError(
                "Encoder: has weights that are NaN or infinite; check the training or the "
                "checkpoint"
            )
        if not math.isfinite(threshold):
            raise BridgeError(f"Encoder: threshold must be a finite number, found {threshold}")
        if not tau >= 1:
            raise BridgeError(f"Encoder: tau must be 1 or more, found {tau}")
        self.threshold = float(threshold)
        self.tau = float(tau)
        if input_shape is not None:
            self.infer_shape(input_shape)

    @property
    def synapse_kind(self) -> str:
        """``"linear"``, ``"conv"`` or ``"convT"``."""
        return next(kind for kind, layer in SYNAPSES.items() if type(self.synapse) is layer)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[N, C', H', W', T]`` or ``[N, C', T]`` for numbers ``[N, *, T]``.

        Raises:
            BridgeError: If the input has another shape, or values that are no finite numbers.
        """
        self._checked(x, 1)
        return TNX_to_NXT(self._fire(NXT_to_TNX(x), None)[0])

    def steps(self, x_seq: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same of ``[T, N, *]``, going on from a voltage ``[N, *]``; None: from 0.

        Returns:
            The spikes ``[T, N, *]`` and the voltage after the last step.
        """
        self._checked(x_seq, 2)
        return self._fire(x_seq, v)

    @torch.no_grad()
    def _fire(self, x_seq: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
        steps, batch = x_seq.shape[:2]
        static = steps > 1 and x_seq.stride(0) == 0
        sums = self._weighed(x_seq[:1] if static else x_seq)
        spikes = self._spike.new_empty(steps, *sums.shape[1:])
        if v is None or v.shape != sums.shape[1:]:
            v = sums.new_zeros(batch, *sums.shape[2:])
        # A GPU multiplies by the reciprocal of a number, which rounds twice; not of a tensor.
        tau = scalar(self.tau, sums)
        for t in range(steps):
            if not math.isinf(self.tau):
                v = v - v / tau
            v = v + sums[0 if static else t]
            fired = v >= self.threshold
            spikes[t] = fired
            v = v.masked_fill(fired, 0)
        return spikes, v

    def _weighed(self, x_seq: Tensor) -> Tensor:
        """The synapse's sums ``[T, N, *]``."""
        frames = x_seq.flatten(0, 1)
        if isinstance(self.synapse, nn.Linear):
            frames = frames.flatten(1)
        weight, shape = self.synapse.weight, self.shape
        assert shape is not None
        sums = weight.new_empty(len(frames), *shape)
        synapse = self.synapse
        if weight.device.type != "cpu":
            # There torch would round float32 to TF32's 11 bits, in convolutions by default. (A copy
            # by deepcopy of a replica of DataParallel would stay in float32.)
            synapse = _copied(synapse).double()
        # The one memory order, whatever the input's strides are.
        call = synapse.weight.new_zeros(FRAMES, *frames.shape[1:])
        with torch.autocast(weight.device.type, enabled=False):
            for start in range(0, len(frames), FRAMES):
                part = frames[start : start + FRAMES]
                call[: len(part)] = part
                sums[start : start + FRAMES] = synapse(call)[: len(part)]
        return sums.unflatten(0, x_seq.shape[:2])

    def _output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        synapse = self.synapse
        if isinstance(synapse, nn.Linear):
            if math.prod(input_shape) != synapse.in_features:
                raise BridgeError(
                    f"Encoder: a Linear of {synapse.in_features} inputs can't take the shape "
                    f"{input_shape}"
                )
            return (synapse.out_features,)
        if len(input_shape) != 3 or input_shape[0] != synapse.in_channels:
            raise BridgeError(
                f"Encoder: expected an input of shape ({synapse.in_channels}, H, W), found "
                f"{input_shape}"
            )
        try:
            with torch.no_grad():
                sums = synapse(no_samples(input_shape, synapse.weight))
        except (RuntimeError, ValueError, OverflowError) as error:
            reason = first_line(error)
            raise BridgeError(
                f"Encoder: a {type(synapse).__name__} can't take the shape {input_shape}: {reason}"
            ) from error
        return tuple(sums.shape[1:])

    def extra_repr(self) -> str:
        leak = "" if math.isinf(self.tau) else f", tau={self.tau:g}"
        return f"threshold={self.threshold:g}{leak}, shape={self.shape}"


class GradedInput(InputEncoder):
    r"""Graded encoding: numbers as integers of 8 bits, which stand in for spikes.

    .. math:: s = \mathrm{clamp}(\mathrm{round}(L\,x / a), 0, L)

    with ``levels`` L and ``amplitude`` a. The layer after it takes the integers as they are: its
    sums are L / a times larger than of ``x``, and so must its threshold and bias be. An image of
    bytes divided by 255 loses nothing with the defaults.

    Args:
        levels: The largest integer, 1 ... 255.
        amplitude: The number that becomes it; what is larger is clamped.
        input_shape: Shape ``[C, *]`` of one input, without batch and time, if known.

    Raises:
        BridgeError: If a number can't be used.
    """

    kind = "graded"

    def __init__(
        self,
        levels: int = MOST_LEVELS,
        amplitude: float = 1.0,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(levels, int) or not 1 <= levels <= MOST_LEVELS:
            raise BridgeError(
                f"GradedInput: levels must be an integer in 1 ... {MOST_LEVELS}, found {levels!r}"
            )
        if not 0 < amplitude < math.inf:
            raise BridgeError(f"GradedInput: amplitude must be above 0, found {amplitude}")
        self.levels = levels
        self.amplitude = float(amplitude)
        if input_shape is not None:
            self.infer_shape(input_shape)

    @property
    def message_bits(self) -> int:
        """Bits of what it gives, for :class:`lava_bridge.netx.Network`."""
        return self.levels.bit_length()

    def forward(self, x: Tensor) -> Tensor:
        """Integers ``[N, *, T]``, as floats, for numbers ``[N, *, T]`` of 0 or more.

        Raises:
            BridgeError: If the input has another shape, or negative values, or such as are no
                finite numbers.
        """
        self._checked(x, 1)
        return self._rounded(x)

    def steps(self, x_seq: Tensor) -> Tensor:
        """The same of ``[T, N, *]``."""
        self._checked(x_seq, 2)
        return self._rounded(x_seq)

    @torch.no_grad()
    def _rounded(self, x: Tensor) -> Tensor:
        if bool((x < 0).any()):
            raise BridgeError(
                f"GradedInput: the input has negative values, down to {float(x.min()):g}, which "
                'graded spikes have not; shift the images, or use encoding="direct"'
            )
        # In float32 whatever comes: the same image is the same integers.
        x32 = x.to(torch.float32)
        # By a tensor, as the Encoder's voltage by tau.
        levels = torch.round(x32 / x32.new_full((), self.amplitude) * self.levels)
        if bool((levels > self.levels).any()):
            warnings.warn(
                f"GradedInput: the input has values up to {float(x.max()):g}; what is above the "
                f"amplitude, {self.amplitude:g}, is clamped to it: scale the images",
                stacklevel=1,
            )
        return levels.clamp(max=self.levels).to(self._spike.dtype)

    def _output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def extra_repr(self) -> str:
        return f"levels={self.levels}, amplitude={self.amplitude:g}, shape={self.shape}"


def encoder_on(encoder: InputEncoder, device: torch.device) -> InputEncoder:
    """The encoder, or a copy of it where it is on another device."""
    if encoder._spike.device == device:
        return encoder
    return copy.deepcopy(encoder).to(device)


def plain_synapse(kind: str, weight: Tensor, bias: Tensor | None, **settings: Any) -> nn.Module:
    """A layer of :data:`SYNAPSES` that holds these numbers, without gradients.

    Args:
        kind: Its key.
        weight: Its weight, as torch has it; the sizes are taken from it.
        bias: Its bias; None: none.
        settings: stride, padding, dilation, groups, output_padding, padding_mode.
    """
    made: Any
    outputs, inputs = weight.shape[:2]
    with torch.device("meta"):  # nothing is drawn
        if kind == "linear":
            made = nn.Linear(inputs, outputs, bias=bias is not None)
        else:
            groups = settings.get("groups", 1)
            channels = (outputs, inputs * groups) if kind == "convT" else (inputs * groups, outputs)
            window = tuple(weight.shape[2:])
            made = SYNAPSES[kind](*channels, window, bias=bias is not None, **settings)
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            held = value.detach().clone(memory_format=torch.contiguous_format)
            setattr(made, name, nn.Parameter(held, requires_grad=False))
    return made.eval()


def _copied(synapse: Any) -> nn.Module:
    for kind, layer in SYNAPSES.items():
        if isinstance(synapse, layer):
            given: Any = synapse
            names = ["stride", "padding", "dilation", "groups", "padding_mode"]
            names += ["output_padding"] if kind == "convT" else []
            settings = {} if kind == "linear" else {name: getattr(given, name) for name in names}
            return plain_synapse(kind, given.weight, given.bias, **settings)
    raise BridgeError(
        f"Encoder: expected a Linear, Conv2d or ConvTranspose2d, found a {type(synapse).__name__}"
    )


def is_block(net: Any) -> bool:
    """Whether this is a slayer block, ours or lava-dl's.

    Not a net that holds some, though lava-dl's tutorials give it an ``export_hdf5`` of its own.
    """
    return hasattr(net, "export_hdf5") and not any(
        part is not net and hasattr(part, "export_hdf5") for part in net.modules()
    )


def in_order(blocks: Iterable[nn.Module] | nn.Module) -> list[nn.Module]:
    """Blocks as a list; one block, or an encoder, may be given alone."""
    if isinstance(blocks, nn.Module) and (is_block(blocks) or isinstance(blocks, InputEncoder)):
        return [blocks]
    if not isinstance(blocks, Iterable):
        raise BridgeError(
            f"expected slayer blocks in their order, found {type(blocks).__name__}, of which only "
            "its forward knows the order; give the blocks themselves, such as net.blocks"
        )
    return list(blocks)


def split_encoder(
    blocks: Iterable[nn.Module] | nn.Module,
) -> tuple[InputEncoder | None, list[nn.Module]]:
    """The encoder in front of blocks, or None; and the blocks, of which one may be given alone."""
    net = in_order(blocks)
    if net and isinstance(net[0], InputEncoder):
        return net[0], net[1:]
    return None, net
