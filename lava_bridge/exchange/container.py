"""A synapse and its quantised neuron as one SpikingJelly module: the twin of a slayer block."""

import copy
import os
import threading
import warnings
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn as nn
import torch.nn.functional as F
from spikingjelly.activation_based import base, neuron
from torch import Tensor

from .. import slayer as native_slayer
from ..checks import described, has_hooks, require
from ..errors import BridgeError, ConversionError
from ..quantize import quantize_8bit, truncate
from ..slayer.neuron.base import STATE_OVER_WEIGHT
from ..slayer.neuron.norm import ChannelBias
from .cuba_lif import CubaLIFNode, check_scale
from .neurons import check_bias, check_takes_bias, set_bias, to_lava_neuron_param_dict
from .pool import SumPool2d
from .smooth import widened
from .synapses import check_flatten, check_synapse, check_type
from .to_lava import block_of, to_lava_block_flatten

__all__ = ["BlockContainer", "to_cuba_lif"]

# While a synapse is called with its hooks it computes what its container does: in one thread only.
_CALLED: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
if hasattr(os, "register_at_fork"):  # a child has none of the threads that hold one
    os.register_at_fork(after_in_child=_CALLED.clear)

SYNAPSES = (
    nn.Linear,
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Upsample,
    nn.UpsamplingNearest2d,
    SumPool2d,
)


