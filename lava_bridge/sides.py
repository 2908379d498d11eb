"""What an equivalence check can run, each net as a side of it: what its layers give on an input."""

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from spikingjelly.activation_based import base
from torch import Tensor

from .checks import first_line
from .convert.tracer import opens_steps
from .encoder import Encoder, InputEncoder, encoder_on, in_order, is_block, split_encoder
from .errors import BridgeError
from .exchange import AsSlayer, AsSpikingJelly, BlockContainer, CubaLIFNode
from .exchange.encoder import EncoderNode
from .exchange.neurons import SPIKING
from .hdf5 import load_hdf5
from .layout import NXT_to_TNX, TNX_to_NXT
from .netx import Network
from .netx.layer import SynapticLayer
from .netx.neuron import SigmaDelta
from .quantize import DECAY_SCALE, exact_dtype
from .slayer.neuron.base import STATE_OVER_WEIGHT

__all__ = ["LayerOutput", "Side", "as_module", "has_neurons", "side_of"]

_LISTS = list, tuple, nn.Sequential, nn.ModuleList

# The layer of an encoder's neurons.
ENCODER = "encoder"
_ADAPTERS = AsSlayer, AsSpikingJelly


class LayerOutput(NamedTuple):
    """What a layer with neurons gave.

    Attributes:
        name: The layer.
        delay: Steps that its spikes come later in ``spikes``.
        spikes: ``[N, *, T]``; of a layer that never fires (an Affine block) the voltages, as the
            chip's integers.
        beyond: Where its states left the chip's 24 bits, likewise; None: it has no such limits.
        is_voltage: Whether these are voltages.
        forgets: Whether its neurons keep nothing from one step to the next: a conversion adds such
            for a MaxPool2d or an Upsample, which a SpikingJelly net computes without.
    """

    name: str
    delay: int
    spikes: Tensor
    beyond: Tensor | None = None
    is_voltage: bool = False
    forgets: bool = False


class Outputs(NamedTuple):
    """What a net gave.

    Attributes:
        layers: The layers with neurons, in order.
        shape: Shape ``[N, *, T]`` of what the whole net gives; None where that is no sequence.
    """

    layers: list[LayerOutput]
    shape: torch.Size | None


class Side:
    """One of the two nets; it runs where it is, whatever device its input is on."""

    def __init__(self, name: str, quantised: bool, run: Callable[[Tensor], Outputs]) -> None:
        self.name = name
        self.quantised = quantised
        self._run = run

    def run(self, x: Tensor) -> Outputs:
        """What the net gives for a copy of ``x``: a net may compute in place."""
        try:
            # What is claimed of whole numbers is of float32's, whatever the caller casts to.
            plain = torch.autocast(x.device.type, enabled=False)
            with plain if self.quantised else nullcontext():
                return self._run(x.clone())
        except BridgeError as error:
            raise BridgeError(f"{self.name}: {error}") from error
        except Exception as error:  # a net is the user's, and so is what it raises
            reason = first_line(error)
            raise BridgeError(
                f"{self.name}: can't be run on an input of shape {tuple(x.shape)} (NXT): {reason}"
            ) from error


