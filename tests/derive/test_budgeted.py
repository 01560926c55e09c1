"""The policy `budgeted`: the budgets that it takes, and those that it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nas.cost.space_cost import costs
from nas.errors import ConfigError
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.supernet import Supernet

INPUTS = (torch.zeros(1, 1, 4, 4),)


def network(choose: Chooser, /) -> nn.Module:
    """Costs 1 outside of decisions; candidates cost 9, 5 of the same FLOPs as 1, or nothing."""
    candidates = {
        "square": lambda: nn.Conv2d(1, 1, 3, padding=1, bias=False),
        "row": lambda: nn.Conv2d(1, 1, (1, 5), padding=(0, 2), bias=False),
        "skip": nn.Identity,
    }
    return nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), choose("a", candidates), choose("b", candidates))


SPACE = SearchSpace("test_budgeted", network)


@pytest.fixture
def supernet() -> Supernet:
    """Its most probable genotypes, by log weights: square and square, row and square, square and row, ..."""
    supernet = Supernet(SPACE)
    supernet.arch["a"].data = torch.tensor([0.5, 0.3, 0.2]).log()
    supernet.arch["b"].data = torch.tensor([0.6, 0.3, 0.1]).log()
    return supernet


def chosen(supernet: Supernet, **arguments: Any) -> tuple[object, ...]:
    shares = None if "flops" not in arguments else lambda unit: costs(SPACE.describe(), unit, INPUTS).shares
    choices = supernet.derive(derivation={"name": "budgeted", **arguments}, shares=shares).choices
    return tuple(choices.values())


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (19, ("square", "square")),
        (18, ("row", "square")),  # .3 x .6, more than .5 x .3
        (14, ("skip", "square")),  # .2 x .6, more than .3 x .3
        (9, ("skip", "row")),
        (1, ("skip", "skip")),
    ],
)
def test_the_most_probable_genotype_within_a_budget(supernet: Supernet, params: int, expected: object) -> None:
    assert chosen(supernet, params=params) == expected
    assert chosen(supernet, flops=2 * 16 * params) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": 0.5}, r"'budgeted': params must be at least 1, those of the cheapest network, got 0\.5"),
        ({"flops": 31}, r"'budgeted': flops must be at least 32, .*got 31"),
        ({}, r"one budget, 'params' or 'flops', got none"),
        ({"params": 9, "flops": 9}, "got params and flops"),
        ({"params": -1}, r"derivation\.params must be above 0"),
        ({"seconds": 1}, "seconds"),
    ],
)
def test_budgets_that_cannot_work(supernet: Supernet, arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen(supernet, **arguments)
