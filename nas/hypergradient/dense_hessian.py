"""Gradient and Hessian of a level's loss as dense tensors, for levels of a few hundred parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.response import Loss, Parameters, differentiate, leaves
from nas.kernels.second_order import twice_differentiable


class FlatError(ConfigError):
    """A level's loss that curves upwards too little at the current parameters; it may not at later ones."""


def derivatives(loss: Loss, own: Parameters, others: Parameters, method: str, limit: int) -> tuple[Tensor, Tensor]:
    """Return `f_w` (n,) with its graph towards `others`, and `f_ww` (n, n) without one, at the `n` numbers of `own`.

    Raises:
        ConfigError: `n` is above `limit`; the message names the `method`.
    """
    count = require_few(own, method, limit)
    current = leaves(own)
    point = list(current.values())
    gradient = gradient_of(loss, current, others)
    units = torch.eye(count, dtype=gradient.dtype, device=gradient.device)
    rows = [flat(differentiate(gradient, point, [unit], retain_graph=True)) for unit in units]
    return gradient, torch.stack(rows)


def gradient_of(loss: Loss, own: Parameters, others: Parameters) -> Tensor:
    """Return `f_w` (n,) with its graph, at `own`; these become leaves unless they are already."""
    current = own if all(value.requires_grad for value in own.values()) else leaves(own)
    with twice_differentiable():
        value = loss(current, others)
    return flat(differentiate(value, list(current.values()), create_graph=True))


def require_few(own: Parameters, method: str, limit: int) -> int:
    """Return how many numbers the parameters have; raises `ConfigError` if they are more than `limit`."""
    count = sum(value.numel() for value in own.values())
    if count > limit:
        raise ConfigError(f"hypergradient '{method}': the level must have at most {limit} parameters, got {count}")
    return count


def flat(tensors: list[Tensor]) -> Tensor:
    """Return all numbers of the tensors in a row, (n,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def less(own: Parameters, shift: Tensor) -> Parameters:
    """Return the parameters, each minus its part of `shift` (n,)."""
    return {name: value - piece for (name, value), piece in zip(own.items(), shaped(shift, own), strict=True)}


def shaped(vector: Tensor, own: Parameters) -> list[Tensor]:
    """Return the numbers of a vector (n,) in the shapes of the parameters."""
    pieces = torch.split(vector, [value.numel() for value in own.values()])
    return [piece.view_as(value) for piece, value in zip(pieces, own.values(), strict=True)]
