"""Time `nas predict` on a film of 640x480: CPU seconds a frame, memory, and what threads gain.

The network is a model, that of a run, or the first random genotype of the configuration `compact`. Everything counts
from the file to the file: decoding, deraining, encoding. Every round also times one fixed convolution, so that figures
of machines of different speed and load can be compared: the ratio is that of a frame to 20 such convolutions.

`--threads` starts a process for each policy of waiting threads, round by round, with and without two busy processes
beside it. `--shares` tells which operators the second thread computes nothing of. Set OMP_NUM_THREADS=1 without
`--threads` and `--shares`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import nas
from measured import high_water, timed
from nas.kernels.freed_memory import memory_kept
from nas.kernels.torch_internals import TorchDispatchMode
from nas.run.config import load_config
from nas.space.definition import find_space
from tmics_space.data.frames import iterate_frames
from tmics_space.data.texture import moving_texture
from tmics_space.data.writer import write_frames
from tmics_space.predict import derain, derain_file

SIZE = (480, 640)
CONVOLUTIONS = 20
POLICIES: dict[str, dict[str, str]] = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads, policy of libgomp": {"OMP_NUM_THREADS": "2"},
    "2 threads, GOMP_SPINCOUNT=300000": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "300000"},
    "2 threads, GOMP_SPINCOUNT=10000": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "10000"},
    "2 threads, GOMP_SPINCOUNT=1000": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "1000"},
    "2 threads, OMP_WAIT_POLICY=passive": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
}
BUSY = "import time\nwhile True: pass"


def network_of(model: str) -> nn.Module:
    if model:
        return nas.load(model)
    space, config = find_space("tmics"), load_config("compact")
    options = {**config.options, "alignment": ["ofm"]}
    return space.derived(space.sample(torch.Generator().manual_seed(0), **options)).eval()


def film(folder: Path, frames: int) -> Path:
    with write_frames(folder / "rainy.mp4") as write:
        for frame in moving_texture(frames, *SIZE):
            write(frame)
    return folder / "rainy.mp4"


@torch.no_grad()
def convolutions() -> None:
    image = torch.zeros(1, 32, 240, 320).to(memory_format=torch.channels_last)
    kernel = torch.zeros(32, 32, 5, 5)
    for _ in range(CONVOLUTIONS):
        F.conv2d(image, kernel, padding=2)


def cost(model: str, frames: int, rounds: int) -> None:
    network = network_of(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, sink = film(folder, frames), folder / "clean.mp4"

        def whole() -> None:
            sink.unlink(missing_ok=True)
            derain_file(network, source, sink)

        def copied() -> None:
            sink.unlink(missing_ok=True)
            with write_frames(sink, like=iterate_frames(source).film) as write:
                for frame, span in iterate_frames(source).timed():
                    write(frame, span=span)

        options = {"convolutions": convolutions, "predict": whole, "decode and encode": copied}
        times = timed(options, rounds, time.process_time)
    fixed = times.pop("convolutions")
    print(f"| CPU s a frame | median of {rounds} | smallest to largest | ratio to {CONVOLUTIONS} convolutions |")
    print("|---|---|---|---|")
    for part, values in times.items():
        each = [value / frames for value in values]
        ratio = statistics.median(value / base for value, base in zip(each, fixed, strict=True))
        print(f"| {part} | {statistics.median(each):.3f} | {min(each):.3f} to {max(each):.3f} | {ratio:.2f} |")
    print(
        f"| {CONVOLUTIONS} convolutions | {statistics.median(fixed):.3f} | {min(fixed):.3f} to {max(fixed):.3f} | 1 |"
    )
    print(f"\npeak memory of the process: {high_water():.0f} MiB")


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other processes that compute all the time."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def child(model: str, frames: int) -> None:
    """Print the seconds that frames take, without the first of them."""
    out = derain(network_of(model), moving_texture(frames + 12, *SIZE))
    with memory_kept():  # as `derain_file` does
        next(out)
        start = time.perf_counter()
        for _ in range(frames):
            next(out)
        print(time.perf_counter() - start)


def threads(model: str, frames: int, rounds: int, processes: int) -> None:
    command = [sys.executable, __file__, "--child", "--frames", str(frames), *([model] if model else [])]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    speeds: dict[str, list[float]] = {name: [] for name in POLICIES}
    with busy(processes):
        for _ in range(rounds):
            for name, policy in POLICIES.items():
                done = subprocess.run(command, env={**clean, **policy}, check=True, capture_output=True, text=True)
                speeds[name].append(frames / float(done.stdout))
    print(f"| {processes} busy processes beside it | frames a second | smallest to largest | gain |\n|---|---|---|---|")
    for name, values in speeds.items():
        gain = statistics.median(value / one for value, one in zip(values, speeds["1 thread"], strict=True))
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} | {gain:.2f} |")


class CPUTimes(TorchDispatchMode):
    """CPU seconds of each operator: of this thread, and of all."""

    def __init__(self) -> None:
        super().__init__()
        self.own: dict[str, float] = defaultdict(float)
        self.all: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own, every = time.thread_time(), time.process_time()
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.own[name] += time.thread_time() - own
        self.all[name] += time.process_time() - every
        return out


def shares(model: str, frames: int) -> None:
    """Print how much of the work other threads do; set OMP_NUM_THREADS=2 and GOMP_SPINCOUNT=0: spinning counts too."""
    out = derain(network_of(model), moving_texture(frames + 12, *SIZE))
    with memory_kept():
        with CPUTimes():  # imports what modes need
            next(out)
        with CPUTimes() as times:
            own, every = time.thread_time(), time.process_time()
            for _ in range(frames):
                next(out)
            own, every = time.thread_time() - own, time.process_time() - every
    rest = (own - sum(times.own.values()), every - sum(times.all.values()))
    rows = {name: (times.own[name], times.all[name]) for name in times.all} | {"outside of operators": rest}
    print("| operator | share of CPU time | of it in the first thread |\n|---|---|---|")
    for name, (first, total) in sorted(rows.items(), key=lambda row: -row[1][0])[:12]:
        print(f"| {name} | {100 * total / every:.1f} % | {100 * first / total:.0f} % |")
    print(f"| all | 100 % | {100 * own / every:.0f} % |\n\nthe most that two threads can gain: {every / own:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="", help="name of a model, or folder of a run")
    parser.add_argument("--frames", type=int, default=6, help="frames of the film (default 6)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--threads", action="store_true", help="compare policies of waiting threads")
    parser.add_argument("--shares", action="store_true", help="tell what the second thread computes")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.model, given.frames)
    elif given.threads:
        for processes in (0, 2):
            threads(given.model, given.frames, given.rounds, processes)
    elif given.shares:
        shares(given.model, given.frames)
    else:
        cost(given.model, given.frames, given.rounds)


if __name__ == "__main__":
    main()