def side_of(net: Any, letter: str, integers: bool, x: Tensor) -> Side:
    """A net as a side of a comparison.

    Args:
        net: A SpikingJelly net, slayer blocks, a file, or a Network.
        letter: How errors call it, ``"a"`` or ``"b"``.
        integers: Whether a file is run with integers.
        x: The input ``[N, *, T]``. A file is run on its device.

    Raises:
        BridgeError: If it is none of these.
    """
    if isinstance(net, str | os.PathLike):
        if integers:
            # A file that does not have the input's shape takes that of this input, as blocks do.
            shape = tuple(x.shape[1:-1])
            chw = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
            return _integer_side(_OnInput(net, aligned=True, input_shape=chw[::-1]))
        return _slayer_side(os.fspath(net), load_hdf5(net).to(x.device))
    if isinstance(net, Network):
        return _integer_side(net)
    for part in net if isinstance(net, list | tuple) else [net]:
        if isinstance(part, nn.Module) and any(isinstance(m, _ADAPTERS) for m in part.modules()):
            raise BridgeError(
                f"{letter}: a net of both frameworks has layers of two kinds, and only one kind "
                "would be compared; check its parts: what its adapters hold, and the rest"
            )
    if is_block(net):
        net = [net]
    if isinstance(net, _LISTS) and any(map(is_block, parts := list(_parts(net)))):
        for part in parts:
            if not is_block(part) and any(is_block(m) for m in part.modules()):
                raise BridgeError(
                    f"{letter}: has slayer blocks inside a {type(part).__name__}, whose order only "
                    "its forward knows; give the blocks themselves, in order"
                )
        return _slayer_side(f"{letter} (slayer blocks)", parts)
    net = as_module(net)
    if isinstance(net, nn.Module):
        if has_neurons(net):
            return _spikingjelly_side(letter, net)
        if any(map(is_block, net.modules())):
            raise BridgeError(
                f"{letter}: has slayer blocks inside a {type(net).__name__}, whose order only its "
                "forward knows; give the blocks themselves, in order, such as net.blocks"
            )
        raise BridgeError(
            f"{letter}: has no spiking neuron ({type(net).__name__}), so that there is nothing to "
            "compare; give a whole SpikingJelly net, its blocks or its .net file"
        )
    raise BridgeError(
        f"{letter}: expected a SpikingJelly net, slayer blocks or the path of a .net file, found "
        f"{type(net).__name__}"
    )


def has_neurons(net: nn.Module) -> bool:
    """Whether a SpikingJelly net has what a check compares: neurons, or a container's sums."""
    return any(isinstance(m, SPIKING) or getattr(m, "gives_sums", False) for m in net.modules())


def _fitting(parts: Iterable[nn.Module], x: Tensor) -> Tensor:
    """The input where a net is, in the floating dtype that it computes in; without one as it is."""
    floats: list[Tensor] = [p for part in parts for p in part.parameters() if p.is_floating_point()]
    # A weight, if there is one: a neuron's decays are float32 whatever the default dtype is.
    weights = [p for p in floats if p.dim() > 1] or floats or [x]
    return _where(parts, x).to(weights[0].dtype)


def _where(parts: Iterable[nn.Module], x: Tensor) -> Tensor:
    """The input on the device of a net; where it is, if the net has no tensors."""
    return x.to(next(_tensors(parts), x).device)


def _tensors(parts: Iterable[nn.Module]) -> Iterator[Tensor]:
    for part in parts:
        yield from part.parameters()
        yield from part.buffers()


def _parts(net: Any) -> Iterator[Any]:
    """The modules of a net that is given in order, nested as you like."""
    for part in net:
        if type(part) in _LISTS:
            yield from _parts(part)
        else:
            yield part


def as_module(net: Any) -> Any:
    """A net that is given as a list or tuple, nested as you like, as an nn.Sequential."""
    if isinstance(net, list | tuple):
        return nn.Sequential(*(as_module(part) for part in net))
    return net


# slayer blocks ----------------------------------------------------------------------------------


def _slayer_side(name: str, net: Any) -> Side:
    encoder, blocks = split_encoder(net)

    def run(x: Tensor) -> Outputs:
        delay = 0
        with _untouched(in_order(net), x):
            x, outputs = _encoded(encoder, _as_planes(x))
            x = _fitting(blocks, x)
            block: Any
            for i, block in enumerate(blocks):
                x = block(x)
                if isinstance(x, tuple):  # count_log: the spikes and their rate
                    x = x[0]
                delay += bool(getattr(block, "delay_shift", False))
                if getattr(block, "neuron", None) is not None:
                    name, sums = f"{i} {type(block).__name__}", _gives_voltage(block)
                    spikes = x * block.neuron.s_scale if sums else x.clone()
                    forgets = not sums and _forgets(block.neuron)
                    outputs.append(LayerOutput(name, delay, spikes, None, sums, forgets))
        return Outputs(outputs, x.shape)

    return Side(name, True, run)


