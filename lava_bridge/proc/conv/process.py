"""The convolution as a process."""

from collections.abc import Sequence

import numpy as np

from ...checks import integer
from ...errors import BridgeError
from ..ports import InPort, OutPort
from ..process import AbstractProcess, LogConfig, Var
from . import utils

__all__ = ["Conv"]


class Conv(AbstractProcess):
    r"""Convolves what ``s_in`` receives with a kernel; ``a_out`` sends the sums a step later.

    .. math:: a[t] = w * s[t - 1], \quad a[1] = 0

    with the convolution of :func:`lava_bridge.proc.conv.utils.conv`. ``s_in`` takes ``[W, H, C]``,
    ``a_out`` sends ``[W', H', C']`` (``output_shape``). On the models with the tag ``fixed_pt`` all
    are integers and sums wrap at 24 bits, on those with ``floating_pt`` floats.

    Args:
        weight: ``[C', kW, kH, C / groups]``, ``[-256, 254]`` on the chip.
        weight_exp: Kept, and not used: as Lava's models do, ours take the weights as they are. For
            weights of ``w * 2**weight_exp`` pass those.
        input_shape: ``(W, H, C)``.
        padding, stride, dilation: One number, or two for W and H.
        groups: Divides C and C'.
        num_weight_bits: Kept, and not used: nothing is cut to it.
        num_message_bits: 0 for spikes: whatever is not zero counts as 1; above that the messages
            are graded, and not cut to so many bits.
        name: Its name in errors.
        log_config: As in Lava; nothing is logged here.

    Raises:
        BridgeError: For shapes that do not fit together.

    Source: ``lava.proc.conv.process.Conv``.
    """

    def __init__(
        self,
        *,
        weight: np.ndarray,
        weight_exp: int = 0,
        input_shape: Sequence[int] = (1, 1, 1),
        padding: int | Sequence[int] = 0,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        num_weight_bits: int = 8,
        num_message_bits: int = 0,
        name: str | None = None,
        log_config: LogConfig | None = None,
    ) -> None:
        super().__init__(
            weight=weight,
            weight_exp=weight_exp,
            input_shape=input_shape,
            padding=padding,
            stride=stride,
            dilation=dilation,
            groups=groups,
            num_weight_bits=num_weight_bits,
            num_message_bits=num_message_bits,
            name=name,
            log_config=log_config,
        )
        if not hasattr(weight, "shape"):
            raise BridgeError(f"{self.name}: weight is a {type(weight).__name__}; give an array")
        if np.shape(input_shape) != (3,):
            raise BridgeError(
                f"{self.name}: input_shape is {input_shape}; give three sizes (W, H, C)"
            )
        groups = integer(f"{self.name}: groups", groups)
        utils.check_channels(self.name, weight.shape, input_shape[2], groups)
        kernel_size = weight.shape[1:3]
        padding, stride, dilation = map(utils.make_tuple, (padding, stride, dilation))
        self.input_shape = tuple(input_shape)
        self.output_shape = utils.output_shape(
            input_shape, weight.shape[0], kernel_size, stride, padding, dilation
        )
        self.s_in = InPort(shape=self.input_shape)
        self.a_out = OutPort(shape=self.output_shape)
        self.weight = Var(shape=weight.shape, init=weight)
        self.weight_exp = Var(shape=(1,), init=weight_exp)
        self.num_weight_bits = Var(shape=(1,), init=num_weight_bits)
        self.kernel_size = Var(shape=(2,), init=kernel_size)
        self.padding = Var(shape=(2,), init=padding)
        self.stride = Var(shape=(2,), init=stride)
        self.dilation = Var(shape=(2,), init=dilation)
        self.groups = Var(shape=(1,), init=groups)
        self.a_buf = Var(shape=self.output_shape, init=0)
        self.num_message_bits = Var(shape=(1,), init=num_message_bits)
