"""Kill runs inside the writes of their checkpoints, resume them, and compare them with uninterrupted runs.

Five kinds of runs: a search for digits, a small search of TMICS, a search with a sampled relaxation and a wrapper, a
retraining, and a tuning. A chain kills one run again and again by SIGKILL, and resumes it each time. At least three
kills of a chain come while a checkpoint is written, at an event of its file that the system reports (inotify), and what
they leave is looked at: a kill that came after the write does not count. The others come at random times. Then the run
ends, and every tensor and every text must equal that of the uninterrupted run, bit for bit. Processes are real ones,
`python -m nas`. Linux only. The exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nas.run import checkpoint
from nas.run.folder import TIMES, VERSIONS
from nas.space.definition import find_space
from nas.tune.tuning import Tuning, tune
from tmics_space.data import moving_texture, write_frames

CREATED, MODIFIED, RENAMED, FOLDER = 0x100, 0x2, 0x80, 0x40000000
"""Events of inotify: a file is created, modified, renamed to this name; the file is a folder."""
MOMENTS: Mapping[str, tuple[int, str]] = {
    "created": (CREATED, ".last.pt."),
    "written": (MODIFIED, ".last.pt."),
    "kept": (RENAMED, "previous.pt"),
}
"""Events inside the write of a checkpoint: the new file is there, has content; the old one has got its other name."""
RANDOM = "at a random time"
OFTEN = 1e-6
"""Minutes between checkpoints: a step."""
LANDED = ("before the renames", "between the renames", "after the write", RANDOM)
"""Where a kill came, by what it left."""
INSIDE = LANDED[:2]
TRIALS = 2
"""Of the tuning."""
OWN = (VERSIONS, TIMES, "report.html", "previous.pt", "study.log", ".lock")
"""Files that name the time of a run or of its checkpoints, or are locks."""


class Process(Protocol):
    """A run that can be killed."""

    @property
    def pid(self) -> int | None: ...

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        ...

    def wait(self) -> int | None:
        """Wait for its end; returns the exit code, or the signal that killed it as a negative number."""
        ...


Start = Callable[[Sequence[str]], Process]
"""Starts `nas` with arguments."""


class Job(NamedTuple):
    """A run that is killed."""

    arguments: Sequence[str]
    """Of `nas`, but for `--out` and `--resume`."""
    resumes: bool = True
    """Whether `--resume` continues it; a tuning continues by itself."""

    def command(self, out: Path) -> list[str]:
        begun = self.resumes and (out / "config.yaml").is_file()
        return [*self.arguments, "--out", str(out), *(["--resume"] if begun else [])]


class Watch:
    """The events of files below a folder, as the system reports them, in order (inotify)."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file: int = self._libc.inotify_init1(os.O_CLOEXEC)
        self._folders: dict[int, Path] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._add(folder)

    def _add(self, folder: Path) -> None:
        number = self._libc.inotify_add_watch(self._file, os.fsencode(folder), CREATED | MODIFIED | RENAMED)
        if number < 0:
            raise OSError(ctypes.get_errno(), f"{folder} cannot be watched")
        self._folders[number] = folder
        for inner in folder.iterdir():
            if inner.is_dir():
                self._add(inner)

    def events(self) -> Iterator[tuple[int, str]]:
        """The events so far, and those within a tenth of a second if there are none: kind and name of the file."""
        if not select.select([self._file], [], [], 0.1)[0]:
            return
        data = os.read(self._file, 65536)
        while data:
            number, kind, _, length = struct.unpack("iIII", data[:16])
            name = data[16 : 16 + length].rstrip(b"\0").decode()
            data = data[16 + length :]
            if kind & FOLDER and kind & CREATED:
                self._add(self._folders[number] / name)
            yield kind, name

    def close(self) -> None:
        os.close(self._file)


class Chain(NamedTuple):
    """What came of a chain of kills."""

    landed: list[str]
    """Where each kill came."""
    differences: list[str]
    """What is not equal to the uninterrupted run."""


