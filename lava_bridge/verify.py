"""The equivalence check: two nets run on the same input, compared spike by spike, layer by layer.

Two kinds of claim, never mixed:

- *exact*: both sides are quantised (slayer blocks, a ``.net`` file, BlockContainers). They must
  give the same spikes; one that differs is a defect.
- *drift*: one side is a float net. The difference is measured and shown, never called equivalence.
"""

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn
from spikingjelly.activation_based import base, neuron
from torch import Tensor

from .distributed import agreed, gathered, require_group, share_of
from .encoder import Encoder, split_encoder
from .errors import BridgeError
from .exchange import BlockContainer, CubaLIFNode
from .exchange.encoder import EncoderNode
from .hdf5 import load_hdf5
from .layout import NXT_to_TNX, TNX_to_NXT
from .netx import Network
from .netx.network import as_dense
from .progress import progress_bar
from .report import EquivalenceReport, LayerComparison

__all__ = ["EquivalenceReport", "check_equivalence"]

# The layer of an encoder's neurons.
ENCODER = "encoder"


class LayerOutput(NamedTuple):
    """What a layer with neurons gave.

    Attributes:
        name: The layer.
        delay: Steps that its spikes come later.
        spikes: ``[N, *, T]``.
        beyond: Where its states left the chip's 24 bits, likewise; None: it has no such limits.
    """

    name: str
    delay: int
    spikes: Tensor
    beyond: Tensor | None = None


def check_equivalence(
    a: Any,
    b: Any,
    x: Tensor | np.ndarray,
    layout: str = "TNX",
    batch_size: int = 64,
    integers: bool = False,
    distributed: bool = False,
) -> EquivalenceReport:
    """Run two nets on ``x`` and compare the spikes of every layer that has neurons.

    The nets run from a fresh state, in evaluation mode and without gradients, and are left as they
    were. Where a side delays its spikes by a step a layer, as the chip does, its spikes are
    compared that much later.

    Args:
        a, b: A SpikingJelly net (float, or of BlockContainers), slayer blocks, a ``.net`` file, or
            a :class:`lava_bridge.netx.Network`.
        x: The input, ``[T, N, *]``; with ``layout="NXT"``, ``[N, *, T]``. Where a side has an
            encoder, the analog input: the encoder's spikes are compared too, as its first layer.
        layout: ``"TNX"`` or ``"NXT"``.
        batch_size: Samples run at once.
        integers: Run ``.net`` files with integers, as Lava does, instead of as blocks. Where a
            current or a voltage reaches the ends of the chip's 24 bits, which blocks do not have,
            the report says so.
        distributed: Share the samples out among the ranks of ``torch.distributed``'s process group,
            which must be initialised. All ranks give the same nets and input (of one that is
            memory-mapped each reads its share) and get the same report, that of one process on all
            samples. An error on one is raised on all.

    Returns:
        ``report.ok`` where no spike differs; ``print(report)``, ``report.plot()``.

    Raises:
        BridgeError: If a net can't be run on ``x``, or the nets have not the same layers.
    """
    if distributed:
        return _over_ranks(a, b, x, layout, batch_size, integers)
    x_nxt = _as_nxt(x, layout)
    if batch_size < 1:
        raise BridgeError(f"check_equivalence: batch_size must be 1 or more, found {batch_size}")
    shape = tuple(x_nxt.shape[1:-1])
    side_a, side_b = (_side(net, letter, integers, shape) for net, letter in ((a, "a"), (b, "b")))
    comparisons: list[LayerComparison] = []
    starts = range(0, x_nxt.shape[0], batch_size)
    with torch.no_grad(), progress_bar("comparing", len(starts)) as advance:
        for start in starts:
            batch = x_nxt[start : start + batch_size]
            outputs_a, outputs_b = side_a.run(batch), side_b.run(batch)
            _match_layers(side_a, outputs_a, side_b, outputs_b)
            if not comparisons:
                comparisons = [
                    LayerComparison(a.name, b.name, tuple(a.spikes.shape[1:-1]))
                    for a, b in zip(outputs_a, outputs_b, strict=True)
                ]
            for comparison, a, b in zip(comparisons, outputs_a, outputs_b, strict=True):
                late = max(a.delay, b.delay)
                steps = a.spikes.shape[-1] - late
                if steps < 1:
                    raise BridgeError(
                        f"check_equivalence: layer {comparison.name_a} has nothing to compare: its "
                        f"spikes come {late} steps late, and the input has {a.spikes.shape[-1]}; "
                        "give more time steps"
                    )
                comparison.add(
                    a.spikes[..., a.delay : a.delay + steps],
                    b.spikes[..., b.delay : b.delay + steps],
                    start,
                )
                for side in (a, b):
                    if side.beyond is not None:
                        comparison.add_beyond(side.beyond, start)
            advance()
    claim = "exact" if side_a.quantised and side_b.quantised else "drift"
    return EquivalenceReport(claim, side_a.name, side_b.name, x_nxt.shape[0], comparisons)


