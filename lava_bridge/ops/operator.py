"""Torch operators that are called without torch's dispatcher where nothing watches it.

An operator of :func:`torch.library.custom_op` goes through the dispatcher twice, and back into
Python each time. That is slow, above all behind a kernel that has filled the caches: half a
millisecond for forward and backward, where a whole layer's kernels take two or three. So the same
function and the same gradient also make a :class:`torch.autograd.Function`, which runs on plain
tensors in eager mode. What looks at operators finds the operator: compiling, exporting, tracing,
modes of the dispatcher, transforms of torch.func, tensors without data or of other classes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Operator", "operator"]

# An operator's arguments, where it may be called as a function. (A list is never one of tensors.)
_PLAIN = frozenset({Tensor, torch.nn.Parameter, bool, int, float, str, list, tuple, type(None)})


def _is_watched() -> bool:
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
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
        self._name = name.rpartition("::")[2]
        self.registered = torch.library.custom_op(name, run, mutates_args=())
        self._apply: Callable[..., Any] = self.registered

    def register_fake(self, like: Callable[..., Any]) -> Callable[..., Any]:
        """Say what outputs look like, as :func:`torch.library.register_fake`."""
        return self.registered.register_fake(like)

    def register_autograd(
        self, gradients: Callable[..., Any], setup_context: Callable[..., None] | None = None
    ) -> None:
        """Give the operator a gradient, as :func:`torch.library.register_autograd`."""
        self.registered.register_autograd(gradients, setup_context=setup_context)
        run = self.run

        def forward(ctx: Any, *args: Any) -> Any:
            output = run(*args)
            if setup_context is not None:
                setup_context(ctx, args, output)
            return output

        methods = {"forward": staticmethod(forward), "backward": staticmethod(gradients)}
        function: Any = type(self._name, (torch.autograd.Function,), methods)
        self._apply = function.apply

    def __call__(self, *args: Any) -> Any:
        if _is_watched():  # first: older torches can't compile what follows
            return self.registered(*args)
        tensors = [x for x in args if isinstance(x, Tensor)]
        if not _PLAIN.issuperset(map(type, args)) or any(x.is_meta for x in tensors):
            return self.registered(*args)
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            return self._apply(*args)
        return self.run(*args)


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Make a function of tensors the operator ``name`` (``"lava_bridge::cuba"``); a decorator.

    The function must change none of its arguments and give no tensor that shares their memory.
    """
    return lambda run: Operator(name, run)
