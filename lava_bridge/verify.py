"""The equivalence check: two nets run on the same input, compared spike by spike, layer by layer.

Two kinds of claim, never mixed:

- *exact*: both sides are quantised (slayer blocks, a ``.net`` file, BlockContainers). They must
  give the same spikes; one that differs is a defect.
- *drift*: one side is a float net. The difference is measured and shown, never called equivalence.
"""

import math
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checks import dense, integer
from .distributed import agreed, gathered, require_group, share_of
from .errors import BridgeError
from .layout import TNX_to_NXT
from .netx import Network
from .progress import progress_bar
from .report import EquivalenceReport, LayerComparison
from .sides import LayerOutput, Side, begun, side_of

__all__ = ["EquivalenceReport", "check_equivalence"]


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

    Of a layer that never fires, an Affine block's, the voltages are compared. A float SpikingJelly
    net has no such layer, nor such as stand for its MaxPool2d or Upsample: they are left out there.

    The nets run from a fresh state, in evaluation mode and without gradients, and are left as they
    were. Each runs where it is, a file on the device of ``x``. Where a side delays its spikes by a
    step a layer, as the chip does, its spikes are compared that much later.

    Args:
        a, b: A SpikingJelly net (float, or of BlockContainers), slayer blocks, a ``.net`` file, or
            a :class:`lava_bridge.netx.Network`.
        x: The input, ``[T, N, *]``; with ``layout="NXT"``, ``[N, *, T]``. Where a side has an
            encoder, the analog input: the encoder's spikes are compared too, as its first layer.
        layout: ``"TNX"`` or ``"NXT"``.
        batch_size: Samples run at once.
        integers: Run ``.net`` files with integers, as Lava does, instead of as blocks; one net at
            least has to be a file. Where a current or a voltage reaches the ends of the chip's 24
            bits, which blocks do not have, the report says so.
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
    batch_size = integer("check_equivalence: batch_size", batch_size)
    if batch_size < 1:
        raise BridgeError(f"check_equivalence: batch_size must be 1 or more, found {batch_size}")
    if integers and not any(isinstance(net, str | os.PathLike | Network) for net in (a, b)):
        raise BridgeError(
            "check_equivalence: integers=True runs a .net file with integers, and neither net is "
            "one; give the path of the exported file"
        )
    side_a, side_b = (side_of(net, letter, integers, x_nxt) for net, letter in ((a, "a"), (b, "b")))
    claim = "exact" if side_a.quantised and side_b.quantised else "drift"
    comparisons: list[LayerComparison] = []
    starts = range(0, x_nxt.shape[0], batch_size)
    with torch.no_grad(), progress_bar("comparing", len(starts)) as advance:
        for start in starts:
            batch = x_nxt[start : start + batch_size]
            try:
                (outputs_a, shape_a), (outputs_b, shape_b) = side_a.run(batch), side_b.run(batch)
            except BridgeError as error:
                axes = "[T, N, *]" if layout == "TNX" else "[N, *, T]"
                raise BridgeError(
                    f"{error} (layout={layout!r} takes x {tuple(x.shape)} for {axes})"
                ) from error
            outputs_a, outputs_b = _of_both(outputs_a, outputs_b, claim)
            outputs_b = _matched(side_a, outputs_a, side_b, outputs_b)
            if not outputs_a:
                raise BridgeError(
                    f"{side_a.name} and {side_b.name} have no layer with neurons, so that there is "
                    "nothing to compare; give whole nets"
                )
            if claim == "exact" and shape_a and shape_b and not _same_neurons(shape_a, shape_b):
                raise BridgeError(
                    f"{side_a.name} gives {tuple(shape_a)}, but {side_b.name} gives "
                    f"{tuple(shape_b)} (NXT) after their last neurons; compare nets of the same "
                    "layers"
                )
            if not comparisons:
                comparisons = [
                    LayerComparison(a.name, b.name, tuple(a.spikes.shape[1:-1]))
                    for a, b in zip(outputs_a, outputs_b, strict=True)
                ]
            for comparison, in_a, in_b in zip(comparisons, outputs_a, outputs_b, strict=True):
                _compare(comparison, in_a, in_b, start)
            advance()
    return EquivalenceReport(
        claim, side_a.name, side_b.name, x_nxt.shape[0], comparisons, tuple(x_nxt.shape)
    )


