"""The steps of training, validation and testing, with their statistics."""

import logging
from typing import Any

import torch
from torch import Tensor

from ...errors import BridgeError
from .stats import LearningStats

__all__ = ["Assistant"]

logger = logging.getLogger(__name__)


class Assistant:
    """Runs a net on batches ``[N, *, T]``, and counts its losses and correct classes in ``stats``.

    Args:
        net: Gives the output; with ``lam`` the loss of its layers next; with ``count_log`` its
            spike count last, which is then returned with the output. Batches are moved to its
            device.
        error, classifier: ``error(output, target)`` gives the loss, ``classifier(output)`` (or
            None) the classes.
        optimizer: For :meth:`train` and :meth:`reduce_lr`.
        lam: The weight of the layers' loss in training; the statistics leave that loss out.

    Source: ``lava.lib.dl.slayer.utils.Assistant``.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        error: Any,
        optimizer: Any,
        stats: LearningStats | None = None,
        classifier: Any = None,
        count_log: bool = False,
        lam: float | None = None,
    ) -> None:
        self.net, self.error, self.optimizer = net, error, optimizer
        self.stats, self.classifier = stats, classifier
        self.count_log, self.lam = count_log, lam
        self.device: torch.device | None = None

    def reduce_lr(self, factor: float = 10 / 3) -> None:
        """Divide each learning rate by ``factor``."""
        for group in self.optimizer.param_groups:
            logger.info("learning rate %g, divided by %g", group["lr"], factor)
            group["lr"] /= factor

    def train(self, input: Tensor, target: Tensor) -> Any:
        """One step of the optimizer."""
        self.net.train()
        returned, loss = self._run(input, target, "training")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return returned

    @torch.no_grad()
    def test(self, input: Tensor, target: Tensor) -> Any:
        """Run in evaluation mode, counted as testing."""
        self.net.eval()
        return self._run(input, target, "testing")[0]

    @torch.no_grad()
    def valid(self, input: Tensor, target: Tensor) -> Any:
        """Run in evaluation mode, counted as validation."""
        self.net.eval()
        return self._run(input, target, "validation")[0]

    def _run(self, input: Tensor, target: Tensor, name: str) -> tuple[Any, Tensor]:
        """What a step returns, and the loss with the layers' part."""
        self.device = next((p.device for p in self.net.parameters()), input.device)
        input, target = input.to(self.device), target.to(self.device)
        names = ["output"] + ["net_loss"] * (self.lam is not None) + ["count"] * self.count_log
        returned = self.net(input)
        parts = [returned] if len(names) == 1 else list(returned)
        if len(parts) != len(names):
            expected = f"expected the net to return {', '.join(names)}"
            raise BridgeError(f"Assistant: {expected}, found {len(parts)} values; see lam")
        output = parts[0]
        loss = self.error(output, target)
        if self.stats is not None:
            stat = getattr(self.stats, name)
            stat.num_samples += input.shape[0]
            stat.loss_sum += loss.item() * output.shape[0]
            if self.classifier is not None:
                stat.correct_samples += int(torch.sum(self.classifier(output) == target))
        if self.lam is not None:
            loss = loss + self.lam * parts[1]
        return (output, parts[-1]) if self.count_log else output, loss
