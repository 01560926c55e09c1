"""Time a TMICS search step, its levels, and prediction: ratios between options, measured side by side in one run.

Each round runs every option once, so that a change of the machine's speed meets all of them; a ratio compares the
CPU times of one round. Peak memory is that of a fresh process each, less that of one that only imports and builds.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from nas.levels import Adam, Level
from nas.multilevel import Multilevel
from nas.space import find_space
from nas.supernet import Supernet
from tmics_space.data.clips import Batch
from tmics_space.data.sources import Films
from tmics_space.data.texture import moving_texture
from tmics_space.predict import derain
from tmics_space.task import DerainConfig, DerainTask

SPACE: dict[str, Any] = {"channels": 16, "dna_cells": 2, "cna_cells": 2}
RESPONSES: dict[str, dict[str, dict[str, Any]]] = {
    "first order": {},
    "middle unrolled": {"middle": {"name": "unrolled"}},
    "middle implicit": {"middle": {"name": "implicit"}},
    "lower unrolled": {"lower": {"name": "unrolled"}},
}
LEVELS = ("lower", "middle", "upper")


class Textures(DerainTask):
    """Deraining of moving textures, so that no clip has to be read."""

    def batch(self, split: str, index: int) -> Batch:
        clip = moving_texture(5, self.config.crop, self.config.crop, seed=index).float() / 255
        window = clip.expand(self.config.batch, -1, -1, -1, -1)
        return Batch(window, window)


def search_step(crop: int, response: str, channels_last: bool = True) -> Multilevel:
    """A supernet with its three levels, each due at every step."""
    task = Textures(DerainConfig(train=Films(films={}), test=Films(films={}), crop=crop, batch=1))
    supernet = Supernet(find_space("tmics"), **SPACE)
    if channels_last:
        supernet.to(memory_format=torch.channels_last)
    levels = {
        "lower": Level(
            parameters=("network.*", "!network.averaging.*"), loss="lower", split="train", optimizer=Adam(lr=3e-4)
        ),
        "middle": Level(parameters=("network.averaging.*",), loss="fused", split="middle", optimizer=Adam(lr=1e-3)),
        "upper": Level(
            parameters=("arch.*",),
            loss="all",
            split="val",
            optimizer=Adam(lr=1e-3),
            hypergradient=RESPONSES[response],
        ),
    }
    return Multilevel(supernet, levels, task.losses, task.batch, 1000)


def prediction(size: int, channels_last: bool, tile: int | None) -> Callable[[], None]:
    """Derain a few frames with a derived network."""
    network = find_space("tmics").derived(Supernet(find_space("tmics"), **SPACE).derive()).eval()
    if channels_last:
        network.to(memory_format=torch.channels_last)
    clip = moving_texture(6, size, size)
    return lambda: list(derain(network, clip, tile=tile)) and None


def cpu_seconds(run: Callable[[], object]) -> float:
    """The CPU time of one call, over all threads."""
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(title: str, options: dict[str, Callable[[], object]], rounds: int, unit: Callable[[float], str]) -> None:
    """Print each option's median time and its ratio to the first option, round by round."""
    for run in options.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in options}
    for _ in range(rounds):
        for name, run in options.items():
            times[name].append(cpu_seconds(run))
    reference = times[next(iter(options))]
    table = Table("option", "CPU time", "ratio to the first", "smallest to largest", title=title, title_justify="left")
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, reference, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        table.add_row(name, unit(statistics.median(values)), f"{statistics.median(ratios):.2f}", spread)
    Console(width=110).print(table)


def peak_memory(crop: int, response: str | None) -> float:
    """MiB at the peak of one search step (of building alone where `response` is None) in a fresh process."""
    command = [sys.executable, __file__, "--crop", str(crop), "--child", json.dumps(response)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(crop: int, response: str | None) -> None:
    levels = search_step(crop, response or "first order")
    if response is not None:
        levels.step(0)
    status = Path("/proc/self/status").read_text(encoding="ascii")  # ru_maxrss would count the parent's pages too
    print(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (default 5)")
    parser.add_argument("--crop", type=int, default=64, help="height and width of the training crops (default 64)")
    parser.add_argument("--size", type=int, default=160, help="height and width of predicted frames (default 160)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    crop, rounds = arguments.crop, arguments.rounds
    if arguments.child is not None:
        child(crop, json.loads(arguments.child))
        return
    print(f"TMICS supernet {SPACE}, crop {crop}, batch 1, {torch.get_num_threads()} threads, torch {torch.__version__}")

    def seconds(value: float) -> str:
        return f"{value:.3f} s"

    steps = {name: search_step(crop, name) for name in RESPONSES}
    plain = search_step(crop, "first order", channels_last=False)
    options = {"first order": lambda: steps["first order"].step(0), "the same, NCHW": lambda: plain.step(0)}
    options |= {name: lambda name=name: steps[name].step(0) for name in RESPONSES if name != "first order"}
    compare("One step of all three levels", options, rounds, seconds)
    first = steps["first order"]
    compare("Each level's gradient", {n: lambda n=n: first.gradient(n, 0) for n in LEVELS}, rounds, seconds)

    base = peak_memory(crop, None)
    table = Table(
        "option", "MiB over building", "ratio to the first", title="Peak memory of a step", title_justify="left"
    )
    peaks = {name: peak_memory(crop, name) - base for name in RESPONSES}
    for name, peak in peaks.items():
        table.add_row(name, f"{peak:.0f}", f"{peak / peaks['first order']:.2f}")
    Console(width=110).print(table)

    size = arguments.size
    compare(
        f"Prediction, {size}x{size}",
        {
            "channels_last": prediction(size, True, None),
            "NCHW": prediction(size, False, None),
            "tiles of 96": prediction(size, True, 96),
        },
        rounds,
        lambda value: f"{6 / value:.2f} frames/s",
    )


if __name__ == "__main__":
    main()
