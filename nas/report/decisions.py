"""The decisions of a genotype with their mixing weights and margins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.report.history import Mixing, Record
from nas.run.record_kinds import EDGES


class Row(NamedTuple):
    """A decision, its choice, and the strongest other candidate; None if the mixing weights are unknown."""

    label: str
    chosen: str
    weight: float | None
    runner_up: str | None
    other: float | None
    """Mixing weight of the runner-up."""
    margin: float | None
    undecided: bool = False


def decision_rows(genotype: Genotype, mixing: Mapping[str, Mixing]) -> list[Row]:
    """Return a row for each decision with alternatives, with the last recorded mixing weights."""
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


class EdgeRow(NamedTuple):
    """An in-edge of a node, and what its strength is made up of."""

    node: str
    source: str
    kept: bool
    factor: float
    """The wrapper's factor of the in-edge."""
    weight: float
    """The largest mixing weight on it that may be chosen."""
    strength: float
    """Their product, by which in-edges are ranked."""


def edge_rows(genotype: Genotype, records: Iterable[Record]) -> list[EdgeRow]:
    """Return a row for each in-edge that competes with another by its factor, as last recorded."""
    last: Mapping[str, Mapping[str, list[float | None]]] = {}
    for record in records:
        if record["kind"] == EDGES:
            last = record["edges"]
    rows = []
    for node, sources in last.items():
        kept = genotype.choices.get(node, ())
        for source, pair in sources.items() if len(sources) > 1 else ():
            factor, weight = (math.nan if value is None else value for value in pair)
            chosen = isinstance(kept, tuple) and int(source) in kept
            rows.append(EdgeRow(node, source, chosen, factor, weight, factor * weight))
    return rows


def choice_text(choice: Choice) -> str:
    """Return a choice as text: a name, a number, or the in-edges that a node keeps."""
    return ", ".join(map(str, choice)) if isinstance(choice, tuple) else str(choice)
