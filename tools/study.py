"""Was the search worth it? Compare searches on a space of which every network has been trained.

Each method searches with a budget of a few trainings, its own computation included, with several seeds. What it
chooses is judged by the table of `tools/enumerate_cells.py`: no network is trained again.

  costs TABLE COSTS     measure the CPU time of a search step of each recipe, in trainings, on this machine
  tune TABLE COSTS ROWS try the learning rates of each recipe on seeds that no run uses; append rows
  run TABLE COSTS ROWS  search with every method, budget and seed; append rows
  page TABLE ROWS OUT   write the page OUT.md and the picture OUT.svg

`tune` and `run` continue where they were stopped. Budgets are the outer loop and methods the inner one: the rows of a
stopped program are a fair part of all. With `--storage` several processes share the runs: start the same command in
each, on other hosts with a file ROWS of their own. At its end each process adds the rows of all to its file.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from optuna.exceptions import UpdateFinishedTrialError
from torch import nn

from collapse import collapsed
from enumerate_cells import genotypes, shuffled, train
from nas.benchmark.rankings import correlate
from nas.benchmark.table_file import read_rows
from nas.errors import ConfigError, DivergedError, InvalidFileError, NASError, without_password
from nas.files import dump_yaml, locked, parse_yaml, read_text, write_text
from nas.genotype.file import Genotype
from nas.run.config import Config, load_config
from nas.run.folder import Run
from nas.run.observer import Observer
from nas.run.searching import search, shared_metrics
from nas.run.task import Task
from nas.run.validation import mean_metrics
from nas.searchers.leases import Leases
from nas.searchers.searcher import searcher_of
from nas.searchers.storage import open_storage, open_study, storing
from nas.space.definition import find_space
from result_rows import ResultRows, Row
from study_page import page, picture

BASE = "nas-bench-201-small"
BUDGETS = (2, 5, 10, 20)
SEEDS = 20
TUNING_SEEDS, TUNING_BUDGET = (100, 101, 102), 5
FACTORS = (1.0, 10.0, 100.0)
"""Of the learning rate of the arch parameters: the paper's is for far longer searches."""
RANKED_SEEDS, RANKED_IMAGES = 1, 512
"""With this many seeds, all networks are also scored in the supernet, on this many images. No method pays for it."""

SEARCHERS: Mapping[str, Mapping[str, Any]] = {
    "random": {"name": "random"},
    "evolution": {"name": "evolution", "population": 5, "sample": 3},
    "local-search": {"name": "local_search"},
    "reinforce": {"name": "reinforce"},
    "tpe": {"name": "optuna", "sampler": "tpe"},
}
"""They train networks, so they see the validation accuracies of the table. The population fits the budgets. NSGA-II is
left out, because its first population is larger than the budgets. Searches with the weights of a supernet are among
the recipes: `spos` scores 20 drawn networks so."""

RECIPES: Mapping[str, Mapping[str, Any]] = {
    name: {}
    for name in (
        *("darts-v1", "darts-v2", "gdas", "snas", "reinmax", "pc-darts", "drnas", "fair-darts", "darts-minus"),
        *("sdarts-rs", "sdarts-adv", "robust-darts", "darts-pt", "beta-darts", "gaea", "oles", "proxyless"),
    )
} | {
    "spos": {"search.derivation": {"name": "best_of", "samples": 20}},
    "drnas": {"search.wrappers": [{"name": "partial_channels", "k": 4}]},
    "robust-darts": {"search.epochs": 20},
}
"""The shipped recipes, with what must differ here: 1,000 samples are more than the space has, 6 does not divide the
channels, and the rule of RobustDARTS can stop at the 17th epoch at the earliest."""


@dataclass(frozen=True)
class Cell:
    """A network of the table."""

    val: tuple[float, ...]
    """Validation accuracy by seed of the training, in percent."""
    test: float
    """Mean test accuracy, in percent."""
    seconds: float
    """Mean CPU seconds of a training."""


Table = Mapping[str, Cell]


def read_table(path: Path) -> Table:
    """Read the table that `enumerate_cells.py --table` wrote.

    Raises:
        InvalidFileError: the file is not such a table.
    """
    rows = read_rows(path)
    if lacking := {"val_0", "test", "seconds"} - rows.columns.keys():
        raise InvalidFileError(f"{path}: must be a table of tools/enumerate_cells.py, got no column '{min(lacking)}'")
    test, seconds = (rows.columns[name].tolist() for name in ("test", "seconds"))
    val = zip(*(rows.columns[name].tolist() for name in rows.columns if name.startswith("val_")), strict=True)
    return {key: Cell(*each) for key, *each in zip(rows.keys, val, test, seconds, strict=True)}


