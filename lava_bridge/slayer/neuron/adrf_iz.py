"""The resonate-and-fire neuron with an adaptive threshold on its imaginary part (ADRF IZ)."""

from torch import Tensor

from ...ops import adaptive_resonator
from . import adrf
from .adrf import neuron_params

__all__ = ["Neuron", "neuron_params"]


class Neuron(adrf.Neuron):
    r"""The resonate-and-fire neuron that fires by its imaginary part, its threshold adaptive.

    .. math::
        z[t] &= (1 - \alpha)\,e^{i 2\pi / P}\,z[t-1] + x[t] \\
        s[t] &= \Im z[t] \ge \vartheta[t] + r[t]

    with :math:`\vartheta` and r of :class:`lava_bridge.slayer.neuron.adaptive.Adaptive`; the state
    itself is not reset. Parameters and attributes are :class:`lava_bridge.slayer.neuron.adrf.\
Neuron`'s. A graded spike carries its imaginary part.

    Source: ``lava.lib.dl.slayer.neuron.adrf_iz.Neuron``.
    """

    kind = "ADRF_IZHIKEVICH"
    fires_at_phase_zero = False

    def dynamics(self, input: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Real, imaginary, threshold and refractory state, for inputs ``[N, C, *, T]``."""
        inputs, decays, states = self.resonator_args(input)
        ref_state, ref_decay, th_state, th_decay, *scales = self.threshold_args(inputs[0])
        real, imag, threshold, refractory = adaptive_resonator.dynamics(
            *inputs, *decays, ref_decay, th_decay, *states, ref_state, th_state, *scales
        )
        self.keep(real_state=real, imag_state=imag)
        self.keep(threshold_state=threshold, refractory_state=refractory)
        return real, imag, threshold, refractory

    def spike(  # type: ignore[override] # each family's spike takes what its dynamics gives
        self, real: Tensor, imag: Tensor, threshold: Tensor, refractory: Tensor
    ) -> Tensor:
        """Spikes ``[N, C, *, T]`` of what :meth:`dynamics` gives; ``real`` is not needed."""
        spike = self.fire(imag, threshold + refractory, self.imag_state)
        self.keep_spike(spike)
        return self.dropped(spike)
