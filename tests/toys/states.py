"""Whether two states are equal, bit for bit."""

from __future__ import annotations

from typing import Any

from torch import Tensor, equal


def same(a: Any, b: Any) -> bool:
    """Whether nested containers hold equal values of equal types, under equal keys in equal order."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list | tuple) else bool(a == b)
