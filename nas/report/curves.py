"""Plots of the records of a run: loss, gradient and terms of each level, evaluations, and indicators."""

from __future__ import annotations

from typing import Any, NamedTuple

from nas.report import history
from nas.report.history import Series, running_mean
from nas.report.plot import Plot, make_plot
from nas.report.recorded import Recorded
from nas.run.collapse import COLLAPSE, MAJORITY, OPEN, SKIPS, advice
from nas.run.logit_gradients import LOGITS, logit_advice
from nas.run.observer import observed
from nas.run.validation import BEST_EPOCH, VALIDATION, best_epoch


class Level(NamedTuple):
    """Records of a level, or of a stage of a retraining."""

    name: str
    plots: list[Plot]
    steps: int
    first: float
    last: float
    least: float
    at: int
    """Step of the least loss. `steps` counts the steps; `first`, `last` and `least` are losses."""


class Table(NamedTuple):
    """The last evaluations as a table, statements on how they were measured, and the number of all evaluations."""

    columns: list[str]
    rows: list[list[Any]]
    statements: list[str]
    total: int
    part_columns: list[str]
    parts: list[list[Any]]
    """The last evaluation by part of the data."""


class Indicators(NamedTuple):
    """The collapse indicators over the epochs, and advice from them."""

    plots: list[Plot]
    advice: list[str]
    best: int | None
    """Step of the best validation score."""
    cells: bool
    """Whether the space has cells that could collapse into skip connections."""
    sharp: bool
    """Whether eigenvalues are recorded."""


class Validation(NamedTuple):
    """The validation scores of a network over its training."""

    plots: list[Plot]
    best: int | None
    """Step of the best score."""


SHOWN = 20
"""Evaluations listed, at most."""
SEPARATE = 8
"""Decisions with plots of their own, at most."""


def levels(run: Recorded) -> list[Level]:
    """Return the levels with recorded losses, from the lowest to the highest."""
    everything = history.scalars(run.records, "train")
    order = list(run.config.search.levels) if run.config and run.config.search_section else []
    found = []
    for name, loss in sorted(run.losses.items(), key=lambda item: order.index(item[0]) if item[0] in order else 0):
        own = {key.removeprefix(f"{name}/"): series for key, series in everything.items() if key.startswith(f"{name}/")}
        plots = [
            make_plot(title, {title: running_mean(series)}, faint={title: series})
            for title, series in own.items()
            if series.has_value
        ]
        least = loss.least
        found.append(
            Level(name, plots, len(loss.steps), loss.values[0], loss.values[-1], loss.values[least], loss.steps[least])
        )
    return found


def evaluations(run: Recorded) -> Table | None:
    """Return the evaluations as a table, or None if there are none."""
    records = run.evaluations
    if not records:
        return None
    names = dict.fromkeys(name for record in records for name in record)
    columns = [name for name in names if name not in ("kind", "statement", "parts", "best")]
    rows = [[record.get(name) for name in columns] for record in records[-SHOWN:]]
    statements = dict.fromkeys(str(record["statement"]) for record in records if record.get("statement"))
    parts = records[-1].get("parts") or {}
    part_columns = ["", *dict.fromkeys(name for part in parts.values() for name in part)]
    part_rows = [[name, *(part.get(column) for column in part_columns[1:])] for name, part in parts.items()]
    titled = [[run.headings.get(name, name) for name in each] for each in (columns, part_columns)]
    return Table(titled[0], rows, list(statements), len(records), titled[1], part_rows)


def indicators(run: Recorded) -> Indicators | None:
    """Return the collapse indicators of a search, or None if none are recorded."""
    series = run.observers.get(COLLAPSE)
    if not series:
        return None
    cells = {name.removeprefix(SKIPS): each for name, each in series.items() if name.startswith(SKIPS)}
    margins: dict[str, Series] = {}
    for name, title in (("margin", "mean"), ("least_margin", "least")):
        if name in series:
            margins[title] = series[name]
    plots = _scores(run, "of the supernet")
    if "entropy" in series:
        shares = {"entropy": series["entropy"]}
        plots.append(make_plot("Entropy of the mixing weights", shares, level=OPEN, limits=(0.0, 1.02)))
    if margins:
        plots.append(make_plot("Margin of the decisions", margins))
    if "undecided" in series:
        plots.append(make_plot("Undecided decisions", {"undecided": series["undecided"]}, limits=(0.0, 1.02)))
    if cells:
        plots.append(make_plot("Skip connections", cells, level=MAJORITY, limits=(0.0, 1.02)))
    for name, title in (("gradient", "Arch gradient"), ("eigenvalue", "Largest eigenvalue")):
        if name in series:
            plots.append(make_plot(title, {name: series[name]}))
    said = advice(run.epochs, finished=run.final is not None) + logit_advice(observed(run.records, LOGITS))
    return Indicators(plots, said, best_epoch(run.records), bool(cells), "eigenvalue" in series)


def validation(run: Recorded) -> Validation | None:
    """Return the validation scores of a retraining, or None if there are none."""
    plots = _scores(run, "of the network")
    return Validation(plots, best_epoch(run.records)) if plots else None


def _scores(run: Recorded, of: str) -> list[Plot]:
    found = run.observers.get(VALIDATION, {})
    return [make_plot(f"Validation {name} {of}", {name: s}) for name, s in found.items() if name != BEST_EPOCH]


def observers(run: Recorded) -> dict[str, list[Plot]]:
    """Return plots of the values recorded by all other observers, by observer."""
    return {
        observer: [make_plot(name, {name: each}) for name, each in series.items() if each.has_value]
        for observer, series in run.observers.items()
        if observer not in (COLLAPSE, VALIDATION, LOGITS)
    }


def logits(run: Recorded) -> list[Plot]:
    """Return plots of the parts of the logits' gradient: of each decision, or with more than eight of their mean."""
    plots = dict[str, dict[str, Series]]()
    for key, series in run.observers.get(LOGITS, {}).items():
        part, _, label = key.partition("/")
        plots.setdefault(label, {})[part] = series
    if len(plots) > SEPARATE:
        parts = {part: [each[part] for each in plots.values() if part in each] for part in next(iter(plots.values()))}
        return [make_plot("Mean of all decisions", {part: _mean(each) for part, each in parts.items()})]
    return [make_plot(label, parts) for label, parts in plots.items() if any(s.has_value for s in parts.values())]


def _mean(found: list[Series]) -> Series:
    means = [sum(values) / len(found) for values in zip(*(each.values for each in found), strict=False)]
    return Series(found[0].steps, means)
