"""Searches on a table, with many seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.benchmark.intervals import Interval, t_interval
from nas.benchmark.table import Table, Target
from nas.errors import ConfigError
from nas.registry import kind
from nas.searchers.searcher import Searcher, searcher_of

Entry = str | Mapping[str, Any]
"""A searcher: its name, or a mapping of `name` and arguments."""

SLOW = ("optuna",)
"""Searchers that a benchmark includes only if they are named: their samplers take a hundred times as long as others."""


class Curve(NamedTuple):
    """What a searcher achieves over the number of evaluations; each interval has the shape `(evaluations,)`."""

    result: Interval
    """The judged result of the network that the searcher would return: the best by the column that it sees."""
    regret: Interval
    """How much better the best network of the table is."""
    optimal: NDArray[np.float64]
    """The share of seeds that would return the best network."""


class Comparison(NamedTuple):
    """Searchers on a table."""

    table: str
    target: Target
    seeds: int
    evaluations: int
    best: float
    """The best judged result of the table."""
    networks: int
    curves: dict[str, Curve]
    """By searcher."""


def compare(
    name: str,
    table: Table,
    target: Target,
    searchers: Mapping[str, Entry],
    *,
    seeds: int = 500,
    evaluations: int = 200,
    update: Callable[[int, str], None] = lambda done, searcher: None,
) -> Comparison:
    """Search a table by several searchers, each with the same seeds, 0, 1, ...

    A searcher is told the seen column of each network that it proposes. A network that is proposed twice counts twice.

    Args:
        name: of the table, for titles.
        table: the table.
        target: the columns.
        searchers: the searchers by the names to show.
        seeds: how often each searcher searches.
        evaluations: of one search.
        update: called with the number of finished searches and the searcher.

    Raises:
        ConfigError: there is nothing to do, or a searcher does not exist or has wrong arguments.
        UnknownNameError: the table lacks a column.
    """
    for what, count in (("searchers", len(searchers)), ("seeds", seeds), ("evaluations", evaluations)):
        if count < 1:
            raise ConfigError(f"{what} must be at least 1, got {count}")
    seen, judged = table.column(target.seen), table.column(target.judged)
    for entry in searchers.values():
        searcher_of(entry, table.description)  # all errors before the first search
    curves: dict[str, Curve] = {}
    for place, (shown, entry) in enumerate(searchers.items()):
        rows = np.empty((seeds, evaluations), np.int64)
        for seed in range(seeds):
            rows[seed] = _searched(searcher_of(entry, table.description, seed=seed), table, seen, evaluations)
            update(place * seeds + seed + 1, shown)
        results = judged[incumbents(rows, seen)]
        regret, best = judged.max() - results, results == judged.max()
        curves[shown] = Curve(t_interval(results), t_interval(regret), best.mean(axis=0))
    return Comparison(name, target, seeds, evaluations, float(judged.max()), len(table), curves)


def incumbents(rows: ArrayLike, seen: ArrayLike) -> NDArray[np.int64]:
    """Return the best of the rows so far, by what is seen; of equal ones the first.

    Args:
        rows: the rows in the order of evaluation, `(seeds, evaluations)`.
        seen: what is seen of every row of the table, `(networks,)`.
    """
    order, values = np.asarray(rows), np.asarray(seen)[np.asarray(rows)]
    before = np.full_like(values, -np.inf)
    before[:, 1:] = np.maximum.accumulate(values, axis=1)[:, :-1]
    places = np.where(values > before, np.arange(values.shape[1]), 0)
    return np.take_along_axis(order, np.maximum.accumulate(places, axis=1), axis=1)


def usual_searchers() -> list[str]:
    """Return the searchers that learn from scores of single networks, as a table has them, without slow ones."""
    return [
        name
        for name, made in kind("searcher").working()
        if name not in SLOW and getattr(made, "default_score", Searcher.default_score) == Searcher.default_score
    ]


def _searched(searcher: Searcher, table: Table, seen: Sequence[float] | NDArray[np.float64], count: int) -> list[int]:
    """The rows that a searcher proposes."""
    rows = []
    for _ in range(count):
        genotype = searcher.ask()
        row = table.row(genotype.choices)
        searcher.tell(genotype, float(seen[row]))
        rows.append(row)
    return rows
