"""Train every network of a small search space, several times each, and write a table of the results.

Each network is trained by the section `retrain` of a configuration, as `nas retrain` does, and measured on the splits
`val` and `test`. Of networks that compute the same function, such as a convolution after a skip and before one, one is
trained and stands for all. Rows are appended to a file as trainings end; a stopped program continues where it was. All
networks are trained with one seed before the next seed begins, always in the same random order: a part of the table is
a fair sample of it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from nas.compare.canonical_form import canon
from nas.cost.network_cost import measure
from nas.errors import ConfigError, NASError
from nas.files import parse_yaml, write_atomic
from nas.genotype.file import Genotype
from nas.run.config import Config, load_config, parse_config
from nas.run.folder import Run
from nas.run.retraining import evaluate, retrain
from nas.run.task import Task
from nas.space.definition import Description, find_space
from result_rows import ResultRows, Row

CORRELATION, SPREAD = 0.8, 4.0
"""What a table must reach that tells networks apart: see `separation`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="the file of the rows, such as cells.jsonl; it is continued")
    parser.add_argument("--config", default="nas-bench-201-small", help="name or file of the configuration")
    parser.add_argument("--seeds", type=int, default=3, help="train each network with the seeds 0, 1, ... (3)")
    parser.add_argument("--only", nargs="*", help="train only these networks, such as 1111 0120")
    parser.add_argument("--minutes", type=float, help="begin no training after this time")
    parser.add_argument("--table", type=Path, help="also write the finished rows as a table: .csv or .csv.gz")
    parser.add_argument("overrides", nargs="*", default=[], help="key.path=value, changes of the configuration")
    arguments = parser.parse_intermixed_args()
    try:
        config = load_config(arguments.config, arguments.overrides)
        rows = rows_of(arguments.rows, config)
        train_all(config, rows, arguments.seeds, arguments.only, arguments.minutes)
        trained = trained_for(genotypes(config))
        print_summary(rows, len(set(trained.values())), arguments.seeds)
        if arguments.table is not None:
            write_table(arguments.table, table_text(rows, trained, arguments.seeds))
    except NASError as error:
        sys.exit(f"error: {error}")


def rows_of(path: Path, config: Config) -> ResultRows:
    """The finished trainings in a file, by network and seed; another configuration of the training is an error."""
    wanted = msgspec.structs.replace(config, search_section=None, seed=0)

    def alike(text: str) -> bool:
        return parse_config(parse_yaml(text, str(path))) == wanted

    return ResultRows(path, ("cell", "seed"), wanted.dump(), alike)


def genotypes(config: Config) -> dict[str, Genotype]:
    """Return all genotypes of a space whose decisions are operations, by the positions of the operations."""
    description = find_space(config.space).describe(**config.options)
    varied = [decision for decision in description.decisions.values() if decision.kind == "operation"]
    fixed = {
        label: tuple(map(int, decision.candidates))
        for label, decision in description.decisions.items()
        if decision.kind == "inputs"
    }
    found = {}
    for chosen in itertools.product(*(enumerate(decision.candidates) for decision in varied)):
        choices = {decision.label: str(name) for decision, (_, name) in zip(varied, chosen, strict=True)}
        key = "".join(str(position) for position, _ in chosen)
        found[key] = Genotype(space=config.space, choices={**fixed, **choices}, options=description.options)
    return found


def trained_for(every: Mapping[str, Genotype]) -> dict[str, str]:
    """Return the network whose training stands for each: the first one that computes the same function.

    These have equal canonical forms (`nas.compare.canonical_form`) and equal numbers of parameters. They differ in
    their initial weights, which are drawn by label, and thus by no more than two seeds of one network do.
    """
    first: dict[tuple[str, int], str] = {}
    found = {}
    description: Description | None = None
    for key, genotype in every.items():
        description = description or find_space(genotype.space).describe(**genotype.options)
        found[key] = first.setdefault((canon(genotype, description).canonical, int(measure(genotype))), key)
    return found


def train_all(config: Config, rows: ResultRows, seeds: int, only: Sequence[str] | None, minutes: float | None) -> None:
    """Train what is missing, seed by seed."""
    started, every = time.monotonic(), genotypes(config)
    if only is not None and (unknown := set(only) - set(every)):
        raise ConfigError(f"--only must name networks such as {next(iter(every))}, got {min(unknown)}")
    trained = trained_for(every)
    wanted = {trained[key] for key in (every if only is None else only)}
    for seed in range(seeds):
        config = msgspec.structs.replace(config, seed=seed)
        task = config.build_task(retraining=True)
        for key in shuffled(every):
            if (key, seed) in rows.done or key not in wanted:
                continue
            if minutes is not None and time.monotonic() - started > 60 * minutes:
                return
            rows.add(train(config, key, every[key], task))


