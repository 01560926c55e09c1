"""One trial: a search and a retraining of what it found, or the retraining of a given genotype, in folders of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from msgspec.structs import replace

from nas.config import Config
from nas.errors import ConfigError
from nas.genotype import Genotype
from nas.multilevel import Moved
from nas.retrain import OnStep as OnRetrainStep
from nas.retrain import build_network, evaluate, retrain
from nas.run import CONFIG, Run
from nas.search import OnEpoch, search
from nas.search import OnStep as OnSearchStep
from nas.task import of_split

SEARCH, RETRAIN = "search", "retrain"
"""The folders of the runs in the folder of a trial."""


def _no_search(config: Config) -> AbstractContextManager[tuple[OnSearchStep, OnEpoch]]:
    return nullcontext((lambda *_: None, lambda *_: None))


def _no_retraining(config: Config) -> AbstractContextManager[OnRetrainStep]:
    return nullcontext(lambda *_: None)


def _never() -> bool:
    return False


class Views(NamedTuple):
    """What watches the runs of a trial: each gives, for a configuration, what is called after each step (and epoch)."""

    search: Callable[[Config], AbstractContextManager[tuple[OnSearchStep, OnEpoch]]] = _no_search
    retrain: Callable[[Config], AbstractContextManager[OnRetrainStep]] = _no_retraining
    stop: Callable[[], bool] = _never
    """Whether to end after the step at hand, by `KeyboardInterrupt` (see `Run.stop`)."""


class Splits(NamedTuple):
    """The data of a trial's retraining, and those that its network is scored on, which must not overlap."""

    train: str = "train"
    score: str = "val"

    def of(self, config: Config) -> Config:
        """The configuration whose retraining reads `train` alone, in all of its stages."""
        stages = {
            name: replace(stage, level=replace(stage.level, split=self.train))
            for name, stage in config.retrain.stages.items()
        }
        return replace(config, retrain=replace(config.retrain, stages=stages))

    def check(self, config: Config) -> None:
        """Raise `ConfigError` if the task cannot score a split, or says that the two overlap."""
        task = config.build_task(retraining=True)
        of_split(task.evaluate, self.score)
        shared = 1 if self.train == self.score else 0
        if hasattr(task, "members"):
            shared = len(set(task.members(self.train)).intersection(task.members(self.score)))
        if shared:
            raise ConfigError(
                f"tune: split '{self.train}', on which trials train, must not overlap split '{self.score}', on which"
                f" they are scored, got {shared} in both. Choose other splits by --train and --score"
            )


def run_trial(
    config: Config,
    genotype: Genotype | None,
    folder: Path,
    report: Callable[[int, float], None],
    views: Views,
    splits: Splits,
) -> dict[str, float]:
    """The task's metrics of the network that a trial trains; a trial that was killed goes on from its checkpoints.

    `report` receives the task's score as often as the retraining saves a checkpoint, with the steps done, and may raise
    to end the trial. Raises what `search` and `retrain` do.
    """
    config = splits.of(config)
    if genotype is None:
        with _run(folder / SEARCH, config, views.stop) as run, views.search(config) as (on_step, on_epoch):
            genotype = search(config, run, on_step, on_epoch)
    task = config.build_task(retraining=True)
    network = build_network(config, genotype)
    total = config.retrain.steps
    with _run(folder / RETRAIN, config, views.stop) as run, views.retrain(config) as show:

        def score(step: int, stage: str, moved: Moved | None) -> None:
            show(step, stage, moved)
            if moved is not None and config.retrain.ends_epoch(step) and step < total:
                with torch.random.fork_rng():
                    scores = evaluate(network, task, splits.score)
                run.record("evaluate", step, **scores)
                report(step, scores[task.score])

        retrain(config, genotype, run, score, initial=network, scored=splits.score)
        scores = evaluate(network, task, splits.score)
        run.record("evaluate", total, **scores)
    return scores


@contextmanager
def _run(folder: Path, config: Config, stop: Callable[[], bool]) -> Iterator[Run]:
    text = config.dump()
    begun = (folder / CONFIG).is_file()
    with Run.open(folder, text) if begun else Run.create(folder, text, config.seed) as run:
        run.stop = stop
        yield run
