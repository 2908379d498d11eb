"""Any net as the list of modules that it runs: containers opened, other forwards traced."""

import builtins
import copy
import inspect
import operator
import os
import traceback
import warnings
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
from .calls import Size, Time, builder_of
from .rules import RULES, is_container

__all__ = ["leaves"]

# Modules of these packages are taken as they are: a rule says what they do, or none does.
_OPAQUE = (
    *("torch.nn", "torch.ao", "torch.jit", "torch._dynamo"),
    *("spikingjelly", "lava_bridge", "lava.lib"),
)
# Nets of SpikingJelly's, as a user would write them.
_NETS = ("spikingjelly.activation_based.model", "spikingjelly.activation_based.examples")

# Their children see [N, *] where they themselves take [T, N, *].
_STEPPED_CONTAINERS = (layer.SeqToANNContainer, layer.MultiStepContainer, layer.StepModeContainer)
# The functions that call modules on a signal [T, N, *], and whether these see [N, *].
_STEPPED_CALLS: dict[Callable[..., Any], bool] = {
    functional.seq_to_ann_forward: True,
    functional.multi_step_forward: True,
    functional.chunk_multi_step_forward: False,
}

# Of a tensor, not tensors themselves.
_SIZE_ATTRIBUTES = ("shape", "ndim", "dtype", "device", "is_cuda", "layout", "requires_grad")
_SIZE_METHODS = ("size", "dim", "ndimension", "numel", "nelement", "get_device", "stride")

_JOINS = {
    "add": "adds",
    "sub": "subtracts",
    "mul": "multiplies",
    "truediv": "divides",
    "div": "divides",
    "matmul": "multiplies",
    "cat": "concatenates",
    "concat": "concatenates",
    "stack": "stacks",
}
_ONLY_CHAINS = "only chains convert, in which each module takes the output of the one before it"


def leaves(net: Any) -> Iterator[tuple[str, Any]]:
    """The modules that a net runs, in order, with their paths in the net.

    Lists, tuples and containers are opened. A module that has a forward of its own and no rule is
    traced with ``torch.fx``, without data, in evaluation: its forward must be a chain, each call
    taking the output of the one before. Calls of functions (flatten, pooling, padding, ...) come as
    the modules of ``torch.nn`` that compute the same, with a path like ``"head: flatten"``; those
    made of a net's own weights share them. Hooks of traced modules are not run. The net is as it
    was afterwards, and also after an error.

    Args:
        net: A module, or a list or tuple of modules, nested as you like.

    Returns:
        Of ``(path, module)``. A module that is called twice comes twice.

    Raises:
        ConversionError: If a forward is no chain, branches on the signal or its shape, or calls
            what is no layer; it names the module and the call.

    Warns
    -----
    UserWarning
        If the net repeats its input over time, or averages (or sums) its output over time: these
        are left out.
    """
    if not _has_forward(net):
        return _opened(net, "")
    return iter(_layers(_chain(_Tracer(net).record(), _place(net, "")), _place(net, "")))


# Opening and telling apart ----------------------------------------------------------------------


