"""Studies on the toy space: what a trial is, pruning, failure, and processes that share a study or are killed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from nas.errors import ConfigError, NASError
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


def run(out: Path, *overrides: str, trials: int | None = 3, storage: str = "", **arguments: Any) -> Tuning:
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


def test_a_grid_of_genotypes_and_seeds(tmp_path: Path) -> None:
    genotypes = {"cheap": GENOTYPE, "dear": Genotype(space="toy", choices=toy.DEAREST)}
    seeds = "seed=grid(3, 4)"
    result = run(tmp_path / "a", seeds, trials=None, genotype=genotypes)
    assert [(t.state, t.settings) for t in result.trials] == [
        ("complete", {"genotype": name, "seed": seed}) for name in genotypes for seed in ("3", "4")
    ]
    for trial in result.trials:
        folder = tmp_path / "a" / f"trial-{trial.number:04d}" / "retrain"
        assert Genotype.load(folder / "genotype.yaml") == genotypes[str(trial.settings["genotype"])]
        assert load_config(folder / "config.yaml").seed == int(trial.settings["seed"])
    arguments = {"storage": f"journal:{tmp_path}/a/study.log", "out": tmp_path / "a", "genotype": genotypes}
    assert tune(tmp_path / "a" / "config.yaml", [], **arguments) == result  # as the command that continues a trial
    alone = run(tmp_path / "b", "seed=grid(4)", trials=None, genotype=genotypes["dear"])
    assert alone.trials[0].score == result.trials[3].score
    with pytest.raises(ConfigError, match="was started with another genotype"):
        run(tmp_path / "a", seeds, trials=None, genotype=genotypes | {"dear": GENOTYPE})


@pytest.mark.parametrize(
    ("setting", "trials", "message"),
    [
        ("seed=grid(0, 1)", 3, "number of trials must be at most 2, the combinations of the grids, got 3"),
        (TUNED[0], None, "number of trials must be given if a setting is drawn, got none"),
        ("seed=grid(0, x)", None, "seed"),
    ],
)
def test_the_number_of_trials_fits_the_grid(setting: str, trials: int | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(NASError, match=message):
        run(tmp_path / "a", setting, trials=trials)


def test_trials_of_a_grid_are_never_pruned(tmp_path: Path) -> None:
    rates = f"{RATE}=grid(0.02, 0.021, 0.022, 0.023, 0.024, 0.0)"
    assert {t.state for t in run(tmp_path / "a", rates, trials=None, genotype=GENOTYPE).trials} == {"complete"}
