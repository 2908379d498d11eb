"""The tracer: what a net does to its input, recorded with torch.fx and without data."""

import copy
import inspect
import operator
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.fx as fx
import torch.nn as nn
from spikingjelly.activation_based import base, functional, layer
from torch import Tensor

from ..errors import ConversionError
from ..exchange.neurons import SPIKING
from .rules import RULES, is_container

__all__ = ["ONLY_CHAINS", "Tracer", "check_modes", "check_steps", "children_of", "is_leaf"]
__all__ += ["is_size", "join_path", "opens_steps", "place_of"]

ONLY_CHAINS = "only chains convert, in which each module takes the output of the one before it"

# Modules of these packages are taken as they are: a rule says what they do, or none does.
_OPAQUE = (
    *("torch.nn", "torch.ao", "torch.jit", "torch._dynamo"),
    *("spikingjelly", "lava_bridge", "lava.lib"),
)
# Nets of SpikingJelly's, as a user would write them.
_NETS = ("spikingjelly.activation_based.model", "spikingjelly.activation_based.examples")

# Their children see [N, *] where they themselves take [T, N, *].
_STEPPED_CONTAINERS = (layer.SeqToANNContainer, layer.MultiStepContainer, layer.StepModeContainer)
_MERGED = (
    "which runs all steps as one batch, so that it keeps no state from one step to the next; put "
    "it behind, in step mode 'm'"
)
# Taken here, since its name leads to the tracer while a net is traced.
_MERGING_CALL = functional.seq_to_ann_forward
# The functions that call modules on a signal [T, N, *], and whether these see [N, *].
_STEPPED_CALLS: dict[Callable[..., Any], bool] = {
    functional.seq_to_ann_forward: True,
    functional.multi_step_forward: True,
    functional.chunk_multi_step_forward: False,
}

# Of a tensor, not tensors themselves.
_SIZE_ATTRIBUTES = ("shape", "ndim", "dtype", "device", "is_cuda", "layout", "requires_grad")
_SIZE_METHODS = ("size", "dim", "ndimension", "numel", "nelement", "get_device", "stride")


# What a forward may set of a layer: no spike depends on it.
_HARMLESS = ("training", "_backend", "_store_v_seq", "v_seq")

# While torch.fx traces, it patches torch.nn.Module for all threads.
_ONE_AT_A_TIME = threading.RLock()


def children_of(container: Any) -> Iterable[tuple[str, Any]]:
    """The parts of a module, list or tuple, with their names in it."""
    if isinstance(container, nn.Module):
        # Not named_children(): it leaves out a module that stands in the net a second time.
        return container._modules.items()
    return ((str(index), child) for index, child in enumerate(container))


def is_leaf(module: Any) -> bool:
    """Whether a module that is no container is taken whole, for its rule, rather than traced."""
    if not isinstance(module, nn.Module) or isinstance(module, base.MemoryModule):
        return True  # a state, which a trace would not see
    if any(kind in RULES for kind in type(module).__mro__):
        return True  # a subclass too: the rules refuse it by name
    if isinstance(module, nn.Sequential) and "forward" in vars(module):
        return False  # its owner has given it another
    home = type(module).__module__
    return _is_in(home, _OPAQUE) and not _is_in(home, _NETS)


def _is_in(home: str, packages: tuple[str, ...]) -> bool:
    return any(home == package or home.startswith(f"{package}.") for package in packages)


def opens_steps(container: Any) -> bool:
    """Whether a container takes ``[T, N, *]``, but its parts ``[N, *]``."""
    return (
        isinstance(container, _STEPPED_CONTAINERS) and getattr(container, "step_mode", "m") == "m"
    )


def check_steps(container: Any, path: str) -> None:
    """Refuse neurons to which a step-mode container does not give one step after the other."""
    if not opens_steps(container):
        return
    kind = type(container).__name__
    merges = isinstance(container, layer.SeqToANNContainer) or not getattr(
        container, "stateful", True
    )
    for name, node in _neurons(container, path):
        if merges:
            raise ConversionError(f"{place_of(node, name)}: is in a {kind}, {_MERGED}")
        if node.step_mode == "m":
            raise ConversionError(
                f"{place_of(node, name)}: is in step mode 'm' in a {kind}, which gives it one step "
                "at a time, so that it takes the batch for time; use step mode 's' in there"
            )


