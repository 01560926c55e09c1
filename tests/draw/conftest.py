"""Small spaces to draw: one like TMICS (two routes, cells that are rows), one like DARTS (DAG cells), a nested one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from nas.derive.random import choose_randomly
from nas.genotype.decision import Choice
from nas.space.cell import Cell, Chain
from nas.space.chooser import Chooser
from nas.space.definition import Description, search_space
from nas.space.operations import OperationSet

RESTORING = "residual_3x3 residual_5x5 dense_3x3 dense_5x5 dilated_3x3 spatial_attention channel_attention"
CLASSIFYING = "none max_pool_3x3 avg_pool_3x3 skip_connect sep_conv_3x3 sep_conv_5x5 dil_conv_3x3 dil_conv_5x5"


def identities(names: str, registered: str) -> OperationSet:
    return OperationSet(dict.fromkeys(names.split(), lambda channels: nn.Identity())).register(registered)


ROWS = identities(RESTORING, "toy-restoring")
EDGES = identities(CLASSIFYING, "toy-classifying")


class Route(nn.Module):
    wiring = (("input", "cells"), ("cells", "head"), ("head", "output"))

    def __init__(self, choose: Chooser, cells: int) -> None:
        super().__init__()
        rows = (Chain(choose, "row", ROWS.bind(1), length=4, residual=True) for _ in range(cells))
        self.cells = nn.Sequential(*rows)
        self.head = nn.Identity()


class Restoring(nn.Module):
    wiring = (
        ("frames", "alignment"),
        ("alignment", "frequency"),
        ("frequency", "streaks"),
        ("frequency", "stem"),
        ("streaks", "stem"),
        ("stem", "dna"),
        ("frequency", "cna"),
        ("dna", "averaging"),
        ("cna", "averaging"),
        ("averaging", "output"),
    )

    def __init__(self, choose: Chooser, cells: int) -> None:
        super().__init__()
        self.alignment = choose("alignment", {"ofm": nn.Identity, "tgm": nn.Identity})
        self.frequency = choose("frequency", {"none": nn.Identity, "gf2": nn.Identity, "gf3": nn.Identity})
        self.streaks, self.stem, self.averaging = nn.Identity(), nn.Identity(), nn.Identity()
        self.dna, self.cna = Route(choose, cells), Route(choose, cells)


@search_space("toy-restoring")
def restoring(choose: Chooser, /, *, cells: int = 4) -> nn.Module:
    return Restoring(choose, cells)


@search_space("toy-classifying")
def classifying(choose: Chooser, /, *, nodes: int = 4) -> nn.Module:
    labels = ("normal", "normal", "reduction", "normal")
    return nn.Sequential(nn.Identity(), *(Cell(choose, label, EDGES.bind(1), nodes=nodes) for label in labels))


@search_space("toy-nested")
def nested(choose: Chooser, /) -> nn.Module:
    """Decisions inside candidates, a width, depths, and a long row of macro decisions."""

    def inner() -> nn.Module:
        return nn.Sequential(nn.Identity(), choose("inside", {"a": nn.Identity, "b": nn.Identity}))

    candidates = {"row": lambda: Chain(choose, "row", ROWS.bind(1), length=2), "plain": nn.Identity, "deep": inner}
    long = {"mbconv3_k3": nn.Identity, "mbconv6_k5": nn.Identity, "skip": nn.Identity}
    return nn.Sequential(
        choose("outer", candidates),
        choose.width("width", (4, 8, 16)),
        choose.depth("depth", (1, 3), lambda i: nn.Identity()),
        choose.depth("blocks", (2, 4), lambda i: choose("block", {"k3": nn.Identity, "k5": nn.Identity})),
        *(choose(f"layer_{i}", long) for i in range(12)),
        nn.Identity(),
    )


@pytest.fixture(scope="session")
def restoration() -> Description:
    return restoring.describe()


@pytest.fixture(scope="session")
def classification() -> Description:
    return classifying.describe()


@pytest.fixture(scope="session")
def nesting() -> Description:
    return nested.describe()


Drawn = tuple[Description, dict[str, Choice] | None]


@pytest.fixture(scope="session")
def many(restoration: Description, classification: Description, nesting: Description) -> list[Drawn]:
    """Each space without choices, and with eighty random ones in all."""

    def drawn() -> Iterator[Drawn]:
        for description, count in ((classification, 40), (restoration, 20), (nesting, 20)):
            yield description, None
            generator = torch.Generator().manual_seed(count)
            for _ in range(count):
                yield description, choose_randomly(description.decisions, generator)

    return list(drawn())
