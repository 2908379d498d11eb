"""The checks of inputs and modules that all parts share."""

import operator
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import BridgeError, NetFileError

__all__ = [
    "HOOKS",
    "as_array",
    "checked_shape",
    "dense",
    "described",
    "exporting",
    "first_line",
    "has_hooks",
    "held",
    "integer",
    "kept_copy",
    "made_in_inference_mode",
    "makes_weight",
    "overridden",
    "path_text",
    "recompute",
    "require",
    "set_data",
    "transformed",
]

# The attributes in which a module keeps what was hooked on to its call.
HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def require(
    place: str,
    input: object,
    axes: str,
    channels: int | None = None,
    device: torch.device | None = None,
) -> None:
    """Require a floating tensor of such ``axes``, with these ``channels`` in dimension 1.

    ``axes`` is for example "[N, C, H, W, T]"; a "*" stands for any number of dimensions, "T > 0"
    for one time step or more. ``device`` is where the tensors of the module at ``place`` are: the
    kernels would copy them to the input's in every call, and give them gradients from there. (On
    "meta" an input asks for shapes only.)

    A BridgeError is raised at ``place``, with what was found and what to do.
    """
    expected, advice, found = f"a tensor {axes.replace(' > 0', '')}", None, None
    dimensions = axes.count(",") + 1
    if not isinstance(input, Tensor):
        advice = "pass a tensor; a pair is for the complex neurons (rf, rf_iz, adrf, adrf_iz)"
    elif input.is_nested:
        advice = "pass torch.nested.to_padded_tensor(input, 0)"
    elif input.layout != torch.strided:
        expected, advice = "a dense tensor", "pass input.to_dense()"
    elif input.dim() < dimensions - 1 or ("*" not in axes and input.dim() != dimensions):
        advice = "bring it to these dimensions with reshape or unsqueeze"
    elif not input.is_floating_point():
        expected, advice = "a floating dtype", "pass input.float()"
    elif "T > 0" in axes and not input.shape[-1]:
        expected, advice = "one time step or more", "leave empty sequences out"
    elif channels is not None and input.shape[1] != channels:
        expected, advice = f"{channels} channels in dimension 1", "check the layer before it"
    elif device is not None and input.device != device and not input.is_meta:
        expected, found = f"an input on {device}, where the module is", str(input.device)
        advice = f"move the module with .to('{found}')"
    if advice is not None:
        found = found or described(input)
        raise BridgeError(f"{place}: expected {expected}, found {found}; {advice}")


def as_array(value: Any) -> np.ndarray:
    """An array of a value; of a tensor on a GPU, of its copy on the CPU."""
    return np.asarray(value.cpu() if isinstance(value, Tensor) else value)


def dense(place: str, value: Any, error: type[BridgeError] = BridgeError) -> Tensor:
    """An array of any order of bytes and strides, or a sparse tensor, as a dense tensor.

    An ``error`` where it holds no numbers to compute with; ``place`` is "run: the input is".
    """
    advice = ""
    if isinstance(value, Tensor):
        if value.is_nested:
            advice = "pass torch.nested.to_padded_tensor(x, 0)"
        elif value.is_quantized:
            advice = "pass x.dequantize()"
        elif value.is_meta:
            advice = "on 'meta' tensors hold none, make it on another device"
    if advice:
        raise error(f"{place} {described(value)}, no array of numbers; {advice}")
    try:
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
            value = torch.from_numpy(
                value if value.flags.writeable else value.copy()
            )  # or it warns
        x = torch.as_tensor(value)
        return x if x.layout == torch.strided else x.to_dense()
    except (TypeError, ValueError, RuntimeError) as cause:
        raise error(f"{place} no array of numbers: {first_line(cause)}") from cause


def first_line(error: Exception) -> str:
    """What an error says, in its first line; its type, if it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def integer(place: str, value: Any) -> int:
    """A whole number as an int, be it given as a float; else a BridgeError at ``place``."""
    if type(value) is int:  # most are, and to ask NumPy takes a microsecond
        return value
    try:
        whole = int(value) if np.ndim(value) == 0 else None
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or whole != value:
        found = repr(value) if np.ndim(value) == 0 else described(value)
        raise BridgeError(f"{place}: {found} is no integer; give one integer")
    return whole


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody has hooked on to a module's call, or to that of all modules."""
    of_all = torch.nn.modules.module
    return any(getattr(module, name) or getattr(of_all, "_global" + name) for name in HOOKS)


