"""A process that keeps what it receives."""

from collections.abc import Sequence

import numpy as np

from ...checks import integer
from ...errors import BridgeError
from ..model import CPU, LavaPyType, LoihiProtocol, PyLoihiProcessModel, implements, requires, tag
from ..ports import InPort, PyInPort
from ..process import AbstractProcess, Var

__all__ = ["PyReceiveModelFixed", "PyReceiveModelFloat", "RingBuffer"]


class RingBuffer(AbstractProcess):
    """Keeps what ``a_in`` receives in step t = 1, 2, ... in ``data[..., (t - 1) % buffer]``.

    Args:
        shape: Of a message.
        buffer: How many steps are kept (a BridgeError if none); older ones are overwritten.

    Source: ``lava.proc.io.sink.RingBuffer``.
    """

    def __init__(self, *, shape: Sequence[int], buffer: int) -> None:
        super().__init__(shape=shape, buffer=buffer)
        buffer = integer("sink.RingBuffer: buffer", buffer)
        if buffer < 1:
            raise BridgeError(
                f"sink.RingBuffer: a buffer of {buffer} keeps nothing; give 1 or more"
            )
        self.a_in = InPort(shape=shape)
        self.shape = self.a_in.shape
        kept = (*self.shape, buffer)
        self.data = Var(shape=kept, init=np.zeros(kept))


class AbstractPyReceiveModel(PyLoihiProcessModel):
    """What the models share."""

    a_in: PyInPort
    data: np.ndarray

    def run_spk(self) -> None:
        """Keep the message of this step."""
        self.data[..., (self.time_step - 1) % self.data.shape[-1]] = self.a_in.recv()


@implements(proc=RingBuffer, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyReceiveModelFloat(AbstractPyReceiveModel):
    """Keeps floats."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
    data: np.ndarray = LavaPyType(np.ndarray, float)


@implements(proc=RingBuffer, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyReceiveModelFixed(AbstractPyReceiveModel):
    """Keeps integers."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    data: np.ndarray = LavaPyType(np.ndarray, np.int32)
