"""`nas report` on the toy space; what the pages hold is tested in `tests/report`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Nas = Callable[..., Any]
Refused = Callable[..., str]
BRIEF = ("retrain.stages.backbone.steps=2", "retrain.stages.averaging.steps=1")


def test_a_search_and_its_retraining(nas: Nas, searched: Path, tmp_path: Path) -> None:
    run = tmp_path / "search"
    shutil.copytree(searched, run)
    assert nas("report", run) == (0, f"report: {run}/report.html\n", "")
    assert nas("retrain", run, *BRIEF, "--out", tmp_path / "net", "--quiet").code == 0
    written = (tmp_path / "net" / "report.html").read_text()
    for part in ('id="before-after"', 'id="timeline"'):
        assert part in written
    out = tmp_path / "elsewhere.html"
    assert nas("report", tmp_path / "net", "--out", out) == (0, f"report: {out}\n", "")
    assert out.read_text() == written
    run.rename(tmp_path / "moved")
    nas("report", tmp_path / "net", "--out", out)
    assert 'id="timeline"' not in out.read_text()
    nas("report", tmp_path / "net", "--out", out, "--search", tmp_path / "moved")
    assert 'id="timeline"' in out.read_text()


def test_data_that_have_moved_are_named_and_the_rest_is_reported(nas: Nas, searched: Path, tmp_path: Path) -> None:
    nas("retrain", searched, *BRIEF, "--out", tmp_path / "net", "--quiet")
    config = tmp_path / "net" / "config.yaml"
    config.write_text(config.read_text().replace("name: toy", "name: gone"))
    result = nas("report", tmp_path / "net")
    assert result.code == 0
    assert "unknown task 'gone'" in result.out
    assert 'id="before-after"' not in (tmp_path / "net" / "report.html").read_text()


def test_several_runs_are_compared(
    nas: Nas, refused: Refused, searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(searched, tmp_path / "other")
    assert nas("report", searched, "other") == (0, "comparison: comparison.html\n", "")
    assert "<h1>2 runs</h1>" in (tmp_path / "comparison.html").read_text()
    nas("report", searched, "other", "--out", "mine.html")
    assert (tmp_path / "mine.html").read_text() == (tmp_path / "comparison.html").read_text()
    assert refused("report", "other", "other").endswith("got 'other' twice")
    assert "--search needs a single run, got 2" in refused("report", "other", searched, "--search", "other")


def test_what_is_no_run(refused: Refused, tmp_path: Path) -> None:
    assert refused("report", tmp_path).endswith("got a folder without config.yaml")
    assert "nowhere " in refused("report", tmp_path / "nowhere")


def test_tensorboard_as_it_runs_and_afterwards(nas: Nas, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    short = ("search.steps=12", "search.epochs=4")
    assert nas("search", "toy", *short, "--out", run, "--quiet", "--tensorboard").code == 0
    live = accumulator.EventAccumulator(str(run / "tensorboard"), {"images": 0}).Reload()
    assert [event.step for event in live.Scalars("observer/collapse/entropy")] == [3, 6, 9, 12]
    assert [event.step for event in live.Images("mixing weights")] == [0, 3, 6, 9, 12]
    assert "`tensorboard --logdir" in nas("report", run, "--tensorboard").out
    again = accumulator.EventAccumulator(str(run / "tensorboard"), {"images": 0}).Reload()
    for name in live.Tags()["scalars"]:
        assert [(e.step, e.value) for e in live.Scalars(name)] == [(e.step, e.value) for e in again.Scalars(name)]
