"""The small search spaces on which conformance tests try parts."""

from __future__ import annotations

from collections.abc import Callable
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


def _every_kind(choose: Chooser, /) -> nn.Module:
    """A space with decisions of every kind, some of which exist only inside others."""

    def edge(source: int) -> Callable[[], nn.Module]:
        return lambda: choose(f"edge/{source}", {"skip": nn.Identity, "tanh": nn.Tanh, "none": nn.Identity})

    def wide() -> nn.Module:
        width = choose.width("width", (2, 4))
        return nn.Sequential(nn.Linear(4, width.channels), width, nn.Linear(width.channels, 4))

    def block(number: int) -> nn.Module:
        return choose("block", {"relu": nn.ReLU, "tanh": nn.Tanh})

    return nn.ModuleList(
        [
            choose.inputs("node", {source: edge(source) for source in range(3)}, keep=2),
            choose("branch", {"wide": wide, "skip": nn.Identity}),
            choose.depth("depth", (0, 1, 2), block),
        ]
    )


SMALL = Small(
    SearchSpace("nas-testing-small", _small), torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(0))
)
"""What the tests use unless a subclass names another space. Its name is one that no package would register."""
EVERY_KIND = SearchSpace("nas-testing-every-kind", _every_kind)
"""A space whose networks cannot compute, for parts that see decisions alone."""
