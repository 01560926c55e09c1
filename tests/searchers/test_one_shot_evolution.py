"""Generations of one-shot evolution: who is mutated, crossed, and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import nas
from nas.genotype.decision import Choice
from nas.searchers.one_shot_evolution import OneShotEvolution

SPACE = nas.find_space("nas-bench-201").describe()


def worth(choices: Mapping[str, Choice]) -> float:
    return Random(repr(sorted(choices.items()))).random()


def test_a_generation_mutates_and_crosses_the_best() -> None:
    searcher = OneShotEvolution(SPACE, population=10, parents=2, mutations=4, crossings=4, probability=0.0, seed=0)
    first = [searcher.ask() for _ in range(10)]
    for genotype in first:
        searcher.tell(genotype, worth(genotype.choices))
    best = sorted((each.choices for each in first), key=worth)[-2:]
    second = [searcher.ask().choices for _ in range(10)]
    assert all(each in best for each in second[:4])  # no decision is drawn again
    assert all(each[label] in [parent[label] for parent in best] for each in second[4:8] for label in each)
    assert all(each not in best for each in second[8:])


def test_a_mutation_of_every_decision_is_a_draw() -> None:
    searcher = OneShotEvolution(SPACE, population=4, parents=1, mutations=4, crossings=0, probability=1.0, seed=0)
    parent = searcher.ask()
    searcher.tell(parent, 1.0)
    for _ in range(3):
        searcher.ask()
    assert all(searcher.ask().choices != parent.choices for _ in range(4))
