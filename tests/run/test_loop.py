"""What a search and a retraining do alike: epochs, resuming at any moment, the order in which observers are called."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

import processes
import toy
from nas.genotype.file import Genotype
from nas.run.config import Config
from nas.run.folder import Run
from nas.run.loop import ends_epoch
from nas.run.observer import Observer
from runs import NOISY, assert_equal_runs, last, run_retrain, run_search
from states import same
from watch import Log, Stop, Stopped

Loop = Callable[..., object]
LEVELS = {  # that move in nine steps
    run_search: [
        ["lower", *(["middle"] if step % 3 == 0 else []), *(["upper"] if step in (3, 5, 7, 9) else [])]
        for step in range(1, 10)
    ],
    run_retrain: [["backbone"]] * 5 + [["averaging"]] * 4,
}


@pytest.fixture(scope="module", params=[run_search, run_retrain], ids=["search", "retrain"])
def loop(request: pytest.FixtureRequest) -> Loop:
    """Runs the toy in a folder."""
    chosen: Loop = request.param
    return chosen


@pytest.fixture(scope="module", params=[3, 1])
def whole(
    loop: Loop, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Config, int]:
    """A run of nine steps that nothing interrupts, its configuration, and its steps from one checkpoint to the next.

    If there is a checkpoint after each step, one lies just where a stage ends. The retraining has all that it can have.
    """
    every: int = request.param
    stages = (
        f"retrain.stages.{stage}.{change}"
        for stage, steps in (("backbone", 5), ("averaging", 4))
        for change in (f"steps={steps}", "level.split=train", "level.schedule={name: cosine, warmup: 0.4}")
    )
    validation = (f"retrain.validation={{every: {every}, batches: 2}}", "retrain.ema=0.8")
    config = toy.config("search.steps=9", f"search.epochs={9 // every}", *validation, *stages)
    folder = tmp_path_factory.mktemp("whole") / "whole"
    torch.manual_seed(1)
    loop(folder, config)
    return folder, config, every


Whole = tuple[Path, Config, int]


def test_equal_seeds_give_equal_runs(loop: Loop, whole: Whole, tmp_path: Path) -> None:
    folder, config, _ = whole
    torch.manual_seed(2)
    before = torch.get_rng_state()
    loop(tmp_path / "again", config)
    assert_equal_runs(folder, tmp_path / "again")
    assert torch.equal(before, torch.get_rng_state()), "the caller's random state moved"
    loop(tmp_path / "other", msgspec.structs.replace(config, seed=1))
    assert (folder / "metrics.jsonl").read_bytes() != (tmp_path / "other" / "metrics.jsonl").read_bytes()


def test_a_thread_makes_the_same_batches_one_step_ahead_and_the_share_of_waiting_is_written(
    loop: Loop, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, config, every = whole
    names: set[str] = set()
    make = toy.ToyTask.batch

    def batch(task: toy.ToyTask, split: str, index: int) -> Any:
        names.add(threading.current_thread().name)
        return make(task, split, index)

    monkeypatch.setattr(toy.ToyTask, "threaded", True)
    monkeypatch.setattr(toy.ToyTask, "batch", batch)
    with pytest.raises(Stopped):
        loop(tmp_path / "run", config, Stop(5))
    loop(tmp_path / "run", config, resume=True)
    assert_equal_runs(folder, tmp_path / "run")
    assert any(name.startswith("batches") for name in names)
    lines = [msgspec.json.decode(line) for line in (tmp_path / "run" / "times.jsonl").read_bytes().splitlines()]
    assert {line["step"] for line in lines} == {*range(every, 10, every)}
    assert all(0 <= line["waiting"] <= 1 and line["seconds"] > 0 for line in lines)
    names.clear()
    loop(tmp_path / "off", msgspec.structs.replace(config, prefetch=False))
    assert not any(name.startswith("batches") for name in names)
    assert_equal_runs(folder, tmp_path / "off")


def test_a_long_epoch_is_saved_within(
    loop: Loop, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the clock of the system goes back, and after a resume with another time between checkpoints."""
    folder, config, every = whole
    saved: list[int] = []
    save, clock = Run.save_checkpoint, itertools.count(2e9, -3600)
    monkeypatch.setattr(Run, "save_checkpoint", lambda run, state: (saved.append(state["step"]), save(run, state)))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    with pytest.raises(Stopped):
        loop(tmp_path / "run", config, Stop(7))
    assert saved == [*range(0, 7, every)]
    how = {"search_section": config.search, "retrain_section": config.retrain}
    often = {name: msgspec.structs.replace(section, checkpoint_minutes=1e-9) for name, section in how.items()}
    loop(tmp_path / "run", msgspec.structs.replace(config, **often), resume=True)
    assert saved[-3:] == [7, 8, 9]
    names = ("metrics.jsonl", "genotype.yaml")
    assert [(folder / name).read_text() for name in names] == [(tmp_path / "run" / name).read_text() for name in names]
    assert same(last(folder), last(tmp_path / "run"))


