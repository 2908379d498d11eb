"""Work that the processes of ``torch.distributed``, its ranks, do together."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TypeVar

import torch.distributed as dist

from .errors import BridgeError
from .progress import is_first_rank

__all__ = ["agreed", "gathered", "joined", "require_group", "share_of"]

T = TypeVar("T")


def require_group(place: str) -> None:
    """Require that the processes have met.

    A BridgeError is raised at ``place`` if they have not.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise BridgeError(
            f"{place}: expected an initialised process group for distributed=True, found none; "
            "start with torchrun and call torch.distributed.init_process_group first"
        )


def share_of(samples: int) -> tuple[int, int]:
    """The first of this rank's samples, and where they end; shares differ by one sample at most."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    small, larger = divmod(samples, ranks)
    first = rank * small + min(rank, larger)
    return first, first + small + (rank < larger)


def gathered(value: T) -> list[T]:
    """What every rank has, in their order, on all of them."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def agreed(work: Callable[[], T]) -> T:
    """Do this rank's work, and go on where it succeeded on every rank.

    If it fails on one, all raise: that of the lowest number its own error, the others a BridgeError
    or, for what is none, a RuntimeError that names that rank. So none waits for another in vain.
    Without a process group this is ``work()``.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return work()
    error: Exception | None = None
    try:
        result = work()
    except Exception as raised:  # whatever it is, the others must hear of it
        error = raised
    told = None if error is None else (isinstance(error, BridgeError), str(error))
    for rank, failure in enumerate(gathered(told)):
        if failure is None:
            continue
        if error is not None and rank == dist.get_rank():
            raise error
        foreseen, message = failure
        raise (BridgeError if foreseen else RuntimeError)(f"rank {rank}: {message}") from error
    return result


@contextmanager
def joined() -> Iterator[bool]:
    """Meet the processes that ``torchrun`` started, for the body; gives whether there are several.

    What other ranks than the first print on standard output is dropped.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield False
        return
    dist.init_process_group("gloo")
    try:
        if is_first_rank():
            yield True
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                yield True
        dist.barrier()  # nobody closes the connection while another still speaks
    finally:
        dist.destroy_process_group()