@dataclass(frozen=True)
class Cost:
    """CPU time of a search in trainings: `fixed + steps * step`."""

    fixed: float
    step: float

    def steps(self, budget: float) -> int:
        """The search steps that leave one training of a budget of trainings for the result."""
        return int((budget - 1 - self.fixed) / self.step)


def read_costs(path: Path) -> dict[str, Cost]:
    """Read what `costs` wrote."""
    return msgspec.convert(parse_yaml(read_text(path), str(path)), dict[str, Cost])


def recipe(name: str, steps: int, seed: int, factor: float, base: Config) -> Config:
    """Return a shipped recipe on the space, task and options of another configuration.

    Batch size, optimizers and schedules stay those of the recipe.
    """
    own = load_config(name)
    changes = {
        "space": base.space,
        "options": base.options,
        "task": {**base.task, "batch": own.task.get("batch", base.task.get("batch"))},
        "search.steps": steps,
        "search.epochs": min(steps, 5),
        "retrain": None,
        "seed": seed,
        **RECIPES[name],
    }
    if factor != 1 and "upper" in own.search.levels:
        changes["search.levels.upper.optimizer.lr"] = factor * own.search.levels["upper"].optimizer["lr"]
    return load_config(name, changes)


class LastSupernet(Observer):
    """Keeps the supernet of a search."""

    name = "last_supernet"

    def on_epoch(self, step: int, supernet: Any, genotype: Genotype, /) -> None:
        self.supernet = supernet


def searched(name: str, config: Config, every: Mapping[str, Genotype], ranked: bool) -> Row:
    """Search by a recipe; the genotype's key, the seconds and, if `ranked`, the scores of all networks."""
    task, last = config.build_task(), LastSupernet()
    task.batch("train", 0)  # reads the data before the clock starts
    with tempfile.TemporaryDirectory() as folder:
        started, wall = time.process_time(), time.monotonic()
        with Run.create(Path(folder, "run"), config.dump(), config.seed) as run:
            found = search(config, run, [last], task=task)
        row: Row = {"cpu_seconds": time.process_time() - started, "wall_seconds": time.monotonic() - wall}
    row["cell"] = next(key for key, genotype in every.items() if genotype.choices == found.choices)
    if ranked:
        row["scores"] = one_shot_scores(config, last.supernet, every, task)
    return row


def one_shot_scores(config: Config, supernet: Any, every: Mapping[str, Genotype], task: Task) -> list[float]:
    """The validation accuracy of each network with the weights of the supernet, after new statistics of the norms."""
    batches = RANKED_IMAGES // config.task["batch"]

    def score(network: nn.Module) -> dict[str, float]:
        return mean_metrics(network, task.measure, (task.batch("val", index) for index in range(batches)))

    shared = (msgspec.structs.replace(genotype, options=supernet.options) for genotype in every.values())
    return [shared_metrics(config, supernet, task, each, score, batches)[task.score] for each in shared]


def search_table(
    entry: Mapping[str, Any], table: Table, base: Config, every: Mapping[str, Genotype], budget: float, seed: int
) -> Row:
    """Search by trainings, as many as a budget pays on average; choose by the validation accuracy of one training each.

    The last training is the one of which the budget pays at least a half.
    """
    description = find_space(base.space).describe(**base.options)
    searcher, keys = searcher_of(entry, description, seed=seed), {_frozen(g): k for k, g in every.items()}
    seconds = budget * mean_seconds(table)
    seen: dict[str, float] = {}
    spent = 0.0
    for _ in range(50 * int(budget)):  # proposals that were trained before cost nothing
        genotype = searcher.ask()
        key = keys[_frozen(genotype)]
        if key not in seen:
            if seen and spent + table[key].seconds / 2 > seconds:
                break
            spent += table[key].seconds
            seen[key] = table[key].val[seed % len(table[key].val)]
        searcher.tell(genotype, seen[key])
    return {"cell": max(seen, key=seen.__getitem__), "cpu_seconds": spent, "trainings": len(seen)}


def _frozen(genotype: Genotype) -> frozenset[Any]:
    return frozenset(genotype.choices.items())


def mean_seconds(table: Table) -> float:
    """The unit of budgets: the mean CPU seconds of a training."""
    return statistics.fmean(cell.seconds for cell in table.values())


