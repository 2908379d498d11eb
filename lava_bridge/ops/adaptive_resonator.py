r"""The resonator with an adaptive threshold on its imaginary part, and no reset.

:mod:`.resonator` without a threshold, and :mod:`.adaptive_threshold` on :math:`\Im z`, which has no
gradient.
Source: ``lava.lib.dl.slayer.neuron.dynamics.adaptive_resonator``.
"""

from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..quantize import exact_dtype
from .adaptive_threshold import adapt, adaptation_steps, adapted_like
from .operator import operator
from .persistent import persistent_ref_state, persistent_th_state
from .resonator import input_gradients, resonate

__all__ = ["dynamics", "persistent_ref_state", "persistent_th_state"]


@operator("lava_bridge::adaptive_resonator")
def _adaptive_resonator(
    real_input: Tensor,
    imag_input: Tensor,
    sin_decay: Tensor,
    cos_decay: Tensor,
    ref_decay: Tensor,
    th_decay: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    ref_state: Tensor,
    th_state: Tensor,
    th_scale: float,
    th0: float,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    compiled, exact = kernels.chosen(backend, real_input), exact_dtype(real_input)
    inputs = real_input, imag_input
    turn = (sin_decay, cos_decay), (real_state, imag_state)
    adaptation = (ref_decay, th_decay), (ref_state, th_state)
    steps = adaptation_steps(th_scale, th0, scale)
    if compiled is None:
        parts = resonate(inputs, *turn, scale, None)
        real, imag = ((part.to(exact) / scale).to(real_input.dtype) for part in parts)
        return real, imag, *adapt(parts[1], None, *adaptation, steps, scale, exact)
    parameters = (*turn[0], *turn[1], *adaptation[0], *adaptation[1])
    numbers = scale, 0, False, False, 0, 0, *steps
    wanted = None, None, real_input.dtype, real_input.dtype, exact, exact
    done = kernels.run(compiled, "adrf_iz", real_input, inputs, parameters, numbers, wanted)
    _, _, real, imag, threshold, refractory = done.sequences
    return real, imag, threshold, refractory


@_adaptive_resonator.register_fake
def _(real_input: Tensor, *args: Any) -> Any:
    states = torch.empty_like(real_input), torch.empty_like(real_input)
    return *states, *adapted_like(real_input)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.backend = inputs[-1]
    ctx.save_for_backward(*output[:2], *inputs[2:4])
    ctx.mark_non_differentiable(*output[2:])


def _gradients(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    return *input_gradients(ctx, grads), *(None,) * 10


_adaptive_resonator.register_autograd(_gradients, setup_context=_save)


def dynamics(
    real_input: Tensor,
    imag_input: Tensor,
    sin_decay: Tensor,
    cos_decay: Tensor,
    ref_decay: Tensor,
    th_decay: Tensor,
    real_state: Tensor,
    imag_state: Tensor,
    ref_state: Tensor,
    th_state: Tensor,
    th_scale: float,
    th0: float,
    w_scale: int,
    debug: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Real and imaginary state, threshold and refractory state, each ``[N, *, T]``.

    Parameters as in :func:`.resonator.dynamics` and :func:`.adaptive_threshold.dynamics`.
    """
    decays = sin_decay, cos_decay, ref_decay, th_decay
    states = (state.detach() for state in (real_state, imag_state, ref_state, th_state))
    backend = kernels.current_backend()
    return _adaptive_resonator(
        real_input, imag_input, *decays, *states, th_scale, th0, w_scale, backend
    )
