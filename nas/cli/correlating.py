"""The command that compares scores of untrained networks with a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nas.cli.app import app
from nas.cli.benchmarking import read_table
from nas.cli.running import Quiet
from nas.cli.targets import shape_of
from nas.cli.terminal import say
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.benchmark.batches import Batch
    from nas.benchmark.table import Table

COLUMNS = ("score", "batch", "networks", "of", "column", "Spearman", "Kendall", "Spearman, top 20%", "Kendall, top 20%")


@app.command
def correlate(
    name: str,
    /,
    *scores: str,
    column: str | None = None,
    sample: int = 1000,
    input: str | None = None,
    seed: int = 0,
    config: str | None = None,
    set: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=False)] = (),
    table: Path | None = None,
    importer: str | None = None,
    out: Path | None = None,
    quiet: Quiet = False,
) -> None:
    """Print rank correlations of zero-cost scores with the results in a table.

    The size of a network, params and flops, is known for every network at once. All other scores are computed for a
    fixed random sample, at new initial weights, on one batch of noise with random labels. For example:

    - `nas correlate nas-bench-201 --sample 200 --out runs/scores`
    - `nas correlate nas-bench-201 synflow --sample 15625 --out runs/scores`
    - `nas correlate nas-bench-201 naswot --config nas-bench-201 --set task.batch=16`

    Args:
        name: The name of a table. With --table, that of the search space, or a mapping of name and options.
        scores: Names, or mappings of name and arguments. By default all that need no training.
        column: The results to compare with; by default those that judge in the first target of the table.
        sample: The number of networks in the sample; 1,000 if absent.
        input: The shape of the noise, such as 16x3x32x32; by default 16 inputs as those of the table.
        seed: Of the noise and the initial weights; 0 if absent.
        config: A configuration, whose task gives the batch in place of noise: the first of the lowest level.
        set: KEY=VALUE, a change of this configuration, such as task.batch=16. Repeatable.
        table: A table in a file: .csv, .json, .yaml, each also with .gz.
        importer: The importer that reads the names of networks in the file.
        out: Folder for scores.csv. If it has scores of before, only missing ones are computed.
    """
    from nas.front.correlating import FILE, usual_column
    from nas.front.correlating import correlate as run_scores
    from nas.report.tables import table as print_table

    read, shown = read_table(name, table, importer)
    chosen = column or usual_column(read, shown)
    batch = _batch(read, shown, input, seed, config, set)
    found = run_scores(
        read,
        scores,
        column=chosen,
        batch=batch,
        sample=sample,
        out=out,
        name=shown,
        progress=False if quiet else None,
    )
    rows = [
        [
            each.score,
            each.batch,
            f"{len(each.rows):,}",
            f"{len(read):,}",
            chosen,
            *(
                f"{value:.4f}" if value == value else None
                for value in each.correlation[1:]  # not-a-number if all scores are equal
            ),
        ]
        for each in found
    ]
    say(f"{shown}: {len(read):,} networks; scores against {chosen}; weights of seed {batch.seed}; no training")
    print_table("", COLUMNS, rows)
    if out is not None:
        say(f"scores: {out / FILE}")


def _batch(
    table: Table, name: str, shape: str | None, seed: int, config: str | None, changes: tuple[str, ...]
) -> Batch:
    """The inputs of the networks."""
    from nas.benchmark.batches import Noise, TaskBatch
    from nas.front.correlating import noise
    from nas.run.config import load_config

    if config is None:
        if changes:
            raise ConfigError(f"--set needs --config, got '{changes[0]}' alone")
        return noise(table, name, seed=seed) if shape is None else Noise(tuple(shape_of(shape)), seed)
    if shape is not None or seed:
        raise ConfigError("--config gives the batch and the seed; remove --input and --seed")
    return TaskBatch(load_config(config, changes), " ".join([config, *changes]), table)