def shuffled(keys: Collection[str]) -> list[str]:
    """The networks in the order in which they are trained with each seed."""
    return random.Random(0).sample(list(keys), len(keys))


def train(config: Config, key: str, genotype: Genotype, task: Task) -> Row:
    """Train a network with the seed of a configuration and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        started, wall = time.process_time(), time.monotonic()
        with Run.create(Path(folder, "run"), config.dump(), config.seed) as run:
            network = retrain(config, genotype, run, task=task)
        seconds, wall = time.process_time() - started, time.monotonic() - wall
    scores = {split: evaluate(network, task, split) for split in ("val", "test")}
    return {
        "cell": key,
        "seed": config.seed,
        **{f"{split}_{name}": value for split, found in scores.items() for name, value in found.items()},
        "params": int(measure(config.retrained(genotype))),
        "cpu_seconds": round(seconds, 2),
        "wall_seconds": round(wall, 2),
    }


def separation(rows: ResultRows, seeds: int, column: str = "val_accuracy") -> dict[str, float]:
    """How well the table tells networks apart, over the networks that have all seeds.

    `correlation` is the mean Pearson correlation between the columns of two seeds. `deviation` is the standard
    deviation between seeds, pooled over networks. `spread` is the mean of the best network minus that of the median
    one, in these deviations.
    """
    cells = [key for key, seed in rows.done if seed == 0 and all((key, other) in rows.done for other in range(seeds))]
    if len(cells) < 3 or seeds < 2:
        raise ConfigError(f"at least 3 networks must have 2 seeds, got {len(cells)} with {seeds}. Train more")
    values = [[rows.done[key, seed][column] for key in cells] for seed in range(seeds)]
    pairs = itertools.combinations(values, 2)
    by_cell = list(zip(*values, strict=True))
    means = [statistics.fmean(each) for each in by_cell]
    deviation = statistics.fmean(map(statistics.variance, by_cell)) ** 0.5
    return {
        "networks": len(cells),
        "correlation": statistics.fmean(statistics.correlation(a, b) for a, b in pairs),
        "deviation": deviation,
        "best": max(means),
        "median": statistics.median(means),
        "spread": (max(means) - statistics.median(means)) / deviation if deviation else float("inf"),
    }


def print_summary(rows: ResultRows, count: int, seeds: int) -> None:
    spent = sum(row["cpu_seconds"] for row in rows.done.values())
    print(f"{len(rows.done)} of {count * seeds} trainings, {spent / 60:.1f} CPU minutes")
    try:
        found = separation(rows, seeds)
    except ConfigError as error:
        print(f"separation: not known yet: {error}")
        return
    good = found["correlation"] >= CORRELATION and found["spread"] >= SPREAD
    print(
        f"over {found['networks']} networks: correlation between seeds {found['correlation']:.3f}; accuracy of the best"
        f" {100 * found['best']:.2f} %, of the median {100 * found['median']:.2f} %, deviation between seeds"
        f" {100 * found['deviation']:.2f} %: best minus median is {found['spread']:.1f} deviations;"
        f" the table {'tells' if good else 'does not tell'} networks apart"
    )


def table_text(rows: ResultRows, trained: Mapping[str, str], seeds: int) -> str:
    """The table as CSV: accuracies in percent by seed, parameters, and the mean CPU seconds of a training.

    Args:
        rows: the finished trainings.
        trained: for each network the one whose training stands for it.
        seeds: the number of trainings of each.
    """
    if missing := [key for key in trained.values() for seed in range(seeds) if (key, seed) not in rows.done]:
        raise ConfigError(f"{rows.path}: a table needs every network with every seed, got none for {missing[0]}")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{split}_{seed}" for split in ("val", "test") for seed in range(seeds)]
    writer.writerow(["cell", *names, "val", "test", "params", "seconds"])
    for key, stands in trained.items():
        found = [rows.done[stands, seed] for seed in range(seeds)]
        by_split = [[100 * row[f"{split}_accuracy"] for row in found] for split in ("val", "test")]
        means = [f"{statistics.fmean(values):.3f}" for values in by_split]
        seconds = statistics.fmean(row["cpu_seconds"] for row in found)
        each = [f"{value:.2f}" for values in by_split for value in values]
        writer.writerow([key, *each, *means, found[0]["params"], f"{seconds:.1f}"])
    return text.getvalue()


def write_table(path: Path, text: str) -> None:
    """Write a table; compressed if its name ends in `.gz`."""
    data = gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode()
    write_atomic(path, lambda file: file.write(data))


if __name__ == "__main__":
    main()
