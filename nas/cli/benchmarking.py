"""The command that compares searchers on a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.app import app
from nas.cli.running import Quiet
from nas.cli.terminal import say
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.benchmark.table import Table, Target


@app.command
def benchmark(
    name: str | None = None,
    /,
    *searchers: str,
    seeds: int = 500,
    evaluations: int = 200,
    target: str | None = None,
    seen: str | None = None,
    judged: str | None = None,
    table: Path | None = None,
    importer: str | None = None,
    out: Path | None = None,
    quiet: Quiet = False,
) -> None:
    """Compare searchers on a table, which has the results of every network of a search space.

    A searcher sees one column of the table. Another column judges the network that it finds best. Regret is how much
    better the best network of the table is. For example:

    - `nas benchmark` lists the tables
    - `nas benchmark nas-bench-201 --out runs/benchmark`
    - `nas benchmark nas-bench-201 random "{name: evolution, population: 50, sample: 10}" --target c100`
    - `nas benchmark my-space --table results.csv --seen val --judged test --import my_module`

    Args:
        name: The name of a table. With --table, that of the search space, or a mapping of name and options.
        searchers: Names, or mappings of name and arguments. By default all that need no supernet, without `optuna`.
        seeds: Searches of each searcher; 500 if absent.
        evaluations: Networks that a search evaluates; 200 if absent.
        target: The pair of columns, such as c10, c100 or in16 of nas-bench-201; the first one if absent.
        seen: The column that a searcher sees, in place of --target.
        judged: The column that judges its choice, in place of --target.
        table: A table in a file: .csv, .json, .yaml, each also with .gz.
        importer: The importer that reads the names of networks in the file.
        out: Folder for benchmark.html, regret.svg and curves.csv.
    """
    from nas.front.benchmarking import benchmark as run_benchmark
    from nas.report.benchmark_page import COLUMNS, PAGE, PUBLISHED, published_rows, result_rows
    from nas.report.tables import table as print_table

    if name is None:
        _list()
        return
    read, shown = read_table(name, table, importer)
    chosen = _columns(seen, judged) or target
    found, _ = run_benchmark(
        read,
        searchers,
        seeds=seeds,
        evaluations=evaluations,
        target=chosen,
        out=out,
        name=shown,
        progress=False if quiet else None,
    )
    published = read.published_of(found.target)
    say(f"{shown}: {found.networks:,} networks, {found.seeds} seeds; regret with the 95% interval of its mean")
    say(f"searchers see {found.target.seen}; {found.target.judged} judges, at best {found.best:.3f}")
    print_table("", COLUMNS, result_rows(found, published))
    if published:
        say()
        print_table("Published results, and the same searchers here", PUBLISHED, published_rows(found, published))
    if out is not None:
        say(f"report: {out / PAGE}")


def read_table(name: str, file: Path | None, importer: str | None) -> tuple[Table, str]:
    """Return the table of the arguments, and its name."""
    from nas.benchmark.table import Table, find_table
    from nas.cli.targets import space_of

    if file is None:
        if importer is not None:
            raise ConfigError(f"--importer needs --table, got '{importer}' alone")
        return find_table(name), name
    space, options = space_of(name, "the search space")
    return Table.of(space.name, file, options=options, importer=importer), file.name


def _columns(seen: str | None, judged: str | None) -> Target | None:
    from nas.benchmark.table import Target

    if (seen is None) != (judged is None):
        raise ConfigError(f"--seen and --judged must be given together, got '{seen or judged}' alone")
    return None if seen is None or judged is None else Target(seen, judged)


def _list() -> None:
    from nas.benchmark.table import find_table
    from nas.registry import kind
    from nas.report.tables import table as print_table

    rows = []
    for name, _ in kind("table").working():
        made = find_table(name)
        rows.append((name, made.space, f"{len(made):,}", ", ".join(made.targets), ", ".join(made.columns), made.source))
    print_table("Tables", ("name", "space", "networks", "targets", "columns", "source"), rows)
