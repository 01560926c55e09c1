"""Decisions of every kind, some of which exist only inside others, and what draws of them must be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from nas.genotype.decision import NONE, Choice, Decision


def operation(label: str, candidates: tuple[str, ...], *conditions: tuple[str, str | int]) -> Decision:
    return Decision(label, "operation", candidates, conditions=conditions)


DECISIONS = {
    decision.label: decision
    for decision in (
        Decision("n", "inputs", (0, 1, 2), keep=2, pruned=True),
        *(operation(f"e{source}", ("conv", "pool", NONE), ("n", source)) for source in range(3)),
        operation("a", ("x", "y")),
        Decision("w", "width", (4, 8), conditions=(("a", "x"),)),
        operation("shared", ("p", "q"), ("a", "x"), ("b", "y")),  # precedes `b`, which it depends on
        operation("b", ("x", "y")),
        Decision("d", "depth", (0, 1, 2)),
        operation("inside", ("s", "t"), ("d", 1), ("d", 2)),
        operation("alone", ("only",)),
    )
}
COUNTS = {"a": 2, "n": 3, "e0": 2, "w": 2, "d": 3, "inside": 2}
"""How many choices some of the decisions have: no `none` on an edge that was selected."""


def valid(choices: Mapping[str, Choice]) -> bool:
    """Whether exactly the decisions that exist have a choice, each an allowed one."""
    return all((label in choices) == decision.active(choices) for label, decision in DECISIONS.items()) and all(
        DECISIONS[label].accepts(choice) and choice != NONE for label, choice in choices.items()
    )


def require_uniform(drawn: Sequence[Mapping[str, Choice]]) -> None:
    """Assert that each choice of `COUNTS` is taken equally often, within five standard deviations."""
    for label, count in COUNTS.items():
        taken = Counter(choices[label] for choices in drawn if label in choices)
        assert len(taken) == count
        expected = taken.total() / count
        assert all(abs(times - expected) < 5 * expected**0.5 for times in taken.values())
