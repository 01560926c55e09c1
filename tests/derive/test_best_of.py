"""The policy `best_of`: how genotypes are drawn, and which one is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from nas.derive.best_of import choose_best_of
from nas.genotype.decision import NONE, Choice, Decision

DECISIONS = {
    decision.label: decision
    for decision in (
        Decision("n", "inputs", (0, 1, 2), 1, True),
        *(Decision(f"e{source}", "operation", ("x", "y", NONE), conditions=(("n", source),)) for source in range(3)),
        Decision("a", "operation", ("x", "y")),
        Decision("w", "width", (4, 8), conditions=(("a", "x"),)),
    )
}
WEIGHTS = {
    **{f"e{i}": torch.tensor(values) for i, values in enumerate([[0.2, 0.1, 0.7], [0.5, 0.1, 0.4], [0.1, 0.3, 0.6]])},
    "a": torch.tensor([0.9, 0.1]),
    "w": torch.tensor([0.0, 1.0]),
}


def test_genotypes_are_drawn_by_the_mixing_weights() -> None:
    """The in-edges have the strengths .2, .5 and .3; `none` is drawn on none of them; a weight of 0 never."""
    counts: Counter[Any] = Counter()
    for seed in range(600):
        generator = torch.Generator().manual_seed(seed)
        found = choose_best_of(DECISIONS, WEIGHTS, lambda choices: 0.0, generator, samples=1)
        counts.update(found.items())
        assert ("w" in found) == (found["a"] == "x")
    chances = {("n", (0,)): 0.2, ("n", (1,)): 0.5, ("n", (2,)): 0.3, ("a", "x"): 0.9, ("a", "y"): 0.1}
    chances |= {("e1", "x"): 0.5 * 5 / 6, ("e2", "y"): 0.3 * 3 / 4, ("w", 8): 0.9}
    for pair, chance in chances.items():
        assert abs(counts[pair] - 600 * chance) < 5 * (600 * chance * (1 - chance)) ** 0.5, pair
    assert all(choice not in (NONE, 4) for _, choice in counts)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_best_score_is_taken_and_nothing_is_scored_twice(sign: int) -> None:
    scored: dict[str, float] = {}

    def score(choices: Mapping[str, Choice]) -> float:
        assert str(choices) not in scored
        scored[str(choices)] = sign * len(scored)
        return scored[str(choices)]

    found = choose_best_of(DECISIONS, WEIGHTS, score, torch.Generator().manual_seed(0), samples=40)
    assert 1 < len(scored) <= 12 < 40
    assert scored[str(found)] == max(scored.values())


def test_twenty_genotypes_are_drawn_by_default() -> None:
    decisions = {str(i): Decision(str(i), "operation", tuple("abcd")) for i in range(20)}
    weights = {label: torch.ones(4) / 4 for label in decisions}
    scored: list[Mapping[str, Choice]] = []

    def score(choices: Mapping[str, Choice]) -> float:
        scored.append(choices)
        return 0.0

    choose_best_of(decisions, weights, score, torch.Generator().manual_seed(0))
    assert len(scored) == 20
