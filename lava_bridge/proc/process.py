"""Processes and their variables."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import BridgeError
from .model import PyLoihiProcessModel
from .ports import InPort, Member, OutPort
from .run import Network, RunConfig, RunSteps

__all__ = ["AbstractProcess", "LogConfig", "Var"]

_ids = itertools.count()


@dataclass
class LogConfig:
    """Lava's settings of a process's log, accepted for Lava's programs: nothing is logged here."""

    file: str = ""
    level: int = logging.WARNING
    level_console: int = logging.ERROR
    logs_to_file: bool = False
    format: str = ""
    date_format: str = ""


class Var(Member):
    """A variable of a process.

    Args:
        shape: Its shape.
        init: What it is before the first step, broadcast to the shape.
        shareable: As in Lava; it has no effect here.
    """

    def __init__(self, shape: Sequence[int], init: Any = 0, shareable: bool = True) -> None:
        super().__init__(shape)
        self.init = init
        self.shareable = shareable

    def get(self, idx: Any = None) -> Any:
        """The value after the last step, as float64 (as Lava gives it), or its part ``idx``.

        Before the first run it is ``init`` as it was given.

        Raises:
            BridgeError: If the process was stopped.
        """
        network = self.process.network if self.process else None
        value = self.init if network is None else network.get(self)
        return value if idx is None else value[idx]

    def set(self, value: Any, idx: Any = None) -> None:
        """Set the value, or its part ``idx``, between two runs.

        ``value`` is cast to the model's dtype: 2.7 becomes 2 in an integer variable.

        Raises:
            BridgeError: If the process has not run yet, or was stopped, if ``value`` has neither
                the shape nor is a scalar, or if it is not made of real numbers.
        """
        network = self.process.network if self.process else None
        if network is None:
            raise BridgeError(f"{self.place}.set: the process has not run yet; give it as init")
        network.set(self, value, idx)


class Collection:
    """The ports or variables of a process by name: ``in_ports.s_in``; iterated in order."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __iter__(self) -> Iterator[Any]:
        return iter(vars(self).values())

    @property
    def members(self) -> list[Any]:
        """The members, in the order in which they became attributes of the process."""
        return list(self)

    @property
    def member_names(self) -> list[str]:
        """Their names."""
        return list(vars(self))


class AbstractProcess:
    """The base of the processes: what it assigns to itself of ports and variables is its own.

    >>> class Scaled(AbstractProcess):
    ...     def __init__(self, shape, scale):
    ...         super().__init__(shape=shape, scale=scale)
    ...         self.a_in, self.a_out = InPort(shape=shape), OutPort(shape=shape)
    ...         self.scale = Var(shape=(1,), init=scale)

    What it does is in its models (:func:`lava_bridge.proc.implements`).

    Args:
        proc_params: What its models need to know of it; ``name`` is its name in errors.

    Attributes:
        in_ports, out_ports, vars: Its parts, by name.
        network: The net that it runs in, from the first ``run`` on.
    """

    process_models: ClassVar[list[type[PyLoihiProcessModel]]] = []

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.process_models = []

    def __init__(self, **proc_params: Any) -> None:
        self.proc_params = proc_params
        self.id = next(_ids)
        self.name: str = proc_params.get("name") or f"{type(self).__name__}_{self.id}"
        self.in_ports, self.out_ports, self.vars = Collection(), Collection(), Collection()
        self.network: Network | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, Member):
            kinds = {InPort: "in_ports", OutPort: "out_ports", Var: "vars"}
            own = next(kinds[kind] for kind in type(value).__mro__ if kind in kinds)
            if own not in vars(self):
                raise BridgeError(
                    f"{type(self).__name__}.{name}: is set before the process is one; call "
                    "super().__init__() first"
                )
            setattr(getattr(self, own), name, value)
            value.name, value.process = name, self

    def __enter__(self) -> "AbstractProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def run(
        self,
        condition: RunSteps,
        run_cfg: RunConfig | None = None,
        compile_config: dict[str, Any] | None = None,
    ) -> None:
        """Run this process, and all that are connected with it, for some steps.

        It returns when they are done. Another call goes on from there.

        Args:
            condition: How many steps.
            run_cfg: Picks a model for each process in the first run; ignored in later ones.
            compile_config: As in Lava; nothing is compiled here.

        Raises:
            BridgeError: If there is no ``run_cfg`` in the first run, if a process has no model that
                fits, or if it was stopped.
        """
        # Before the net is made, whose models are there to stay.
        if not isinstance(condition, RunSteps):
            raise BridgeError(
                f"{self.name}.run: expected RunSteps(...), found {condition!r}; give the steps"
            )
        if self.network is None:
            if not isinstance(run_cfg, RunConfig):
                raise BridgeError(
                    f"{self.name}.run: the first run needs a run_cfg, found {run_cfg!r}; pass a "
                    "RunConfig, as Loihi2SimCfg()"
                )
            Network(self, run_cfg)
        assert self.network is not None
        self.network.run(condition)

    def wait(self) -> None:
        """Nothing: a run is over when ``run`` returns."""

    def pause(self) -> None:
        """Nothing, for the same reason."""

    def stop(self) -> None:
        """End the net: its variables can't be read any more, nor can it run (as in Lava)."""
        if self.network is not None:
            self.network.stopped = True