def _over_ranks(
    a: Any, b: Any, x: Tensor | np.ndarray, layout: str, batch_size: int, integers: bool
) -> EquivalenceReport:
    """:func:`check_equivalence` on each rank's share of the samples, as one report."""
    require_group("check_equivalence")

    def compare() -> EquivalenceReport | None:
        whole, order = x, layout
        if not isinstance(x, np.ndarray) or x.ndim < 3 or not x.size:
            whole, order = _as_nxt(x, layout), "NXT"
        first, end = share_of(whole.shape[order == "TNX"])
        if first == end:
            return None
        share = whole[:, first:end] if order == "TNX" else whole[first:end]
        if isinstance(share, np.ndarray) and not share.flags.writeable:
            share = np.array(share)  # memory-mapped: now it is read
        report = check_equivalence(a, b, share, order, batch_size, integers)
        for layer in report.layers[: None if first else 0]:  # the rasters show sample 0
            layer.raster_a = layer.raster_b = torch.zeros(0, 0)
        return report

    reports = gathered(agreed(compare))
    return EquivalenceReport.merged([report for report in reports if report is not None])


def _as_nxt(x: Tensor | np.ndarray, layout: str) -> Tensor:
    if layout not in ("TNX", "NXT"):
        raise BridgeError(f"check_equivalence: layout must be 'TNX' or 'NXT', found {layout!r}")
    try:
        x = as_dense(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BridgeError(
            f"check_equivalence: the input is no array of numbers: {error}"
        ) from error
    if x.is_complex():
        raise BridgeError("check_equivalence: the input is complex; give spikes, real numbers")
    if not x.is_floating_point():
        x = x.float()
    if x.dim() < 3:
        raise BridgeError(
            f"check_equivalence: expected an input in layout {layout} of 3 or more dimensions, "
            f"found shape {tuple(x.shape)}"
        )
    if not x.numel():
        raise BridgeError(
            f"check_equivalence: an input of shape {tuple(x.shape)} has nothing to compare; give "
            "at least one sample and one time step"
        )
    if not bool(torch.isfinite(x).all()):
        raise BridgeError("check_equivalence: the input has values that are NaN or infinite")
    return TNX_to_NXT(x) if layout == "TNX" else x


class _Side:
    """One of the two nets."""

    def __init__(self, name: str, quantised: bool, run: Callable[[Tensor], Any]) -> None:
        self.name = name
        self.quantised = quantised
        self._run = run

    def run(self, x: Tensor) -> list[LayerOutput]:
        try:
            return self._run(x)
        except BridgeError as error:
            raise BridgeError(f"{self.name}: {error}") from error
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BridgeError(
                f"{self.name}: can't be run on an input of shape {tuple(x.shape)} (NXT): {reason}"
            ) from error


def _side(net: Any, letter: str, integers: bool, shape: tuple[int, ...]) -> _Side:
    if isinstance(net, str | os.PathLike):
        if integers:
            # A file that does not have the input's shape takes that of this input, as blocks do.
            whc = None if len(shape) == 2 else shape[::-1]
            return _integer_side(Network(net, aligned=True, input_shape=whc))
        return _slayer_side(os.fspath(net), load_hdf5(net))
    if isinstance(net, Network):
        return _integer_side(net)
    if hasattr(net, "export_hdf5"):
        net = [net]
    if isinstance(net, list | tuple | nn.Sequential) and any(
        hasattr(block, "export_hdf5") for block in net
    ):
        return _slayer_side(f"{letter} (slayer blocks)", net)
    net = as_module(net)
    if isinstance(net, nn.Module) and any(isinstance(m, neuron.BaseNode) for m in net.modules()):
        return _spikingjelly_side(letter, net)
    raise BridgeError(
        f"{letter}: expected a SpikingJelly net, slayer blocks or the path of a .net file, found "
        f"{type(net).__name__} without any neuron"
    )


def _dtype(parts: Any, x: Tensor) -> torch.dtype:
    """The floating dtype that a net computes in; that of ``x`` if it has no parameters."""
    found = (p.dtype for part in parts for p in part.parameters() if p.is_floating_point())
    return next(found, x.dtype)


def as_module(net: Any) -> Any:
    """A net that is given as a list or tuple, nested as you like, as an nn.Sequential."""
    if isinstance(net, list | tuple):
        return nn.Sequential(*(as_module(part) for part in net))
    return net


def _match_layers(
    side_a: _Side, outputs_a: list[LayerOutput], side_b: _Side, outputs_b: list[LayerOutput]
) -> None:
    if len(outputs_a) != len(outputs_b):
        raise BridgeError(
            f"{side_a.name} has {len(outputs_a)} layers with neurons, {side_b.name} has "
            f"{len(outputs_b)}; compare nets of the same layers"
        )
    for a, b in zip(outputs_a, outputs_b, strict=True):
        if a.spikes.shape != b.spikes.shape:
            raise BridgeError(
                f"{side_a.name}, layer {a.name} gives {tuple(a.spikes.shape)}, but {side_b.name}, "
                f"layer {b.name} gives {tuple(b.spikes.shape)} (NXT); compare nets of the same "
                "layers"
            )


# slayer blocks ----------------------------------------------------------------------------------


def _slayer_side(name: str, net: Any) -> _Side:
    encoder, blocks = split_encoder(net)

    def run(x: Tensor) -> list[LayerOutput]:
        delay = 0
        with _untouched(net):
            x, outputs = _encoded(encoder, x)
            x = x.to(_dtype(blocks, x))
            for i, block in enumerate(blocks):
                x = block(x)
                if isinstance(x, tuple):  # count_log: the spikes and their rate
                    x = x[0]
                delay += bool(getattr(block, "delay_shift", False))
                if getattr(block, "neuron", None) is not None:
                    outputs.append(LayerOutput(f"{i} {type(block).__name__}", delay, x))
        return outputs

    return _Side(name, True, run)


def _encoded(encoder: nn.Module | None, x: Tensor) -> tuple[Tensor, list[LayerOutput]]:
    """What the blocks take, and the spikes of an encoder with neurons as a layer."""
    x = x if encoder is None else encoder(x)
    return x, [LayerOutput(ENCODER, 0, x)] if isinstance(encoder, Encoder) else []


@contextmanager
def _untouched(blocks: Any) -> Iterator[None]:
    """Run blocks in evaluation mode from a fresh state, then put everything back."""
    modules = list(dict.fromkeys(m for block in blocks for m in block.modules()))
    saved = [(m, dict(m.__dict__), dict(m._buffers), dict(m._parameters)) for m in modules]
    # Delays and decays per channel are drawn at a first forward: that would be the user's to do.
    values = [(p, p.data) for m in modules for p in m.parameters(recurse=False)]
    random = torch.get_rng_state()
    try:
        for module in modules:
            module.__dict__["training"] = False
            module.__dict__.pop("delay_buffer", None)
            for state in ("current_state", "voltage_state", "spike_state"):
                if state in module._buffers:
                    module._buffers[state] = torch.zeros_like(module._buffers[state])
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
        torch.set_rng_state(random)


# Integers ---------------------------------------------------------------------------------------


def _integer_side(net: Network) -> _Side:
    net = copy.copy(net)  # its state stays as it was
    encoder, net.encoder = net.encoder, None

    def run(x: Tensor) -> list[LayerOutput]:
        delay = 0
        x, outputs = _encoded(encoder, x)
        layers = net.run(net.encoded(x), traces=True).layers
        for layer, ran in zip(net.layers, layers, strict=True):
            delay += layer.steps
            if layer.neuron is not None:
                spikes = ran.spike.to(x.dtype) / layer.neuron.spike_scale
                beyond = ran.traces.get("beyond")
                outputs.append(LayerOutput(f"{layer.name} {layer.kind}", delay, spikes, beyond))
        return outputs

    return _Side(f"{net.filename} (integers)", True, run)


# SpikingJelly -----------------------------------------------------------------------------------


def _spikingjelly_side(letter: str, net: nn.Module) -> _Side:
    encoders = {m for m in net.modules() if isinstance(m, EncoderNode)}
    nodes: dict[Any, str] = {
        m: ENCODER if m in encoders else name
        for name, m in net.named_modules()
        if isinstance(m, neuron.BaseNode)
        or (isinstance(m, EncoderNode) and isinstance(m.encoder, Encoder))
    }
    held = {m.neuron for m in net.modules() if isinstance(m, BlockContainer)}
    quantised = all(
        node in encoders or (isinstance(node, CubaLIFNode) and node in held) for node in nodes
    )
    multi_step = any(node.step_mode == "m" for node in nodes)

    def run(x: Tensor) -> list[LayerOutput]:
        spikes: dict[nn.Module, list[Tensor]] = {}

        def keep(node: nn.Module, inputs: Any, output: Tensor) -> None:
            spikes.setdefault(node, []).append(output.detach())

        hooks = [node.register_forward_hook(keep) for node in nodes]
        try:
            with _from_reset(net):
                x_seq = NXT_to_TNX(x.to(_dtype([net], x)))
                if multi_step:
                    net(x_seq)
                else:
                    for x_step in x_seq:
                        net(x_step)
        finally:
            for hook in hooks:
                hook.remove()
        expected = 1 if multi_step else x.shape[-1]
        for node, steps in spikes.items():
            if len(steps) != expected:
                raise BridgeError(
                    f"neuron {nodes[node]} runs {len(steps)} times where {expected} is expected; "
                    "use each neuron once, all in the same step mode"
                )
        return [
            LayerOutput(
                _short(nodes[node]), 0, TNX_to_NXT(steps[0] if multi_step else torch.stack(steps))
            )
            for node, steps in spikes.items()
        ]

    kind = "twin of BlockContainers" if quantised else "float SpikingJelly net"
    return _Side(f"{letter} ({kind})", quantised, run)


def _short(name: str) -> str:
    return name.removesuffix(".neuron")


@contextmanager
def _from_reset(net: nn.Module) -> Iterator[None]:
    """Run a SpikingJelly net in evaluation mode from its reset state, then put everything back."""
    modules = list(net.modules())
    training = [m.training for m in modules]
    memories = [
        (m, m.__dict__, dict(m.__dict__)) for m in modules if isinstance(m, base.MemoryModule)
    ]
    try:
        for module in modules:
            module.training = False
        for module, attributes, _ in memories:
            attributes["_memories"] = dict(module._memories_rv)
            for sequence in ("v_seq", "i_seq"):
                if sequence in attributes:
                    attributes[sequence] = None
        yield
    finally:
        for _, attributes, before in memories:
            attributes.clear()
            attributes.update(before)
        for module, mode in zip(modules, training, strict=True):
            module.training = mode
