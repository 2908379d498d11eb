"""Both frameworks in one net: slayer blocks as a SpikingJelly module, and the other way round."""

from typing import Any

import torch
import torch.nn as nn
from spikingjelly.activation_based import base, functional
from torch import Tensor

from .. import slayer as native_slayer
from ..checks import described, require
from ..encoder import Encoder
from ..errors import BridgeError
from ..layout import NXT_to_TNX, TNX_to_NXT
from ..ops import DECAY_SCALE

__all__ = ["AsSlayer", "AsSpikingJelly"]

_alif, _cuba = native_slayer.neuron.alif, native_slayer.neuron.cuba


class AsSpikingJelly(base.MemoryModule):
    r"""slayer blocks as a SpikingJelly module.

    .. math:: y = \mathrm{TNX}(\mathrm{blocks}(\mathrm{NXT}(x)))

    for floating ``x`` ``[T, N, C, *]`` in step mode ``"m"``, ``[N, C, *]`` in ``"s"``. Both
    conversions are views.

    As the state of SpikingJelly's modules does, that of the blocks goes on from forward to forward
    until ``functional.reset_net`` (or a batch of another size): the parts' ``persistent_state`` is
    set, and of an :class:`~lava_bridge.Encoder` in front the voltage ``v`` is kept here. Single
    steps then give what one multi-step run gives, bit for bit where states stay below 2**24; the
    spikes that wait in ``delay_shift`` and in learnable delays go on as well. No gradient goes from
    one forward to the one before, as in slayer: train in step mode ``"m"``.

    Args:
        module: A block, or blocks as a list or ``nn.Sequential``, or a module of the user's that
            takes and gives ``[N, C, *, T]``. It is held as it is, under the name ``module``.
        step_mode: ``"s"`` or ``"m"``.

    Attributes:
        event_rates: What blocks with ``count_log`` counted in the last forward, in their order;
            empty after a reset. A monitor can read it.

    Raises:
        BridgeError: For an input of other dimensions. In step mode ``"s"``, also for what can't run
            step by step: a ``TimeDecimation``, dropout in training (it drops neurons for the whole
            time), and a norm on a CUBA current that decays (slayer goes on from the normed one; a
            ``ChannelBias`` is none).
    """

    event_rates: tuple[Any, ...]
    v: Tensor | None

    def __init__(self, module: Any, step_mode: str = "s") -> None:
        super().__init__()
        self.module = _as_module("AsSpikingJelly", module)
        for name, part in self.module.named_modules():
            _go_on(name, part)
        self.register_memory("event_rates", ())
        self.register_memory("v", None)  # the voltage of an encoder, which has no state itself
        self.step_mode = step_mode

    def reset(self) -> None:
        """Start the next forward afresh; ``functional.reset_net`` calls it."""
        super().reset()
        for part in self.module.modules():
            forget = getattr(part, "forget", None)
            if callable(forget):
                forget()

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """One step: ``[N, C, *]`` to the same."""
        self._require(x, 2, "[N, C, *]")
        for name, part in self.module.named_modules():
            reason = _no_single_steps(part)
            if reason is not None:
                raise BridgeError(
                    f"AsSpikingJelly: {_place(name, part)} can't run in step mode 's': {reason}; "
                    "use step mode 'm'"
                )
        return self._run(x.unsqueeze(-1)).squeeze(-1)

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """All steps: ``[T, N, C, *]`` to the same."""
        self._require(x_seq, 3, "[T, N, C, *]")
        return NXT_to_TNX(self._run(TNX_to_NXT(x_seq)))

    def _run(self, x: Tensor) -> Tensor:
        for name, part in self.module.named_modules():  # a part may have been put there since
            _go_on(name, part)
        rates: list[Any] = []
        # Not the Sequential's own forward: it would pass a count_log block's pair to the next.
        module: Any = self.module
        chain = type(module).forward is nn.Sequential.forward
        for block in module if chain else (module,):
            if isinstance(block, Encoder):
                spikes, self.v = block.steps(NXT_to_TNX(x), self.v)
                x = TNX_to_NXT(spikes)
                continue
            x = block(x)
            if isinstance(x, tuple):
                x, *counted = x
                rates += counted
        self.event_rates = tuple(rates)
        return x

    def _require(self, x: Tensor, dimensions: int, axes: str) -> None:
        if not isinstance(x, Tensor) or x.dim() < dimensions or not x.is_floating_point():
            raise BridgeError(
                f"AsSpikingJelly: expected a floating tensor {axes} in step mode "
                f"{self.step_mode!r}, found {described(x)}; functional.set_step_mode sets the mode"
            )


