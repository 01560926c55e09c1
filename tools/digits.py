"""Search a cell for handwritten digits, and compare it with random cells trained for the same steps.

Every cell, the searched one and the random ones, is trained by the same configuration from the same seed: the same
steps on the same batches, and its accuracy is taken on the same test images. Random cells are drawn uniformly over the
decisions that the search had.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from nas.cost.network_cost import measure
from nas.derive.random import choose_randomly
from nas.errors import NASError
from nas.genotype.file import Genotype
from nas.report.tables import table
from nas.run.config import Config, load_config
from nas.run.folder import Run
from nas.run.retraining import evaluate, retrain
from nas.run.searching import search
from nas.space.definition import find_space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="compare with seeds 0, 1, ... (1)")
    parser.add_argument("--random", type=int, default=20, help="random cells for each seed (20)")
    parser.add_argument("overrides", nargs="*", help="key.path=value, changes of the configuration `digits`")
    arguments = parser.parse_args()
    try:
        won = [
            compare(load_config("digits", [*arguments.overrides, f"seed={seed}"]), arguments.random)
            for seed in range(arguments.seeds)
        ]
    except NASError as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if all(won) else "the search does not beat the mean of random cells with every seed")


def compare(config: Config, count: int) -> bool:
    """Search, train what was found and random cells, print all accuracies; whether the search beats their mean."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        with Run.create(Path(folder, "search"), config.dump(), config.seed) as run:
            found = search(config, run)
        seconds = time.monotonic() - started
        print(f"seed {config.seed}: {config.search.steps} search steps in {seconds:.0f} s")
        ours = trained(config, found, Path(folder, "found"))
        cells = random_cells(config, count)
        others = [trained(config, cell, Path(folder, str(i))) for i, cell in enumerate(cells)]
    rows = [("searched", int(measure(found)), 100 * ours)]
    rows += [
        (f"random {i}", int(measure(cell)), 100 * each)
        for i, (cell, each) in enumerate(zip(cells, others, strict=True), 1)
    ]
    print(f"test accuracy after {config.retrain.steps} steps of training")
    table(f"Seed {config.seed}", ("cell", "parameters", "%"), rows)
    mean = statistics.fmean(others)
    better = sum(each > ours for each in others)
    print(
        f"searched {100 * ours:.2f} %, mean of {count} random cells {100 * mean:.2f} %"
        f" (standard deviation {100 * statistics.stdev(others):.2f}, best {100 * max(others):.2f});"
        f" {better} of them are better than the searched one"
    )
    return ours > mean


def trained(config: Config, genotype: Genotype, folder: Path) -> float:
    """The test accuracy of the network of a genotype, trained as the configuration says."""
    with Run.create(folder, config.dump(), config.seed) as run:
        network = retrain(config, genotype, run)
    return evaluate(network, config.build_task(retraining=True))["accuracy"]


def random_cells(config: Config, count: int) -> list[Genotype]:
    """Genotypes drawn uniformly over the decisions of the space."""
    description = find_space(config.space).describe(**config.options)
    generator = torch.Generator().manual_seed(config.seed)
    draws = (choose_randomly(description.decisions, generator) for _ in range(count))
    return [Genotype(space=config.space, choices=choices, options=description.options) for choices in draws]


if __name__ == "__main__":
    main()
