"""What a search, a retraining and a prediction show, on the toy space."""

from __future__ import annotations

import time

import pytest
import torch
import toy

from nas.multilevel import Moved
from nas.report import live
from nas.report.live import predict_view, retrain_view, search_view
from nas.search import build_supernet

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


def test_a_search(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    supernet = build_supernet(toy.config())
    with search_view(toy.config("search.steps=40")) as (on_step, on_epoch):
        on_step(0, {}, supernet)
        with torch.no_grad():
            supernet.arch["second"].copy_(torch.tensor([0.0, 1.0]))
        for step in range(1, 41):
            clock[0] += 2.0
            levels = {"lower": moved(1 / step)} | ({"upper": moved(0.5)} if step % 4 == 0 else {})
            on_step(step, levels, supernet)
            if step % 20 == 0:
                on_epoch(step, ["cell 'normal' has collapsed"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines.count("advice: cell 'normal' has collapsed") == 1, "what was said is not said again"
    assert lines[0] == (  # the mixing weights are looked at every ten steps
        "search 5/40 (12%)  0.5 steps/s  0:01:10 left  lower 0.2  upper 0.5  1.5 GB"
        "  first=conv 0.33 (+0.00)  second=linear 0.50 (+0.00)"
    )
    assert lines[-1] == (
        "search 40/40 (100%)  0.5 steps/s  0:00:00 left  lower 0.025  upper 0.5  1.5 GB"
        "  first=conv 0.33 (+0.00)  second=tanh 0.73 (+0.46)"
    )


def test_a_resumed_search_tells_the_speed_of_its_own_steps(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    supernet = build_supernet(toy.config())
    with search_view(toy.config("search.steps=1000")) as (on_step, _):
        clock[0] += 60  # reading data counts neither
        on_step(900, {}, supernet)
        clock[0] += 10
        on_step(905, {"lower": moved(0.5)}, supernet)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("search 905/1000 (90%)  0.5 steps/s  0:03:10 left  lower 0.5  1.5 GB  first=conv 0.33")


def test_a_retraining(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with retrain_view(toy.config()) as on_step:
        on_step(35, "backbone", None)
        for step in range(36, 41):
            clock[0] += 2.5
            on_step(step, "backbone", moved(1 / step))
        on_step(40, "averaging", None)
        clock[0] += 2.5
        on_step(41, "averaging", moved(0.25))
    assert capsys.readouterr().out.splitlines() == [
        "retrain 39/60 (65%)  0.4 steps/s  0:00:52 left  backbone 0.02564  1.5 GB",
        "retrain 41/60 (68%)  0.4 steps/s  0:00:48 left  averaging 0.25  1.5 GB",
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


def test_quiet_and_nothing_begun(capsys: pytest.CaptureFixture[str]) -> None:
    with search_view(toy.config()), retrain_view(toy.config()), predict_view():
        pass
    with predict_view(quiet=True) as on_item:
        on_item(1, 2)
        on_item(2, 2)
    assert capsys.readouterr().out == ""


def test_what_stops_the_loop_passes_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), retrain_view(toy.config()) as on_step:  # noqa: PT012
        on_step(0, "backbone", None)
        on_step(3, "backbone", moved(1.0))
        raise KeyboardInterrupt
    assert capsys.readouterr().out.startswith("retrain 3/60 (5%)")


def test_memory_is_that_of_this_process() -> None:
    held = float(live_memory().removesuffix(" GB"))
    assert 0.1 <= held <= 100, "with torch imported"
