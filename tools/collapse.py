"""Show where DARTS collapses into skip connections, and which remedies prevent it.

A search collapses if at least half of the operations of its normal cell are skip connections, and the network that it
chose is, after training, less accurate than the median of random networks. DARTS collapses in a setting if at least
four of five searches do; a remedy counts if at most one of five does. All methods of a setting have the same learning
rate of the arch parameters. The settings, and their order, are fixed before the first run: DARTS is run in one after
another until it collapses in one, and there the remedies are run. A setting ends when four collapses of five are out of
reach.

  python tools/collapse.py rows.jsonl              run, or continue, and print the table
  python tools/collapse.py rows.jsonl --picture genotypes.svg
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import torch

from nas.errors import ConfigError, NASError
from nas.files import write_text
from nas.genotype.file import Genotype
from nas.graph.network_graph import build_graph
from nas.report.pictures import draw_pictures
from nas.report.tables import table
from nas.run.collapse import skips
from nas.run.config import Config, load_config
from nas.run.folder import Run
from nas.run.retraining import evaluate, retrain
from nas.run.searching import search
from nas.space.definition import find_space
from result_rows import ResultRows, Row

CONFIG = "robust-darts-s2"
ARCH_LR = "search.levels.upper.optimizer.lr"
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "fast": {ARCH_LR: 3e-2},
    "short": {},
    "long": {"search.steps": 3125, "search.epochs": 20},
    "long, fast": {"search.steps": 3125, "search.epochs": 20, ARCH_LR: 3e-2},
}
"""Changes of the configuration, in the order in which they are tried."""

METHODS: Mapping[str, Mapping[str, Any]] = {
    "darts": {},
    "auxiliary skip": {"search.wrappers": ["auxiliary_skip"]},
    "beta decay": {"search.levels.upper.regularizers": [{"name": "beta_decay", "weight": 50.0, "ramp": True}]},
    "fair": {
        "search.relaxation": "sigmoid",
        "search.levels.upper.regularizers": [{"name": "zero_one", "weight": 10.0}],
    },
}
"""DARTS and its remedies: DARTS- (Chu et al., 2021), beta-DARTS (Ye et al., 2022), FairDARTS (Chu et al., 2020)."""

RANDOM = "random"
SEEDS, RANDOM_CELLS = 5, 10
HALF, COLLAPSES, REMEDIES = 0.5, 0.8, 0.2
"""The share of skip connections of a collapse; the shares of searches by which DARTS collapses and a remedy counts."""
CELL = "normal"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="the file of the rows, such as collapse.jsonl; it is continued")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), help="only these settings")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"searches of each method ({SEEDS})")
    parser.add_argument("--random", type=int, default=RANDOM_CELLS, help=f"random networks ({RANDOM_CELLS})")
    parser.add_argument("--minutes", type=float, help="begin no search and no training after this time")
    parser.add_argument("--picture", type=Path, help="also draw the normal cells side by side, an .svg file")
    parser.add_argument("--set", nargs="*", default=[], help="key.path=value, changes of the configuration")
    arguments = parser.parse_args()
    try:
        if unknown := set(arguments.settings) - set(SETTINGS):
            raise ConfigError(f"--settings must name some of {', '.join(SETTINGS)}, got {min(unknown)}")
        config = load_config(CONFIG, arguments.set)
        rows = ResultRows(arguments.rows, ("setting", "method", "seed"), config.dump())
        plan = planned(rows, arguments.settings, arguments.seeds, arguments.random)
        take_runs(plan, config, rows, arguments.minutes)
        print_table(rows.done.values())
        if arguments.picture is not None:
            write_text(arguments.picture, picture(rows.done.values()))
    except NASError as error:
        sys.exit(f"error: {error}")


def planned(rows: ResultRows, settings: Collection[str], seeds: int, cells: int) -> Iterator[tuple[str, str, int]]:
    """The runs in order: random networks, DARTS in each setting until it collapses in one, and there the remedies.

    Args:
        rows: the rows of the runs so far; they must hold that of each run before the next one is asked for.
        settings: names of settings.
        seeds: the number of searches of each method.
        cells: the number of random networks.
    """
    yield from (("", RANDOM, number) for number in range(cells))
    for setting in settings:
        for seed in range(seeds):
            count, total = rates(rows.done.values()).get((setting, "darts"), (0, 0))
            if count + seeds - total < COLLAPSES * seeds:
                break
            yield setting, "darts", seed
        if rates(rows.done.values()).get((setting, "darts"), (0, 0))[0] >= COLLAPSES * seeds:
            yield from ((setting, method, seed) for method in METHODS if method != "darts" for seed in range(seeds))
            return


def take_runs(
    plan: Iterator[tuple[str, str, int]], config: Config, rows: ResultRows, minutes: float | None = None
) -> None:
    """Take the runs of a plan that have no row."""
    started = time.monotonic()
    for setting, method, seed in plan:
        if (setting, method, seed) in rows.done:
            continue
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            break
        rows.add({"setting": setting, "method": method, "seed": seed} | taken(config, setting, method, seed))


def taken(config: Config, setting: str, method: str, seed: int) -> Row:
    """Search, or draw, a genotype; train its network; return what decides on a collapse."""
    space = find_space(config.space)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        if method == RANDOM:
            own = msgspec.structs.replace(config, seed=seed)
            genotype = space.sample(torch.Generator().manual_seed(seed), **config.options)
        else:
            plain = msgspec.to_builtins(config)
            own = load_config(plain, {**SETTINGS[setting], **METHODS[method], "seed": seed})
            with Run.create(Path(folder, "search"), own.dump(), seed) as run:
                genotype = search(own, run)
        searched = time.process_time()
        with Run.create(Path(folder, "network"), own.dump(), seed) as run:
            network = retrain(own, genotype, run)
    task = own.build_task(retraining=True)
    return {
        "choices": msgspec.to_builtins(genotype.choices),
        "options": genotype.options,
        "skips": skips(space.describe(**config.options), genotype.choices)[CELL],
        "accuracy": evaluate(network, task)["accuracy"],
        "search_seconds": round(searched - began, 1),
        "train_seconds": round(time.process_time() - searched, 1),
    }


def median_of_random(rows: Collection[Row]) -> float:
    """The median accuracy of the random networks; not-a-number without any, below which nothing is."""
    accuracies = [row["accuracy"] for row in rows if row["method"] == RANDOM]
    return statistics.median(accuracies) if accuracies else math.nan


def collapsed(row: Row, median: float) -> bool:
    """Whether a search collapsed."""
    return row["skips"] >= HALF and row["accuracy"] < median


def rates(rows: Collection[Row]) -> dict[tuple[str, str], tuple[int, int]]:
    """The number of collapsed searches, and of all, by setting and method."""
    median, found = median_of_random(rows), dict[tuple[str, str], tuple[int, int]]()
    for row in rows:
        if row["method"] != RANDOM:
            key = row["setting"], row["method"]
            count, total = found.get(key, (0, 0))
            found[key] = count + collapsed(row, median), total + 1
    return found


def verdict(found: Mapping[tuple[str, str], tuple[int, int]], setting: str, method: str) -> str:
    """What the searches of a method in a setting show."""
    count, total = found[setting, method]
    first, all_ = found.get((setting, "darts"), (0, 0))
    if method == "darts":
        return "collapses" if count >= COLLAPSES * total else "does not collapse"
    if not all_ or first < COLLAPSES * all_:
        return "DARTS does not collapse here"
    return "prevents it" if count <= REMEDIES * total else "does not prevent it"


def print_table(rows: Collection[Row]) -> None:
    """Print the collapses of each method in each setting."""
    median, found = median_of_random(rows), rates(rows)
    print(f"median accuracy of {sum(r['method'] == RANDOM for r in rows)} random networks: {100 * median:.2f} %")
    lines = []
    for (setting, method), (count, total) in found.items():
        own = [row for row in rows if (row["setting"], row["method"]) == (setting, method)]
        share, accuracy = (statistics.fmean(row[name] for row in own) for name in ("skips", "accuracy"))
        lines.append(
            (
                setting,
                method,
                f"{count} of {total}",
                f"{100 * share:.0f}",
                f"{100 * accuracy:.2f}",
                verdict(found, setting, method),
            )
        )
    table("Collapse", ("setting", "method", "collapsed", "skips, %", "accuracy, %", "verdict"), lines)
    if found and not any(
        verdict(found, setting, "darts") == "collapses" for setting, method in found if method == "darts"
    ):
        print("DARTS collapses in none of these settings")


SVG = "http://www.w3.org/2000/svg"
GAP, HEAD = 12, 22
"""Pixels between cells, and for the heads above them."""


def picture(rows: Collection[Row]) -> str:
    """Draw the normal cells side by side.

    A row is a setting and a seed, a column a method; if one method was run, a row is a setting and a column a seed.
    """
    ElementTree.register_namespace("", SVG)
    median = median_of_random(rows)
    shown = {(row["setting"], row["seed"], row["method"]): row for row in rows if row["method"] != RANDOM}
    several = len({method for *_, method in shown}) > 1
    places = {
        (setting, seed, method): ((setting, seed), method) if several else (setting, seed)
        for setting, seed, method in shown
    }
    lines = list(dict.fromkeys(line for line, _ in places.values()))
    columns = sorted({column for _, column in places.values()}, key=list(METHODS).index if several else int)
    drawn = {key: ElementTree.fromstring(normal_cell(row)) for key, row in shown.items()}
    wide = max((int(each.get("width", 0)) for each in drawn.values()), default=0) + GAP
    high = max((int(each.get("height", 0)) for each in drawn.values()), default=0) + GAP + HEAD
    size = {"width": f"{wide * len(columns)}", "height": f"{high * len(lines)}"}
    root = ElementTree.Element(f"{{{SVG}}}svg", size, viewBox=f"0 0 {size['width']} {size['height']}")
    root.set("font-family", "sans-serif")
    ElementTree.SubElement(root, f"{{{SVG}}}rect", size, fill="white")
    for (setting, seed, method), cell in drawn.items():
        line, column = places[setting, seed, method]
        x, y = wide * columns.index(column), high * lines.index(line)
        row = shown[setting, seed, method]
        text = ElementTree.SubElement(root, f"{{{SVG}}}text", {"x": f"{x + 4}", "y": f"{y + 15}", "font-size": "12"})
        text.set("fill", "#b2182b" if collapsed(row, median) else "#333")
        text.text = f"{method}, {setting}, seed {seed}: {100 * row['accuracy']:.1f} %"
        cell.set("x", f"{x}")
        cell.set("y", f"{y + HEAD}")
        root.append(cell)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def normal_cell(row: Row) -> str:
    """The normal cell of the genotype of a row, as an SVG document."""
    plain = {"space": load_config(CONFIG).space, "choices": row["choices"], "options": row["options"]}
    genotype = msgspec.convert(plain, Genotype)
    description = find_space(genotype.space).describe(**genotype.options)
    return draw_pictures(build_graph(description, genotype, "beside"))[CELL]


if __name__ == "__main__":
    main()
