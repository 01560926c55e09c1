"""Decisions of a search space: what can be chosen, under which conditions a decision exists, and what a choice is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Choice = str | int | tuple[int, ...]
"""What one decision took: the name of a candidate, a width or depth, or the sources of a node's in-edges."""

Kind = Literal["operation", "inputs", "width", "depth"]
Condition = tuple[str, str | int]
"""A label, and the candidate that its decision must have taken."""

NONE = "none"
"""The name of the candidate that connects nothing; a node that selects its in-edges never derives it."""


@dataclass(frozen=True)
class Decision:
    """One decision of a search space.

    Args:
        label: unique in the space.
        kind: `operation`, `inputs` (the in-edges of a node), `width` or `depth`.
        candidates: names (`operation`), numbers of sources (`inputs`), channels (`width`) or blocks (`depth`).
        keep: the number of sources that an `inputs` decision takes.
        pruned: whether the space asked for that number; then no edge that stays derives `none`, even if all stay.
        conditions: pairs of label and candidate; the decision exists only if one of them is chosen, or if there are
            none.
    """

    label: str
    kind: Kind
    candidates: tuple[str, ...] | tuple[int, ...]
    keep: int = 1
    pruned: bool = False
    conditions: tuple[Condition, ...] = ()

    def accepts(self, choice: Choice) -> bool:
        """Whether this decision can take `choice`."""
        if self.kind == "inputs":
            return (
                isinstance(choice, tuple)
                and len(set(choice)) == len(choice) == self.keep
                and set(choice) <= set(self.candidates)
            )
        return not isinstance(choice, tuple) and choice in self.candidates

    @property
    def expected(self) -> str:
        """What `accepts` accepts, in words."""
        names = ", ".join(map(str, self.candidates))
        if self.kind == "inputs":
            return f"{self.keep} of the sources {names}"
        return names if self.kind == "operation" else f"a {self.kind} of {names}"

    def active(self, choices: Mapping[str, Choice]) -> bool:
        """Whether the decision exists in a network with these choices."""
        return not self.conditions or any(
            label in choices and (candidate in c if isinstance(c := choices[label], tuple) else candidate == c)
            for label, candidate in self.conditions
        )


class Share(NamedTuple):
    """A part of a sum over a network, such as its cost, that depends on a few decisions."""

    labels: tuple[str, ...]
    """Of these decisions; without any, the share is that of every network."""
    of: Callable[[Mapping[str, Choice]], float]
    """The share, given the choices of these decisions; 0 if one that it needs is absent."""


def requirements(label: str, decisions: Mapping[str, Decision]) -> tuple[Condition, ...]:
    """Return the conditions of a decision in their shortest form; empty if the decision always exists.

    Conditions that name every outcome of another decision are replaced by the conditions of that decision.
    """
    found = dict.fromkeys(decisions[label].conditions)
    while found:
        named: dict[str, set[str | int]] = {}
        for parent, candidate in found:
            named.setdefault(parent, set()).add(candidate)
        sure = next(
            (p for p, names in named.items() if len({*decisions[p].candidates} - names) < decisions[p].keep), None
        )
        if sure is None:
            break
        if not decisions[sure].conditions:
            return ()
        found = dict.fromkeys([*(each for each in found if each[0] != sure), *decisions[sure].conditions])
    return tuple(found)
