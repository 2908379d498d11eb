"""How long to run, on which models, and the net that does it."""

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import as_array, integer
from ..errors import BridgeError
from .model import LavaPyType, PyLoihiProcessModel
from .ports import Channel, PyInPort, PyOutPort
from .turns import Turns

if TYPE_CHECKING:
    from .process import AbstractProcess, Var

__all__ = ["Loihi1SimCfg", "Loihi2SimCfg", "RunConfig", "RunSteps"]

ModelClass = type[PyLoihiProcessModel]

# Phases of Lava's models that a net here does not run.
OTHER_PHASES = ("run_pre_mgmt", "run_lrn", "run_post_mgmt", "run_async")


@dataclass
class RunSteps:
    """Run for ``num_steps`` steps.

    ``blocking`` is as in Lava, and has no effect: ``run`` returns when the steps are done.
    """

    num_steps: int
    blocking: bool = True

    def __post_init__(self) -> None:
        self.num_steps = integer("RunSteps", self.num_steps)
        if self.num_steps < 1:
            raise BridgeError(f"RunSteps: {self.num_steps} steps can't be run; run 1 or more")


class RunConfig:
    """The base of what picks a model for each process.

    Args:
        custom_sync_domains: None; there is one domain.
        loglevel: As in Lava; nothing is logged here.
    """

    def __init__(self, custom_sync_domains: None = None, loglevel: int = 30) -> None:
        if custom_sync_domains:
            raise BridgeError("RunConfig: custom_sync_domains is given, but all runs in one; omit")

    def select(self, process: "AbstractProcess", proc_models: list[ModelClass]) -> ModelClass:
        """The model for a process, of those that implement it."""
        raise BridgeError(f"{type(self).__name__}: has no select(process, proc_models); define it")


class Loihi1SimCfg(RunConfig):
    """Picks the first model that has a tag.

    Args:
        select_tag: ``"fixed_pt"`` for the chip's integers, ``"floating_pt"`` for floats; the first
            model of any tag by default. A process's only model needs no tag.
        select_sub_proc_model: As in Lava; no process here is made of processes.
        exception_proc_model_map: The model of each of these processes, whatever its tags.
        custom_sync_domains, loglevel: As in :class:`RunConfig`.
    """

    def __init__(
        self,
        custom_sync_domains: None = None,
        select_tag: str | None = None,
        select_sub_proc_model: bool = False,
        exception_proc_model_map: "dict[type[AbstractProcess], ModelClass] | None" = None,
        loglevel: int = 30,
    ) -> None:
        super().__init__(custom_sync_domains, loglevel)
        self.select_tag = select_tag
        self.exception_proc_model_map = exception_proc_model_map or {}

    def select(self, process: "AbstractProcess", proc_models: list[ModelClass]) -> ModelClass:
        """The model for a process; a BridgeError if none has the tag."""
        if type(process) in self.exception_proc_model_map:
            return self.exception_proc_model_map[type(process)]
        for model in proc_models:
            alone = len(proc_models) == 1 and not model.tags
            if self.select_tag is None or self.select_tag in model.tags or alone:
                return model
        found = ", ".join(f"{model.__name__} {model.tags}" for model in proc_models) or "none"
        raise BridgeError(
            f"{process.name}: has no model with the tag {self.select_tag!r}; its models: {found}"
        )


class Loihi2SimCfg(Loihi1SimCfg):
    """As :class:`Loihi1SimCfg`: the models are the same."""