def run_chain(
    job: Job, whole: Path, out: Path, *, start: Start, seed: int, kills: int, inside: int, pause: float
) -> Chain:
    """Kill a run and resume it; then compare it with the uninterrupted one.

    Args:
        job: the run.
        whole: the folder of the uninterrupted run.
        out: the folder to write.
        start: starts a process.
        seed: of the moments.
        kills: how many there are at least.
        inside: how many of them must come inside the write of a checkpoint.
        pause: the longest time before a kill at a random time, in seconds.
    """
    pick = random.Random(seed)
    plan = [*pick.choices(list(MOMENTS), k=inside), *[RANDOM] * (kills - inside)]
    pick.shuffle(plan)
    landed: list[str] = []
    missing = 0
    while plan:
        moment = plan.pop()
        process = start(job.command(out))
        if moment == RANDOM:
            time.sleep(pick.uniform(0, pause))
            killed = kill(process)
            place = RANDOM
        else:
            killed = kill_at(process, out, *MOMENTS[moment], count=pick.randint(1, 2))
            place = landing(out)
            if place not in INSIDE and missing < 3 * kills:  # the system was faster; once more
                missing += 1
                plan.append(pick.choice(list(MOMENTS)))
        if not killed:
            return Chain(landed, [f"the run ended before kill {len(landed) + 1}"])
        landed.append(place)
    if sum(place in INSIDE for place in landed) < inside:
        return Chain(landed, [f"fewer than {inside} kills came inside the write of a checkpoint"])
    code = start(job.command(out)).wait()
    return Chain(landed, [f"the resumed run ended with {code}"] if code else [*compare(whole, out)])


def kill_at(process: Process, out: Path, kind: int, name: str, count: int) -> bool:
    """Kill a process at an event, when it comes for the time number `count`; returns False if it ended before."""
    watch, cores, policy = Watch(out), os.sched_getaffinity(0), os.sched_getscheduler(0)
    assert process.pid is not None
    for each in (process.pid, 0):  # on one core this process takes over from the other as soon as an event wakes it
        os.sched_setaffinity(each, {min(cores)})
    with suppress(PermissionError):  # root can have it take over from all others too
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        while True:
            for event, file in watch.events():
                if event & kind and file.startswith(name):
                    count -= 1
                    if not count:
                        return kill(process)
            if process.poll() is not None:
                return False
    finally:
        with suppress(PermissionError):
            os.sched_setscheduler(0, policy, os.sched_param(0))
        os.sched_setaffinity(0, cores)
        watch.close()


