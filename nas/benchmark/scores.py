"""How well scores of untrained networks rank the networks of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.benchmark.batches import Batch
from nas.benchmark.rankings import Correlation, correlate
from nas.benchmark.table import Table
from nas.cost.network_cost import Unit
from nas.cost.space_cost import Cost, costs
from nas.errors import ConfigError
from nas.genotype.file import Genotype
from nas.registry import kind
from nas.searchers.score import RESOURCES, Entry, find_score, judged, needs

TRAINED = ("retrained", "shared")
"""What scores receive that need a training."""
SIZES = ("genotype", "cost")
"""What scores receive that need no network; they are computed for every network of a table."""

Values = MutableMapping[tuple[str, int], float]
"""Scores by name and row."""


class ScoreResult(NamedTuple):
    """A score beside a column of a table."""

    score: str
    batch: str | None
    """The label of the inputs that the score received; None if it needs none."""
    rows: NDArray[np.int64]
    """The rows of the networks that were scored."""
    correlation: Correlation


def usual_scores() -> list[str]:
    """Return the registered scores that need no training."""
    return [
        name
        for name, made in kind("score").working()
        if callable(made) and not any(needs(made, each) for each in TRAINED)
    ]


def sampled(table: Table, count: int) -> NDArray[np.int64]:
    """Return the rows of a fixed random sample, in order; a larger sample contains a smaller one.

    Raises:
        ConfigError: the sample is smaller than 2.
    """
    if count < 2:
        raise ConfigError(f"a sample must have at least 2 networks, got {count}")
    return np.sort(np.random.default_rng(0).permutation(len(table))[:count])


def correlate_scores(
    table: Table,
    column: str,
    scores: Mapping[str, Entry],
    batch: Batch,
    *,
    sample: int = 1000,
    known: Values | None = None,
    begin: Callable[[int, int], None] = lambda done, total: None,
    update: Callable[[int, str], None] = lambda done, score: None,
) -> list[ScoreResult]:
    """Compute scores of networks of a table, and their rank correlations with a column.

    A score that needs only the genotype or its cost is computed for every network, any other one for a sample.

    Args:
        table: the table.
        column: the results.
        scores: names, or mappings of `name` and arguments, by the name to show.
        batch: the inputs of the networks.
        sample: the number of networks in the sample; all if the table has no more.
        known: scores of before, which are not computed again; receives all others.
        begin: called with the number of known scores and that of all.
        update: called with the number of scores and the name of the last one.

    Raises:
        UnknownNameError: a score or the column does not exist.
        ConfigError: a score is not finite or needs what is not at hand, or the sample is too small.
    """
    known = {} if known is None else known
    results, some = table.column(column), sampled(table, sample)
    plans = {name: _plan(table, name, entry, batch, some) for name, entry in scores.items()}
    done = sum((name, row) in known for name, plan in plans.items() for row in plan.rows.tolist())
    begin(done, sum(len(plan.rows) for plan in plans.values()))
    found = []
    for name, (label, rows, score) in plans.items():
        for row in rows.tolist():
            if (name, row) not in known:
                known[name, row] = score(row)
                done += 1
                update(done, name)
        values = [known[name, row] for row in rows.tolist()]
        found.append(ScoreResult(name, label, rows, correlate(values, results[rows])))
    return found


class _Plan(NamedTuple):
    batch: str | None
    rows: NDArray[np.int64]
    score: Callable[[int], float]


def _plan(table: Table, name: str, entry: Entry, batch: Batch, some: NDArray[np.int64]) -> _Plan:
    """What a score receives, and for which rows it is computed."""
    score = find_score(entry)
    received = [each for each in RESOURCES if needs(score, each)]
    options = {**table.description.options, **batch.options}

    def genotype(row: int) -> Genotype:
        return Genotype(space=table.space, choices=table.enumeration.choices(row), options=options)

    if not set(received) <= set(SIZES):
        label = batch.label if {"inputs", "loss", *TRAINED} & set(received) else None
        return _Plan(label, some, lambda row: batch.score(entry, genotype(row)))

    priced: dict[Unit, Cost] = {}

    def cost(row: int, unit: Unit) -> float:
        if unit not in priced:
            description = table.description.space.describe(**options)
            priced[unit] = costs(description, unit, batch.example() if unit == "flops" else None)
        return priced[unit].of(table.enumeration.choices(row))

    def sized(row: int) -> float:
        made = genotype(row)
        return judged(score, name, made, {"genotype": lambda: made, "cost": lambda: lambda unit: cost(row, unit)})

    return _Plan(None, np.arange(len(table)), sized)
