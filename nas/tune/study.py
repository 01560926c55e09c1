"""An Optuna study that several processes share: each trial is run once, and one that was killed goes on."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, overload

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import ConfigError, InvalidFileError
from nas.files import writing
from nas.tune.distributions import Distribution
from nas.tune.journal import Journal

JOURNAL = "journal:"
_FOLDER = "folder"


def dashboard(url: str) -> str:
    """What to give to the program `optuna-dashboard` to look at a storage."""
    return url.removeprefix(JOURNAL)


@contextmanager
def storing(url: str) -> Iterator[None]:
    """Inside, an error of the database is a `ConfigError` that starts with its URL."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ or error
        raise ConfigError(
            f"{url}: {str(cause).partition(chr(10))[0]}; the same command goes on once this is fixed"
        ) from error


class SharedStudy:
    """A study whose trials have folders, numbered, in a folder of its own.

    `claim` gives a trial to one process alone, as long as it holds the trial's lock; the folder must be on a file
    system with locks (flock). A trial that no process holds, though it has not ended, was killed: it is claimed again.
    """

    def __init__(self, storage: str, name: str, folder: Path, *, seed: int, prune: bool) -> None:
        """`storage` is `journal:FILE`, or the URL of a database. Raises `ConfigError` for one that cannot be used, and
        where the study has its trials in another folder, or minimizes."""
        self.folder, self._seed = folder, seed
        pruner = optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner()
        with self.locked():
            self.study = optuna.create_study(
                storage=_open(storage), study_name=name, direction="maximize", pruner=pruner, load_if_exists=True
            )
            mine = str(folder.resolve())
            other = self.study.user_attrs.get(_FOLDER, mine)
            if other != mine:
                raise ConfigError(f"study '{name}' has its trials in {other}; use that as --out, or another --study")
            if self.study.direction != optuna.study.StudyDirection.MAXIMIZE:
                raise ConfigError(
                    f"study '{name}' minimizes its scores, expected one that maximizes; use another --study"
                )
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

    def _claimed(self, count: int) -> tuple[optuna.Trial, IO[str]] | tuple[None, None]:
        trials = self.study.get_trials(deepcopy=False)
        for frozen in trials:
            if frozen.state == TrialState.RUNNING and (lock := _lock(self.path(frozen.number), wait=False)):
                return optuna.Trial(self.study, frozen._trial_id), lock
        number = sum(frozen.state != TrialState.WAITING for frozen in trials)
        if number >= count:
            return None, None
        seed = (self._seed * 1_000_003 + number) % 2**32  # by number: processes must not all draw the same
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self.study.ask()
        return trial, _lock(self.path(trial.number))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from claiming, and from entering this."""
        with _lock(self.folder):
            yield


@overload
def _lock(folder: Path) -> IO[str]: ...
@overload
def _lock(folder: Path, *, wait: bool) -> IO[str] | None: ...
def _lock(folder: Path, *, wait: bool = True) -> IO[str] | None:
    """A lock that its file holds until it is closed, at the latest when the process ends."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    return file


def _open(url: str) -> BaseStorage:
    if url.startswith(JOURNAL):
        path = Path(url.removeprefix(JOURNAL))
        if not path.parent.is_dir() or path.is_dir():
            raise ConfigError(f"{url}: cannot be written; expected journal:FILE in a folder that exists")
        journal = Journal(path)
        try:
            return JournalStorage(journal)
        except Exception as error:  # records that are none of a study make it raise anything
            raise InvalidFileError(f"{path}: not the journal of a study ({type(error).__name__})") from error
    if "://" not in url:
        raise ConfigError(
            f"'{url}' is no storage, expected journal:FILE or the URL of a database, such as sqlite:///f.db"
        )
    try:
        return RDBStorage(url)
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigError(f"{url}: {str(error).partition(chr(10))[0]}") from error