class Network:
    """Connected processes, each with its model.

    In a step each model runs once, the senders first; if there is a loop they take turns instead
    (:class:`Turns`). Whatever the order, the messages are the same.
    """

    def __init__(self, process: "AbstractProcess", run_cfg: RunConfig) -> None:
        self.stopped = False
        self._step = 0
        senders, self._turns = _senders(process), None
        try:
            order = list(TopologicalSorter(senders).static_order())
        except CycleError:
            order, self._turns = list(senders), Turns()
        wait = self._turns.wait if self._turns else None
        self._models = {process: _build(process, run_cfg) for process in order}
        for receiver, model in self._models.items():
            for port in receiver.in_ports:
                for source, transform in port.sources:
                    channel = Channel(port.place, transform, wait)
                    getattr(self._models[source.process], source.name).channels.append(channel)
                    getattr(model, port.name).channels.append(channel)
        for process in order:
            process.network = self

    def run(self, condition: RunSteps) -> None:
        """Run the steps; what a model raises stops the net, which is then between two states."""
        self._require_running("run")
        try:
            for _ in range(condition.num_steps):
                self._step += 1
                for model in self._models.values():
                    model.time_step = self._step
                    if self._turns is None:
                        model.run_spk()
                if self._turns is not None:
                    self._turns.step(list(self._models.values()))
        except BaseException:
            self.stopped = True
            raise

    def get(self, var: "Var") -> Any:
        """The value of a variable, as float64; a string as it is."""
        self._require_running(f"{var.place}.get")
        assert var.process is not None
        value = getattr(self._models[var.process], var.name)
        if isinstance(value, str):
            return value
        return np.array(value, dtype=np.float64).reshape(var.shape)

    def set(self, var: "Var", value: Any, idx: Any = None) -> None:
        """Set the value of a variable, or a part of it."""
        self._require_running(f"{var.place}.set")
        assert var.process is not None
        model = self._models[var.process]
        place, old = f"{var.place}.set", getattr(model, var.name)
        if not isinstance(old, np.ndarray):
            setattr(model, var.name, _scalar(place, type(old), value))
        else:
            part = old if idx is None else old[idx]
            new = _numbers(place, value)
            if new.shape not in ((), part.shape):
                raise BridgeError(
                    f"{place}: has the shape {part.shape}, found a value of {new.shape}; give "
                    "that shape, or a scalar"
                )
            old[... if idx is None else idx] = new.astype(old.dtype)
        model.on_var_update()

    def _require_running(self, place: str) -> None:
        if self.stopped:
            raise BridgeError(
                f"{place}: the net was stopped; read variables before stop(), and make the "
                "processes anew to run again"
            )


def _senders(process: "AbstractProcess") -> "dict[AbstractProcess, list[AbstractProcess]]":
    """The processes that are connected with one, each with those that send to it."""
    found: dict[AbstractProcess, list[AbstractProcess]] = {}
    waiting = [process]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found[one] = [source.process for port in one.in_ports for source, _ in port.sources]
        receivers = [target.process for port in one.out_ports for target in port.targets]
        if None in found[one] or None in receivers:
            raise BridgeError(
                f"{one.name}: is connected to a port of no process; make the port an attribute of "
                "one"
            )
        waiting += [*found[one], *receivers]
    return found


def _build(process: "AbstractProcess", run_cfg: RunConfig) -> PyLoihiProcessModel:
    """The model of a process, with its ports and variables."""
    chosen = run_cfg.select(process, list(process.process_models))
    if not (isinstance(chosen, type) and issubclass(chosen, PyLoihiProcessModel)):
        raise BridgeError(
            f"{process.name}: {type(run_cfg).__name__}.select gave {chosen!r}; it has to give a "
            "model, a class derived from PyLoihiProcessModel"
        )
    place = f"{process.name} ({chosen.__name__})"
    members = [*process.in_ports, *process.out_ports, *process.vars]
    typed = {name for name in dir(chosen) if isinstance(getattr(chosen, name), LavaPyType)}
    for name in sorted({member.name for member in members} ^ typed):
        raise BridgeError(
            f"{place}.{name}: is in the {'model' if name in typed else 'process'} alone; a "
            "variable or port needs a LavaPyType in the model and a Var or port in the process"
        )
    for phase in OTHER_PHASES:
        if hasattr(chosen, phase):
            raise BridgeError(f"{place}.{phase}: is not run here; a step is run_spk")
    model = chosen(process.proc_params)
    for member in members:
        kind = getattr(chosen, member.name)
        if issubclass(kind.cls, PyInPort | PyOutPort):
            value: Any = kind.cls(member.place, member.shape, kind.d_type)
        elif issubclass(kind.cls, np.ndarray):
            value = np.empty(member.shape, kind.d_type)
            init = _numbers(f"{member.place}: init", member.init)
            try:
                value[...] = init.astype(kind.d_type)
            except ValueError:
                raise BridgeError(
                    f"{member.place}: init has the shape {init.shape}, which does not fit into "
                    f"{member.shape}; give that shape, or a scalar"
                ) from None
        else:
            value = _scalar(f"{member.place}: init", kind.cls, member.init)
        setattr(model, member.name, value)
    return model


def _numbers(place: str, value: Any) -> np.ndarray:
    """A variable's value as an array; nothing that a cast would drop a part of, or fail at."""
    try:
        found = as_array(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a list of lists of many lengths, say
        raise BridgeError(f"{place}: is no array ({error}); give an array of numbers") from error
    if found.dtype.kind not in "biuf":
        raise BridgeError(f"{place}: has the dtype {found.dtype}; give integers or real floats")
    return found


def _scalar(place: str, kind: Any, value: Any) -> Any:
    """A variable's value where a model has a number, or a string."""
    try:
        return kind(as_array(value).item())
    except (TypeError, ValueError, RuntimeError) as error:
        raise BridgeError(
            f"{place}: {value!r} is no {kind.__name__} ({error}); give one"
        ) from error
