"""Genotypes that are best at their cost, against every genotype of small spaces."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from enumerated import every
from nas.cost.space_cost import costs
from nas.derive.tradeoffs import TINY, best_at_each_cost
from nas.errors import DivergedError
from nas.genotype.decision import NONE, Choice, Decision, Share
from nas.genotype.file import Genotype
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace

OPERATIONS = ("conv", "pool", NONE)


def node(name: str, count: int, keep: int | None) -> list[Decision]:
    edges = [Decision(f"{name}<-{s}", "operation", OPERATIONS, conditions=((name, s),)) for s in range(count)]
    return [Decision(name, "inputs", tuple(range(count)), keep or count, keep is not None), *edges]


SPACES: dict[str, list[Decision]] = {
    "independent": [Decision(label, "operation", OPERATIONS) for label in "abcd"],
    "in-edges": [*node("n", 3, 2), *node("m", 2, 1), *node("all", 2, None)],
    "nested": [
        Decision("outer", "operation", ("x", "y", "z")),
        Decision("in/1", "operation", OPERATIONS, conditions=(("outer", "x"),)),
        Decision("in/2", "operation", OPERATIONS, conditions=(("outer", "x"), ("outer", "y"))),
        Decision("in/3", "operation", OPERATIONS, conditions=(("in/1", "conv"),)),
        Decision("depth", "depth", (1, 2)),
        Decision("block", "operation", OPERATIONS, conditions=(("depth", 2),)),
    ],
    "coupled": [
        *(Decision(label, "width", (2, 4, 8)) for label in ("a", "b", "c")),
        Decision("p", "operation", ("x", "y")),
        Decision("q", "operation", ("x", "y")),
        Decision("both", "operation", OPERATIONS, conditions=(("p", "x"), ("q", "y"))),
    ],
}
PAIRS = [("a", "b"), ("b", "c"), ("both", "c"), ("n<-0", "n<-2"), ("in/3", "block"), ("m", "n"), ("p", "q")]
"""Decisions that change the cost together."""


def drawn(listed: Sequence[Decision], seed: int) -> tuple[dict[str, Tensor], list[Share]]:
    """Weights, some of them 0, and costs, some of them negative, of single decisions and of pairs."""
    draw = random.Random(seed)
    weights = {
        d.label: torch.tensor([draw.choice([0.0, 0.1, draw.random()]) for _ in d.candidates])
        for d in listed
        if d.kind != "inputs" or d.label == "n"  # the factors of in-edges
    }
    labels = {decision.label for decision in listed}
    scopes = [(), *((label,) for label in sorted(labels)), *(pair for pair in PAIRS if labels.issuperset(pair))]

    def share(scope: tuple[str, ...]) -> Share:
        def of(choices: Mapping[str, Choice]) -> float:
            known = [choices[label] for label in scope if label in choices]
            return random.Random(f"{seed}/{scope}/{known}").randint(-9, 30) if len(known) == len(scope) else 0.0

        return Share(scope, of)

    return weights, [share(scope) for scope in scopes]


def score(decisions: Mapping[str, Decision], weights: Mapping[str, Tensor], choices: Mapping[str, Choice]) -> float:
    return sum(
        math.log(max(weights[label][[*decisions[label].candidates].index(each)].item(), TINY))
        for label, chosen in choices.items()
        if label in weights
        for each in (chosen if isinstance(chosen, tuple) else (chosen,))
    )


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_they_are_the_best_of_all_genotypes_at_every_budget(name: str, seed: int) -> None:
    decisions = {decision.label: decision for decision in SPACES[name]}
    weights, shares = drawn(SPACES[name], seed)
    known = [(sum(s.of(c) for s in shares), score(decisions, weights, c), c) for c in every(decisions)]
    found = best_at_each_cost(decisions, weights, shares)
    assert [cost for _, _, cost in found] == sorted({cost for _, _, cost in found})
    assert [worth for _, worth, _ in found] == sorted({worth for _, worth, _ in found})
    for choices, worth, cost in found:
        assert (cost, pytest.approx(worth, abs=1e-9), choices) in known
    for most in sorted({cost for cost, _, _ in known}):
        best = max(worth for cost, worth, _ in known if cost <= most)
        assert max(worth for _, worth, cost in found if cost <= most) == pytest.approx(best, abs=1e-9)
    for most in sorted({cost for cost, _, _ in known})[:: max(1, len(known) // 4)]:
        assert best_at_each_cost(decisions, weights, shares, most) == [each for each in found if each.cost <= most]
    assert best_at_each_cost(decisions, weights, shares, min(cost for cost, _, _ in known) - 1) == []
    assert [each.cost for each in best_at_each_cost(decisions, {}, shares)] == [min(cost for cost, _, _ in known)]


def test_the_costs_are_those_of_derived_networks() -> None:
    """Widths in a row, one of them inside a candidate; one label at several places; blocks of a depth."""

    def network(choose: Chooser, /) -> nn.Module:
        def plain() -> nn.Module:
            a, b = choose.width("a", (2, 4)), choose.width("b", (3, 5))
            return nn.Sequential(nn.Conv2d(4, a.channels, 3), a, nn.Conv2d(a.channels, b.channels, 1), b,
                                 nn.Conv2d(b.channels, 4, 1), choose("op", operations))  # fmt: skip

        operations = {"conv": lambda: nn.Conv2d(4, 4, 3), "skip": nn.Identity}
        outer = choose("outer", {"deep": plain, "none": nn.Identity})
        return nn.Sequential(outer, choose.depth("depth", (1, 3), lambda i: choose("op", operations)))

    space = SearchSpace("test_tradeoffs", network)
    decisions = space.describe().decisions
    generator = torch.Generator().manual_seed(0)
    weights = {label: torch.rand(len(d.candidates), generator=generator) for label, d in decisions.items()}
    known = []
    for choices in every(decisions):
        derived = space.derived(Genotype(space=space.name, choices=choices))
        known.append((sum(p.numel() for p in derived.parameters()), score(decisions, weights, choices)))
    shares = costs(space.describe()).shares
    for most in {cost for cost, _ in known}:
        last = best_at_each_cost(decisions, weights, shares, most)[-1]
        assert last.score == pytest.approx(max(worth for cost, worth in known if cost <= most))
        derived = space.derived(Genotype(space=space.name, choices=last.choices))
        assert sum(p.numel() for p in derived.parameters()) == last.cost <= most


def test_many_sums_are_taken_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, shares = drawn(SPACES["in-edges"], 1)
    decisions = {decision.label: decision for decision in SPACES["in-edges"]}
    whole = best_at_each_cost(decisions, weights, shares)
    monkeypatch.setattr("nas.derive.tradeoffs.PAIRS", 2)
    assert best_at_each_cost(decisions, weights, shares) == whole


def test_weights_must_be_finite() -> None:
    with pytest.raises(DivergedError, match="'a' must be finite"):
        best_at_each_cost({"a": Decision("a", "operation", ("x", "y"))}, {"a": torch.tensor([0.5, math.nan])}, [])
