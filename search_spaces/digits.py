"""A search space in less than thirty lines of code, for handwritten digits: one cell, used twice."""

from __future__ import annotations

from functools import partial

from torch import nn

from nas import Cell, Chooser, OperationSet, search_space
from nas.space.operations import Factory
from nas.space.primitives import NAS_BENCH_201, DropPath, avg_pool

CANDIDATES = (NAS_BENCH_201.without("none") | {"avg_pool_3x3": partial(avg_pool, normalize=True)}).register("digits")


@search_space("digits")
def digits_space(
    choose: Chooser,
    /,
    *,
    channels: int = 8,
    nodes: int = 3,
    drop_path: float = 0.0,
    operations: OperationSet = CANDIDATES,
) -> nn.Module:
    """Classification of handwritten digits by one searched cell that is used twice.

    The factories in `operations` take `channels` and `affine`.

    Args:
        choose: states the decisions.
        channels: of the cells.
        nodes: number of nodes in the cell.
        drop_path: probability with which a training image skips a candidate. In a search, candidates then depend less
            on each other.
        operations: the candidates of every edge.

    Shape:
        Images `(batch, 1, 8, 8)` to scores `(batch, 10)`.

    References:
        Bender et al., "Understanding and Simplifying One-Shot Architecture Search", ICML 2018, sec. 3.2 (drop path).
    """

    def candidate(make: Factory) -> nn.Module:
        return nn.Sequential(make(), DropPath(drop_path))

    candidates = {name: partial(candidate, make) for name, make in operations.bind(channels, affine=True).items()}
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
