"""A search space in twenty lines, for handwritten digits: one cell, used twice."""

from __future__ import annotations

from functools import partial

from torch import nn

from nas import Cell, Chooser, OperationSet, search_space
from nas.primitives import NAS_BENCH_201, avg_pool

CANDIDATES = (NAS_BENCH_201.without("none") | {"avg_pool_3x3": partial(avg_pool, normalize=True)}).register("digits")


@search_space("digits")
def digits(
    choose: Chooser, /, *, channels: int = 8, nodes: int = 3, operations: OperationSet = CANDIDATES
) -> nn.Module:
    """Handwritten digits: (batch, 1, 8, 8) to class scores (batch, 10), by one searched cell that is used twice."""
    candidates = operations.bind(channels, affine=True)
    first, second = (Cell(choose, "cell", candidates, nodes=nodes, inputs=1, output="last") for _ in range(2))
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        first,
        nn.MaxPool2d(2),
        second,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 10),
    )
