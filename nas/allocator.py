"""What becomes of memory that is freed: the process keeps it for the next image, or gives it back to the system."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's `mallopt(3)`."""
_inside = 0


@contextmanager
def memory_kept() -> Iterator[None]:
    """In this context the process keeps what it frees; at the end it gives back what is free.

    By default glibc asks the system for every block beyond 32 MiB, which clears each of its pages when it is first
    written to: for large images that takes about as long as to compute them. Without glibc nothing changes, nor for
    blocks beyond 64 MiB outside of the main thread.

    Afterwards blocks up to 32 MiB are kept, and free memory up to 64 MiB, which is where glibc's own adjustment ends.
    """
    global _inside
    libc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if libc is None:
        yield
        return
    _inside += 1
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        _inside -= 1
        if not _inside:
            libc.mallopt(_MMAP_MAX, 65536)
            libc.mallopt(_MMAP_THRESHOLD, 32 * 2**20)
            libc.mallopt(_TRIM_THRESHOLD, 64 * 2**20)
            libc.malloc_trim(0)
