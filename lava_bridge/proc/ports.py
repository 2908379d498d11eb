"""Ports: ``OutPort`` and ``InPort`` wire processes, ``PyOutPort`` and ``PyInPort`` run."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import integer
from ..errors import BridgeError

if TYPE_CHECKING:
    from .process import AbstractProcess

__all__ = ["InPort", "Member", "OutPort", "PyInPort", "PyInPortVectorDense"]
__all__ += ["PyOutPort", "PyOutPortVectorDense"]

Transform = Callable[[np.ndarray], np.ndarray]


class Member:
    """A part of a process that has a shape: a port or a variable.

    Attributes:
        name, process: Set where it is made an attribute of a process.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        place = type(self).__name__
        sizes = [integer(place, size) for size in shape] if np.ndim(shape) == 1 else [-1]
        if min(sizes, default=0) < 0:
            raise BridgeError(f"{place}: the shape is {shape!r}; give a tuple of sizes")
        self.shape: tuple[int, ...] = tuple(sizes)
        self.name = "unnamed"
        self.process: AbstractProcess | None = None

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def place(self) -> str:
        """Where it is, for an error."""
        return f"{self.process.name}.{self.name}" if self.process else self.name


class InPort(Member):
    """Where a process receives: the sum of what is sent to it, or zeros if nothing is connected.

    Attributes:
        sources: The ports that send, and how their messages are reshaped on the way.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.sources: list[tuple[OutPort, Transform | None]] = []

    def connect_from(self, ports: "OutPort | list[OutPort]") -> None:
        """As ``connect`` of each of the ports to this one."""
        for port in ports if isinstance(ports, list) else [ports]:
            if not isinstance(port, OutPort):
                raise BridgeError(
                    f"{self.place}.connect_from: expected an OutPort, found a "
                    f"{type(port).__name__}; an InPort receives from OutPorts"
                )
            port.connect(self)


class OutPort(Member):
    """Where a process sends to any number of ``InPort`` of the same shape."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.targets: list[InPort] = []

    def connect(self, ports: InPort | list[InPort]) -> None:
        """Send to the port, or to each of the ports.

        Raises:
            BridgeError: If a shape differs, if the two are connected already, if one of the
                processes has run, or if it is no ``InPort``.
        """
        for port in ports if isinstance(ports, list) else [ports]:
            self._check(port)
            self._add(port, None)

    def reshape(self, new_shape: Sequence[int]) -> "OutPort":
        """This port with its messages in another shape, row by row, to be connected.

        A BridgeError is raised if the number of elements differs.
        """
        shape = tuple(np.ravel(new_shape).tolist())
        if math.prod(shape) != self.size:
            raise BridgeError(
                f"{self.place}.reshape: {self.shape} has {self.size} elements, {shape} has "
                f"{math.prod(shape)}; give a shape of as many"
            )
        return _View(self, shape, lambda message: message.reshape(shape))

    def flatten(self) -> "OutPort":
        """As ``reshape`` to one axis."""
        return self.reshape((self.size,))

    def transpose(self, axes: Sequence[int] | None = None) -> "OutPort":
        """This port with the axes of its messages permuted (reversed by default), as NumPy does.

        A BridgeError is raised if ``axes`` is no permutation.
        """
        count = len(self.shape)
        names = range(-count, count)
        given = range(count)[::-1] if axes is None else np.ravel(axes).tolist()
        order = tuple(axis % count for axis in given if axis in names)
        if len(order) != len(given) or sorted(order) != list(range(count)):
            raise BridgeError(
                f"{self.place}.transpose: {axes} is no permutation of {count} axes; name each once"
            )
        shape = tuple(self.shape[axis] for axis in order)
        return _View(self, shape, lambda message: message.transpose(order))

    def _check(self, port: InPort) -> None:
        if not isinstance(port, InPort):
            raise BridgeError(
                f"{self.place}.connect: expected an InPort, found a {type(port).__name__}; an "
                "OutPort sends to InPorts"
            )
        if port.shape != self.shape:
            raise BridgeError(
                f"{self.place}.connect: sends {self.shape}, but {port.place} takes {port.shape}; "
                "give them the same shape, or reshape the first"
            )

    def _add(self, port: InPort, transform: Transform | None) -> None:
        for one in (self, port):
            if one.process and one.process.network:
                raise BridgeError(
                    f"{one.place}.connect: its process has run already; connect all, then run"
                )
        if port in self.targets:
            raise BridgeError(f"{self.place}.connect: is connected to {port.place} already; once")
        self.targets.append(port)
        port.sources.append((self, transform))


class _View(OutPort):
    """An ``OutPort`` seen in another shape."""

    def __init__(self, port: OutPort, shape: Sequence[int], transform: Transform) -> None:
        super().__init__(shape)
        self._port, self._transform = port, transform
        self.name, self.process = port.name, port.process

    def _add(self, port: InPort, transform: Transform | None) -> None:
        # Views of views: the first one's transform comes first.
        own = self._transform
        self._port._add(port, (lambda message: transform(own(message))) if transform else own)


class Channel:
    """The messages from one port to another, in the order in which they were sent."""

    def __init__(
        self, place: str, transform: Transform | None, wait: "Callable[[Channel], None] | None"
    ) -> None:
        self._place, self._transform, self._wait = place, transform, wait
        self.messages: deque[np.ndarray] = deque()

    def receive(self) -> np.ndarray:
        """The oldest message; where there is none, others run first if they can."""
        if not self.messages and self._wait is not None:
            self._wait(self)
        if not self.messages:
            raise BridgeError(
                f"{self._place}: receives, but nothing was sent to it in this step; let a model "
                "send once a step, in a loop before it receives"
            )
        message = self.messages.popleft()
        return self._transform(message) if self._transform else message


class _ModelPort:
    """A model's side of a port: messages of its dtype, by a channel to or from each other port."""

    def __init__(self, place: str, shape: tuple[int, ...], d_type: Any) -> None:
        self.place = place
        self.shape = shape
        self.d_type = d_type
        self.channels: list[Channel] = []


class PyInPort(_ModelPort):
    """A model's side of an ``InPort``."""

    VEC_DENSE: "type[PyInPort]"

    def recv(self) -> np.ndarray:
        """The sum of the next message of every connected port, or zeros."""
        total = np.zeros(self.shape, self.d_type)
        for channel in self.channels:
            total = total + channel.receive()
        return total

    def probe(self) -> bool:
        """Whether a message of every connected port is there already."""
        return all(channel.messages for channel in self.channels)


class PyOutPort(_ModelPort):
    """A model's side of an ``OutPort``."""

    VEC_DENSE: "type[PyOutPort]"

    def send(self, data: np.ndarray) -> None:
        """Send a copy of ``data``, which has the shape of the port (else a BridgeError)."""
        if np.shape(data) != self.shape:
            raise BridgeError(
                f"{self.place}: sends {np.shape(data)}, but the port has {self.shape}; send its "
                "shape"
            )
        message = np.asarray(data).astype(self.d_type)
        for channel in self.channels:
            channel.messages.append(message)

    def flush(self) -> None:
        """Nothing: a message is there as soon as it is sent."""


PyInPort.VEC_DENSE = PyInPortVectorDense = PyInPort
PyOutPort.VEC_DENSE = PyOutPortVectorDense = PyOutPort