def measure_costs(base: Config, names: Sequence[str], short: int = 20, long: int = 50) -> dict[str, Cost]:
    """Measure recipes beside trainings of three networks, all in one process; costs are in mean trainings."""
    every, steps = genotypes(base), base.retrain.steps
    sample = [every[key] for key in shuffled(every)[:3]]

    def trained(count: int) -> float:
        stage = base.retrain.stages["all"]
        section = msgspec.structs.replace(base.retrain, stages={"all": msgspec.structs.replace(stage, steps=count)})
        config = msgspec.structs.replace(base, retrain_section=section)
        task = config.build_task(retraining=True)
        task.batch("train", 0)
        return statistics.fmean(train(config, "", each, task)["cpu_seconds"] for each in sample)

    def taken(name: str, count: int) -> float:
        return float(searched(name, recipe(name, count, 0, 1.0, base), every, False)["cpu_seconds"])

    def line(measure: Any) -> tuple[float, float]:
        low, high = measure(short), measure(long)
        slope = max(high - low, 1e-9) / (long - short)
        return low - short * slope, slope

    trained(short)  # the first one imports modules, and is not counted
    fixed, slope = line(trained)
    unit = fixed + slope * steps
    costs = {}
    for name in names:
        try:
            fixed, slope = line(lambda count, name=name: taken(name, count))
        except NASError as error:
            print(f"{name}: does not fit this space: {error}")
            continue
        costs[name] = Cost(max(fixed, 0.0) / unit, slope / unit)
        print(f"{name}: {costs[name].fixed:.3f} + {costs[name].step:.5f} trainings a step", flush=True)
    return costs


def planned(
    budgets: Sequence[int], seeds: Sequence[int], names: Sequence[str], factors: Mapping[str, Sequence[float]]
) -> Iterator[tuple[int, int, str, float]]:
    """The order of the runs."""
    for budget in budgets:
        for seed in seeds:
            for name in names:
                for factor in factors.get(name, (1.0,)):
                    yield budget, seed, name, factor


Place = tuple[int, int, str, float]
"""Budget, seed, method, and factor of the learning rate."""


@dataclass(frozen=True)
class Judged:
    """What a run needs besides its place in the plan."""

    table: Table
    costs: Mapping[str, Cost]
    base: Config

    def take(self, budget: int, seed: int, name: str, factor: float) -> Row:
        """Search once, and judge what was found by the table."""
        table, every = self.table, genotypes(self.base)
        row: Row = {"method": name, "budget": budget, "seed": seed, "factor": factor}
        if name in SEARCHERS:
            row |= search_table(SEARCHERS[name], table, self.base, every, budget, seed)
        elif (steps := self.costs[name].steps(budget)) < 1:
            return row | {"refused": "one step costs more than the budget"}
        else:
            try:
                config = recipe(name, steps, seed, factor, self.base)
                row |= {"steps": steps} | searched(name, config, every, seed < RANKED_SEEDS)
            except (ConfigError, DivergedError) as error:  # such as a rule that needs more epochs than there are steps
                return row | {"refused": str(error)}
            row["cpu_seconds"] += table[row["cell"]].seconds  # of the result
            if "scores" in row:
                found = correlate(row.pop("scores"), [table[key].test for key in every])
                row |= {"spearman": found.spearman, "top": found.top_spearman}
        best, middle = (function(cell.test for cell in table.values()) for function in (max, statistics.median))
        chosen = every[row["cell"]]
        operations = [choice for choice in chosen.choices.values() if isinstance(choice, str)]
        skips = operations.count("skip_connect") / len(operations)
        row["val"] = table[row["cell"]].val[seed % len(table[row["cell"]].val)]
        row["regret"] = best - table[row["cell"]].test
        row["collapsed"] = collapsed({"skips": skips, "accuracy": table[row["cell"]].test}, middle)
        return row


def take_runs(plan: Iterable[Place], judged: Judged, rows: ResultRows, stop: Callable[[], bool]) -> None:
    """Take the runs of a plan that have no row."""
    for budget, seed, name, factor in plan:
        if (name, budget, seed, factor) not in rows.done:
            if stop():
                break
            rows.add(judged.take(budget, seed, name, factor))


