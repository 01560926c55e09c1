"""What `torchrun` tells a process: its rank and the number of ranks. Imports no torch."""

from __future__ import annotations

import os


def launched() -> int:
    """Return the number of ranks that `torchrun` started; 1 without it."""
    return _number("WORLD_SIZE", 1) if "RANK" in os.environ else 1


def launched_rank() -> int:
    """Return the rank of this process, from 0; 0 without `torchrun`."""
    return _number("RANK", 0)


def local_rank() -> int:
    """Return the number of this process on its machine, from 0."""
    return _number("LOCAL_RANK", 0)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
