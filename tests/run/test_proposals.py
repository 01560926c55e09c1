"""Searches by a searcher in run folders: records, results, resumption, scores of every kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

import nas
import processes
import toy
from nas.errors import DivergedError
from nas.registry import kind
from nas.run.folder import read_records
from nas.run.proposals import _Proposals
from nas.run.searching import derive_from
from nas.searchers.storage import open_storage
from runs import last

SHORT = ["search.evaluations=6", "retrain.stages.backbone.steps=2", "retrain.stages.averaging.steps=1"]


def search(folder: Path, *overrides: str, resume: bool = False, minutes: float | None = None) -> nas.SearchResult:
    config = toy.config("search.searcher=evolution", "search.score=params", *SHORT, *overrides)
    return nas.search(config, out=folder, resume=resume, progress=False, minutes=minutes)


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return [record for record in read_records(folder) if record["kind"] == "evaluation"]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A score `listed` that returns, or raises, these one after the other."""
    values: list[Any] = []

    def listed(genotype: nas.Genotype) -> float:
        value = values.pop(0)
        if isinstance(value, BaseException):
            raise value
        return value  # type: ignore[no-any-return]

    monkeypatch.setitem(kind("score")._registered, "listed", listed)
    return values


def test_the_best_proposal_is_the_result(tmp_path: Path) -> None:
    result = search(tmp_path / "run", "search.searcher={name: evolution, population: 3}", "search.epochs=2")
    found = evaluations(tmp_path / "run")
    assert [record["step"] for record in found] == [1, 2, 3, 4, 5, 6]
    best = max(found, key=lambda record: record["score"])
    assert result.genotype.choices == best["choices"] == result.best.choices  # type: ignore[union-attr]
    assert result.genotype.provenance.scores == {"params": best["score"]}  # type: ignore[union-attr]
    assert [record["best"] for record in found] == [max(r["score"] for r in found[: i + 1]) for i in range(6)]
    assert len(list((tmp_path / "run" / "genotypes").glob("step-*.yaml"))) == 2
    assert (tmp_path / "run" / "genotype.svg").is_file()


@pytest.mark.parametrize(("best", "factor"), [("max", 1), ("min", -1)])
def test_a_larger_score_is_a_better_score_of_the_task(
    best: str, factor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.ToyTask, "metrics", {"score": best})
    search(tmp_path / "run", "search.score=retraining", "search.evaluations=2")
    for record in evaluations(tmp_path / "run"):
        folder = tmp_path / "run" / "evaluations" / f"{record['step']:04d}"
        assert record["score"] == pytest.approx(factor * nas.RetrainResult(folder).scores["score"])


SCORES = ["grad_norm", "jacob_cov", "retraining", "{name: one_shot, batches: 1}"]


