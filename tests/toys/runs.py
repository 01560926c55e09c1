"""Searches and retrainings of the toy in run folders, and whether two of them are equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

import toy
from nas.genotype.file import Genotype
from nas.run import checkpoint
from nas.run.config import Config
from nas.run.folder import Run
from nas.run.observer import Observer
from nas.run.retraining import retrain
from nas.run.searching import search
from states import same

NOISY = Genotype(space="toy", options={"channels": 4}, choices=toy.CHEAPEST)
"""With dropout."""


def opened(folder: Path, config: Config, resume: bool, stop: Callable[[], bool]) -> Run:
    run = Run.open(folder, config.dump()) if resume else Run.create(folder, config.dump(), config.seed)
    run.stop = stop
    return run


def never() -> bool:
    return False


def run_search(
    folder: Path, config: Config, *observers: Observer, resume: bool = False, stop: Callable[[], bool] = never
) -> Genotype:
    with opened(folder, config, resume, stop) as run:
        return search(config, run, observers)


def run_retrain(
    folder: Path,
    config: Config,
    *observers: Observer,
    genotype: Genotype = NOISY,
    resume: bool = False,
    stop: Callable[[], bool] = never,
    **options: Any,
) -> nn.Module:
    with opened(folder, config, resume, stop) as run:
        return retrain(config, genotype, run, observers, **options)


def last(folder: Path) -> dict[str, Any]:
    """The state in the last checkpoint."""
    state: dict[str, Any] = checkpoint.load(folder / "checkpoints" / "last.pt")["state"]
    return state


def assert_equal_runs(a: Path, b: Path) -> None:
    """Every file is the same, except those with times and the lock; states are so bit for bit."""
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()) for run in (a, b)]
    assert names[0] == names[1]
    for name in names[0]:
        if not name.endswith((".pt", "versions.yaml", "times.jsonl", ".lock")):
            assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert same(last(a), last(b))
