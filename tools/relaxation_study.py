"""Search the digits with each relaxation, train what is found, and write docs/choosing-a-relaxation.md.

Every search has the same steps, levels and derivation; its relaxation alone differs. Every network that was found, and
random ones, are trained for the same steps from the seed of their search. Rows are appended to a file as networks are
trained; a stopped program continues where it was. With --write the table of the page and its rows are brought up to
date; with --check they are compared.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from digits import random_cells, trained
from generated_page import markdown_table, replaced
from nas.errors import NASError
from nas.files import read_text, write_text
from nas.genotype.file import Genotype
from nas.multilevel.multilevel import Moved
from nas.registry import kind
from nas.run.config import Config, load_config
from nas.run.folder import Run
from nas.run.observer import Observer
from nas.run.searching import search
from result_rows import ResultRows, Row

DOCS = Path(__file__).parent.parent / "docs"
PAGE, ROWS = DOCS / "choosing-a-relaxation.md", DOCS / "relaxation-study.jsonl"
BEGIN, END = "<!-- begin: tools/relaxation_study.py -->\n", "<!-- end: tools/relaxation_study.py -->\n"
BASE = {
    "options.drop_path": 0.0,
    "search.steps": 200,
    "search.levels.upper.mode": "train",  # in eval mode nothing is sampled
    "retrain.stages.all.steps": 150,
}
OWN: Mapping[str, Mapping[str, Any]] = {
    "uniform_path": {
        "search.levels.upper": None,
        "search.derivation": {"name": "best_of", "samples": 20},
        "search.validation_split": "val",
    }
}
"""What a relaxation needs besides its name: without logits to learn, a genotype is chosen by its score."""
RANDOM = "random"
"""In the place of a relaxation: networks drawn at random, as many a seed as there are relaxations."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, nargs="?", default=ROWS, help=f"the file of the rows ({ROWS.name})")
    parser.add_argument("--seeds", type=int, default=0, help="search with the seeds 0, 1, ... (none)")
    parser.add_argument("--write", action="store_true", help="bring the page up to date")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the page is not up to date")
    arguments = parser.parse_args()
    try:
        rows = ResultRows(arguments.rows, ("relaxation", "seed", "number"), load_config("digits", BASE).dump())
        run_all(rows, relaxations(), arguments.seeds)
        found = list(rows.done.values())
        if arguments.check or arguments.write:
            page = read_text(PAGE)
            if arguments.check:
                return int(updated(page, found) != page)
            write_text(PAGE, updated(page, found))
        else:
            print("\n".join(table(found)))
    except NASError as error:
        sys.exit(f"error: {error}")
    return 0


def relaxations() -> list[str]:
    """The relaxations of this package; `softmax` first, with which the others are compared."""
    names = (name for name, origin in kind("relaxation").names().items() if origin.startswith("nas."))
    return sorted(names, key=lambda name: (name != "softmax", name))


def run_all(rows: ResultRows, names: Sequence[str], seeds: int) -> None:
    """Add the rows that are missing, seed by seed."""
    for seed in range(seeds):
        for name in names:
            if (name, seed, 0) not in rows.done:
                rows.add(searched(name, seed))
        config = load_config("digits", {**BASE, "seed": seed})
        for number, genotype in enumerate(random_cells(config, len(names))):
            if (RANDOM, seed, number) not in rows.done:
                rows.add(row(config, RANDOM, genotype, number))


def searched(name: str, seed: int) -> Row:
    """The row of a search with a relaxation."""
    config = load_config("digits", {**BASE, **OWN.get(name, {}), "search.relaxation": name, "seed": seed})
    pace = Pace(config.search.steps // 2)
    with tempfile.TemporaryDirectory() as folder, Run.create(Path(folder), config.dump(), config.seed) as run:
        genotype = search(config, run, [pace])
    return {**row(config, name, genotype, 0), "ms": round(1000 * statistics.median(pace.seconds), 2)}


def row(config: Config, name: str, genotype: Genotype, number: int) -> Row:
    """The row of a genotype, once its network is trained."""
    with tempfile.TemporaryDirectory() as folder:
        accuracy = trained(config, genotype, Path(folder, "network"))
    choices = {label: choice for label, choice in genotype.choices.items() if isinstance(choice, str)}
    return {"relaxation": name, "seed": config.seed, "number": number, "accuracy": accuracy, "choices": choices}


class Pace(Observer):
    """The CPU seconds of each step after the first ones, in which logits may not move yet."""

    name = "pace"

    def __init__(self, first: int) -> None:
        self.first, self.seconds = first, list[float]()
        self._before: float | None = None

    def on_step(self, step: int, moved: Mapping[str, Moved], /) -> None:
        now = time.process_time()
        if self._before is not None and step > self.first:
            self.seconds.append(now - self._before)
        self._before = now

    def on_epoch(self, step: int, network: Any, genotype: Genotype, /) -> None:
        self._before = None


def table(rows: Iterable[Row]) -> list[str]:
    """The lines of the table: one row a relaxation, then the random networks."""
    by_name: dict[str, list[Row]] = {}
    for each in rows:
        by_name.setdefault(each["relaxation"], []).append(each)
    pace = {each["seed"]: each["ms"] for each in by_name["softmax"]}
    drawn = [each["accuracy"] for each in by_name[RANDOM]]
    lines = []
    for name, own in by_name.items():
        scores = [100 * each["accuracy"] for each in own]
        better = statistics.fmean(sum(a < each["accuracy"] for a in drawn) / len(drawn) for each in own)
        paces = [each["ms"] / pace[each["seed"]] for each in own if "ms" in each]
        lines.append(
            (
                f"`{name}`" if name != RANDOM else "random networks",
                f"{statistics.fmean(scores):.2f} ± {statistics.stdev(scores):.2f}",
                f"{better:.0%}",
                f"{agreement([each['choices'] for each in own]):.0%}",
                f"{statistics.median(paces):.2f}" if paces else "–",
                str(len(own)),
            )
        )
    return markdown_table(HEADS, lines)


HEADS = (
    "relaxation",
    "test accuracy, % (mean ± deviation of seeds)",
    "share of the random networks that are worse",
    "equal choices of two seeds",
    "CPU time of a step over that of `softmax`",
    "networks",
)


def agreement(found: Sequence[Mapping[str, str]]) -> float:
    """The share of equal choices, as a mean over all pairs of genotypes."""
    pairs = list(itertools.combinations(found, 2))
    return statistics.fmean(sum(a.get(k) == b.get(k) for k in {**a, **b}) / len({**a, **b}) for a, b in pairs)


def updated(page: str, rows: Iterable[Row]) -> str:
    """The page with the table of these rows."""
    return replaced(page, BEGIN, "\n".join(table(rows)) + "\n", END)


if __name__ == "__main__":
    sys.exit(main())
