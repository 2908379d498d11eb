"""What the neurons with an adaptive threshold share."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...ops.resonate_and_fire import Adaptation
from ...quantize import from_steps
from . import base

__all__ = ["Adaptive", "adaptive_params"]


def adaptive_params(
    device_params: Mapping[str, Any], scale: int = 1 << 6, p_scale: int = 1 << 12
) -> dict[str, Any]:
    """The constructor's arguments of the adaptive threshold from ``device_params``."""
    return {
        "threshold_step": from_steps(device_params["vThStep"], scale),
        "threshold_decay": device_params["thDecay"] / p_scale,
        "refractory_decay": device_params["refDecay"] / p_scale,
    }


class Adaptive(base.Neuron):
    r"""Mixed in before a neuron: its threshold rises with each spike, and it rests after each.

    .. math::
        r[t] &= (1 - \alpha_r)\,r[t-1], \qquad
        \vartheta[t] = (1 - \alpha_\vartheta)(\vartheta[t-1] - \vartheta_0) + \vartheta_0 \\
        r[t] &\leftarrow r[t] + 2\,s[t]\,\vartheta[t], \qquad
        \vartheta[t] \leftarrow \vartheta[t] + s[t]\,\Delta\vartheta

    and the neuron fires where it reaches :math:`\vartheta[t] + r[t]`, in fixed point
    (:mod:`lava_bridge.ops.adaptive_threshold`). Nothing else is reset.

    Args:
        threshold: The threshold at rest, :math:`\vartheta_0`.
        threshold_step: What a spike adds to the threshold, :math:`\Delta\vartheta`, rounded toward
            0 to a multiple of ``1 / scale``.
        threshold_decay, refractory_decay: The decays :math:`\alpha_\vartheta`, :math:`\alpha_r` in
            0 ... 1; drawn from a pair (min, max) where ``shared_param`` is False. Their gradients
            are 0.

    Attributes:
        threshold_decay, refractory_decay: 4096 times the decays, ``[1]`` or ``[C]``.
        threshold_state, refractory_state: :math:`\vartheta` and r before the next step, ``[N, *]``.
    """

    def add_adaptation(
        self, threshold_step: float, threshold_decay: Any, refractory_decay: Any
    ) -> None:
        """Register the parameters and states; the neuron's own are registered before."""
        self.threshold_step = self.on_grid("threshold_step", threshold_step, -math.inf)
        self.add_parameter("threshold_decay", threshold_decay, jitter=0)
        self.add_parameter("refractory_decay", refractory_decay, jitter=0)
        self.add_state("threshold_state", self.threshold or 0)
        self.add_state("refractory_state")
        self.clamp()

    def adaptation(self, input: Tensor) -> Adaptation:
        """The adaptive threshold as the operators take it, for neurons as ``input`` has."""
        assert self.threshold is not None
        return Adaptation(
            self.refractory_state,
            self.per_neuron(self.refractory_decay, input),
            self.threshold_state,
            self.per_neuron(self.threshold_decay, input),
            self.threshold_step,
            self.threshold,
        )

    def per_neuron(self, parameter: Tensor, input: Tensor) -> Tensor:
        """As of all neurons; by the others the threshold's decays get gradients of 0, as slayer's.

        So weight decay acts on them, and DistributedDataParallel finds them used.
        """
        used = super().per_neuron(parameter, input)
        own = self.threshold_decay, self.refractory_decay
        if not parameter.requires_grad or any(parameter is decay for decay in own):
            return used
        return used + 0 * (own[0].sum() + own[1].sum())

    def threshold_args(self, input: Tensor) -> tuple[Any, ...]:
        """The last arguments of the adaptive dynamics, ``ref_state`` to ``w_scale``."""
        return *self.adaptation(input), self.s_scale

    def keep_spike(self, spike: Tensor) -> None:
        """Let the last step's spike act on the states that go on."""
        if self.persistent_state:
            fired = spike[..., -1].detach() > 0
            refractory = self.refractory_state + 2 * fired * self.threshold_state
            threshold = self.threshold_state + fired * self.threshold_step
            self.set_states(refractory_state=refractory, threshold_state=threshold)

    cx_threshold_decay = base.on_chip("threshold_decay")
    cx_refractory_decay = base.on_chip("refractory_decay")

    @property
    def v_th_step(self) -> int:
        """The threshold's step as the chip's integer."""
        return round(self.threshold_step * self.w_scale)

    @property
    def device_params(self) -> dict[str, Any]:
        """The neuron's parameters as the chip's integers."""
        return {
            **super().device_params,
            "thDecay": self.cx_threshold_decay,
            "refDecay": self.cx_refractory_decay,
            "vThStep": self.v_th_step,
        }
