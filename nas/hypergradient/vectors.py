"""Arithmetic of vectors that are lists of tensors: one tensor for each parameter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Vector = Sequence[Tensor]


def dot(x: Vector, y: Vector) -> Tensor:
    """Return the inner product, a scalar."""
    return torch.stack([(a * b).sum() for a, b in zip(x, y, strict=True)]).sum()


def add(x: Vector, y: Vector, scale: Tensor | float = 1.0) -> list[Tensor]:
    """Return `x + scale y`."""
    return [a + scale * b for a, b in zip(x, y, strict=True)]


def times(x: Vector, scale: Tensor | float) -> list[Tensor]:
    """Return `scale x`."""
    return [scale * a for a in x]
