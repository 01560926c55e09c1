"""Local search ends in local optima, and knows that it does."""

from __future__ import annotations

from random import Random

import pytest

import nas
from nas.genotype.decision import Choice
from nas.searchers.local_search import LocalSearch, key_of

SPACE = nas.find_space("nas-bench-201").describe()


def rugged(choices: dict[str, Choice]) -> float:
    """A random number for each genotype, with a slope: there are many local optima."""
    convolutions = sum(choice == "nor_conv_3x3" for choice in choices.values())
    return convolutions / 3 + Random(repr(key_of(choices))).random()


@pytest.mark.parametrize("first", [False, True])
def test_it_ends_in_local_optima(first: bool) -> None:
    searcher = LocalSearch(SPACE, first=first, seed=1)
    told = []
    for _ in range(600):
        genotype = searcher.ask()
        told.append(rugged(genotype.choices))
        searcher.tell(genotype, told[-1])
    assert len(searcher.optima) > 2
    for choices, score in searcher.optima:
        assert score == rugged(choices)
        assert all(rugged(each) < score for each in searcher.variation.neighbours(choices, Random(0)))
    assert max(score for _, score in searcher.optima) == max(told)


def test_the_first_better_neighbour_costs_fewer_evaluations() -> None:
    counts = []
    for first in (False, True):
        searcher, count = LocalSearch(SPACE, first=first, seed=2), 0
        while not searcher.optima:
            genotype = searcher.ask()
            searcher.tell(genotype, sum(choice == "nor_conv_3x3" for choice in genotype.choices.values()))
            count += 1
        counts.append(count)
    assert counts[1] < counts[0]


def test_no_known_neighbour_is_proposed_again() -> None:
    searcher = LocalSearch(SPACE, seed=3)
    seen = []
    while not searcher.optima:
        genotype = searcher.ask()
        seen.append(key_of(genotype.choices))
        searcher.tell(genotype, rugged(genotype.choices))
    assert len(set(seen[:-1])) == len(seen) - 1
