"""Compare what `nas plan` predicts with what searches and retrainings take: memory at the peak, CPU time per step.

Each prediction and each run has a process of its own. A run takes the first steps of its search or retraining, with
everything around them: checks, the end of an epoch, checkpoints. Images in the format of CIFAR-10 are random. The last
line fits the constants of `nas.run.plan` to the measured peaks: they minimize the sum of squared relative errors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import nas
from measured import high_water
from nas.run.plan import OVERHEAD, SLACK, drawn_genotype

MIB = 2**20
SMALL = {"options.cells": 4, "options.channels": 8}
WIDE = {"options.cells": 4, "task.batch": 64}
FIRST_ORDER = {"search.levels.upper.hypergradient": None}


class Case(NamedTuple):
    """A search or a retraining."""

    name: str
    config: str
    overrides: dict[str, Any]
    steps: int = 4
    work: str = "search"


CASES = [
    Case("DARTS, unrolled", "darts", {**SMALL, "task.batch": 16}),
    Case("DARTS, unrolled, batch 32", "darts", {**SMALL, "task.batch": 32}),
    Case("DARTS, first order", "darts", {**SMALL, **FIRST_ORDER, "task.batch": 64}),
    Case("DARTS, plain", "darts", {**SMALL, **FIRST_ORDER, "task.batch": 32, "search.evaluation": "plain"}),
    Case("DARTS, checkpoint", "darts", {**SMALL, **FIRST_ORDER, "task.batch": 128, "search.memory": "checkpoint"}),
    Case("DARTS, gumbel", "darts", {**WIDE, **FIRST_ORDER, "search.relaxation": "gumbel"}),
    Case("DARTS, partial channels", "darts", {**WIDE, **FIRST_ORDER, "search.wrappers": ["partial_channels"]}),
    Case(
        "DARTS, finite differences",
        "darts",
        {**SMALL, "task.batch": 64, "search.levels.upper.hypergradient": {"lower": "finite_difference"}},
    ),
    Case("NAS-Bench-201", "nas-bench-201", {"task.batch": 64, "options.cells": 3}),
    Case("TMICS demo", "demo", {}, steps=20),
    Case("TMICS demo, crop 96", "demo", {"task.crop": 96, "options.channels": 12}, steps=20),
    Case("digits, batch 512", "digits", {"task.batch": 512, "options.channels": 32}),
    Case("DARTS, retraining", "darts", {"retrain.options.cells": 8, "retrain.task.batch": 32}, work="retrain"),
    Case("NAS-Bench-201, retraining", "nas-bench-201", {"options.cells": 3, "retrain.task.batch": 256}, work="retrain"),
]


def config_of(case: Case, images: str) -> nas.Config:
    """The configuration of a case, with a run of its steps alone."""
    changes = dict(case.overrides)
    if case.config in ("darts", "nas-bench-201"):
        changes["task.data"] = {"kind": "cifar-10", "root": images}
    config = nas.load_config(case.config, changes)
    if case.work == "search":
        changes |= {"search.steps": case.steps, "search.epochs": 1, "retrain": None}
        return nas.load_config(case.config, changes)
    stages = {f"retrain.stages.{name}.steps": case.steps for name in config.retrain.stages}
    return nas.load_config(case.config, {**changes, **stages, "retrain.epochs": 1, "search": None})


class Clock(nas.Observer):
    """Takes the CPU time of the steps."""

    name = "clock"

    def __init__(self) -> None:
        self.begun = self.ended = 0.0

    def on_start(self, start: Any) -> None:
        self.begun = time.process_time()

    def on_step(self, step: int, moved: Any) -> None:
        self.ended = time.process_time()


# In a process of their own


def predicted(case: Case, images: str) -> dict[str, float]:
    found = nas.plan(config_of(case, images), fit="1TB").works[case.work]
    seconds = found.speed.whole if found.speed else 0
    need = found.need
    return {"tensors": need.tensors, "heap": need.heap, "memory": need.memory, "seconds": seconds / found.steps}


def measured(case: Case, images: str) -> dict[str, float]:
    config, clock = config_of(case, images), Clock()
    with tempfile.TemporaryDirectory() as folder:
        if case.work == "search":
            nas.search(config, out=folder + "/run", observers=[clock], progress=False)
            steps = config.search.steps
        else:
            nas.retrain(drawn_genotype(config), config, out=folder + "/run", observers=[clock], progress=False)
            steps = config.retrain.steps
    return {"memory": high_water() * MIB, "seconds": (clock.ended - clock.begun) / steps}


def child(function: str, case: Case, images: str) -> Any:
    command = [sys.executable, __file__, "--child", json.dumps([function, case, images])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ})
    return json.loads(done.stdout.splitlines()[-1])


def write_images(folder: Path) -> None:
    """Write random images in the binary format of CIFAR-10."""
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = random.integers(256, size=(400, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(map(str, range(10))), encoding="ascii")


# What is printed


def fitted(rows: list[dict[str, float]]) -> tuple[float, float]:
    """The constants `SLACK` and `OVERHEAD` by which predictions are nearest to the measured peaks."""
    bases = np.array([row["memory"] - OVERHEAD - SLACK * row["heap"] for row in rows])
    peaks = np.array([row["peak"] for row in rows])
    factors = np.stack([np.array([row["heap"] for row in rows]), np.ones(len(rows))], 1)
    slack, overhead = np.linalg.lstsq(factors / peaks[:, None], (peaks - bases) / peaks, rcond=None)[0]
    return float(slack), float(overhead)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], help="run these cases alone")
    parser.add_argument("--kept", type=Path, help="file of results: those in it are not measured again")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        function, case, images = json.loads(arguments.child)
        print(json.dumps(globals()[function](Case(*case), images)))
        return
    kept: dict[str, Any] = {}
    if arguments.kept and arguments.kept.is_file():
        kept = json.loads(arguments.kept.read_text(encoding="utf-8"))
    chosen = [case for case in CASES if arguments.only is None or case.name in arguments.only]
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        for case in chosen:
            if case.name not in kept:
                found = child("predicted", case, folder)
                run = child("measured", case, folder)
                kept[case.name] = {**found, "peak": run["memory"], "taken": run["seconds"]}
                if arguments.kept:
                    arguments.kept.write_text(json.dumps(kept), encoding="utf-8")
    columns = (
        "case",
        "tensors MiB",
        "heap MiB",
        "predicted MiB",
        "measured MiB",
        "ratio",
        "CPU s a step",
        "measured",
        "ratio",
    )
    title = f"torch {torch.__version__}, threads: {torch.get_num_threads()}"
    table = Table(*columns, title=title, title_justify="left")
    rows = [kept[case.name] for case in chosen]
    for case, row in zip(chosen, rows, strict=True):
        memory, seconds = row["memory"] / row["peak"], row["seconds"] / row["taken"]
        mib = [f"{row[name] / MIB:.0f}" for name in ("tensors", "heap", "memory", "peak")]
        times = [f"{row[name]:.3g}" for name in ("seconds", "taken")]
        table.add_row(case.name, *mib, f"{memory:.2f}", *times, f"{seconds:.2f}")
    Console(width=118).print(table)
    if len(rows) > 2:
        slack, overhead = fitted(rows)
        print(f"SLACK {SLACK}, fitted here {slack:.3f}; OVERHEAD {OVERHEAD / MIB:.0f} MiB, here {overhead / MIB:.0f}")


if __name__ == "__main__":
    main()
