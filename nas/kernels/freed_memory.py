"""A context in which the process keeps freed memory for the next tensors."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt(3)`."""
_DEFAULTS = {_TRIM_THRESHOLD: ("MALLOC_TRIM_THRESHOLD_", 128 * 1024), _MMAP_MAX: ("MALLOC_MMAP_MAX_", 65536)}
"""The environment variable that sets a parameter, and glibc's default."""
_lock = Lock()
_inside = 0


@contextmanager
def memory_kept() -> Iterator[None]:
    """Keep freed memory within this context; return free memory to the operating system at the end.

    By default, glibc requests every block beyond 32 MiB from the system, which clears each page at its first use. For
    large images this takes about as long as the computation. The context has no effect without glibc, nor on blocks
    beyond 64 MiB outside the main thread.

    The context changes the whole process: two parameters of `mallopt(3)`. A generator must leave it before each
    `yield`. At the end the parameters get the values of the environment (`MALLOC_TRIM_THRESHOLD_`,
    `MALLOC_MMAP_MAX_`), or glibc's defaults. glibc then no longer adjusts its thresholds dynamically: a call of
    `mallopt` switches this off for the rest of the process. `M_MMAP_THRESHOLD` keeps the value that it had reached.
    """
    global _inside
    libc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if libc is None:
        yield
        return
    with _lock:
        _inside += 1
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                for parameter, value in _outside(os.environ).items():
                    libc.mallopt(parameter, value)
                libc.malloc_trim(0)


class _Info(ctypes.Structure):
    """Result of `mallinfo2(3)`."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks"))
    _fields_ += tuple((name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keepcost"))


def heap_size() -> int | None:
    """Return the bytes that the heap of the main thread takes from the system, whether used or free.

    Within `memory_kept` it never falls, so its growth is what computations of the main thread need at their peak. None
    without glibc 2.33 or newer.
    """
    libc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    if libc is None or not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = _Info
    return int(libc.mallinfo2().arena)


def fill_heap() -> list[Tensor]:
    """Take the free memory of the main thread's heap, but for small gaps, without writing it.

    Within `memory_kept` the heap then grows for what is allocated as it does in a new process, as long as the blocks
    that are returned live. Without glibc 2.33 or newer there are none.
    """
    blocks: list[Tensor] = []
    before = heap_size()
    if before is None:
        return blocks
    for size in (4**n * 2**16 for n in reversed(range(7))):  # from 256 MiB to 64 KiB
        while heap_size() == before:
            blocks.append(torch.empty(size, dtype=torch.uint8))
        before = heap_size()
    return blocks


def _outside(environment: Mapping[str, str]) -> dict[int, int]:
    """Return the values of the parameters outside of the context; `mallopt` takes 32 bits."""
    values = {}
    for parameter, (name, default) in _DEFAULTS.items():
        try:
            values[parameter] = min(int(environment[name], 0), 2**31 - 1)
        except (KeyError, ValueError):  # not set, or not a number, which glibc ignores too
            values[parameter] = default
    return values
