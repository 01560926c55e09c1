"""Regularized evolution beside a second, plain implementation, on a toy objective."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest

import nas
from nas.genotype.decision import Choice
from nas.searchers.evolution import Evolution
from nas.searchers.searcher import searcher_of

SPACE = nas.find_space("nas-bench-201").describe()
EDGES = [label for label, decision in SPACE.decisions.items() if decision.kind == "operation"]
WORTH = {"none": 0.0, "skip_connect": 0.5, "nor_conv_1x1": 0.7, "nor_conv_3x3": 1.0, "avg_pool_3x3": 0.2}


def objective(choices: dict[str, Choice]) -> float:
    worths = [WORTH[str(choices[label])] for label in EDGES]
    return sum(worths) - worths[0] * worths[-1]


def by_the_paper(population: int, sample: int, randoms: Iterator[Random]) -> Iterator[dict[str, Choice]]:
    """Algorithm 1 of Real et al. (2019), on the edges alone; the draws are in the same order."""
    alive: deque[tuple[dict[str, Choice], float]] = deque()
    for number, random in enumerate(randoms):
        if number < population:
            edges: dict[str, Choice] = {label: random.choice(SPACE.decisions[label].candidates) for label in EDGES}
        else:
            edges = dict(max(random.choices(alive, k=sample), key=lambda each: each[1])[0])
            label = random.choice(EDGES)
            edges[label] = random.choice([c for c in SPACE.decisions[label].candidates if c != edges[label]])
        alive.append((edges, objective(edges)))
        if len(alive) > population:
            alive.popleft()
        yield edges


def test_the_course_is_that_of_the_paper() -> None:
    searcher = Evolution(SPACE, population=7, sample=3, seed=5)
    found = []
    for _ in range(120):
        genotype = searcher.ask()
        searcher.tell(genotype, objective(genotype.choices))
        found.append({label: genotype.choices[label] for label in EDGES})
    randoms = (Random((5 << 32) | number) for number in range(120))
    assert found == list(by_the_paper(7, 3, randoms))
    assert max(map(objective, found[60:])) > max(map(objective, found[:7]))


def test_a_sample_of_one_is_no_selection() -> None:
    """Without competition the population drifts; with it the mean rises."""
    means = []
    for sample in (1, 10):
        searcher = searcher_of({"name": "evolution", "population": 20, "sample": sample}, SPACE, seed=0)
        scores = []
        for genotype in islice(iter(searcher.ask, None), 300):
            scores.append(objective(genotype.choices))
            searcher.tell(genotype, scores[-1])
        means.append(sum(scores[-100:]) / 100)
    assert means[1] > means[0] + 1


@pytest.mark.parametrize("setting", ["population", "sample"])
def test_settings_of_at_least_one(setting: str) -> None:
    with pytest.raises(nas.NASError, match=f"{setting} must be at least 1, got 0"):
        searcher_of({"name": "evolution", setting: 0}, SPACE, where="search.searcher")
