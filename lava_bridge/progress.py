"""Progress bars: on a terminal, and nowhere else; and who speaks where several processes run."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

__all__ = ["is_first_rank", "progress_bar"]


def is_first_rank() -> bool:
    """Whether this process is the one of those that ``torchrun`` started that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error while the body runs; it calls what it is given for each step.

    In a log, where there is only one step, or by another rank than the first, nothing is shown.
    """
    if total <= 1 or not is_first_rank() or not sys.stderr.isatty():
        yield lambda: None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
