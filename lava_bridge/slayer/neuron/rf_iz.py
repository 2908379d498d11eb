"""The resonate-and-fire neuron with Izhikevich's reset (RF IZ)."""

from torch import Tensor

from ...ops import resonator
from ..spike import Spike
from . import rf
from .rf import neuron_params

__all__ = ["Neuron", "neuron_params"]


class Neuron(rf.Neuron):
    r"""The resonate-and-fire neuron that fires by its imaginary part, and is reset.

    .. math::
        z[t] &= (1 - \alpha)\,e^{i 2\pi / P}\,z[t-1] + x[t] \\
        s[t] &= \Im z[t] \ge \vartheta, \qquad
        z[t] \leftarrow i\,(\vartheta - 1/\text{s\_scale}) \;\text{where}\; s[t]

    Parameters and attributes are :class:`lava_bridge.slayer.neuron.rf.Neuron`'s. A graded spike
    carries its imaginary part. Source: ``lava.lib.dl.slayer.neuron.rf_iz.Neuron``.
    """

    kind = "RF_IZHIKEVICH"
    scale_rho_mult = 0.1
    tau_rho_mult = 100

    def dynamics(self, input: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Real and imaginary state before the reset, for a pair of inputs ``[N, C, *, T]``."""
        inputs, decays, states = self.resonator_args(input)
        real, imag = resonator.dynamics(*inputs, *decays, *states, self.s_scale, self.threshold)
        self.keep(real_state=real, imag_state=imag)
        return real, imag

    def spike(self, real: Tensor, imag: Tensor) -> Tensor:
        """Spikes ``[N, C, *, T]`` of a state from :meth:`dynamics`; ``real`` is not needed."""
        assert self.threshold is not None
        spike = Spike.apply(
            imag,
            self.threshold,
            self.tau_rho * self.tau_rho_mult,
            self.scale_rho * self.scale_rho_mult,
            self.graded_spike,
            self.imag_state,
            1,
        )
        if self.persistent_state:
            fired = spike[..., -1].detach() > 0
            below = self.threshold - 1 / self.s_scale
            self.real_state = self.real_state * ~fired
            self.imag_state = self.imag_state.masked_fill(fired, below)
        return self.dropped(spike)
