"""Process models: what a process does in a step, and how a model says what it implements.

>>> @implements(proc=Conv, protocol=LoihiProtocol)
... @requires(CPU)
... @tag("fixed_pt")
... class PyConvModelFixed(PyLoihiProcessModel):
...     weight: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=8)
...     def run_spk(self): ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..errors import BridgeError

if TYPE_CHECKING:
    from .process import AbstractProcess

__all__ = ["CPU", "LavaPyType", "LoihiProtocol", "PyLoihiProcessModel"]
__all__ += ["implements", "requires", "tag"]

Model = TypeVar("Model", bound="type[PyLoihiProcessModel]")


class CPU:
    """The resource that all models here require."""


class LoihiProtocol:
    """The protocol that all models here implement: steps, in each of which spikes are sent."""


if TYPE_CHECKING:
    LavaPyType: Any  # it stands where the model that runs has an array or a port
else:

    @dataclass
    class LavaPyType:
        """Of which type a variable or a port of a process is in a model.

        Attributes:
            cls: ``np.ndarray``, ``int`` or ``float``; ``VEC_DENSE`` of ``PyInPort``, ``PyOutPort``.
            d_type: The dtype of its elements.
            precision: Its bits on the chip, for the reader: nothing is cut to them.
        """

        cls: type
        d_type: Any
        precision: int | None = None


class PyLoihiProcessModel:
    """The base of the models, which run a process on the CPU.

    Each variable and port of the process is a class attribute that holds its ``LavaPyType``, and an
    attribute of that type where the model runs. Of Lava's phases of a step there is ``run_spk``;
    after each ``set`` of a variable ``on_var_update`` is called.

    Attributes:
        proc_params: The arguments of the process.
        time_step: The number of the step, from 1.
        implements_process, implements_protocol, required_resources, tags: What the decorators said.
    """

    implements_process: "ClassVar[type[AbstractProcess] | None]" = None
    implements_protocol: ClassVar[type | None] = None
    required_resources: ClassVar[list[type]] = []
    tags: ClassVar[list[str]] = []

    def __init__(self, proc_params: dict[str, Any] | None = None) -> None:
        self.proc_params = proc_params or {}
        self.time_step = 0

    def run_spk(self) -> None:
        """One step: receive, compute, send."""

    def on_var_update(self) -> None:
        """A variable was set: for what a model derives from its variables."""


def implements(
    proc: "type[AbstractProcess]", protocol: type = LoihiProtocol
) -> Callable[[Model], Model]:
    """Make a class a model of the process ``proc``; a BridgeError if it is one of another.

    The process can then run on it, in the order in which its models were declared.
    """

    def declare(model: Model) -> Model:
        if model.implements_process not in (None, proc):
            raise BridgeError(
                f"{model.__name__}: implements {model.implements_process} already; derive the "
                f"model of {proc.__name__} from a base that implements nothing"
            )
        model.implements_process, model.implements_protocol = proc, protocol
        # A class that is declared again, as in a notebook, takes the place of the first.
        others = [one for one in proc.process_models if _path(one) != _path(model)]
        proc.process_models[:] = [*others, model]
        return model

    return declare


def requires(*resources: type) -> Callable[[Model], Model]:
    """Say which resources a model requires, besides those of its base."""

    def declare(model: Model) -> Model:
        model.required_resources = [*model.required_resources, *resources]
        return model

    return declare


def tag(*tags: str) -> Callable[[Model], Model]:
    """Give a model tags, ``"fixed_pt"`` or ``"floating_pt"`` say, besides those of its base."""

    def declare(model: Model) -> Model:
        model.tags = [*model.tags, *tags]
        return model

    return declare


def _path(model: type) -> tuple[str, str]:
    return model.__module__, model.__qualname__
