"""Torch operators that are called without torch's dispatcher where nothing watches it.

An operator of :func:`torch.library.custom_op` goes through the dispatcher twice, and back into
Python each time. That is slow, above all behind a kernel that has filled the caches: half a
millisecond for forward and backward, where a whole layer's kernels take two or three. So the same
function and the same gradient also make a :class:`torch.autograd.Function`, which runs on plain
tensors in eager mode. What looks at operators finds the operator: compiling, exporting, tracing,
modes of the dispatcher, tensors without data or of other classes; and the profiler its name.

The transforms of torch.func take neither the operator's gradient nor that Function: for them there
is a second one, of the form that they ask for, which costs more to call. Under vmap an operator
runs once for each slice.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad, profiler

__all__ = ["Operator", "operator"]

# An operator's arguments, where it may be called as a function.
_PLAIN = frozenset({Tensor, torch.nn.Parameter, bool, int, float, str, type(None)})


def _is_watched() -> bool:
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch.jit.is_tracing()
    )


class Operator:
    """What :func:`operator` makes of a function; called as that is.

    Attributes:
        run: The function.
        registered: The operator that torch has of it.
    """

    def __init__(self, name: str, run: Callable[..., Any]) -> None:
        self.run = run
        self.name = name
        self.registered = torch.library.custom_op(name, run, mutates_args=())
        self._apply: Callable[..., Any] = self.registered
        self._transformed: Callable[..., Any] = self.registered

    def register_fake(self, like: Callable[..., Any]) -> Callable[..., Any]:
        """Say what outputs look like, as :func:`torch.library.register_fake`."""
        return self.registered.register_fake(like)

    def register_autograd(
        self, gradients: Callable[..., Any], setup_context: Callable[..., None] | None = None
    ) -> None:
        """Give the operator a gradient, as :func:`torch.library.register_autograd`."""
        self.registered.register_autograd(gradients, setup_context=setup_context)
        run, save = self.run, setup_context or _save_nothing

        def forward(ctx: Any, *args: Any) -> Any:
            output = run(*args)
            save(ctx, args, output)
            return output

        self._apply = self._function(forward, gradients).apply
        self._transformed = self._function(
            self.registered, gradients, setup_context=staticmethod(save), generate_vmap_rule=True
        ).apply

    def _no_tangents(self, ctx: Any, *tangents: Tensor | None) -> None:
        # Torch raises the same, but asks the user to implement a method of ours.
        raise NotImplementedError(
            f"{self.name}: there is no forward-mode gradient; take torch.func.vjp, jacrev or grad"
        )

    def _function(self, forward: Any, backward: Any, **more: Any) -> Any:
        methods = {"forward": forward, "backward": backward, "jvp": self._no_tangents}
        methods = {name: staticmethod(method) for name, method in methods.items()} | more
        return type(self.name.rpartition("::")[2], (torch.autograd.Function,), methods)

    def __call__(self, *args: Any) -> Any:
        if _is_watched():  # first: older torches can't compile what follows
            return self.registered(*args)
        if torch._C._are_functorch_transforms_active():
            return self._transformed(*args)
        if profiler._is_profiler_enabled:
            with profiler.record_function(self.name):
                return self._called(args)
        return self._called(args)

    def _called(self, args: tuple[Any, ...]) -> Any:
        tensors = [x for x in args if isinstance(x, Tensor)]
        # (A tensor may be the negative of what lies in memory: the dispatcher makes a copy then.)
        if not _PLAIN.issuperset(map(type, args)) or any(x.is_meta or x.is_neg() for x in tensors):
            return self.registered(*args)
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            return self._apply(*args)
        if forward_ad._current_level >= 0:  # it refuses tangents, which would be lost
            return self._apply(*args)
        return self.run(*args)


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Make a function of tensors the operator ``name`` (``"lava_bridge::cuba"``); a decorator.

    The function must change none of its arguments and give no tensor that shares their memory.
    """
    return lambda run: Operator(name, run)
