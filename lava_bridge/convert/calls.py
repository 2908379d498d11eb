"""Calls in a forward that are no modules, as the modules of torch.nn that compute the same."""

import enum
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConversionError

__all__ = ["Size", "Time", "builder_of"]


class Size(enum.Enum):
    """What a number in a forward is, where it was read from the signal's shape."""

    TIME = "time"
    BATCH = "batch"
    OTHER = "other"


class Time(enum.Enum):
    """What a call does to the time dimension; it stands for no layer."""

    AXIS = "adds a dimension"
    REPEAT = "repeats its input"
    STACK = "stacks its input over time"
    REDUCE = "averages or sums over time"
    DIVIDE = "divides"


_FLOATS = (torch.float32, torch.float64)

Made = nn.Module | Time | None

# Each takes whether the signal is [T, N, *] (else [N, *]), and the call's arguments but the signal.
Builder = Callable[..., Made]


def builder_of(target: Any) -> Builder:
    """What makes the module that computes the same as a function or method of tensors.

    Args:
        target: The function, or the method's name.

    Returns:
        A function ``(multi_step, *args, **kwargs)`` of the call's arguments without the signal,
        where sizes of the signal are a ``Size``. ``multi_step``: whether the signal is
        ``[T, N, *]``; else it is ``[N, *]``. It returns None where the call, in evaluation, gives
        what it takes, and raises a ConversionError if no module computes the same.

    Raises:
        ConversionError: If there is none.
    """
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    builder = BUILDERS.get(target)
    if builder is None:
        raise ConversionError(
            f"calls {name}, which is no layer of a chain; use a module that has a rule, or "
            "register a rule for this one with lava_bridge.convert.rule"
        )

    def build(multi_step: bool, *args: Any, **kwargs: Any) -> Made:
        try:
            return builder(multi_step, *args, **kwargs)
        except TypeError as error:
            raise ConversionError(
                f"calls {name} with arguments that no layer stands for ({error}); use a module of "
                "torch.nn"
            ) from error

    return build


def _plain(layer: type[nn.Module]) -> Builder:
    """For a function whose arguments stand in the order of the module's."""
    return lambda _, *args, **kwargs: layer(*args, **kwargs)


def _identity(*_: Any, **options: Any) -> None:
    """Gives what it takes."""


def _to(_: bool, *targets: Any, **options: Any) -> None:
    """To a device, or to a type that holds every float; it may be read from a tensor."""
    types = [*targets, *options.values()]
    wrong = [t for t in types if isinstance(t, torch.dtype) and t not in _FLOATS]
    if wrong:
        raise ConversionError(f"turns a signal into {wrong[0]}; convert a net of float32")


def _attribute(_: bool, name: str) -> None:
    if name != "data":
        raise ConversionError(f"takes .{name} of a signal, which is no layer of a chain")


def _max_pool(layer: type[nn.Module]) -> Builder:
    def build(
        _: bool,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,  # never True here: torch has another function for it
    ) -> nn.Module:
        return layer(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)

    return build


def _pad(_: bool, pad: Any, mode: str = "constant", value: float | None = None) -> nn.Module:
    if mode != "constant" or value or len(pad) != 4:
        raise ConversionError(
            f"pads with pad={tuple(pad)}, mode={mode!r}, value={value}; only zeros around height "
            "and width (left, right, top, bottom) convert"
        )
    return nn.ZeroPad2d(tuple(pad))


