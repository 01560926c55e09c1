"""Choices at random: uniform draws, changes in one decision, crossings; some decisions exist only inside others."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from random import Random

import nas
from conditional import DECISIONS, require_uniform, valid
from nas.genotype.decision import Choice
from nas.searchers.variation import Choices, Variation

VARIATION = Variation(DECISIONS)


def drawn(count: int) -> Iterator[Choices]:
    return (VARIATION.draw(Random(seed)) for seed in range(count))


def changed(before: Mapping[str, Choice], after: Mapping[str, Choice]) -> list[str]:
    """The decisions that both have, with another choice."""
    return [label for label in before if label in after and before[label] != after[label]]


def test_draws_are_valid_and_uniform() -> None:
    found = list(drawn(600))
    assert all(map(valid, found))
    require_uniform(found)


def test_a_mutation_changes_one_decision_and_draws_what_becomes_possible() -> None:
    mutated: Counter[str] = Counter()
    for seed, before in enumerate(drawn(600)):
        after = VARIATION.mutate(before, Random(seed))
        assert valid(after)
        (label,) = changed(before, after)
        if label == "n":
            assert len(set(before["n"]) & set(after["n"])) == 1  # type: ignore[arg-type]  # sources
        mutated[label] += 1
    assert set(mutated) == set(DECISIONS) - {"alone"}


def test_what_has_no_alternative_stays() -> None:
    fixed = Variation({"alone": DECISIONS["alone"]})
    assert fixed.mutate({"alone": "only"}, Random(0)) == {"alone": "only"}
    assert fixed.neighbours({"alone": "only"}, Random(0)) == []


def test_neighbours_are_all_changes_of_one_decision() -> None:
    before = next(drawn(1))
    neighbours = VARIATION.neighbours(before, Random(0))
    assert all(map(valid, neighbours))
    found = Counter(label for after in neighbours for label in changed(before, after))
    counts = {label: len(VARIATION.alternatives(label, choice)) for label, choice in before.items()}
    assert found == {label: count for label, count in counts.items() if count}
    assert counts["n"] == 2  # of three sources two are kept: either one gives way to the third


def test_neighbours_of_a_cell_of_independent_edges() -> None:
    variation = Variation(nas.find_space("nas-bench-201").describe().decisions)
    neighbours = variation.neighbours(variation.draw(Random(0)), Random(0))
    assert len({tuple(each.items()) for each in neighbours}) == 24  # 6 edges, 4 other operations each


def test_a_crossing_takes_each_decision_from_a_parent() -> None:
    sides: set[bool] = set()
    for seed, (one, other) in enumerate(itertools.pairwise(drawn(200))):
        child = VARIATION.cross(one, other, Random(seed))
        assert valid(child)
        for label in child.keys() & one.keys() & other.keys():
            assert child[label] in (one[label], other[label])
        for label in child.keys() & (one.keys() ^ other.keys()):
            assert child[label] == {**one, **other}[label]
        if one["a"] != other["a"]:
            sides.add(child["a"] == one["a"])
    assert sides == {True, False}
    assert VARIATION.cross(one, one, Random(0)) == one


def test_every_choice_of_a_decision() -> None:
    assert VARIATION.every("n") == [(0, 1), (0, 2), (1, 2)]
    assert VARIATION.every("e0") == ["conv", "pool"]  # a node that selects its in-edges takes no `none`
    assert VARIATION.every("d") == [0, 1, 2]
