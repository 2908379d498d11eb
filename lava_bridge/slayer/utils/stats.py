"""Loss and accuracy over the epochs: counted, shown, drawn and saved."""

import math
import os
import sys
from itertools import zip_longest
from typing import Any

from .utils import pyplot

__all__ = ["LearningStat", "LearningStats"]

# In the order of slayer's files, with the names of their columns there.
_COLUMNS = {"training": "Train", "validation": "Valid", "testing": "Test"}
_LOGS = ("loss", "accuracy")


class LearningStat:
    """Sums over an epoch's samples; in its logs their means, None for an epoch without samples.

    ``min_loss`` and ``max_accuracy`` are the best so far (or None); ``best_loss`` and
    ``best_accuracy`` say whether the last epoch's are: one without samples, or NaN, is not.
    """

    def __init__(self) -> None:
        self.reset()
        self.min_loss: float | None = None
        self.max_accuracy: float | None = None
        self.loss_log: list[float | None] = []
        self.accuracy_log: list[float | None] = []
        self.best_loss = self.best_accuracy = False
        self.loss_str, self.loss_unit = "loss", ""
        self.accuracy_str, self.accuracy_unit = "accuracy", ""

    def reset(self) -> None:
        """Begin a new epoch."""
        self.loss_sum: float = 0
        self.correct_samples = self.num_samples = 0

    def _mean(self, total: float) -> float | None:
        return total / self.num_samples if self.num_samples > 0 else None

    loss = property(lambda self: self._mean(self.loss_sum), doc="The mean so far, or None.")
    accuracy = property(lambda self: self._mean(self.correct_samples), doc="Likewise.")
    valid_loss_log = property(lambda self: _has_values(self.loss_log), doc="Whether it has any.")
    valid_accuracy_log = property(lambda self: _has_values(self.accuracy_log), doc="Likewise.")

    def update(self) -> None:
        """Log this epoch, and see whether it is the best."""
        loss, accuracy = self.loss, self.accuracy
        self.loss_log.append(loss)
        self.accuracy_log.append(accuracy)
        least = math.inf if self.min_loss is None else self.min_loss
        most = -math.inf if self.max_accuracy is None else self.max_accuracy
        self.best_loss = loss is not None and loss < least
        self.best_accuracy = accuracy is not None and accuracy > most
        self.min_loss = loss if self.best_loss else self.min_loss
        self.max_accuracy = accuracy if self.best_accuracy else self.max_accuracy

    def __str__(self) -> str:
        if self.loss is None:
            return ""
        loss = f"{self.loss_str} = {self.loss:11.5f}"
        accuracy = f"{self.accuracy_str} = {self.accuracy:7.5f}"
        if self.min_loss is None or self.max_accuracy is None:
            return f"{loss}  {self.loss_unit}{' ' * 24}{accuracy} {self.accuracy_unit}"
        loss += f" (min = {self.min_loss:11.5f}) {self.loss_unit}"
        return f"{loss}    {accuracy} (max = {self.max_accuracy:7.5f}) {self.accuracy_unit}"


