"""Time the supernets of DARTS and NAS-Bench-201 on a CUDA device, under each evaluation, measured side by side.

For each step: wall time, time in which the device computes, and number of kernels. If the device computes for less than
the wall time, it waits for the processor to launch kernels. Memory is the peak of a step beyond what steps keep.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench import KERNEL, WORKS
from measured import gains, timed
from search_steps import Make, Run, Where, by_levels

BFLOAT16: dict[str, Make] = {"planned, precision: bfloat16": partial(by_levels, precision="bfloat16")}


def clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def kernels(run: Run) -> tuple[float, int]:
    """Seconds that the device computes in a step, and in how many kernels."""
    with profile(activities=[ProfilerActivity.CUDA]) as events:
        run()
        torch.cuda.synchronize()
    found = [event for event in events.key_averages() if event.device_type == DeviceType.CUDA]
    return sum(event.self_device_time_total for event in found) / 1e6, sum(event.count for event in found)


def peak(run: Run) -> float:
    """MiB of a step, beyond what is kept."""
    torch.cuda.reset_peak_memory_stats()
    kept = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - kept) / 2**20


def show(work: str, rounds: int, where: Where) -> None:
    makes = {option: make for option, make in WORKS[work].items() if option != KERNEL}
    makes |= BFLOAT16 if work == "DARTS, first order" else {}
    runs = {option: make(where) for option, make in makes.items()}
    times = timed(runs, rounds, clock)
    table = Table(
        "option", "step", "gain", "computing", "kernels", "MiB", title=f"{work}: a step", title_justify="left"
    )
    for option, run in runs.items():
        seconds, count = kernels(run)
        ratios = gains(times, option)
        table.add_row(
            option,
            f"{1e3 * statistics.median(times[option]):.0f} ms",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{1e3 * seconds:.0f} ms",
            str(count),
            f"{peak(run):.0f}",
        )
    Console(width=118).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (default 5)")
    parser.add_argument("--batch", type=int, default=64, help="images at once (default 64)")
    parser.add_argument("--only", choices=WORKS, help="print this table alone")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, "there is no CUDA device here\n")
    print(f"channels 16, 32x32, batch {arguments.batch}; torch {torch.__version__}; {torch.cuda.get_device_name()}")
    for work in WORKS:
        if arguments.only in (None, work):
            show(work, arguments.rounds, Where("cuda", arguments.batch))


if __name__ == "__main__":
    main()