def kill(process: Process) -> bool:
    """Kill a process; returns whether it had not ended before."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def landing(out: Path) -> str:
    """Where in the write of a checkpoint a kill came, by the files that it left."""
    for temporary in out.rglob(".last.pt.*"):
        previous = temporary.with_name("previous.pt").exists()
        return LANDED[1] if previous and not temporary.with_name("last.pt").exists() else LANDED[0]
    return LANDED[2]


def compare(whole: Path, other: Path) -> Iterator[str]:
    """What differs between the folders of two runs."""
    names = [
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} for folder in (whole, other)
    ]
    names = [{name for name in each if not name.endswith(OWN)} for each in names]
    for name in sorted(names[0] ^ names[1]):
        yield f"{name}: {'missing' if name in names[0] else 'not expected'}"
    for name in sorted(names[0] & names[1]):
        if name.endswith(".pt"):
            states = [checkpoint.load(folder / name) for folder in (whole, other)]
            for state in states:
                state.get("files", {}).pop(VERSIONS, None)
            yield from different(*states, name)
        elif (whole / name).read_bytes() != (other / name).read_bytes():
            yield f"{name}: other bytes"


def different(a: Any, b: Any, where: str) -> Iterator[str]:
    """The places at which nested states differ: types, keys and their order, values, bits of tensors."""
    if type(a) is not type(b):
        yield f"{where}: {type(a).__name__}, then {type(b).__name__}"
    elif isinstance(a, Tensor):
        bits = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (a, b)]
        if a.dtype != b.dtype or a.shape != b.shape or not torch.equal(*bits):
            yield f"{where}: other bits"
    elif isinstance(a, dict):
        if list(a) != list(b):
            yield f"{where}: other keys"
        for key in (key for key in a if key in b):
            yield from different(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            yield from different(*pair, f"{where}/{i}")
    elif a != b and not (a != a and b != b):
        yield f"{where}: {a!r}, then {b!r}"


def jobs(folder: Path) -> dict[str, Job]:
    """The five runs, with their data in a folder."""
    for seed, name in enumerate(("one", "two", "three", "rainy")):
        with write_frames(folder / name) as write:
            for frame in moving_texture(6, 20, 24, seed):
                write(frame)
    films = "{{kind: films, films: {{{}}}}}".format
    train = films(", ".join(f"{name}: {folder / name}" for name in ("one", "two", "three")))
    small = ["options.channels=4", "options.layers=1", "options.dna_cells=1", "options.cna_cells=1", "task.crop=16"]
    steps = ["search.steps=40", "search.epochs=4", f"search.checkpoint_minutes={OFTEN}"]
    sampled = ["search.relaxation=gumbel", "search.wrappers=[{name: partial_channels, k: 2}, edge_normalization]"]
    find_space("digits").sample(torch.Generator().manual_seed(0)).save(folder / "genotype.yaml")
    trained = ["retrain.stages.all.steps=40", "retrain.epochs=4", f"retrain.checkpoint_minutes={OFTEN}"]
    held_out = ["retrain.stages.all.level.split=train", "retrain.validation={batches: 2}", "retrain.ema=0.9"]
    tuned = ["search.levels.upper.optimizer.lr=log(1e-3, 1e-1)", "--trials", str(TRIALS)]
    few = ["search.steps=20", "search.epochs=2", f"search.checkpoint_minutes={OFTEN}"]
    few += ["retrain.stages.all.steps=20", "retrain.epochs=2", f"retrain.checkpoint_minutes={OFTEN}"]
    data = [f"task.train={train}", f"task.test={films(f'rainy: {folder}/rainy')}", "task.batch=1"]
    found = {
        "digits": Job(["search", "digits", *steps]),
        "tmics": Job(["search", "demo", *steps, *small, *data]),
        "sampled": Job(["search", "digits", *steps, *sampled]),
        "retraining": Job(["retrain", str(folder / "genotype.yaml"), "--config", "digits", *trained, *held_out]),
        "tuning": Job(["tune", "digits", *few, *tuned], resumes=False),
    }
    return {name: Job([*job.arguments, "--quiet"], job.resumes) for name, job in found.items()}


def start(arguments: Sequence[str]) -> Process:
    """Start `python -m nas`, silently but for errors."""
    return subprocess.Popen([sys.executable, "-m", "nas", *arguments], stdout=subprocess.DEVNULL)


def studied(job: Job, out: Path) -> Tuning:
    """The trials of a tuning that has ended."""
    overrides = [argument for argument in job.arguments[2:] if "=" in argument]
    return tune(job.arguments[1], overrides, trials=TRIALS, storage=f"journal:{out}/study.log", out=out)


def run_job(name: str, job: Job, folder: Path, chains: int, kills: int, seed: int) -> Iterator[Chain]:
    """Run a job without interruption, then its chains."""
    whole = folder / name / "whole"
    begun = time.monotonic()
    if code := start(job.command(whole)).wait():
        raise SystemExit(f"{name}: the uninterrupted run ended with {code}")
    pause = (time.monotonic() - begun) / 3  # so that several kills come before the end
    for number in range(chains):
        out = folder / name / f"chain-{number}"
        chain = run_chain(job, whole, out, start=start, seed=seed + number, kills=kills, inside=3, pause=pause)
        if not job.resumes and not chain.differences and studied(job, whole) != studied(job, out):
            chain.differences.append("other trials")
        yield chain


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=6, help="of each run (default 6)")
    parser.add_argument("--kills", type=int, default=5, help="of each chain, at least 3 (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other moments (default 0)")
    parser.add_argument("--only", action="append", help="the name of a run: digits, tmics, sampled, retraining, tuning")
    parser.add_argument("--out", type=Path, help="where the runs are kept; by default nowhere")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    table = Table("run", "chains", *LANDED, "equal", "CPU seconds")
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        for name, job in jobs(folder / "data").items():
            if arguments.only and name not in arguments.only:
                continue
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            chains = []
            for chain in run_job(name, job, folder, arguments.chains, arguments.kills, arguments.seed):
                chains.append(chain)
                failed += [f"{name}, chain {len(chains) - 1}: {text}" for text in chain.differences[:5]]
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            count = Counter(place for chain in chains for place in chain.landed)
            equal = sum(not chain.differences for chain in chains)
            table.add_row(name, str(len(chains)), *(str(count[p]) for p in LANDED), f"{equal}", f"{spent:.0f}")
    console = Console(width=118)
    console.print(table)
    for line in failed:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
