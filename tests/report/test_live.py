"""What a search, a retraining and a prediction show, on the toy space."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

import toy
from nas.genotype.file import Genotype
from nas.multilevel.multilevel import Moved
from nas.report import live
from nas.report.live import RunProgress, predict_view
from nas.run.folder import Run
from nas.run.observer import Start
from nas.run.searching import build_supernet

live_memory = live.memory


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves; plain lines come every ten seconds and at the end."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(live, "memory", lambda: "1.5 GB")
    return now


def moved(loss: float) -> Moved:
    return Moved(loss, 1.0, {"entropy": 0.5})


def test_a_search(clock: list[float], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    supernet = build_supernet(toy.config())
    genotype = Genotype(space="toy", choices=toy.CHEAPEST)
    progress = RunProgress()
    with Run.create(tmp_path / "run", "", 0) as run:
        progress.on_start(Start("search", run.path, supernet, 0, 40))
        with torch.no_grad():
            supernet.arch["second"].copy_(torch.tensor([0.0, 1.0]))
        for step in range(1, 41):
            clock[0] += 2.0
            progress.on_step(step, {"lower": moved(1 / step)} | ({"upper": moved(0.5)} if step % 4 == 0 else {}))
            if step % 20 == 0:
                run.record("observer", step, observer="collapse", entropy=0.5, **{"skips/normal": 0.75})
                progress.on_epoch(step, supernet, genotype)
    progress.on_end()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert len([line for line in lines if line.startswith("advice: cell 'normal'")]) == 1, "not said twice"
    assert lines[0] == (  # the mixing weights are looked at every ten steps
        "search 5/40 (12%)  0.5 steps/s  0:01:10 left  lower 0.2  upper 0.5  1.5 GB"
        "  first=conv 0.33 (+0.00)  second=linear 0.50 (+0.00)"
    )
    assert lines[-1] == (
        "search 40/40 (100%)  0.5 steps/s  0:00:00 left  lower 0.025  upper 0.5  1.5 GB"
        "  first=conv 0.33 (+0.00)  second=tanh 0.73 (+0.46)"
    )


def test_a_retraining_shows_its_last_validation_scores(
    clock: list[float], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    progress, genotype = RunProgress(), Genotype(space="toy", choices=toy.CHEAPEST)
    with Run.create(tmp_path / "run", "", 0) as run:
        progress.on_start(Start("retrain", run.path, None, 0, 20000))
        for step in (10000, 20000):
            clock[0] += 100.0
            progress.on_step(step, {"all": moved(0.25)})
            run.record("observer", step, observer="validation", psnr=30 + step / 10000, ssim=0.5, best_epoch=step)
            progress.on_epoch(step, None, genotype)
    progress.on_end()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "retrain 10000/20000 (50%)  100 steps/s  0:01:40 left  all 0.25  1.5 GB"
    assert lines[-1].endswith("all 0.25  psnr 31  best_epoch 10000  1.5 GB")


def test_a_resumed_search_tells_the_speed_of_its_own_steps(
    clock: list[float], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    progress = RunProgress()
    clock[0] += 60  # reading data does not count
    progress.on_start(Start("search", tmp_path, build_supernet(toy.config()), 900, 1000))
    clock[0] += 10
    progress.on_step(905, {"lower": moved(0.5)})
    progress.on_end()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("search 905/1000 (90%)  0.5 steps/s  0:03:10 left  lower 0.5  1.5 GB  first=conv 0.33")


def test_a_retraining(clock: list[float], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    progress = RunProgress()
    progress.on_start(Start("retrain", tmp_path, torch.nn.Identity(), 35, 60))
    for step in range(36, 42):
        clock[0] += 2.5
        progress.on_step(step, {"backbone" if step <= 40 else "averaging": moved(1 / step)})
    progress.on_end()
    assert capsys.readouterr().out.splitlines() == [
        "retrain 39/60 (65%)  0.4 steps/s  0:00:52 left  backbone 0.02564  1.5 GB",
        "retrain 41/60 (68%)  0.4 steps/s  0:00:48 left  averaging 0.02439  1.5 GB",
    ]


def test_a_prediction(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with predict_view() as on_item:
        for done in range(1, 7):
            clock[0] += 2.5
            on_item(done, 6)
    assert capsys.readouterr().out.splitlines() == [
        "predict 5/6 (83%)  0.4 frames/s  0:00:02 left  1.5 GB",
        "predict 6/6 (100%)  0.4 frames/s  0:00:00 left  1.5 GB",
    ]


def test_quiet_and_nothing_begun(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with predict_view():
        pass
    with predict_view(quiet=True) as on_item:
        on_item(1, 2)
        on_item(2, 2)
    progress = RunProgress(quiet=True)
    progress.on_start(Start("search", tmp_path, build_supernet(toy.config()), 0, 1))
    progress.on_step(1, {"lower": moved(0.5)})
    progress.on_epoch(1, None, Genotype(space="toy", choices=toy.CHEAPEST))
    progress.on_end()
    assert capsys.readouterr().out == ""


def test_memory_is_that_of_this_process() -> None:
    held = float(live_memory().removesuffix(" GB"))
    assert 0.1 <= held <= 100, "with torch imported"
