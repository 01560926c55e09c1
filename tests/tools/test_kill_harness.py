"""Runs that are killed inside the writes of their checkpoints, at events of files, and resumed, equal others."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType

import pytest
import torch

import processes
import toy
from nas.run import checkpoint
from runs import run_search

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is of Linux")
OFTEN = "search.checkpoint_minutes=1e-6"


@pytest.fixture(scope="module")
def harness(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("kill_harness")


class Forked:
    """A process of the server that has imported the package."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process, self.pid = process, process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        return processes.finish(self._process)


def forked(arguments: Sequence[str]) -> Forked:
    return Forked(processes.start(*arguments, "--import", "toy"))


def test_three_kills_inside_the_write_of_a_checkpoint(harness: ModuleType, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    run_search(whole, toy.config(OFTEN))
    job = harness.Job(["search", str(toy.CONFIG), OFTEN, "--quiet"])
    chain = harness.run_chain(job, whole, tmp_path / "run", start=forked, seed=0, kills=3, inside=3, pause=1.0)
    assert not chain.differences
    assert sum(place in harness.INSIDE for place in chain.landed) >= 3, chain.landed


def test_what_differs_is_named(harness: ModuleType, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    states = {"weight": torch.tensor([0.0, 1.0]), "nan": float("nan"), "list": [1, (2, "x")]}
    checkpoint.save(a / "last.pt", {"state": states, "files": {"versions.yaml": "now"}})
    checkpoint.save(b / "last.pt", {"state": states, "files": {"versions.yaml": "then"}})
    for folder in (a, b):
        (folder / "metrics.jsonl").write_text("{}\n")
        (folder / "versions.yaml").write_text(folder.name)
    assert list(harness.compare(a, b)) == []
    changes = {"weight": torch.tensor([-0.0, 1.0]), "list": [1, (2, "y")], "nan": 0.0}
    checkpoint.save(b / "last.pt", {"state": states | changes, "files": {}})
    (b / "metrics.jsonl").write_text("{} \n")
    (b / "more.yaml").touch()
    (a / "best.yaml").touch()
    assert list(harness.compare(a, b)) == [
        "best.yaml: missing",
        "more.yaml: not expected",
        "last.pt/state/weight: other bits",
        "last.pt/state/nan: nan, then 0.0",
        "last.pt/state/list/1/1: 'x', then 'y'",
        "metrics.jsonl: other bytes",
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["digits", "tmics", "sampled", "retraining", "tuning"])
def test_six_chains_of_five_kills(name: str, harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "argv", ["kill_harness", "--only", name, "--chains", "6", "--kills", "5", "--seed", "1"])
    assert harness.main() == 0
