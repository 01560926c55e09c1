"""Observers for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nas.genotype.file import Genotype
from nas.multilevel.multilevel import Moved
from nas.run.observer import Observer, Start


class Stopped(Exception):
    """In place of a kill."""


class Stop(Observer):
    """Raises `Stopped` after a step; 0 is the start of the run."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_start(self, start: Start) -> None:
        if self.step == 0:
            raise Stopped

    def on_step(self, step: int, moved: Mapping[str, Moved], /) -> None:
        if step == self.step:
            raise Stopped


class Log(Observer):
    """Keeps what it is called with, and calls a function with the network at the start and after each step."""

    def __init__(self, look: Callable[[Any], object] = lambda network: None) -> None:
        self.look = look
        self.starts: list[Start] = []
        self.steps: list[tuple[int, list[str]]] = []
        self.epochs: list[tuple[int, Genotype]] = []
        self.ends = 0

    @property
    def done(self) -> list[int]:
        """The steps done at each call so far."""
        return [start.step for start in self.starts] + [step for step, _ in self.steps]

    def on_start(self, start: Start) -> None:
        self.starts.append(start)
        self.look(start.network)

    def on_step(self, step: int, moved: Mapping[str, Moved], /) -> None:
        self.steps.append((step, list(moved)))
        self.look(self.starts[-1].network)

    def on_epoch(self, step: int, network: Any, genotype: Genotype, /) -> None:
        self.epochs.append((step, genotype))

    def on_end(self) -> None:
        self.ends += 1
