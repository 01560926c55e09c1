"""Mixed operations on a part of the channels (Xu et al., PC-DARTS, ICLR 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.errors import SpaceError
from nas.space.mixed import MixedOperation, candidates_of


class PartialOperation(MixedOperation):
    """Mixes candidates on the first of `groups` equal groups of channels, and lets the other channels pass.

    The channels that pass are max-pooled by 2x2 if the candidates halve height and width. At the end the channels are
    shuffled, so that the next operation computes other ones.

    Args:
        operation: the mixed operation on the first group, whose candidates this one takes over.
        groups: K, the number of groups.

    Raises:
        SpaceError: in a forward pass, the input has no such groups, or the output of the candidates is of another shape
            than the other channels.

    Shape:
        `(batch, channels, height, width)` to the same shape, or to half of height and width, rounded up.

    References:
        Xu et al., PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search, ICLR 2020, eq. 2;
        yuhuixu1993/PC-DARTS, `model_search.py`, `MixedOp`.
    """

    def __init__(self, operation: MixedOperation, groups: int) -> None:
        super().__init__(operation.label, candidates_of(operation), operation.__dict__["_mixing"])
        self.__dict__["_groups"] = groups  # not an attribute, since a candidate can have any name

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        x, *others = inputs
        groups = groups_of(self)
        computed, passing = split(x, groups, self.label)
        output = super().forward(computed, *others, **keywords)
        return joined(output, passed(passing, output), groups, self.label)


def groups_of(operation: PartialOperation) -> int:
    """Return the number of groups of channels, of which the first one is computed."""
    groups: int = operation.__dict__["_groups"]
    return groups


def split(x: Any, groups: int, label: str) -> tuple[Tensor, Tensor]:
    """Return the channels that are computed, and those that pass."""
    if not isinstance(x, Tensor) or x.dim() != 4 or x.shape[1] % groups:
        found = f"one of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise SpaceError(f"'{label}' must get images with a number of channels that {groups} divides, got {found}")
    count = x.shape[1] // groups
    return x[:, :count], x[:, count:]


def passed(channels: Tensor, output: Any) -> Tensor:
    """Return the channels that pass, of the height and width of the output of the candidates if pooling can do it."""
    if not isinstance(output, Tensor) or channels.shape[2:] == output.shape[2:]:
        return channels
    return F.max_pool2d(channels, 2, ceil_mode=True)


def joined(computed: Any, passing: Tensor, groups: int, label: str) -> Tensor:
    """Return all channels, shuffled: channel i of group g becomes channel `i * groups + g`."""
    wanted = (len(passing), passing.shape[1] // (groups - 1), *passing.shape[2:])
    if not isinstance(computed, Tensor) or tuple(computed.shape) != wanted:
        found = tuple(computed.shape) if isinstance(computed, Tensor) else type(computed).__name__
        raise SpaceError(f"candidates of '{label}' must return {wanted} on partial channels, got {found}")
    x = torch.cat([computed, passing], 1)
    if x.is_contiguous(memory_format=torch.channels_last):  # the copy then has this format, too
        apart = torch.unflatten(x.permute(0, 2, 3, 1), -1, (groups, -1))
        return apart.transpose(-1, -2).flatten(-2).permute(0, 3, 1, 2)
    return torch.unflatten(x, 1, (groups, -1)).transpose(1, 2).flatten(1, 2)