class AsSlayer(nn.Module):
    r"""A SpikingJelly module as a slayer block.

    .. math:: y = \mathrm{NXT}(\mathrm{module}(\mathrm{TNX}(x)))

    for floating ``x`` ``[N, C, *, T]``. Both conversions are views. The module runs in step mode
    ``"m"``, which each forward sets.

    Args:
        module: A SpikingJelly module or net, or a list of modules, that takes and gives
            ``[T, N, C, *]``. It is held as it is, under the name ``module``. Any part with a
            method ``reset`` is reset, as ``functional.reset_net`` does.
        persistent_state: As in slayer's neurons: go on from the (detached) state at the end of the
            last forward with an input of the same ``[N, C, *]``. Else each forward begins with a
            reset.

    Raises:
        BridgeError: For a part that has no step mode ``"m"``, an input of other dimensions, and an
            output that is no sequence of the input's length.
    """

    def __init__(self, module: Any, persistent_state: bool = False) -> None:
        super().__init__()
        self.module = _as_module("AsSlayer", module)
        self.persistent_state = persistent_state
        self._went_on_from: torch.Size | None = None
        try:
            functional.set_step_mode(self.module, "m")
        except ValueError as error:
            raise BridgeError(
                f"AsSlayer: the module has a part without step mode 'm' ({error}); a slayer block "
                "gets all steps at once"
            ) from error

    def forget(self) -> None:
        """Start the next forward afresh."""
        self._went_on_from = None

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``[N, C, *, T]`` for an input ``[N, C, *, T]``."""
        require("AsSlayer", x, "[N, C, *, T]")
        # The net around it may have been set to single steps.
        functional.set_step_mode(self.module, "m")
        goes_on = self.persistent_state and self._went_on_from == x.shape[:-1]
        for part in self.module.modules():
            _cut(part) if goes_on else _call(part, "reset")
        self._went_on_from = x.shape[:-1] if self.persistent_state else None
        if not x.shape[-1]:
            raise BridgeError(
                f"AsSlayer: expected one time step or more, found shape {tuple(x.shape)}"
            )
        y = self.module(NXT_to_TNX(x))
        if not isinstance(y, Tensor) or y.dim() < 2 or y.shape[0] != x.shape[-1]:
            raise BridgeError(
                f"AsSlayer: expected {type(self.module).__name__} to give a sequence [T, N, *] of "
                f"{x.shape[-1]} steps, found {described(y)}; put there a module that keeps time"
            )
        return TNX_to_NXT(y)

    def extra_repr(self) -> str:
        return f"persistent_state={self.persistent_state}"


def _as_module(place: str, module: Any) -> nn.Module:
    """A module as it is; a list, tuple or ModuleList of them as an ``nn.Sequential``."""
    several = isinstance(module, list | tuple | nn.ModuleList)
    parts = module if several else (module,)
    for part in parts:
        if not isinstance(part, nn.Module):
            raise BridgeError(
                f"{place}: expected a module or a list of modules, found {described(part)}"
            )
    return nn.Sequential(*module) if several else module


def _go_on(name: str, part: Any) -> None:
    """Have a part of an AsSpikingJelly go on from its state in each forward."""
    if not hasattr(part, "persistent_state"):
        return
    if not hasattr(part, "forget"):
        raise BridgeError(
            f"AsSpikingJelly: {_place(name, part)} is of {type(part).__module__}, whose "
            "state can't be reset; use the block of that name in lava_bridge.slayer"
        )
    if not part.persistent_state:
        part.persistent_state = True


def _call(part: nn.Module, name: str) -> None:
    """Call a part's method, if it has it, as SpikingJelly's ``reset_net`` and ``detach_net`` do."""
    method = getattr(part, name, None)
    if callable(method):
        method()


def _cut(part: nn.Module) -> None:
    """Cut a part's state from its past."""
    if isinstance(part, base.MemoryModule):
        for name, value in list(part.named_memories()):
            if isinstance(value, Tensor):  # SpikingJelly detaches in place, which views refuse
                setattr(part, name, value.detach())
    _call(part, "detach")


def _place(name: str, part: nn.Module) -> str:
    return f"{name or 'the block'} ({type(part).__name__})"


def _no_single_steps(part: nn.Module) -> str | None:
    """Why a part, run step by step, would not give what it gives in one run; None: it would."""
    if isinstance(part, native_slayer.block.base.TimeDecimation):
        return "it makes one step of several"
    if isinstance(part, native_slayer.neuron.Dropout) and part.training and part.p > 0:
        return "it drops neurons for the whole time"
    if not isinstance(part, _cuba.Neuron) or isinstance(part, _alif.Neuron):
        return None
    if part.norm is None or isinstance(part.norm, native_slayer.neuron.norm.ChannelBias):
        return None
    decays = (part.current_decay.round() < DECAY_SCALE).any()
    return "slayer goes on from the normed current" if decays else None