@pytest.mark.parametrize("stop", range(10))
def test_a_run_stopped_after_any_step_goes_on_as_if_nothing_had_been(
    stop: int, loop: Loop, whole: Whole, tmp_path: Path
) -> None:
    folder, config, every = whole
    with pytest.raises(Stopped):
        loop(tmp_path / "run", config, Stop(stop))
    assert last(tmp_path / "run")["step"] == max(stop - 1, 0) // every * every, "the step itself has not been saved"
    torch.manual_seed(stop)
    loop(tmp_path / "run", config, resume=True)
    assert_equal_runs(folder, tmp_path / "run")


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 8])  # also in the last step of a stage
def test_a_run_that_is_asked_to_stop_saves_the_step(stop: int, loop: Loop, whole: Whole, tmp_path: Path) -> None:
    folder, config, _ = whole
    log, again = Log(), Log()
    with pytest.raises(KeyboardInterrupt):
        loop(tmp_path / "run", config, log, stop=lambda: len(log.steps) == stop)
    assert last(tmp_path / "run")["step"] == stop
    assert log.done == [*range(stop + 1)]
    loop(tmp_path / "run", config, again, resume=True)
    assert again.done == [*range(stop, 10)]
    assert_equal_runs(folder, tmp_path / "run")


def test_freed_memory_is_kept_during_the_steps_alone(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the run ends by an error."""
    inside: list[bool] = []

    @contextmanager
    def kept() -> Iterator[None]:
        inside.append(True)
        try:
            yield
        finally:
            inside.pop()

    monkeypatch.setattr("nas.run.loop.memory_kept", kept)
    during: list[bool] = []
    with pytest.raises(Stopped):
        loop(tmp_path / "run", toy.config(), Log(lambda network: during.extend(inside)), Stop(3))
    assert during == [True] * 4
    assert not inside


def test_a_finished_run_resumed_stays_what_it_is(loop: Loop, whole: Whole, tmp_path: Path) -> None:
    folder, config, _ = whole
    shutil.copytree(folder, tmp_path / "run")
    log = Log()
    loop(tmp_path / "run", config, log, resume=True)
    assert log.done == [9]
    assert_equal_runs(folder, tmp_path / "run")


@pytest.mark.parametrize(
    ("command", "shares", "seed"),
    [("search", [0.01, 0.3, 0.35, 0.9], 0), ("retrain", [0.2, 0.6, 0.75, 0.95], 1)],
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    command: str, shares: list[float], seed: int, tmp_path: Path
) -> None:
    NOISY.save(tmp_path / "genotype.yaml")
    whole, run = tmp_path / "whole", tmp_path / "run"
    (run_search if command == "search" else run_retrain)(whole, toy.config())
    target = toy.CONFIG if command == "search" else tmp_path / "genotype.yaml"  # the space's own configuration
    size = (whole / "metrics.jsonl").stat().st_size
    assert processes.run_with_kills([command, str(target), "--import", "toy"], run, size, shares, seed) == 0
    (run / "report.html").unlink()  # the command writes this as well
    if command == "retrain":  # and measures the network
        records = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        assert b'"kind":"evaluate"' in records.pop()
        (run / "metrics.jsonl").write_bytes(b"".join(records))
    assert_equal_runs(whole, run)


@pytest.mark.parametrize("steps", [1, 2, 5, 19, 20, 60, 12345])
@pytest.mark.parametrize("epochs", [1, 3, 7, 10, 60])
def test_there_are_as_many_epochs_as_asked_and_the_last_ends_with_the_last_step(steps: int, epochs: int) -> None:
    ends = [step for step in range(1, steps + 1) if ends_epoch(step, steps, epochs)]
    assert (len(ends), ends[-1]) == (min(epochs, steps), steps)
    lengths = {b - a for a, b in itertools.pairwise([0, *ends])}
    assert max(lengths) - min(lengths) <= 1


def test_an_observer_is_called_at_the_start_at_each_step_and_epoch_and_at_the_end(
    loop: Loop, whole: Whole, tmp_path: Path
) -> None:
    _, config, every = whole
    log = Log()
    loop(tmp_path / "run", config, log)
    (start,) = log.starts
    assert (start.folder, start.step, start.steps) == (tmp_path / "run", 0, 9)
    assert start.kind == ("search" if loop is run_search else "retrain")
    assert log.steps == list(enumerate(LEVELS[loop], 1))
    assert [step for step, _ in log.epochs] == [*range(every, 10, every)]
    assert log.epochs[-1][1] == Genotype.load(tmp_path / "run" / "genotype.yaml")
    assert log.ends == 1


def test_observers_end_in_the_opposite_order_whatever_happened(loop: Loop, tmp_path: Path) -> None:
    calls: list[str] = []

    class Named(Observer):
        def __init__(self, name: str, fails: str = "") -> None:
            self.name, self.fails = name, fails

        def _called(self, what: str) -> None:
            calls.append(f"{self.name} {what}")
            if what == self.fails:
                raise ZeroDivisionError

        def on_start(self, start: object) -> None:
            self._called("start")

        def on_step(self, step: int, moved: object, /) -> None:
            self._called("step")

        def on_end(self) -> None:
            self._called("end")

    with pytest.raises(ZeroDivisionError):
        loop(tmp_path / "run", toy.config(), Named("a"), Named("b", "step"), Named("c"))
    assert calls == ["a start", "b start", "c start", "a step", "b step", "c end", "b end", "a end"]
    calls.clear()
    with pytest.raises(ZeroDivisionError):
        loop(tmp_path / "run", toy.config(), Named("a"), Named("b", "start"), Named("c"), resume=True)
    assert calls == ["a start", "b start", "a end"]
