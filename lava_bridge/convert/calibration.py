r"""Calibration: by what each layer is multiplied before it is rounded to 8 bits.

An IFNode's or LIFNode's state is linear in what comes in, and a comparison with the threshold
and a reset to 0 don't see a common factor:

.. math::
    v[t] = (1 - \alpha)\,v[t-1] + W x[t] + b \;\Rightarrow\;
    s v[t] = (1 - \alpha)\,s v[t-1] + s W x[t] + s b, \qquad
    v[t] \ge \vartheta \iff s v[t] \ge s \vartheta

so that weights, bias and threshold of a layer may be multiplied by any factor s > 0 without a
change of its spikes. Rounded to the chip's integers they do depend on s: the calibration chooses
it, layer by layer.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn
from spikingjelly.activation_based import neuron
from torch import Tensor

from ..checks import dense, first_line
from ..errors import ConversionError
from ..exchange import SumPool2d
from ..exchange.cuba_lif import THRESHOLD_MAX
from ..ops.loihi.register import STATE_MAX
from ..progress import progress_bar
from ..quantize import BIAS_MAX, BIAS_MIN, WEIGHT_MAX, WEIGHT_MIN, all_finite, quantize_8bit
from ..slayer.neuron.base import STATE_OVER_WEIGHT
from .choices import Calibration, LayerChoice
from .layer_run import FloatRun, QuantisedRun, lowest_weight, scale_of
from .layers import FloatLayer
from .reach import channels_after, expected_reach

__all__ = ["CLIP_POINTS", "calibrate", "checked_data"]

# Shares of the largest weight's magnitude that are tried as the largest that 8 bits hold.
CLIP_POINTS = tuple(1 - i / 20 for i in range(13))
# Where weights are counted, so many, drawn by chance, stand for those of a layer that has more.
MOST_COUNTED = 1 << 18
# Share of the 24 bits that measured states may take: other data reach further.
HEADROOM = 7 / 8
# A threshold of so many steps of its grid is moved to where its rounding loses nothing: that
# costs no more than an eighth of the range. A smaller one stays.
LEAST_MOVED = 16
# The hair's breadth by which a factor is less than it is meant to be, so that a sum that meets the
# threshold fires, as in SpikingJelly; no weight is rounded to another level by it.
HAIR = 2.0**-20
# No sum is finite in 32 bits with more.
LARGEST_FACTOR = 2.0**64
# No run has as many steps.
ENDLESS = 1e6
# What a layer without freedom is fixed by.
ONES, NO_WEIGHTS = "weights of 1", "no weights"
# What limits a layer whose threshold would vanish.
LEAST_THRESHOLD = "threshold of 1"


def calibrate(
    layers: Sequence[FloatLayer],
    data: Tensor | np.ndarray | None = None,
    clip: str = "mse",
    batch_size: int = 64,
    channels: int = 1,
) -> Calibration:
    """Choose by what each layer is multiplied before it is rounded to 8 bits.

    The factor is as large as the 8 bits of the weights (-256 ... 254 on the chip), the 17 bits of
    the threshold, the 13 bits of the bias and the 24 bits of the states allow. It may clip the
    largest weights so that the others are rounded finer: without data where the mean squared error
    of the weights is least; with data where the layer's spikes, on the spikes of the quantised
    layers before it, are nearest to those of the float net. It is moved down to where the
    threshold, rounded, parts the same sums as before.

    Poolings, layers that are quantised already (CubaLIFNode, BlockContainer) and layers without
    weights have no freedom and keep 1.

    Args:
        layers: Layers of a net, rewritten. They are not changed.
        data: Input of the first of them, ``[T, N, *]``, for instance a batch of the training set.
            None: by weights alone.
        clip: Without data: ``"mse"``, or ``"none"`` to clip nothing.
        batch_size: Samples run at once.
        channels: Without data: the channels of what comes in, ``[C, H, W]``, to be known by a
            Linear that comes first; 1: all its inputs are alike.

    Raises:
        ConversionError: If weights are NaN or infinite, a layer fits within no chip's integers, or
            the data do not fit; it names the place.
    """
    if clip not in ("mse", "none"):
        raise ConversionError(f"calibrate: clip must be 'mse' or 'none', found {clip!r}")
    if batch_size < 1:
        raise ConversionError(f"calibrate: batch_size must be 1 or more, found {batch_size}")
    for layer in layers:
        _check(layer)
    with torch.no_grad():
        if data is None:
            choices = []
            for layer in layers:
                choices.append(_by_weights(layer, clip, channels))
                channels = channels_after(layer, channels)
            return Calibration("weights", tuple(choices))
        batches = checked_data(data).split(batch_size, dim=1)
        return Calibration("data", tuple(_by_data(layers, batches)))


def calibration_of(layers: Sequence[FloatLayer], factors: Sequence[float]) -> Calibration:
    """What factors that were chosen before, one for each layer, make of the layers.

    A layer that is quantised already has that of its block in it, and keeps 1.
    """
    chosen = (
        _Candidate(1.0, _fixed(layer)) if layer.quantised else _Candidate(factor, "chosen before")
        for layer, factor in zip(layers, factors, strict=True)
    )
    return Calibration("blocks", tuple(map(_choice, layers, chosen)))


def _check(layer: FloatLayer) -> None:
    for name in ("weight", "bias"):
        value = getattr(layer.synapse, name, None)
        if isinstance(value, Tensor) and not all_finite(value):
            raise ConversionError(
                f"{layer.place}: has a {name} that is NaN or infinite; check the training or the "
                "checkpoint"
            )
    threshold = getattr(layer.neuron, "v_threshold", 1.0)
    if not (math.isfinite(threshold) and threshold > 0):
        raise ConversionError(
            f"{layer.neuron_place or layer.place}: has v_threshold={threshold}, but the chip's are "
            "above 0; check the checkpoint"
        )


def checked_data(data: Any) -> Tensor:
    """Data of a calibration, refused where they can be none."""
    x = dense("calibrate: the data are", data, ConversionError)
    if x.is_complex() or x.dim() < 3 or not x.numel():
        raise ConversionError(
            f"calibrate: expected real data [T, N, *] of at least one sample and one step, found "
            f"shape {tuple(x.shape)} of {x.dtype}"
        )
    if not bool(torch.isfinite(x).all()):
        raise ConversionError("calibrate: the data have values that are NaN or infinite")
    return x.detach()


# What may be chosen -------------------------------------------------------------------------------


class _Candidate(NamedTuple):
    factor: float
    limit: str


def _fixed(layer: FloatLayer) -> str:
    """Why a layer has no freedom; empty if it has."""
    if layer.quantised:
        return "quantised sums" if layer.neuron is None else "quantised neuron"
    if isinstance(layer.synapse, SumPool2d | nn.Upsample):
        return ONES
    return "" if isinstance(getattr(layer.synapse, "weight", None), Tensor) else NO_WEIGHTS


def _candidates(layer: FloatLayer, points: Sequence[float], reach: float) -> list[_Candidate]:
    """What may be chosen for a layer, the largest range of weights first.

    Args:
        layer: The layer.
        points: The clip points.
        reach: The largest magnitude of its states.
    """
    fixed, scale = _fixed(layer), scale_of(layer)
    if fixed:
        return [_Candidate(1 - HAIR if fixed == ONES else 1.0, fixed)]
    synapse: Any = layer.synapse
    threshold = getattr(layer.neuron, "v_threshold", None)
    lowest = 0.0
    bounds: list[tuple[float, str]] = [(LARGEST_FACTOR, "32-bit floats")]
    if threshold is not None:
        lowest = (1 + HAIR) / (scale * threshold)
        bounds.append(((THRESHOLD_MAX + 0.99) / (scale * threshold), "17-bit threshold"))
    if synapse.bias is not None:
        bias = _largest(synapse.bias, BIAS_MIN, BIAS_MAX)
        bounds.append((_over(1, bias * scale), "13-bit bias"))
        if lowest > bounds[-1][0]:
            raise ConversionError(
                f"{layer.place}: no factor brings its threshold of {threshold} to at least "
                f"1/{scale} and keeps its bias within the chip's 13 bits; scale its bias down"
            )
    # At the lowest factor it is the clipped weights that keep states small.
    state = _over(STATE_MAX / (STATE_OVER_WEIGHT * scale), reach)
    bounds.append((max(state, lowest), "24-bit state"))
    bound, limit = min(bounds)
    largest = _largest(synapse.weight, WEIGHT_MIN, WEIGHT_MAX)
    if not largest and (synapse.bias is None or not synapse.bias.any()):
        return [_Candidate(min(max(1 - HAIR, lowest), bound), "weights of 0")]
    exact = _exact_factor(layer, bound)
    if exact is not None:
        return [_Candidate(exact, "exact")]
    found = []
    for point in points:
        wanted = _over(1, largest * scale) / point
        if wanted > bound:
            found.append(_Candidate(bound, limit))
        elif wanted < lowest:
            found.append(_Candidate(lowest, LEAST_THRESHOLD))
        else:
            found.append(_Candidate(wanted, "8-bit weights"))
    settled = [choice._replace(factor=_settled(layer, choice.factor)) for choice in found]
    distinct = list({choice.factor: choice for choice in reversed(settled)}.values())[::-1]
    ends = _ends(synapse.weight)
    lower = [
        choice._replace(factor=_settled(layer, choice.factor * (1 + 2 / low)))
        for choice in distinct
        if (low := _changed_by_lava(ends, choice.factor, scale))
        and choice.factor * (1 + 2 / low) > lowest
    ]
    kept = [x for x in lower if not _changed_by_lava(ends, x.factor, scale)]
    # What would be the lowest of all is clipped to the one above it.
    kept += [x for x in distinct if _changed_by_lava(ends, x.factor, scale) in (0, WEIGHT_MIN)]
    return kept or distinct


def _ends(weight: Tensor) -> Tensor:
    """The lowest and the highest of weights ``[2]``."""
    return torch.stack(torch.aminmax(weight)) if weight.numel() else weight.new_zeros(2)


def _changed_by_lava(ends: Tensor, factor: float, scale: int) -> int:
    """The lowest of a layer's integers, if Lava makes another one of it; else 0.

    It shifts them left as far as eight bits allow. Without one above 0 these hold a magnitude of
    255, not the 256 that a power of 2 becomes.
    """
    low, high = (int(x) for x in quantize_8bit(ends * factor, scale, descale=True).tolist())
    return low if high <= 0 and not -low & (-low - 1) else 0


def _largest(x: Tensor, least: int, most: int) -> float:
    """The largest share of a range ``least ... most`` that a factor of 1 would take."""
    if not x.numel():
        return 0.0
    low, high = (value.item() for value in torch.aminmax(x))
    return max(low / least, high / most)


def _over(bound: float, value: float) -> float:
    return bound / value if value > bound / LARGEST_FACTOR else LARGEST_FACTOR


def _exact_factor(layer: FloatLayer, bound: float) -> float | None:
    """A factor that brings all weights and the bias onto the grid as they are, if there is one.

    The largest where a leak rounds states; else the least, which leaves them the most room.
    """
    synapse: Any = layer.synapse
    scale = scale_of(layer)
    largest = _largest(synapse.weight, WEIGHT_MIN, WEIGHT_MAX) * scale
    for finer in (2.0**i for i in range(WEIGHT_MAX.bit_length())):
        if finer * largest > 1 or finer > bound:
            return None
        if _whole(synapse.weight, finer * scale / 2) and (
            synapse.bias is None or _whole(synapse.bias, finer * scale)
        ):
            most = math.floor(min(_over(1, largest * finer), bound / finer))
            times, threshold = most, scale * getattr(layer.neuron, "v_threshold", 1.0)
            if not isinstance(layer.neuron, neuron.LIFNode):
                times = min(most, max(1, math.ceil((1 + 2 * HAIR) / (finer * threshold))))
            ends = _ends(synapse.weight)
            near = [n for n in (times, times + 1, times + 2, times - 1) if 0 < n <= most]
            factors = [finer * n * (1 - HAIR) for n in near]
            kept = (f for f in factors if not _changed_by_lava(ends, f, scale))
            factor = next(kept, factors[0])
            return factor if int(factor * threshold) >= 1 else None
    return None


def _whole(x: Tensor, factor: float) -> bool:
    """Whether ``factor * x`` are whole numbers."""
    flat = x.flatten()
    # Most layers are refused by their first few weights.
    for part in (flat[:64], flat):
        steps = part * factor
        if not torch.equal(steps, steps.round()):
            return False
    return True


def _settled(layer: FloatLayer, factor: float) -> float:
    """The largest factor up to this one at which rounding the threshold loses nothing.

    The chip fires above the mantissa m, SpikingJelly from the threshold on. Sums of 8-bit weights
    are even integers, so an IFNode's threshold belongs half-way between two of them; with a bias
    half-way between two integers; a LIFNode's state is in 64ths of them.
    """
    node: Any = layer.neuron
    if node is None:
        return factor
    unit = scale_of(layer) * node.v_threshold
    steps = factor * unit
    if steps < LEAST_MOVED:
        return factor * (1 - HAIR) if int(steps * (1 - HAIR)) >= 1 else factor
    if isinstance(node, neuron.LIFNode):
        period, offset = 1, 0.5 / STATE_OVER_WEIGHT
    elif layer.synapse.bias is None:
        period, offset = 2, 1 + HAIR
    else:
        period, offset = 1, 0.5
    return (math.floor((steps - offset) / period) * period + offset) / unit


# The choice ---------------------------------------------------------------------------------------


def _by_weights(layer: FloatLayer, clip: str, channels: int) -> LayerChoice:
    points = CLIP_POINTS if clip == "mse" else CLIP_POINTS[:1]
    reach, lowest = (0.0, 0.0) if _fixed(layer) else expected_reach(layer, channels)
    choice = _choice(layer, _nearest(layer, _candidates(layer, points, reach)))
    if not isinstance(layer.neuron, neuron.IFNode):
        return choice
    held = _over(STATE_MAX / STATE_OVER_WEIGHT, lowest * choice.factor * scale_of(layer))
    return replace(choice, steps=int(held) if held < ENDLESS else None)


def _nearest(layer: FloatLayer, candidates: list[_Candidate]) -> _Candidate:
    """The one with which the weights, rounded, are nearest to themselves."""
    if len(candidates) == 1:
        return candidates[0]
    weight = _counted(layer.synapse)

    def squared_error(candidate: _Candidate) -> float:
        rounded = _rounded(layer, weight, candidate.factor) / candidate.factor
        return (rounded - weight).square().sum().item()

    return min(candidates, key=squared_error)


def _by_data(layers: Sequence[FloatLayer], inputs: Sequence[Tensor]) -> Iterator[LayerChoice]:
    """Layer by layer; only the spikes between two layers are kept, a byte each."""
    truth = found = list(inputs)
    with progress_bar("calibrating", len(layers)) as advance:
        for layer in layers:
            if layer is layers[-1] and _fixed(layer) == NO_WEIGHTS:
                yield _choice(layer, _candidates(layer, (), 0.0)[0])
                advance()
                return
            run = FloatRun(layer)
            truth = _ran(layer, run, truth)
            best: tuple[float, _Candidate, list[Tensor]] | None = None
            for candidate in _candidates(layer, CLIP_POINTS, run.reach / HEADROOM):
                outputs = _ran(layer, QuantisedRun(layer, candidate.factor), found)
                error = _error(layer, truth, outputs, candidate.factor)
                if best is None or error < best[0]:
                    best = error, candidate, outputs
            assert best is not None
            error, candidate, found = best
            yield _choice(layer, candidate, None if _fixed(layer) == NO_WEIGHTS else error)
            advance()


def _ran(layer: FloatLayer, run: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    weight = next(layer.synapse.parameters(), None)
    outputs = []
    for x_seq in inputs:
        x = x_seq
        if weight is not None:
            x = x.to(weight.device, weight.dtype)
        elif layer.neuron is not None:
            x = x.float()
        try:
            y = run(x)
        except (RuntimeError, ValueError, IndexError) as error:
            reason = first_line(error)
            raise ConversionError(
                f"{layer.place}: data of shape {tuple(x_seq.shape)} ([T, N, *]) do not fit this "
                f"layer: {reason}"
            ) from error
        outputs.append(y if layer.neuron is None else y != 0)
    return outputs


def _error(
    layer: FloatLayer, truth: Sequence[Tensor], found: Sequence[Tensor], factor: float
) -> float:
    """How far spikes are from the float net's: the share of places that differ, the report's drift.

    Spike counts and exponentially filtered trains were tried in its place on ten nets for digits:
    97.8 % and 98.9 % of the float nets' answers are kept with all of them.
    """
    if layer.neuron is None:
        pairs = [(a.double(), b.double() / factor) for a, b in zip(truth, found, strict=True)]
        size = sum(a.square().sum().item() for a, _ in pairs)
        return math.sqrt(sum((a - b).square().sum().item() for a, b in pairs) / (size or 1.0))
    differ = sum(int((a != b).sum()) for a, b in zip(truth, found, strict=True))
    return differ / sum(a.numel() for a in truth)


def _choice(layer: FloatLayer, candidate: _Candidate, error: float | None = None) -> LayerChoice:
    scale, factor = scale_of(layer), candidate.factor
    node: Any = layer.neuron
    threshold = None if node is None else int(node.v_threshold * factor * scale)
    weight: Any = getattr(layer.synapse, "weight", None)
    if not isinstance(weight, Tensor) or not weight.numel():
        return LayerChoice(
            layer.place, factor, threshold=threshold, limit=candidate.limit, error=error
        )
    counted = _counted(layer.synapse)
    # Clipped is what is moved by more than rounding would.
    low, high = (WEIGHT_MIN - 1) / (scale * factor), (WEIGHT_MAX + 1) / (scale * factor)
    clipped = int(((counted < low) | (counted > high)).sum())
    largest = _largest(weight, WEIGHT_MIN, WEIGHT_MAX) * scale * factor
    return LayerChoice(
        layer.place,
        factor,
        1 / max(largest, 1.0),
        clipped / counted.numel(),
        quantize_8bit(counted, scale).unique().numel(),
        _rounded(layer, counted, factor).unique().numel(),
        threshold,
        candidate.limit,
        error,
    )


def _counted(synapse: Any) -> Tensor:
    """A layer's weights, or those that stand for them."""
    weight = synapse.weight.flatten()
    if weight.numel() <= MOST_COUNTED:
        return weight
    chance = torch.Generator().manual_seed(0)
    drawn = torch.randint(weight.numel(), (MOST_COUNTED,), generator=chance)
    return weight[drawn.to(weight.device)]


def _rounded(layer: FloatLayer, weight: Tensor, factor: float) -> Tensor:
    """Weights of a layer, multiplied by a factor, as 8 bits hold them."""
    return quantize_8bit((weight * factor).clamp(min=lowest_weight(layer, factor)), scale_of(layer))
