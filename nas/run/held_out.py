"""Retrainings that are scored on held-out data: trained on one split of the task, scored on another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from msgspec.structs import replace
from torch import nn

from nas.errors import ConfigError
from nas.genotype.file import Genotype
from nas.run.config import Config
from nas.run.folder import CONFIG, Run
from nas.run.observer import Observer, Start
from nas.run.retraining import build_network, evaluate, retrain
from nas.run.task import Task


class Splits(NamedTuple):
    """The splits on which a network is trained and scored; they must not overlap."""

    train: str = "train"
    score: str = "val"

    def of(self, config: Config) -> Config:
        """Return the configuration with `train` as the split of all stages of its retraining, which keeps its last
        weights: the best ones on `score` would be scored on what chose them."""
        stages = {
            name: replace(stage, level=replace(stage.level, split=self.train))
            for name, stage in config.retrain.stages.items()
        }
        return replace(config, retrain_section=replace(config.retrain, stages=stages, validation=None))

    def check(self, task: Task, where: str, how: str) -> None:
        """Raise `ConfigError` if the two splits overlap; a task may not know its members.

        Args:
            task: of the retraining.
            where: the start of the message.
            how: how to choose other splits.
        """
        shared = len(set(task.members(self.train)).intersection(task.members(self.score)))
        shared = shared or int(self.train == self.score)
        if shared:
            raise ConfigError(
                f"{where}: split '{self.train}', on which networks train, must not overlap split '{self.score}', on"
                f" which they are scored, got {shared} in both. Choose other splits by {how}"
            )


def train_and_score(
    config: Config,
    genotype: Genotype,
    folder: Path,
    splits: Splits,
    observers: Sequence[Observer] = (),
    *,
    report: Callable[[int, float], None] = lambda step, score: None,
    stop: Callable[[], bool] = lambda: False,
    task: Task | None = None,
) -> dict[str, float]:
    """Retrain a genotype in a run folder, and return the task's metrics on the held-out split.

    Resumes from the checkpoints of a process that was killed.

    Args:
        config: of the retraining.
        genotype: of the network.
        folder: of the run: a new one, or that of a retraining that was begun.
        splits: on what the network is trained and scored.
        observers: of the retraining.
        report: called with the steps done and the task's score at each epoch but the last; may raise to end the
            retraining.
        stop: whether to end after the step at hand, by `KeyboardInterrupt` (see `Run.stop`).
        task: in place of the configured one.

    Raises what `retrain` does.
    """
    config = splits.of(config)
    scored = task or config.build_task(retraining=True)
    network = build_network(config, genotype)
    with begun(folder, config, stop) as run:
        scoring = _Scoring(run, scored, splits.score, report)
        retrain(config, genotype, run, [*observers, scoring], initial=network, scored=splits.score, task=task)
        return scoring.score(config.retrain.steps, network)


class _Scoring(Observer):
    """Scores the network of a retraining at each epoch but the last."""

    name = "scoring"

    def __init__(self, run: Run, task: Task, split: str, report: Callable[[int, float], None]) -> None:
        self._run, self._task, self._split, self._report = run, task, split, report

    def on_start(self, start: Start) -> None:
        self._steps = start.steps

    def on_epoch(self, step: int, network: nn.Module, genotype: Genotype, /) -> None:
        if step < self._steps:
            with torch.random.fork_rng():
                scores = self.score(step, network)
            self._report(step, scores[self._task.score])

    def score(self, step: int, network: nn.Module) -> dict[str, float]:
        """Evaluate the network and record the metrics."""
        scores = evaluate(network, self._task, self._split)
        self._run.record("evaluate", step, **scores, best=dict(self._task.metrics))
        return scores


@contextmanager
def begun(folder: Path, config: Config, stop: Callable[[], bool]) -> Iterator[Run]:
    """Open the run in a folder, or create one if there is none."""
    text = config.dump()
    exists = (folder / CONFIG).is_file()
    with Run.open(folder, text) if exists else Run.create(folder, text, config.seed) as run:
        run.stop = stop
        yield run
