"""Memory that was freed is kept for the next tensors."""

import ctypes

__all__ = ["keep_memory"]

# mallopt's names for them, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_memory() -> bool:
    """Have glibc keep freed memory for the tensors to come; False where there is no glibc.

    glibc gives large blocks back to the system when they are freed. A training step asks for as
    many again, and each 4 KiB of them cost a page fault, which may take longer than what is
    computed there: docs/performance.md has figures. What the main thread allocates after the call
    does not go back, whoever frees it, until the process ends: that keeps what it needed at most,
    and what lies between tensors of other sizes. What other threads allocate goes back in part. It
    can't be undone.

    Call it once, at the start of a program that trains nets on a CPU. Where another allocator was
    preloaded (jemalloc, tcmalloc) it changes nothing, whatever it returns.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - other C libraries may have a mallopt of their own
        mallopt = libc.mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return False
    # No block of its own from the system for each large tensor, and none given back (-1: never).
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
