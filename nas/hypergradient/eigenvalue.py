"""The largest eigenvalue of a symmetric matrix that is known by its products with vectors (Lanczos)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Eigenvalue(NamedTuple):
    """An eigenvalue as estimated."""

    value: float
    error: float
    """A bound of the distance to the nearest eigenvalue: the largest, unless the start was orthogonal to it."""


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor, products: int) -> Eigenvalue:
    """Estimate the largest eigenvalue of a symmetric matrix from products with vectors (Lanczos).

    The estimate is never below that of a power iteration with as many products. It is exact after as many products as
    there are distinct eigenvalues, and not a number if a product is not finite.

    Args:
        product: maps a vector `(n,)` to the matrix times it, `(n,)`.
        start: the first vector, `(n,)`; it must not be orthogonal to the eigenvector.
        products: the most products to take.
    """
    basis = [start / start.norm()]
    images: list[Tensor] = []
    while True:
        images.append(product(basis[-1]))
        rest = images[-1]
        known = torch.stack(basis)
        for _ in range(2):  # once leaves rounding errors that add up
            rest = rest - known.T @ (known @ rest)
        if len(images) == min(products, len(start)) or rest.norm() <= 1e-5 * images[-1].norm():
            break
        basis.append(rest / rest.norm())
    projected = torch.stack(basis) @ torch.stack(images).T
    if not projected.isfinite().all():
        return Eigenvalue(math.nan, math.nan)
    values, vectors = torch.linalg.eigh((projected + projected.T) / 2)
    return Eigenvalue(values[-1].item(), (rest.norm() * vectors[-1, -1]).abs().item())
