from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

import toy
from nas.errors import ConfigError, UnknownNameError
from nas.registry import register
from nas.run.folder import Run
from nas.run.searching import search
from nas.run.task import TASKS, Task, require_ranked
from nas.tune.tuning import tune


class Lines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    length: int = 3


class Line(Task):
    """The smallest task: tell a line's next point."""

    Config = Lines
    config: Lines
    score, metrics = "accuracy", {"accuracy": "max"}

    def batch(self, split: str, index: int) -> Tensor:
        return torch.full((2, self.config.length), float(index + self.seed))

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, self.config.length),)

    def evaluate(self, network: nn.Module, split: str = "test") -> dict[str, float]:
        return {"accuracy": 1.0}


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the task of this file is known, and what a test adds does not stay."""
    monkeypatch.setattr(TASKS, "_registered", {"test-lines": Line, "toy": toy.ToyTask})
    _install(monkeypatch, [])


def _install(monkeypatch: pytest.MonkeyPatch, points: list[EntryPoint]) -> None:
    """Let installed packages offer these tasks; what they offer of other kinds stays."""
    real = metadata.entry_points
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == "nas.tasks" else real(group=group))


def test_a_task_has_defaults_for_all_that_is_optional() -> None:
    task = Line()
    assert (task.config, task.seed) == (Lines(), 0)
    assert Line(Lines(length=4), seed=2).batch("train", 1).tolist() == [[3.0] * 4] * 2
    assert (task.statement, dict(task.parts), task.members("train")) == ("", {}, ())
    assert list(task.previews(nn.Identity())) == []
    task.check("test")
    assert not any(map(task.has, ("measure", "predict", "check", "members", "previews")))
    assert task.settings() == {"class": f"{__name__}:Line", "config": {"length": 3}, "seed": 0}


def test_a_class_without_what_every_task_needs() -> None:
    for name in ("batch", "example", "evaluate"):
        incomplete = type("Incomplete", (Line,), {name: getattr(Task, name)})
        with pytest.raises(TypeError, match=name):
            incomplete()


@pytest.mark.parametrize("value", [type("Mine", (), {}), Line(), len])
def test_what_is_no_task_is_not_registered(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"task 'mine' must be .*nas\.Task"):
        register("task", "mine")(value)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [({"accurcy": "max"}, r"'accuracy' \(did you mean 'accurcy'"), ({"accuracy": "larger"}, "'larger'"), ({}, "none")],
)
def test_a_task_says_of_its_score_whether_larger_is_better(
    metrics: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Line, "metrics", metrics)
    with pytest.raises(ConfigError, match=message):
        require_ranked(Line())


class Least(toy.ToyTask):
    """The toy, ranked by a metric of which less is better."""

    score = "error"
    metrics = {"error": "min"}  # type: ignore[assignment]  # noqa: RUF012

    def measure(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
        return {"error": -super().measure(network, batch)["score"]}


SMALL = ["search.steps=8", "search.epochs=4", "retrain.stages.backbone.steps=4", "retrain.stages.averaging.steps=1"]


def test_a_score_of_which_less_is_better_finds_the_same_epoch_and_trial(tmp_path: Path) -> None:
    found = {}
    for name, cls in (("toy", toy.ToyTask), ("least", Least)):
        TASKS._registered["toy"] = cls
        config = toy.config(*SMALL)
        with Run.create(tmp_path / name, config.dump(), 0) as run:
            search(config, run)
        lr = "retrain.stages.backbone.level.optimizer.lr=choice(1e-3, 1e-1, 3.0)"
        result = tune(
            toy.CONFIG, [*SMALL, lr], trials=3, storage=f"journal:{tmp_path}/{name}.log", out=tmp_path / f"{name}-tuned"
        )
        assert result.best is not None
        assert len({trial.score for trial in result.trials}) > 1
        found[name] = (tmp_path / name / "best.yaml").read_text(), result.best.number
    assert found["toy"] == found["least"]
    TASKS._registered["toy"] = toy.ToyTask
    with pytest.raises(ConfigError, match="got minimize"):
        tune(toy.CONFIG, [*SMALL, lr], trials=3, storage=f"journal:{tmp_path}/least.log", out=tmp_path / "least-tuned")


# --- names ---


def test_a_class_of_an_imported_module_needs_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("their_tasks")
    module.Mine = type("Mine", (Line,), {})  # type: ignore[attr-defined]
    module.count = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_tasks", module)
    assert TASKS.find("their_tasks:Mine") is module.Mine
    with pytest.raises(ConfigError, match="their_tasks:count must be"):
        TASKS.find("their_tasks:count")
    for name in ("their_tasks:Other", "their_tasks:", "not_imported:Mine", "test-line"):
        with pytest.raises(UnknownNameError, match=f"unknown task '{name}'"):
            TASKS.find(name)
    assert "not_imported" not in sys.modules


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that plugins are installed whose entry points are NAME=module:class."""

    def install(**points: str) -> None:
        _install(monkeypatch, [EntryPoint(name, value, "nas.tasks") for name, value in points.items()])

    return install


def test_a_plugin_is_imported_when_its_task_is_asked_for(
    install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_plugin.py").write_text("import toy\nclass Mine(toy.ToyTask):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    install(plugin="their_plugin:Mine", path="os:path")
    TASKS.find("test-lines")
    assert "their_plugin" not in sys.modules
    assert TASKS.find("plugin").__name__ == "Mine"
    monkeypatch.delitem(sys.modules, "their_plugin")
    with pytest.raises(ConfigError, match=r"'path', os:path, .*nas\.Task"):
        TASKS.find("path")
