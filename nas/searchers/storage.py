"""Storages of Optuna, by text: a journal file, or a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
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
            f"{url}: {str(cause).partition(chr(10))[0]}; the same command goes on once this is fixed"
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