@pytest.mark.parametrize("score", SCORES)
def test_a_killed_search_scores_the_same_when_resumed(
    score: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["search.evaluations=4", "search.steps=3", "search.epochs=1"]
    own = ["search.searcher={name: evolution, population: 2}", f"search.score={score}", *small]
    search(tmp_path / "whole", *own)
    monkeypatch.setattr("nas.run.proposals.SAVE_SECONDS", 0.0)
    save = _Proposals._save
    for killed in (2, 3):

        def kill(self: _Proposals, step: int, killed: int = killed) -> None:
            if step == killed:
                raise SystemExit
            save(self, step)

        with monkeypatch.context() as patch:
            patch.setattr(_Proposals, "_save", kill)
            with pytest.raises(SystemExit):
                search(tmp_path / "killed", *own, resume=(tmp_path / "killed").exists())
    search(tmp_path / "killed", *own, resume=True)
    files = ["metrics.jsonl", "genotype.yaml", "best.yaml"]
    assert all((tmp_path / "whole" / f).read_bytes() == (tmp_path / "killed" / f).read_bytes() for f in files)
    assert last(tmp_path / "whole")["searcher"] == last(tmp_path / "killed")["searcher"]


@pytest.mark.parametrize("searcher", [*kind("searcher").names(), "{name: optuna, sampler: nsga2, population: 2}"])
def test_every_searcher_searches(searcher: str, tmp_path: Path) -> None:
    result = search(tmp_path / "run", f"search.searcher={searcher}", "search.score=synflow", "search.evaluations=8")
    assert len(evaluations(tmp_path / "run")) == 8
    assert result.report().path.read_text(encoding="utf-8").count("best so far") > 0


def test_one_shot_searchers_train_their_supernet_on_paths(tmp_path: Path) -> None:
    own = ["search.searcher=weight_sharing_random", "search.score=null", "search.steps=4", "search.epochs=1"]
    search(tmp_path / "run", *own)
    supernet = nas.SearchResult(tmp_path / "run" / "supernet")
    assert supernet.config.search.relaxation == "uniform_path"
    assert list(supernet.config.search.levels) == ["lower", "middle"]
    again = f"search.score={{name: one_shot, supernet: {tmp_path / 'run' / 'supernet'}}}"
    search(tmp_path / "again", *own, again)
    assert not (tmp_path / "again" / "supernet").exists()
    first, second = (evaluations(tmp_path / name) for name in ("run", "again"))
    assert first == second
    assert len({record["score"] for record in first}) > 1


def test_retrained_scores_are_those_of_the_retraining(tmp_path: Path) -> None:
    search(tmp_path / "run", "search.score=retraining", "search.evaluations=2")
    for record in evaluations(tmp_path / "run"):
        folder = tmp_path / "run" / "evaluations" / f"{record['step']:04d}"
        assert nas.RetrainResult(folder).genotype.choices == record["choices"]
        assert nas.RetrainResult(folder).scores["score"] == pytest.approx(record["score"])
        assert nas.RetrainResult(folder).config.retrain.stages["backbone"].level.split == "train"


def test_what_diverges_counts_as_the_worst(scored: list[Any], tmp_path: Path) -> None:
    scored += [3.0, DivergedError("all is lost"), 1.0, 5.0, DivergedError("again"), 2.0]
    result = search(tmp_path / "run", "search.score=listed")
    found = evaluations(tmp_path / "run")
    assert [record["score"] for record in found] == [3.0, None, 1.0, 5.0, None, 2.0]
    assert [record.get("error") for record in found] == [None, "all is lost", None, None, "again", None]
    told = [score for _, score in last(tmp_path / "run")["searcher"]["state"]["members"]]
    assert told == [3.0, 3.0, 1.0, 5.0, 1.0, 2.0]
    assert result.genotype.choices == found[3]["choices"]
    assert "The training of 2 diverged" in result.report().path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.evaluations=0"], r"search\.evaluations must be at least 1, got 0"),
        (
            ["search.searcher=evolutoin"],
            r"search\.searcher: unknown searcher 'evolutoin' \(did you mean 'evolution'\?\)",
        ),
        (["search.score=synflo"], r"search\.score: unknown score 'synflo' \(did you mean 'synflow'\?\)"),
        (["search.searcher=null"], r"search\.score needs a searcher, got none"),
        (
            ["search.score={name: retraining, train: all}"],
            r"search\.score: split 'all', .* must not overlap split 'val'.*got 1 in both",
        ),
        (["search.score={name: one_shot, supernet: nowhere}"], "nowhere: not the folder of a search"),
    ],
)
def test_bad_input_is_refused_and_leaves_the_folder_free(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(nas.NASError, match=message) as error:
        search(tmp_path / "run", *overrides)
    assert "\n" not in str(error.value)
    search(tmp_path / "run")


def test_a_score_that_is_not_finite_stops_the_search(scored: list[Any], tmp_path: Path) -> None:
    scored += [1.0, math.nan]
    with pytest.raises(nas.NASError, match=r"score 'listed' must be a finite number, got nan for first="):
        search(tmp_path / "run", "search.score=listed")
    assert len(evaluations(tmp_path / "run")) == 1
    scored += [2.0] * 5
    search(tmp_path / "run", "search.score=listed", resume=True)


def test_the_first_one_must_not_diverge(scored: list[Any], tmp_path: Path) -> None:
    scored += [DivergedError("all is lost")]
    with pytest.raises(DivergedError, match="all is lost"):
        search(tmp_path / "run", "search.score=listed")


@pytest.mark.parametrize("changed", ["seed=1", "search.searcher={name: evolution, population: 9}"])
def test_a_resumed_search_keeps_seed_and_population(changed: str, tmp_path: Path) -> None:
    search(tmp_path / "run")
    with pytest.raises(nas.NASError, match=r"was started with another configuration: .*(seed|searcher)"):
        search(tmp_path / "run", changed, resume=True)


def test_time_that_is_spent_ends_the_search_with_the_best_so_far(tmp_path: Path) -> None:
    search(tmp_path / "run", minutes=1e-9)
    assert len(evaluations(tmp_path / "run")) == 1
    assert read_records(tmp_path / "run")[-1]["kind"] == "stopped"
    whole, resumed = search(tmp_path / "whole"), search(tmp_path / "run", resume=True)
    assert whole.genotype == resumed.genotype
    assert evaluations(tmp_path / "whole") == evaluations(tmp_path / "run")


def test_nothing_is_derived_from_it(tmp_path: Path) -> None:
    search(tmp_path / "run")
    with pytest.raises(nas.NASError, match=r"must be a search by the gradient, got one by a searcher.*best\.yaml"):
        derive_from(tmp_path / "run")


KINDS = ["journal", "sqlite", "postgresql"]


@pytest.mark.parametrize("kind", KINDS)
def test_processes_share_a_study(kind: str, storage_url: Callable[[str], str], tmp_path: Path) -> None:
    url = storage_url(kind)
    searcher = f"search.searcher={{name: optuna, storage: '{url}'}}"
    command = ["search", str(toy.CONFIG), searcher, "search.score=params", "search.evaluations=4", "--import", "toy"]
    both = [processes.start(*command, "--quiet", "--out", str(tmp_path / name)) for name in ("first", "second")]
    assert [processes.finish(process) for process in both] == [0, 0]
    trials = optuna.load_study(study_name="nas", storage=open_storage(url)).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 8
    found = [record["score"] for name in ("first", "second") for record in evaluations(tmp_path / name)]
    assert sorted(found) == sorted(trial.value for trial in trials)
    with pytest.raises(nas.NASError, match=r"study 'nas' must be of space 'toy' with equal options"):
        search(tmp_path / "other", searcher, "options.channels=2")


@pytest.mark.parametrize("kind", ["journal", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_the_evaluation_of_a_killed_process_is_taken_again(
    kind: str, storage_url: Callable[[str], str], tmp_path: Path
) -> None:
    url, out = storage_url(kind), tmp_path / "run"
    own = [f"search.searcher={{name: optuna, storage: '{url}'}}", "task.pause=0.01", "search.evaluations=4"]
    command = ["search", str(toy.CONFIG), *SHORT, *own, "--import", "toy", "--quiet", "--out", str(out)]
    killed = processes.start(*command)
    processes.wait_for(killed, out / "evaluations" / "0003" / "metrics.jsonl", 1)
    killed.kill()
    assert processes.finish(killed) == -9
    assert processes.finish(processes.start(*command, "--resume")) == 0
    trials = optuna.load_study(study_name="nas", storage=open_storage(url)).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert [record["score"] for record in evaluations(out)] == [trial.value for trial in trials]


def test_an_evaluation_that_was_told_before_a_kill_is_not_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"journal:{tmp_path}/study.log"
    own = [f"search.searcher={{name: optuna, storage: '{url}'}}", "search.score=retraining", "search.evaluations=4"]
    save = _Proposals._save
    monkeypatch.setattr("nas.run.proposals.SAVE_SECONDS", 0.0)

    def kill(self: _Proposals, step: int) -> None:
        if step == 3:
            raise SystemExit
        save(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(_Proposals, "_save", kill)
        with pytest.raises(SystemExit):
            search(tmp_path / "run", *own)
    search(tmp_path / "run", *own, resume=True)
    trials = optuna.load_study(study_name="nas", storage=open_storage(url)).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5
    assert [record["score"] for record in evaluations(tmp_path / "run")] == [trials[i].value for i in (0, 1, 3, 4)]
