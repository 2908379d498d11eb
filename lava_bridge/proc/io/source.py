"""A process that sends stored data."""

import numpy as np

from ...errors import BridgeError
from ..model import CPU, LavaPyType, LoihiProtocol, PyLoihiProcessModel, implements, requires, tag
from ..ports import OutPort, PyOutPort
from ..process import AbstractProcess, Var

__all__ = ["PySendModelFixed", "PySendModelFloat", "RingBuffer"]


class RingBuffer(AbstractProcess):
    """Sends ``data[..., (t - 1) % T]`` from ``s_out`` in step t = 1, 2, ...

    Args:
        data: ``[*, T]``, time last (a BridgeError if T is 0). In fixed point it is cut to int32.

    Source: ``lava.proc.io.source.RingBuffer``.
    """

    def __init__(self, *, data: np.ndarray) -> None:
        super().__init__(data=data)
        if not hasattr(data, "shape"):
            raise BridgeError(
                f"source.RingBuffer: data is a {type(data).__name__}; give an array [*, T]"
            )
        if np.ndim(data) < 1 or not data.shape[-1]:
            raise BridgeError(
                f"source.RingBuffer: data of shape {np.shape(data)} has no step; give [*, T], T > 0"
            )
        self.data = Var(shape=data.shape, init=data)
        self.s_out = OutPort(shape=data.shape[:-1])


class AbstractPyRingBuffer(PyLoihiProcessModel):
    """What the models share."""

    s_out: PyOutPort
    data: np.ndarray

    def run_spk(self) -> None:
        """Send the data of this step."""
        self.s_out.send(self.data[..., (self.time_step - 1) % self.data.shape[-1]])


@implements(proc=RingBuffer, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySendModelFloat(AbstractPyRingBuffer):
    """Sends floats."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)
    data: np.ndarray = LavaPyType(np.ndarray, float)


@implements(proc=RingBuffer, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySendModelFixed(AbstractPyRingBuffer):
    """Sends integers."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    data: np.ndarray = LavaPyType(np.ndarray, np.int32)