def _gives_voltage(block: Any) -> bool:
    """Whether a block gives its neurons' voltage, as an Affine of integrating neurons does."""
    integrates = block.neuron.threshold is None and hasattr(block.neuron, "voltage_decay")
    return integrates and getattr(block, "dynamics", False)


def _forgets(neuron: Any) -> bool:
    """Whether a neuron keeps nothing from one step to the next."""
    decays = (getattr(neuron, name, None) for name in ("current_decay", "voltage_decay"))
    return all(
        isinstance(decay, Tensor) and bool((torch.round(decay) == DECAY_SCALE).all())
        for decay in decays
    )


def _as_planes(x: Tensor) -> Tensor:
    """Signals of one dimension in space, ``[N, C, L, T]``, as blocks have them: of height 1."""
    return x.unsqueeze(2) if x.dim() == 4 else x


def _encoded(encoder: InputEncoder | None, x: Tensor) -> tuple[Tensor, list[LayerOutput]]:
    """What the blocks take, and the spikes of an encoder with neurons as a layer."""
    x = x if encoder is None else encoder(_where([encoder], x))
    return x, [LayerOutput(ENCODER, 0, x)] if isinstance(encoder, Encoder) else []


@contextmanager
def _untouched(blocks: list[Any], x: Tensor) -> Iterator[None]:
    """Run blocks in evaluation mode from a fresh state, then put everything back."""
    gpus = {tensor.device for tensor in (x, *_tensors(blocks)) if tensor.is_cuda}
    modules = list(dict.fromkeys(m for block in blocks for m in block.modules()))
    saved = [(m, dict(m.__dict__), dict(m._buffers), dict(m._parameters)) for m in modules]
    # Delays and decays per channel are drawn at a first forward: that would be the user's to do.
    values = [(p, p.data) for m in modules for p in m.parameters(recurse=False)]
    try:
        for module in modules:
            module.__dict__["training"] = False
            forget = getattr(module, "forget", None)
            if callable(forget):
                forget()
            else:  # of lava-dl, or none of a state
                module.__dict__.pop("delay_buffer", None)
                for state in ("current_state", "voltage_state", "spike_state"):
                    if state in module._buffers:
                        module._buffers[state] = torch.zeros_like(module._buffers[state])
        with torch.random.fork_rng(list(gpus)):
            yield
    finally:
        for module, attributes, buffers, parameters in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)
            module._parameters.clear()
            module._parameters.update(parameters)
        for parameter, value in values:
            parameter.data = value


# Integers ---------------------------------------------------------------------------------------


def begun(beyond: Tensor, first: int) -> Tensor:
    """Where states ``[N, *, T]`` left 24 bits, counted from a first step; before it, at that.

    Before its input has come to it a layer rests, or by its biases alone is beyond already.
    """
    before = beyond[..., : first + 1].any(dim=-1, keepdim=True)
    return torch.cat([before, beyond[..., first + 1 :].bool()], dim=-1)


class _OnInput(Network):
    """A file's net with the shape of an input, which no user wrote in Lava's order."""

    def _require_given(self, shape: tuple[int, ...] | None) -> None:
        try:
            super()._require_given(shape)
        except BridgeError as error:
            found = None if shape is None else tuple(shape)[::-1]
            raise BridgeError(
                f"{self.filename}: expected samples of shape {self.input_shape}, found {found}; "
                "give the input that the net takes, in the layout that layout= says"
            ) from error


