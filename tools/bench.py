"""Time the supernets of DARTS and NAS-Bench-201 under each evaluation, against a plain one, measured side by side.

The plain option calls each candidate of each edge, in the default memory format, and computes every gradient.
tools/reference.py has the same DARTS loop written by hand, for comparison. Each round runs every option once, so that a
change of the machine's speed affects all of them. A gain is the time of the plain option divided by that of another
option in the same round: CPU time at one thread, wall time at two. Each option has a process of its own that measures
its peak memory.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from measured import exponent, gains, high_water, shares, timed
from nas.cost.space_cost import costs
from nas.kernels import native
from nas.space.operations import OperationSet
from nas.space.primitives import DARTS, NAS_BENCH_201
from search_spaces.darts import darts_space
from search_spaces.nas_bench_201 import nas_bench_201_space
from search_steps import Make, Where, by_levels, hand_written, path_alone, plainly

KERNEL = "planned, with the C++ kernel"
"""Timed only if `python -m nas.kernels` has built it."""

WORKS: dict[str, dict[str, Make]] = {
    "DARTS, first order": {
        "plain": partial(plainly, space=darts_space),
        "by hand, without the engine": hand_written,
        "plain, selective gradients": partial(by_levels, evaluation="plain"),
        "planned": by_levels,
        "planned, memory: checkpoint": partial(by_levels, memory="checkpoint"),
        "planned, relaxation: gumbel": partial(by_levels, relaxation="gumbel"),
        KERNEL: partial(by_levels, kernel=True),
    },
    "DARTS, unrolled (exact)": {
        "plain": partial(by_levels, response="unrolled", evaluation="plain"),
        "planned": partial(by_levels, response="unrolled"),
        KERNEL: partial(by_levels, response="unrolled", kernel=True),
    },
    "NAS-Bench-201, first order": {
        "plain": partial(plainly, space=nas_bench_201_space),
        "planned": partial(by_levels, space=nas_bench_201_space),
    },
}
"""Options by work and name; the first option of a work is the reference of the others."""
if not native.load():
    for options in WORKS.values():
        options.pop(KERNEL, None)

GROWTH: dict[str, list[dict[str, Any]]] = {
    "channels": [{"channels": c} for c in (8, 16, 32)],
    "cells": [{"cells": n} for n in (4, 8, 16)],
    "candidates": [{"operations": DARTS.only(*list(DARTS)[-n:])} for n in (2, 4, 6)],
    "batch": [{"size": n} for n in (8, 16, 32)],
    "side": [{"side": n} for n in (16, 32, 64)],
}
ALIKE = {
    "space": nas_bench_201_space,
    "operations": OperationSet({f"conv_{i}": NAS_BENCH_201["nor_conv_3x3"] for i in range(5)}),
    "cells": 1,
}
"""A supernet each path of which costs the same, and has the layers of the network of one path."""
MIXED = {"space": darts_space, "cells": 4}


class Ratio(NamedTuple):
    make: Make
    most: float | None = None
    """What the time over that of the first option should not exceed, for each path."""
    paths: int = 1


PARTS = {
    "loss and gradient": "gradient",
    "optimizer": "sgd",
    "copies to undo the step": "undoing",
    "checks": "in_range",
}
"""What a step of the operation weights consists of, with the function of each part."""

RATIOS: dict[str, dict[str, Ratio]] = {
    "a step of the operation weights, one path": {
        "the path alone, by hand": Ratio(partial(path_alone, only="lower", **ALIKE)),
        "gumbel": Ratio(partial(by_levels, only="lower", relaxation="gumbel", **ALIKE), 1.15),
        "uniform_path": Ratio(partial(by_levels, only="lower", relaxation="uniform_path", **ALIKE), 1.15),
        "binary_gates": Ratio(partial(by_levels, only="lower", relaxation="binary_gates", **ALIKE), 1.15),
        "reinmax": Ratio(partial(by_levels, only="lower", relaxation="reinmax", **ALIKE), 1.15),
        "uniform_path, fair: true": Ratio(
            partial(by_levels, only="lower", relaxation={"name": "uniform_path", "fair": True}, **ALIKE), 1.1, 5
        ),
    },
    "a step of the logits, one path": {
        "the path alone, by hand": Ratio(partial(path_alone, only="upper", **ALIKE)),
        "gumbel": Ratio(partial(by_levels, only="upper", relaxation="gumbel", **ALIKE), 1.15),
        "binary_gates, two paths": Ratio(partial(by_levels, only="upper", relaxation="binary_gates", **ALIKE), 2.2),
    },
    "a step of both, every candidate": {
        "softmax": Ratio(partial(by_levels, **MIXED)),
        **{
            name: Ratio(partial(by_levels, relaxation=name, **MIXED), 1.07)
            for name in ("dirichlet", "gumbel_soft", "reinmax", "sigmoid", "sparsemax")
        },
        "softmax, partial_channels, k: 4": Ratio(partial(by_levels, wrappers=["partial_channels"], **MIXED), 0.55),
    },
}
"""Options by step and name; the first option of a step is the reference of the others."""
SMALL: dict[str, Any] = {"cells": 4, "size": 8, "side": 32}
"""The supernet whose growth is measured, where nothing else is said."""


# In a process of their own


def times_of(work: str, rounds: int) -> dict[str, list[float]]:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    return timed({name: make(Where()) for name, make in WORKS[work].items()}, rounds, clock)


def peak_of(work: str, option: str) -> float:
    """MiB at the peak of two steps."""
    run = WORKS[work][option](Where())
    run()
    run()
    return high_water()


def calls_of() -> list[dict[str, int]]:
    """The aten calls of one step, by hand and by the plain evaluation."""

    class Count(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.calls: Counter[str] = Counter()

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls[str(function)] += 1
            return function(*args, **(kwargs or {}))

    counted = []
    for name in ("by hand, without the engine", "plain"):
        run = WORKS["DARTS, first order"][name](Where())
        run()
        with Count() as count:
            run()
        counted.append(dict(count.calls))
    return counted


def shares_of(work: str, option: str) -> dict[str, float]:
    run = WORKS[work][option](Where())
    run()
    return shares(run)


def start_up() -> list[float]:
    """Seconds of CPU time from the start of Python to the beginning and to the end of the first step of a search."""
    costs(darts_space.describe())
    step = by_levels(Where())
    begun = time.process_time()
    step()
    return [begun, time.process_time()]


def ratios_of(step: str, rounds: int) -> dict[str, list[float]]:
    """CPU times over those of the first option, round by round and path by path."""
    options = RATIOS[step]
    times = timed({name: each.make(Where()) for name, each in options.items()}, rounds, time.process_time)
    return {name: [1 / gain for gain in gains(times, name)] for name in options}


def parts_of(step: str, option: str) -> dict[str, float]:
    """Of the CPU time of ten steps of the engine, the share of what they consist of, by its functions."""
    run = RATIOS[step][option].make(Where())
    run()
    profile = cProfile.Profile(time.process_time)
    for _ in range(10):
        profile.runcall(run)
    stats = pstats.Stats(profile).get_stats_profile()
    found = {part: stats.func_profiles[name].cumtime / stats.total_tt for part, name in PARTS.items()}
    return found | {"other": 1 - sum(found.values())}


def growth_of(along: str, number: int) -> list[float]:
    """Seconds and MiB of a step of a small supernet."""
    setting = SMALL | GROWTH[along][number]
    where = Where(size=setting.pop("size"), side=setting.pop("side"))
    run = by_levels(where, **setting)
    run()
    times = timed({"": run}, 3, time.process_time)[""]
    return [min(times), high_water()]


def child(function: str, *arguments: Any, threads: int = 1) -> Any:
    """Call a function of this module in a fresh process."""
    command = [sys.executable, __file__, "--child", json.dumps([function, *arguments])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


# What is printed


def show(title: str, *columns: str, rows: list[list[str]]) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(width=118).print(table)


def show_work(work: str, rounds: int, threads: list[int]) -> None:
    def gain(count: int, option: str) -> str:
        ratios = gains(times[count], option)
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    times = {count: child("times_of", work, rounds, threads=count) for count in threads}
    options = list(WORKS[work])
    peaks = {option: child("peak_of", work, option) for option in options}
    rows = [
        [
            option,
            f"{statistics.median(times[threads[0]][option]):.3g} s",
            *(gain(count, option) for count in threads),
            f"{peaks[option]:.0f}",
            f"{peaks[option] / peaks[options[0]]:.2f}",
        ]
        for option in options
    ]
    columns = [f"gain, {count} thread{'s' * (count > 1)}" for count in threads]
    show(f"{work}: a step", "option", "time", *columns, "peak MiB", "of plain", rows=rows)


def show_shares() -> None:
    parts = {(work, option): child("shares_of", work, option) for work in WORKS for option in ("plain", "planned")}
    rows = [[*names, *(f"{share:.1%}" for share in found.values())] for names, found in parts.items()]
    show("Where the time of a profiled step goes", "work", "option", *next(iter(parts.values())), rows=rows)


def show_ratios(rounds: int) -> None:
    rows, missed = [], []
    for step, options in RATIOS.items():
        for name, ratios in child("ratios_of", step, rounds).items():
            middle, most = statistics.median(ratios) / options[name].paths, options[name].most
            aim = "" if most is None else f"{most}{f' x {options[name].paths}' * (options[name].paths > 1)}"
            rows.append([step, name, f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", aim])
            if most is not None and middle > most:
                missed.append((step, name))
    show("CPU time over that of the first option", "step", "option", "ratio", "aim", rows=rows)
    parts = {names: child("parts_of", *names) for names in missed if names[0] == next(iter(RATIOS))}
    if parts:
        columns = ("step", "option", *next(iter(parts.values())))
        shown = [[*names, *(f"{share:.0%}" for share in found.values())] for names, found in parts.items()]
        show("What a step that misses its aim consists of", *columns, rows=shown)


def show_growth() -> None:
    rows = []
    for along, settings in GROWTH.items():
        points = [child("growth_of", along, number) for number in range(len(settings))]
        sizes = [len(v) if hasattr(v := next(iter(setting.values())), "items") else v for setting in settings]
        seconds, memory = zip(*points, strict=True)
        rows.append(
            [
                f"{along} {', '.join(map(str, sizes))}",
                ", ".join(f"{s:.2f}" for s in seconds),
                f"{exponent(sizes, seconds):.2f}",
                ", ".join(f"{m:.0f}" for m in memory),
                f"{exponent(sizes, memory):.2f}",
            ]
        )
    columns = ("along", "CPU seconds", "exponent", "peak MiB", "exponent")
    show(f"Growth of a planned first-order step of DARTS, where {SMALL}", *columns, rows=rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (default 5)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="CPU time at 1, wall time at more (1 2)")
    parser.add_argument(
        "--only", choices=[*WORKS, "engine", "ratios", "start", "growth"], help="print this table alone"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        function, *rest = json.loads(arguments.child)
        print(json.dumps(globals()[function](*rest)))
        return
    print(f"channels 16, 32x32, batch {Where().size}; torch {torch.__version__}; {os.cpu_count()} cores")
    for work in WORKS:
        if arguments.only in (None, work):
            show_work(work, arguments.rounds, arguments.threads)
    if arguments.only in (None, "engine"):
        hand, plain = child("calls_of")
        same = "the same" if hand == plain else f"not {hand}"
        print(f"aten calls of the plain evaluation, {sum(plain.values())}, and of the loop by hand: {same}")
        show_shares()
    if arguments.only in (None, "ratios"):
        show_ratios(2 * arguments.rounds)
    if arguments.only in (None, "start"):
        begun, ended = child("start_up")
        print(f"CPU time from the start of Python to the first step {begun:.1f} s, to its end {ended:.1f} s")
    if arguments.only in (None, "growth"):
        show_growth()


if __name__ == "__main__":
    main()
