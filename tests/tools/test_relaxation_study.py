"""The measured page: it has the table of its rows, and a row is that of a search."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> Any:
    return load_tool("relaxation_study")


def test_the_page_is_current_and_has_every_relaxation(tool: Any) -> None:
    rows = [json.loads(line) for line in tool.ROWS.read_text(encoding="utf-8").splitlines()[1:]]
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.updated(page, rows) == page, "run tools/relaxation_study.py --write"
    assert all(f"| `{name}` |" in page for name in tool.relaxations())
    seeds = {name: sorted(row["seed"] for row in rows if row["relaxation"] == name) for name in tool.relaxations()}
    assert set(map(tuple, seeds.values())) == {(0, 1, 2)}
    assert sum(row["relaxation"] == tool.RANDOM for row in rows) == 3 * len(seeds)


def test_the_table(tool: Any) -> None:
    same, other = {"a": "x", "b": "y"}, {"a": "x", "b": "z"}
    assert tool.agreement([same, same]) == 1
    assert tool.agreement([same, other, same]) == pytest.approx((0.5 + 1 + 0.5) / 3)

    def row(name: str, seed: int, accuracy: float, choices: dict[str, str], **more: Any) -> dict[str, Any]:
        return {"relaxation": name, "seed": seed, "number": seed, "accuracy": accuracy, "choices": choices, **more}

    rows = [row("softmax", 0, 0.9, same, ms=10.0), row("softmax", 1, 0.8, other, ms=20.0)]
    rows += [row("gumbel", 0, 0.5, same, ms=5.0), row("gumbel", 1, 0.7, same, ms=10.0)]
    rows += [row(tool.RANDOM, seed, accuracy, same) for seed, accuracy in enumerate((0.6, 0.75, 0.85, 0.95))]
    lines = tool.table(rows)
    assert lines[2] == "| `softmax` | 85.00 ± 7.07 | 62% | 50% | 1.00 | 2 |"
    assert lines[3] == "| `gumbel` | 60.00 ± 14.14 | 12% | 100% | 0.50 | 2 |"
    assert lines[4].endswith("| – | 4 |")


def test_a_row_is_that_of_a_search(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {"search.steps": 4, "search.epochs": 2, "retrain.stages.all.steps": 2}
    monkeypatch.setattr(tool, "BASE", {**tool.BASE, **steps})
    found = tool.searched("uniform_path", 1)
    assert (found["relaxation"], found["seed"], found["number"]) == ("uniform_path", 1, 0)
    assert 0 <= found["accuracy"] <= 1
    assert found["ms"] > 0
    assert len(found["choices"]) == 5, "edges that are kept"
