"""Derivatives of a level's loss as dense tensors, for levels of a few hundred parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.protocol import Loss, Parameters, differentiate, leaves
from nas.hypergradient.twice import twice_differentiable


class FlatError(ConfigError):
    """A level's loss that curves upwards too little where the level stands; elsewhere it may do."""


def derivatives(loss: Loss, own: Parameters, others: Parameters, method: str, limit: int) -> tuple[Tensor, Tensor]:
    """`f_w` (n,), with its graph towards `others`, and `f_ww` (n, n), without, at the `n` numbers of `own`.

    Raises `ConfigError`, which names the `method`, where they are more than `limit`.
    """
    count = sum(value.numel() for value in own.values())
    if count > limit:
        raise ConfigError(
            f"hypergradient '{method}' solves a dense system of at most {limit} parameters, found {count}"
        )
    current = leaves(own)
    point = list(current.values())
    with twice_differentiable():
        value = loss(current, others)
    gradient = flat(differentiate(value, point, create_graph=True))
    units = torch.eye(count, dtype=gradient.dtype, device=gradient.device)
    rows = [flat(differentiate(gradient, point, [unit], retain_graph=True)) for unit in units]
    return gradient, torch.stack(rows)


def flat(tensors: list[Tensor]) -> Tensor:
    """All numbers of the tensors in a row, (n,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def less(own: Parameters, shift: Tensor) -> Parameters:
    """The parameters, each less its part of `shift` (n,)."""
    pieces = torch.split(shift, [value.numel() for value in own.values()])
    return {name: value - piece.view_as(value) for (name, value), piece in zip(own.items(), pieces, strict=True)}