def described(input: object) -> str:
    """What an input is, for an error."""
    if isinstance(input, Tensor) and input.is_nested:
        return f"a nested tensor of {input.size(0)}"
    if isinstance(input, Tensor):
        words = [] if input.layout == torch.strided else [input.layout]
        kind = " ".join(
            str(word).removeprefix("torch.").strip("_") for word in [*words, input.dtype]
        )
        return f"a {kind} tensor of shape {tuple(input.shape)}"
    return f"a {type(input).__name__} of {len(input) if hasattr(input, '__len__') else input}"


def made_in_inference_mode(tensor: Tensor) -> bool:
    """Whether autograd takes a tensor nowhere, since inference mode made it."""
    # torch.compile can't follow the question, and runs in no inference mode.
    return not torch.compiler.is_compiling() and tensor.is_inference()


def exporting() -> bool:
    """Whether torch.export is tracing (from torch 2.7 on, which can say so)."""
    ask = getattr(torch.compiler, "is_exporting", None)
    return ask is not None and ask()


def held(parameter: Tensor, low: float, high: float | None = None) -> Tensor:
    """A parameter that was brought back into a range, in place.

    Autograd does not see it: an earlier forward may have saved the parameter for its backward. A
    program that is exported can't be saved so, torch.func's transforms change nothing, and what its
    functional_call puts in a parameter's place is the caller's: there it is a copy in the range.
    """
    if exporting() or transformed() or not isinstance(parameter, nn.Parameter):
        return parameter.clamp(low, high)
    with torch.no_grad():
        # torch.compile can't follow .data.
        traced = torch.compiler.is_compiling()
        (parameter.detach() if traced else parameter.data).clamp_(low, high)
    return parameter


def transformed() -> bool:
    """Whether a transform of torch.func is at work, within which nothing may change in place."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.peek_interpreter_stack() is not None


def kept_copy(state: Tensor) -> Tensor | None:
    """A copy of a state without its gradient, to be kept in a module; None: there is none to keep.

    Within torch.func's transforms a tensor is one of a level that ends with them; vmap's is one for
    many.
    """
    if torch.compiler.is_compiling():  # which follows nothing of what comes
        return state.detach().clone()
    functorch = torch._C._functorch
    if not functorch.is_functorch_wrapped_tensor(state):
        return state.detach().clone()
    while functorch.is_functorch_wrapped_tensor(state):
        if functorch.is_batchedtensor(state):
            return None
        state = functorch.get_unwrapped(state)
    with torch._C._DisableFuncTorch():  # else the copy is of the level again
        return state.detach().clone()


def set_data(parameter: nn.Parameter, data: Tensor) -> None:
    """Give a parameter data of a shape that is known only where a module runs first.

    A BridgeError is raised where that is traced: a graph takes its parameters in the shape from
    before it runs (so would their gradients be), and an exported one draws them in every run.
    """
    if torch.compiler.is_compiling():
        raise BridgeError(
            "decays, delays and biases of each channel are made in a first run, which can't be "
            "compiled or exported; run the net once before, or give its blocks their shape with "
            "infer_shape"
        )
    parameter.data = data


def recompute(module: nn.Module) -> None:
    """Have torch's hooks compute a module's weight anew, as they do before a call.

    They are those of pruning and of ``torch.nn.utils.weight_norm``: after an optimiser's step the
    attribute ``weight`` is out of date. (A spectral norm changes buffers of its own in a call.)
    """
    for hook in module._forward_pre_hooks.values():
        if makes_weight(hook) and not hasattr(hook, "n_power_iterations"):
            hook(module, ())


def makes_weight(hook: object) -> bool:
    """Whether a hook is torch's, of pruning or of a norm of weights."""
    return hasattr(hook, "apply_mask") or hasattr(hook, "compute_weight")


def checked_shape(shape: Any, error: type[BridgeError]) -> tuple[int, ...] | None:
    """The shape of one input as integers, or None: not known. An ``error`` if it is neither."""
    if shape is None:
        return None
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = ()
    if len(sizes) not in (1, 2, 3) or min(sizes) < 1:
        raise error(
            f"input_shape: expected (C, H, W), (C, L) or (C,) of positive integers, found {shape!r}"
        )
    return sizes


def overridden(module: nn.Module, *names: str) -> bool:
    """Whether a method of these names is not this library's: a subclass' or an instance's own.

    A method that there is none of is not.
    """
    library = __name__.partition(".")[0] + "."
    for name in names:
        method = getattr(type(module), name, None)
        if name in module.__dict__:
            return True
        if method is not None and not method.__module__.startswith(library):
            return True
    return False


def path_text(path: Any) -> str:
    """A file's path as text; a NetFileError if it is none, such as an open file."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        found = repr(path) if isinstance(path, str | bytes) else f"a {type(path).__name__}"
        raise NetFileError(f"expected the path of a .net file, found {found}; give its name")
    return text
