"""Gradients of a CubaLIFNode, and two references for them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lava_bridge.quantize import threshold_eps

from .strategies import sequence


@contextmanager
def in_float64() -> Iterator[None]:
    """SpikingJelly divides integers, which gives the default dtype: make that float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def gradients(
    node: Any, parts: list[Tensor], seed: int, start: Any = None
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Run the parts one after the other from ``start``; gradients of a random sum of all kept.

    The decays take the dtype of the parts: autograd adds their gradients up in their own.

    Returns
    -------
    (list of Tensor, dict)
        The outputs: for each part the spikes, voltages and currents. The gradients: of the parts,
        the states at the start and the decays.
    """
    node.to(parts[0].dtype)
    node.store_v_seq = node.store_i_seq = True
    leaves = {f"part {i}": part.clone().requires_grad_() for i, part in enumerate(parts)}
    for name, state in (start or {}).items():
        leaves[name] = state.clone().requires_grad_()
        setattr(node, name, leaves[name])
    outputs: list[Tensor] = []
    for i in range(len(parts)):
        spike_seq = node(leaves[f"part {i}"])
        outputs += [spike_seq, node.v_seq, node.i_seq]
    weights = [sequence(tuple(y.shape), seed + i, 1.0) for i, y in enumerate(outputs)]
    sum((y * w).sum() for y, w in zip(outputs, weights, strict=True)).backward()
    leaves |= dict(node.named_parameters())
    return [y.detach() for y in outputs], {name: leaf.grad for name, leaf in leaves.items()}


class PlainNode(torch.nn.Module):
    """The equations of a CubaLIFNode, step by step, with autograd's own gradients.

    The values are those of integers; the gradients are those of the same equations in floats.
    """

    def __init__(
        self,
        current_decay: Tensor,
        voltage_decay: Tensor,
        v_threshold: float,
        scale: int,
        surrogate_function: Callable[[Tensor], Tensor],
        detach_reset: bool,
        norm: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.current_decay = torch.nn.Parameter(4096 * current_decay)
        self.voltage_decay = torch.nn.Parameter(4096 * voltage_decay)
        self.scale = 64 * scale
        threshold = int(v_threshold * scale) / scale
        self.threshold = threshold + threshold_eps(threshold, self.scale)
        self.surrogate_function, self.detach_reset = surrogate_function, detach_reset
        self.norm = norm

    def leak(self, state: Tensor, decay: Tensor, x: Tensor) -> Tensor:
        """One step: the value in integers, the gradient in floats."""
        decay = decay + (decay.round() - decay).detach()
        smooth = state * (1 - decay / 4096) + x
        with torch.no_grad():
            kept = torch.trunc(torch.round(state * self.scale) * (4096 - decay) / 4096)
            value = (kept + torch.trunc(x * self.scale)) / self.scale
        return value + (smooth - smooth.detach())

    def forward(self, x_seq: Tensor) -> Tensor:
        state, currents = torch.zeros_like(x_seq[0]), []
        for x in x_seq:
            state = self.leak(state, self.current_decay, x)
            currents.append(state)
        self.i_seq = torch.stack(currents)
        drive = self.i_seq
        if self.norm is not None:
            # lava views its input
            drive = self.norm(drive.movedim(0, -1).contiguous()).movedim(-1, 0)
        state, voltages, found = torch.zeros_like(x_seq[0]), [], []
        for x in drive:
            state = self.leak(state, self.voltage_decay, x)
            spike = self.surrogate_function(state - self.threshold)
            state = state * (1 - (spike.detach() if self.detach_reset else spike))
            voltages.append(state)
            found.append(spike)
        self.v_seq = torch.stack(voltages)
        return torch.stack(found)
