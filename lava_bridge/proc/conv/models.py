"""What the convolution does in a step, in floats and as the chip does."""

import numpy as np

from ..model import CPU, LavaPyType, LoihiProtocol, PyLoihiProcessModel, implements, requires, tag
from ..ports import PyInPort, PyOutPort
from . import utils
from .process import Conv

__all__ = ["AbstractPyConvModel", "PyConvModelFixed", "PyConvModelFloat"]

# The registers of the chip that sum what arrives at a neuron.
ACCUMULATOR_BITS = 24


class AbstractPyConvModel(PyLoihiProcessModel):
    """What the models share.

    The sizes are int32: in Lava they are int8, and 128 groups are -128, which convolve nothing.

    Source: ``lava.proc.conv.models``.
    """

    s_in: PyInPort
    a_out: PyOutPort
    a_buf: np.ndarray
    weight: np.ndarray

    kernel_size: np.ndarray = LavaPyType(np.ndarray, np.int32)
    stride: np.ndarray = LavaPyType(np.ndarray, np.int32)
    padding: np.ndarray = LavaPyType(np.ndarray, np.int32)
    dilation: np.ndarray = LavaPyType(np.ndarray, np.int32)
    groups: np.ndarray = LavaPyType(np.ndarray, np.int32)
    num_message_bits: np.ndarray = LavaPyType(np.ndarray, np.int8, precision=5)
    weight_exp: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=8)
    num_weight_bits: np.ndarray = LavaPyType(np.ndarray, np.int8, precision=5)

    def run_spk(self) -> None:
        """Send the sums of the step before, receive, and keep the new sums for the next."""
        self.a_out.send(self.a_buf)
        message = self.s_in.recv()
        if self.num_message_bits.item() <= 0:
            message = message.astype(bool)
        sums = utils.conv(
            message,
            self.weight,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups.item(),
        )
        self.a_buf = self.clamp_precision(sums)

    def clamp_precision(self, x: np.ndarray) -> np.ndarray:
        """Sums as the model's registers hold them."""
        return x


@implements(proc=Conv, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyConvModelFloat(AbstractPyConvModel):
    """The convolution in float64."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float, precision=24)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)
    a_buf: np.ndarray = LavaPyType(np.ndarray, float)
    weight: np.ndarray = LavaPyType(np.ndarray, float)


@implements(proc=Conv, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyConvModelFixed(AbstractPyConvModel):
    """The convolution in integers, whose sums wrap to ``[-2**23, 2**23)``."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    a_buf: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    weight: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=8)

    def clamp_precision(self, x: np.ndarray) -> np.ndarray:
        """Sums wrapped to 24 bits."""
        return utils.signed_clamp(x, bits=ACCUMULATOR_BITS)
