"""What `crafted` imports."""

from __future__ import annotations

import functools

from torch import Tensor

SCALE = 0.5


@functools.lru_cache
def describe(count: int) -> str:
    return "x" * count


def scaled(x: Tensor, by: float = 2.0) -> Tensor:
    """`x` times `by`."""
    return _times(x, by)


def doubled(x: Tensor) -> Tensor:
    return scaled(x, 2.0)


def _times(x: Tensor, by: float) -> Tensor:
    return x * by
