"""How clearly each decision of a genotype was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nas.genotype import Choice, Genotype
from nas.report.history import Mixing


class Row(NamedTuple):
    """A decision, what it took, and the strongest of the others; None where no mixing weights are known."""

    label: str
    chosen: str
    weight: float | None
    runner_up: str | None
    other: float | None
    """The mixing weight of the runner-up."""
    margin: float | None
    undecided: bool = False


def decisions(genotype: Genotype, mixing: Mapping[str, Mixing]) -> list[Row]:
    """A row for each decision of the genotype with an alternative, its mixing weights being the last ones recorded."""
    margins = genotype.provenance.margins if genotype.provenance else {}
    undecided = genotype.provenance.undecided if genotype.provenance else ()
    rows = []
    for label, choice in genotype.contested().items():
        chosen = choice_text(choice)
        weights = dict(zip(mixing[label].candidates, mixing[label].weights[-1], strict=True)) if label in mixing else {}
        others = {name: weight for name, weight in weights.items() if name != chosen}
        second = max(others, key=others.__getitem__, default=None)
        other = None if second is None else others[second]
        rows.append(Row(label, chosen, weights.get(chosen), second, other, margins.get(label), label in undecided))
    return rows


def choice_text(choice: Choice) -> str:
    """A choice in words: a name or number, or the in-edges that a node keeps."""
    return ", ".join(map(str, choice)) if isinstance(choice, tuple) else str(choice)