def _interpolate(
    multi_step: bool,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> nn.Module:
    factors = scale_factor if isinstance(scale_factor, tuple | list) else (scale_factor,)
    whole = scale_factor is not None and all(float(k).is_integer() and k >= 1 for k in factors)
    if size is not None or not whole or mode not in ("nearest", "nearest-exact"):
        raise ConversionError(
            f"interpolates with size={size}, scale_factor={scale_factor}, mode={mode!r}; only "
            "whole scale factors with mode='nearest' convert"
        )
    if multi_step:
        raise ConversionError(
            "interpolates a signal [T, N, C, H, W], whose channels torch would scale too; call it "
            "through functional.seq_to_ann_forward"
        )
    return nn.Upsample(scale_factor=scale_factor, mode="nearest")


def _dropout(_: bool, p: float = 0.5, training: bool = True, inplace: bool = False) -> None:
    if training and p:
        raise ConversionError(
            f"drops in evaluation too: dropout(p={p}) has training=True by default; pass "
            "training=self.training or use nn.Dropout"
        )


def _torch_dropout(_: bool, p: float, train: bool) -> None:
    _dropout(_, p, train)


# Layers with weights of the module's own --------------------------------------------------------


def _with_weights(made: nn.Module, weight: Any, bias: Any) -> nn.Module:
    made.register_parameter("weight", _parameter(weight))
    made.register_parameter("bias", None if bias is None else _parameter(bias))
    return made


def _parameter(tensor: Tensor) -> nn.Parameter:
    """The tensor itself: a layer made here shares its weight with the net."""
    if isinstance(tensor, nn.Parameter):
        return tensor
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _check_weights(*tensors: Any) -> None:
    if not all(tensor is None or isinstance(tensor, Tensor) for tensor in tensors):
        raise ConversionError(
            "computes its weight or bias in the forward; compute them once, into a module of "
            "torch.nn"
        )


def _linear(_: bool, weight: Any, bias: Any = None) -> nn.Module:
    _check_weights(weight, bias)
    outputs, inputs = weight.shape
    # On "meta" the weights that are replaced take no memory and no random numbers.
    return _with_weights(nn.Linear(inputs, outputs, bias is not None, "meta"), weight, bias)


def _conv(layer: Any, *names: str) -> Builder:
    """For a convolution; ``names``: the function's arguments after the bias, in their order."""

    def build(_: bool, weight: Any, bias: Any = None, *window: Any, **named: Any) -> nn.Module:
        _check_weights(weight, bias)
        options = {**dict(zip(names, window, strict=False)), **named}
        groups = options.get("groups", 1)
        outputs, inputs, *kernel = weight.shape
        sizes = inputs * groups, outputs
        if layer is nn.ConvTranspose2d:  # [in, out / groups, *]
            sizes = outputs, inputs * groups
        made = layer(*sizes, tuple(kernel), bias=bias is not None, device="meta", **options)
        return _with_weights(made, weight, bias)

    return build


# Shapes -----------------------------------------------------------------------------------------


def _flatten(multi_step: bool, start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    expected = 2 if multi_step else 1
    if (start_dim, end_dim) != (expected, -1):
        layout = "[T, N, *]" if multi_step else "[N, *]"
        raise ConversionError(
            f"flattens dimensions {start_dim} to {end_dim} of a signal {layout}; only all "
            f"dimensions of one step convert: start_dim={expected}, end_dim=-1 (to merge time and "
            "batch use functional.seq_to_ann_forward)"
        )
    return nn.Flatten()


def _reshape(multi_step: bool, *shape: Any, **named: Any) -> nn.Module:
    *sizes, last = _flat([*shape, *named.values()]) or [None]
    leading = [Size.TIME, Size.BATCH] if multi_step else [Size.BATCH]
    # A number for the time is what the user says it is. Where -1 leads, the rest must be a number,
    # which the layer after it then has for its inputs.
    fits = len(sizes) == len(leading) and all(
        size is wanted or (isinstance(size, int) and (size == -1 or wanted is Size.TIME))
        for size, wanted in zip(sizes, leading, strict=True)
    )
    if not fits or (-1 in sizes and not isinstance(last, int)):
        expected = "(T, N, -1)" if multi_step else "(N, -1)"
        raise ConversionError(
            f"gives its signal another shape than a Flatten does; only {expected}, with sizes read "
            f"from the signal's shape, converts; use flatten(start_dim={len(leading)})"
        )
    return nn.Flatten()


def _flat(sizes: Iterable[Any]) -> list[Any]:
    flat: list[Any] = []
    for size in sizes:
        flat += _flat(size) if isinstance(size, tuple | list) else [size]
    return flat


# Time -------------------------------------------------------------------------------------------


def _unsqueeze(_: bool, dim: int) -> Time:
    if dim != 0:
        raise ConversionError(f"adds dimension {dim} to a signal, which no layer does")
    return Time.AXIS


def _index(_: bool, index: Any) -> Time:
    if index is None or index == (None, ...):
        return Time.AXIS
    raise ConversionError("takes a part of a signal by its index, which no layer does")


def _repeat(_: bool, *times: Any, **named: Any) -> Time:
    return _over_time(_flat([*times, *named.values()]), 1)


def _expand(_: bool, *sizes: Any, **named: Any) -> Time:
    return _over_time(_flat([*sizes, *named.values()]), -1)


def _over_time(sizes: list[Any], rest: int) -> Time:
    if not sizes or any(size != rest for size in sizes[1:]):
        raise ConversionError("repeats a signal over other dimensions than time")
    return Time.REPEAT


def _repeat_interleave(_: bool, repeats: int, dim: int | None = None) -> Time:
    return _over_time([repeats] if dim == 0 else [], 1)


def _stack(_: bool, dim: int = 0) -> Time:
    if dim != 0:
        raise ConversionError(f"stacks along dimension {dim}, which no layer does")
    return Time.STACK


def _reduce(multi_step: bool, dim: Any = None, keepdim: bool = False) -> Time:
    if dim not in (0, (0,), [0]) or keepdim:
        raise ConversionError(
            f"averages or sums over dimensions {dim}; use nn.AdaptiveAvgPool2d(1) for the mean of "
            "height and width"
        )
    if not multi_step:
        raise ConversionError(
            "averages or sums over dimension 0, which is the batch in step mode 's'; use step mode "
            "'m' for a signal over time"
        )
    return Time.REDUCE


def _divide(_: bool, divisor: Any) -> Time:
    return Time.DIVIDE


_CONV = "stride", "padding", "dilation", "groups"
_TRANSPOSED = "stride", "padding", "output_padding", "groups", "dilation"

BUILDERS: dict[Any, Builder] = {
    F.avg_pool1d: _plain(nn.AvgPool1d),
    F.avg_pool2d: _plain(nn.AvgPool2d),
    F.adaptive_avg_pool1d: _plain(nn.AdaptiveAvgPool1d),
    F.adaptive_avg_pool2d: _plain(nn.AdaptiveAvgPool2d),
    F.max_pool1d: _max_pool(nn.MaxPool1d),
    F.max_pool2d: _max_pool(nn.MaxPool2d),
    torch.max_pool1d: _max_pool(nn.MaxPool1d),
    torch.max_pool2d: _max_pool(nn.MaxPool2d),
    F.pad: _pad,
    F.interpolate: _interpolate,
    F.linear: _linear,
    F.conv1d: _conv(nn.Conv1d, *_CONV),
    F.conv2d: _conv(nn.Conv2d, *_CONV),
    F.conv_transpose2d: _conv(nn.ConvTranspose2d, *_TRANSPOSED),
    torch.dropout: _torch_dropout,
    torch.clone: _identity,
    torch.detach: _identity,
    getattr: _attribute,
    torch.unsqueeze: _unsqueeze,
    operator.getitem: _index,
    torch.repeat_interleave: _repeat_interleave,
    torch.stack: _stack,
    torch.flatten: _flatten,
    torch.reshape: _reshape,
    torch.mean: _reduce,
    torch.sum: _reduce,
    operator.truediv: _divide,
    "contiguous": _identity,
    "clone": _identity,
    "detach": _identity,
    "float": _identity,
    "to": _to,
    "cpu": _identity,
    "cuda": _identity,
    "flatten": _flatten,
    "reshape": _reshape,
    "view": _reshape,
    "unsqueeze": _unsqueeze,
    "repeat": _repeat,
    "expand": _expand,
    "repeat_interleave": _repeat_interleave,
    "mean": _reduce,
    "sum": _reduce,
}
BUILDERS.update(
    dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout), _dropout)
)