def _integer_side(net: Network) -> Side:
    net = net.aligned_copy()
    encoder, net.encoder = net.encoder, None
    # Blocks of sigma-delta neurons take numbers, of which the chip's messages are whole parts.
    first, parts = net.layers[0], 1
    if isinstance(first, SynapticLayer) and isinstance(first.neuron, SigmaDelta):
        first.graded = net.graded_input = True
        parts = first.neuron.spike_scale

    def run(x: Tensor) -> Outputs:
        here = None if encoder is None else encoder_on(encoder, x.device)
        x, outputs = _encoded(here, _as_planes(x))
        given = net.encoded(x) * parts
        if parts > 1 and not torch.equal(given, given.trunc()):
            raise BridgeError(
                f"the input has values that are no whole parts of 1/{parts}, as messages of "
                "sigma-delta neurons are; round it to them, or begin with an Input block"
            )
        if not net.graded_input and not torch.equal(given, (given != 0).to(given.dtype)):
            # The input is at fault: a difference would be called the net's.
            raise BridgeError(
                "the input has values other than 0 and 1, which integers take for spikes of 1, "
                "and blocks as they are; give spikes, or convert with encoding= for analog input"
            )
        # Steps more, in which the deepest layer answers to the input's last one.
        steps, delay = given.shape[-1], 0
        layers = net.run(nn.functional.pad(given, (0, net.latency)), traces=True).layers
        for layer, later, ran in zip(net.layers, net.later_than_blocks(), layers, strict=True):
            delay += layer.steps
            first = max(later, 0)
            own = slice(first, first + steps)  # those of its block
            if layer.neuron is not None:
                dtype = exact_dtype(x)
                spikes = ran.spike[..., own].to(dtype) / layer.neuron.spike_scale
                beyond, sums = ran.traces.get("beyond"), layer.neuron.never_fires
                if beyond is not None:
                    beyond = begun(beyond[..., : own.stop], first)
                if sums:
                    spikes = ran.traces["voltage"][..., own].to(dtype)
                name = f"{layer.name} {layer.kind}"
                forgets = not sums and _forgets(layer.neuron)
                outputs.append(LayerOutput(name, delay - first, spikes, beyond, sums, forgets))
        last = layers[-1].spike
        return Outputs(outputs, torch.Size([*last.shape[:-1], steps]))

    return Side(f"{net.filename} (integers)", True, run)


# SpikingJelly -----------------------------------------------------------------------------------


def _spikingjelly_side(letter: str, net: nn.Module) -> Side:
    modules = dict(net.named_modules())
    encoders = {m for m in modules.values() if isinstance(m, EncoderNode)}
    # Of a container without a neuron the sums are compared.
    sums = [m for m in modules.values() if isinstance(m, BlockContainer) and m.gives_sums]
    nodes: dict[Any, str] = {
        m: ENCODER if m in encoders else name
        for name, m in modules.items()
        if isinstance(m, SPIKING)
        or m in sums
        or (isinstance(m, EncoderNode) and isinstance(m.encoder, Encoder))
    }
    held = {m.neuron for m in modules.values() if isinstance(m, BlockContainer)}
    quantised = all(
        node in sums or node in encoders or (isinstance(node, CubaLIFNode) and node in held)
        for node in nodes
    )
    at_once = any(node.step_mode == "m" for node in nodes) or any(map(opens_steps, net.modules()))

    def run(x: Tensor) -> Outputs:
        x_seq = NXT_to_TNX(_fitting([net], _as_planes(x) if quantised else x))
        try:
            spikes, out = _given(net, nodes, sums, x_seq, at_once)
        except Exception as error:
            if at_once:
                raise
            # Its forward may open the steps itself, as with multi_step_forward.
            try:
                spikes, out = _given(net, nodes, sums, x_seq, True)
            except Exception:
                raise error from None
        layers = [
            LayerOutput(
                _short(nodes[node]),
                0,
                TNX_to_NXT(sequence),
                is_voltage=node in sums,
                forgets=isinstance(node, CubaLIFNode) and _forgets(node),
            )
            for node, sequence in spikes.items()
        ]
        is_sequence = isinstance(out, Tensor) and out.shape[:2] == x_seq.shape[:2]
        return Outputs(layers, TNX_to_NXT(out).shape if is_sequence and out.dim() > 2 else None)

    kind = "twin of BlockContainers" if quantised else "float SpikingJelly net"
    return Side(f"{letter} ({kind})", quantised, run)


