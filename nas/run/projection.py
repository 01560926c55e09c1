"""A supernet that trains on while its decisions are made, for policies such as `perturbation`; it survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

from nas.distributed.ranks import of_first
from nas.errors import InvalidFileError
from nas.genotype.decision import Choice
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.run import checkpoint
from nas.run.config import Config
from nas.supernet import Supernet

STATE = "checkpoints/projection.pt"
"""Where the folder of a search keeps the state after each training."""


class TrainedProjection:
    """A copy of a supernet, whose levels train with the decisions made so far.

    Relaxations, wrappers and ramps stay as they were at the end of the search (ruocwang/darts-pt, `sota/cnn/
    projection.py`, hands over the last epsilon). Learning rates follow their schedules over all trainings together.

    After each training its state is written; an object with the same key resumes from it.

    Args:
        supernet: the copy.
        levels: over the copy, of as many steps as all trainings together, after the steps of the search.
        score: the validation score of the copy; larger is better.
        steps: of one training.
        path: of the state.
        key: plain data of which the projection is a function. A state of another key is not used.

    Raises:
        InvalidFileError: the state is damaged.
    """

    def __init__(
        self,
        supernet: Supernet,
        levels: Multilevel,
        score: Callable[[Supernet], float],
        *,
        steps: int,
        path: Path,
        key: Mapping[str, Any],
    ) -> None:
        self._supernet, self._levels, self._score, self._steps = supernet, levels, score, steps
        self._path, self._key = path, dict(key)
        self._done = 0
        self._choices: dict[str, Choice] = {}
        with torch.random.fork_rng():
            torch.manual_seed(supernet.seed)
            self._random = checkpoint.random_state()
        if of_first(path.is_file):
            self._resume()

    @property
    def choices(self) -> Mapping[str, Choice]:
        return dict(self._choices)

    def score(self, label: str, candidate: str | int) -> float:
        self._supernet.on_progress(1, 2)  # schedules are where the search left them, as in its trainings
        with self._supernet.partly_fixed(self._choices, (label, candidate)):
            return self._score(self._supernet)

    def choose(self, label: str, choice: Choice) -> None:
        self._choices[label] = choice

    def train(self) -> None:
        with torch.random.fork_rng(), self._supernet.partly_fixed(self._choices):
            checkpoint.set_random_state(self._random)
            for k in range(self._done, self._done + self._steps):
                self._levels.step(k)
            self._random = checkpoint.random_state()
        self._done += self._steps
        state = {
            "key": self._key,
            "choices": self._choices,
            "done": self._done,
            "network": self._supernet.state_dict(),
            "levels": self._levels.state_dict(),
            "random": self._random,
        }
        checkpoint.save(self._path, state)

    def _resume(self) -> None:
        state = of_first(lambda: checkpoint.load(self._path))
        with checkpoint.restoring(self._path):
            if state["key"] != self._key:
                return
            checkpoint.load_into(self._supernet, state["network"], self._path)
            self._levels.load_state_dict(state["levels"])
            self._choices, self._done, self._random = state["choices"], state["done"], state["random"]
        if self._done > self._levels.steps:
            raise InvalidFileError(f"{self._path}: must have at most {self._levels.steps} steps, got {self._done}")


def projected(config: Config, steps: int, lr: float, weights: Sequence[Level]) -> Config:
    """Return the configuration of the trainings together: no warm-up, and lower learning rates of operation weights.

    Args:
        config: of the search.
        steps: of all trainings.
        lr: the learning rates of `weights`, as a share of those of the search.
        weights: the levels that own operation weights.
    """

    def reduced(level: Level) -> Level:
        rate = level.optimizer["lr"] * (lr if level in weights else 1.0)
        return replace(level, optimizer={**level.optimizer, "lr": rate}, warmup=0.0)

    how = config.search
    levels = {name: reduced(level) for name, level in how.levels.items()}
    return replace(config, search_section=replace(how, steps=steps, levels=levels), initial={}, start="")
