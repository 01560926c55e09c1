"""Scores of untrained networks against a table: computed with progress, kept in a file, resumable."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

from nas.benchmark.batches import Batch, Noise
from nas.benchmark.scores import ScoreResult, Values, correlate_scores, usual_scores
from nas.benchmark.simulation import Entry
from nas.benchmark.table import Table, find_table
from nas.errors import ConfigError, InvalidFileError, NASError
from nas.files import read_text
from nas.front.benchmarking import named
from nas.report.progress import Progress, watched
from nas.report.tables import write_csv

FILE = "scores.csv"
COLUMNS = ["table", "inputs", "score", "network", "value"]
SAVED_EVERY = 10.0
"""Seconds."""


def correlate(
    table: str | Table,
    scores: Sequence[Entry] = (),
    *,
    column: str | None = None,
    batch: Batch | None = None,
    sample: int = 1000,
    out: str | Path | None = None,
    name: str = "",
    progress: bool | None = None,
) -> list[ScoreResult]:
    """Compare scores of untrained networks with the results in a table.

    Args:
        table: the name of a table, or a table.
        scores: names, or mappings of `name` and arguments; by default all that need no training.
        column: the results; by default those that judge in the first target of the table.
        batch: what networks receive; by default a batch of 16 inputs of noise.
        sample: the number of networks for scores that need more than the cost of a network.
        out: the folder for `scores.csv`. Scores that the file has are not computed again.
        name: of the table, for the file.
        progress: whether to show progress; by default in terminals and notebooks only.

    Raises:
        UnknownNameError: the table, the column or a score is unknown.
        ConfigError: a score is not finite or needs what is not at hand, or an argument does not fit.
        InvalidFileError: `out` cannot be read or written, or has scores of another table.

    Example:
        >>> found, = correlate("nas-bench-201", ["params"])
        >>> found.correlation.networks, round(found.correlation.spearman, 2)
        (15625, 0.75)
    """
    name = table if isinstance(table, str) else name or table.space
    found = find_table(table) if isinstance(table, str) else table
    entries = named(scores or usual_scores(), "score")
    column, batch = column or usual_column(found, name), batch or noise(found, name)
    inputs, path = f"{batch.label}, seed {batch.seed}", None if out is None else Path(out) / FILE
    known: Values = {}
    others: list[list[str]] = []
    if path is not None and path.exists():
        known, others = _read(path, found, name, inputs)

    def save() -> None:
        if path is not None:
            rows = [[name, inputs, score, found.enumeration.key(row), repr(v)] for (score, row), v in known.items()]
            write_csv(path, COLUMNS, [*others, *rows])

    bars: list[Progress] = []
    saved = time.monotonic()

    def begin(done: int, total: int) -> None:
        bars.append(Progress("scores", total, done, quiet=not watched(progress), unit="networks").__enter__())

    def update(done: int, score: str) -> None:
        nonlocal saved
        bars[0].update(done, {})
        if time.monotonic() - saved > SAVED_EVERY:
            save()
            saved = time.monotonic()

    try:
        return correlate_scores(found, column, entries, batch, sample=sample, known=known, begin=begin, update=update)
    finally:
        for bar in bars:
            bar.__exit__(None, None, None)
        if known:
            save()


def usual_column(table: Table, name: str) -> str:
    """Return the column that judges in the first target of a table; raises `ConfigError` if it has no target."""
    if not table.targets:
        raise ConfigError(f"table '{name}' needs a column to compare with, of {', '.join(table.columns)}, got none")
    return next(iter(table.targets.values())).judged


def noise(table: Table, name: str, batch: int = 16, seed: int = 0) -> Noise:
    """Return noise for the networks of a table; raises `ConfigError` if it does not state their input."""
    if not table.input:
        raise ConfigError(
            f"table '{name}' needs the shape of the inputs of its networks, got none. Give one, such as 16x3x32x32"
        )
    return Noise((batch, *table.input), seed)


def _read(path: Path, table: Table, name: str, inputs: str) -> tuple[Values, list[list[str]]]:
    """The scores in a file on these inputs, and its rows on others."""
    known: Values = {}
    others: list[list[str]] = []
    header, *rows = list(csv.reader(io.StringIO(read_text(path)))) or [[]]
    if header != COLUMNS:
        raise InvalidFileError(f"{path}: the columns must be {', '.join(COLUMNS)}, got {', '.join(header)}")
    for number, row in enumerate(rows, 1):
        if len(row) != len(COLUMNS) or row[0] != name:
            raise InvalidFileError(f"{path}: row {number} must be of table '{name}', got {', '.join(row)}")
        if row[1] != inputs:
            others.append(row)
            continue
        try:
            known[row[2], table.enumeration.row_of_key(row[3])] = float(row[4])
        except (NASError, ValueError) as error:
            raise InvalidFileError(f"{path}: row {number}: {error}") from error
    return known, others
