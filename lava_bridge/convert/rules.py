"""The table of rules: what each type of module does to a :class:`~lava_bridge.convert.Chain`.

A rule is found by a module's own type, not by its bases: a subclass may compute something else.
Each is exact in real numbers; its derivation is in its docstring, or in ``merge.py`` where two
layers become one. (The rules of neurons are in ``neuron_rules.py``.)
"""

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import layer
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from ..encoder import is_block
from ..errors import ConversionError
from ..exchange import AsSpikingJelly, BlockContainer, SumPool2d
from ..exchange.encoder import EncoderNode
from ..exchange.synapses import (
    check_flatten,
    check_numbers,
    check_permanent,
    check_synapse,
    sum_pool_of,
)
from .chain import Chain

__all__ = ["RULES", "is_container", "rule", "rule_of"]

Rule = Callable[[Any, Chain], None]

RULES: dict[type, Rule] = {}

# Their children are converted one after the other.
CONTAINERS: tuple[type, ...] = (
    list,
    tuple,
    nn.Sequential,
    nn.ModuleList,
    layer.SeqToANNContainer,
    layer.MultiStepContainer,
    layer.StepModeContainer,
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
)


def rule(*types: type) -> Callable[[Rule], Rule]:
    """Register a function ``(module, chain) -> None`` as the rule for modules of ``types``."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(types, function))
        return function

    return register


def _of(*names: str) -> list[type]:
    """The layers of these names of torch and of SpikingJelly, as far as its release has them."""
    return [kind for home in (nn, layer) for name in names if (kind := getattr(home, name, None))]


# Synapses -----------------------------------------------------------------------------------------


@rule(*_of("Linear", "Conv2d", "ConvTranspose2d"))
def _synapse(module: Any, chain: Chain) -> None:
    """``W x + b``: the layer itself. The bias becomes the neuron's."""
    if isinstance(module, nn.ConvTranspose2d) and any(module.output_padding):
        cropped: Any = copy.copy(module)
        cropped.output_padding = (0, 0)
        check_synapse(cropped)
        module = _without_output_padding(module)
    check_synapse(module)
    chain.synapse(module)


@rule(*_of("Conv1d"))
def _conv1d(module: nn.Conv1d, chain: Chain) -> None:
    """A convolution of ``[C, L]`` is one of ``[C, 1, L]`` with a kernel of height 1."""
    check_synapse(module)
    made: Any = nn.Conv2d(
        module.in_channels,
        module.out_channels,
        (1, module.kernel_size[0]),
        (1, module.stride[0]),
        module.padding if isinstance(module.padding, str) else (0, int(module.padding[0])),
        (1, module.dilation[0]),
        module.groups,
        device="meta",
    )
    made.weight = nn.Parameter(module.weight.detach().unsqueeze(2))
    made.bias = module.bias
    _one_dimension(chain)
    chain.synapse(made)


@rule(*_of("WSConv2d", "WSLinear"))
def _standardised(module: Any, chain: Chain) -> None:
    """Weight standardisation gives a constant weight in evaluation: that one."""
    check_synapse(module)
    standard: Any = copy.copy(module)
    standard._parameters = {
        "weight": nn.Parameter(module.get_weight().detach()),
        "bias": module.bias,
    }
    chain.note("weight standardised")
    chain.synapse(standard)


def _without_output_padding(conv: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """The same with a kernel that ends with as many zeros as the output is padded by.

    A transposed convolution crops p outputs at each side, and p - q at the lower and right one with
    an output padding of q: q rows more of the kernel, which are zero, give these outputs.
    """
    kernel = conv.weight.detach()
    spread = kernel.new_zeros(
        *kernel.shape[:2],
        *(
            (k - 1) * d + 1 + q
            for k, d, q in zip(conv.kernel_size, conv.dilation, conv.output_padding, strict=True)
        ),
    )
    rows, columns = ((k - 1) * d + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True))
    spread[:, :, : rows : conv.dilation[0], : columns : conv.dilation[1]] = kernel
    # Any: torch's stubs take tuples of length 2 only, and say less of what a layer has.
    kept: Any = {name: getattr(conv, name) for name in ("stride", "padding", "groups")}
    made: Any = nn.ConvTranspose2d(
        conv.in_channels,
        conv.out_channels,
        (spread.shape[2], spread.shape[3]),
        **kept,
        device="meta",
    )
    made.weight, made.bias = nn.Parameter(spread), conv.bias
    return made


# Norms --------------------------------------------------------------------------------------------


