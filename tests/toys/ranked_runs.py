"""Runs on several ranks, for `ranked.on_ranks`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import toy
from nas.distributed.ranks import alone, rank
from nas.errors import NASError
from nas.front.running import retrain, search
from nas.genotype.file import Genotype
from nas.run.config import load_config
from nas.run.folder import read_records
from nas.run.loop import STOPPED
from nas.run.retraining import evaluate

CONFIG = toy.config(
    "batch_norm=synchronized",
    "task.batch=5",
    "search.steps=6",
    "search.epochs=3",
    "search.validation_batches=3",
    "search.hessian_products=3",
    "search.levels.upper.period=1",
    "retrain.stages.backbone.steps=4",
    "retrain.stages.averaging.steps=2",
    "retrain.stages.backbone.level.optimizer={name: sgd, lr: 0.05}",  # Adam would enlarge gradients that are zero
    "retrain.epochs=3",
    "retrain.ema=0.5",
)
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.truncate")
GENOTYPE = Genotype(space="toy", options={"channels": 4}, choices={"first": "conv", "second": "linear"})


def runs(folder: Path, pictures: Path) -> dict[str, Any]:
    """A search that is stopped after its first step and resumed, and one that stays stopped; a retraining; an error."""
    written = writes(folder)
    search(CONFIG, out=folder / "stopped", progress=False, minutes=1e-9)
    search(CONFIG, out=folder / "search", progress=False, minutes=1e-9)
    search(CONFIG, out=folder / "search", progress=False, resume=True)
    scores = retrain(GENOTYPE, CONFIG, out=folder / "network", progress=False).scores
    found = classified(pictures, folder)
    return {"scores": dict(scores), "error": refused(folder), "written": list(written), **found}


def writes(folder: Path) -> list[str]:
    """What this process changes in a folder from now on."""
    found: list[str] = []

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (opens or event in CHANGES) and str(arguments[0]).startswith(str(folder)):
            found.append(f"{event} {arguments[0]}")

    sys.addaudithook(hear)
    return found


def refused(folder: Path) -> str:
    try:
        search(CONFIG, out=folder / "search", progress=False)
    except NASError as error:
        return str(error)
    return ""


def classified(pictures: Path, folder: Path) -> dict[str, Any]:
    """What a network of digits scores, on all ranks and on one, and the table that both write."""
    config = load_config("digits")
    task = config.build_task()
    network = Genotype.load(pictures / "genotype.yaml").build(seed=1).eval()
    found = {"scores of digits": evaluate(network, task)}
    task.predict(network, pictures, folder / "ranks.csv")
    own = folder / f"one-{rank()}.csv"  # that of rank 1 is discarded
    with alone():
        found["scores of digits on one rank"] = evaluate(network, task)
        task.predict(network, pictures, own)
    return found


def numbers(value: Any) -> list[float]:
    """All numbers in a record."""
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [float(value)] if isinstance(value, int | float) else []


def assert_equal_to_rounding(ours: Path, theirs: Path) -> None:
    """The same records in the same order, with equal numbers, and the same genotype."""
    one, other = ([each for each in read_records(path) if each["kind"] != STOPPED] for path in (ours, theirs))
    assert [(each["kind"], each.get("step")) for each in one] == [(each["kind"], each.get("step")) for each in other]
    for record, expected in zip(one, other, strict=True):
        assert record.keys() == expected.keys()
        assert numbers(record) == pytest.approx(numbers(expected), rel=1e-3, abs=1e-5), expected["kind"]
    assert Genotype.load(ours / "genotype.yaml").choices == Genotype.load(theirs / "genotype.yaml").choices