def _compare(comparison: LayerComparison, a: LayerOutput, b: LayerOutput, start: int) -> None:
    """Take what both sides gave of a layer, for samples from ``start`` on, into account."""
    early = min(a.delay, b.delay)
    late = max(a.delay, b.delay) - early
    steps = a.spikes.shape[-1] - late
    if steps < 1:
        raise BridgeError(
            f"check_equivalence: layer {comparison.name_a} has nothing to compare: its spikes come "
            f"{late} steps late, and the input has {a.spikes.shape[-1]}; give more time steps"
        )
    firsts = a.delay - early, b.delay - early
    in_a, in_b = (
        side.spikes[..., first : first + steps] for side, first in zip((a, b), firsts, strict=True)
    )
    comparison.add(in_a, in_b, start)
    for side, first in zip((a, b), firsts, strict=True):
        if side.beyond is not None:
            comparison.add_beyond(begun(side.beyond, first), start)


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
    x = dense("check_equivalence: the input is", x)
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


def _of_both(
    outputs_a: list[LayerOutput], outputs_b: list[LayerOutput], claim: str
) -> tuple[list[LayerOutput], list[LayerOutput]]:
    """The layers that both nets have; in a float net, of those that spike.

    Of two nets that have not as many, one computes a MaxPool2d or an Upsample without neurons. An
    exact claim needs a layer after it, in which a difference would show.
    """
    if claim == "drift":
        sides = outputs_a, outputs_b
        outputs_a, outputs_b = ([o for o in side if not o.is_voltage] for side in sides)
    if len(outputs_a) > len(outputs_b):
        outputs_a = _without_others(outputs_a, outputs_b, claim)
    elif len(outputs_b) > len(outputs_a):
        outputs_b = _without_others(outputs_b, outputs_a, claim)
    return outputs_a, outputs_b


def _without_others(
    many: list[LayerOutput], few: list[LayerOutput], claim: str
) -> list[LayerOutput]:
    """Of many layers those that the other net has too: without as many that forget at once."""
    kept: list[LayerOutput] = []
    spare = len(many) - len(few)
    for layer in many:
        mate = few[len(kept)] if len(kept) < len(few) else None
        left_out = not mate.forgets if mate else claim == "drift"
        if spare and layer.forgets and left_out:
            spare -= 1
        else:
            kept.append(layer)
    return kept if len(kept) == len(few) else many  # all are told then


def _matched(
    side_a: Side, outputs_a: list[LayerOutput], side_b: Side, outputs_b: list[LayerOutput]
) -> list[LayerOutput]:
    """The outputs of b in the shapes of a's: a height of 1 may lack, a layer may be flat."""
    if len(outputs_a) != len(outputs_b):
        raise BridgeError(
            f"{side_a.name} has {len(outputs_a)} layers with neurons, {side_b.name} has "
            f"{len(outputs_b)}; compare nets of the same layers"
        )
    matched = []
    for a, b in zip(outputs_a, outputs_b, strict=True):
        if not _same_neurons(a.spikes.shape, b.spikes.shape):
            raise BridgeError(
                f"{side_a.name}, layer {a.name} gives {tuple(a.spikes.shape)}, but {side_b.name}, "
                f"layer {b.name} gives {tuple(b.spikes.shape)} (NXT); compare nets of the same "
                "layers"
            )
        matched.append(b._replace(spikes=b.spikes.reshape(a.spikes.shape)))
    return matched


def _same_neurons(a: torch.Size, b: torch.Size) -> bool:
    """Whether shapes ``[N, *, T]`` are of the same neurons: equal but for ones, or one is flat."""
    (samples_a, *shape_a, steps_a), (samples_b, *shape_b, steps_b) = a, b
    large_a, large_b = ([size for size in shape if size > 1] for shape in (shape_a, shape_b))
    is_flat = min(len(large_a), len(large_b)) <= 1 and math.prod(large_a) == math.prod(large_b)
    return (samples_a, steps_a) == (samples_b, steps_b) and (large_a == large_b or is_flat)
