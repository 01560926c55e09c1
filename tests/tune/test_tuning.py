"""Studies on the toy space: what a trial is, pruning, failure, and processes that share a study or are killed."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import processes
import toy
from nas.errors import ConfigError
from nas.genotype.file import Genotype
from nas.run.config import load_config
from nas.run.folder import Run, read_records
from nas.run.retraining import evaluate, load_network, retrain
from nas.run.searching import search
from nas.tune.tuning import Tuning, tune

SMALL = ["search.steps=8", "search.epochs=2", "retrain.stages.backbone.steps=6", "retrain.stages.averaging.steps=4",
         "retrain.epochs=4"]  # fmt: skip
LR = "search.levels.upper.optimizer.lr"
RATE = "retrain.stages.backbone.level.optimizer.lr"
TUNED = [f"{LR}=log(1e-3, 1e-1)", f"{RATE}=log(1e-3, 1e-1)"]
GENOTYPE = Genotype(space="toy", choices=toy.CHEAPEST)


def run(out: Path, *overrides: str, trials: int = 3, storage: str = "", **arguments: Any) -> Tuning:
    storage = storage or f"journal:{out}/study.log"
    return tune(toy.CONFIG, [*SMALL, *overrides], trials=trials, storage=storage, out=out, **arguments)


def test_a_trial_is_what_the_plain_commands_do(tmp_path: Path) -> None:
    result = run(tmp_path / "tune", *TUNED, trials=2)
    assert [(trial.number, trial.state) for trial in result.trials] == [(0, "complete"), (1, "complete")]
    assert result.best == max(result.trials, key=lambda trial: trial.score or 0.0)
    trial = result.trials[1]
    assert 1e-3 <= float(trial.settings[LR]) <= 1e-1
    assert trial.settings != result.trials[0].settings
    held_out = [f"retrain.stages.{stage}.level.split=train" for stage in ("backbone", "averaging")]
    config = load_config(toy.CONFIG, [*SMALL, *held_out, *(f"{k}={value}" for k, value in trial.settings.items())])
    with Run.create(tmp_path / "search", config.dump(), 0) as searched:
        genotype = search(config, searched)
    with Run.create(tmp_path / "retrain", config.dump(), 0) as retrained:
        network = retrain(config, genotype, retrained)
    folder = tmp_path / "tune" / "trial-0001"
    assert Genotype.load(folder / "search" / "genotype.yaml") == genotype
    for a, b in zip(network.state_dict().values(), load_network(folder / "retrain").state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert trial.score == evaluate(network, config.build_task(), "val")["score"]
    evaluations = [r for r in read_records(folder / "retrain") if r["kind"] == "evaluate"]
    assert [r["step"] for r in evaluations] == [3, 5, 8, 10]
    assert evaluations[-1]["score"] == trial.score


def test_equal_seeds_give_equal_studies_and_more_trials_go_on(tmp_path: Path) -> None:
    whole = run(tmp_path / "a", *TUNED, trials=3)
    run(tmp_path / "b", *TUNED, trials=1)
    before = (tmp_path / "b" / "trial-0000" / "retrain" / "metrics.jsonl").stat()
    assert run(tmp_path / "b", *TUNED, trials=3) == whole
    assert (tmp_path / "b" / "trial-0000" / "retrain" / "metrics.jsonl").stat() == before
    assert run(tmp_path / "b", *TUNED, trials=2) == whole  # there are more already
    assert run(tmp_path / "c", *TUNED, "seed=1", trials=1).trials[0].settings != whole.trials[0].settings


def test_a_section_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(toy.CONFIG.read_text() + f"tune:\n  {RATE}: choice(0.01, 0.02)\n")
    result = tune(path, SMALL, trials=1, storage=f"journal:{tmp_path}/s.log", out=tmp_path / "out", genotype=GENOTYPE)
    assert result.trials[0].settings[RATE] in ("0.01", "0.02")
    assert not (tmp_path / "out" / "trial-0000" / "search").exists()
    assert Genotype.load(tmp_path / "out" / "trial-0000" / "retrain" / "genotype.yaml") == GENOTYPE
    assert "tune" not in (tmp_path / "out" / "trial-0000" / "retrain" / "config.yaml").read_text()
    assert load_config(path).dump() == load_config(toy.CONFIG).dump()


def test_hopeless_trials_are_pruned(tmp_path: Path) -> None:
    hopeless = f"{RATE}=choice(0.0, 0.02)"
    pruned = run(tmp_path / "a", hopeless, trials=9, genotype=GENOTYPE)
    states = {(trial.state, trial.settings[RATE]) for trial in pruned.trials}
    assert ("pruned", "0.0") in states
    assert ("pruned", "0.02") not in states
    number = next(trial.number for trial in pruned.trials if trial.state == "pruned")
    records = read_records(tmp_path / "a" / f"trial-{number:04d}" / "retrain")
    assert max(record["step"] for record in records) < 10
    kept = run(tmp_path / "b", hopeless, trials=9, genotype=GENOTYPE, prune=False)
    assert {trial.state for trial in kept.trials} == {"complete"}


def test_a_trial_that_diverges_fails_and_the_next_goes_on(tmp_path: Path) -> None:
    seen: list[str] = []
    changes = ["task.broken=choice(0, 99)", "retrain.stages.backbone.steps=30"]
    result = run(tmp_path / "a", *changes, trials=5, genotype=GENOTYPE, on_trial=lambda trial: seen.append(trial.state))
    by_state = {trial.state: trial for trial in result.trials}
    assert by_state.keys() == {"complete", "fail"}
    assert by_state["fail"].settings == {"task.broken": "0"}
    assert "finite" in by_state["fail"].error
    assert result.best is not None
    assert result.best.settings == {"task.broken": "99"}
    assert seen == [trial.state for trial in result.trials]


def test_a_score_that_is_none_fails_and_is_not_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy.ToyTask, "evaluate", lambda self, network, split="test": {self.score: math.nan})
    result = run(tmp_path / "a", TUNED[1], trials=1, genotype=GENOTYPE)
    assert (result.trials[0].state, result.trials[0].error, result.best) == ("fail", "the score is nan", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: run(out, *TUNED, "search.steps=9"), r"search\.steps \(was 8, now 9\)"),
        (lambda out: run(out, TUNED[0]), rf"tune\.{re.escape(RATE)} \(was \"log"),
        (lambda out: run(out, *TUNED, genotype=GENOTYPE), "was started without a genotype"),
        (lambda out: run(out.parent / "b", *TUNED, storage=f"journal:{out}/study.log", study="a"),
         "study 'a' has its trials in .*/a; use that as --out, or another --study"),
    ],
)  # fmt: skip
def test_a_study_stays_what_it_was(change: Callable[[Path], Tuning], message: str, tmp_path: Path) -> None:
    run(tmp_path / "a", *TUNED, trials=1)
    with pytest.raises(ConfigError, match=message):
        change(tmp_path / "a")
    assert len(run(tmp_path / "a", *TUNED, trials=1).trials) == 1


@pytest.mark.parametrize(
    ("overrides", "storage", "message"),
    [
        ([], "", "nothing is tuned: give a key a distribution"),
        (["search.levels.upper.optimizer.lr=log(1e-3)"], "", "must be log"),
        (["search.levels.uper.optimizer.lr=log(1e-3, 1)"], "", "uper"),
        (["search.levels.upper.optimizer.lr=float(-1, 1)"], "", "lr"),
        (["search.steps=choice(1, many)"], "", "steps"),
        (["search.stps=int(1, 2)"], "", r"unknown field 'stps' \(did you mean 'steps'\?\)"),
        (TUNED, "study.log", "must be journal:FILE or the URL .* got 'study.log'"),
        (TUNED, "journal:nowhere/study.log", "journal:nowhere/study.log .* got no folder nowhere"),
        (TUNED, "nosql://x", "nosql://x: "),
        (TUNED, "sqlite:///nowhere/x.db", "sqlite:///nowhere/x.db: .*unable to open"),
    ],
)
def test_what_cannot_be_tuned(overrides: list[str], storage: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=message) as error:
        run(tmp_path / "a", *overrides, storage=storage)
    assert type(error.value).__module__ == "nas.errors"
    assert not list(tmp_path.glob("a/trial-*"))


@pytest.mark.parametrize("trials", [0, -2])
def test_trials_are_one_or_more(trials: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"the number of trials must be at least 1, got {trials}"):
        run(tmp_path / "a", *TUNED, trials=trials)
    assert not (tmp_path / "a").exists()


def arguments(out: Path, storage: str, *overrides: str, trials: int) -> list[str]:
    return ["tune", str(toy.CONFIG), *SMALL, *TUNED, *overrides, "--trials", str(trials), "--out", str(out), "--import",
            "toy", "--storage", storage, "--quiet"]  # fmt: skip


@pytest.mark.parametrize(
    "storage", ["journal:{}/study.log", pytest.param("sqlite:///{}/study.db", marks=pytest.mark.slow)]
)
def test_two_processes_share_the_trials(storage: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    url = storage.format(out)
    command = arguments(out, url, "task.pause=0.01", trials=7)
    both = [processes.start(*command, errors=tmp_path / f"errors-{i}") for i in range(2)]
    assert [processes.finish(process) for process in both] == [0, 0]
    assert [(tmp_path / f"errors-{i}").read_text() for i in range(2)] == ["", ""]
    trials = run(out, *TUNED, "task.pause=0.01", trials=7, storage=url).trials
    assert [trial.number for trial in trials] == list(range(7))
    assert {trial.state for trial in trials} <= {"complete", "pruned"}
    assert sorted(path.name for path in out.glob("trial-*")) == [f"trial-{i:04d}" for i in range(7)]
    assert len({trial.settings[LR] for trial in trials}) == 7
    for trial in trials:  # once, from its beginning to its end
        records = read_records(out / f"trial-{trial.number:04d}" / "search")
        assert [r["step"] for r in records if r["kind"] == "train" and r["level"] == "lower"] == list(range(1, 9))


@pytest.mark.slow
def test_a_killed_trial_is_gone_on_with(tmp_path: Path) -> None:
    whole = run(tmp_path / "a", *TUNED, "task.pause=0.02")
    out = tmp_path / "out"
    out.mkdir()
    url = f"journal:{out}/study.log"
    command = arguments(out, url, "task.pause=0.02", trials=3)
    for folder in ("trial-0000/search", "trial-0001/retrain", "trial-0002/search"):
        process = processes.start(*command)
        processes.wait_for(process, out / folder / "metrics.jsonl", 600)
        process.kill()
        assert processes.finish(process) == -9
        time.sleep(0.05)
    assert processes.finish(processes.start(*command)) == 0
    found = run(out, *TUNED, "task.pause=0.02", storage=url)
    assert [trial.state for trial in found.trials] == ["complete"] * 3
    assert found.trials[0] == whole.trials[0]
    for name in ("search", "retrain"):
        paths = [folder / "trial-0000" / name / "metrics.jsonl" for folder in (tmp_path / "a", out)]
        assert paths[0].read_text() == paths[1].read_text()
    assert found == whole
