"""The exchange between the two frameworks, with the names of SpikingJelly's ``lava_exchange``.

``AsSpikingJelly`` and ``AsSlayer`` are this library's own.

``lava_bridge.exchange.X`` is ``spikingjelly.activation_based.lava_exchange.X``. SpikingJelly's
tensors are ``[N, *]`` (single-step) or ``[T, N, *]`` (multi-step), slayer's ``[N, *, T]``.
"""

from ..layout import NXT_to_TNX, TNX_to_NXT
from ..quantize import quantize_8bit, right_shift_to_zero, step_quantize, step_quantize_atgf
from .adapters import AsSlayer, AsSpikingJelly
from .container import BlockContainer
from .cuba_lif import CubaLIFNode
from .norm import BatchNorm2d
from .pool import SumPool2d
from .step import LeakyIntegratorStep
from .to_lava import (
    avgpool2d_to_lava_synapse_pool,
    conv2d_to_lava_synapse_conv,
    lava_neuron_forward,
    linear_to_lava_synapse_dense,
    to_lava_block_conv,
    to_lava_block_dense,
    to_lava_block_flatten,
    to_lava_block_pool,
    to_lava_blocks,
    to_lava_neuron,
    to_lava_neuron_param_dict,
)

quantize_8b = quantize_8bit

__all__ = [
    "AsSlayer",
    "AsSpikingJelly",
    "BatchNorm2d",
    "BlockContainer",
    "CubaLIFNode",
    "LeakyIntegratorStep",
    "NXT_to_TNX",
    "SumPool2d",
    "TNX_to_NXT",
    "avgpool2d_to_lava_synapse_pool",
    "conv2d_to_lava_synapse_conv",
    "lava_neuron_forward",
    "linear_to_lava_synapse_dense",
    "quantize_8b",
    "quantize_8bit",
    "right_shift_to_zero",
    "step_quantize",
    "step_quantize_atgf",
    "to_lava_block_conv",
    "to_lava_block_dense",
    "to_lava_block_flatten",
    "to_lava_block_pool",
    "to_lava_blocks",
    "to_lava_neuron",
    "to_lava_neuron_param_dict",
]
