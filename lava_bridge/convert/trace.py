"""Any net as the list of modules that it runs: containers opened, other forwards traced."""

import operator
import warnings
from collections.abc import Iterator
from typing import Any

import torch.fx as fx
import torch.nn as nn

from ..checks import makes_weight
from ..errors import ConversionError
from .calls import Size, Time, builder_of
from .rules import is_container
from .tracer import (
    ONLY_CHAINS,
    Tracer,
    check_modes,
    check_steps,
    children_of,
    is_leaf,
    is_size,
    join_path,
    opens_steps,
    place_of,
)

__all__ = ["leaves"]

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


def leaves(net: Any) -> Iterator[tuple[str, Any]]:
    """The modules that a net runs, in order, with their paths in the net.

    Lists, tuples and containers are opened. A module that has a forward of its own and no rule is
    traced with ``torch.fx``, without data, in evaluation: its forward must be a chain, each call
    taking the output of the one before. Calls of functions (flatten, pooling, padding, ...) come as
    the modules of ``torch.nn`` that compute the same, with a path like ``"head: flatten"``; those
    made of a net's own weights share them. Hooks are not run. The net is as it was afterwards, and
    also after an error.

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
        are left out. If a module has hooks, but for SpikingJelly's own, which only look.
    """
    _warn_of_hooks(net)
    if not _has_forward(net):
        found = list(_opened(net, ""))
        check_modes(found)
        return ((path, module) for path, module, _ in found)
    return iter(_layers(_chain(Tracer(net).record(), place_of(net, "")), place_of(net, "")))


def _warn_of_hooks(net: Any) -> None:
    """Say which module's hooks are left out; those that make a weight are refused elsewhere."""
    hooked = [
        f"{path or 'net'} ({type(module).__name__})"
        for path, module in _modules(net, "")
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        if not (
            makes_weight(hook) or str(getattr(hook, "__module__", "")).startswith("spikingjelly.")
        )
    ]
    if hooked:
        others = f" (one of {len(hooked)} in the net)" if hooked[1:] else ""
        warnings.warn(
            f"{hooked[0]}: has a forward hook{others}, which the blocks have not; what changes "
            "values there has to be a module of the net",
            stacklevel=5,
        )


def _modules(net: Any, path: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(net, list | tuple):
        for i, part in enumerate(net):
            yield from _modules(part, join_path(path, str(i)))
    elif isinstance(net, nn.Module):
        yield from ((join_path(path, name), part) for name, part in net.named_modules())


def _opened(module: Any, path: str, stepped: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """Paths and modules, and whether a step-mode container gives them one step at a time."""
    if not is_container(module):
        yield path, module, stepped
        return
    check_steps(module, path)
    for name, child in children_of(module):
        yield from _opened(child, join_path(path, name), stepped or opens_steps(module))


def _has_forward(module: Any) -> bool:
    """Whether a module, or one in it, has to be traced."""
    if is_container(module):
        return any(_has_forward(child) for _, child in children_of(module))
    return not is_leaf(module)


# From the graph to a chain -----------------------------------------------------------------------


def _chain(graph: fx.Graph, net: str) -> list[fx.Node]:
    """The net's input and the calls up to its output; each takes the one before it."""
    *nodes, output = graph.nodes
    # A signal is what is computed from the net's input; weights and sizes are not.
    signals: dict[fx.Node, None] = {}
    for node in nodes:
        inputs = [source for source in node.all_input_nodes if source in signals]
        if is_size(node) or (not inputs and node.op != "placeholder"):
            _refuse_change(node)
            continue
        if len(inputs) > 1:
            raise _join_error(node, inputs)
        signals[node] = None
    returned = output.args[0]
    outputs = [node for node in output.all_input_nodes if node in signals]
    if outputs and not isinstance(returned, fx.Node):
        raise ConversionError(
            f"{net}: returns {len(outputs)} output(s) in a tuple, list or dict, not one signal; "
            f"{ONLY_CHAINS}"
        )
    if not isinstance(returned, fx.Node) or returned not in signals:
        raise ConversionError(f"{net}: returns what is not computed from its input")
    for node in signals:
        if node is not returned and not any(user in signals for user in node.users):
            raise ConversionError(
                f"{node.meta['place']}: does not use the output of {_source(node, '')}; "
                f"{ONLY_CHAINS}"
            )
    # With no joins, one end and nothing unused, the signals stand in a row.
    return list(signals)


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
    calls = [
        (id(call.meta["module"]), call.args[:1])
        for call in node.graph.nodes
        if call.op == "call_module"
    ]
    again = len(set(calls)) < len(calls)
    loop = (
        "; it calls one module several times on the same signal: leave a loop over time to the "
        "caller"
    )
    return ConversionError(
        f"{place}: {verb} the outputs of {', '.join(names)} and {last}; {ONLY_CHAINS}"
        f"{loop if again else ''}"
    )


def _source(node: fx.Node, path: str) -> str:
    """What gave a signal, as seen from the module at ``path``."""
    if node.op == "placeholder":
        return "the net's input"
    name = node.meta["path"] if node.op == "call_module" else _call_path(node)
    return name.removeprefix(f"{path}.").removeprefix(f"{path or 'forward'}: ") or "net"


def _call_path(node: fx.Node) -> str:
    return f"{node.meta['path'] or 'forward'}: {_name(node)}"


def _name(node: fx.Node) -> str:
    target = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


# From the chain to modules ----------------------------------------------------------------------


def _layers(chain: list[fx.Node], net: str) -> list[tuple[str, Any]]:
    time = _time(chain)
    found: list[tuple[str, Any]] = []
    check_modes(
        (node.meta["path"], node.meta["module"], node.meta["stepped"])
        for node in chain[1:]
        if node.op == "call_module"
    )
    for node in chain[1:]:
        if node.op == "call_module":
            if [*node.args, *node.kwargs.values()] != node.all_input_nodes:
                raise ConversionError(
                    f"{node.meta['place']}: calls {node.meta['path']} with more than one signal; "
                    f"{ONLY_CHAINS}"
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
    if is_size(value):
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
            stacklevel=6,
        )
    return found[start:end]