@rule(*_of("BatchNorm1d", "BatchNorm2d"))
@rule(*_of("ThresholdDependentBatchNorm1d", "ThresholdDependentBatchNorm2d"))
def _batch_norm(module: Any, chain: Chain) -> None:
    r"""In evaluation a factor and a shift of each channel.

    .. math:: \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta = a x + c, \qquad
        a = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}, \quad c = \beta - a \mu

    They go into the synapse before it or after it (``merge.py``).
    """
    if module.running_mean is None:
        raise ConversionError(
            "has no running statistics (track_running_stats=False), so that it depends on the "
            "batch; train with them"
        )
    mean, variance = module.running_mean.detach().double(), module.running_var.detach().double()
    scale = torch.rsqrt(variance + module.eps)
    if module.weight is not None:
        scale = scale * module.weight.detach().double()
    shift = -scale * mean
    if module.bias is not None:
        shift = shift + module.bias.detach().double()
    if not bool((torch.isfinite(scale) & torch.isfinite(shift)).all()):
        raise ConversionError(
            "has statistics that are NaN or infinite; check the training or the checkpoint"
        )
    chain.note("BatchNorm folded")
    chain.affine(scale, shift)


# Pooling ------------------------------------------------------------------------------------------


@rule(*_of("AvgPool2d"))
def _average_pool(module: nn.AvgPool2d, chain: Chain) -> None:
    r"""A mean over k values is their sum over k.

    .. math:: \tfrac1k \sum_j x_j > \vartheta \iff \sum_j x_j > k \vartheta

    so that the threshold of the neuron after it is k times larger. A mean of windows of different
    sizes (``ceil_mode``, ``count_include_pad=False``) is only linear.
    """
    shape = chain.shape
    plane = None if shape is None or len(shape) != 3 else shape[1:]
    if module.ceil_mode and plane is not None and _ends_evenly(module, plane):
        module = nn.AvgPool2d(module.kernel_size, module.stride, module.padding)
    try:
        chain.pool(*sum_pool_of(module))
    except ConversionError as error:
        plain = nn.AvgPool2d(
            module.kernel_size,
            module.stride,
            module.padding,
            module.ceil_mode,
            module.count_include_pad,
            module.divisor_override,
        )
        chain.linear(plain, str(error))


@rule(SumPool2d)
def _sum_pool(module: SumPool2d, chain: Chain) -> None:
    chain.pool(module)


@rule(*_of("AvgPool1d"))
def _average_pool1d(module: nn.AvgPool1d, chain: Chain) -> None:
    """A mean over ``[C, L]`` is one over ``[C, 1, L]`` with windows of height 1."""
    sides = ((1, _first(module.kernel_size)), (1, _first(module.stride)))
    padding = (0, _first(module.padding))
    made = nn.AvgPool2d(*sides, padding, module.ceil_mode, module.count_include_pad)
    _one_dimension(chain)
    _average_pool(made, chain)


@rule(*_of("AdaptiveAvgPool1d", "AdaptiveAvgPool2d"))
def _adaptive_pool(module: Any, chain: Chain) -> None:
    """A mean over windows whose size follows from the input: with its shape, an AvgPool2d.

    Output i of n takes the inputs from ``floor(i L / n)`` to ``ceil((i + 1) L / n)``: all of the
    same size where n divides L. As many outputs as inputs change nothing.
    """
    if isinstance(module, nn.AdaptiveAvgPool1d):
        _one_dimension(chain)
        wanted: tuple[Any, ...] = (1, _first(module.output_size))
    else:
        sizes = module.output_size
        wanted = sizes if isinstance(sizes, tuple) else (sizes, sizes)
    shape = chain.shape
    if shape is None or len(shape) != 3:
        raise ConversionError(
            "needs the shape of its input to be converted; pass input_shape=(C, H, W) to to_slayer"
        )
    sizes = tuple(size or own for size, own in zip(wanted, shape[1:], strict=True))
    if sizes == shape[1:]:
        chain.note("changes nothing here, left out")
    elif all(own % size == 0 for own, size in zip(shape[1:], sizes, strict=True)):
        windows = [own // size for own, size in zip(shape[1:], sizes, strict=True)]
        chain.pool(SumPool2d((windows[0], windows[1])), math.prod(windows))
    else:
        chain.linear(
            nn.AdaptiveAvgPool2d(sizes),
            f"averages windows of different sizes ({shape[1:]} to {sizes}), which needs a Linear "
            "after it; choose sizes that divide",
        )


@rule(*_of("MaxPool1d", "MaxPool2d"))
def _max_pool(module: Any, chain: Chain) -> None:
    r"""The largest of k spikes is their OR.

    .. math:: \max_j s_j = [\, \sum_j s_j > \tfrac12 \,], \qquad s_j \in \{0, 1\}

    which is a sum pooling before a neuron with threshold 1/2 that forgets at once (both decays 1).
    torch pads with minus infinity: each window has an input of its own, so that 0 does as well.
    """
    if module.return_indices:
        raise ConversionError(
            "gives indices, which a spiking layer has not; use return_indices=False"
        )
    if isinstance(module, nn.MaxPool1d):
        _one_dimension(chain)
        window: Any = [(low, _first(getattr(module, name))) for name, low in _WINDOW.items()]
    else:
        window = [getattr(module, name) for name in _WINDOW]
    pool = SumPool2d(*window)
    if module.ceil_mode and (chain.shape is None or not _ends_evenly(pool, chain.shape[1:])):
        if not pool.tiles:
            raise ConversionError(
                "has ceil_mode=True with windows that overlap and are cut off at the edge; use "
                "ceil_mode=False"
            )
        pool.ceil_mode = True
    chain.max_pool(pool)


_WINDOW = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}


