"""What the benchmarks measure with: times of options side by side, and the memory of a process."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path


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


def high_water() -> float:
    """MiB at the peak of this process, its resident pages; not a number where the system does not say."""
    status = Path("/proc/self/status").read_text(encoding="ascii")  # ru_maxrss would count the parent's pages too
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else math.nan
