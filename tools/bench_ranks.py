"""Measure what several ranks of torchrun cost and gain: time of a search step, and bytes summed over ranks.

For each hypergradient method one rank takes steps of the search in the space `digits`, and then several ranks take the
same steps: with the same batch, of which each has a share (strong scaling), and with a batch that grows with the ranks
(weak scaling). Efficiency is the CPU time of one rank for the same samples over that of all ranks together: what is
left after the work that ranks repeat and the sums between them. Waiting takes no CPU time. So the efficiency by the
clock, printed beside it, is at most as large; it means something only while nothing else runs on the processors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from nas.distributed.ranks import gathered, is_first, joined, traffic
from nas.run.config import load_config
from nas.run.searching import build_levels, build_supernet

METHODS: dict[str, dict[str, Any]] = {
    "first_order": {"name": "first_order"},
    "gauss_newton": {"name": "gauss_newton"},
    "finite_difference": {"name": "finite_difference"},
    "unrolled": {"name": "unrolled"},
    "neumann, 5 terms": {"name": "neumann", "terms": 5},
    "first_order, batch norm synchronized": {"name": "first_order"},
}
BATCH = 64
WARMUP = 2


class Measured(NamedTuple):
    """Of one step: seconds of CPU time of all ranks together, seconds, and what each rank sends into sums."""

    cpu: float
    clock: float
    calls: float
    bytes: float


def measure(method: str, batch: int, steps: int) -> Measured:
    """Measure search steps of this process, which may be one of several ranks."""
    config = load_config(
        "digits",
        {
            "task.batch": batch,
            "batch_norm": "synchronized" if method.endswith("synchronized") else "local",
            "search.levels.upper.hypergradient": {"lower": METHODS[method]},
            "search.levels.upper.warmup": 0.0,
        },
    )
    levels = build_levels(config, build_supernet(config), config.build_task())
    torch.manual_seed(0)
    cpu, clock, before = list[float](), list[float](), (0, 0)
    for k in range(WARMUP + steps):
        if k == WARMUP:
            before = traffic.calls, traffic.bytes
        begun = time.process_time(), time.perf_counter()
        levels.step(k)
        cpu.append(time.process_time() - begun[0])
        clock.append(time.perf_counter() - begun[1])
    sent = (traffic.calls - before[0]) / steps, (traffic.bytes - before[1]) / steps
    return Measured(sum(gathered(statistics.median(cpu[WARMUP:]))), statistics.median(clock[WARMUP:]), *sent)


def launched(ranks: int, batch: int, steps: int) -> dict[str, Measured]:
    """Measure all methods on several ranks, in processes of their own."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    worker = [__file__, "--worker", str(batch), "--steps", str(steps)]
    output = subprocess.run([*run, *worker], check=True, capture_output=True, text=True).stdout
    return {name: Measured(*values) for name, values in json.loads(output).items()}


def table(one: dict[str, Measured], strong: dict[str, Measured], weak: dict[str, Measured], ranks: int) -> Table:
    """The efficiencies of `ranks` ranks, and their traffic."""
    shown = Table(title=f"{ranks} ranks, {torch.get_num_threads()} threads each, batches of {BATCH}, space digits")
    columns = ("ms of one rank", "strong", "by the clock", "weak", "by the clock", "sums a step", "kB a step and rank")
    for column in ("method", *columns):
        shown.add_column(column, justify="left" if column == "method" else "right")
    for name, alone in one.items():
        same, grown = strong[name], weak[name]
        efficiencies = [
            alone.cpu / same.cpu,
            alone.clock / (ranks * same.clock),
            ranks * alone.cpu / grown.cpu,
            alone.clock / grown.clock,
        ]
        numbers = [f"{1e3 * alone.cpu:.0f}", *(f"{each:.2f}" for each in efficiencies)]
        shown.add_row(name, *numbers, f"{same.calls:.0f}", f"{same.bytes / 1e3:.1f}")
    return shown


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="steps that are measured, of each method")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        with joined():
            found = {name: measure(name, arguments.worker, arguments.steps) for name in METHODS}
            if is_first():
                print(json.dumps(found))
        return
    one = {name: measure(name, BATCH, arguments.steps) for name in METHODS}
    strong = launched(arguments.ranks, BATCH, arguments.steps)
    weak = launched(arguments.ranks, arguments.ranks * BATCH, arguments.steps)
    Console(width=140).print(table(one, strong, weak, arguments.ranks))


if __name__ == "__main__":
    main()
