"""Plots of what a run recorded: the loss and the gradient of each level, its terms, evaluations, and indicators."""

from __future__ import annotations

from typing import Any, NamedTuple

from nas.observe import INDICATORS, MAJORITY, OPEN, SKIPS, VALIDATION, advice, best_epoch
from nas.report import history
from nas.report.history import Series, running_mean
from nas.report.plot import Plot, plot
from nas.report.recorded import Recorded


class Level(NamedTuple):
    """What a level, or a stage of a retraining, recorded."""

    name: str
    plots: list[Plot]
    steps: int
    first: float
    last: float
    least: float
    at: int
    """The steps it took; the first, the last and the least loss, and the step of that."""


class Table(NamedTuple):
    """Evaluations: columns and rows, the last ones; what they are of; and how many there are in all."""

    columns: list[str]
    rows: list[list[Any]]
    statements: list[str]
    total: int
    part_columns: list[str]
    parts: list[list[Any]]
    """The last one, part by part of its data."""


class Indicators(NamedTuple):
    """The collapse indicators over the epochs, and what they advise."""

    plots: list[Plot]
    advice: list[str]
    best: int | None
    """The step of the best validation score."""
    cells: bool
    """Whether the space has cells that could collapse into skip connections."""
    sharp: bool
    """Whether eigenvalues are recorded."""


SHOWN = 20
"""The most evaluations listed."""


def levels(run: Recorded) -> list[Level]:
    """A level for each one that recorded losses, from the lowest to the highest."""
    everything = history.scalars(run.records, "train")
    order = list(run.config.search.levels) if run.config else []
    found = []
    for name, loss in sorted(run.losses.items(), key=lambda item: order.index(item[0]) if item[0] in order else 0):
        own = {key.removeprefix(f"{name}/"): series for key, series in everything.items() if key.startswith(f"{name}/")}
        plots = [
            plot(title, {title: running_mean(series)}, faint={title: series})
            for title, series in own.items()
            if any(value == value for value in series.values)
        ]
        least = loss.least
        found.append(
            Level(name, plots, len(loss.steps), loss.values[0], loss.values[-1], loss.values[least], loss.steps[least])
        )
    return found


def evaluations(run: Recorded) -> Table | None:
    """The evaluations as a table; None where there are none."""
    records = run.evaluations
    if not records:
        return None
    names = dict.fromkeys(name for record in records for name in record)
    columns = [name for name in names if name not in ("kind", "statement", "parts")]
    rows = [[record.get(name) for name in columns] for record in records[-SHOWN:]]
    statements = dict.fromkeys(str(record["statement"]) for record in records if record.get("statement"))
    parts = records[-1].get("parts") or {}
    part_columns = ["", *dict.fromkeys(name for part in parts.values() for name in part)]
    part_rows = [[name, *(part.get(column) for column in part_columns[1:])] for name, part in parts.items()]
    return Table(columns, rows, list(statements), len(records), part_columns, part_rows)


def indicators(run: Recorded) -> Indicators | None:
    """The collapse indicators of a search; None where none are recorded."""
    series = history.scalars(run.records, INDICATORS)
    if not series:
        return None
    cells = {name.removeprefix(SKIPS): each for name, each in series.items() if name.startswith(SKIPS)}
    margins: dict[str, Series] = {}
    for name, title in (("margin", "mean"), ("least_margin", "least")):
        if name in series:
            margins[title] = series[name]
    scores = history.scalars(run.records, VALIDATION)
    plots = [plot(f"Validation {name} of the supernet", {name: each}) for name, each in scores.items()]
    plots += [plot("Entropy of the mixing weights", {"entropy": series["entropy"]}, level=OPEN, limits=(0.0, 1.02))]
    if margins:
        plots.append(plot("Margin of the decisions", margins))
    if "undecided" in series:
        plots.append(plot("Undecided decisions", {"undecided": series["undecided"]}, limits=(0.0, 1.02)))
    if cells:
        plots.append(plot("Skip connections", cells, level=MAJORITY, limits=(0.0, 1.02)))
    for name, title in (("gradient", "Arch gradient"), ("eigenvalue", "Largest eigenvalue")):
        if name in series:
            plots.append(plot(title, {name: series[name]}))
    said = advice(run.epochs, finished=run.final is not None)
    score = run.config.task_class().score if run.config and scores else ""
    return Indicators(plots, said, best_epoch(run.records, score), bool(cells), "eigenvalue" in series)
