"""The commands of docs/distributed.md under torchrun, and a rank that is killed: real processes, imports included."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from nas.cli.launching import RANKED
from nas.files import owner_of
from nas.front.running import search
from nas.genotype.file import Genotype
from nas.run.folder import read_records
from toy import CONFIG, config

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
SMALL = ("search.steps=2", "search.epochs=1", "retrain.stages.all.steps=2", "retrain.epochs=1")
WITHIN = 30.0
"""Seconds in which the other ranks stop after one is killed."""


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'toys'}"}


def started(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    with (folder / "errors.txt").open("w") as errors:  # the process has a copy of it
        return subprocess.Popen([*TORCHRUN, *arguments], cwd=folder, env=environment(), stderr=errors, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^\$ torchrun (.*)$", page, re.MULTILINE)]
    assert {command[command.index("nas") + 1] for command in commands} == {"search", "retrain", "evaluate"}
    for command in commands:
        if "--nnodes" in command:
            continue  # it needs two machines
        small = SMALL if command[command.index("nas") + 1] != "evaluate" else ()
        subprocess.run([*TORCHRUN, "--standalone", *command, *small], cwd=tmp_path, env=environment(), check=True)
    assert (tmp_path / "runs" / "search" / "report.html").is_file()
    assert (tmp_path / "runs" / "network" / "weights.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_is_killed_and_the_run_resumes(killed: int, tmp_path: Path) -> None:
    run, changes = tmp_path / "run", ("search.steps=40", "search.epochs=8", "task.batch=5", "task.pause=0.02")
    command = ["-m", "nas", "--import", "toy", "search", str(CONFIG), *changes, "--out", str(run), "--quiet"]
    process = started(["--standalone", "--nproc-per-node", "2", *command], tmp_path)
    while not (run / "metrics.jsonl").is_file() or len(read_records(run)) < 30:
        assert process.poll() is None, (tmp_path / "errors.txt").read_text()
        time.sleep(0.01)
    first = int(owner_of(run / ".lock").split()[1])
    children = " ".join(path.read_text() for path in Path("/proc").glob(f"{process.pid}/task/*/children"))
    (other,) = {int(pid) for pid in children.split() if _is_rank(int(pid))} - {first}
    os.kill(first if killed == 0 else other, signal.SIGKILL)
    begun = time.monotonic()
    assert process.wait(2 * WITHIN) != 0
    assert time.monotonic() - begun < WITHIN
    told = [line for line in (tmp_path / "errors.txt").read_text().splitlines() if line.startswith("nas: ")]
    assert len(told) == 1
    assert "another rank has stopped" in told[0]
    assert "--resume" in told[0]
    with pytest.warns(UserWarning, match=r"ranks \(was 2, now 1\)"):
        search(config(*changes), out=run, resume=True, progress=False)
    search(config(*changes), out=tmp_path / "whole", progress=False)
    steps = [
        [each["step"] for each in read_records(path) if each["kind"] == "train"] for path in (run, tmp_path / "whole")
    ]
    assert steps[0] == steps[1]
    assert Genotype.load(run / "genotype.yaml").choices == Genotype.load(tmp_path / "whole" / "genotype.yaml").choices


def _is_rank(pid: int) -> bool:
    return b"\0RANK=" in Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_other_commands_say_that_they_run_in_one_process(tmp_path: Path) -> None:
    process = started(["--standalone", "--nproc-per-node", "2", "-m", "nas", "tune", "digits", "--out", "x"], tmp_path)
    assert process.wait() != 0
    told = (tmp_path / "errors.txt").read_text()
    assert f"torchrun must start one of the commands {', '.join(RANKED)}, got 'tune'" in told
