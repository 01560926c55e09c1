"""What the benchmarks measure with: times of options side by side, and the memory of a process."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

OUTSIDE = "outside of operators"
KINDS = {"conv": "convolutions", "batch_norm": "norms", "pool": "poolings", "": "other operators"}
"""Operators of torch by what is in their names, the first that fits."""


def timed(
    options: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each option, round by round, after a call of each; every round meets the machine as it then is."""
    for run in options.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in options}
    for _ in range(rounds):
        for name, run in options.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return times


def gains(times: Mapping[str, list[float]], option: str) -> list[float]:
    """How many times faster an option is than the first one, round by round."""
    reference = times[next(iter(times))]
    return [base / own for base, own in zip(reference, times[option], strict=True)]


def exponent(sizes: Iterable[float], values: Iterable[float]) -> float:
    """The power of the size that values grow with: the slope of the line through the logarithms."""
    return statistics.linear_regression(list(map(math.log, sizes)), list(map(math.log, values))).slope


def shares(run: Callable[[], object]) -> dict[str, float]:
    """What share of a profiled call each kind of operator takes, and what no operator of torch accounts for."""
    with profile(activities=[ProfilerActivity.CPU]) as events:
        start = time.perf_counter()
        run()
        total = time.perf_counter() - start
    found = dict.fromkeys([*KINDS.values(), OUTSIDE], 0.0)
    for event in events.key_averages():
        if event.key.startswith("aten::"):
            kind = next(kind for part, kind in KINDS.items() if part in event.key)
            found[kind] += event.self_cpu_time_total / 1e6 / total
    return found | {OUTSIDE: 1 - sum(found.values())}


def high_water() -> float:
    """MiB at the peak of this process, its resident pages; not a number where the system does not say."""
    status = Path("/proc/self/status").read_text(encoding="ascii")  # ru_maxrss would count the parent's pages too
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else math.nan
