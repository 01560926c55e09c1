"""An Optuna study that several processes share: each trial runs once, and a killed trial resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import optuna
from optuna.trial import TrialState

from nas.errors import ConfigError
from nas.files import locked
from nas.searchers.storage import JOURNAL, open_storage, open_study
from nas.tune.distributions import Distribution

LOCK = ".lock"
_FOLDER = "folder"


def dashboard(url: str) -> str:
    """Return the argument of the program `optuna-dashboard` for a storage."""
    return url.removeprefix(JOURNAL)


class SharedStudy:
    """A study whose trials have folders, numbered, in a folder of its own.

    `claim` gives a trial to one process alone, as long as it holds the trial's lock; the folder must be on a file
    system with locks (flock). A trial that no process holds, though it has not ended, was killed: it is claimed again.
    """

    def __init__(self, storage: str, name: str, folder: Path, *, seed: int, prune: bool, maximize: bool = True) -> None:
        """Open or create a study.

        Args:
            storage: `journal:FILE`, or the URL of a database.
            name: of the study in the storage.
            folder: of the trials.
            seed: of the sampler.
            prune: whether trials with a score worse than the median end early.
            maximize: whether larger scores are better.

        Raises:
            ConfigError: the storage cannot be used, or its study has another folder or direction.
        """
        self.folder, self._seed = folder, seed
        pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()
        direction: Literal["maximize", "minimize"] = "maximize" if maximize else "minimize"
        with self.locked():
            self.study = open_study(storage=open_storage(storage), study_name=name, direction=direction, pruner=pruner)
            mine = str(folder.resolve())
            other = self.study.user_attrs.get(_FOLDER, mine)
            if other != mine:
                raise ConfigError(f"study '{name}' has its trials in {other}; use that as --out, or another --study")
            if (found := self.study.direction.name.lower()) != direction:
                raise ConfigError(f"study '{name}' must {direction} its scores, got {found}; use another --study")
            self.study.set_user_attr(_FOLDER, mine)

    def require_equal(self, what: str, value: str) -> None:
        """Record a setting of the study; raises `ConfigError` if another value of it is recorded."""
        recorded = self.study.user_attrs.get(what, value)
        if recorded != value:
            raise ConfigError(f"{self.folder}: {what} was '{recorded}', got '{value}'; use it, or another folder")
        self.study.set_user_attr(what, value)

    def path(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / f"trial-{number:04d}"

    @contextmanager
    def claim(
        self, count: int, distributions: Mapping[str, Distribution]
    ) -> Iterator[tuple[optuna.Trial, dict[str, str]] | None]:
        """A trial and its settings: one that was killed, else a new one; None where `count` trials are claimed already.

        A new trial depends on the seed, its number and the trials that have ended, and not on the process.
        """
        with self.locked():
            trial, lock = self._claimed(count)
            settings = {} if trial is None else {key: d.draw(trial, key) for key, d in distributions.items()}
        try:
            yield None if trial is None else (trial, settings)
        finally:
            if lock is not None:
                lock.close()

    def _claimed(self, count: int) -> tuple[optuna.Trial | None, IO[str] | None]:
        trials = self.study.get_trials(deepcopy=False)
        for frozen in trials:
            if frozen.state == TrialState.RUNNING and (lock := locked(self._lock(frozen.number))):
                return optuna.Trial(self.study, frozen._trial_id), lock
        number = sum(frozen.state != TrialState.WAITING for frozen in trials)
        if number >= count:
            return None, None
        seed = (self._seed * 1_000_003 + number) % 2**32  # by number: processes must not all draw the same
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self.study.ask()
        return trial, locked(self._lock(trial.number), wait=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, other processes can neither claim a trial nor enter this context."""
        file = locked(self.folder / LOCK, wait=True)
        try:
            yield
        finally:
            if file is not None:
                file.close()

    def _lock(self, number: int) -> Path:
        """The file that a process locks while it runs a trial."""
        return self.path(number) / LOCK
