"""The evaluations of a search by a searcher: the best score over the evaluations, and the best genotypes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from nas.report.decisions import choice_text
from nas.report.history import Series
from nas.report.plot import Plot, make_plot
from nas.report.recorded import Recorded
from nas.run.proposals import EVALUATION

SHOWN = 10
"""Genotypes listed, at most."""


class Proposals(NamedTuple):
    """The scores of all proposals, and a table of the best different ones."""

    plot: Plot
    columns: list[str]
    rows: list[list[Any]]
    total: int
    different: int
    """The number of different genotypes."""
    failed: int
    """The number of proposals whose training diverged."""


def proposals(run: Recorded) -> Proposals | None:
    """Return the evaluations of a search by a searcher, or None if there are none."""
    records = [record for record in run.records if record["kind"] == EVALUATION]
    if not records:
        return None
    steps = [record["step"] for record in records]
    scores = Series(steps, [math.nan if record["score"] is None else record["score"] for record in records])
    best = Series(steps, [record["best"] for record in records])
    plot = make_plot("best score", {"best so far": best, "each": scores}, bold="best so far")
    first: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["score"] is not None:
            first.setdefault(repr(record["choices"]), record)
    shown = sorted(first.values(), key=lambda record: -record["score"])[:SHOWN]
    varied = [
        label
        for label in dict.fromkeys(label for record in records for label in record["choices"])
        if len({repr(record["choices"].get(label)) for record in records}) > 1
    ]
    rows = [
        [record["step"], record["score"], *(_text(record["choices"].get(label)) for label in varied)]
        for record in shown
    ]
    failed = sum(record["score"] is None for record in records)
    return Proposals(plot, ["evaluation", "score", *varied], rows, len(records), len(first), failed)


def _text(choice: Any) -> str:
    return "–" if choice is None else choice_text(tuple(choice) if isinstance(choice, list) else choice)
