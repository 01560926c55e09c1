"""An Optuna study that several processes share: each trial runs once, and a killed trial resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import optuna

from nas.errors import ConfigError, without_password
from nas.files import locked, writing
from nas.searchers.leases import GRACE, LOCK, Lease, Leases, never
from nas.searchers.storage import JOURNAL, open_storage, open_study
from nas.tune.distributions import Distribution, grid_values

_FOLDER = "folder"
_FIXED = "fixed_params"
"""The attribute of a trial that holds the values which Optuna does not draw."""


def dashboard(url: str) -> str:
    """Return the argument of the program `optuna-dashboard` for a storage; a password is left out."""
    return without_password(url).removeprefix(JOURNAL)


class SharedStudy:
    """A study whose trials have folders, numbered, in a folder of its own.

    `claim` gives a trial to one process alone, by a lease (see `Leases`).
    """

    def __init__(
        self,
        storage: str,
        name: str,
        folder: Path,
        *,
        seed: int,
        prune: bool,
        maximize: bool = True,
        grace: float = GRACE,
    ) -> None:
        """Open or create a study.

        Args:
            storage: `journal:FILE`, or the URL of a database.
            name: of the study in the storage.
            folder: of the trials.
            seed: of the sampler.
            prune: whether trials with a score worse than the median end early.
            maximize: whether larger scores are better.
            grace: seconds without a sign of life after which a process on another host has lost its trial.

        Raises:
            ConfigError: the storage cannot be used, or its study has another folder or direction.
        """
        self.folder, self._seed = folder, seed
        pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()
        direction: Literal["maximize", "minimize"] = "maximize" if maximize else "minimize"
        with self.locked():
            opened = open_storage(storage)
            self.study = open_study(storage=opened, study_name=name, direction=direction, pruner=pruner)
            self._leases = Leases(self.study, opened, folder, grace=grace)
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
        return self._leases.path(number)

    @contextmanager
    def claim(
        self,
        count: int,
        distributions: Mapping[str, Distribution],
        stop: Callable[[], bool] = never,
        on_wait: Callable[[str], None] = lambda owners: None,
    ) -> Iterator[tuple[Lease, optuna.Trial, dict[str, str]] | None]:
        """A trial and its settings: one that was killed, else a new one; None if `count` trials have ended.

        A new trial depends on the seed, its number and the trials that have ended, and not on the process. Waits while
        other processes run the last trials; `stop` and `on_wait` are those of `Leases.claim`.
        """
        with self._leases.claim(count, stop, on_wait) as lease:
            yield None if lease is None else (lease, *self._begin(lease, distributions))

    def _begin(self, lease: Lease, distributions: Mapping[str, Distribution]) -> tuple[optuna.Trial, dict[str, str]]:
        number, settings = lease.number, dict[str, str]()
        if fixed := grid_values(distributions, number):
            self._leases.storage.set_trial_system_attr(lease.trial_id, _FIXED, fixed)
        trial = optuna.Trial(self.study, lease.trial_id)
        for place, (key, distribution) in enumerate(distributions.items()):
            # By number and key: processes must not all draw the same, and a kill between two draws changes neither.
            seed = (self._seed * 1_000_003 + number + place * 1_000_000_007) % 2**32
            self.study.sampler = optuna.samplers.TPESampler(seed=seed)
            settings[key] = distribution.draw(trial, key)
        return trial, settings

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process on this host can enter this context for the same folder."""
        with writing(self.folder / LOCK):
            file = locked(self.folder / LOCK, wait=True)
        try:
            yield
        finally:
            if file is not None:
                file.close()
