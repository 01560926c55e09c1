"""The genotypes of a search space, numbered, and written as short keys."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from nas.errors import SpaceError
from nas.genotype.decision import Choice, Decision
from nas.searchers.searcher import shown
from nas.searchers.variation import Variation

ABSENT = "-"
"""The part of a key for a decision that a genotype does not have."""

Options = Mapping[str, tuple[Choice, ...]]
"""What each decision can take, by label."""


class Enumeration:
    """The genotypes of a search space, numbered from 0 in the order of decisions and candidates.

    A key names a genotype. It has a part for each decision with an alternative, in order, joined by `:`: the name of
    the candidate, or the position of an operation from 0. If each part has one character, the `:` may be left out:
    `012340`. The in-edges of a node are joined by `.`, and an absent decision is `-`.

    Args:
        decisions: the decisions of the space, by label.
        limit: the number of genotypes to enumerate, at most.
    """

    def __init__(self, decisions: Mapping[str, Decision], limit: int) -> None:
        variation = Variation(decisions)
        options = {label: tuple(variation.every(label)) for label in decisions}
        found = list(itertools.islice(_enumerated(decisions, options, {}), limit + 1))
        self.complete = len(found) <= limit
        """Whether the space has no more genotypes than the limit."""
        self._choices = found[:limit]
        self._varied = [label for label in decisions if len(options[label]) > 1]
        self._rows = {tuple(map(each.get, self._varied)): row for row, each in enumerate(self._choices)}
        self._parts = [_parts(decisions[label], options[label]) for label in self._varied]

    def __len__(self) -> int:
        return len(self._choices)

    def row(self, choices: Mapping[str, Choice]) -> int:
        """Return the number of the genotype with these choices.

        Raises:
            SpaceError: there is no such genotype.
        """
        row = self._rows.get(tuple(map(choices.get, self._varied)))
        if row is None:
            raise SpaceError(f"the genotype must be one of the {len(self):,} of the table, got {shown(choices)}")
        return row

    def choices(self, row: int) -> dict[str, Choice]:
        """Return the choices of the genotype of a number."""
        return dict(self._choices[row])

    def key(self, row: int) -> str:
        """Return the key of the genotype of a number."""
        choices = self._choices[row]
        return ":".join(_text(choices[label]) if label in choices else ABSENT for label in self._varied)

    def row_of_key(self, key: str) -> int:
        """Return the number of the genotype of a key.

        Raises:
            SpaceError: the key names no genotype.
        """
        parts: Sequence[str] = key.split(":")
        if len(parts) == 1 and len(key) == len(self._varied):
            parts = key
        if len(parts) != len(self._varied):
            raise SpaceError(f"network '{key}' must have {len(self._varied)} parts, as {self.key(0)}, got {len(parts)}")
        taken: dict[str, Choice] = {}
        for label, known, part in zip(self._varied, self._parts, parts, strict=True):
            if part != ABSENT:
                if part not in known:
                    expected = ", ".join(dict.fromkeys(map(_text, known.values())))
                    raise SpaceError(f"network '{key}': '{label}' must be one of {expected}, got '{part}'")
                taken[label] = known[part]
        row = self._rows.get(tuple(map(taken.get, self._varied)))
        if row is None:
            raise SpaceError(f"network '{key}' must be one of the {len(self):,} of the table")
        return row


def _enumerated(
    decisions: Mapping[str, Decision], options: Options, choices: dict[str, Choice]
) -> Iterator[dict[str, Choice]]:
    """Every way to complete `choices`."""
    label = next((label for label, each in decisions.items() if label not in choices and each.active(choices)), None)
    if label is None:
        yield choices
        return
    for option in options[label]:
        yield from _enumerated(decisions, options, {**choices, label: option})


def _parts(decision: Decision, options: Sequence[Choice]) -> dict[str, Choice]:
    """What the part of a key for a decision may be; names go before positions."""
    named = {_text(option): option for option in options}
    if decision.kind != "operation":
        return named
    return {**{str(decision.candidates.index(option)): option for option in options}, **named}


def _text(choice: Choice) -> str:
    return ".".join(map(str, choice)) if isinstance(choice, tuple) else str(choice)
