"""Damping of a curvature matrix: a number, or relative to the largest eigenvalue of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.dense_hessian import FlatError, flat, shaped
from nas.hypergradient.eigenvalue import largest_eigenvalue
from nas.hypergradient.generalized_gauss_newton import GeneralizedGaussNewton
from nas.hypergradient.response import Loss, Parameters
from nas.registry import NonNegative, Positive

Damping = NonNegative | dict[Literal["relative"], Positive]
"""A number that is added to the diagonal, or `{relative: r}`: `r` times the largest eigenvalue of the generalized
Gauss-Newton matrix."""
Matrix = Literal["hessian", "gauss_newton"]
"""The curvature that responds: the Hessian `f_ww`, or the generalized Gauss-Newton matrix in its place."""

PRODUCTS = 12
"""Products with vectors that estimate the largest eigenvalue."""


def damping_of(
    damping: float | Mapping[Literal["relative"], float], loss: Loss, own: Parameters, others: Parameters
) -> float:
    """Return the number that is added to the diagonal.

    Raises:
        ConfigError: it is relative, and the loss is flat in the network's outputs, or not convex.
    """
    if not isinstance(damping, Mapping):
        return damping
    matrix = GeneralizedGaussNewton(loss, own, others)

    def product(vector: Tensor) -> Tensor:
        return flat(matrix(shaped(vector, own)))

    like = flat(list(own.values()))
    start = torch.randn(len(like), generator=torch.Generator().manual_seed(0)).to(like)
    largest = largest_eigenvalue(product, start, PRODUCTS).value
    if largest <= 0:
        raise FlatError(
            f"a relative damping needs a loss that is convex in the network's outputs, got curvature {largest:.3g}."
            " Give a number as 'damping', or use a smooth loss"
        )
    return damping["relative"] * largest


def uncovered(method: str, least: float, damping: float) -> ConfigError:
    """Return the error of a damping that leaves the curvature indefinite or singular.

    Args:
        method: the name of the hypergradient.
        least: the least eigenvalue of the curvature, or a bound from above.
        damping: what was added to the diagonal.
    """
    return FlatError(
        f"hypergradient '{method}': damping must be above {max(0.0, -least):.3g}, because the least eigenvalue of the"
        f" Hessian is {least:.3g}, got {damping:.3g}. Raise it, or use curvature: gauss_newton"
    )
