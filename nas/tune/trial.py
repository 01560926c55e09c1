"""One trial: a search and the retraining of its genotype, or the retraining of a given genotype."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nas.genotype.file import Genotype
from nas.run.config import Config
from nas.run.held_out import Splits, begun, train_and_score
from nas.run.observer import Observer
from nas.run.proposals import search

SEARCH, RETRAIN = "search", "retrain"
"""The names of the run folders of a trial."""


def run_trial(
    config: Config,
    genotype: Genotype | None,
    folder: Path,
    report: Callable[[int, float], None],
    splits: Splits,
    observers: Sequence[Observer] = (),
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Run one trial and return the task's metrics of its network; resumes from the checkpoints of a killed trial.

    Args:
        config: of the trial.
        genotype: what is retrained; None for what a search finds.
        folder: of the trial.
        report: called with the steps done and the task's score at each epoch but the last; may raise to end the trial.
        splits: on what the network is trained and scored.
        observers: of the search and of the retraining.
        stop: whether to end after the step at hand, by `KeyboardInterrupt` (see `Run.stop`).

    Raises what `search` and `retrain` do.
    """
    config = splits.of(config)
    if genotype is None:
        with begun(folder / SEARCH, config, stop) as run:
            genotype = search(config, run, observers)
    return train_and_score(config, genotype, folder / RETRAIN, splits, observers, report=report, stop=stop)