@rule(*_of("VotingLayer"))
def _voting(module: Any, chain: Chain) -> None:
    """The mean of each ``voting_size`` neighbours: an Average block."""
    chain.vote(module.voting_size)


# Space --------------------------------------------------------------------------------------------


@rule(*_of("ZeroPad2d"))
def _zero_pad(module: nn.ZeroPad2d, chain: Chain) -> None:
    """Zeros at the edges: the padding of the convolution after it."""
    chain.linear(
        nn.ZeroPad2d(module.padding),
        "pads before a neuron without a synapse; put a Conv2d between them",
    )


@rule(*_of("Upsample", "UpsamplingNearest2d"))
def _upsample(module: nn.Upsample, chain: Chain) -> None:
    """Each value is copied over a window: an Unpool block.

    The copies of a spike are spikes. Before a convolution they get a neuron of their own, which
    fires where a spike comes in and forgets at once.
    """
    if module.mode not in ("nearest", "nearest-exact"):  # the same, by whole factors
        raise ConversionError(
            f"has mode={module.mode!r}, which mixes neighbours; use mode='nearest'"
        )
    factors = _factors(module, chain)
    if any(factor != int(factor) or factor < 1 for factor in factors):
        raise ConversionError(
            f"enlarges by {factors}, but spikes are copied a whole number of times; use whole "
            "factors"
        )
    height, width = (int(factor) for factor in factors)
    chain.note(f"each spike copied {height} x {width} times")
    chain.linear(nn.Upsample(scale_factor=(float(height), float(width)), mode="nearest"))


def _factors(module: nn.Upsample, chain: Chain) -> tuple[float, ...]:
    """By how much an Upsample enlarges height and width."""
    factor: Any = module.scale_factor
    size: Any = module.size
    if factor is not None:
        factors = tuple(factor) if isinstance(factor, tuple) else (factor,)
    else:
        if chain.shape is None:
            raise ConversionError(
                "has a size, so the shape of its input must be known; pass input_shape to to_slayer"
            )
        sizes = tuple(size) if isinstance(size, tuple) else (size,)
        plane = chain.shape[-len(sizes) :] if len(sizes) > 1 or chain.flat else chain.shape[1:]
        factors = tuple(s / own for s, own in zip(sizes * len(plane), plane, strict=False))
    if len(factors) == 1:
        factors = (1.0, *factors) if chain.flat else factors * 2
    return factors


@rule(*_of("Flatten"))
def _flatten(module: nn.Flatten, chain: Chain) -> None:
    check_flatten(module)
    chain.flatten()


# Nothing, and containers --------------------------------------------------------------------------


@rule(*_of("Identity", "Dropout", "Dropout1d", "Dropout2d", "AlphaDropout"))
def _nothing(module: nn.Module, chain: Chain) -> None:
    """In evaluation these give what they take."""


@rule(EncoderNode)
def _encoder(module: EncoderNode, chain: Chain) -> None:
    chain.encoded(module.encoder)


@rule(BlockContainer)
def _block_container(module: BlockContainer, chain: Chain) -> None:
    """Its synapse, then its neuron. One without a neuron is a net's last, and has its own bias."""
    synapse: Any = module.synapse
    if module.bias is not None:
        synapse = copy.copy(synapse)
        synapse._parameters = {"weight": synapse.weight, "bias": module.bias.value}
    rule_of(synapse)(synapse, chain)
    chain.quantised(module.weight_factor, module.scale)
    if module.neuron is not None:
        rule_of(module.neuron)(module.neuron, chain)
    elif module.gives_sums:
        chain.sum_scale = module.scale


