"""Commands that get signals, or lose their folder, on the way: one line, an exit code, and nothing lost."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import processes
import toy
from nas.run import checkpoint
from nas.run.examination import examine
from nas.run.folder import Run
from nas.run.searching import search

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
STARTED = """
import os
from nas.cli import main
from nas.cli.signals import Interrupts

enter = Interrupts.__enter__
Interrupts.__enter__ = lambda self: (enter(self), os.write(1, b"."))
main()
"""
"""A program that is `nas`, and tells when it handles signals."""


def send(pid: int | None, number: signal.Signals) -> None:
    assert pid is not None
    os.kill(pid, number)


@pytest.mark.parametrize("number", CODES)
def test_a_run_saves_the_step_at_hand(number: signal.Signals, tmp_path: Path) -> None:
    changes = ("search.steps=40", "search.epochs=2")
    config = toy.config(*changes, "task.pause=0.01")
    with Run.create(tmp_path / "whole", config.dump(), config.seed) as run:
        search(config, run)
    out = tmp_path / "run"
    arguments = ["search", str(toy.CONFIG), *changes, "task.pause=0.01", "--import", "toy", "--out", str(out)]
    process = processes.start(*arguments, errors=tmp_path / "errors")
    processes.wait_for(process, tmp_path / "run" / "metrics.jsonl", 1200)
    send(process.pid, number)
    assert processes.finish(process) == CODES[number]
    line = f"nas: {WORDS[number]}; repeat the command with --resume to continue\n"
    assert (tmp_path / "errors").read_text() == line
    step = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")["state"]["step"]
    assert 0 < step < 20, "saved where it was interrupted, before the first epoch"
    assert processes.finish(processes.start(*arguments, "--resume")) == 0
    for name in ("metrics.jsonl", "genotype.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("numbers", [(signal.SIGINT,) * 2, (signal.SIGINT,) * 8, (signal.SIGTERM, signal.SIGINT)])
def test_a_second_signal_stops_at_once(numbers: tuple[signal.Signals, ...], tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["search", str(toy.CONFIG), "task.pause=20", "--import", "toy", "--out", str(out)]
    process = processes.start(*arguments, errors=tmp_path / "errors")
    processes.wait_for(process, out / "metrics.jsonl", 100)
    time.sleep(0.3)  # into the pause of the second step
    begun = time.monotonic()
    for number in numbers:
        with suppress(ProcessLookupError):  # ended by an earlier one
            send(process.pid, number)
        time.sleep(0.02)
    assert processes.finish(process) == CODES[numbers[0]]
    assert time.monotonic() - begun < 15
    line = (tmp_path / "errors").read_text()
    assert line.startswith(f"nas: {WORDS[numbers[0]]}")
    assert line.count("\n") == 1


@pytest.mark.parametrize(("number", "moments"), [(signal.SIGINT, (0, 0.1, 0.8)), (signal.SIGTERM, (0.02, 0.3, 1.5))])
def test_a_signal_during_imports_is_one_line(
    number: signal.Signals, moments: tuple[float, ...], tmp_path: Path
) -> None:
    """At moments from the first import to the last of a command that imports all."""
    out = tmp_path / "run"
    command = [sys.executable, "-c", STARTED, "search", "demo", "--out", str(out), "--quiet"]
    for moment in moments:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests may run in the background
        )
        assert process.stdout is not None
        assert process.stdout.read(1) == "."
        time.sleep(moment)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == CODES[number], errors
        assert errors.startswith(f"nas: {WORDS[number]}")
        assert errors.count("\n") == 1
        shutil.rmtree(out, ignore_errors=True)


def test_an_ignored_signal_stays_ignored() -> None:
    """As a shell has it for jobs in the background."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == "."
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "Usage: nas" in out


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_folder_that_is_lost_during_the_run(how: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["search", str(toy.CONFIG), "task.pause=0.05", "--import", "toy", "--out", str(out)]
    process = processes.start(*arguments, errors=tmp_path / "errors")
    processes.wait_for(process, out / "metrics.jsonl", 1000)
    if how == "removed":
        shutil.rmtree(out)
    else:
        out.rename(tmp_path / "moved")
    if how == "replaced":
        out.mkdir()
    assert processes.finish(process) == 2
    errors = (tmp_path / "errors").read_text()
    assert errors.startswith(f"nas: {out}: the folder was removed, moved or replaced during the run")
    assert errors.count("\n") == 1
    assert not list(out.rglob("*")), "nothing is written where no run is"
    if how == "moved":
        (tmp_path / "moved").rename(out)
        assert processes.finish(processes.start(*arguments, "--resume")) == 0


def test_a_tuning_that_is_terminated_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    steps = ["search.steps=40", "retrain.stages.backbone.steps=2", "retrain.stages.averaging.steps=1"]
    tuned = "search.levels.upper.optimizer.lr=log(1e-3, 1e-1)"
    arguments = ["tune", str(toy.CONFIG), *steps, "search.epochs=2", "task.pause=0.01", tuned, "--trials", "1", "--out"]
    arguments += [str(out), "--import", "toy", "--quiet"]
    process = processes.start(*arguments, errors=tmp_path / "errors")
    processes.wait_for(process, out / "trial-0000" / "search" / "metrics.jsonl", 1200)
    send(process.pid, signal.SIGTERM)
    assert processes.finish(process) == 143
    assert (tmp_path / "errors").read_text() == "nas: terminated; repeat the command to continue\n"
    assert checkpoint.load(out / "trial-0000" / "search" / "checkpoints" / "last.pt")["state"]["step"] not in (0, 20)
    words = shlex.split(examine(out / "trial-0000" / "search").command)
    assert words[:3] == ["nas", "tune", f"{out}/config.yaml"]
    assert processes.finish(processes.start(*words[1:], "--quiet")) == 0
    assert examine(out / "trial-0000" / "retrain").finished
