"""The feed-forward layers: affine, dense, the convolutions and the pools."""

from typing import Any

from torch import Tensor

from .common import SynapticBlock

__all__ = ["AbstractAffine", "AbstractConv", "AbstractConvT", "AbstractDense"]
__all__ += ["AbstractPool", "AbstractUnpool", "DenseFields"]


class DenseFields(SynapticBlock):
    """What the all-to-all blocks share: the names in a file, and a shape known from the start."""

    weight_dimensions = 2

    def _fields(self) -> dict[str, Any]:
        return {"inFeatures": self.synapse.in_channels, "outFeatures": self.synapse.out_channels}

    def _know_shape(self, in_neurons: Any) -> None:
        if isinstance(in_neurons, int):
            # Not inferred: channels draw what is their own at the first forward, as in slayer.
            self.neuron.shape = self.synapse.output_shape((in_neurons,))


class _WindowFields(SynapticBlock):
    """What the blocks share whose synapse slides a window."""

    weight_dimensions = 4

    def _fields(self) -> dict[str, Any]:
        window = self.synapse
        return {
            "kernelSize": window.kernel_size[:-1],
            "stride": window.stride[:-1],
            "padding": window.padding[:-1],
            "dilation": window.dilation[:-1],
        }


class AbstractAffine(DenseFields):
    """A dense synapse and a neuron that never fires: gives its voltage, or the dendritic input.

    ``dynamics``: whether the neuron integrates; else the dendritic input is given. The other
    arguments are :class:`AbstractDense`'s.
    """

    kind = "dense"
    gives_spikes = False

    def __init__(
        self,
        neuron_params: dict[str, Any],
        in_neurons: Any,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = None,
        dynamics: bool = True,
        mask: Tensor | None = None,
        count_log: bool = False,
    ) -> None:
        synapse = "Dense", in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx
        super().__init__(neuron_params, synapse, False, False, mask, count_log)
        self.dynamics = dynamics
        self.neuron.threshold = None
        self._know_shape(in_neurons)

    def forward(self, x: Tensor) -> Any:
        z = self.synapse(x, self.mask)
        if self.dynamics:
            return self._counted(self.neuron.dynamics(z)[1].to(x.dtype))
        return self._counted(z[1] if self.synapse.complex else z)


class AbstractDense(DenseFields):
    """All-to-all layer.

    Args:
        neuron_params: The neuron's constructor arguments.
        in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx: The synapse's
            (:class:`lava_bridge.slayer.synapse.Dense`).
        delay: Whether each channel has a learnable delay (of up to 62 steps).
        delay_shift: Delay the spikes by one step, as the chip does between layers.
        mask: ``[out, in]``: which synapses exist. The weights themselves are left as they are.
        count_log: Give the event rate too.
    """

    kind = "dense"

    def __init__(
        self,
        neuron_params: dict[str, Any],
        in_neurons: Any,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = None,
        delay: bool = False,
        delay_shift: bool = True,
        mask: Tensor | None = None,
        count_log: bool = False,
    ) -> None:
        synapse = "Dense", in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx
        super().__init__(neuron_params, synapse, delay, delay_shift, mask, count_log)
        self._know_shape(in_neurons)


class AbstractConv(_WindowFields):
    """Convolutional layer.

    Args:
        in_features, out_features, kernel_size, stride, padding, dilation, groups, weight_scale,
            weight_norm, pre_hook_fx: The synapse's (:class:`lava_bridge.slayer.synapse.Conv`).
        neuron_params, delay, delay_shift, count_log: As in :class:`AbstractDense`.
    """

    kind = "conv"
    synapse_name = "Conv"

    def __init__(
        self,
        neuron_params: dict[str, Any],
        in_features: int,
        out_features: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = None,
        delay: bool = False,
        delay_shift: bool = True,
        count_log: bool = False,
    ) -> None:
        window = kernel_size, stride, padding, dilation
        weight = groups, weight_scale, weight_norm, pre_hook_fx
        synapse = self.synapse_name, in_features, out_features, *window, *weight
        super().__init__(neuron_params, synapse, delay, delay_shift, count_log=count_log)

    def _fields(self) -> dict[str, Any]:
        channels = {
            "inChannels": self.synapse.in_channels,
            "outChannels": self.synapse.out_channels,
        }
        return {**channels, **super()._fields(), "groups": self.synapse.groups}


class AbstractConvT(AbstractConv):
    """Transposed convolutional layer; parameters as in :class:`AbstractConv`."""

    kind = "convT"
    synapse_name = "ConvTranspose"


class AbstractPool(_WindowFields):
    """Sum pooling layer.

    Args:
        kernel_size, stride, padding, dilation, weight_scale, weight_norm, pre_hook_fx: The
            synapse's (:class:`lava_bridge.slayer.synapse.Pool`).
        neuron_params, delay, delay_shift, count_log: As in :class:`AbstractDense`; a ``norm`` is
            left out.
    """

    kind = "pool"
    synapse_name = "Pool"

    def __init__(
        self,
        neuron_params: dict[str, Any],
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = None,
        delay: bool = False,
        delay_shift: bool = True,
        count_log: bool = False,
    ) -> None:
        window = kernel_size, stride, padding, dilation
        synapse = self.synapse_name, *window, weight_scale, weight_norm, pre_hook_fx
        neuron_params = {**neuron_params, "norm": None}
        super().__init__(neuron_params, synapse, delay, delay_shift, count_log=count_log)


class AbstractUnpool(AbstractPool):
    """Unpooling layer; parameters as in :class:`AbstractPool`."""

    kind = "unpool"
    synapse_name = "Unpool"
