"""Storages of Optuna, by text: a journal file, or a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.study import Study
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import ConfigError, InvalidFileError
from nas.searchers.journal import Journal

JOURNAL = "journal:"


@contextmanager
def storing(url: str) -> Iterator[None]:
    """Inside, errors of the database become a `ConfigError` that starts with its URL."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ or error
        raise ConfigError(
            f"{url}: {str(cause).partition(chr(10))[0]}; fix this, then run the same command again"
        ) from error


def open_storage(url: str) -> BaseStorage:
    """Open a storage: `journal:FILE`, or the URL of a database.

    Raises:
        ConfigError: the text names no storage, or one that cannot be used.
        InvalidFileError: the file is no journal of a study.
    """
    if url.startswith(JOURNAL):
        path = Path(url.removeprefix(JOURNAL))
        if not path.parent.is_dir() or path.is_dir():
            found = "a folder" if path.is_dir() else f"no folder {path.parent}"
            raise ConfigError(f"{url} must name a file in a folder that exists, got {found}")
        journal = Journal(path)
        try:
            return JournalStorage(journal)
        except Exception as error:  # records that are none of a study make it raise anything
            raise InvalidFileError(f"{path}: not the journal of a study ({type(error).__name__})") from error
    if "://" not in url:
        raise ConfigError(
            f"a storage must be journal:FILE or the URL of a database, such as sqlite:///f.db, got '{url}'"
        )
    try:
        return RDBStorage(url)
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigError(f"{url}: {str(error).partition(chr(10))[0]}") from error


def open_study(**options: Any) -> Study:
    """Create a study, or open it if it exists: `optuna.create_study` without its log messages.

    Optuna's level of logging is the process's, so it is restored.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(**options, load_if_exists=True)
    finally:
        optuna.logging.set_verbosity(before)