def check_modes(modules: Iterable[tuple[str, Any, bool]]) -> None:
    """Refuse a neuron that would take ``[T, N, *]`` for one step.

    Of ``(path, module, stepped)``; ``stepped``: something gives it one step at a time.
    """
    single: tuple[Any, str] | None = None
    over_time = ""
    for path, module, stepped in modules:
        if stepped:
            over_time = over_time or path
        elif isinstance(module, nn.Module):
            for name, node in _neurons(module, path):
                if node.step_mode == "m":
                    over_time = over_time or name
                else:
                    single = single or (node, name)
    if single and over_time:
        raise ConversionError(
            f"{place_of(*single)}: is in step mode 's', but {over_time} is run over time, so that "
            "it takes time for the batch; call functional.set_step_mode(net, 'm'), or 's'"
        )


def _neurons(module: nn.Module, path: str) -> Iterator[tuple[str, Any]]:
    """The neurons of a module, each with its path."""
    for name, part in module.named_modules():
        if isinstance(part, SPIKING):
            yield (join_path(path, name) if name else path), part


def join_path(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def place_of(module: Any, path: str) -> str:
    """A module's path and type, as errors name it."""
    return f"{path or 'net'} ({type(module).__name__})"


def is_size(node: fx.Node) -> bool:
    """Whether a node reads something of a tensor that is no tensor."""
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in _SIZE_ATTRIBUTES
    return node.op == "call_method" and node.target in _SIZE_METHODS


class Tracer(fx.Tracer):
    """Records what a net does to its input.

    Nodes carry in ``meta``: ``path`` and ``place`` of the module whose forward makes the call (of a
    ``call_module``, ``path`` is the called module's own), ``stepped`` (the signal is ``[N, *]`` by
    way of a step-mode container or function), ``module``, and ``tensor`` (of a ``get_attr``).
    """

    def __init__(self, net: Any) -> None:
        super().__init__(autowrap_functions=tuple(_STEPPED_CALLS))
        self._net = net
        self._paths: dict[int, str] = {}
        self._modules: list[nn.Module] = []
        self._collect(net, "")
        self._callers = [("", place_of(net, ""))]
        self._called_as: str | None = None
        self._stepped = 0
        self._tensors: dict[int, fx.Proxy] = {}
        self._thread = threading.get_ident()

    def record(self) -> fx.Graph:
        with _ONE_AT_A_TIME, _scratch(self._modules), self._stepped_calls():
            return self.trace(lambda x: self._run(x, [("", self._net)], ""))

    def _collect(self, module: Any, path: str) -> None:
        if isinstance(module, nn.Module):
            if id(module) in self._paths:
                return
            self._paths[id(module)] = path
            self._modules.append(module)
        if isinstance(module, nn.Module | list | tuple):
            for name, child in children_of(module):
                self._collect(child, join_path(path, name))

    def _call(self, module: Any, path: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        if is_container(module) and len(args) == 1 and not kwargs:
            check_steps(module, path)
            with self._steps(opens_steps(module)):
                return self._run(args[0], children_of(module), path)
        if is_leaf(module) or is_container(module):
            proxy = self.create_proxy("call_module", path or "net", args, kwargs)
            proxy.node.meta.update(path=path, module=module)
            return proxy
        return self._forward(module, path, args, kwargs)

    def _run(self, signal: Any, modules: Iterable[tuple[str, Any]], path: str) -> Any:
        for name, module in modules:
            if isinstance(module, nn.Module):
                self._called_as = join_path(path, name)
                signal = module(signal)
            else:
                signal = self._call(module, join_path(path, name), (signal,), {})
        return signal

    def _forward(self, module: nn.Module, path: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        place = place_of(module, path)
        try:
            inspect.signature(module.forward).bind(*args, **kwargs)
        except TypeError as error:
            raise ConversionError(
                f"{place}: its forward takes other inputs than one signal ({error}); {ONLY_CHAINS}"
            ) from error
        self._callers.append((path, place))
        try:
            return module.forward(*args, **kwargs)
        except ConversionError:
            raise
        except Exception as error:
            line = _line(traceback.extract_tb(error.__traceback__))
            reason = str(error).strip().partition("\n")[0].partition(". ")[0]
            raise ConversionError(
                f"{place}: its forward can't be traced{line}: {type(error).__name__}: "
                f"{reason}; pass its layers as an nn.Sequential"
            ) from error
        finally:
            self._callers.pop()

    @contextmanager
    def _steps(self, stepped: bool) -> Iterator[None]:
        self._stepped += stepped
        try:
            yield
        finally:
            self._stepped -= stepped

    @contextmanager
    def _stepped_calls(self) -> Iterator[None]:
        """Take over calls like ``functional.seq_to_ann_forward``; torch.fx does bare names."""
        try:
            for function in _STEPPED_CALLS:
                setattr(functional, function.__name__, partial(self._call_stepped, function))
            yield
        finally:
            for function in _STEPPED_CALLS:
                setattr(functional, function.__name__, function)

    def _is_elsewhere(self) -> bool:
        """Whether it is another thread that runs its own modules meanwhile."""
        return threading.get_ident() != self._thread

    def _call_stepped(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._is_elsewhere():
            return function(*args, **kwargs)
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        modules = next(given[name] for name in given if name.endswith("_module"))
        signal = given["x_seq"]
        if function is _MERGING_CALL:
            self._check_merged(modules)
        with self._steps(_STEPPED_CALLS[function]):
            for module in modules if isinstance(modules, list | tuple) else [modules]:
                signal = module(signal)
        return signal

    def _check_merged(self, modules: Any) -> None:
        for module in modules if isinstance(modules, list | tuple) else [modules]:
            for name, node in _neurons(module, "") if isinstance(module, nn.Module) else ():
                place = place_of(node, self._paths.get(id(node), name))
                raise ConversionError(f"{place}: is called by seq_to_ann_forward, {_MERGED}")

    # What torch.fx calls ------------------------------------------------------------------------

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
    ) -> Any:
        if self._is_elsewhere():
            return forward(*args, **kwargs)
        path, self._called_as = self._called_as, None
        path = self._paths.get(id(m)) if path is None else path
        if path is None:
            raise ConversionError(
                f"{self._callers[-1][1]}: calls a {type(m).__name__} that is not registered as a "
                "part of it; keep lists of modules in an nn.ModuleList"
            )
        return self._call(m, path, args, kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Traced(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        path, place = self._callers[-1]
        node.meta.update(path=path, place=place, stepped=bool(self._stepped))
        return node

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any
    ) -> Any:
        if kind == "call_function" and target in _STEPPED_CALLS:
            return self._call_stepped(target, *args, **kwargs)
        return super().create_proxy(kind, target, args, kwargs, *more, **named)

    def create_arg(self, a: Any) -> Any:
        return self._tensor(a).node if isinstance(a, Tensor) else super().create_arg(a)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        # Buffers too: a forward that computes with them must not do so while it is traced.
        is_traced = isinstance(attr_val, Tensor) and not self._is_elsewhere()
        return self._tensor(attr_val) if is_traced else attr_val

    def to_bool(self, obj: fx.Proxy) -> bool:
        raise self._refusal("branches on a tensor or its shape")

    def iter(self, obj: fx.Proxy) -> Iterator:
        indexed: Any = obj
        return (indexed[i] for i in range(self.length(obj)))

    def length(self, obj: fx.Proxy) -> int:
        """Of a part of a shape like ``x.shape[:2]``; nothing else has a length that is known."""
        sizes: Any
        part: Any
        sizes, part = obj.node.args[:2] if obj.node.target is operator.getitem else (None, None)
        if isinstance(sizes, fx.Node) and is_size(sizes) and isinstance(part, slice):
            leading = part.start is None and part.step is None
            if leading and isinstance(part.stop, int) and part.stop >= 0:
                return part.stop
        raise self._refusal("loops over a tensor or its shape")

    def needs_number(self) -> ConversionError:
        """For ``range(x.shape[0])`` and its like."""
        return self._refusal("needs a size of the signal as a number, as a loop over time does")

    def _refusal(self, finding: str) -> ConversionError:
        line = _line(traceback.extract_stack())
        return ConversionError(
            f"{self._callers[-1][1]}: {finding}{line}, which only data decide; branch on the "
            "module's own attributes, or pass its layers as an nn.Sequential"
        )

    def _tensor(self, tensor: Tensor) -> fx.Proxy:
        if id(tensor) not in self._tensors:
            proxy = self.create_proxy("get_attr", "tensor", (), {})
            proxy.node.meta["tensor"] = tensor  # also keeps its id
            self._tensors[id(tensor)] = proxy
        return self._tensors[id(tensor)]


class _Traced(fx.Proxy):
    """A tensor under trace. Torch.fx would not see an attribute that is set, like ``data``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("tracer", "node"):
            raise TypeError(f"sets .{name} of a tensor")
        super().__setattr__(name, value)

    def __len__(self) -> int:
        tracer: Any = self.tracer
        return tracer.length(self)

    def __index__(self) -> int:
        tracer: Any = self.tracer
        raise tracer.needs_number()


@contextmanager
def _scratch(modules: list[nn.Module]) -> Iterator[None]:
    """Let modules work on copies of their attributes, in evaluation; then give them their own back.

    Whatever a forward sets or appends is lost. Parameters and buffers are not copied.
    """
    own = [(module, module.__dict__) for module in modules]
    try:
        for module, attributes in own:
            scratch = {name: _scratch_copy(value) for name, value in attributes.items()}
            if isinstance(module, base.MemoryModule):
                scratch["_memories"] = _States(attributes["_memories"])
            object.__setattr__(module, "__dict__", scratch | {"training": False})
        yield
        for module, attributes in own:
            _check_weights(module, attributes)
            _check_settings(module, attributes)
    finally:
        for module, attributes in own:
            object.__setattr__(module, "__dict__", attributes)


def _check_weights(module: nn.Module, own: dict[str, Any]) -> None:
    """Refuse a forward that gave a module other weights: its layer would be converted with its own.

    Buffers of a traced module are seen where they are used; states are a neuron's affair.
    """
    kinds = ["_parameters"]
    if is_leaf(module) and not isinstance(module, base.MemoryModule):
        kinds.append("_buffers")
    for kind in kinds:
        now = module.__dict__[kind]
        changed = [name for name, tensor in own[kind].items() if now.get(name) is not tensor]
        if changed:
            raise ConversionError(
                f"net: its forward sets {changed[0]} of a {type(module).__name__}; set it once, "
                "before the conversion"
            )


class _States(dict[str, Any]):
    """A neuron's states, and which of them were set."""

    def __init__(self, states: dict[str, Any]) -> None:
        super().__init__(states)
        self.set: set[str] = set()

    def __setitem__(self, name: str, state: Any) -> None:
        self.set.add(name)
        super().__setitem__(name, state)


def _check_settings(module: nn.Module, own: dict[str, Any]) -> None:
    """Refuse a forward that gave a layer other numbers, or a neuron states.

    To reset a neuron is to change nothing, but for one that is called step by step.
    """
    if not is_leaf(module):
        return
    now = module.__dict__
    changed = [name for name in own if not _same(now.get(name), own[name])]
    if isinstance(now.get("_memories"), _States):
        resting, each_step = own["_memories_rv"], getattr(module, "step_mode", "s") == "s"
        for name in sorted(now["_memories"].set):
            if each_step or not _same(now["_memories"][name], resting.get(name)):
                changed.append(name)
    changed = [name for name in changed if name not in _HARMLESS]
    if changed:
        name = changed[0].removeprefix("_")
        raise ConversionError(
            f"net: its forward sets {name} of a {type(module).__name__}, which would be converted "
            "with what it had before; set it once, before the conversion"
        )


def _same(now: Any, before: Any) -> bool:
    """Whether a number, a text or a tensor is what it was; of anything else nothing is said."""
    if isinstance(now, fx.Proxy):  # computed from the signal, or from a parameter
        return False
    if isinstance(now, Tensor) or isinstance(before, Tensor):
        if not (isinstance(now, Tensor) and isinstance(before, Tensor)):
            return False
        return now.device == before.device and torch.equal(now, before)
    plain = bool | int | float | str | tuple | None
    return not (isinstance(now, plain) and isinstance(before, plain)) or now == before


def _scratch_copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return copy.copy(value) if isinstance(value, dict | list | set | deque) else value


def _line(frames: traceback.StackSummary) -> str:
    """Where the user's code was, of frames from the outermost to the innermost."""
    not_users = tuple(os.path.dirname(file) + os.sep for file in (torch.__file__, __file__))
    for frame in reversed(frames):
        if not frame.filename.startswith(not_users):
            return f" ({os.path.basename(frame.filename)}, line {frame.lineno})"
    return ""