class BlockContainer(nn.Module, base.StepModule):
    """A synapse with weights of 8 bits and a :class:`CubaLIFNode`: spike for spike a slayer block.

    .. math:: s = \\mathrm{neuron}(q(W)\\,x)

    The weights stay floats and are quantised in every forward, with a straight-through gradient, so
    that a net of these containers can be trained on (quantisation-aware).

    A synapse's bias becomes the neuron's, a
    :class:`~lava_bridge.slayer.neuron.norm.ChannelBias` of 13 bits. The container then holds a
    synapse and a neuron of its own, which share their parameters with those given; these are left
    as they are.

    Args:
        synapse: A Linear, Conv2d or ConvTranspose2d, a :class:`SumPool2d`, an Upsample by whole
            factors, or a Flatten.
        neu: SpikingJelly's neurons become a :class:`CubaLIFNode` with their surrogate function;
            None for a Flatten, and for a Linear whose sums are the net's output:
            :math:`y = \\mathrm{trunc}(s\\,q(W)\\,x) / s + q(b)`, where s is ``64 * scale``, as the
            voltage of an Affine block.
        step_mode: ``"s"``: ``[N, *]``; ``"m"``: ``[T, N, *]``.
        scale: What a weight of 1 is on the chip, where no neuron says it.

    Attributes:
        bias: The ``ChannelBias`` of a Linear without a neuron; None: it has none.
        weight_factor: By what the weights, bias and threshold of the net that it was converted from
            were multiplied, as its block has it. It is a note: what it computes has it in. A state
            dict has it where it is not 1, and with it the threshold, so that both are loaded; it is
            1 after loading weights without one.

    Raises:
        ConversionError: If slayer has no such synapse or neuron: soft reset, ``decay_input=True``,
            a bias in front of a neuron whose current decay is not 1, ...
    """

    weight_factor = 1.0

    def __init__(
        self,
        synapse: nn.Module,
        neu: nn.Module | None,
        step_mode: str = "s",
        scale: int = 1 << 6,
    ) -> None:
        super().__init__()
        node: Any = neu
        if neu is not None and not isinstance(neu, CubaLIFNode):
            node = to_cuba_lif(neu)
        if isinstance(synapse, nn.Flatten):
            check_type(synapse, nn.Flatten)
            check_flatten(synapse)
            if neu is not None:
                raise ConversionError("a Flatten has no neuron; put None in its place")
        elif isinstance(synapse, SYNAPSES):
            check_type(synapse, *SYNAPSES)
            check_synapse(synapse)
            if neu is None and not isinstance(synapse, nn.Linear):
                raise ConversionError(f"a {type(synapse).__name__} needs a neuron; found None")
        else:
            raise ConversionError(
                f"no block has a {type(synapse).__name__} for its synapse; use Linear, Conv2d, "
                "ConvTranspose2d, SumPool2d, Upsample or Flatten"
            )
        check_scale("BlockContainer", scale)
        self._scale = int(scale)
        own: Any = None
        bias = getattr(synapse, "bias", None)
        if bias is not None:
            own = ChannelBias(bias.numel(), self._scale if node is None else node.scale)
            check_bias(bias, own.scale)
            own.value = bias
            synapse = _sharing(synapse, bias=None)
            if node is not None:
                check_takes_bias(node, to_lava_neuron_param_dict(node))
                node = _sharing(node, norm=own)
        self.synapse: Any = synapse
        self.neuron: CubaLIFNode | None = node
        self.bias: ChannelBias | None = own if node is None else None
        self.step_mode = step_mode

    @property
    def gives_sums(self) -> bool:
        """Whether it has no neuron and gives sums: a Linear at the end of a net."""
        return self.neuron is None and isinstance(self.synapse, nn.Linear)

    @property
    def scale(self) -> int:
        """What a weight of 1 is on the chip."""
        return self._scale if self.neuron is None else self.neuron.scale

    @property
    def step_mode(self) -> str:
        """``"s"`` or ``"m"``; setting it sets the parts' too."""
        return self._step_mode

    @step_mode.setter
    def step_mode(self, value: str) -> None:
        if value not in ("s", "m"):
            raise BridgeError(f"BlockContainer: step_mode must be 's' or 'm', found {value!r}")
        self._step_mode = value
        for part in (self.synapse, self.neuron):
            if isinstance(part, base.StepModule):
                part.step_mode = value

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[T, N, *]`` for spikes ``[T, N, *]``; without T in step mode ``"s"``.

        The hooks of the synapse run as if it were called; pruning is one, which makes its weight.
        """
        self._require(x)
        steps = x if self.step_mode == "s" else x.flatten(0, 1)
        z = self._called(steps) if has_hooks(self.synapse) else self._apply_synapse(steps)
        if self.gives_sums:
            z = self._sum(z).to(z.dtype)
        if self.step_mode == "m":
            z = z.unflatten(0, x.shape[:2])
        return z if self.neuron is None else self.neuron(z)

    def _require(self, x: Tensor) -> None:
        """Require an input as the synapse takes it."""
        of = self.synapse
        time = "T, " if self.step_mode == "m" else ""
        axes = "N, F" if isinstance(of, nn.Linear) else "N, C, H, W"
        axes = "N, C, *" if isinstance(of, nn.Flatten) else axes
        require("BlockContainer", x, f"[{time}{axes}]")
        if of._parameters.get("bias") is not None:
            raise BridgeError(
                f"BlockContainer: its {type(of).__name__} has a bias, which belongs to the neuron "
                "since the container was made; make a new one of a layer that is put in its place"
            )
        sizes = vars(of)
        channels = sizes.get("in_features", sizes.get("in_channels"))
        if channels not in (None, x.shape[2 if time else 1]):
            raise BridgeError(
                f"BlockContainer: expected {channels} channels for its {type(of).__name__}, found "
                f"{described(x)}; check the layer before it"
            )

    def _called(self, x: Tensor) -> Tensor:
        """The synapse called, with its hooks, to compute what the container does."""
        compiling = torch.compiler.is_compiling()
        with nullcontext() if compiling else _CALLED.setdefault(self.synapse, threading.RLock()):
            # Through its dict: torch.compile does not follow the deletion of an attribute.
            vars(self.synapse)["forward"] = self._apply_synapse
            try:
                return self.synapse(x)
            finally:
                vars(self.synapse).pop("forward")

    def _apply_synapse(self, x: Tensor) -> Tensor:
        synapse: Any = self.synapse
        if isinstance(synapse, nn.Flatten):
            return x.flatten(1)
        if not isinstance(synapse, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            # torch's forward: in step mode "m", SpikingJelly's Upsample takes [T, N, *].
            torchs = nn.Upsample if isinstance(synapse, nn.Upsample) else SumPool2d
            return torchs.forward(synapse, x) * quantize_8bit(x.new_ones(()), self.scale)
        weight = quantize_8bit(synapse.weight, self.scale)
        if isinstance(synapse, nn.Linear):
            return F.linear(x, weight)
        window = {name: getattr(synapse, name) for name in ("stride", "padding", "dilation")}
        kind = F.conv2d if isinstance(synapse, nn.Conv2d) else F.conv_transpose2d
        return kind(x, weight, **window, groups=synapse.groups)

    def _sum(self, z: Tensor) -> Tensor:
        z = truncate(z, self.scale * STATE_OVER_WEIGHT)
        return z if self.bias is None else self.bias(z)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.weight_factor != 1:  # else the names are those of SpikingJelly's container
            kept = {"weight_factor": self.weight_factor}
            if self.neuron is not None:
                kept["v_threshold"] = self.neuron.v_threshold
            for name, value in kept.items():
                destination[prefix + name] = torch.tensor(value, dtype=torch.float64)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        factor = float(state_dict.pop(f"{prefix}weight_factor", 1.0))
        threshold = state_dict.pop(f"{prefix}v_threshold", None)
        if f"{prefix}synapse.weight" in state_dict:
            if self.neuron is not None and threshold is not None:
                self.neuron.v_threshold = float(threshold)
                self.neuron.surrogate_function = widened(
                    self.neuron.surrogate_function, factor / self.weight_factor
                )
            elif self.neuron is not None and factor != self.weight_factor:
                warnings.warn(
                    f"{prefix}weight: those that were multiplied by {factor:g} are loaded "
                    f"beside a threshold that was by {self.weight_factor:g}, and no threshold is "
                    "with them; convert their net again for a container that fits",
                    stacklevel=2,
                )
            self.weight_factor = factor
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return "" if self.weight_factor == 1 else f"weight_factor={self.weight_factor:.4g}"

    def to_lava_block(self, slayer: Any = native_slayer) -> nn.Module:
        """The slayer block that gives the same spikes, with copies of the weights.

        Args:
            slayer: ``lava_bridge.slayer``, or ``lava.lib.dl.slayer`` for the original's blocks.
        """
        if isinstance(self.synapse, nn.Flatten):
            return to_lava_block_flatten(self.synapse, slayer=slayer)
        block = block_of(self.synapse, self.neuron, slayer=slayer, scale=self.scale)
        if self.bias is not None:
            set_bias(block.neuron, self.bias.value, slayer)
        block.weight_factor = self.weight_factor
        return block


def _sharing(module: nn.Module, **changed: Any) -> Any:
    """A copy of a module that shares its parameters, but for the attributes that are given."""
    own = copy.deepcopy(module, {id(p): p for p in module.parameters()})
    for name, value in changed.items():
        setattr(own, name, value)
    return own


def to_cuba_lif(neu: nn.Module) -> CubaLIFNode:
    """A :class:`CubaLIFNode` for SpikingJelly's IFNode or LIFNode, with its surrogate function."""
    params = to_lava_neuron_param_dict(neu)
    assert isinstance(neu, neuron.IFNode | neuron.LIFNode)
    return CubaLIFNode(
        params["current_decay"],
        params["voltage_decay"],
        params["threshold"],
        scale=params["scale"],
        surrogate_function=neu.surrogate_function,
        detach_reset=neu.detach_reset,
        step_mode=neu.step_mode,
        store_v_seq=neu.store_v_seq,
    )