def _one_dimension(chain: Chain) -> None:
    """From here signals are ``[C, L]``, held as ``[C, 1, L]``."""
    if chain.shape is not None and not chain.flat:
        raise ConversionError(
            f"takes an input of shape (C, L), found {chain.shape}; use the layer of two dimensions"
        )
    chain.flat = True


def _first(value: Any) -> int:
    return value[0] if isinstance(value, tuple) else value


def _ends_evenly(window: Any, plane: tuple[int, ...]) -> bool:
    """Whether no window is cut off at the edge, so that ``ceil_mode`` changes nothing."""
    geometry = SumPool2d(window.kernel_size, window.stride, window.padding)
    dilation = getattr(window, "dilation", 1)
    dilations = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    sides = zip(
        plane, geometry.kernel_size, geometry.stride, geometry.padding, dilations, strict=True
    )
    return all((size + 2 * p - d * (k - 1) - 1) % s == 0 for size, k, s, p, d in sides)


def is_container(module: Any) -> bool:
    """Whether a module does no more than call its children one after the other."""
    return any(
        isinstance(module, kind)
        and getattr(type(module), "forward", None) is getattr(kind, "forward", None)
        and "forward" not in getattr(module, "__dict__", ())
        for kind in CONTAINERS
    )


def rule_of(module: Any) -> Rule:
    """The rule for a module, by its type.

    Raises:
        ConversionError: If there is none.
    """
    found = RULES.get(type(module))
    if found is not None:
        if isinstance(module, nn.Module):
            _check_instance(module)
        return found
    if is_block(module):
        raise ConversionError(
            "is a slayer block already; lava_bridge.export_hdf5 writes it as it is"
        )
    if isinstance(module, AsSpikingJelly):
        raise ConversionError(
            "holds slayer blocks already; convert the parts around it, and put its blocks among "
            "theirs"
        )
    if hasattr(module, "_orig_mod"):
        raise ConversionError("is compiled; convert what was compiled (net._orig_mod)")
    if parametrize.is_parametrized(module):
        raise ConversionError(
            "computes its weight anew in each forward (a parametrization); make it permanent with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    advice = next((NEAREST[base] for base in type(module).__mro__ if base in NEAREST), None)
    if advice is not None:
        raise ConversionError(advice)
    known = [base.__name__ for base in type(module).__mro__[1:] if base in RULES]
    near = f"; it is a kind of {known[0]} but may compute something else" if known else ""
    if isinstance(module, nn.Module) and next(module.children(), None) is not None and not near:
        near = " (its forward is not traced: it keeps a state, or is a library's)"
    raise ConversionError(
        f"no rule converts this type{near}; replace the module, or register a rule with "
        "lava_bridge.convert.rule"
    )


def _check_instance(module: nn.Module) -> None:
    """Refuse a module that is not what its type says: changed by hand, or without numbers."""
    own = [name for name in vars(module) if inspect.isfunction(getattr(type(module), name, None))]
    if own:
        raise ConversionError(
            f"has a {own[0]} of its own in place of its type's, which no rule sees; delete it, or "
            "make a subclass with a rule (lava_bridge.convert.rule)"
        )
    check_numbers(module)
    # Pruning keeps the parameter itself under such a name.
    originals = [name for name in module._parameters if name.endswith("_orig")]
    check_permanent(module, (name.removesuffix("_orig") for name in originals))


_NORM = "normalises by its own input, which is not linear between neurons; use BatchNorm"
_ATTENTION = (
    "multiplies its inputs with each other, which synapses can't; there is nothing near it but "
    "Linear and Conv2d"
)
_ACTIVATION = "is not linear between neurons; use a spiking neuron in its place"
# What no layer of neurons computes, and the nearest thing that converts.
NEAREST: dict[type, str] = {
    **dict.fromkeys((nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d), _NORM),
    **dict.fromkeys((nn.ReLU, nn.Sigmoid, nn.Tanh, nn.Softmax, nn.GELU, nn.SiLU), _ACTIVATION),
    **dict.fromkeys(
        (
            *_of("MultiheadAttention", "TemporalWiseAttention", "MultiDimensionalAttention"),
            *_of("SpikingSelfAttention", "QKAttention", "SpikeDrivenSelfAttention"),
        ),
        _ATTENTION,
    ),
    LazyModuleMixin: "has no weights yet; run the net once",
    nn.AdaptiveMaxPool2d: "has windows that follow from the input; use MaxPool2d",
}
