"""Modules without random weights, for weights that are known."""

from typing import Any

from torch.overrides import TorchFunctionMode

__all__ = ["no_drawing"]


class _NoDrawing(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def no_drawing() -> _NoDrawing:
    """Within it modules are made without random weights, which take longer than all the rest.

    Their memory is taken, but not touched.
    """
    return _NoDrawing()
