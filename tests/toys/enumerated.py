"""Every genotype of a small space."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from nas.genotype.decision import NONE, Choice, Decision


def every(decisions: Mapping[str, Decision], choices: dict[str, Choice] | None = None) -> Iterator[dict[str, Choice]]:
    """Every genotype that may be derived: decision by decision, those that exist."""
    choices = choices or {}
    label = next((label for label, d in decisions.items() if label not in choices and d.active(choices)), None)
    if label is None:
        yield choices
        return
    decision = decisions[label]
    options: Any = decision.candidates
    if decision.kind == "inputs":
        options = itertools.combinations(decision.candidates, decision.keep)
    pruned = any(decisions[parent].pruned for parent, _ in decision.conditions)
    for option in options:
        if not (option == NONE and pruned):
            yield from every(decisions, {**choices, label: option})