def _given(
    net: nn.Module, nodes: dict[Any, str], sums: list[Any], x_seq: Tensor, multi_step: bool
) -> tuple[dict[Any, Tensor], Any]:
    """What each of ``nodes`` gives, ``[T, N, *]``, and the net; run at once or step by step.

    ``sums`` are those that give sums of inputs instead of spikes.
    """
    found: dict[Any, list[Tensor]] = {}

    def keep(node: Any, inputs: Any, output: Tensor) -> None:
        output = output.detach().clone()
        if node in sums:
            output = output * (node.scale * STATE_OVER_WEIGHT)
        found.setdefault(node, []).append(output)

    hooks = [node.register_forward_hook(keep) for node in nodes]
    try:
        with _from_reset(net, x_seq):
            out = net(x_seq) if multi_step else [net(x_step) for x_step in x_seq]
    finally:
        for hook in hooks:
            hook.remove()
    for node, steps in found.items():
        # Within containers of steps neurons of a multi-step net run step by step.
        expected = 1 if node.step_mode == "m" else len(x_seq)
        if len(steps) != expected:
            raise BridgeError(
                f"neuron {nodes[node]} runs {len(steps)} times where {expected} is expected; "
                "use each neuron once, all in the same step mode"
            )
    spikes = {
        node: steps[0] if node.step_mode == "m" else torch.stack(steps)
        for node, steps in found.items()
    }
    for node, sequence in spikes.items():
        if sequence.shape[:2] != x_seq.shape[:2]:
            raise BridgeError(
                f"neuron {nodes[node]} gives {tuple(sequence.shape)} where [T, N, *] of "
                f"{tuple(x_seq.shape)} is expected; keep samples and steps apart"
            )
    return spikes, out if multi_step else _stacked(out)


def _stacked(steps: list[Any]) -> Tensor | None:
    """Outputs of single steps as a sequence; None if they are no tensors."""
    return torch.stack(steps) if all(isinstance(step, Tensor) for step in steps) else None


def _short(name: str) -> str:
    return name.removesuffix(".neuron")


# What a module has without its author's doing; its buffers may be states of his.
_OF_ALL_MODULES = set(nn.Module().__dict__) - {"_buffers"}


@contextmanager
def _from_reset(net: nn.Module, x: Tensor) -> Iterator[None]:
    """Run a SpikingJelly net in evaluation mode from its reset state, then put everything back."""
    gpus = {tensor.device for tensor in (x, *_tensors([net])) if tensor.is_cuda}
    modules = list(net.modules())
    training = [m.training for m in modules]
    # SpikingJelly's reset_net resets whatever has a reset().
    resets = [m for m in modules if callable(getattr(m, "reset", None))]
    saved = [(m.__dict__, dict(m.__dict__)) for m in resets]
    try:
        for module in modules:
            module.training = False
        for module in resets:
            attributes: dict[str, Any] = module.__dict__
            if isinstance(module, base.MemoryModule):
                attributes["_memories"] = copy.deepcopy(module._memories_rv)
                for sequence in ("v_seq", "i_seq"):
                    if sequence in attributes:
                        attributes[sequence] = None
            else:
                own = {k: v for k, v in attributes.items() if k not in _OF_ALL_MODULES}
                attributes.update(copy.deepcopy(own))
                getattr(module, "reset")()  # noqa: B009 - to mypy any attribute may be a Tensor
        with torch.random.fork_rng(list(gpus)):
            yield
    finally:
        for attributes, before in saved:
            attributes.clear()
            attributes.update(before)
        for module, mode in zip(modules, training, strict=True):
            module.training = mode
