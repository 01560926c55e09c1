"""What a search, a retraining and a prediction show, on the toy space."""

from __future__ import annotations

import time

import pytest
import torch
import toy

from nas.multilevel import Moved
from nas.report.live import predict_view, retrain_view, search_view
from nas.search import build_supernet


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves; plain lines come every ten seconds and at the end."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def moved(loss: float) -> Moved:
    return Moved(loss, 1.0, {"entropy": 0.5})


def test_a_search(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    supernet = build_supernet(toy.config())
    with search_view(toy.config("search.steps=40")) as on_step:
        on_step(0, {}, supernet)
        with torch.no_grad():
            supernet.arch["second"].copy_(torch.tensor([0.0, 1.0]))
        for step in range(1, 41):
            clock[0] += 2.0
            levels = {"lower": moved(1 / step)} | ({"upper": moved(0.5)} if step % 4 == 0 else {})
            on_step(step, levels, supernet)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[0] == (  # the mixing weights are looked at every ten steps
        "search 5/40 (12%)  0.5 steps/s  0:01:10 left  lower 0.2  upper 0.5  first=conv 0.33  second=linear 0.50"
    )
    assert lines[-1] == (
        "search 40/40 (100%)  0.5 steps/s  0:00:00 left  lower 0.025  upper 0.5  first=conv 0.33  second=tanh 0.73"
    )


def test_a_resumed_search_tells_the_speed_of_its_own_steps(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    supernet = build_supernet(toy.config())
    with search_view(toy.config("search.steps=1000")) as on_step:
        clock[0] += 60  # reading data counts neither
        on_step(900, {}, supernet)
        clock[0] += 10
        on_step(905, {"lower": moved(0.5)}, supernet)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("search 905/1000 (90%)  0.5 steps/s  0:03:10 left  lower 0.5  first=conv 0.33")


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
        "retrain 39/60 (65%)  0.4 steps/s  0:00:52 left  backbone 0.02564",
        "retrain 41/60 (68%)  0.4 steps/s  0:00:48 left  averaging 0.25",
    ]


def test_a_prediction(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with predict_view() as on_item:
        for done in range(1, 7):
            clock[0] += 2.5
            on_item(done, 6)
    assert capsys.readouterr().out.splitlines() == [
        "predict 5/6 (83%)  0.4 steps/s  0:00:02 left",
        "predict 6/6 (100%)  0.4 steps/s  0:00:00 left",
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
