"""What the benchmarks measure with: times of options side by side, and the memory of a process."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
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


def high_water() -> float:
    """MiB at the peak of this process, its resident pages; not a number where the system does not say."""
    status = Path("/proc/self/status").read_text(encoding="ascii")  # ru_maxrss would count the parent's pages too
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else math.nan
