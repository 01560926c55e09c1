"""`nas` in processes to be killed, forked from a server that has imported the package, so that they start at once."""

from __future__ import annotations

import multiprocessing
import os
import random
import runpy
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = ["nas.run.searching", "nas.report.live", "nas.report.page", "nas.tune.tuning", "torch._dynamo"]
_CONTEXT.set_forkserver_preload(_PRELOADED)  # the last is what optimizers import when first used


def start(*arguments: str, errors: Path = Path(os.devnull), output: Path = Path(os.devnull)) -> ForkServerProcess:
    """Start `nas` with arguments, in this folder and with this search path; it prints to the files given."""
    process = _CONTEXT.Process(target=_nas, args=(arguments, errors, output))
    process.start()
    return process


def call(function: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """Start a process that calls a function of a module."""
    process = _CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


def program(path: str, *arguments: str, errors: Path = Path(os.devnull)) -> ForkServerProcess:
    """Start a program of the repository with arguments."""
    return call(_program, path, arguments, errors)


def wait_for(process: ForkServerProcess, file: Path, size: int) -> None:
    """Wait until `file` has `size` bytes; fails where the process ends before."""
    while not file.exists() or file.stat().st_size < size:
        assert process.is_alive(), f"ended with {process.exitcode} before {file.name} had {size} bytes"
        time.sleep(0.001)


def finish(process: ForkServerProcess) -> int | None:
    """Wait for the end of a process; returns its exit code."""
    process.join()
    return process.exitcode


def run_with_kills(arguments: list[str], out: Path, size: int, shares: list[float], seed: int) -> int | None:
    """Run a command into the folder `out`, and resume it each time it was killed; returns the last exit code.

    The kills come a random moment after the run's metrics have grown to each of these shares of `size` bytes.
    """
    moments = random.Random(seed)
    resume: list[str] = []
    for share in shares:
        process = start(*arguments, "--out", str(out), *resume)
        wait_for(process, out / "metrics.jsonl", round(share * size))
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        assert finish(process) == -9
        resume = ["--resume"]
    return finish(start(*arguments, "--out", str(out), "--resume"))


def _nas(arguments: tuple[str, ...], errors: Path, output: Path) -> None:
    from nas.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background inherit that it is ignored
    sys.argv = ["nas", *arguments]
    sys.stdout = output.open("w")  # until the process ends
    sys.stderr = errors.open("w", buffering=1)
    main()


def _program(path: str, arguments: tuple[str, ...], errors: Path) -> None:
    sys.path.insert(0, str(Path(path).parent))
    sys.argv = [path, *arguments]
    output = Path(os.devnull)
    sys.stdout = output.open("w")  # until the process ends
    sys.stderr = errors.open("w", buffering=1)
    runpy.run_path(path, run_name="__main__")