def _children(container: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(container, nn.Module):
        # Not named_children(): it leaves out a module that stands in the net a second time.
        return container._modules.items()
    return ((str(index), child) for index, child in enumerate(container))


def _opened(module: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not is_container(module):
        yield path, module
        return
    for name, child in _children(module):
        yield from _opened(child, _join(path, name))


def _has_forward(module: Any) -> bool:
    """Whether a module, or one in it, has to be traced."""
    if is_container(module):
        return any(_has_forward(child) for _, child in _children(module))
    return not _is_leaf(module)


def _is_leaf(module: Any) -> bool:
    if not isinstance(module, nn.Module) or isinstance(module, base.MemoryModule):
        return True  # a state, which a trace would not see
    if any(kind in RULES for kind in type(module).__mro__):
        return True  # a subclass too: the rules refuse it by name
    home = type(module).__module__
    return _is_in(home, _OPAQUE) and not _is_in(home, _NETS)


def _is_in(home: str, packages: tuple[str, ...]) -> bool:
    return any(home == package or home.startswith(f"{package}.") for package in packages)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _place(module: Any, path: str) -> str:
    return f"{path or 'net'} ({type(module).__name__})"


# Tracing ----------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
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
        self._callers = [("", _place(net, ""))]
        self._called_as: str | None = None
        self._stepped = 0
        self._tensors: dict[int, fx.Proxy] = {}

    def record(self) -> fx.Graph:
        with _scratch(self._modules), self._stepped_calls():
            return self.trace(lambda x: self._call(self._net, "", (x,), {}))

    def _collect(self, module: Any, path: str) -> None:
        if isinstance(module, nn.Module):
            if id(module) in self._paths:
                return
            self._paths[id(module)] = path
            self._modules.append(module)
        if isinstance(module, nn.Module | list | tuple):
            for name, child in _children(module):
                self._collect(child, _join(path, name))

    def _call(self, module: Any, path: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        if is_container(module) and len(args) == 1 and not kwargs:
            stepped = isinstance(module, _STEPPED_CONTAINERS) and module.step_mode == "m"
            with self._steps(stepped):
                return self._run(args[0], _children(module), path)
        if _is_leaf(module) or is_container(module):
            proxy = self.create_proxy("call_module", path or "net", args, kwargs)
            proxy.node.meta.update(path=path, module=module)
            return proxy
        return self._forward(module, path, args, kwargs)

    def _run(self, signal: Any, modules: Iterable[tuple[str, Any]], path: str) -> Any:
        for name, module in modules:
            if isinstance(module, nn.Module):
                self._called_as = _join(path, name)
                signal = module(signal)
            else:
                signal = self._call(module, _join(path, name), (signal,), {})
        return signal

    def _forward(self, module: nn.Module, path: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        place = _place(module, path)
        try:
            inspect.signature(module.forward).bind(*args, **kwargs)
        except TypeError as error:
            raise ConversionError(
                f"{place}: its forward takes other inputs than one signal ({error}); {_ONLY_CHAINS}"
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

    def _call_stepped(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        modules = next(given[name] for name in given if name.endswith("_module"))
        signal = given["x_seq"]
        with self._steps(_STEPPED_CALLS[function]):
            for module in modules if isinstance(modules, list | tuple) else [modules]:
                signal = module(signal)
        return signal

    # What torch.fx calls ------------------------------------------------------------------------

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
    ) -> Any:
        path, self._called_as = self._called_as, None
        path = self._paths.get(id(m)) if path is None else path
        if path is None:
            raise ConversionError(
                f"{self._callers[-1][1]}: calls a {type(m).__name__} that is not registered as a "
                "part of it; keep lists of modules in an nn.ModuleList"
            )
        return self._call(m, path, args, kwargs)

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
        return self._tensor(attr_val) if isinstance(attr_val, Tensor) else attr_val

    def to_bool(self, obj: fx.Proxy) -> bool:
        raise self._refusal("branches on a tensor or its shape")

    def iter(self, obj: fx.Proxy) -> Iterator:
        raise self._refusal("loops over a tensor or its shape")

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


@contextmanager
def _scratch(modules: list[nn.Module]) -> Iterator[None]:
    """Let modules work on copies of their attributes, in evaluation; then give them their own back.

    Whatever a forward sets or appends is lost. Parameters and buffers are not copied.
    """
    own = [(module, module.__dict__) for module in modules]
    try:
        for module, attributes in own:
            scratch = {name: _scratch_copy(value) for name, value in attributes.items()}
            object.__setattr__(module, "__dict__", scratch | {"training": False})
        yield
    finally:
        for module, attributes in own:
            object.__setattr__(module, "__dict__", attributes)


def _scratch_copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return copy.copy(value) if isinstance(value, dict | list | set | deque) else value


def _line(frames: traceback.StackSummary) -> str:
    """Where the user's code was, of frames from the outermost to the innermost."""
    torch_folder = os.path.dirname(torch.__file__)
    for frame in reversed(frames):
        if frame.filename != __file__ and not frame.filename.startswith(torch_folder):
            return f" ({os.path.basename(frame.filename)}, line {frame.lineno})"
    return ""


# From the graph to a chain ----------------------------------------------------------------------


def _chain(graph: fx.Graph, net: str) -> list[fx.Node]:
    """The net's input and the calls up to its output; each takes the one before it."""
    *nodes, output = graph.nodes
    # A signal is what is computed from the net's input; weights and sizes are not.
    signals: dict[fx.Node, None] = {}
    for node in nodes:
        inputs = [source for source in node.all_input_nodes if source in signals]
        if _is_size(node) or (not inputs and node.op != "placeholder"):
            _refuse_change(node)
            continue
        if len(inputs) > 1:
            raise _join_error(node, inputs)
        signals[node] = None
    returned = output.args[0]
    if not isinstance(returned, fx.Node):
        raise ConversionError(
            f"{net}: returns a {type(returned).__name__} of {len(output.all_input_nodes)} outputs, "
            f"not one signal; {_ONLY_CHAINS}"
        )
    if returned not in signals:
        raise ConversionError(f"{net}: returns what is not computed from its input")
    for node in signals:
        if node is not returned and not any(user in signals for user in node.users):
            raise ConversionError(
                f"{node.meta['place']}: does not use the output of {_source(node, '')}; "
                f"{_ONLY_CHAINS}"
            )
    # With no joins, one end and nothing unused, the signals stand in a row.
    return list(signals)


def _is_size(node: fx.Node) -> bool:
    if node.op == "call_function" and node.target is builtins.getattr:
        return node.args[1] in _SIZE_ATTRIBUTES
    return node.op == "call_method" and node.target in _SIZE_METHODS


def _refuse_change(node: fx.Node) -> None:
    """An operation on weights alone is harmless, unless it writes into them."""
    name = _name(node)
    if node.op in ("call_method", "call_function") and (
        (name.endswith("_") and not name.endswith("__")) or node.target is operator.setitem
    ):
        raise ConversionError(
            f"{node.meta['place']}: changes its own weights or buffers in the forward ({name}); "
            "make the change once, before the conversion"
        )


def _join_error(node: fx.Node, inputs: list[fx.Node]) -> ConversionError:
    place, path = node.meta["place"], node.meta["path"]
    if node.op == "call_module":
        verb, path = f"calls {path or 'it'} on", ""
    else:
        name = _name(node)
        verb = _JOINS.get(name.removeprefix("i").rstrip("_"), _JOINS.get(name, f"calls {name} on"))
    *names, last = (_source(source, path) for source in inputs)
    called = [source.meta.get("module") for source in inputs]
    loop = (
        "; it calls one module several times on the same signal: leave a loop over time to the "
        "caller"
        if called[0] is not None and all(module is called[0] for module in called)
        else ""
    )
    return ConversionError(
        f"{place}: {verb} the outputs of {', '.join(names)} and {last}; {_ONLY_CHAINS}{loop}"
    )


def _source(node: fx.Node, path: str) -> str:
    """What gave a signal, as seen from the module at ``path``."""
    if node.op == "placeholder":
        return "the net's input"
    name = node.meta["path"] if node.op == "call_module" else _call_path(node)
    return name.removeprefix(f"{path}.") if path else name or "net"


def _call_path(node: fx.Node) -> str:
    return f"{node.meta['path'] or 'forward'}: {_name(node)}"


def _name(node: fx.Node) -> str:
    target = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


# From the chain to modules ----------------------------------------------------------------------


def _layers(chain: list[fx.Node], net: str) -> list[tuple[str, Any]]:
    time = _time(chain)
    found: list[tuple[str, Any]] = []
    for node in chain[1:]:
        if node.op == "call_module":
            if [*node.args, *node.kwargs.values()] != node.all_input_nodes:
                raise ConversionError(
                    f"{node.meta['place']}: calls {node.meta['path']} with more than one signal; "
                    f"{_ONLY_CHAINS}"
                )
            found.append((node.meta["path"], node.meta["module"]))
            continue
        try:
            build = builder_of(node.target)
            args, kwargs = _arguments(node, time)
            made = build(time[node] and not node.meta["stepped"], *args, **kwargs)
        except ConversionError as error:
            raise ConversionError(f"{node.meta['place']}: {error}") from error
        if made is not None:
            found.append((_call_path(node), made))
    return _without_time(found, net)


def _time(chain: list[fx.Node]) -> dict[fx.Node, bool]:
    """Whether the signal at each node is over time, judged by step modes and repeats.

    It is ``[T, N, *]`` then, but ``[N, *]`` within step-mode containers and functions. A step mode
    counts for the whole net: SpikingJelly sets it so.
    """
    names = ["" if node.op == "call_module" else _name(node) for node in chain]
    repeats = ("repeat", "expand", "repeat_interleave", "stack")
    start = next((i for i, name in enumerate(names) if name in repeats), 0)
    over_time = start > 0 or any(
        node.meta["stepped"] or getattr(node.meta.get("module"), "step_mode", "s") == "m"
        for node in chain
    )
    return {node: over_time and i >= start for i, node in enumerate(chain)}


def _arguments(node: fx.Node, time: dict[fx.Node, bool]) -> tuple[tuple, dict[str, Any]]:
    """A call's arguments without the signal: tensors for weights, ``Size`` for sizes."""
    args, kwargs = list(node.args), dict(node.kwargs)

    def is_signal(value: Any) -> bool:
        if isinstance(value, tuple | list) and value:  # of torch.stack
            return all(is_signal(part) for part in value)
        return isinstance(value, fx.Node) and value in time

    named = next((name for name in kwargs if is_signal(kwargs[name])), None)
    if args and is_signal(args[0]):
        args = args[1:]
    elif named is not None:
        del kwargs[named]
    if any(is_signal(value) for value in (*args, *kwargs.values())):
        raise ConversionError(f"calls {_name(node)} on a signal in an unusual place")
    return _resolved(args, time), {k: _resolved(v, time) for k, v in kwargs.items()}


def _resolved(value: Any, time: dict[fx.Node, bool]) -> Any:
    if isinstance(value, tuple | list):
        return tuple(_resolved(part, time) for part in value)
    if not isinstance(value, fx.Node):
        return value
    if value.op == "get_attr":
        return value.meta["tensor"]
    if _is_size(value):
        source: Any
        dims: list[Any]
        source, *dims = [*value.args, *value.kwargs.values()]
        if source not in time or (value.target != "size" and dims != ["shape"]):
            return Size.OTHER
        shape = _shape(time[source] and not value.meta["stepped"])
        return shape if dims in ([], ["shape"]) else _part(shape, dims[0])
    args = [_resolved(part, time) for part in value.args]
    if value.target is operator.add and all(isinstance(part, tuple) for part in args):
        return args[0] + args[1]
    if value.target is operator.getitem and isinstance(args[0], tuple):
        return _part(args[0], args[1])
    return Size.OTHER


def _part(sizes: tuple, index: Any) -> Any:
    try:
        return sizes[index]
    except (TypeError, IndexError):
        return Size.OTHER


def _shape(multi_step: bool) -> tuple[Size, ...]:
    """A signal's shape, as far as it is known; it is longer than any signal's."""
    known = (Size.TIME, Size.BATCH) if multi_step else (Size.BATCH,)
    return known + (Size.OTHER,) * 16


def _without_time(found: list[tuple[str, Any]], net: str) -> list[tuple[str, Any]]:
    """Leave out a repetition over time at the very start and an average at the very end."""
    kinds = [item if isinstance(item, Time) else None for _, item in found]
    left_out = []
    start, end = 0, len(found)
    if kinds[:2] == [Time.AXIS, Time.REPEAT] or kinds[:1] == [Time.STACK]:
        start = 1 if kinds[0] is Time.STACK else 2
        left_out.append("repeats its input over time")
    if kinds[-2:] == [Time.REDUCE, Time.DIVIDE] or kinds[-1:] == [Time.REDUCE]:
        end -= 1 if kinds[-1] is Time.REDUCE else 2
        left_out.append("averages or sums its output over time")
    for path, item in found[start:end]:
        if isinstance(item, Time):
            raise ConversionError(
                f"{path}: {item.value}; only unsqueeze(0).repeat(T, 1, ...) over time at the very "
                "start of a net and mean(0) or sum(0) over time at its very end can be left out"
            )
    if left_out:
        warnings.warn(
            f"{net}: {' and '.join(left_out)}; the blocks take and give every step, so that this "
            "is the caller's",
            stacklevel=4,
        )
    return found[start:end]