class LearningStats:
    """The statistics ``training``, ``testing`` and ``validation``, each a :class:`LearningStat`.

    The arguments name the loss and the accuracy, and their units. A ``path`` is a folder, or what
    the names of the files begin with. Source: ``lava.lib.dl.slayer.utils.LearningStats``.
    """

    def __init__(
        self,
        loss_str: str = "loss",
        loss_unit: str = "",
        accuracy_str: str = "accuracy",
        accuracy_unit: str = "",
    ) -> None:
        self.lines_printed = 0
        self.training, self.testing, self.validation = (LearningStat() for _ in range(3))
        for stat in (self.training, self.testing, self.validation):
            stat.loss_str, stat.loss_unit = loss_str, loss_unit
            stat.accuracy_str, stat.accuracy_unit = accuracy_str, accuracy_unit

    def update(self) -> None:
        """End the epoch of all three."""
        for stat in (self.training, self.testing, self.validation):
            stat.update()
            stat.reset()

    def new_line(self) -> None:
        """Have the next :meth:`print` begin below, not over, the last one."""
        self.lines_printed = 0

    def __str__(self) -> str:
        valid, test = str(self.validation), str(self.testing)
        valid, test = valid and f" | Valid {valid}", test and f" | Test  {test}"
        return f"Train {self.training}{valid}{test}"

    def print(
        self,
        epoch: int,
        iter: int | None = None,
        time_elapsed: float | None = None,
        header: list | None = None,
        dataloader: Any = None,
    ) -> None:
        """Write the statistics to standard output, over those that it wrote last.

        ``header`` is lines to write above them, ``time_elapsed`` in seconds; with ``iter`` and
        ``dataloader`` the progress in the epoch is shown.
        """
        where = "" if iter is None else f": i = {iter:5d} "
        if dataloader is not None and iter is not None:
            samples = len(dataloader.dataset)
            done = f"{iter * dataloader.batch_size:{len(str(samples - 1))}}"
            where = f": {done}/{samples} ({100.0 * iter / len(dataloader):.0f}%)"
        if time_elapsed is not None:
            where += f", {time_elapsed * 1000:12.4f} ms elapsed"
        lines = [f"\033[{self.lines_printed}A", *(f"\033[2K{line}" for line in header or ())]
        lines += [f"Epoch {epoch:4d}{where}{' ' * 8}", *str(self).split("| ")]
        sys.stdout.write("\n".join(lines) + "\n")
        self.lines_printed = len(lines)

    def _logs(self, what: str) -> dict[str, list[float | None]]:
        """The logs of "loss" or "accuracy" that have values, by the statistic's name."""
        logs = {name: getattr(getattr(self, name), f"{what}_log") for name in _COLUMNS}
        return {name: log for name, log in logs.items() if _has_values(log)}

    def plot(
        self, figures: tuple[int, int] = (1, 2), figsize: Any = None, path: str | None = None
    ) -> None:
        """Draw the logs in matplotlib's ``figures``; to loss.png and accuracy.png with ``path``."""
        plt = pyplot()
        for figure, what in zip(figures, _LOGS, strict=True):
            logs = self._logs(what)
            if not logs:
                continue
            plt.figure(figure, figsize=figsize)
            plt.cla()
            for name, log in logs.items():
                (plt.semilogy if what == "loss" else plt.plot)(log, label=name.capitalize())
            title, unit = (getattr(self.training, f"{what}_{part}") for part in ("str", "unit"))
            plt.xlabel("Epoch")
            plt.ylabel(f"{title.capitalize()} {unit}".rstrip())
            plt.legend()
            if path is not None:
                plt.savefig(_in_folder(path, f"{what}.png"))

    def save(self, path: str = "") -> None:
        """Write the logs as text: a column for each statistic with values, a row for each epoch."""
        for what in _LOGS:
            logs = self._logs(what)
            lines = ["#" + "".join(f" {_COLUMNS[name]:<12}" for name in logs)]
            for row in zip_longest(*logs.values()):
                lines.append("".join(f"{math.nan if v is None else v:12.6f} " for v in row))
            name = getattr(self.training, f"{what}_str")
            with open(_in_folder(path, f"{name}.txt"), "w", newline="") as file:
                file.writelines(f"{line}\r\n" for line in lines)

    def load(self, path: str = "") -> None:
        """Read back the logs that :meth:`save` wrote."""
        for what, best, best_of in (("loss", "min_loss", min), ("accuracy", "max_accuracy", max)):
            with open(_in_folder(path, f"{getattr(self.training, f'{what}_str')}.txt")) as file:
                columns = file.readline().strip("#").split()
                rows = [dict(zip(columns, map(float, line.split()), strict=True)) for line in file]
            for name, column in _COLUMNS.items():
                log = [row.get(column, math.nan) for row in rows]
                values = [None if math.isnan(value) else value for value in log]
                setattr(getattr(self, name), f"{what}_log", values)
                known = [value for value in values if value is not None]
                setattr(getattr(self, name), best, best_of(known, default=None))


def _has_values(log: list[float | None]) -> bool:
    return any(value is not None for value in log)


def _in_folder(path: str, name: str) -> str:
    return os.path.join(path, name) if os.path.isdir(path) else f"{os.fspath(path)}{name}"
