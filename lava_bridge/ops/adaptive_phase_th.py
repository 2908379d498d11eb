r"""The adaptive threshold of a neuron that fires at phase zero: where :math:`\Im z` turns positive.

The recurrence is :mod:`.adaptive_threshold`'s, with

.. math:: s[t] = \bigl(\Re z[t] \ge \vartheta[t] + r[t]\bigr)
                 \wedge (\Im z[t] \ge 0) \wedge (\Im z[t-1] < 0)

Source: ``lava.lib.dl.slayer.neuron.dynamics.adaptive_phase_th``.
"""

from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..quantize import exact_dtype, integers
from .adaptive_threshold import adapt, adaptation_steps, adapted_like
from .operator import operator
from .persistent import persistent_ref_state, persistent_th_state

__all__ = ["dynamics", "persistent_ref_state", "persistent_th_state", "phase_turns"]


def phase_turns(imag: Tensor, imag_state: Tensor, scale: float) -> Tensor:
    """Where a sequence ``[N, *, T]`` turns from below 0, in integers, from its state before."""
    steps = integers(imag, scale)
    first = integers(imag_state.to(exact_dtype(imag)), scale)
    first = first.expand(steps.shape[:-1]).unsqueeze(-1)
    return (steps >= 0) & (torch.cat([first, steps], dim=-1)[..., :-1] < 0)


@operator("lava_bridge::adaptive_phase_threshold")
def _adaptive_phase_threshold(
    re_input: Tensor,
    im_input: Tensor,
    im_state: Tensor,
    ref_state: Tensor,
    ref_decay: Tensor,
    th_state: Tensor,
    th_decay: Tensor,
    th_scale: float,
    th0: float,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    compiled, exact = kernels.chosen(backend, re_input), exact_dtype(re_input)
    decays, states = (ref_decay, th_decay), (ref_state, th_state)
    steps = adaptation_steps(th_scale, th0, scale)
    if compiled is None:
        turns, level = phase_turns(im_input, im_state, scale), integers(re_input, scale)
        return adapt(level, turns, decays, states, steps, scale, exact)
    inputs, parameters = (re_input, im_input), (*decays, *states, im_state)
    kernel, numbers, wanted = "adaptive_phase_threshold", (scale, *steps), [exact, exact]
    done = kernels.run(compiled, kernel, re_input, inputs, parameters, numbers, wanted)
    return done.sequences[0], done.sequences[1]


def _no_gradient(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
    return (None,) * 11


_adaptive_phase_threshold.register_fake(adapted_like)
_adaptive_phase_threshold.register_autograd(_no_gradient)


def dynamics(
    re_input: Tensor,
    im_input: Tensor,
    im_state: Tensor,
    ref_state: Tensor,
    ref_decay: Tensor,
    th_state: Tensor,
    th_decay: Tensor,
    th_scale: float,
    th0: float,
    w_scale: int,
    debug: bool = False,
) -> tuple[Tensor, Tensor]:
    """Threshold and refractory state ``[N, *, T]`` for a resonator's state ``[N, *, T]``.

    ``im_state`` is the imaginary state before the first step; the other parameters are
    :func:`.adaptive_threshold.dynamics`'s. Memory order and dtype are the real part's.
    """
    parts = re_input.detach(), im_input.detach(), im_state.detach()
    states = ref_state.detach(), ref_decay, th_state.detach(), th_decay
    backend = kernels.current_backend()
    return _adaptive_phase_threshold(*parts, *states, th_scale, th0, w_scale, backend)
