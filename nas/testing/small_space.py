"""The small search space on which conformance tests try relaxations and regularizers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.space.cell import Cell
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.primitives import NAS_BENCH_201


class Small(NamedTuple):
    """A search space with an input of its networks."""

    space: SearchSpace
    example: Tensor
    """`(batch, channels, height, width)` float32."""


def _small(choose: Chooser, /, *, channels: int = 3) -> nn.Module:
    """One cell of two nodes with the candidates of NAS-Bench-201, and a choice between two layers."""
    cell = Cell(choose, "cell", NAS_BENCH_201.bind(channels), inputs=1, nodes=2, keep=1)
    last = choose(
        "last",
        {"conv": lambda: nn.Conv2d(2 * channels, 1, 1), "wide": lambda: nn.Conv2d(2 * channels, 1, 3, padding=1)},
    )
    return nn.Sequential(nn.Conv2d(1, channels, 1), cell, last, nn.AdaptiveAvgPool2d(1))


SMALL = Small(SearchSpace("small", _small), torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(0)))
"""What the tests use unless a subclass names another space."""
