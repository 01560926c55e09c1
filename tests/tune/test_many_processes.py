"""Processes and hosts that share a study: each trial is run once, and that of a lost process is taken again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import processes
import toy
from nas.run.folder import read_records
from nas.tune.tuning import Tuning, tune

SMALL = ["search.steps=8", "search.epochs=2", "retrain.stages.backbone.steps=6", "retrain.stages.averaging.steps=4",
         "retrain.epochs=4"]  # fmt: skip
LR = "search.levels.upper.optimizer.lr"
TUNED = [f"{LR}=log(1e-3, 1e-1)", "retrain.stages.backbone.level.optimizer.lr=log(1e-3, 1e-1)"]
OTHER_HOST = ["--import", "other_host", "--grace", "1"]
RECORDS = ["trial-0000/search/metrics.jsonl", "trial-0000/retrain/metrics.jsonl"]


def run(out: Path, url: str, *overrides: str, trials: int = 1) -> Tuning:
    return tune(toy.CONFIG, [*SMALL, *TUNED, *overrides], trials=trials, storage=url, out=out)


def arguments(out: Path, url: str, *overrides: str, trials: int = 1) -> list[str]:
    return ["tune", str(toy.CONFIG), *SMALL, *TUNED, *overrides, "--trials", str(trials), "--out", str(out), "--import",
            "toy", "--storage", url, "--quiet"]  # fmt: skip


@pytest.mark.parametrize("kind", ["journal", pytest.param("sqlite", marks=pytest.mark.slow), "postgresql"])
def test_two_processes_share_the_trials(kind: str, storage_url: Callable[[str], str], tmp_path: Path) -> None:
    out, url = tmp_path / "out", storage_url(kind)
    command = arguments(out, url, "task.pause=0.01", trials=5)
    both = [processes.start(*command, errors=tmp_path / f"errors-{i}") for i in range(2)]
    assert [processes.finish(process) for process in both] == [0, 0]
    assert [(tmp_path / f"errors-{i}").read_text() for i in range(2)] == ["", ""]
    trials = run(out, url, "task.pause=0.01", trials=5).trials
    assert [trial.number for trial in trials] == list(range(5))
    assert {trial.state for trial in trials} <= {"complete", "pruned"}
    assert sorted(path.name for path in out.glob("trial-*/search")) == ["search"] * 5
    assert len({trial.settings[LR] for trial in trials}) == 5
    for trial in trials:  # once, from its beginning to its end
        records = read_records(out / f"trial-{trial.number:04d}" / "search")
        assert [r["step"] for r in records if r["kind"] == "train" and r["level"] == "lower"] == list(range(1, 9))


KILL, HALT = signal.SIGKILL, signal.SIGSTOP


@pytest.mark.parametrize(
    ("kind", "host", "how"),
    [
        ("journal", [], KILL),
        ("journal", OTHER_HOST, KILL),
        ("postgresql", OTHER_HOST, KILL),
        pytest.param("sqlite", OTHER_HOST, KILL, marks=pytest.mark.slow),
        pytest.param("journal", OTHER_HOST, HALT, marks=pytest.mark.slow),
        pytest.param("postgresql", OTHER_HOST, HALT, marks=pytest.mark.slow),
    ],
)
def test_the_trial_of_a_lost_process_is_taken_again_with_the_same_result(
    kind: str, host: list[str], how: signal.Signals, storage_url: Callable[[str], str], tmp_path: Path
) -> None:
    pause = "task.pause=0.05"
    whole = run(tmp_path / "whole", f"journal:{tmp_path}/whole.log", pause)
    out, url = tmp_path / "out", storage_url(kind)
    command = [*arguments(out, url, pause), *host]
    lost = processes.start(*command, errors=tmp_path / "lost")
    processes.wait_for(lost, out / RECORDS[1], 500)
    heir = processes.start(*command, errors=tmp_path / "heir")
    time.sleep(0.1)
    assert lost.pid is not None
    os.kill(lost.pid, how)
    assert processes.finish(heir) == 0
    assert run(out, url, pause) == whole
    if how == HALT:
        os.kill(lost.pid, signal.SIGCONT)
        assert processes.finish(lost) == 0
        assert "trial 0: another process has taken it over" in (tmp_path / "lost").read_text()
        assert run(out, url, pause) == whole
    for name in RECORDS:
        assert (out / name).read_text() == (tmp_path / "whole" / name).read_text()


@pytest.mark.slow
def test_a_killed_trial_is_gone_on_with(tmp_path: Path) -> None:
    whole = run(tmp_path / "a", f"journal:{tmp_path}/whole.log", "task.pause=0.02", trials=3)
    out = tmp_path / "out"
    url = f"journal:{tmp_path}/study.log"
    command = arguments(out, url, "task.pause=0.02", trials=3)
    for folder in ("trial-0000/search", "trial-0001/retrain", "trial-0002/search"):
        process = processes.start(*command)
        processes.wait_for(process, out / folder / "metrics.jsonl", 600)
        process.kill()
        assert processes.finish(process) == -9
        time.sleep(0.05)
    assert processes.finish(processes.start(*command)) == 0
    found = run(out, url, "task.pause=0.02", trials=3)
    assert [trial.state for trial in found.trials] == ["complete"] * 3
    assert found.trials[0] == whole.trials[0]
    for name in ("search", "retrain"):
        paths = [folder / "trial-0000" / name / "metrics.jsonl" for folder in (tmp_path / "a", out)]
        assert paths[0].read_text() == paths[1].read_text()
    assert found == whole
