from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import optuna
import pytest

import processes
from nas.errors import DivergedError, InvalidFileError
from nas.run.config import Config, load_config
from nas.run.stopping import create_rule
from nas.searchers.storage import open_storage
from nas.space.definition import find_space
from nas.supernet import Supernet

RECIPE = "nas-bench-201-small"
KEYS = ["".join(each) for each in itertools.product("012", repeat=4)]


@pytest.fixture(scope="module")
def study(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("study")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Accuracy grows with the number of convolutions, `1`; so does the time of a training, 10 s and 10 s for each."""
    lines = ["cell,val_0,val_1,test_0,test_1,val,test,params,seconds"]
    for number, key in enumerate(KEYS):
        convolutions, noise = key.count("1"), number / 1000
        cells = (
            key,
            80 + convolutions + noise,
            90 + convolutions,
            0,
            0,
            0,
            70 + convolutions,
            7,
            10 + 10 * convolutions,
        )
        lines.append(",".join(map(str, cells)))
    path = tmp_path / "cells.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_table_is_read(study: ModuleType, table: Path, tmp_path: Path) -> None:
    found = study.read_table(table)
    assert list(found) == KEYS
    assert found["0110"] == study.Cell((82.012, 92.0), 72.0, 30.0)
    assert study.mean_seconds(found) == pytest.approx(10 + 10 * 4 / 3)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InvalidFileError, match=r"other\.csv: must be a table of tools/enumerate_cells\.py"):
        study.read_table(tmp_path / "other.csv")


@pytest.mark.parametrize("name", ["random", "evolution", "local-search"])
def test_a_searcher_stays_within_its_budget_and_chooses_by_validation(
    study: ModuleType, table: Path, name: str
) -> None:
    cells, base = study.read_table(table), load_config(RECIPE)
    every = study.genotypes(base)
    regrets = {}
    for budget in (2, 20):
        rows = [study.search_table(study.SEARCHERS[name], cells, base, every, budget, seed) for seed in range(40)]
        spent = statistics.fmean(row["cpu_seconds"] for row in rows)
        assert spent == pytest.approx(budget * study.mean_seconds(cells), rel=0.15)
        regrets[budget] = statistics.fmean(74 - cells[row["cell"]].test for row in rows)
    assert regrets[20] < regrets[2] - 0.5
    first, second = (study.search_table(study.SEARCHERS[name], cells, base, every, 5, 3) for _ in range(2))
    assert first == second


def test_steps_leave_a_training_for_the_result(study: ModuleType) -> None:
    cost = study.Cost(fixed=0.5, step=0.01)
    assert cost.steps(5) == 350
    assert cost.fixed + 350 * cost.step + 1 <= 5 < cost.fixed + 351 * cost.step + 1 + 1e-9
    assert cost.steps(1) < 1


def test_a_recipe_keeps_its_settings_on_the_space(study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "RECIPES", {"darts": {}})
    base = load_config(RECIPE)
    config = study.recipe("darts", 40, 3, 10.0, base)
    assert (config.space, config.seed, config.search.steps, config.retrain_section) == (RECIPE, 3, 40, None)
    assert config.task == {**base.task, "batch": 64}
    levels, own = config.search.levels, load_config("darts").search.levels
    assert levels["lower"] == own["lower"]
    assert levels["upper"].optimizer == {**own["upper"].optimizer, "lr": pytest.approx(3e-3)}


@pytest.mark.parametrize(
    "name",
    [
        *("darts-v1", "darts-v2", "gdas", "snas", "reinmax", "pc-darts", "drnas", "fair-darts", "darts-minus"),
        *("sdarts-rs", "sdarts-adv", "robust-darts", "darts-pt", "beta-darts", "gaea", "oles", "proxyless", "spos"),
    ],
)
def test_a_recipe_fits_the_space(study: ModuleType, name: str, few_images: dict[str, object]) -> None:
    config = study.recipe(name, 20, 0, 1.0, load_config(RECIPE, {"task.data": few_images, "task.batch": 4}))
    how = config.search
    supernet = Supernet(RECIPE, relaxation=how.relaxation, wrappers=how.wrappers, **config.options)
    if how.stopping is not None:
        create_rule(how.stopping, find_space(RECIPE).describe(**config.options), how.epochs)
    assert supernet.decisions


def test_a_recipe_that_diverges_is_a_row_and_not_the_end(
    study: ModuleType, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(*_: object) -> None:
        raise DivergedError("losses are no longer finite")

    monkeypatch.setattr(study, "searched", diverged)
    judged = study.Judged(study.read_table(table), {"darts-v1": study.Cost(0.1, 0.01)}, load_config(RECIPE))
    row = judged.take(5, 100, "darts-v1", 100.0)
    assert row["refused"] == "losses are no longer finite"
    assert study.tuned(SimpleNamespace(done={1: row})) == {}


def test_the_factor_with_the_best_validation_accuracy_of_the_tuning_seeds(study: ModuleType) -> None:
    values = [(100, 1.0, 80), (101, 1.0, 84), (100, 10.0, 83), (101, 10.0, 83), (0, 100.0, 99)]
    rows = {i: {"method": "a", "seed": seed, "factor": f, "val": val} for i, (seed, f, val) in enumerate(values)}
    rows[9] = {"method": "a", "seed": 102, "factor": 100.0, "refused": "too dear"}
    assert study.tuned(SimpleNamespace(done=rows)) == {"a": 10.0}


@pytest.fixture
def changes(few_images: dict[str, object]) -> list[str]:
    tiny = {"task.data": few_images, "task.batch": 4, "options.channels": 2, "retrain.stages.all.steps": 2}
    return ["--set", *(f"{key}={value}" for key, value in tiny.items())]


def test_a_study_runs_continues_and_is_described(
    study: ModuleType, table: Path, changes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "RECIPES", {RECIPE: {"task.batch": 4}})
    costs, rows = tmp_path / "costs.yaml", tmp_path / "rows.jsonl"
    costs.write_text(f"{RECIPE}: {{fixed: 0.0, step: 0.5}}\n")

    def command(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["study.py", *map(str, arguments), *changes])
        study.main()

    monkeypatch.setattr(study, "RANKED_SEEDS", 1)
    monkeypatch.setattr(study, "RANKED_IMAGES", 4)
    run = ("run", table, costs, rows, "--seeds", 3, "--budgets", 2)
    command(*run)
    found = [json.loads(line) for line in rows.read_text().splitlines()[1:]]
    assert [(row["method"], row["seed"]) for row in found] == [
        (name, seed) for seed in range(3) for name in (*study.SEARCHERS, RECIPE)
    ]
    searched = [row for row in found if row["method"] == RECIPE]
    assert [row["steps"] for row in searched] == [2, 2, 2]
    assert ["spearman" in row for row in searched] == [True, False, False]
    assert all(0 <= row["regret"] <= 4 for row in found)
    cells = study.read_table(table)
    assert all(row["cpu_seconds"] > cells[row["cell"]].seconds for row in searched)
    for row in found:
        cell = cells[row["cell"]]
        assert row["regret"] == pytest.approx(74 - cell.test)
        assert row["val"] == cell.val[row["seed"] % 2]
        assert row["collapsed"] == (row["cell"].count("0") >= 2 and cell.test < 71)  # 0 is the skip connection
    before = rows.read_bytes()
    command(*run)
    assert rows.read_bytes() == before
    command("page", table, rows, tmp_path / "study")
    assert f"| {RECIPE} | 3 |" in (tmp_path / "study.md").read_text()
    assert (tmp_path / "study.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("kind", ["journal", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_processes_share_the_runs(
    study: ModuleType, table: Path, kind: str, storage_url: Callable[[str], str], tmp_path: Path
) -> None:
    costs, url = tmp_path / "costs.yaml", storage_url(kind)
    costs.write_text("{}\n")
    common = ["run", table, costs]
    options = ["--seeds", 4, "--budgets", 2, 5, "--methods", "random", "evolution"]

    def start(name: str, *more: object) -> ForkServerProcess:
        words = map(str, [*common, tmp_path / f"{name}.jsonl", *options, *more])
        return processes.program(str(study.__file__), *words, errors=tmp_path / f"{name}.txt")

    both = [start(name, "--storage", url) for name in ("a", "b", "b")]
    assert [processes.finish(process) for process in [*both, start("alone")]] == [0] * 4
    found = [sorted((tmp_path / f"{name}.jsonl").read_text().splitlines()) for name in ("a", "b", "alone")]
    assert len(found[2]) == 1 + 16
    assert found[0] == found[1] == found[2]
    trials = optuna.load_study(study_name="run", storage=open_storage(url)).trials
    assert [trial.state.name for trial in trials[:16]] == ["COMPLETE"] * 16
    assert processes.finish(start("a", "--storage", url, "--seeds", 5)) == 1
    assert "study 'run' has other runs" in (tmp_path / "a.txt").read_text()


def test_costs_are_positive_and_in_trainings(
    study: ModuleType, few_images: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = {"train": lambda count: 1.0 + 0.5 * count, "search": lambda count: 2.0 + 3.0 * count}

    def train(config: Config, *rest: object) -> dict[str, float]:
        return {"cpu_seconds": taken["train"](config.retrain.stages["all"].steps)}

    def searched(name: str, config: Config, *rest: object) -> dict[str, float]:
        return {"cpu_seconds": taken["search"](config.search.steps)}

    monkeypatch.setattr(study, "train", train)
    monkeypatch.setattr(study, "searched", searched)
    monkeypatch.setattr(study, "RECIPES", {RECIPE: {}})
    base = load_config(RECIPE, {"task.data": few_images, "task.batch": 4, "retrain.stages.all.steps": 8})
    (cost,) = study.measure_costs(base, [RECIPE]).values()  # a training takes 5 s
    assert (cost.fixed, cost.step) == pytest.approx((0.4, 0.6))


def test_bad_arguments_are_one_line(
    study: ModuleType, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, message in (
        (["page", str(table), "rows.jsonl"], "page must get 2 files after the table, got 1"),
        (["costs", str(table), "costs.yaml", "--methods", "magic"], "--methods must name some of random"),
        (["costs", str(tmp_path / "none.csv"), "costs.yaml"], r"none\.csv"),
    ):
        monkeypatch.setattr(sys, "argv", ["study.py", *arguments])
        with pytest.raises(SystemExit, match=message):
            study.main()
