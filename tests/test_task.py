from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import msgspec
import pytest
import torch
from torch import Tensor, nn

import nas.task
from nas.errors import ConfigError, DivergedError, UnknownNameError
from nas.task import Task, apply, find_task, task


class Lines(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    length: int = 3


@task("test-lines")
class Line:
    """The smallest task: tell a line's next point."""

    Config: ClassVar[type] = Lines
    score = "accuracy"

    def __init__(self, config: Lines, *, seed: int = 0) -> None:
        self.config = config
        self.seed = seed
        self.losses = {"mse": lambda network, batch: nn.functional.mse_loss(network(batch), batch)}

    def batch(self, split: str, index: int) -> Tensor:
        return torch.full((2, self.config.length), float(index + self.seed))

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, self.config.length),)

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        return {"accuracy": 1.0}

    def predict(self, network: nn.Module, source: Path, sink: Path, **options: Any) -> dict[str, float]:
        return {}


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the task of this file is known, and what a test adds does not stay."""
    monkeypatch.setattr(nas.task, "_tasks", {"test-lines": Line})
    monkeypatch.setattr("nas.task.metadata.entry_points", lambda group: [])


def test_a_registered_class_is_found_and_unchanged() -> None:
    assert find_task("test-lines") is Line
    built: Task = find_task("test-lines")(Lines(length=4), seed=2)
    assert built.batch("train", 1).tolist() == [[3.0] * 4] * 2


def test_an_unknown_task_names_the_nearest_and_what_to_do() -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_task("test-line")
    message = str(caught.value)
    assert "unknown task 'test-line' (did you mean 'test-lines'?); known: test-lines" in message
    assert "--import MODULE" in message


def test_a_name_taken_twice_names_both() -> None:
    with pytest.raises(ConfigError, match=r"task 'test-lines' is registered twice: by .*:Line and by .*Other"):

        @task("test-lines")
        class Other:
            pass

    assert find_task("test-lines") is Line


def test_a_class_defined_again_replaces_itself() -> None:
    again = type("Line", (), {"__module__": Line.__module__, "__qualname__": Line.__qualname__})
    task("test-lines")(again)
    assert find_task("test-lines") is again


def test_a_class_of_an_imported_module_needs_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("their_tasks")
    module.Mine = type("Mine", (), {})  # type: ignore[attr-defined]
    module.count = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_tasks", module)
    assert find_task("their_tasks:Mine") is module.Mine
    for name in ("their_tasks:Other", "their_tasks:count", "their_tasks:", "not_imported:Mine"):
        with pytest.raises(UnknownNameError, match=f"unknown task '{name}'"):
            find_task(name)
    assert "not_imported" not in sys.modules


def install(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    """Pretend that plugins are installed whose entry points are NAME=module:class."""
    found = [EntryPoint(name.rstrip("_"), value, "nas.tasks") for name, value in points.items()]
    monkeypatch.setattr("nas.task.metadata.entry_points", lambda group: found if group == "nas.tasks" else [])


def test_a_plugin_is_imported_when_its_task_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_plugin.py").write_text("class Mine:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    install(monkeypatch, plugin="their_plugin:Mine")
    find_task("test-lines")
    assert "their_plugin" not in sys.modules
    with pytest.raises(UnknownNameError, match="known: plugin, test-lines"):
        find_task("else")
    assert find_task("plugin").__name__ == "Mine"
    monkeypatch.delitem(sys.modules, "their_plugin")


def test_plugins_that_claim_one_name_or_are_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, plugin="one:Task", plugin_="two:Task", path="os:path")
    with pytest.raises(ConfigError, match="task 'plugin' is registered twice: by one:Task and by two:Task"):
        find_task("plugin")
    with pytest.raises(ConfigError, match=r"entry point 'path' is os:path, .*, expected a class of tasks"):
        find_task("path")


def test_no_task_writes_what_is_not_finite(tmp_path: Path) -> None:
    class Writing(Line):
        def predict(self, network: nn.Module, source: Path, sink: Path) -> dict[str, Any]:
            (output,) = network(torch.tensor([float(source.name)]))
            sink.write_text(str(output.item()))
            return {}

    network, sink = nn.ReLU(), tmp_path / "out"
    given: Any = (Writing(Lines()), "test-lines", network)
    assert apply(*given, Path("2"), sink, {}) == {}
    assert sink.read_text() == "2.0"
    with pytest.raises(DivergedError, match=r"out: the network's output must be finite"):
        apply(*given, Path("inf"), sink, {})
    assert sink.read_text() == "2.0"
    assert not network._forward_hooks
