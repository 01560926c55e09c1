"""Searchers compared on a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nas.benchmark.simulation import Comparison, Entry, compare, usual_searchers
from nas.benchmark.table import Table, Target, find_table
from nas.errors import ConfigError, UnknownNameError
from nas.files import parse_yaml
from nas.report.benchmark_page import write_benchmark
from nas.report.progress import Progress, watched


class Benchmark(NamedTuple):
    """Searchers compared on a table, and the table."""

    comparison: Comparison
    table: Table


def benchmark(
    table: str | Table,
    searchers: Sequence[Entry] = (),
    *,
    seeds: int = 500,
    evaluations: int = 200,
    target: str | Target | None = None,
    out: str | Path | None = None,
    name: str = "",
    progress: bool | None = None,
) -> Benchmark:
    """Compare searchers on a table.

    Args:
        table: the name of a table, or a table.
        searchers: names, or mappings of `name` and arguments; by default all that need no supernet, but for slow ones.
        seeds: how often each searcher searches.
        evaluations: of one search.
        target: the name of a target of the table, or columns; by default the first target.
        out: the folder for the page, the picture and the curves; nothing is written if None.
        name: of the table, for titles.
        progress: whether to show progress; by default in terminals and notebooks only.

    Raises:
        UnknownNameError: the table, a searcher, the target or a column is unknown.
        ConfigError: there are no evaluations, seeds or targets, or a searcher is named twice.
        InvalidFileError: the table or `out` cannot be read or written.

    Example:
        >>> found = benchmark("nas-bench-201", ["random"], seeds=20, evaluations=90)
        >>> 93 < found.comparison.curves["random"].result.mean[-1] < 94.37
        True
    """
    name = table if isinstance(table, str) else name or table.space
    found = find_table(table) if isinstance(table, str) else table
    entries = named(searchers or usual_searchers(), "searcher")
    chosen = target_of(found, target, name)
    with Progress("benchmark", len(entries) * max(seeds, 0), quiet=not watched(progress), unit="searches") as shown:
        comparison = compare(
            name,
            found,
            chosen,
            entries,
            seeds=seeds,
            evaluations=evaluations,
            update=lambda done, searcher: shown.update(done, {}),
        )
    if out is not None:
        write_benchmark(comparison, out, published=found.published_of(chosen), source=found.source)
    return Benchmark(comparison, found)


def named(entries: Sequence[Entry], what: str) -> dict[str, Entry]:
    """Return searchers or scores by the names to show: those of entries, with their arguments.

    Raises:
        ConfigError: two are equal.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        parsed: Any = parse_yaml(entry, f"{what} '{entry}'") if isinstance(entry, str) else entry
        shown = str(parsed)
        if isinstance(parsed, Mapping) and "name" in parsed:
            arguments = (f"{key}={value}" for key, value in parsed.items() if key != "name")
            shown = " ".join([str(parsed["name"]), *arguments])
        if shown in found:
            raise ConfigError(f"{what}s must differ, got '{shown}' twice")
        found[shown] = parsed
    return found


def target_of(table: Table, target: str | Target | None, name: str) -> Target:
    """Return a target of a table, by default its first one; raises `ConfigError` if it has none."""
    if isinstance(target, Target):
        return target
    if target is None and not table.targets:
        raise ConfigError(
            f"table '{name}' needs the column that a searcher sees and the one that judges, of"
            f" {', '.join(table.columns)}, got none"
        )
    if target is not None and target not in table.targets:
        raise UnknownNameError(f"target of table '{name}'", target, table.targets)
    return table.targets[target] if target is not None else next(iter(table.targets.values()))
