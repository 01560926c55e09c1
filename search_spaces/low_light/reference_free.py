"""What the modules of RUAS minimize, without a picture in good light to compare with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

REACH = 2
"""Neighbours are at most this many rows and columns away."""
COLOUR = 0.1
"""Of the weight of neighbours by how alike their colours are."""
TIGHT = 0.5
"""Weight of the distance between light and picture."""


def light_loss(picture: Tensor, light: Tensor) -> Tensor:
    """Return half the mean squared distance of the light to the picture, plus its roughness.

    Both have the shape `(batch, 3, height, width)`.

    References:
        `LossFunction` in `model_search.py` of https://github.com/KarelZhang/RUAS.
    """
    return TIGHT * F.mse_loss(light, picture) + roughness(light, picture)


def roughness(light: Tensor, picture: Tensor) -> Tensor:
    """Return the mean absolute difference of the light at neighbours, summed over the 24 neighbours of a pixel.

    A neighbour weighs `exp(-COLOUR² d² / 2)` on average over the picture, where d is the distance of the two colours.

    References:
        `SmoothLoss` there. Liu et al., CVPR 2021, sec. 4.2, state the relative total variation in its place.
    """
    total = light.new_zeros(())
    for rows in range(REACH + 1):
        for columns in range(-REACH, REACH + 1):
            if (rows, columns) > (0, 0):  # half of the neighbours: the other half has the same differences
                near, far = _neighbours(picture, rows, columns)
                weight = torch.exp(-(COLOUR**2) / 2 * (near - far).square().sum(1)).mean()
                near, far = _neighbours(light, rows, columns)
                total = total + 2 * weight * (near - far).abs().mean()
    return total


def _neighbours(x: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """All pixels that have a neighbour so far below and to the right, and these neighbours."""
    height, width = x.shape[-2] - rows, x.shape[-1] - abs(columns)
    left, right = max(-columns, 0), max(columns, 0)
    return x[..., :height, left : left + width], x[..., rows:, right : right + width]


def noise_loss(output: Tensor, lit: Tensor, fidelity: float) -> Tensor:
    """Return the variation of the output, plus `fidelity` times its mean squared distance to the picture with noise.

    The variation is twice the sum of the mean squared differences of rows and of columns. Both pictures have the shape
    `(batch, 3, height, width)`.

    References:
        `DenoiseLossFunction` there, with `fidelity=1e-7`.
    """
    rows, columns = (output.diff(dim=dim).square().mean() for dim in (-2, -1))
    return fidelity * F.mse_loss(output, lit) + 2 * (rows + columns)
