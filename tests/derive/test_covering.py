"""Choices that together take every candidate, on decisions nested at random."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nas.derive.covering import choose_every_candidate
from nas.genotype.decision import NONE, Decision


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_every_candidate_is_taken(number: int) -> None:
    """A label may lie inside several candidates."""
    draw = random.Random(number)
    decisions: dict[str, Decision] = {}
    for i in range(draw.randint(1, 6)):
        parents = draw.sample(sorted(decisions), min(len(decisions), draw.randint(0, 2)))
        conditions = tuple((p, draw.choice(decisions[p].candidates)) for p in parents if decisions[p].kind != "width")
        kind: Any = draw.choice(["operation", "operation", "inputs", "width", "depth"])
        candidates: Any = tuple("abc"[: draw.randint(1, 3)]) if kind == "operation" else (3, 1, 2)
        decisions[f"d{i}"] = Decision(
            f"d{i}", kind, candidates, keep=2 if kind == "inputs" else 1, conditions=conditions
        )
    found = list(choose_every_candidate(decisions))
    taken: dict[str, set[Any]] = {label: set() for label in decisions}
    for choices in found:
        for label, decision in decisions.items():
            assert (label in choices) == decision.active(choices)
            if label in choices:
                assert decision.accepts(choices[label])
                taken[label].update(choices[label] if isinstance(choices[label], tuple) else [choices[label]])
    assert len(found) <= sum(len(decision.candidates) for decision in decisions.values())
    for label, decision in decisions.items():
        reachable = any(label in each for each in every(decisions))
        expected = {"width": {1}, "depth": {3}}.get(decision.kind, set(decision.candidates))
        assert taken[label] == (expected if reachable else set()), label


def every(decisions: dict[str, Decision]) -> Iterator[dict[str, Any]]:
    """All choices by brute force; widths and depths are fixed."""
    options = []
    for decision in decisions.values():
        fixed = {"width": [1], "depth": [3], "inputs": [*itertools.combinations((1, 2, 3), 2)]}
        options.append(fixed.get(decision.kind, list(decision.candidates)))
    for chosen in itertools.product(*options):
        whole = dict(zip(decisions, chosen, strict=True))
        choices: dict[str, Any] = {}
        for label, decision in decisions.items():  # a parent stands before what is inside it
            if decision.active(choices):
                choices[label] = whole[label]
        yield choices


def test_the_choices_are_few_and_never_none_where_pruned() -> None:
    names = (NONE, "a", "b", "c")
    nodes = Decision("n/2", "inputs", (0, 1), keep=1, pruned=True)
    edges = [Decision(f"n/2<-{i}", "operation", names, conditions=(("n/2", i),)) for i in (0, 1)]
    found = list(choose_every_candidate({d.label: d for d in (nodes, *edges, Decision("free", "operation", names))}))
    assert len(found) == 6  # three operations on each of two edges
    assert {choices["free"] for choices in found} == set(names)
    assert all(NONE not in (choices.get("n/2<-0"), choices.get("n/2<-1")) for choices in found)


def test_a_candidate_with_more_left_inside_comes_first() -> None:
    free, outer = Decision("free", "operation", tuple("pqrs")), Decision("outer", "operation", ("a", "b"))
    inner = Decision("inner", "operation", ("x", "y", "z"), conditions=(("outer", "b"),))
    found = list(choose_every_candidate({d.label: d for d in (free, outer, inner)}))
    assert len(found) == 4, "as many as `free` has: one with a, three with b"
