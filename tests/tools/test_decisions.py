"""The study of decisions: its statistics, and a whole small study that is stopped and resumed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("sklearn")

TOOL = Path(__file__).parents[2] / "tools" / "decisions.py"


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> Any:
    return load_tool("decisions")


def test_winners_margins_and_their_errors(tool: Any) -> None:
    weights = [{"a": [0.7, 0.3], "b": [0.2, 0.5, 0.3]}, {"a": [0.6, 0.4], "b": [0.1, 0.3, 0.6]}]
    candidates = {"a": ("x", "y"), "b": ("p", "q", "r"), "single": ("one",), "edges": (0, 1)}
    a, b = tool.decided(candidates, [{**each, "single": [1.0]} for each in weights])
    assert (a.label, a.winner, a.runner_up, a.agree) == ("a", "x", "y", 2)
    assert (a.margin, a.error) == pytest.approx((0.3, 0.1))  # of .4 and .2
    assert (b.winner, b.runner_up, b.agree) == ("r", "q", 1), "ties go to the larger mean"
    assert b.margin == pytest.approx((-0.2 + 0.3) / 2)
    assert a._replace(error=0.09).consistent(2)
    assert not a._replace(error=0.11).consistent(2)
    assert not a._replace(error=0.09, agree=3).consistent(4)
    assert a._replace(error=0.09, agree=4).consistent(5)


def test_a_study_stops_and_resumes(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["options.channels=2", "options.nodes=1", "search.steps=4", "search.epochs=2", "retrain.stages.all.steps=2"]
    command = ["decisions.py", str(tmp_path / "study"), "--config", "digits", "--seeds", "2", "--pairs", "2"]
    command += ["--genotypes", "3", "--batches", "1"]

    def run(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", [*command, *small, *more])
        tool.main()
        return capsys.readouterr().out

    assert "stopped by --minutes" in run("--minutes", "1e-9")
    whole = run()
    results = [json.loads(line) for line in (tmp_path / "study" / "results.jsonl").read_text().splitlines()[1:]]
    assert len({line["run"] for line in results}) == len(results)
    assert {line["run"].rpartition("-")[0].partition("-")[0] for line in results} == {"search", "retrain", "one"}
    assert "decided: " in whole
    assert "over 3 retrained genotypes: Spearman" in whole
    again = run()
    assert "done" not in again, "nothing is repeated"
    assert again == "".join(line for line in whole.splitlines(True) if not line.endswith("done\n"))
    with pytest.raises(SystemExit, match="another configuration"):
        run("search.steps=5")


def test_a_search_that_failed_before_its_first_checkpoint_or_stopped_by_a_rule_is_taken(
    tool: Any, tmp_path: Path
) -> None:
    overrides = {"options.channels": 2, "options.nodes": 1, "search.steps": 16, "search.epochs": 8}
    rule = {"search.stopping": {"name": "stable_ranking", "stable_for": 1}, "search.levels.upper.warmup": 0.0}
    study = tool.Study(tmp_path, tool.load_config("digits", overrides | rule), 1e6, 1)
    (tmp_path / "runs" / "search-0").mkdir(parents=True)
    for name in (".lock", "metrics.jsonl"):
        (tmp_path / "runs" / "search-0" / name).touch()  # of a kill before `config.yaml` was written
    assert study.search(0)["seed"] == 0
    assert tool.read_state(tmp_path / "runs" / "search-0")["step"] < 16
    assert study.search(0) == study.search(0)