def share_runs(
    plan: Sequence[Place], judged: Judged, rows: ResultRows, stop: Callable[[], bool], url: str, study: str
) -> ResultRows:
    """Take the runs of a plan together with other processes, each run as a trial of a study; returns the rows of all.

    Raises:
        ConfigError: the storage cannot be used, or the study has another plan.
    """
    text = json.dumps(plan)
    with storing(url), suppress(KeyboardInterrupt):  # the end of a wait; a run that is interrupted is taken again
        storage = open_storage(url)
        shared = open_study(storage=storage, study_name=study, direction="minimize")
        if shared.user_attrs.get("plan", text) != text:
            where = without_password(url)
            raise ConfigError(f"{where}: study '{study}' has other runs. Give its arguments, or another storage")
        shared.set_user_attr("plan", text)
        leases = Leases(shared, storage, rows.path.with_suffix(".leases"))
        while not stop():
            with leases.claim(len(plan), stop) as lease:
                if lease is None:
                    break
                budget, seed, name, factor = plan[lease.number]
                row = rows.done.get((name, budget, seed, factor)) or judged.take(budget, seed, name, factor)
                with suppress(UpdateFinishedTrialError):  # this process was halted, and another one took the run
                    storage.set_trial_user_attr(lease.trial_id, "row", row)
                    shared.tell(lease.number, row.get("regret", math.inf), skip_if_finished=True)
    with locked(rows.path.with_suffix(".lock"), wait=True):
        rows = ResultRows(rows.path, rows.key, rows.settings)
        for row in (trial.user_attrs.get("row") for trial in shared.trials):
            if row is not None and tuple(row[name] for name in rows.key) not in rows.done:
                rows.add(row)
    return rows


def tuned(rows: ResultRows) -> dict[str, float]:
    """The factor of the learning rate of each recipe with the best mean validation accuracy over the tuning seeds."""
    found: dict[str, dict[float, list[float]]] = {}
    for row in rows.done.values():
        if row["seed"] in TUNING_SEEDS and "val" in row:
            found.setdefault(row["method"], {}).setdefault(row["factor"], []).append(row["val"])
    return {
        name: max(each, key=lambda factor, each=each: statistics.fmean(each[factor])) for name, each in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("costs", "tune", "run", "page"))
    parser.add_argument("table", type=Path)
    parser.add_argument("files", type=Path, nargs="+", help="as the list above")
    parser.add_argument("--methods", nargs="*", help="only these methods")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"seeds of `run`: 0, 1, ... ({SEEDS})")
    parser.add_argument("--budgets", type=int, nargs="*", default=BUDGETS, help="budgets of `run` in trainings")
    parser.add_argument("--storage", help="journal:FILE or the URL of a database, by which processes share the runs")
    parser.add_argument("--minutes", type=float, help="begin no run after this time")
    parser.add_argument("--set", nargs="*", default=[], help="key.path=value, changes of the configuration")
    arguments = parser.parse_args()
    try:
        command(arguments)
    except NASError as error:
        sys.exit(f"error: {error}")


def command(arguments: argparse.Namespace) -> None:
    """Carry out a command."""
    expected = {"costs": 1, "tune": 2, "run": 2, "page": 2}[arguments.command]
    if len(arguments.files) != expected:
        raise ConfigError(f"{arguments.command} must get {expected} files after the table, got {len(arguments.files)}")
    table, base = read_table(arguments.table), load_config(BASE, arguments.set)
    known = [*SEARCHERS, *RECIPES]
    if unknown := set(arguments.methods or ()) - set(known):
        raise ConfigError(f"--methods must name some of {', '.join(known)}, got {min(unknown)}")
    names = [name for name in known if arguments.methods is None or name in arguments.methods]
    settings = dump_yaml({"space": base.space, "task": base.task, "options": base.options})
    if arguments.command == "costs":
        costs = measure_costs(base, [name for name in names if name in RECIPES])
        write_text(arguments.files[0], dump_yaml(msgspec.to_builtins(costs)))
        return
    path = arguments.files[-1 if arguments.command != "page" else 0]
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock"), wait=True) if arguments.storage else nullcontext():
        rows = ResultRows(path, ("method", "budget", "seed", "factor"), settings)
    if arguments.command == "page":
        out = arguments.files[1]
        write_text(out.with_suffix(".svg"), picture(rows.done.values()))
        write_text(out.with_suffix(".md"), page(rows.done.values(), out.with_suffix(".svg").name))
        print(read_text(out.with_suffix(".md")))
        return
    costs = read_costs(arguments.files[0])
    names = [name for name in names if name in SEARCHERS or name in costs]
    if arguments.command == "tune":
        recipes = [name for name in names if name in costs]
        factors = {name: FACTORS if "upper" in load_config(name).search.levels else (1.0,) for name in recipes}
        plan = planned((TUNING_BUDGET,), TUNING_SEEDS, recipes, factors)
    else:
        plan = planned(
            arguments.budgets, range(arguments.seeds), names, {name: (f,) for name, f in tuned(rows).items()}
        )
    started, judged = time.monotonic(), Judged(table, costs, base)

    def stop() -> bool:
        return arguments.minutes is not None and time.monotonic() - started > 60 * arguments.minutes

    if arguments.storage is None:
        take_runs(plan, judged, rows, stop)
    else:
        rows = share_runs([*plan], judged, rows, stop, arguments.storage, arguments.command)
    print(f"{len(rows.done)} rows in {rows.path}")


if __name__ == "__main__":
    main()
