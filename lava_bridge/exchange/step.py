"""One step of the leaky integrator, under SpikingJelly's name."""

from torch import Tensor

from .. import kernels
from ..ops.leaky_integrator import leak

__all__ = ["LeakyIntegratorStep"]


class LeakyIntegratorStep:
    r"""One step of the recurrence without a threshold, with SpikingJelly's gradients.

    .. math:: y = \mathrm{sign}(h)\,(|h|\,(4096 - d) \gg 12)/s + \mathrm{trunc}(s\,x)/s
    """

    @staticmethod
    def apply(x: Tensor, decay: Tensor, state: Tensor, w_scale: int) -> Tensor:
        """The state ``[N, *]`` after a step from ``state`` with the input ``x``, both ``[N, *]``.

        ``decay`` in 0 ... 4096 broadcasts with them; its gradient comes in its own shape (in
        SpikingJelly it is always one number). ``w_scale``: what a state of 1 is as an integer.
        """
        backend = kernels.current_backend()
        return leak(x.unsqueeze(-1), decay, state, w_scale, backend).squeeze(-1)
