"""The resonate-and-fire neuron with Izhikevich's reset (RF IZ)."""

from torch import Tensor

from ...ops import resonator
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
    tau_rho_mult = 100
    scale_rho_mult = 0.1
    fires_at_phase_zero = False

    def dynamics(self, input: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Real and imaginary state before the reset, for a pair of inputs ``[N, C, *, T]``."""
        inputs, decays, states = self.resonator_args(input)
        real, imag = resonator.dynamics(*inputs, *decays, *states, self.s_scale, self.threshold)
        self.keep(real_state=real, imag_state=imag)
        return real, imag

    def spike(self, real: Tensor, imag: Tensor) -> Tensor:
        """Spikes ``[N, C, *, T]`` of a state from :meth:`dynamics`; ``real`` is not needed."""
        assert self.threshold is not None
        spike = self.fire(imag, self.threshold, self.imag_state)
        self.keep_spike(spike)
        return self.dropped(spike)

    def keep_spike(self, spike: Tensor) -> None:
        """Let the last step's spike reset the states that go on."""
        if self.persistent_state:
            assert self.threshold is not None
            fired = spike[..., -1].detach() > 0
            below = self.threshold - 1 / self.s_scale
            imag_state = self.imag_state.masked_fill(fired, below)
            self.set_states(real_state=self.real_state * ~fired, imag_state=imag_state)
