"""A process and its model as users make them."""

import numpy as np

from lava_bridge.proc import (
    AbstractProcess,
    InPort,
    LavaPyType,
    Loihi2SimCfg,
    OutPort,
    PyInPort,
    PyLoihiProcessModel,
    PyOutPort,
    Var,
    implements,
    requires,
)
from lava_bridge.proc.model import CPU, LoihiProtocol

FIXED = Loihi2SimCfg(select_tag="fixed_pt")


class Adder(AbstractProcess):
    """Adds what it received so far; of the user's own making."""

    def __init__(self, shape, start=0, name=None):
        super().__init__(shape=shape, start=start, name=name)
        self.a_in, self.s_out = InPort(shape=shape), OutPort(shape=shape)
        self.total = Var(shape=shape, init=start)
        self.steps = Var(shape=(1,), init=0)


@implements(proc=Adder, protocol=LoihiProtocol)
@requires(CPU)
class PyAdder(PyLoihiProcessModel):
    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    total: np.ndarray = LavaPyType(np.ndarray, np.int32)
    steps: int = LavaPyType(int, int)

    def run_spk(self):
        self.total += self.a_in.recv()
        self.steps += 1
        self.s_out.send(self.total)
